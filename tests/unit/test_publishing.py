from types import SimpleNamespace

import numpy as np
import pytest
from loop_jobs import small_job

from emclean.loop import box_kind, publishing, steps
from emclean.loop.estimating import _entry
from emclean.loop.publishing import unseen
from emclean.loop.states import RunState
from emclean.science.evaluation import Interval
from emclean.types import Labels, Predictions

ONE = Labels(np.array([[1.0, 1.0, 5.0, 5.0]]), np.zeros(1, np.int64))
HELD = {"b": ONE, "a": ONE, "empty": Labels.empty()}


def test_a_champion_is_compared_on_what_it_was_not_trained_on():
    assert unseen(HELD, ["a", "elsewhere"]) == (["b", "empty"], "")


def test_a_champion_that_saw_every_object_is_compared_on_all_and_it_is_said():
    names, remark = unseen(HELD, ["a", "b"])
    assert names == ["a", "b", "empty"]
    assert "trained on these" in remark


TRUTH = Labels(np.array([[10.0 * k, 10, 10.0 * k + 8, 18] for k in range(8)]), np.zeros(8, np.int64))


def seeing(n):
    """Predictions of the first ``n`` objects."""
    return Predictions(TRUTH.boxes[:n], TRUTH.categories[:n], np.linspace(0.9, 0.5, n))


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Four images for validation, a champion that sees six of their eight objects, and who is served."""
    held = {i: TRUTH for i in ("a", "b", "c", "d")}
    known = {}  # by the weights' bytes: how many objects their model sees
    for name, n in (("old", 6), ("better", 8), ("equal", 6), ("worse", 2)):
        (tmp_path / name).write_text(name)
        known[name] = n

    def predict(job, weights, ids):
        return {i: seeing(known[open(weights).read()]) for i in ids}

    monkeypatch.setattr(publishing, "predict", predict)
    monkeypatch.setattr(publishing, "gate_part", lambda job, round_: held)
    monkeypatch.setattr(steps, "log_round", lambda job, state, row: "mlflow-run")
    monkeypatch.setattr(box_kind, "targets", lambda job, state: {"z": None})
    monkeypatch.setattr(box_kind, "round_overlays", lambda job, state, run_id: None)
    served = []

    def swap(version, weights, card):
        served.append((version, weights.read_text()))
        return "http://served"

    made = small_job(tmp_path, ids=("a", "b", "c", "d"), swap=swap)
    champion = made.parts.registry.register("other run", tmp_path / "old", {"trained_on": []}, None)
    made.parts.registry.promote(champion)
    return SimpleNamespace(made=made, served=served, folder=tmp_path)


def published(job, name):
    row = {
        "round": 0,
        "cost": {"images": 1, "boxes": {}, "minutes": 1.0, "share_of_full": 0.1},
        "labels": {"precision": None, "recall": None, "f1": None, "mean_iou": None},
        "ap50": None,
        "ap": None,
        "model_version": None,
    }
    row["cost"]["boxes"] = dict.fromkeys(("added", "moved", "deleted", "verified"), 0)
    weights = str(job.folder / name)
    state = RunState("run", rounds=(row,)).with_model("final-0", weights=weights, label_version=1)
    return steps.publish(job.made, state).rounds[-1]


@pytest.mark.parametrize(("name", "passes"), [("better", True), ("equal", True), ("worse", False)])
def test_only_a_model_that_is_worse_beyond_noise_is_turned_down(job, name, passes):
    registry = job.made.parts.registry
    row = published(job, name)
    assert row["promoted"] is passes
    assert row["model_version"] == "2"
    assert (registry.champion(), registry.alias("previous")) == (("2", "1") if passes else ("1", None))
    assert job.served == [("2", name) if passes else ("1", "old")]  # the champion, whoever it is
    assert job.made.parts.tables.read("rounds")["model_version"].to_pylist() == ["2"]


def test_one_image_has_no_interval():
    found = Interval(0.9, 0.8, 1.0)
    assert _entry(found, 1) == {"value": 0.9, "low": None, "high": None, "images": 1}
    assert _entry(found, 2) == {"value": 0.9, "low": 0.8, "high": 1.0, "images": 2}
    assert _entry(found, 0) == {"value": None, "low": None, "high": None, "images": 0}
