import io
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from emclean.config import load
from emclean.errors import LabelServiceError
from emclean.loop import asking, simulating
from emclean.loop.cleaning import expert_labels
from emclean.loop.console import Console
from emclean.loop.ingest import Ingested
from emclean.loop.job import Job, Parts, RunData
from emclean.loop.spending import dearer, full_minutes, spent, spent_until
from emclean.loop.states import RunState
from emclean.stores import label_view
from emclean.stores import labels as label_events
from emclean.stores.fakes import InMemoryLabelService
from emclean.stores.tables import Tables
from emclean.types import AnsweredBox, ImageRecord, Labels, Suggestion

BOX = (10.0, 10.0, 30.0, 30.0)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def job(tmp_path):
    """A job over three images with one crowd label each, a label service and tables of its own."""
    ids = ("a", "b", "c")
    records = tuple(ImageRecord(i, f"/{i}.png", f"{i}.png", 100, 80) for i in ids)
    crowd = {i: Labels(np.array([BOX]), np.zeros(1, np.int64), (f"crowd-{i}",)) for i in ids}
    data = RunData(Ingested(records, crowd, ("deposit",), ()), None, crowd)
    nothing = SimpleNamespace()
    parts = Parts(
        tables=Tables(str(tmp_path / "tables")),
        service=InMemoryLabelService(),
        tracker=nothing,
        registry=nothing,
        compute=nothing,
        console=Console(),
        swap=None,
        expert_program=None,
        addresses={},
        now=lambda: NOW,
    )
    made = Job(load(), "run", tmp_path, parts, data)
    parts.tables.append("labels", label_events.crowd_events(crowd, ("deposit",), run="run", at=NOW))
    return made


def planned(job, images, round_=0, blind=False, minutes=0.0):
    shown = [Suggestion(f"crowd-{i}", BOX, "deposit", 0.7, "shifted", "why") for i in images]
    questions = [
        asking.make_question(job, i, round_, [s], at_random=True, blind=blind, value=1.0, minutes=minutes)
        for i, s in zip(images, shown, strict=True)
    ]
    asking.save_plan(job, round_, questions)
    return questions


def test_a_plan_comes_back_as_it_was(job):
    questions = planned(job, ["a", "b"])
    assert asking.load_plan(job, 0) == questions


def test_a_blind_question_shows_nothing(job):
    (question,) = planned(job, ["a"], blind=True)
    assert question.task.suggestions == ()


def test_pushing_again_asks_nothing_twice(job):
    planned(job, ["a", "b"])
    assert asking.push(job, 0) == asking.push(job, 0) == 2
    assert len(job.parts.service.pull(["run/a/0", "run/b/0"]).open) == 2
    states = job.parts.tables.read("tasks")["state"].to_pylist()
    assert sorted(states) == ["planned", "planned", "pushed", "pushed"]


def test_tasks_of_another_workspaces_run_of_the_same_name_are_not_ours(job, tmp_path):
    other = replace(job, parts=replace(job.parts, tables=Tables(str(tmp_path / "other"))))
    planned(other, ["b"])
    asking.push(other, 0)
    job.parts.service.answer("run/b/0", [])
    planned(job, ["a"])  # its own seed images are others
    with pytest.raises(LabelServiceError, match=r"1 tasks of a run of this name.*run=NAME"):
        asking.push(job, 0)
    assert job.parts.tables.read("tasks").num_rows == 0
    assert "run/a/0" not in job.parts.service.tasks


def test_tasks_that_were_sent_just_before_a_crash_are_ours(job, monkeypatch):
    planned(job, ["a"])
    send = job.parts.service.push

    def crash(tasks):
        send(tasks)
        raise ConnectionError("gone")

    monkeypatch.setattr(job.parts.service, "push", crash)
    with pytest.raises(ConnectionError):
        asking.push(job, 0)
    monkeypatch.undo()
    assert asking.push(job, 0) == 1


