"""From a configuration to a grid over boxes: reads or simulates the data, plans the cells."""

import hashlib
from pathlib import Path

import numpy as np

from emclean.config import NoiseGrid
from emclean.errors import ConfigError, DataError
from emclean.imaging import simulate
from emclean.loop.console import Console
from emclean.loop.grid.boxes.bench import Bench, Part, Recipe
from emclean.loop.grid.boxes.experiment import BoxExperiment
from emclean.loop.grid.cells import cells_of
from emclean.loop.grid.experiment import Opened
from emclean.loop.ingest import Ingested, ingest_truth
from emclean.loop.modelling import choose_scales
from emclean.loop.recording import labels_digest
from emclean.loop.sources import LEAST_POOL, check_categories, without_test_images
from emclean.loop.states import write_atomically
from emclean.models.spec import PRETRAINED, SHIPPED, DetectorSpec, Schedule
from emclean.stores.formats.rows import first_reasons


def opened(config: NoiseGrid, workspace: Path, console: Console) -> Opened:
    """The experiment that the configuration describes."""
    train, test = _data(config, workspace, console)
    digests = {
        part: labels_digest([f"{r.image_id} {r.group}" for r in found.records], found.labels)
        for part, found in (("train", train), ("test", test))
    }
    found = experiment(config, bench_of(config, workspace, train, test), digests)
    return Opened(found, digests, (*train.set_aside, *test.set_aside))


def experiment(config: NoiseGrid, bench: Bench, digests: dict[str, str]) -> BoxExperiment:
    """The cells that the configuration names, on this bench."""
    cells = cells_of(config.methods, dict.fromkeys(config.noise, config.rates), config.seeds)
    given = {"task": config.task, "data": dict(digests), "preset": config.preset}
    return BoxExperiment(bench, cells, given)


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
