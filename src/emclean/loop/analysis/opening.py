"""From a configuration to an analysis: finds or simulates micrographs and clean labels, finds computers."""

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import fsspec
import numpy as np

from emclean import services
from emclean.config import AnalyzeMicrographs
from emclean.errors import DataError
from emclean.imaging import pose, simulate
from emclean.imaging.segmentation import Settings
from emclean.loop.analysis import particles
from emclean.loop.analysis.judges import Wanted, check
from emclean.loop.analysis.looking import maps_of
from emclean.loop.analysis.particles import CHOSEN, EXPERT, NAMES, UNUSABLE, Particles
from emclean.loop.analysis.pieces import Micrograph
from emclean.loop.classes import sets
from emclean.loop.console import Console
from emclean.loop.ingest import PictureFile, listing
from emclean.loop.serving import Swap, swap_on
from emclean.loop.states import write_atomically
from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe
from emclean.models.hooks import LocalHooks
from emclean.models.segmenters import training
from emclean.models.segmenters.spec import SegmentJob, SegmentResult
from emclean.seams import Registry, Tracker
from emclean.stores.formats import classes as class_files
from emclean.stores.formats.classes import Columns
from emclean.stores.registry import MlflowRegistry
from emclean.stores.tracking import MlflowTracker, public
from emclean.types import SetAside

EXPERIMENT = "emclean-analyses"
REGISTERED = "emclean-analysis"
"""The registered model."""

PLAIN = "all"
"""The sample of pictures that lie in the folder itself."""

BLOCK = 1 << 22
"""Bytes read at a time for a file's digest."""

Work = Callable[[str], str]
Ended = Callable[[str], None]
Watch = Callable[[float, float], None]


class Runner(Protocol):
    """Runs pieces of work."""

    def run(self, work: Work, pieces: Iterable[str], ended: Ended) -> None:
        """Do every piece; ``ended`` gets what each returned, in any order."""

    def fit(self, job: SegmentJob, watch: Watch) -> SegmentResult:
        """Train a segmenter; ``watch`` gets the steps done and to do."""


class InlineRunner:
    """One piece after another, in this process."""

    def run(self, work: Work, pieces: Iterable[str], ended: Ended) -> None:
        """Do the pieces in their order."""
        for piece in pieces:
            ended(work(piece))

    def fit(self, job: SegmentJob, watch: Watch) -> SegmentResult:
        """Train in this process."""
        hooks = LocalHooks(job.out, watch=lambda at: watch(at.step, at.total))
        return training.fit(job, hooks)


@dataclass(frozen=True)
class RayRunner:
    """Pieces streamed by Ray Data over the cluster's cores."""

    at_once: int | None
    storage: Path

    def run(self, work: Work, pieces: Iterable[str], ended: Ended) -> None:
        """Do the pieces wherever there is a free core."""
        from emclean.distributed import stream

        stream.run_all(work, pieces, ended, at_once=self.at_once)

    def fit(self, job: SegmentJob, watch: Watch) -> SegmentResult:
        """Train under Ray Train."""
        from emclean.distributed import train

        return train.fit_segmenter(job, storage=self.storage, progress=watch)


@dataclass(frozen=True, eq=False)
class Analysis:
    """An analysis ready to run; ``truth`` is the left share of each sample and picture, where simulated.

    ``clean`` gives the particles with clean labels; simulated ones are found by the U-Net of this file of
    weights, None for a threshold. ``swap`` serves a registered analysis, None where none is to be served.
    """

    settings: AnalyzeMicrographs
    workspace: Path
    pictures: tuple[Micrograph, ...]
    set_aside: tuple[SetAside, ...]
    clean: Callable[[str | None], Particles | None]
    truth: Mapping[str, float]
    runner: Runner
    tracker: Tracker
    registry: Registry
    swap: Swap | None
    console: Console
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
    def home(self) -> Path:
        """Where finished windows and trained classifiers are kept, shared by all analyses."""
        return self.workspace / "analyses"


