"""Reasons of verdicts on their way to people: in Label Studio and the tables, with category names."""

import json

import numpy as np
import pytest
from loop_jobs import BOX, small_job

from emclean.loop import cleaning, recording
from emclean.loop.selecting import suggestions
from emclean.loop.states import RunState
from emclean.stores.label_studio.convert import task_body
from emclean.types import Predictions, TaskSpec

REASON = "the model calls it vesicle"


@pytest.fixture
def judged(tmp_path, monkeypatch):
    """A job and what is said of its labels: all are called deposit, where the model sees a vesicle."""
    job = small_job(tmp_path)
    seen = Predictions(np.array([BOX]), np.ones(1, np.int64), np.array([0.9]))
    monkeypatch.setattr(
        cleaning, "crowd_predictions", lambda job, weights: dict.fromkeys(job.data.ids(), seen)
    )
    (tmp_path / "pixels").mkdir()
    for i in job.data.ids():
        np.save(job.picture(i), np.zeros((80, 100), np.uint8))
    return job, cleaning.judge(job, RunState("run", models={"crowd": {"weights": []}}), -1)


def test_the_page_of_label_studio_says_what_the_model_calls_it(judged):
    job, said = judged
    task = TaskSpec("run/a/0", job.data.record("a"), tuple(suggestions(job, said, "a")))
    regions = task_body(task, "u")["predictions"][0]["result"]
    (text,) = [text for region in regions for text in region["meta"]["text"]]
    assert text.startswith(f"mislabelled: {REASON} (score")
    assert "vesicle" in json.dumps(regions[0]["value"])


def test_the_table_of_verdicts_says_so_too(judged):
    job, said = judged
    recording.record_verdicts(job, 0, said)
    rows = job.parts.tables.read("verdicts").to_pylist()
    assert {row["reason"] for row in rows} == {REASON}