def test_an_answer_becomes_the_labels_of_its_image_once(job):
    planned(job, ["a"])
    asking.push(job, 0)
    drawn = AnsweredBox((50.0, 50.0, 70.0, 70.0), "deposit")
    job.parts.service.answer("run/a/0", [AnsweredBox(BOX, "deposit", "crowd-a"), drawn])
    asking.pull(job, 0)
    version = job.parts.tables.version("labels")
    asking.pull(job, 0)
    assert job.parts.tables.version("labels") == version
    said = expert_labels(job)
    assert set(said) == {"a"}
    np.testing.assert_allclose(sorted(said["a"].boxes.tolist()), [BOX, drawn.box])
    assert "crowd-a" in said["a"].ids


def test_a_crash_between_events_and_answers_loses_and_doubles_nothing(job, monkeypatch):
    planned(job, ["a"])
    asking.push(job, 0)
    job.parts.service.answer("run/a/0", [])
    real = Tables.append

    def dies_at_answers(self, name, rows, key=None):
        if name == "answers":
            raise KeyboardInterrupt
        return real(self, name, rows, key)

    monkeypatch.setattr(Tables, "append", dies_at_answers)
    with pytest.raises(KeyboardInterrupt):
        asking.pull(job, 0)
    events = job.parts.tables.read("labels").num_rows
    monkeypatch.undo()
    asking.pull(job, 0)
    assert job.parts.tables.read("labels").num_rows == events
    assert job.parts.tables.read("answers").num_rows == 1
    assert len(expert_labels(job)["a"]) == 0


def test_an_edited_answer_takes_the_place_of_the_first(job):
    planned(job, ["a"])
    asking.push(job, 0)
    first = job.parts.service.answer("run/a/0", [AnsweredBox(BOX, "deposit", "crowd-a")])
    asking.pull(job, 0)
    job.parts.service.edit(first.annotation_id, [])
    asking.pull(job, 0)
    assert len(expert_labels(job)["a"]) == 0
    assert job.parts.tables.read("answers").num_rows == 2


def test_skipped_and_deleted_tasks_end_without_labels(job):
    planned(job, ["a", "b", "c"])
    asking.push(job, 0)
    job.parts.service.skip("run/a/0")
    job.parts.service.delete("run/b/0")
    job.parts.service.answer("run/c/0", [])
    brought = asking.pull(job, 0)
    assert brought.open == ()
    asking.close(job, 0, brought)
    rows = job.parts.tables.read("tasks").to_pylist()
    ended = {r["image_id"]: r["state"] for r in rows if r["state"] not in ("planned", "pushed")}
    assert ended == {"a": "skipped", "b": "deleted", "c": "answered"}
    assert set(expert_labels(job)) == {"c"}


def test_the_cost_counts_what_was_touched(job):
    questions = planned(job, ["a", "b"])
    asking.push(job, 0)
    moved = AnsweredBox((12.0, 10.0, 30.0, 36.0), "deposit", "crowd-a")
    job.parts.service.answer("run/a/0", [moved, AnsweredBox((50.0, 50.0, 70.0, 70.0), "deposit")])
    job.parts.service.skip("run/b/0")
    asking.pull(job, 0)
    cost = spent(job, asking.annotations_so_far(job), questions)
    assert (cost.images, cost.added, cost.moved, cost.deleted, cost.verified) == (1, 1, 1, 0, 0)
    assert cost.minutes == pytest.approx((5 + 14 + 6 + 5) / 60)


def test_the_simulated_expert_answers_as_its_seed_and_the_key_say(job):
    planned(job, ["a", "b"])
    asking.push(job, 0)
    with simulating.answering(job, 0) as check:
        check()
    brought = asking.pull(job, 0)
    assert not brought.open
    again = [simulating.simulate_one(job, q.task) for q in asking.load_plan(job, 0)]
    assert [list(a.boxes) for a in sorted(brought.answers, key=lambda a: a.key)] == again


def test_full_minutes_of_the_pool(job):
    assert full_minutes(job) == pytest.approx(3 * (5 + 14) / 60)


