"""Methods of learning classes from noisy labels, on simulated and real sets: the tables of docs/results.md.

    EMCLEAN_DATA=… python -m benchmarks.handedness_grid --cache workspace/handedness --slots 2

Runs the noise grid's own cells over classes, in ``--slots`` processes. ``ideal`` and ``practical`` are
simulated particles, ``practical_mirror`` the same with the mirror-equivariant head for all methods;
``right_hands`` and ``galaxy`` real pictures whose mirror image is of the other class;
``cifar_10``, ``cifar_27`` and ``cifar_consensus`` cats and dogs with the labels of real people (about 10 and
27 % wrong; the majority of three); ``ideal_trusted`` and ``right_hands_trusted`` half of the labels wrong
and 20 trusted particles for every method, a quarter of each batch drawn from them; ``faithful`` the
simulated ideal set with the source's networks and training, for the source's methods, beside its printed
figures (``--faithful-steps`` of its 287,000 and pictures of ``--faithful-size`` px, for it was made for a
GPU). What the grid is to show is told for every set and over all (``benchmarks/handedness_aims.py``).
Finished cells lie in ``--cache`` by their content and are never run again: a run that was stopped goes on.
Their rows are kept in ``docs/measured/handedness.jsonl``, too, so that no other machine runs them again.
Seeds are run one after another, telling rates first, and tables are printed after each; ``--tables`` prints
those of what is there and runs nothing.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks import handedness_aims
from benchmarks.kept import FOLDER, Kept
from emclean.config import load_grid
from emclean.config_classes import FAITHFUL
from emclean.loop.console import Console
from emclean.loop.grid import running
from emclean.loop.grid.cells import Cell
from emclean.loop.grid.experiment import FINISHED, Row
from emclean.loop.grid.opening import Ended, Grid, Told, opened
from emclean.loop.grid.work import Work, failure
from emclean.models.robust.presets import PRESETS
from emclean.report.grid_data import CellRow, points
from emclean.report.grid_page import VIEWS
from emclean.stores.fakes import InMemoryTracker

ALL_RATES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.42, 0.46, 0.48, 0.5)
FIVE_RATES = (0, 0.1, 0.2, 0.4, 0.46)
HALF = (0.5,)
TELLING = (0.4, 0.2, 0.46, 0.0, 0.5, 0.1, 0.3, 0.42, 0.48, 0.05, 0.01)
"""The rates in the order in which they are run."""

SOURCE: Mapping[str, Mapping[float, float]] = {
    name: dict(zip(ALL_RATES[1:], figures, strict=True))
    for name, figures in {
        "cross_entropy": (98.7, 97.5, 96.1, 85.9, 85.0, 75.4, 64.5, 61.7, 57.8, 51.2),
        "two_step": (97.1, 95.8, 94.9, 93.4, 90.1, 85.7, 81.9, 72.2, 57.2, 49.1),
        "co_teaching": (95.7, 95.2, 94.8, 95.1, 90.1, 88.2, 88.2, 73.4, 46.5, 36.6),
    }.items()
}
"""Accuracy in percent by rate, from the printed outputs of the source's code (Groschner et al. 2022)."""


KEPT = Kept(FOLDER / "handedness.jsonl")


@dataclass(frozen=True)
class Set:
    """The grid's settings for one set of pictures; of real ones, paths below ``EMCLEAN_DATA``.

    ``steps`` are about as many as plain training needs on labels without errors.
    """

    settings: Mapping[str, Any]
    rates: Sequence[float] = FIVE_RATES
    methods: Sequence[str] = tuple(PRESETS["fair"])
    steps: int = 200


def _cifar(column: str) -> Set:
    train = {
        "images": "cifar10n_cat_dog/sheet.jpg",
        "labels": "cifar10n_cat_dog/labels.csv",
        "tile": 32,
        "label_column": "clean",
        "crowd": f"[{column}]",
        "classes": '["3", "5"]',
    }
    kept = {f"data.train.{name}": value for name, value in train.items()}
    varied = {"classifier.size": 32, "classifier.flip": "true", "classifier.half_turns": "false"}
    return Set({**kept, **varied, "data.colour": "true", "noise": "[crowd]"}, (), steps=600)


