"""How much of the cores' time a noise grid uses, under Ray Tune and one cell after another.

    python -m benchmarks.grid_efficiency --cores 2

Runs the same small grid over classes twice, each in a workspace of its own, so that neither finds cells or
models of the other: in this process one cell after another, and under Ray Tune on a Ray that is started for
it with ``--cores`` of them. Printed are the time by the clock, the processor time of all cells (measured in
each cell's own process), their ratio for each core, and how much sooner Ray Tune is done. The time by the
clock begins when the data is read and Ray is up, and ends with the last cell's row.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from emclean.config import load_grid
from emclean.distributed import session
from emclean.loop.console import Console
from emclean.loop.grid import running
from emclean.loop.grid.opening import opened
from emclean.stores.fakes import InMemoryTracker

Summary = Mapping[str, Any]


def settings(given: argparse.Namespace, home: Path, compute: str) -> list[str]:
    """The grid's settings in a workspace of its own."""
    wanted = {
        "task": "classes",
        "workspace": home / compute,
        "run": "grid",
        "compute": compute,
        "methods": f"[{given.methods}]",
        "rates": f"[{given.rates}]",
        "seeds": list(range(given.seeds)),
        "data.simulate.particles": given.particles,
        "classifier.size": given.size,
        "classifier.steps": given.steps,
    }
    return [f"{key}={value}" for key, value in wanted.items()]


def measured(given: argparse.Namespace, home: Path, compute: str) -> Summary:
    """Run the grid and return its summary."""
    with opened(load_grid(None, settings(given, home, compute)), Console()) as grid:
        outcome = running.run(replace(grid, tracker=InMemoryTracker()))
    found: Summary = json.loads(outcome.summary.read_text(encoding="utf-8"))
    return found


def told(one: Summary, both: Summary) -> str:
    """The table in Markdown, and what it comes to."""
    lines = [
        "| | cells | cores | wall, s | compute of the cells, s | compute / (wall x cores) |",
        "| --- " * 6 + "|",
    ]
    for name, found in (("one after another", one), ("Ray Tune", both)):
        compute = sum(cell["compute_seconds"] for cell in found["cells"])
        wall, cores = found["wall_seconds"], found["slots"]
        share = f"{100 * compute / (wall * cores):.1f} %"
        lines.append(f"| {name} | {len(found['cells'])} | {cores} | {wall:.1f} | {compute:.1f} | {share} |")
    return "\n".join(
        [*lines, "", f"Ray Tune is done {one['wall_seconds'] / both['wall_seconds']:.2f} times as soon."]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--methods", default="cross_entropy, early_stopping, gce, elr, label_smoothing, sce")
    parser.add_argument("--rates", default="0.2, 0.4")
    parser.add_argument("--seeds", type=int, default=2, help="how many")
    parser.add_argument("--particles", type=int, default=400)
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--steps", type=int, default=200)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)  # as every trial has it
    with tempfile.TemporaryDirectory(prefix="eff") as folder:
        home = Path(folder)
        one = measured(given, home, "inline")
        with session.connect(None, given.cores, home=home / "ray"):
            both = measured(given, home, "ray")
    print(told(one, both))
    return 0


if __name__ == "__main__":
    sys.exit(main())
