"""From a configuration to a grid over classes: reads or simulates the data, plans the cells."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emclean.config import ClassGrid
from emclean.config_classes import CROWD, ClassTestData
from emclean.errors import DataError
from emclean.imaging import simulate
from emclean.loop.classes.sets import ClassSet, Form, Source, load, without_test
from emclean.loop.console import Console
from emclean.loop.grid.cells import Cell, cells_of
from emclean.loop.grid.classes.bench import Bench, parts_of
from emclean.loop.grid.classes.courses import course
from emclean.loop.grid.classes.experiment import ClassExperiment
from emclean.loop.grid.experiment import Opened
from emclean.loop.states import write_atomically
from emclean.stores.formats.classes import Columns

HANDS = ("left", "right")


def opened(config: ClassGrid, workspace: Path, console: Console) -> Opened:
    """The experiment that the configuration describes."""
    train, test = _data(config, workspace, console)
    found = experiment(config, bench_of(config, workspace, train, test))
    check(found)
    aside = (*train.set_aside, *(test.set_aside if test else ()))
    return Opened(found, digests_of(train, test), aside)


def digests_of(train: ClassSet, test: ClassSet | None) -> dict[str, str]:
    """A digest of each set; without a test set, test pictures are drawn from the training set."""
    return {"train": train.facts(), "test": test.facts() if test else "drawn by the seed"}


def experiment(config: ClassGrid, bench: Bench) -> ClassExperiment:
    """The cells that the configuration names, on this bench."""
    rates: dict[str, Sequence[float]] = dict.fromkeys(config.noise, config.rates)
    if CROWD in rates:
        rates[CROWD] = (bench.crowd_rate(),)
    cells = cells_of(config.methods, rates, config.seeds)
    digests = digests_of(bench.train, bench.test)
    given = {"task": config.task, "data": digests, "preset": config.preset}
    return ClassExperiment(bench, cells, given, config.own_rate)


def bench_of(config: ClassGrid, workspace: Path, train: ClassSet, test: ClassSet | None) -> Bench:
    """What all cells share."""
    return Bench(
        train,
        test,
        {method: course(config, method, len(train.classes)) for method in config.methods},
        config.trusted_pairs,
        config.trusted_to_all,
        str(workspace / "grids" / "models"),
    )


def check(found: ClassExperiment) -> None:
    """What only the data can tell: enough particles of every class, for training, test and the expert."""
    most = max(found.bench.trusts(cell.method) for cell in found.cells)
    for cell in {(c.noise, c.seed): c for c in found.cells}.values():
        _check_parts(found.bench, replace(cell, rate=0.0), most)


def _check_parts(bench: Bench, cell: Cell, most: int) -> None:
    parts, names = parts_of(bench, cell), bench.train.classes
    for name, labels in (("training", parts.train.labels), ("test", parts.test.labels)):
        missing = [names[k] for k in range(len(names)) if not (labels == k).any()]
        if missing:
            what = f"the {name} part of seed {cell.seed} has no picture of class {', '.join(missing)}."
            raise DataError(what, bench.train.pictures, "Add pictures, or take fewer classes.")
    particles = len(np.unique(parts.train.pairs))
    if most >= particles:
        what = f"{particles} particles in the training part of seed {cell.seed}; {most} are to be trusted."
        raise DataError(what, bench.train.pictures, "Add pictures, or lower trusted_pairs.")


def _data(config: ClassGrid, workspace: Path, console: Console) -> tuple[ClassSet, ClassSet | None]:
    """The training and the test set, if any; no particle of the one is in the other."""
    side = config.data.side
    form = Form((side, side) if side else None, config.data.colour, config.is_mirrored)
    home = workspace / "classes"
    with console.stage("reading the training pictures") as progress:
        train = load(_train_source(config, workspace / "simulated", console), form, home, progress=progress)
    if not config.data.test.images:
        return train, None
    pixels = train.open()
    form = replace(form, sides=(pixels.shape[1], pixels.shape[2]))
    with console.stage("reading the test pictures") as progress:
        test = load(_source(config.data.test, config), form, home, train.classes, progress)
    return without_test(train, test), test


def _train_source(config: ClassGrid, folder: Path, console: Console) -> Source:
    """Where the training set lies; simulated into ``folder`` once, where none is given."""
    train = config.data.train
    if train.images:
        return _source(train, config, train.crowd, train.classes)
    wanted = config.data.simulate
    name = f"{wanted.population}-{wanted.seed}-{wanted.particles}-{wanted.size}"
    home = folder / f"particles-{name}{'' if config.is_mirrored else '-both'}"
    if not (home / "complete").exists():
        with console.stage(f"simulating {wanted.particles} chiral particles"):
            left = 0.0 if config.is_mirrored else 0.5
            simulate.write_particle_set(
                home, wanted.particles, wanted.size, wanted.seed, wanted.population, left=left
            )
        write_atomically(home / "complete", "")
    return Source(str(home / "images"), str(home / "labels.csv"), only=HANDS)


def _source(
    part: ClassTestData, config: ClassGrid, votes: Sequence[str] = (), only: Sequence[str] = ()
) -> Source:
    columns = Columns(part.label_column, part.group_column, tuple(votes), not config.is_mirrored)
    return Source(part.images or "", part.labels or "", part.tile, columns, tuple(only))
