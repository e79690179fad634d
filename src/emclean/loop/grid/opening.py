"""From a configuration to a grid: reads or simulates the data, plans the cells, finds the computers."""

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from emclean import services
from emclean.config import NoiseGrid
from emclean.errors import ComputeError, ConfigError, DataError
from emclean.imaging import simulate
from emclean.loop.console import Console
from emclean.loop.grid.bench import Bench, Part, Recipe
from emclean.loop.grid.cells import Cell, CellFiles, cells_of
from emclean.loop.grid.methods import METHODS
from emclean.loop.grid.work import Work, failure
from emclean.loop.ingest import Ingested, ingest_truth
from emclean.loop.modelling import choose_scales
from emclean.loop.recording import labels_digest
from emclean.loop.sources import LEAST_POOL, check_categories, without_test_images
from emclean.loop.states import write_atomically
from emclean.models.spec import PRETRAINED, SHIPPED, DetectorSpec, Schedule
from emclean.seams import Tracker
from emclean.stores.formats.rows import first_reasons
from emclean.stores.tracking import MlflowTracker, public
from emclean.types import SetAside

EXPERIMENT = "emclean-grids"
Row = dict[str, Any]
Told = Callable[[str, float], None]
Ended = Callable[[str, Row | None], None]


class Runner(Protocol):
    """Runs cells."""

    @property
    def slots(self) -> int:
        """How many cells run side by side."""

    def run(self, work: Work, digests: Sequence[str], told: Told, ended: Ended) -> dict[str, Row]:
        """The row of every cell, by digest; ``told`` takes its training steps, ``ended`` its row."""


class InlineRunner:
    """One cell after another, in this process."""

    slots = 1

    def run(self, work: Work, digests: Sequence[str], told: Told, ended: Ended) -> dict[str, Row]:
        """Run the cells in their order."""
        rows = {}
        for digest in digests:
            rows[digest] = work(digest, lambda done, name=digest: told(name, done))  # type: ignore[misc]
            ended(digest, rows[digest])
        return rows


@dataclass(frozen=True)
class RayRunner:
    """As many cells side by side as the cluster has room for, each a trial of Ray Tune in its own process."""

    storage: Path
    gpus: float
    at_once: int | None
    slots: int

    def run(self, work: Work, digests: Sequence[str], told: Told, ended: Ended) -> dict[str, Row]:
        """Run the cells under Ray Tune; one whose process died too often has failed."""
        from emclean.distributed import grid

        need = grid.Need(self.gpus, self.at_once)
        found = grid.run_all(work, digests, need, storage=self.storage, told=told, ended=ended)
        return {
            digest: failure(work.cells[digest], digest, out) if isinstance(out, ComputeError) else out
            for digest, out in found.items()
        }


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid ready to run: its cells by digest, what they work with, and where to tell of it."""

    settings: NoiseGrid
    workspace: Path
    bench: Bench
    cells: Mapping[str, Cell]
    runner: Runner
    tracker: Tracker
    console: Console
    digests: Mapping[str, str]
    set_aside: Sequence[SetAside]
    addresses: Mapping[str, str | None]

    @property
    def run(self) -> str:
        """The run's name."""
        return self.settings.run_name()

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.workspace / "runs" / self.run

    @property
    def files(self) -> CellFiles:
        """The finished cells, shared by all grids of the workspace."""
        return CellFiles(self.workspace / "grids" / "cells")


@contextmanager
def opened(config: NoiseGrid, console: Console) -> Iterator[Grid]:
    """A grid ready to run; a Ray that had to be started for it ends with the block."""
    workspace = Path(config.workspace).absolute()
    workspace.mkdir(parents=True, exist_ok=True)
    running = services.addresses(workspace)
    mlflow = config.services.mlflow or running.mlflow or f"sqlite:///{workspace / 'mlflow.db'}"
    train, test = _data(config, workspace, console)
    bench = bench_of(config, workspace, train, test)
    digests = {
        part: labels_digest([f"{r.image_id} {r.group}" for r in found.records], found.labels)
        for part, found in (("train", train), ("test", test))
    }
    with runner_of(config, workspace, running.ray, console) as runner:
        yield Grid(
            config,
            workspace,
            bench,
            {cell.digest(given(cell, bench, config, digests)): cell for cell in cells_of(config)},
            runner,
            MlflowTracker(mlflow, EXPERIMENT),
            console,
            digests,
            (*train.set_aside, *test.set_aside),
            {"MLflow": public(mlflow)},
        )


