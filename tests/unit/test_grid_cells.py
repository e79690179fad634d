"""Cells: what they are called, what decides them, how they are kept, and what each method makes of them."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
from grid_benches import DIGESTS, SeeingCase, bench
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.config import load_grid
from emclean.config_grid import NoiseGrid
from emclean.loop.grid.boxes import experiment as boxes
from emclean.loop.grid.boxes import opening
from emclean.loop.grid.boxes.bench import expert_labels, noisy_labels
from emclean.loop.grid.boxes.methods import METHODS
from emclean.loop.grid.cells import Cell, CellFiles, cells_of
from emclean.loop.ingest import Ingested
from emclean.science import noise
from emclean.science.evaluation import label_quality
from emclean.types import NOISE_KINDS

CELL = Cell("graded", "mixed", 0.3, 1)


def test_cells_are_all_combinations_with_seeds_changing_fastest():
    cells = cells_of(["crowd", "truth"], {"mixed": (0.1, 0.2)}, (0, 1))
    assert len(set(cells)) == len(cells) == 8
    assert [cell.seed for cell in cells[:4]] == [0, 1, 0, 1]
    assert str(cells[0]) == "crowd mixed 0.1 seed 0"


def digest_of(folder, cell=CELL, *overrides, digests=DIGESTS, expert_images=4):
    trial = opening.experiment(load_grid(None, overrides), bench(folder, expert_images), digests)
    return cell.digest(trial.facts(cell))


@pytest.mark.parametrize(
    ("cell", "digest"),
    [
        (CELL, "44ba65ae41320e85fc620da0"),
        (Cell("crowd", "mixed", 0.3, 1), "5b22bd794d985108eb2c7d8e"),
        (Cell("truth", "una", 0.1, 0), "654db0d8d40ba32f73145f9a"),
    ],
)
def test_cells_on_file_are_found_again(tmp_path, cell, digest):
    """Where this fails although no result changed, every kept result of every workspace is lost."""
    assert digest_of(tmp_path, cell) == digest


def test_a_cell_is_known_by_what_decides_its_result_and_by_nothing_else(tmp_path):
    known = digest_of(tmp_path)
    same = ["methods=[graded]", "rates=[0.3, 0.4]", "compute=inline", "concurrent=1", "workspace=w", "run=x"]
    assert digest_of(tmp_path / "elsewhere", CELL, *same) == known
    assert digest_of(tmp_path, digests={**DIGESTS, "test": "v"}) != known
    assert digest_of(tmp_path, expert_images=5) != known
    others = [Cell("crowd", "mixed", 0.3, 1), Cell("graded", "una", 0.3, 1), Cell("graded", "mixed", 0.31, 1)]
    for other in [*others, Cell("graded", "mixed", 0.3, 2)]:
        assert digest_of(tmp_path, other) != known
    assert set(NoiseGrid.neutral) <= set(load_grid().model_dump())


def test_methods_that_ask_no_expert_do_not_care_how_many_images_one_has(tmp_path):
    crowd = Cell("crowd", "mixed", 0.3, 1)
    assert digest_of(tmp_path, crowd, expert_images=4) == digest_of(tmp_path, crowd, expert_images=5)


def test_a_method_that_does_something_else_has_its_cells_run_again(tmp_path, monkeypatch):
    other = Cell("crowd", "mixed", 0.3, 1)
    known, others = digest_of(tmp_path), digest_of(tmp_path, other)
    method = METHODS["graded"]
    monkeypatch.setattr(boxes, "METHODS", {**METHODS, "graded": replace(method, version=99)})
    assert digest_of(tmp_path) != known
    assert digest_of(tmp_path, other) == others


@pytest.mark.parametrize("recipe", ["RECIPE", "TRAINING", "SEARCH"])
def test_every_cell_is_run_again_where_training_searching_or_measuring_changes(tmp_path, monkeypatch, recipe):
    known = digest_of(tmp_path)
    monkeypatch.setattr(boxes, recipe, 99)
    assert digest_of(tmp_path) != known


def test_the_detector_decides_a_cell_but_not_how_often_it_reports(tmp_path):
    none = Ingested((), {}, ("deposit",), ())

    def facts(*overrides):
        return opening.bench_of(load_grid(None, overrides), tmp_path, none, none).recipe.facts()

    assert facts("detector.eval_every=7") == facts()
    for other in ("detector.steps=7", "detector.init=null", "detector.lr=0.1", "detector.scales=[0.5]"):
        assert facts(other) != facts()


def test_a_cell_file_is_whole_or_not_there(tmp_path):
    files = CellFiles(tmp_path / "cells")
    assert files.read("a") is None
    files.keep({"digest": "a", "ap50": 0.5})
    assert files.read("a") == {"digest": "a", "ap50": 0.5}
    (tmp_path / "cells" / "b.json").write_text('{"digest": "b", "ap5')
    (tmp_path / "cells" / "c.json").write_text(json.dumps({"digest": "a"}))  # not what its name says
    assert files.read("b") is None
    assert files.read("c") is None
    assert sorted(os.listdir(tmp_path / "cells")) == ["a.json", "b.json", "c.json"]


def test_a_kept_cell_stands_though_a_later_write_breaks_off(tmp_path, monkeypatch):
    files = CellFiles(tmp_path)
    files.keep({"digest": "a", "ap50": 0.5})
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        files.keep({"digest": "a", "ap50": 0.9})
    assert files.read("a") == {"digest": "a", "ap50": 0.5}


def test_noisy_labels_are_those_of_noise_rate_and_seed_alone(tmp_path):
    desk = bench(tmp_path)
    mine = noisy_labels(desk, CELL)
    again = noisy_labels(desk, Cell("crowd", *("mixed", 0.3, 1)))
    other = noisy_labels(desk, Cell("graded", "mixed", 0.3, 2))
    assert all(np.array_equal(mine[i].boxes, again[i].boxes) for i in mine)
    assert any(not np.array_equal(mine[i].boxes, other[i].boxes) for i in mine)


def test_without_errors_the_noisy_labels_are_the_truth(tmp_path):
    desk = bench(tmp_path)
    for i, labels in noisy_labels(desk, Cell("crowd", "mixed", 0.0, 0)).items():
        assert np.array_equal(labels.boxes, desk.train.truth[i].boxes)


def test_the_expert_knows_the_same_images_whatever_the_method_and_noise(tmp_path):
    desk = bench(tmp_path)
    known = expert_labels(desk, CELL)
    assert len(known) == 4
    assert list(known) == list(expert_labels(desk, Cell("expert_only", "una", 0.1, 1)))
    assert list(known) != list(expert_labels(desk, Cell("graded", "mixed", 0.3, 2)))


@given(st.sampled_from([*NOISE_KINDS, "mixed"]), st.floats(0, 1), st.integers(1, 3))
@settings(max_examples=30, deadline=None)
def test_a_rate_is_the_number_of_errors_for_each_object(name, rate, n_categories):
    rates = noise.at_rate(name, rate, n_categories)
    total = sum(getattr(rates, kind) for kind in NOISE_KINDS)
    assert total == pytest.approx(rate)
    assert rates.mislabelled == 0 or n_categories > 1 or name == "mislabelled"


def quality(case, labels):
    ids = sorted(labels)
    return label_quality([case.bench.train.truth[i] for i in ids], [labels[i] for i in ids]).f1


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """Every method's case and what it taught, on labels of which 40 % are missing."""
    desk = bench(tmp_path_factory.mktemp("bench"))
    cases = {name: SeeingCase(desk, Cell(name, "missed", 0.4, 0)) for name in METHODS}
    return {name: (case, METHODS[name].teach(case)) for name, case in cases.items()}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_teaches_labels_and_targets_of_the_same_images(method, taught):
    case, found = taught[method]
    assert found.targets.keys() == found.labels.keys()
    for i, target in found.targets.items():
        assert len(target) == len(found.labels[i])
    assert case.done + case.bench.recipe.final_steps == METHODS[method].steps(case.bench.recipe)


