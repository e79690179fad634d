"""A grid over classes on a real Ray: a killed driver goes on, and repeats no finished cell."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from emclean.config import load_grid
from emclean.loop.console import Console
from emclean.loop.grid import running
from emclean.loop.grid.opening import opened
from emclean.stores.fakes import InMemoryTracker

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:.*is deprecated.*:DeprecationWarning:ray\.data\.context"),
]

JOB = Path(__file__).resolve().parents[2] / "pipelines" / "noise_grid.py"
TWO_BY_TWO = (
    "task=classes",
    "data.simulate={particles: 40, size: 32}",
    "methods=[cross_entropy, co_teaching]",
    "rates=[0.1, 0.3]",
    "classifier={size: 32, steps: 100, batch: 16, eval_every: 50}",
    "run=g",
)


def finished(workspace):
    """The finished cells, with the moment in which each was written."""
    return {file.name: file.stat().st_mtime_ns for file in (workspace / "grids" / "cells").glob("[!.]*")}


def killed_after_a_cell(cluster, workspace):
    """Start the job, kill it with SIGKILL when a cell has finished; the cells that it left."""
    line = [sys.executable, str(JOB), f"workspace={workspace}", *TWO_BY_TWO]
    with (workspace / "log").open("wb") as log:
        driver = subprocess.Popen(
            line, env={**os.environ, "RAY_ADDRESS": cluster.address}, stdout=log, stderr=log
        )
    until = time.monotonic() + 240
    while not finished(workspace) and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    return finished(workspace)


def test_a_grid_whose_driver_is_killed_goes_on_and_repeats_no_finished_cell(cluster, tmp_path):
    before = killed_after_a_cell(cluster, tmp_path)
    assert 1 <= len(before) < 4, (tmp_path / "log").read_text()
    with opened(load_grid(None, [f"workspace={tmp_path}", *TWO_BY_TWO]), Console()) as grid:
        assert grid.runner.slots == 2
        outcome = running.run(replace(grid, tracker=InMemoryTracker()))
    found = json.loads(outcome.summary.read_text())
    assert [(cell["method"], cell["rate"]) for cell in found["cells"]] == [
        (method, rate) for method in ("cross_entropy", "co_teaching") for rate in (0.1, 0.3)
    ]
    assert {cell["status"] for cell in found["cells"]} == {"finished"}
    assert all(0 <= cell["accuracy"] <= 1 for cell in found["cells"])
    assert all(0 <= cell["estimated_rate"] < 1 for cell in found["cells"][2:])
    after = finished(tmp_path)
    repeated = sum(after[name] != moment for name, moment in before.items())
    print(f"{len(before)} of 4 cells were finished at SIGKILL, {repeated} of them were repeated")
    assert repeated == 0
    assert 0 < found["counts"]["run"] <= 4 - len(before)
    assert not list((tmp_path / "grids" / "tune").iterdir())  # Tune's own files are of no further use