def given(cell: Cell, bench: Bench, config: NoiseGrid, digests: Mapping[str, str]) -> dict[str, Any]:
    """What decides a cell's result beside the cell itself: data, preset, detector, what its method makes of
    them (its version), and the expert where one is asked."""
    method = METHODS[cell.method]
    return {
        "method_version": method.version,
        "task": config.task,
        "data": dict(digests),
        "preset": config.preset,
        "detector": bench.recipe.facts(),
        "expert_images": bench.expert_images if method.asks else None,
    }


def _data(config: NoiseGrid, workspace: Path, console: Console) -> tuple[Ingested, Ingested]:
    """The training and the test pictures with their truth; none of the one is among the other."""
    if config.data.train.images is None:
        config = _simulated(config, workspace / "simulated", console)
    places = config.data.train, config.data.test
    (train_images, train_truth), (test_images, test_truth) = ((p.images or "", p.truth or "") for p in places)
    pixels = workspace / "pixels"
    with console.stage("reading the training pictures") as progress:
        train = ingest_truth(train_images, train_truth, pixels, progress=progress)
    with console.stage("reading the test pictures") as progress:
        test = ingest_truth(test_images, test_truth, pixels, train.categories, progress)
    train = without_test_images(train, test)
    _check(config, train, train_images)
    return train, test


def _check(config: NoiseGrid, train: Ingested, place: str) -> None:
    """What only the data can tell: enough pictures, and enough categories for the noises."""
    least = max(LEAST_POOL, config.expert_images + 1)
    if len(train.records) < least:
        what = f"{len(train.records)} training pictures can be used, at least {least} are needed."
        what += first_reasons(train.set_aside)
        raise DataError(what, place, "Add pictures, or lower expert_images.")
    check_categories(train, place)
    if "mislabelled" in config.noise and len(train.categories) < 2:
        raise ConfigError(["noise: 'mislabelled' needs several categories; the truth has one"])


def _simulated(config: NoiseGrid, folder: Path, console: Console) -> NoiseGrid:
    """The configuration with its data simulated into ``folder``, once."""
    wanted = config.data.simulate
    home = folder / f"grid-{wanted.seed}-{wanted.train}-{wanted.test}-{wanted.size}"
    if not (home / "complete").exists():
        with console.stage(f"simulating {wanted.train} + {wanted.test} TEM fields with deposits"):
            simulate.write_dataset(home, wanted.train, wanted.test, wanted.size, wanted.seed)
        write_atomically(home / "complete", "")
    values = config.model_dump()
    parts = (("train", "pool"), ("test", "test"))
    for part, name in parts:
        values["data"][part].update(images=str(home / name), truth=str(home / f"{name}.truth.json"))
    return NoiseGrid.model_validate(values)


def bench_of(config: NoiseGrid, workspace: Path, train: Ingested, test: Ingested) -> Bench:
    """What all cells share; the detector's scales suit the truth, so that all cells have one detector."""
    wanted, init = config.detector, config.detector.init
    boxes = np.concatenate([*(labels.boxes for labels in train.labels.values()), np.zeros((0, 4))])
    scales = wanted.scales or choose_scales(boxes)
    start = init if init in (None, PRETRAINED) else str(Path(str(init)).absolute())
    recipe = Recipe(
        DetectorSpec(wanted.family, len(train.categories), scales=scales),
        Schedule(
            batch=wanted.batch,
            crop=wanted.crop,
            lr=wanted.lr,
            eval_every=wanted.eval_every,
            keep_best=False,  # nothing validates: every method trains for the same number of steps
        ),
        wanted.steps,
        wanted.final_steps,
        start,
        _file_digest(start),
    )
    pixels = str(workspace / "pixels")
    parts = [Part(found.records, found.labels, pixels) for found in (train, test)]
    models = str(workspace / "grids" / "models")
    return Bench(parts[0], parts[1], recipe, config.expert_images, models)


def _file_digest(init: str | None) -> str:
    if init is None:
        return "from scratch"
    file = SHIPPED if init == PRETRAINED else Path(init)
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


@contextmanager
def runner_of(
    config: NoiseGrid, workspace: Path, ray: str | None, console: Console
) -> Iterator[InlineRunner | RayRunner]:
    """What runs the cells: this process, or the Ray of the environment, of the workspace, or a new one."""
    if config.compute == "inline":
        yield InlineRunner()
        return
    from emclean.distributed import grid, session

    address = os.environ.get("RAY_ADDRESS") or ray
    with session.connect(address, home=workspace / ".emclean") as joined:
        slots = grid.Need(config.gpu_per_cell, config.concurrent).slots(joined.cpus, joined.gpus)
        console.say(f"Ray with {joined.cpus} cores at {joined.address}: {slots} cells side by side")
        storage = workspace / "grids" / "tune" / config.run_name()
        yield RayRunner(storage, config.gpu_per_cell, config.concurrent, slots)
