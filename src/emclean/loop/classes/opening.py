"""From a configuration to the data of a run over classes: the user's files, or simulated particles."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from emclean.config import ActiveClasses
from emclean.config_classes import ClassTestData
from emclean.errors import DataError
from emclean.imaging import simulate
from emclean.loop.classes.kind import ClassKind
from emclean.loop.classes.labels import label
from emclean.loop.classes.sets import ClassSet, Form, Source, load, without_test
from emclean.loop.console import Console
from emclean.loop.ingest import Ingested, pixels_path
from emclean.loop.job import RunData
from emclean.loop.states import write_atomically
from emclean.science.classes import plant
from emclean.science.classes.votes import counts
from emclean.stores.formats import classes as class_files
from emclean.stores.formats.classes import Columns
from emclean.stores.formats.rows import first_reasons, plain
from emclean.types import ImageRecord, Labels, SetAside

LEAST_POOL = 8
"""Two for each class of two, in each of the two folds whose models judge each other's pictures."""

_TEST_SEED = 1_000_003


def simulated(config: ActiveClasses, folder: Path, console: Console) -> ActiveClasses:
    """The configuration with its data simulated into ``folder``; unchanged when it names its own pictures."""
    if config.data.pool.images is not None:
        return config
    wanted = config.data.simulate
    facts = (config.seed, wanted.pool, wanted.test, wanted.size, wanted.population, f"{wanted.error:g}")
    home = folder / f"hands-{'-'.join(map(str, facts))}"
    if not (home / "complete").exists():
        with console.stage(f"simulating {wanted.pool} + {wanted.test} chiral particles"):
            for part, seed in (("pool", config.seed), ("test", config.seed + _TEST_SEED)):
                n = wanted.pool if part == "pool" else wanted.test
                simulate.write_particle_set(home / part, n, wanted.size, seed, wanted.population)
            _plant(home / "pool", wanted.error, config.seed)
        write_atomically(home / "complete", "")
    values = config.model_dump()
    for part, labels in (("pool", "crowd.csv"), ("test", "labels.csv")):
        values["data"][part] |= {
            "images": str(home / part / "images"),
            "labels": str(home / part / labels),
        }
    values["expert"]["truth"] = str(home / "pool" / "labels.csv")
    return ActiveClasses.model_validate({**values, "mirror": config.is_mirrored})


def _plant(home: Path, rate: float, seed: int) -> None:
    """Crowd labels beside the true ones: an exact share is of another class."""
    rows = class_files.read(str(home / "labels.csv")).rows
    names = sorted({row.label for row in rows})
    truth = np.array([names.index(row.label) for row in rows], np.int64)
    noisy = plant(truth, np.arange(len(rows)), rate, np.random.default_rng([seed, 1]), len(names))
    with (home / "crowd.csv").open("w", newline="", encoding="utf-8") as file:
        told = [(row.image, names[k], row.group) for row, k in zip(rows, noisy, strict=True)]
        csv.writer(file).writerows([("image", "label", "group"), *told])


def opened(config: ActiveClasses, workspace: Path, console: Console) -> tuple[RunData, ClassKind]:
    """The pictures and labels that the configuration names, and what is to be done with them."""
    pool, test = _sets(config, workspace, console)
    records, images, labels = _records(pool, config.data.pool), workspace / "pixels", _crowd(config, pool)
    aside, truth = list(pool.set_aside), None
    if config.expert.truth:
        truth = _truth(config, pool.classes, records)
        unknown = [record for record in records if record.image_id not in truth]
        aside += [SetAside("image", r.name, "the truth file does not name it, or no class") for r in unknown]
        records = [record for record in records if record.image_id in truth]
    _enough(records, pool, aside, config)
    _keep_pixels(pool, records, images)
    ingested = Ingested(
        tuple(records), {r.image_id: labels[r.image_id] for r in records}, pool.classes, tuple(aside)
    )
    return RunData(ingested, _test(test, config), truth), ClassKind(config, pool, test)