IDEAL = {"data.simulate.particles": 1000, "data.simulate.size": 64}
PRACTICAL = {**IDEAL, "data.simulate.population": "practical"}
HANDS = {
    "data.train.images": "right_hands/sheet.jpg",
    "data.train.labels": "right_hands/index.csv",
    "data.train.tile": 100,
    "data.train.group_column": "person_guess",
    "mirror": "true",
    "classifier.half_turns": "false",
}
TRUSTED = {"trusted_pairs": 20, "trusted_to_all": "true", "classifier.trusted_share": 0.25}

SETS: Mapping[str, Set] = {
    "ideal": Set(IDEAL, ALL_RATES),
    "practical": Set(PRACTICAL),
    "practical_mirror": Set({**PRACTICAL, "classifier.mirror_head": "true"}),
    "right_hands": Set(HANDS),
    "galaxy": Set(
        {
            "data.train.images": "galaxy_handedness/images",
            "data.train.labels": "galaxy_handedness/index.csv",
            "data.train.classes": "[CW, ACW]",
            "mirror": "true",
            "classifier.rotate": 180,
        },
        steps=1200,
    ),
    "cifar_10": _cifar("rand1"),
    "cifar_27": _cifar("worse"),
    "cifar_consensus": _cifar("rand1, rand2, rand3"),
    "ideal_trusted": Set({**IDEAL, **TRUSTED}, HALF),
    "right_hands_trusted": Set({**HANDS, **TRUSTED}, HALF),
    "faithful": Set({**IDEAL, "preset": "faithful"}, ALL_RATES, FAITHFUL),
}


def overrides(name: str, given: argparse.Namespace) -> list[str]:
    """The grid's settings for a set, by its definition and the command line."""
    chosen = SETS[name]
    real = ("data.train.images", "data.train.labels")
    home = Path(os.environ.get("EMCLEAN_DATA", ".")).absolute()
    values = {key: home / value if key in real else value for key, value in chosen.settings.items()}
    methods = [m for m in chosen.methods if not given.methods or m in given.methods.split(",")]
    faithful = chosen.settings.get("preset") == "faithful"
    size, steps = (given.faithful_size, given.faithful_steps) if faithful else (given.size, chosen.steps)
    wanted = [float(rate) for rate in given.rates.split(",")] if given.rates else list(chosen.rates)
    fixed = {
        "task": "classes",
        "compute": "inline",
        "workspace": given.cache.absolute(),
        "run": name,
        "methods": f"[{', '.join(methods)}]",
        **({"rates": wanted} if chosen.rates else {}),
        "classifier.size": size,
        "classifier.steps": steps,
    }
    return [f"{key}={value}" for key, value in {**fixed, **values}.items()]


def _prepare(work: Work) -> None:
    """What every process does once: it takes one core."""
    global _work
    torch.set_num_threads(1)
    _work = work


_work: Work


def _one(digest: str) -> Row:
    return _work(digest, lambda done: None)


@dataclass(frozen=True)
class PoolRunner:
    """So many cells side by side, each in a process of this machine; telling rates first."""

    slots: int

    def run(self, work: Work, digests: Sequence[str], told: Told, ended: Ended) -> dict[str, Row]:
        """Run the cells; where a process dies, those not finished have failed until the next run."""
        rows: dict[str, Row] = {}
        order = sorted(digests, key=lambda digest: self._place(work.cells[digest]))
        spawn = get_context("spawn")  # torch does not survive a fork
        with ProcessPoolExecutor(self.slots, spawn, _prepare, (work,)) as pool:
            started = {pool.submit(_one, digest): digest for digest in order}
            for future in as_completed(started):
                digest, error = started[future], future.exception()
                died = isinstance(error, Exception)
                rows[digest] = failure(work.cells[digest], digest, error) if died else future.result()
                ended(digest, rows[digest])
        return rows

    def _place(self, cell: Cell) -> tuple[int, int, int]:
        """Where a cell comes: as many rates at a time as there are slots, so that none waits for another."""
        rank = _rank(cell.rate)
        return rank // self.slots, list(PRESETS["fair"]).index(cell.method), rank


