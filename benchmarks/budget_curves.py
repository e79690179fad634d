"""The main job for methods x budgets x sets x seeds, compared: the budget curves of docs/results.md.

    EMCLEAN_DATA=DIR python -m benchmarks.budget_curves --sets emps,vnc,deposits,bccd --seeds 0,1,2 \
      --methods ours,expert_only,random,discrepancy --shares 0.2 --cache workspace/curves --minutes 120

Every cell is a run of ``pipelines/active_clean.py`` with the simulated expert in the same process and
without Ray. Cells of one set and seed share a workspace, so whatever they have in common (crowd models, seed
round, floor and ceiling) is trained once; a finished cell is never run again, and a cell that was stopped
goes on. With ``--minutes`` no cell starts after that time. ``--slots`` cells run side by side, one thread
each. Printed: means and standard deviations over the seeds after each round, the minutes until 90 to 99 % of
the ceiling are reached, and the paired differences of ``--base`` to every other method and to the ceiling,
with a bootstrap interval over test images and seeds. The cache gets ``curves.parquet`` and a picture per set.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.cases import Cache
from benchmarks.curve_tables import Run, differences, frame, picture, reached, table
from benchmarks.sets import SETS, prepared

METHODS: Mapping[str, Mapping[str, str]] = {
    "ours": {"strategy": "gain", "correction": "graded"},
    "no_reviews": {"strategy": "gain", "correction": "graded", "budget.reviews": "false"},
    "expert_only": {"strategy": "gain", "correction": "expert_only", "budget.reviews": "false"},
    "crowd_mixed": {"strategy": "gain", "correction": "none", "budget.reviews": "false"},
    "discrepancy": {"strategy": "discrepancy", "correction": "graded"},
    "random": {"strategy": "random", "correction": "graded"},
    "random_expert_only": {"strategy": "random", "correction": "expert_only"},
    "uncertainty": {"strategy": "uncertainty", "correction": "graded"},
    "objectlab": {"strategy": "objectlab", "correction": "graded"},
    "clod": {"strategy": "clod", "correction": "graded"},
    "loss": {"strategy": "loss", "correction": "graded"},
    "cross_entropy": {"strategy": "cross_entropy", "correction": "graded"},
    "paper": {"strategy": "paper", "correction": "graded"},
}
"""What each method sets; everything else is the same for all."""

COMMON: Mapping[str, Any] = {
    "compute": "inline",
    "serve": "false",
    "label_service": "in_process",
    "baselines": "true",
    "budget.rounds": 2,
    "budget.seed_images": 6,
    "detector.steps": 240,
    "detector.final_steps": 1600,
    "detector.baseline_steps": 2400,
    "detector.eval_every": 160,
    "detector.patience": 0,
}


@dataclass(frozen=True)
class Cell:
    """One run: a set, a seed, a method and the share of the full cost that it may spend."""

    name: str
    seed: int
    method: str
    share: float

    @property
    def run(self) -> str:
        """The run's name within its workspace."""
        return f"{self.method}-{self.share:g}"

    def workspace(self, cache: Path) -> Path:
        """One per set and seed."""
        return cache / f"{self.name}-{self.seed}"

    def summary(self, cache: Path) -> dict[str, Any] | None:
        """The finished run's summary, or None."""
        file = self.workspace(cache) / "runs" / self.run / "summary.json"
        found = json.loads(file.read_text()) if file.exists() else None
        return found if found and found["status"] == "finished" else None


def command(cell: Cell, cache: Path, more: Sequence[str]) -> list[str]:
    """The command line of a cell."""
    given = {
        **COMMON,
        **prepared(cell.name, cache / "sets"),
        **METHODS[cell.method],
        "workspace": str(cell.workspace(cache)),
        "run": cell.run,
        "seed": cell.seed,
        "budget.share_of_full": cell.share,
    }
    job = Path(__file__).parents[1] / "pipelines" / "active_clean.py"
    return [sys.executable, str(job), *(f"{key}={value}" for key, value in given.items()), *more]