def _sets(config: ActiveClasses, workspace: Path, console: Console) -> tuple[ClassSet, ClassSet | None]:
    """The pool and the test set, if any; no picture of the one is in the other."""
    side, home, pool = config.data.side, workspace / "classes", config.data.pool
    form = Form((side, side) if side else None, config.data.colour, config.is_mirrored)
    with console.stage("reading the pool") as progress:
        found = load(_source(pool, config.labellers[1:], pool.classes), form, home, progress=progress)
    if not config.data.test.images:
        return found, None
    pixels = found.open()
    form = replace(form, sides=(pixels.shape[1], pixels.shape[2]))
    with console.stage("reading the test set") as progress:
        test = load(_source(config.data.test), form, home, found.classes, progress)
    return without_test(found, test), test


def _source(part: ClassTestData, votes: Sequence[str] = (), only: Sequence[str] = ()) -> Source:
    columns = Columns(part.label_column, part.group_column, tuple(votes))
    return Source(part.images or "", part.labels or "", part.tile, columns, tuple(only))


def _given(found: ClassSet) -> int:
    """How many pictures were given; the mirror images come after them."""
    return len(found) // 2 if found.mirrored else len(found)


def _records(pool: ClassSet, part: ClassTestData) -> list[ImageRecord]:
    """The given pictures; mirror images are never asked about."""
    height, width = pool.open().shape[1:3]
    folder = (part.images or "").rstrip("/")
    return [
        ImageRecord(
            pool.ids[k],
            folder if part.tile else f"{folder}/{pool.names[k]}",
            pool.names[k],
            int(width),
            int(height),
            group=str(pool.groups[k]),
        )
        for k in range(_given(pool))
    ]


def _crowd(config: ActiveClasses, pool: ClassSet) -> dict[str, Labels]:
    """The label of each picture as it was given; of several labellers what most say, in a tie the first."""
    n, votes = _given(pool), pool.all_votes()
    named = counts(votes, len(pool.classes)) + 0.5 * np.eye(len(pool.classes))[votes[:, 0]]
    most = np.argmax(named, axis=1)[:n]
    who = config.labellers[0] if len(config.labellers) == 1 else "majority"
    records = _records(pool, config.data.pool)
    return {r.image_id: label(r, int(k), who) for r, k in zip(records, most, strict=True)}


def _truth(
    config: ActiveClasses, classes: Sequence[str], records: Sequence[ImageRecord]
) -> dict[str, Labels]:
    """The true class of each picture that the truth file names with a class of the set, by image id."""
    columns = Columns(config.expert.truth_column)
    rows = class_files.read(config.expert.truth or "", columns).rows
    index = {name: k for k, name in enumerate(classes)}
    known = {plain(row.image): index[row.label] for row in rows if row.label in index}
    return {r.image_id: label(r, known[plain(r.name)], "truth") for r in records if plain(r.name) in known}


def _enough(
    records: Sequence[ImageRecord], pool: ClassSet, aside: Sequence[SetAside], config: ActiveClasses
) -> None:
    if len(records) < LEAST_POOL:
        what = f"{len(records)} pictures of the pool can be used, at least {LEAST_POOL} are needed."
        fix = "Add pictures, or mend what was set aside."
        raise DataError(what + first_reasons(tuple(aside)), config.data.pool.images or "", fix)
    missing = [name for k, name in enumerate(pool.classes) if not (pool.labels == k).any()]
    if missing:
        what = f"no picture is labelled {', '.join(missing)}."
        raise DataError(what, config.data.pool.labels or "", "Name the classes that there are.")


def _keep_pixels(pool: ClassSet, records: Sequence[ImageRecord], cache: Path) -> None:
    """Each picture as a file of its own, for the labelling page and for who asks by its id."""
    cache.mkdir(parents=True, exist_ok=True)
    pictures, row = pool.open(), dict(zip(pool.ids, pool.rows.tolist(), strict=True))
    for record in records:
        file = pixels_path(cache, record.image_id)
        if not file.exists():
            draft = file.with_suffix(".part.npy")
            np.save(draft, pictures[row[record.image_id]])
            draft.replace(file)


def _test(test: ClassSet | None, config: ActiveClasses) -> Ingested | None:
    """The test pictures as records, for the tables and the digests."""
    if test is None:
        return None
    records = _records(test, config.data.test)
    labels: Mapping[str, Labels] = {r.image_id: label(r, int(test.labels[k])) for k, r in enumerate(records)}
    return Ingested(tuple(records), labels, test.classes, test.set_aside)