@pytest.mark.parametrize("method", ["graded", "paper"])
def test_what_good_models_see_is_mended(method, taught):
    case, found = taught[method]
    assert quality(case, case.noisy) < 0.8
    assert quality(case, found.labels) > 0.95


@pytest.mark.parametrize("method", ["expert_only", "crowd_mixed", "paper", "graded"])
def test_what_the_expert_said_is_trained_on_as_it_is(method, taught):
    case, found = taught[method]
    assert quality(case, {i: found.labels[i] for i in case.expert}) == 1.0
    assert all((found.targets[i].weights == 1).all() for i in case.expert)


def test_the_papers_procedure_trusts_every_label_fully_and_ignores_nothing(taught):
    _, found = taught["paper"]
    assert all((target.weights == 1).all() and target.regress.all() for target in found.targets.values())
    assert not any(len(target.ignore) for target in found.targets.values())


@pytest.mark.parametrize(("method", "models"), [("graded", 6), ("paper", 4)])
def test_no_image_is_searched_by_a_model_that_was_trained_on_it(method, models, taught):
    case, _ = taught[method]
    assert len(case.searched) == models
    assert all(not case.trained[weights] & ids for weights, ids, _ in case.searched)
    assert all(flips for *_, flips in case.searched)
    assert all(case.trained[f"cleaning {k}"] for k in range(2))