def test_a_part_of_a_merged_label_descends_from_it(job):
    left, right = (10.0, 10.0, 19.0, 30.0), (21.0, 10.0, 30.0, 30.0)
    seen = (60.0, 60.0, 70.0, 70.0)
    shown = [
        Suggestion("crowd-a", left, "deposit", 0.9, "merged", "two objects"),
        Suggestion("crowd-a.1", right, "deposit", 0.9, "merged", "two objects"),
        Suggestion("seen-3", seen, "deposit", 0.9, "missed", "no label"),
    ]
    asking.save_plan(
        job, 0, [asking.make_question(job, "a", 0, shown, at_random=True, blind=False, value=1.0)]
    )
    asking.push(job, 0)
    given = job.parts.service.answer(
        "run/a/0", [AnsweredBox(s.box, "deposit", s.suggestion_id) for s in shown]
    )
    asking.pull(job, 0)
    table = job.parts.tables.read("labels")
    rows = [r for r in table.to_pylist() if r["source"] == "expert" and r["instance_id"]]
    by_box = {(r["x1"], r["y1"]): r for r in rows}
    assert by_box[10.0, 10.0]["instance_id"] == "crowd-a"
    assert by_box[21.0, 10.0]["parent_id"] == "crowd-a"
    assert by_box[60.0, 60.0]["parent_id"] is None
    told = label_view.lineage(table, by_box[21.0, 10.0]["instance_id"], "a")
    assert (told[0]["instance_id"], told[0]["source"]) == ("crowd-a", "crowd")
    # the label itself may be gone when the answer is edited; its parts still descend from it
    job.parts.service.edit(given.annotation_id, [])
    asking.pull(job, 0)
    job.parts.service.edit(given.annotation_id, [AnsweredBox(right, "deposit", "crowd-a.1")])
    asking.pull(job, 0)
    (label,) = expert_labels(job)["a"].ids
    events = job.parts.tables.read("labels")
    assert {r["source"] for r in label_view.lineage(events, label, "a")} == {"crowd", "expert"}


def test_a_label_whose_own_name_looks_like_a_part_is_itself():
    assert asking._instances(["x.1", "y.1", "z.1", "seen-0"], {"x.1", "x", "y"}) == {"x.1": "x.1", "y.1": "y"}


def people(job, **expert):
    """The same job with people at work, whose minutes are Label Studio's."""
    settings = job.settings.model_copy(
        update={"expert": job.settings.expert.model_copy(update={"kind": "label_studio", **expert})}
    )
    return replace(job, settings=settings)


def test_every_annotators_time_counts_and_the_image_once(job):
    job = people(job)
    planned(job, ["a"])
    asking.push(job, 0)
    job.parts.service.answer("run/a/0", [], lead_time_s=30.0)
    job.parts.service.answer("run/a/0", [], lead_time_s=90.0, annotator="another")
    asking.pull(job, 0)
    cost = spent_until(job, 0)
    assert (cost.images, cost.minutes) == (1, pytest.approx(2.0))


def test_a_pause_counts_as_the_longest_task(job):
    job = people(job, longest_task_s=60.0)
    planned(job, ["a"])
    asking.push(job, 0)
    job.parts.service.answer("run/a/0", [], lead_time_s=3600.0)
    asking.pull(job, 0)
    assert spent_until(job, 0).minutes == pytest.approx(1.0)


def test_answers_dearer_than_planned_make_the_plan_dearer(job):
    assert dearer(job, 0) == 1.0
    planned(job, ["a", "b", "c"], minutes=5 / 60)
    asking.push(job, 0)
    drawn = [AnsweredBox((50.0, 50.0, 70.0, 70.0), "deposit")] * 2
    for image in "abc":
        job.parts.service.answer(f"run/{image}/0", drawn)  # opened, one deleted, two drawn
    asking.pull(job, 0)
    paid = (5 + 2 + 2 * 14) / 60
    assert dearer(job, 0) == pytest.approx((3 * paid + 3 * 5 / 60) / (6 * 5 / 60))


