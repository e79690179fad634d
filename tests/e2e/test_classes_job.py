"""The main job over classes as users start it: real photographs with planted label error, a killed run."""

import csv
import json
import signal
import time

import numpy as np
import pytest
from conftest import Program, at

from emclean.stores.label_studio.client import LabelStudioClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

POOL, TEST, ERROR = 200, 200, 0.2
ALL = 1446


@pytest.fixture
def hands(emclean_data, tmp_path):
    """Settings for photographs of right hands, a fifth of them labelled left; mirror images are left."""
    order = np.random.default_rng(7).permutation(ALL)
    wrong = set(np.random.default_rng(8).permutation(POOL)[: round(ERROR * POOL)].tolist())
    parts = {
        "crowd": [(row, "left" if k in wrong else "right") for k, row in enumerate(order[:POOL])],
        "truth": [(row, "right") for row in order[:POOL]],
        "test": [(row, "right") for row in order[POOL : POOL + TEST]],
    }
    for name, rows in parts.items():
        with (tmp_path / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("row", "label"), *rows])
    sheet = emclean_data / "right_hands" / "sheet.jpg"
    data = [
        setting
        for part, labels in (("pool", "crowd"), ("test", "test"))
        for setting in (
            f"data.{part}.images={sheet}",
            f"data.{part}.labels={tmp_path / labels}.csv",
            f"data.{part}.tile=100",
        )
    ]
    return (
        "task=classes", *data, "data.pool.classes=[left, right]", f"expert.truth={tmp_path / 'truth.csv'}",
        "mirror=true", "run=hands", "serve=false", "services.poll_s=0.3",
        "classifier={size: 32, steps: 120, final_steps: 160, batch: 32, eval_every: 20}",
    )  # fmt: skip


def test_photographs_with_planted_error_are_cleaned_in_one_process(hands, tmp_path):
    job = Program(tmp_path / "w", *hands, "compute=inline", "label_service=in_process", "budget.rounds=1")
    assert job.run() == 0, job.said()
    summary = job.summary("hands")
    assert summary["crowd_labels"]["accuracy"] == pytest.approx(1 - ERROR)
    last = summary["rounds"][-1]
    assert last["labels"]["accuracy"] > 0.85
    assert last["accuracy"] > 0.7
    assert last["cost"]["images"] == pytest.approx(0.2 * POOL, abs=2)
    assert "label accuracy" in job.said()
    assert "AP50" not in (tmp_path / "w" / "runs" / "hands" / "report.html").read_text()


@pytest.mark.e2e
def test_a_killed_run_asks_nothing_twice_in_label_studio(hands, tmp_path, label_studio):
    job = Program(tmp_path / "w", *hands, *at(label_studio), "compute=inline", "budget.rounds=1")
    running = job.start()
    while "tasks: 3 of" not in job.said() and running.poll() is None and not _answers(job):
        time.sleep(0.2)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert job.run() == 0, job.said()
    with LabelStudioClient(label_studio.url, label_studio.token()) as client:
        (project,) = client.get("/api/projects", title="emclean hands")["results"]
        tasks = list(client.tasks(int(project["id"]), [], ("id", "data", "total_annotations")))
    keys = [task["data"]["key"] for task in tasks]
    assert len(keys) == len(set(keys)) == job.summary("hands")["rounds"][-1]["cost"]["images"]
    assert {task["total_annotations"] for task in tasks} == {1}
    assert len({task["data"]["image_id"] for task in tasks}) == len(keys)


@pytest.mark.e2e
def test_a_killed_run_of_two_experts_asks_each_as_often_as_the_budget_says(hands, tmp_path, label_studio):
    several = (
        "run=two", "expert.count=2", "expert.misses=[0.2, 0.3]", "strategy=activelab", "budget.labels=50",
        "corrections.precision=0.99", "budget.rounds=2",
    )  # fmt: skip
    job = Program(tmp_path / "w", *hands, *at(label_studio), "compute=inline", *several)
    running = job.start()
    while "round 1: asking" not in job.said() and running.poll() is None:
        time.sleep(0.2)
    time.sleep(3)  # some of the answers of round 1 are given
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert job.run() == 0, job.said()
    with LabelStudioClient(label_studio.url, label_studio.token()) as client:
        (project,) = client.get("/api/projects", title="emclean two")["results"]
        fields = ("id", "data", "annotations", "completed_by")
        tasks = list(client.tasks(int(project["id"]), [], fields))
    last = job.summary("two")["rounds"][-1]
    assert len(tasks) == last["answers"] == 50
    assert [len(task["annotations"]) for task in tasks] == [1] * 50
    who = {}
    for task in tasks:
        by = task["annotations"][0]["completed_by"]
        who.setdefault(task["data"]["image_id"], []).append(by["id"] if isinstance(by, dict) else by)
    assert len(who) == last["cost"]["images"] < 50
    assert all(len(set(people)) == len(people) for people in who.values())
    found = last["estimate"]["experts"]
    assert found["looked_twice"] == sum(len(people) > 1 for people in who.values())
    assert sum(expert["answers"] for expert in found["each"]) == 50


def _answers(job):
    file = job.workspace / "runs" / "hands" / "waiting.json"
    return file.exists() and json.loads(file.read_text())["answered"] > 2