@contextmanager
def opened(config: AnalyzeMicrographs, console: Console) -> Iterator[Analysis]:
    """An analysis ready to run; a Ray that had to be started for it ends with the block."""
    check(config.classifier.weights, "classifier.weights")
    check(config.classifier.usable_weights, "classifier.usable_weights")
    workspace = Path(config.workspace).absolute()
    workspace.mkdir(parents=True, exist_ok=True)
    running = services.addresses(workspace)
    mlflow = config.services.mlflow or running.mlflow or f"sqlite:///{workspace / 'mlflow.db'}"
    truth: dict[str, float] = {}
    images = config.data.images
    if images is None:
        images, truth = _simulated(config, workspace / "simulated", console)
    pictures, aside = _pictures(images, config.data.samples, workspace / "analyses", console)
    with runner_of(config, workspace, running.ray, console) as (runner, swap):
        yield Analysis(
            config,
            workspace,
            pictures,
            aside,
            lambda network: _clean(config, network, workspace / "analyses", console),
            truth,
            runner,
            MlflowTracker(mlflow, EXPERIMENT),
            MlflowRegistry(mlflow, REGISTERED),
            swap,
            console,
            {"MLflow": public(mlflow)},
        )


@contextmanager
def runner_of(
    config: AnalyzeMicrographs, workspace: Path, ray: str | None, console: Console
) -> Iterator[tuple[Runner, Swap | None]]:
    """What does the work: this process, or the Ray of the environment, of the workspace, or a new one; and
    what serves a model there."""
    if config.compute == "inline":
        yield InlineRunner(), None
        return
    from emclean.distributed import session

    address = os.environ.get("RAY_ADDRESS") or ray
    with session.connect(address, home=workspace / ".emclean") as joined:
        console.say(f"Ray with {joined.cpus} cores at {joined.address}")
        at, swap = config.services, None
        if config.serve:
            swap = swap_on(joined, workspace, at.serve_host, at.serve_port, console)
        yield RayRunner(config.concurrent, workspace / "analyses" / "ray"), swap


def settings_of(config: AnalyzeMicrographs) -> Settings:
    """How particles are found; their usual length in px is known only with a picture's pixel size."""
    given = config.segmentation
    return Settings(
        "laplacian" if given.method == "laplacian" else "otsu",
        not given.dark,
        given.smooth,
        None,
        given.debris,
        given.cluster,
        given.solidity,
        given.neck,
    )


def wanted_of(config: AnalyzeMicrographs) -> Wanted:
    """How the classifiers are trained, or where they are."""
    given = config.classifier
    recipe = ClassRecipe(
        steps=given.steps,
        batch=given.batch,
        lr=given.lr,
        rotate=8.0,
        zoom=(0.85, 1.15),
        eval_every=min(25, given.steps),
        keep="last",
    )
    paths = [None if p is None else str(Path(p).absolute()) for p in (given.weights, given.usable_weights)]
    spec = ClassifierSpec(given.family, size=given.size)
    return Wanted(paths[0], paths[1], given.confusion, spec, recipe, given.usable_from, config.seed)


def _simulated(config: AnalyzeMicrographs, home: Path, console: Console) -> tuple[str, dict[str, float]]:
    """The folder of simulated micrographs, and the true left share of each picture and sample."""
    wanted = config.data.simulate
    facts = json.dumps([wanted.model_dump(mode="json"), config.seed])
    folder = home / f"micrographs-{hashlib.sha256(facts.encode()).hexdigest()[:10]}"
    if not (folder / "complete").exists():
        count = wanted.images * len(wanted.lefts)
        with console.stage(f"simulating {count} SEM micrographs of chiral particles"):
            simulate.write_micrographs(folder, wanted.images, wanted.size, config.seed, lefts=wanted.lefts)
        write_atomically(folder / "complete", "")
    return str(folder / "images"), _true_shares(folder / "truth.csv")


def _true_shares(file: Path) -> dict[str, float]:
    """The left share of the usable particles of each picture (by name) and sample."""
    hands: dict[str, list[bool]] = {}
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["usable"] == "1":
                for name in (row["image"], row["sample"]):
                    hands.setdefault(name, []).append(row["hand"] == "left")
    return {name: float(np.mean(values)) for name, values in hands.items()}


def _pictures(
    images: str, samples: str | None, home: Path, console: Console
) -> tuple[tuple[Micrograph, ...], tuple[SetAside, ...]]:
    """Every picture below the folder, known by its content; one that is there twice counts once."""
    files = listing(images)
    if not files:
        raise DataError("holds no picture.", images, "Give a folder of TIFF, PNG or JPEG files.")
    named = _samples(samples)
    ids = _ids(files, home / "images.json", console)
    found: dict[str, Micrograph] = {}
    aside = []
    for one in files:
        image_id, reason = ids[one.uri]
        if not reason and image_id in found:
            reason = f"the same picture as {found[image_id].name}"
        if not reason and named is not None and one.name not in named:
            reason = f"not named in {samples}"
        if reason:
            aside.append(SetAside("image", one.name, reason))
            continue
        folder = str(PurePosixPath(one.name).parent)
        sample = named[one.name] if named is not None else PLAIN if folder == "." else folder
        found[image_id] = Micrograph(one.name, one.uri, image_id, sample)
    if not found:
        reasons = "; ".join(f"{item.item}: {item.reason}" for item in aside[:3])
        raise DataError(f"no picture can be used ({reasons}).", images, "Check the folder.")
    return tuple(found.values()), tuple(aside)


