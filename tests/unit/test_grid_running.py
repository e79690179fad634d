"""A grid from its plan to its files: what runs, what is found again, what fails, what is told."""

import json
import time

import pyarrow.parquet as pq
import pytest
from grid_benches import SeeingCase, grid

from emclean.errors import DataError, TrackingError
from emclean.loop.grid import running
from emclean.loop.grid.boxes import experiment
from emclean.loop.grid.opening import InlineRunner
from emclean.report import grid_plots
from emclean.stores.fakes import InMemoryTracker

TWO = ("methods=[crowd, truth]", "rates=[0.2, 0.4]")


@pytest.fixture(autouse=True)
def ran(monkeypatch):
    """The cells that were run, in order; nothing is trained, nothing drawn."""
    for name in ("heat_map", "rate_curves"):
        monkeypatch.setattr(grid_plots, name, lambda *given, theme: theme.encode())
    names = []

    def case(bench, cell, watch, device):
        names.append(str(cell))
        return SeeingCase(bench, cell, watch, device)

    monkeypatch.setattr(experiment, "Case", case)
    return names


def summary(outcome):
    return json.loads(outcome.summary.read_text())


def test_a_grid_leaves_a_table_a_summary_and_a_page(tmp_path, ran):
    outcome = running.run(grid(tmp_path, *TWO))
    found = summary(outcome)
    assert outcome.code == 0
    assert (found["status"], found["counts"]) == ("finished", {"cells": 4, "run": 4, "failed": 0})
    assert {"method", "noise", "rate", "seed", "ap50", "label_f1", "seconds"} <= set(found["cells"][0])
    assert [cell["ap50"] for cell in found["cells"]] == [pytest.approx(1.0)] * 4
    assert [cell["label_f1"] == 1 for cell in found["cells"]] == [False, False, True, True]
    compute = [cell["compute_seconds"] for cell in found["cells"]]
    assert found["efficiency"] == pytest.approx(sum(compute) / (found["wall_seconds"] * found["slots"]))
    assert min(compute) > 0
    table = pq.read_table(tmp_path / "runs" / "g" / "grid.parquet").to_pylist()
    assert table == found["cells"]
    assert "Noise: mixed" in (tmp_path / "runs" / "g" / "report.html").read_text()


def test_a_further_method_or_rate_runs_only_its_own_cells(tmp_path, ran):
    running.run(grid(tmp_path, *TWO))
    ran.clear()
    found = summary(running.run(grid(tmp_path, "methods=[crowd, truth, crowd_mixed]", "rates=[0.2, 0.4]")))
    assert ran == ["crowd_mixed mixed 0.2 seed 0", "crowd_mixed mixed 0.4 seed 0"]
    assert found["counts"] == {"cells": 6, "run": 2, "failed": 0}
    ran.clear()
    found = summary(running.run(grid(tmp_path, "methods=[crowd, truth]", "rates=[0.2, 0.3]")))
    assert ran == ["crowd mixed 0.3 seed 0", "truth mixed 0.3 seed 0"]
    ran.clear()
    found = summary(running.run(grid(tmp_path, *TWO)))
    assert (ran, found["counts"]["run"], found["efficiency"]) == ([], 0, None)


def test_a_cell_that_waits_computes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(SeeingCase, "__post_init__", lambda case: time.sleep(0.4))
    found = summary(running.run(grid(tmp_path, "methods=[crowd]", "rates=[0.2]")))  # it fails after that
    (cell,) = found["cells"]
    assert cell["seconds"] >= 0.4
    assert cell["compute_seconds"] < 0.2
    assert found["efficiency"] < 0.5


def broken(tmp_path, *names):
    """Folders where these cells' files should go: they cannot be written."""
    places = []
    for digest, cell in grid(tmp_path, *TWO).cells.items():
        if str(cell) in names:
            places.append(tmp_path / "grids" / "cells" / f"{digest}.json")
            places[-1].mkdir(parents=True)
    return places