def work(cells: Sequence[Cell], given: argparse.Namespace) -> None:
    """Run what is not finished, at most one cell per workspace at a time."""
    until = time.monotonic() + 60 * given.minutes
    locks = {cell.workspace(given.cache): Lock() for cell in cells}
    waiting, guard = [c for c in cells if c.summary(given.cache) is None], Lock()
    print(f"{len(cells) - len(waiting)} of {len(cells)} cells are finished", flush=True)

    def next_cell() -> Cell | None:
        with guard:
            for cell in waiting:
                if locks[cell.workspace(given.cache)].acquire(blocking=False):
                    waiting.remove(cell)
                    return cell
        return None

    def slot(number: int) -> None:
        while time.monotonic() < until and waiting:
            cell = next_cell()
            if cell is None:
                time.sleep(1)
                continue
            try:
                run(cell, given)
            finally:
                locks[cell.workspace(given.cache)].release()

    with ThreadPoolExecutor(given.slots) as pool:
        list(pool.map(slot, range(given.slots)))


def run(cell: Cell, given: argparse.Namespace) -> None:
    """Run one cell; a failure is told and does not stop the others."""
    since = time.monotonic()
    log = given.cache / "logs" / f"{cell.name}-{cell.seed}-{cell.run}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out:
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        code = subprocess.run(
            command(cell, given.cache, given.more), stdout=out, stderr=out, env=variables
        ).returncode
    took = (time.monotonic() - since) / 60
    print(f"{cell.name} seed {cell.seed} {cell.run}: exit {code}, {took:.1f} min", flush=True)


def finished(cells: Sequence[Cell], cache: Path) -> list[Run]:
    """The runs that have come to their end."""
    return [
        Run(c.name, c.seed, c.method, c.share, c.workspace(cache), found, prepared(c.name, cache / "sets"))
        for c in cells
        if (found := c.summary(cache)) is not None
    ]


def told(runs: Sequence[Run], base: str, cache: Path) -> None:
    """Print the tables; keep them and the pictures in the cache."""
    found = frame(runs)
    found.to_parquet(cache / "curves.parquet")
    lines = [*table(found), *reached(found), *differences(runs, base, Cache(cache / "tests"))]
    print("\n".join(lines))
    for name, mine in found.groupby("set", sort=False):
        (cache / f"curve-{name}.png").write_bytes(picture(mine))


def main() -> None:
    """Run, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", default="emps", help=f"of {','.join(SETS)} (%(default)s)")
    parser.add_argument("--methods", default="ours", help=f"of {','.join(METHODS)} (%(default)s)")
    parser.add_argument("--shares", default="0.1", help="budgets as shares of the full cost (%(default)s)")
    parser.add_argument("--seeds", default="0", help="(%(default)s)")
    parser.add_argument(
        "--base", default="ours", help="the method that others are compared with (%(default)s)"
    )
    parser.add_argument("--cache", type=Path, default=Path("workspace/curves"))
    parser.add_argument("--minutes", type=float, default=1e6, help="start no cell after this time")
    parser.add_argument("--slots", type=int, default=2, help="cells side by side (%(default)s)")
    parser.add_argument("more", nargs="*", metavar="key=value", help="settings that win in every cell")
    given = parser.parse_args()
    given.cache = given.cache.absolute()
    cells = [
        Cell(name, int(seed), method, float(share))
        for share, method, seed, name in itertools.product(
            *(text.split(",") for text in (given.shares, given.methods, given.seeds, given.sets))
        )
    ]
    for name in given.sets.split(","):
        prepared(name, given.cache / "sets")
    work(cells, given)
    runs = finished(cells, given.cache)
    if runs:
        told(runs, given.base, given.cache)


if __name__ == "__main__":
    main()