def _rank(rate: float) -> int:
    return TELLING.index(rate) if rate in TELLING else len(TELLING)


@contextmanager
def grid_of(settings: Sequence[str], slots: int) -> Iterator[Grid]:
    """The grid, with processes of this machine to run it and nobody told of it."""
    with opened(load_grid(None, settings), Console()) as found:
        yield replace(found, runner=PoolRunner(slots), tracker=InMemoryTracker())


def cells_of(name: str, seeds: Sequence[int], given: argparse.Namespace) -> list[CellRow]:
    """The finished cells of a set; those that are missing are run first, unless only tables are wanted."""
    with grid_of([*overrides(name, given), f"seeds={list(seeds)}"], given.slots) as grid:
        for digest, row in KEPT.read().items():
            if digest in grid.cells and grid.files.read(digest) is None:
                grid.files.keep({field: value for field, value in row.items() if field != "set"})
        if not given.tables:
            running.run(grid)
        found = [grid.files.read(digest) for digest in grid.cells]
    rows = [row for row in found if row is not None and row["status"] == FINISHED]
    if not given.tables:
        KEPT.add({**row, "set": name} for row in rows)
    return [CellRow.of(row) for row in rows]


def told(name: str, cells: Sequence[CellRow]) -> str:
    """The table of a set in Markdown, and how every method stands to the aims."""
    (head, *rows), _ = VIEWS["classes"].table(cells, None)
    lines = [head, ["---"] * len(head), *rows]
    text = [f"| {' | '.join(line)} |" for line in lines]
    seconds = sum(cell.seconds or 0.0 for cell in cells)
    text.append(f"\n{len(cells)} cells, {seconds / 3600:.2f} h of computing.")
    more = _beside(cells) if name == "faithful" else ["", *handedness_aims.of_set(cells)]
    return "\n".join([f"\n### {name}\n", *text, *more])


def _beside(cells: Sequence[CellRow]) -> list[str]:
    """Our faithful figures beside those that the source printed."""
    means = points(cells, "accuracy")
    lines = ["\n| method | rate | source | ours |", "| --- | --- | --- | --- |"]
    for point in sorted(means, key=lambda p: (p.method, p.rate)):
        printed = SOURCE[point.method].get(point.rate)
        if printed is not None:
            lines.append(f"| {point.method} | {point.rate:g} | {printed} | {100 * point.mean:.1f} |")
    return lines


def main() -> int:
    """Run what is missing, seed by seed, and print the tables after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cache", type=Path, default=Path("workspace/handedness"))
    parser.add_argument(
        "--sets",
        default="ideal,right_hands,galaxy,practical,cifar_27,cifar_10,cifar_consensus,"
        "ideal_trusted,right_hands_trusted,faithful",
    )
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--slots", type=int, default=2, help="cells side by side")
    parser.add_argument("--methods", default="", help="comma-separated; all of a set's without")
    parser.add_argument("--size", type=int, default=48, help="side in pixels that the network sees")
    parser.add_argument("--rates", default="", help="comma-separated; all of a set's without")
    parser.add_argument("--faithful-size", type=int, default=64, help="the source's is 128")
    parser.add_argument("--faithful-steps", type=int, default=600, help="the source's are 287000")
    parser.add_argument("--tables", action="store_true", help="print what is there, run nothing")
    given = parser.parse_args()
    for last in [given.seeds] if given.tables else range(1, given.seeds + 1):
        known = {}
        for name in given.sets.split(","):
            known[name] = cells_of(name, range(last), given)
            print(told(name, known[name]), flush=True)
        fair = {name: cells for name, cells in known.items() if name != "faithful"}
        print("\n".join(["\n### All sets\n", *handedness_aims.over_sets(fair)]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