def test_a_changed_answer_to_an_earlier_round_is_taken_in(job):
    planned(job, ["a"])
    asking.push(job, 0)
    first = job.parts.service.answer("run/a/0", [AnsweredBox(BOX, "deposit", "crowd-a")])
    asking.pull(job, 0)
    planned(job, ["b"], round_=1)
    asking.push(job, 1)
    job.parts.service.edit(first.annotation_id, [])
    asking.pull(job, 1)
    assert len(expert_labels(job)["a"]) == 1
    asking.pull_edits(job, 1)
    assert len(expert_labels(job)["a"]) == 0


def with_service(job, name):
    return replace(job, settings=job.settings.model_copy(update={"label_service": name}))


def test_the_project_is_on_record_and_found_again(job):
    job = with_service(job, "label_studio")
    state = asking.open_project(job, RunState("run"))
    assert state.facts["label_project"] == "memory://emclean run"
    assert asking.open_project(job, state) == state


def test_what_was_pushed_elsewhere_makes_no_new_project(job):
    job = with_service(job, "label_studio")
    state = asking.open_project(job, RunState("run"))
    planned(job, ["a"])
    asking.push(job, 0)
    job.parts.service.projects.clear()  # as another server
    with pytest.raises(LabelServiceError, match="memory://emclean run"):
        asking.open_project(job, state)
    assert job.parts.service.projects == {}


def test_a_label_service_in_the_process_forgets_with_it(job):
    job = with_service(job, "in_process")
    state = asking.open_project(job, RunState("run"))
    job.parts.service.projects.clear()
    assert asking.open_project(job, state) == state


def journal(job, image):
    rows = job.parts.tables.read("tasks").sort_by("seq").to_pylist()
    return [(row["state"], row["revision"]) for row in rows if row["image_id"] == image]


def test_the_journals_last_row_of_a_task_is_how_it_stands(job):
    planned(job, ["a"])
    asking.push(job, 0)
    skip = job.parts.service.skip("run/a/0")
    asking.close(job, 0, asking.pull(job, 0))
    given = job.parts.service.answer("run/a/0", [])
    asking.pull_edits(job, 1)
    again = job.parts.service.edit(given.annotation_id, [], skipped=True)
    asking.pull_edits(job, 1)
    asking.pull_edits(job, 1)  # nothing is new
    ended = [("skipped", skip.updated_at), ("answered", given.updated_at), ("skipped", again.updated_at)]
    assert journal(job, "a") == [("planned", ""), ("pushed", ""), *ended]


def test_a_task_that_is_open_again_ends_nothing(job):
    planned(job, ["a", "b"])
    asking.push(job, 0)
    job.parts.service.answer("run/b/0", [])
    asking.pull_edits(job, 1)
    assert [state for state, _ in journal(job, "a")] == ["planned", "pushed"]
    assert journal(job, "b")[-1][0] == "answered"


def told(job):
    """The job with a console that is read here."""
    out = io.StringIO()
    return replace(job, parts=replace(job.parts, console=Console(out))), out


def test_what_was_changed_after_its_round_counts_in_the_labels(job):
    job, out = told(with_service(job, "label_studio"))
    state = asking.open_project(job, RunState("run"))
    planned(job, ["a"])
    asking.push(job, 0)
    first = job.parts.service.answer("run/a/0", [AnsweredBox(BOX, "deposit", "crowd-a")])
    asking.close(job, 0, asking.pull(job, 0))
    job.parts.service.edit(first.annotation_id, [])
    asking.look_once_more(job, state)
    assert len(expert_labels(job)["a"]) == 0
    assert "1 answer was given or changed since" in out.getvalue()
    before = out.getvalue()
    asking.look_once_more(job, state)
    assert out.getvalue() == before


def test_a_label_service_that_is_away_costs_no_finished_run(job):
    job, out = told(with_service(job, "label_studio"))
    state = asking.open_project(job, RunState("run"))
    planned(job, ["a"])
    asking.push(job, 0)
    job.parts.service.down = True
    asking.look_once_more(job, state)
    assert "no look for late answers" in out.getvalue()