def _samples(file: str | None) -> dict[str, str] | None:
    """The sample of each picture, by its name below the folder."""
    if file is None:
        return None
    return {row.image: row.label for row in class_files.read(file, Columns(label="sample")).rows}


def _ids(files: Sequence[PictureFile], index: Path, console: Console) -> dict[str, tuple[str, str]]:
    """The digest of every file by its address, or why there is none; unchanged files are not read again."""
    try:
        known = json.loads(index.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    found: dict[str, tuple[str, str]] = {}
    with console.stage(f"looking at {len(files)} files") as progress:
        for number, one in enumerate(files, start=1):
            before = known.get(one.uri)
            if before and one.stamp and before[0] == one.stamp:
                found[one.uri] = before[1], ""
            else:
                found[one.uri] = _digest(one.uri)
            progress(number, len(files))
    stamps = {one.uri: one.stamp for one in files}
    fresh = {uri: [stamps[uri], image_id] for uri, (image_id, reason) in found.items() if not reason}
    write_atomically(index, json.dumps(known | fresh))
    return found


def _digest(uri: str) -> tuple[str, str]:
    """The first 16 hex digits of the SHA-256 of a file, and nothing; or nothing, and why."""
    sha = hashlib.sha256()
    try:
        with fsspec.open(uri, "rb") as file:
            while block := file.read(BLOCK):
                sha.update(block)
    except (OSError, ValueError) as cause:
        return "", f"cannot be read: {cause}"
    return sha.hexdigest()[:16], ""


def _clean(config: AnalyzeMicrographs, network: str | None, home: Path, console: Console) -> Particles | None:
    """Particles with clean labels: the user's; or simulated ones, where needed or where they fit."""
    data = config.data
    if data.labels is not None and data.particles is not None:
        return labelled(data.particles, data.labels, home / "particles")
    if config.classifier.weights is not None and data.images is not None:
        return None
    settings = settings_of(config)
    found_by = "" if network is None else _digest(network)[0]
    facts = json.dumps([data.simulated_particles, config.seed, asdict(settings), found_by, particles.VERSION])
    file = home / "particles" / f"simulated-{hashlib.sha256(facts.encode()).hexdigest()[:10]}.npz"
    if file.exists():
        with np.load(file, allow_pickle=False) as kept:
            made = Particles(kept["pictures"], kept["labels"], kept["groups"], particles.SIMULATED)
        return replace(made, foreign=data.images is not None)
    with console.stage(f"simulating {data.simulated_particles} particles with clean labels") as progress:
        maps = maps_of(network)
        made = particles.simulated(data.simulated_particles, config.seed, settings, maps, progress)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_suffix(".part.npz")
    np.savez(draft, pictures=made.pictures, labels=made.labels, groups=made.groups)
    draft.replace(file)
    return replace(made, foreign=data.images is not None)


def labelled(folder: str, labels: str, home: Path) -> Particles:
    """The user's cut-outs with their labels: left and right, and unusable where there are any.

    Where the file tells who said it, as that of ``emclean export`` does, an expert's labels count alone.
    """
    rows = {row.image: row for row in class_files.read(labels).rows if row.source in ("", EXPERT)}
    hidden = NAMES[UNUSABLE]
    names = tuple(name for name in NAMES if name != hidden or hidden in {r.label for r in rows.values()})
    found = sets.load(sets.Source(folder, labels, only=names), sets.Form((pose.SIDE, pose.SIDE)), home, names)
    found = found.take(np.array([name in rows for name in found.names], np.bool_))
    if not len(found):
        raise DataError(f"holds no label of source {EXPERT}.", labels, "Give labels of an expert.")
    drawn = np.array([not PurePosixPath(name).name.startswith(CHOSEN) for name in found.names], np.bool_)
    pictures = np.asarray(found.open())[found.rows]
    return Particles(pictures, found.labels, found.groups, labels, drawn=None if drawn.all() else drawn)


def record(config: AnalyzeMicrographs) -> dict[str, Any]:
    """The settings as they may be shown: addresses without passwords."""
    values = config.model_dump(mode="json")
    if values["services"]["mlflow"]:
        values["services"]["mlflow"] = public(values["services"]["mlflow"])
    return values