def test_one_failing_cell_stops_no_other_and_is_tried_again(tmp_path, ran):
    (place,) = broken(tmp_path, "crowd mixed 0.2 seed 0")
    outcome = running.run(grid(tmp_path, *TWO))
    first = summary(outcome)
    assert (outcome.code, first["status"], first["counts"]["failed"]) == (0, "finished", 1)
    failed = first["cells"][0]
    assert (failed["status"], failed["ap50"], failed["label_f1"]) == ("failed", None, None)
    assert failed["reason"].startswith("IsADirectoryError: ")
    assert "IsADirectoryError" in (tmp_path / "runs" / "g" / "report.html").read_text()
    place.rmdir()
    ran.clear()
    assert summary(running.run(grid(tmp_path, *TWO)))["counts"] == {"cells": 4, "run": 1, "failed": 0}
    assert ran == ["crowd mixed 0.2 seed 0"]


def test_where_every_cell_fails_the_faults_own_code_is_told(tmp_path, monkeypatch):
    def no_case(*given):
        raise DataError("nothing to learn from", "train")

    monkeypatch.setattr(experiment, "Case", no_case)
    tracker = InMemoryTracker()
    outcome = running.run(grid(tmp_path, *TWO, tracker=tracker))
    assert outcome.code == 3
    assert summary(outcome)["status"] == "failed"
    assert summary(outcome)["cells"][0]["reason"] == "train: nothing to learn from"
    assert next(run for run in tracker.runs.values() if run.parent is None).status == "FAILED"


def test_a_grid_that_was_stopped_goes_on_where_it_was(tmp_path, ran):
    class Stopping(InlineRunner):
        def run(self, work, digests, told, ended):
            super().run(work, digests[:3], told, ended)
            raise KeyboardInterrupt

    tracker = InMemoryTracker()
    with pytest.raises(KeyboardInterrupt):
        running.run(grid(tmp_path, *TWO, runner=Stopping(), tracker=tracker))
    assert [run.status for run in tracker.runs.values()] == ["KILLED"]
    assert not (tmp_path / "runs" / "g" / "summary.json").exists()
    ran.clear()
    running.run(grid(tmp_path, *TWO, tracker=tracker))
    assert ran == ["truth mixed 0.4 seed 0"]
    assert {run.status for run in tracker.runs.values()} == {"FINISHED"}


def test_mlflow_is_told_of_every_cell_of_the_means_and_of_the_files(tmp_path):
    tracker = InMemoryTracker()
    running.run(grid(tmp_path, *TWO, "seeds=[0, 1]", tracker=tracker))
    running.run(grid(tmp_path, *TWO, "seeds=[0, 1]", tracker=tracker))  # changes nothing
    parents = [run for run in tracker.runs.values() if run.parent is None]
    cells = [run for run in tracker.runs.values() if run.parent is not None]
    assert (len(parents), len(cells)) == (1, 8)
    assert {run.params["method"] for run in cells} == {"crowd", "truth"}
    assert all(run.metrics["ap50"] for run in cells)
    assert set(parents[0].metrics["ap50.crowd.mixed"]) == {200, 400}
    names = {str(path).rsplit("/", 1)[-1] for path in parents[0].artifacts}
    assert {"grid.parquet", "summary.json", "report.html", "plots"} <= names


def test_results_are_written_before_mlflow_is_told(tmp_path):
    class Away(InMemoryTracker):
        def log(self, run_id, metrics=None, params=None, artifacts=(), step=0):
            if metrics:
                raise TrackingError("away")
            super().log(run_id, metrics, params, artifacts, step)

    with pytest.raises(TrackingError):
        running.run(grid(tmp_path, *TWO, tracker=Away()))
    assert (tmp_path / "runs" / "g" / "summary.json").exists()


def test_progress_counts_training_steps_and_tells_each_result(tmp_path, capsys):
    running.run(grid(tmp_path, *TWO))
    said = capsys.readouterr().out
    assert "4 cells: 0 on file, 4 to run" in said
    assert "crowd mixed 0.4 seed 0: AP50 1.000, label F1 0." in said
    assert "of 80" in said  # four cells of 20 steps
