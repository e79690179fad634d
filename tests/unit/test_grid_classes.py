"""A grid over classes: what decides its cells, what each is given, and from its plan to its files."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from class_benches import SeeingCase, class_set, grid, small, trial

from emclean.config import load_grid
from emclean.errors import DataError
from emclean.loop.console import Console
from emclean.loop.grid import running
from emclean.loop.grid.cells import Cell
from emclean.loop.grid.classes import experiment
from emclean.loop.grid.classes.bench import Case, parts_of
from emclean.loop.grid.classes.opening import check
from emclean.loop.grid.opening import opened
from emclean.models import robust
from emclean.report import grid_plots
from emclean.stores.fakes import InMemoryTracker

CELL = Cell("cross_entropy", "pair", 0.25, 1)


def digest_of(folder, cell=CELL, *overrides, **sets):
    return cell.digest(trial(folder, *overrides, **sets).facts(cell))


def test_a_cell_is_known_by_what_decides_its_result_and_by_nothing_else(tmp_path):
    known = digest_of(tmp_path)
    same = ["rates=[0.1]", "seeds=[5]", "own_rate=0.3", "concurrent=1", "run=x", "trusted_pairs=5"]
    assert digest_of(tmp_path / "elsewhere", CELL, *same) == known
    assert digest_of(tmp_path, train=class_set(tmp_path, seed=1)) != known
    assert digest_of(tmp_path, test=class_set(tmp_path, seed=1)) != known
    assert digest_of(tmp_path, CELL, "preset=faithful", "methods=[cross_entropy]") != known
    for other in (
        "classifier.lr=0.1",
        "trusted_to_all=true",
        "classifier.mirror_head=true",
    ):
        assert digest_of(tmp_path, CELL, other) != known
    cells = [Cell("two_step", "pair", 0.25, 1), Cell("cross_entropy", "independent", 0.25, 1)]
    for other in [*cells, Cell("cross_entropy", "pair", 0.3, 1), Cell("cross_entropy", "pair", 0.25, 2)]:
        assert digest_of(tmp_path, other) != known


def test_trusted_labels_decide_only_the_cells_that_have_any(tmp_path):
    two_step = Cell("two_step", "pair", 0.25, 1)
    assert digest_of(tmp_path, two_step) != digest_of(tmp_path, two_step, "trusted_pairs=5")


@pytest.mark.parametrize("recipe", ["RECIPE", "TRAINING"])
def test_every_cell_is_run_again_where_training_or_measuring_changes(tmp_path, monkeypatch, recipe):
    known = digest_of(tmp_path)
    monkeypatch.setattr(experiment, recipe, 99)
    assert digest_of(tmp_path) != known


def test_votes_decide_only_the_cells_of_the_crowd(tmp_path):
    both = (
        "noise=[pair, crowd]",
        "data.train.crowd=[v]",
        "data.train.images=.",
        "data.train.labels=.",
        "mirror=true",
    )
    found = trial(tmp_path, *both, train=class_set(tmp_path, votes=1))
    other = trial(tmp_path, *both, train=class_set(tmp_path, votes=2))
    crowd = [cell for cell in found.cells if cell.noise == "crowd"]
    assert [(cell.rate, cell.seed) for cell in crowd] == [(0.2, 0)] * 3  # every fifth vote is wrong
    for cell in found.cells:
        assert (found.facts(cell) == other.facts(cell)) == (cell.noise != "crowd")


def test_parts_never_share_a_particle_and_errors_are_exact_and_coherent(tmp_path):
    bench = trial(tmp_path).bench
    parts = parts_of(bench, CELL)
    pairs = [set(part.pairs.tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert [len(own) for own in pairs] == [32, 4, 4]
    assert not pairs[0] & pairs[1] | pairs[0] & pairs[2] | pairs[1] & pairs[2]
    for part, labels in ((parts.train, parts.train_labels), (parts.validation, parts.validation_labels)):
        wrong = labels != part.labels
        assert wrong.mean() == 0.25
        assert all(len(set(wrong[part.pairs == pair].tolist())) == 1 for pair in set(part.pairs.tolist()))
    alone = parts_of(bench, Cell("gce", "independent", 0.25, 1))
    wrong = alone.train_labels != alone.train.labels
    assert wrong.mean() == 0.25
    assert any(len(set(wrong[alone.train.pairs == p].tolist())) == 2 for p in pairs[0])


def test_method_noise_and_rate_do_not_change_the_parts_but_the_seed_does(tmp_path):
    bench = trial(tmp_path).bench
    mine = parts_of(bench, CELL)
    other = parts_of(bench, Cell("gce", "independent", 0.4, 1))
    assert np.array_equal(mine.test.rows, other.test.rows)
    assert not np.array_equal(mine.test.rows, parts_of(bench, Cell("gce", "pair", 0.25, 2)).test.rows)


def test_a_test_set_of_its_own_is_the_test_part_whatever_the_seed(tmp_path):
    test = class_set(tmp_path, 6, seed=9)
    parts = parts_of(trial(tmp_path, test=test).bench, CELL)
    assert parts.test is test
    assert (len(parts.train), len(parts.validation)) == (72, 8)


def test_the_crowds_labels_are_the_consensus_of_those_who_named_a_class(tmp_path):
    found = class_set(tmp_path, votes=3)
    found.votes[found.pairs == 7] = -1
    bench = trial(tmp_path, train=found).bench
    parts = parts_of(bench, Cell("gce", "crowd", 0.2, 0))
    assert 7 not in parts.train.pairs
    assert np.array_equal(parts.train_labels, parts.train.labels)  # never do two of three err together
    assert bench.crowd_rate() == 0.0


def test_trusted_labels_go_to_those_who_need_them_or_to_all(tmp_path):
    def trusted(method, *overrides):
        return Case(trial(tmp_path, *overrides).bench, Cell(method, "pair", 0.5, 3)).task()

    assert len(trusted("gce").trusted_rows) == 0
    mine, others = trusted("two_step"), trusted("gce", "trusted_to_all=true")
    assert len(mine.trusted_rows) == 8  # four particles and their mirror images
    assert np.array_equal(mine.trusted_rows, others.trusted_rows)
    assert np.array_equal(mine.trusted_labels, mine.trusted_rows // 40)
    assert set(mine.trusted_rows.tolist()) <= set(mine.rows.tolist())


def test_the_true_rate_is_told_by_the_faithful_preset_alone(tmp_path):
    cell = Cell("co_teaching", "pair", 0.25, 0)
    fair = trial(tmp_path, "methods=[co_teaching]").bench
    faithful = trial(tmp_path, "preset=faithful", "methods=[co_teaching]").bench
    assert (Case(fair, cell).task().noise_rate, Case(faithful, cell).task().noise_rate) == (None, 0.25)
    assert (fair.judges("co_teaching"), faithful.judges("co_teaching")) == (True, False)
    course = faithful.courses["co_teaching"]
    assert (course.spec.family, course.spec.size, course.recipe.keep) == ("pooled", 16, "last")


def test_fewer_steps_keep_the_proportions_of_the_source(tmp_path):
    wanted = ("preset=faithful", "methods=[cross_entropy, two_step, co_teaching]")
    bench = trial(tmp_path, *wanted, "classifier={size: 16, steps: 2870}").bench
    recipes = {name: found.recipe for name, found in bench.courses.items()}
    assert [recipe.steps for recipe in recipes.values()] == [2870, 2871, 390]
    assert [recipe.eval_every for recipe in recipes.values()] == [29, 29, 10]
    assert bench.courses["two_step"].options["first"] == 90


def test_methods_that_judge_labels_share_one_cross_fit(tmp_path):
    bench = trial(tmp_path, f"methods=[{', '.join(robust.METHODS)}]").bench
    ran, shared = {}, set()
    for method in sorted(robust.METHODS):
        case = SeeingCase(bench, Cell(method, "pair", 0.25, 0))
        case.fit()
        ran[method] = case.ran
        shared.add(case.places.get("crossfit"))
    assert ran["cross_entropy"] == ["cross_entropy"]
    for method in ("forward", "confident", "co_teaching"):
        assert ran[method] == ["crossfit", method]
    assert not set(ran["elr"]) - {"elr"}
    assert len(shared - {None}) == 1


def test_a_cross_fit_keeps_groups_whole_and_the_cell_tells(tmp_path):
    alone = class_set(tmp_path)
    grouped = replace(alone, groups=alone.pairs // 4)
    for method, differs in (("forward", True), ("gce", False)):
        cell = Cell(method, "pair", 0.25, 0)
        one, other = (trial(tmp_path, f"methods=[{method}]", train=given) for given in (alone, grouped))
        facts = [{k: v for k, v in found.facts(cell).items() if k != "given"} for found in (one, other)]
        assert (facts[0] != facts[1]) == differs
        assert np.array_equal(
            Case(other.bench, cell).task().groups, Case(other.bench, cell).parts.train.groups
        )


def test_too_few_particles_are_said(tmp_path):
    with pytest.raises(DataError, match="32 particles in the training part of seed 0; 32 are to be trusted"):
        check(trial(tmp_path, "trusted_pairs=32"))
    one_sided = class_set(tmp_path)
    few = one_sided.take(np.flatnonzero((one_sided.labels == 0) | (one_sided.pairs == 3)))
    with pytest.raises(DataError, match="has no picture of class right"):
        check(trial(tmp_path, train=few))


@pytest.fixture
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


TWO = ("methods=[cross_entropy, forward]", "rates=[0.25, 0.5]", "own_rate=0.3")


def test_a_grid_leaves_a_table_a_summary_and_a_page(tmp_path, ran, capsys):
    outcome = running.run(grid(tmp_path, *TWO))
    found = summary(outcome)
    assert (outcome.code, found["task"], found["counts"]["run"]) == (0, "classes", 4)
    cell = found["cells"][2]
    assert (cell["method"], cell["accuracy"], cell["estimated_rate"], cell["trusted"]) == (
        "forward",
        1.0,
        0.25,
        0,
    )
    assert (cell["images"], cell["tested"], cell["true_rate"]) == (64, 4, 0.25)
    assert pq.read_table(tmp_path / "runs" / "g" / "grid.parquet").to_pylist() == found["cells"]
    assert [curve["holds"] for curve in found["curves"]] == [0.5, 0.5]
    assert found["recommendation"][0]["rate"] == 0.3
    page = (tmp_path / "runs" / "g" / "report.html").read_text()
    assert "At 30 % wrong labels (pair): cross_entropy, 100.0 %" in page
    assert "no method can be better than chance there" in page
    said = capsys.readouterr().out
    assert "forward pair 0.25 seed 0: accuracy 100.0 %, estimated error rate 25.0 %" in said
    assert "of 24" in said  # four cells of 4 steps, two of which have a cross-fit of 4 before


def test_mlflow_is_told_of_cells_means_areas_and_files(tmp_path, ran):
    tracker = InMemoryTracker()
    running.run(grid(tmp_path, *TWO, "seeds=[0, 1]", tracker=tracker))
    (parent,) = [run for run in tracker.runs.values() if run.parent is None]
    assert set(parent.metrics["accuracy.forward.pair"]) == {250, 500}
    assert {"area.cross_entropy.pair", "holds.forward.pair"} <= set(parent.metrics)
    assert {path.name for path in (tmp_path / "runs" / "g" / "plots").iterdir()} == {
        "curve_accuracy-pair.png",
        "heat_accuracy-pair.png",
    }
    children = [run for run in tracker.runs.values() if run.parent is not None]
    assert len(children) == 8
    assert all(run.metrics["accuracy"] for run in children)


def test_a_further_method_or_rate_runs_only_its_own_cells(tmp_path, ran):
    running.run(grid(tmp_path, *TWO))
    ran.clear()
    more = "methods=[cross_entropy, forward, two_step]"
    found = summary(running.run(grid(tmp_path, more, *TWO[1:])))
    assert ran == ["two_step pair 0.25 seed 0", "two_step pair 0.5 seed 0"]
    assert (found["counts"]["run"], found["cells"][-1]["trusted"]) == (2, 4)


def test_one_failing_cell_stops_no_other(tmp_path, ran, monkeypatch):
    monkeypatch.setattr(
        SeeingCase, "predict", lambda case, weights: 1 / case.parts.true_rate() + np.eye(2)[[0]]
    )
    found = summary(running.run(grid(tmp_path, "rates=[0.0, 0.25]", "methods=[cross_entropy]")))
    assert [cell["status"] for cell in found["cells"]] == ["failed", "finished"]
    assert found["cells"][0]["reason"].startswith("ZeroDivisionError")


@pytest.mark.slow  # for what torch and cleanlab load; the training itself takes a second
def test_simulated_particles_are_trained_on_from_the_pictures_to_the_report(tmp_path):
    wanted = ("data.simulate={particles: 20, size: 32}", "methods=[two_step, forward]", "rates=[0.2]")
    with opened(small(tmp_path, *wanted), Console()) as made:
        found = summary(running.run(replace(made, tracker=InMemoryTracker())))
    assert found["counts"] == {"cells": 2, "run": 2, "failed": 0}
    assert [cell["trusted"] for cell in found["cells"]] == [4, 0]
    assert 0 <= found["cells"][1]["estimated_rate"] < 1
    assert all(cell["train_seconds"] > 0 for cell in found["cells"])
    names = sorted(path.name.split("-")[0] for path in (tmp_path / "grids" / "models").iterdir())
    assert names == ["crossfit", "forward", "two_step"]
    with opened(small(tmp_path, *wanted), Console()) as again:
        assert {cell["digest"] for cell in found["cells"]} == set(again.cells)


def test_the_grid_needs_no_key_but_its_task():
    assert load_grid(None, ["task=classes"]).is_mirrored
