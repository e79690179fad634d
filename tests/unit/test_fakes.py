"""The label service in memory behaves like a real one, also in its awkward moments."""

import pytest

from emclean.errors import LabelServiceError, TrackingError
from emclean.stores.fakes import InMemoryLabelService, InMemoryTracker
from emclean.types import AnsweredBox, ImageRecord, TaskSpec

IMAGE = ImageRecord("abc", "/a.png", "a.png", 64, 64)


def tasks(n: int = 2) -> list[TaskSpec]:
    return [TaskSpec(f"run/abc/{i}", IMAGE) for i in range(n)]


def pushed(n: int = 2) -> InMemoryLabelService:
    service = InMemoryLabelService()
    service.push(tasks(n))
    return service


def test_pushing_again_creates_nothing() -> None:
    service = pushed(2)
    assert service.push(tasks(3)) == {"run/abc/0": 1, "run/abc/1": 2, "run/abc/2": 3}
    assert service.push(tasks(1)) == {"run/abc/0": 1}
    assert len(service.tasks) == 3


def test_answers_come_back_with_what_is_open() -> None:
    service = pushed()
    given = service.answer("run/abc/0", [((1, 2, 3, 4), "deposit", "s0")], "ann", lead_time_s=2.5)
    pull = service.pull(["run/abc/0", "run/abc/1", "run/abc/9"])
    assert pull.answers == (given,)
    assert given.boxes == (AnsweredBox((1.0, 2.0, 3.0, 4.0), "deposit", "s0"),)
    assert (given.annotator, given.lead_time_s, given.task_id) == ("ann", 2.5, 1)
    assert (pull.open, pull.deleted) == (("run/abc/1",), ())
    assert service.pull([]).answers == ()


def test_edits_second_annotations_and_skips() -> None:
    service = pushed(1)
    first = service.answer("run/abc/0")
    second = service.answer("run/abc/0", annotator="bob")
    edited = service.edit(first.annotation_id, [((0, 0, 1, 1), "deposit", "")])
    assert edited.annotation_id == first.annotation_id
    assert first.updated_at < second.updated_at < edited.updated_at
    assert set(service.pull(["run/abc/0"]).answers) == {second, edited}
    service.withdraw(second.annotation_id)
    assert service.pull(["run/abc/0"]).answers == (edited,)
    skipped = service.skip("run/abc/0")
    assert skipped.skipped
    assert skipped.annotation_id == 3


def test_a_deleted_task_is_reported_and_not_open() -> None:
    service = pushed()
    service.answer("run/abc/0")
    service.delete("run/abc/0")
    pull = service.pull(["run/abc/0", "run/abc/1"])
    assert (pull.answers, pull.deleted, pull.open) == ((), ("run/abc/0",), ("run/abc/1",))
    with pytest.raises(LabelServiceError, match="no task"):
        service.answer("run/abc/0")


def test_a_service_that_is_down_raises_and_loses_nothing() -> None:
    service = pushed()
    service.answer("run/abc/0")
    service.down = True
    for call in (lambda: service.push(tasks()), lambda: service.pull([])):
        with pytest.raises(LabelServiceError, match="down"):
            call()
    with pytest.raises(LabelServiceError, match="down"):
        service.ensure_project("p", ["deposit"], "")
    service.down = False
    assert len(service.pull(["run/abc/0"]).answers) == 1
    assert service.calls == {"push": 2, "pull": 2, "ensure_project": 1}


def test_a_project_is_made_once_with_its_categories() -> None:
    service = InMemoryLabelService()
    assert service.ensure_project("p", ["a"], "") == service.ensure_project("p", ("a",), "other words")
    with pytest.raises(LabelServiceError, match="categories a"):
        service.ensure_project("p", ["b"], "")


def test_a_tracker_that_is_down_raises() -> None:
    tracker = InMemoryTracker()
    run = tracker.run("k", "k")
    tracker.down = True
    with pytest.raises(TrackingError, match="down"):
        tracker.log(run, {"a": 1.0})
