"""Class labels on Label Studio's page: what is sent, nothing chosen beforehand, how answers are read."""

from xml.etree import ElementTree

import numpy as np
import pytest

from emclean.errors import LabelServiceError
from emclean.science.classes import expert
from emclean.simulated_expert import Options, Truth, reply
from emclean.stores.label_studio import choices
from emclean.stores.label_studio.page import categories_of
from emclean.types import ImageRecord, Labels, Suggestion, TaskSpec

NAMES = ("left", "right")
IMAGE = ImageRecord("00aa", "/nowhere", "p.png", 100, 80)
SHOWN = Suggestion("class", (0.0, 0.0, 100.0, 80.0), "left", 0.7)
WHOLE = (0.0, 0.0, 100.0, 80.0)


def asked(blind=False):
    return TaskSpec("run/00aa/1", IMAGE, () if blind else (SHOWN,), blind=blind)


def task(blind=False):
    """The task as Label Studio gives it."""
    return {"id": 7, **choices.task_body(asked(blind), "/p.png")}


def annotation(*names, **more):
    result = [choices.result(name) for name in names]
    return {"id": 3, "updated_at": "2026-01-01T00:00:00Z", "result": result, **more}


def read(given, blind=False):
    return choices.read(task(blind), given, NAMES, "ann@lab")


def test_the_page_offers_every_class_with_a_key_and_is_told_from_a_page_of_boxes():
    xml = choices.configuration(('a<"b"', *(f"c{i}" for i in range(10))))
    offered = ElementTree.fromstring(xml).findall(".//Choice")
    assert [c.get("hotkey") for c in offered] == [*"123456789", None, None]
    assert choices.classes_of(xml)[0] == 'a<"b"'
    assert categories_of(xml) == ()
    assert choices.classes_of("<View/>") == choices.classes_of("<View") == ()


@pytest.mark.parametrize("names", [("one",), ("a", "a"), ("a", " ")])
def test_classes_that_make_no_page_are_refused(names):
    with pytest.raises(LabelServiceError, match="no labelling page"):
        choices.configuration(names)


def test_nothing_is_chosen_beforehand_and_a_blind_task_does_not_tell_the_label():
    told, untold = task(), task(blind=True)
    assert told["predictions"] == untold["predictions"] == []
    assert "'left'" in told["data"]["note"]
    assert "left" not in str(untold["data"])


def test_a_second_look_names_who_is_not_to_take_it_and_is_answered_by_another_expert():
    truth = Truth({"p.png": Labels(np.array([WHOLE]), np.zeros(1, np.int64))}, NAMES)
    for seen, other in (names := expert.names(2), names[::-1]):
        second = TaskSpec("run/00aa/2", IMAGE, blind=True, seen_by=(seen,))
        made = {"id": 8, **choices.task_body(second, "/p.png")}
        assert f"somebody other than {seen}" in made["data"]["note"]
        options = Options(classes=True, misses=(0.0, 1.0))
        given = reply(made, truth, options)
        assert given.by == other
        assert given.body["result"][0]["value"]["choices"] == [NAMES[int(other == names[1])]]


def test_an_answer_is_a_label_round_the_whole_picture():
    answer = read(annotation("right", lead_time=4.5)).answer
    assert [(b.box, b.category, b.suggestion_id) for b in answer.boxes] == [(WHOLE, "right", "class")]
    assert (answer.lead_time_s, answer.skipped, answer.annotator) == (4.5, False, "ann@lab")
    assert read(annotation("right"), blind=True).answer.boxes[0].suggestion_id == ""


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (annotation(), "no known class is named (none); it counts as skipped"),
        (annotation("up"), "no known class is named (up); it counts as skipped"),
        (annotation(was_cancelled=True), ""),
    ],
)
def test_an_answer_without_a_class_is_no_label(given, fault):
    reading = read(given)
    assert reading.answer.skipped
    assert reading.answer.boxes == ()
    assert "".join(reading.faults) == fault


def test_of_several_classes_the_first_counts_and_it_is_said():
    reading = read(annotation("right", "left"))
    assert reading.answer.boxes[0].category == "right"
    assert "several classes are named (right, left)" in reading.faults[0]


def truth(folder):
    (folder / "truth.csv").write_text("image,hand\np.png,right\nq.png,left\n")
    return Truth.of_classes(folder / "truth.csv", "hand").in_order(NAMES, "here")


@pytest.mark.parametrize(("blind", "made"), [(False, (0, 1, 0, 0)), (True, (1, 0, 0, 0))])
def test_the_simulated_expert_answers_as_the_page_would(tmp_path, blind, made):
    given = reply(task(blind), truth(tmp_path), Options(classes=True))
    assert tuple(given.made) == made
    assert given.seconds == 7.0  # to open and to confirm, whatever was told
    body = {"id": 1, "updated_at": "2026-01-01T00:00:00Z", **given.body}
    assert read(body, blind).answer.boxes[0].category == "right"


def test_a_class_of_the_truth_that_the_page_lacks_leaves_no_answer(tmp_path):
    (tmp_path / "t.csv").write_text("row,label\n0,up\n1,left\n")
    found = Truth.of_classes(tmp_path / "t.csv", "label").in_order(NAMES, "here")
    assert len(found.of("0")) == 0
    assert found.of("1").categories.tolist() == [0]
