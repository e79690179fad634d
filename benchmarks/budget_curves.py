"""The main job for methods x budgets x sets x seeds, compared: the budget curves of docs/results.md.

    EMCLEAN_DATA=DIR python -m benchmarks.budget_curves --sets emps,vnc,deposits,bccd --seeds 0,1,2 \
      --methods ours,expert_only,random,discrepancy --shares 0.2 --cache workspace/curves --minutes 120

Every cell is a run of ``pipelines/active_clean.py`` with the simulated expert in the same process and
without Ray. Cells of one set and seed share a workspace, so whatever they have in common (crowd models, seed
round, floor and ceiling) is trained once; a finished cell is never run again, and a cell that was stopped
goes on. The figures of finished cells are kept in ``docs/measured/curves.jsonl``, one line each, with the
version of the code that measured them: another machine does not run them again, and ``--tables`` prints what
is there and runs nothing. With ``--minutes`` no cell starts after that time. ``--slots`` cells run abreast,
one thread each. Printed: means and standard deviations over the seeds after each round, the minutes until 90
to 99 % of the ceiling are reached, and the paired differences of ``--base`` to every other method and to the
ceiling, with a bootstrap interval over test images and seeds. The cache gets ``curves.parquet`` and a picture
per set.
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

from benchmarks.curve_rows import row_of
from benchmarks.curve_tables import Row, differences, frame, picture, reached, table
from benchmarks.kept import FOLDER, Kept, digest_of_facts
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

KEPT = Kept(FOLDER / "curves.jsonl")

COMMON: Mapping[str, Any] = {
    "compute": "inline",
    "serve": "false",
    "label_service": "in_process",
    "baselines": "true",
    "budget.rounds": 3,
    "detector.steps": 240,
    "detector.final_steps": 800,
    "detector.baseline_steps": 1600,
    "detector.eval_every": 160,
    "detector.patience": 6,
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

    def digest(self, more: Sequence[str]) -> str:
        """By what its figures are known again: all settings but the places of files."""
        asked = {**COMMON, **METHODS[self.method], "set": self.name, "seed": self.seed, "share": self.share}
        return digest_of_facts([asked, sorted(more)])


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
    known = KEPT.read()
    waiting, guard = [c for c in cells if c.digest(given.more) not in known], Lock()
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
                row = run(cell, given)
                if row is not None:
                    with guard:
                        KEPT.add([row])
            finally:
                locks[cell.workspace(given.cache)].release()

    with ThreadPoolExecutor(given.slots) as pool:
        list(pool.map(slot, range(given.slots)))


def run(cell: Cell, given: argparse.Namespace) -> Row | None:
    """Run one cell, and read its figures; a failure is told and does not stop the others."""
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
    if code:
        return None
    workspace = cell.workspace(given.cache)
    summary = json.loads((workspace / "runs" / cell.run / "summary.json").read_text())
    if summary["status"] != "finished":
        return None
    truth = prepared(cell.name, given.cache / "sets")["data.test.truth"]
    named = {"set": cell.name, "seed": cell.seed, "method": cell.method, "share": cell.share}
    asked = {"digest": cell.digest(given.more), "more": given.more}
    return {**named, **asked, **row_of(workspace, summary, Path(truth))}


def told(runs: Sequence[Row], base: str, cache: Path) -> None:
    """Print the tables; keep them and the pictures in the cache."""
    cache.mkdir(parents=True, exist_ok=True)
    found = frame(runs)
    found.to_parquet(cache / "curves.parquet")
    print("\n".join([*table(found), *reached(found), *differences(runs, base)]))
    print(f"\nmeasured at {', '.join(sorted({run['code_version'] for run in runs}))}")
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
    parser.add_argument("--tables", action="store_true", help="print what is there, run nothing")
    parser.add_argument("more", nargs="*", metavar="key=value", help="settings that win in every cell")
    given = parser.parse_args()
    given.cache = given.cache.absolute()
    cells = [
        Cell(name, int(seed), method, float(share))
        for share, method, seed, name in itertools.product(
            *(text.split(",") for text in (given.shares, given.methods, given.seeds, given.sets))
        )
    ]
    if not given.tables:
        for name in given.sets.split(","):
            prepared(name, given.cache / "sets")
        work(cells, given)
    known = KEPT.read()
    runs = [known[digest] for cell in cells if (digest := cell.digest(given.more)) in known]
    if runs:
        told(runs, given.base, given.cache)


if __name__ == "__main__":
    main()
