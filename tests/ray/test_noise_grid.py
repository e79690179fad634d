"""A grid on a real Ray: cells side by side, failures, a further method, a killed trial, a killed driver."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emclean.config import load_grid
from emclean.distributed import grid as trials
from emclean.errors import ComputeError
from emclean.loop.console import Console
from emclean.loop.grid import running
from emclean.loop.grid.opening import opened

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings(r"ignore:.*is deprecated.*:DeprecationWarning:ray\.data\.context"),
]

JOB = Path(__file__).resolve().parents[2] / "pipelines" / "noise_grid.py"
SMALL = (
    "data.simulate={train: 6, test: 2, size: 128}",
    "detector={steps: 2, final_steps: 3, eval_every: 1, batch: 2, crop: 64}",
    "expert_images=2",
    "noise=[missed]",
    "run=g",
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """What the small grids have in common; also MLflow's database, which takes long to make."""
    return (*SMALL, f"services.mlflow=sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


def run(workspace, *settings):
    """Run a grid on the Ray that this process has joined; its summary."""
    with opened(load_grid(None, [f"workspace={workspace}", *settings]), Console()) as grid:
        outcome = running.run(grid)
    return json.loads(outcome.summary.read_text())


def names(found, status):
    return [(cell["method"], cell["rate"]) for cell in found["cells"] if cell["status"] == status]


def test_cells_run_side_by_side_one_fails_and_a_further_method_runs_its_own(cluster, settings, tmp_path):
    two = (*settings, "methods=[crowd, expert_only]", "rates=[0.2, 0.4]")
    with opened(load_grid(None, [f"workspace={tmp_path}", *two]), Console()) as grid:
        assert grid.runner.slots == 2
        broken = [d for d, cell in grid.cells.items() if (cell.method, cell.rate) == ("crowd", 0.4)]
        place = grid.files.folder / f"{broken[0]}.json"
    place.mkdir(parents=True)  # a file that cannot be written
    first = run(tmp_path, *two)
    assert names(first, "failed") == [("crowd", 0.4)]
    assert "IsADirectoryError" in first["cells"][1]["reason"]
    assert all(0 <= cell["ap50"] <= 1 for cell in first["cells"] if cell["status"] == "finished")
    assert not list((tmp_path / "grids" / "tune").iterdir())  # Tune's own files are of no further use
    place.rmdir()
    second = run(tmp_path, *two, "methods=[crowd, expert_only, truth]")
    assert second["counts"] == {"cells": 6, "run": 3, "failed": 0}  # the failed one, and those of truth
    kept = [cell for cell in second["cells"] if cell in first["cells"]]
    assert len(kept) == 3


def test_a_trial_whose_process_dies_is_begun_again_but_not_for_ever(cluster, tmp_path):
    folder = str(tmp_path)

    def work(name, watch):
        import os
        import signal
        from pathlib import Path

        with (Path(folder) / name).open("a") as log:
            log.write("begun\n")
        watch(1.0)
        first = len((Path(folder) / name).read_text().splitlines()) == 1
        if name == "dies always" or (name == "dies once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        return {"name": name}

    steps, ended = [], []
    found = trials.run_all(
        work,
        ["lives", "dies once", "dies always"],
        trials.Need(retries=1),
        storage=tmp_path / "tune" / "x",
        told=lambda name, done: steps.append((name, done)),
        ended=lambda name, out: ended.append(name),
    )
    assert (found["lives"], found["dies once"]) == ({"name": "lives"}, {"name": "dies once"})
    assert isinstance(found["dies always"], ComputeError)
    assert (tmp_path / "dies always").read_text() == "begun\n" * 2
    assert ("lives", 1.0) in steps
    assert sorted(ended) == sorted(found)


def test_more_gpus_than_there_are_is_said_at_once():
    with pytest.raises(ComputeError, match=r"a cell takes 1 core and 0\.5 GPUs, the cluster offers 2 and 0"):
        trials.Need(gpus=0.5).slots(2, 0)
    assert trials.Need(gpus=0.5).slots(16, 2) == 4
    assert trials.Need(gpus=1).slots(16, 2) == 2
    assert trials.Need().slots(16, 2) == 16
    assert trials.Need(at_once=3).slots(16, 2) == 3


def finished(workspace):
    """The finished cells, with the moment in which each was written."""
    return {file.name: file.stat().st_mtime_ns for file in (workspace / "grids" / "cells").glob("[!.]*")}


def test_a_grid_whose_driver_is_killed_goes_on_and_repeats_no_finished_cell(cluster, settings, tmp_path):
    many = (
        *settings,
        "methods=[crowd]",
        "rates=[0.1, 0.2, 0.3, 0.4, 0.5]",
        "detector={steps: 2, final_steps: 20, eval_every: 5, batch: 2, crop: 64}",
    )
    line = [sys.executable, str(JOB), f"workspace={tmp_path}", *many]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(
            line, env={**os.environ, "RAY_ADDRESS": cluster.address}, stdout=log, stderr=log
        )
    until = time.monotonic() + 240
    while len(finished(tmp_path)) < 2 and driver.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    before = finished(tmp_path)
    assert 2 <= len(before) < 5, (tmp_path / "log").read_text()
    found = run(tmp_path, *many)
    assert names(found, "finished") == [("crowd", rate / 10) for rate in range(1, 6)]
    after = finished(tmp_path)
    assert {name: after[name] for name in before} == before
    assert 0 < found["counts"]["run"] <= 5 - len(before)
