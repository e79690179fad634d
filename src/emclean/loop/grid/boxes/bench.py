"""What a cell works with: the pictures, its noisy labels, its expert's images, and models kept by content.

Everything here is plain and picklable, so that a cell runs in any process; nothing imports ray.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.loop import policies
from emclean.loop.grid.cells import Cell
from emclean.loop.grid.experiment import Watch
from emclean.loop.grid.models import alone
from emclean.models import engine
from emclean.models.hooks import LocalHooks
from emclean.models.spec import DetectorSpec, FitJob, FitResult, Schedule
from emclean.science import noise
from emclean.types import ImageRecord, Labels, Predictions, Target

FOLDS = 2


@dataclass(frozen=True)
class Recipe:
    """The detector and its training, the same in every cell; ``init_digest`` tells the file ``init``.

    ``steps`` are those of a model that judges labels, ``final_steps`` those of the model that is measured.
    """

    spec: DetectorSpec
    schedule: Schedule
    steps: int
    final_steps: int
    init: str | None
    init_digest: str

    def facts(self) -> dict[str, Any]:
        """What decides the result; how often progress is told does not."""
        schedule = {**asdict(self.schedule), "eval_every": None, "max_steps": None}
        kept = {"steps": self.steps, "final_steps": self.final_steps, "init": self.init_digest}
        return {"spec": asdict(self.spec), "schedule": schedule, **kept}


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures with their truth; ``pixels`` is the folder of their grey copies."""

    records: tuple[ImageRecord, ...]
    truth: Mapping[str, Labels]
    pixels: str

    def ids(self) -> list[str]:
        """The image ids, sorted."""
        return sorted(record.image_id for record in self.records)

    def pictures(self, ids: Sequence[str]) -> tuple[str, ...]:
        """The paths of the images' grey pixels."""
        return tuple(f"{self.pixels}/{image_id}.npy" for image_id in ids)

    def picture(self, image_id: str) -> NDArray[np.uint8]:
        """The grey pixels ``[H,W]`` of an image."""
        return np.asarray(np.load(self.pictures([image_id])[0]))

    def groups(self) -> dict[str, str]:
        """The group of every image."""
        return {record.image_id: record.group for record in self.records}


@dataclass(frozen=True, eq=False)
class Bench:
    """What all cells of a grid share; ``models`` is the folder of trained models, named by their content."""

    train: Part
    test: Part
    recipe: Recipe
    expert_images: int
    models: str

    @property
    def n_categories(self) -> int:
        """How many categories there are."""
        return self.recipe.spec.n_categories


@dataclass(eq=False)
class Case:
    """One cell at work: its labels, its expert, and the training of its models.

    ``done`` counts the training steps behind it, ``trained_s`` the seconds that these took (also where
    another cell has trained the model), ``waited_s`` those in which another cell trained what this one needs.
    """

    bench: Bench
    cell: Cell
    watch: Watch = lambda done: None
    device: str | None = None
    noisy: dict[str, Labels] = field(init=False)
    expert: dict[str, Labels] = field(init=False)
    done: int = 0
    trained_s: float = 0.0
    waited_s: float = 0.0

    def __post_init__(self) -> None:
        self.noisy, self.expert = noisy_labels(self.bench, self.cell), expert_labels(self.bench, self.cell)

    def rng(self, purpose: str) -> np.random.Generator:
        """A generator for one purpose; noise and rate do not change it, so that models are shared."""
        return np.random.default_rng([self.cell.seed, zlib.crc32(purpose.encode())])

    def folds(self, purpose: str, ids: Sequence[str]) -> dict[str, int]:
        """The cross-fitting fold of each image, whole groups at a time."""
        group = self.bench.train.groups()
        return policies.grouped_folds({i: group[i] for i in ids}, FOLDS, self.rng(purpose))

    def fit(self, targets: Mapping[str, Target], steps: int, purpose: str) -> str:
        """Train a model, or find it; return its file of weights."""
        job = self._job(targets, steps, int(self.rng(purpose).integers(2**31)))
        before, out = self.done, Path(job.out)
        out.mkdir(parents=True, exist_ok=True)
        with alone(out / "lock") as waited:
            self.waited_s += waited
            hooks = LocalHooks(job.out, watch=lambda at: self.watch(before + at.step), device=self.device)
            result: FitResult = engine.fit(job, hooks)
        self.done, self.trained_s = before + steps, self.trained_s + result.seconds
        self.watch(self.done)
        return result.weights

    def _job(self, targets: Mapping[str, Target], steps: int, seed: int) -> FitJob:
        recipe, ids = self.bench.recipe, sorted(targets)
        schedule = recipe.schedule
        schedule = replace(schedule, max_steps=steps, eval_every=min(schedule.eval_every, steps))
        job = FitJob(
            recipe.spec,
            self.bench.train.pictures(ids),
            tuple(targets[i] for i in ids),
            schedule=schedule,
            seed=seed,
            out=self.bench.models,
            init=recipe.init,
        )
        return replace(job, out=f"{self.bench.models}/{job.digest()}")

    def predict(
        self, weights: str, part: Part, ids: Sequence[str], flips: bool = False
    ) -> dict[str, Predictions]:
        """What a model finds in these pictures; ``flips`` averages what it sees as they are and mirrored."""
        detector = engine.load(weights)
        if self.device:
            detector.to(self.device)
        loaded = (np.load(path, mmap_mode="r", allow_pickle=False) for path in part.pictures(ids))
        return dict(zip(ids, engine.predict(detector, loaded, flips=flips), strict=True))

    def cross_fit(
        self, targets: Mapping[str, Target], fold: Mapping[str, int], purpose: str
    ) -> dict[str, Predictions]:
        """What is found in every image of ``fold`` by a model that was not trained on its fold."""
        found: dict[str, Predictions] = {}
        for k in range(FOLDS):
            rest = {i: target for i, target in targets.items() if fold[i] != k}
            weights = self.fit(rest, self.bench.recipe.steps, f"{purpose} {k}")
            asked = sorted(i for i in fold if fold[i] == k)
            found.update(self.predict(weights, self.bench.train, asked, flips=True))
        return found


def noisy_labels(bench: Bench, cell: Cell) -> dict[str, Labels]:
    """The truth with the cell's errors planted: the same for every method and order of the images."""
    rates = noise.at_rate(cell.noise, cell.rate, bench.n_categories)
    key = [cell.seed, zlib.crc32(cell.noise.encode()), round(cell.rate * 1e9)]
    planted = {}
    for record in bench.train.records:
        rng = np.random.default_rng([*key, int(record.image_id, 16)])
        truth = bench.train.truth[record.image_id]
        planted[record.image_id] = noise.plant(
            truth, record.width, record.height, rates, bench.n_categories, rng
        ).labels
    return planted


def expert_labels(bench: Bench, cell: Cell) -> dict[str, Labels]:
    """The truth of the images that the expert has labelled, drawn at random by the seed."""
    rng = np.random.default_rng([cell.seed, zlib.crc32(b"expert")])
    ids = bench.train.ids()
    drawn = rng.permutation(len(ids))[: bench.expert_images]
    return {ids[k]: bench.train.truth[ids[k]] for k in sorted(drawn.tolist())}
