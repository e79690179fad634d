import json
from math import cos, radians, sin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.stores.label_studio.convert import (
    annotation_body,
    prediction,
    read,
    region,
    region_id,
    suggestion_of,
    suggestions,
    task_body,
    to_percent,
    to_pixels,
)
from emclean.stores.label_studio.page import BOXES, configuration
from emclean.types import AnsweredBox, ImageRecord, Suggestion, TaskSpec

CATEGORIES = ("deposit", "vesicle")
IMAGE = ImageRecord("00aa", "/pool/a.tif", "a.tif", 640, 480, pixel_size_nm=0.5)
SHOWN = (
    Suggestion("s#1", (10.0, 20.0, 110.0, 80.0), "deposit", 0.9, "clean", "crowd and model agree"),
    Suggestion("s2", (300.5, 200.25, 380.0, 260.0), "vesicle", 0.4, "missed", "only the model sees it"),
)
TASK = TaskSpec("run/00aa/1", IMAGE, SHOWN, value=2.5)


def rectangle(labels, box=(10.0, 20.0, 110.0, 80.0), name="x", **value):
    return {
        "id": name,
        "type": "rectanglelabels",
        "value": {**to_percent(box, 640, 480), "rectanglelabels": list(labels), **value},
    }


def served(task=TASK, **annotation):
    """A task with one annotation, as Label Studio gives it."""
    body = task_body(task, "/data/local-files/?d=x.png")
    filled = {"id": 7, "updated_at": "2026-01-01T00:00:00Z", "result": [], **annotation}
    return {"id": 3, "data": body["data"], "predictions": body["predictions"], "annotations": [filled]}


def reading(*result, **annotation):
    task = served(result=list(result), **annotation)
    return read(task, task["annotations"][0], CATEGORIES, "me@here")


sides = st.integers(16, 9000)


@st.composite
def boxes(draw):
    width, height = draw(sides), draw(sides)
    x1, y1 = draw(st.floats(0, width - 2)), draw(st.floats(0, height - 2))
    x2, y2 = draw(st.floats(x1 + 1, width)), draw(st.floats(y1 + 1, height))
    return (x1, y1, x2, y2), width, height


@settings(max_examples=30, deadline=None)
@given(boxes())
def test_percent_and_back_gives_the_same_pixels(case):
    box, width, height = case
    assert to_pixels(to_percent(box, width, height), width, height) == pytest.approx(box, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(boxes())
def test_whole_pixels_survive_exactly(case):
    box, width, height = case
    whole = (int(box[0]), int(box[1]), int(box[2]) + 1, int(box[3]) + 1)
    assert to_pixels(to_percent(whole, width, height), width, height) == whole


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet=st.sampled_from("ab%#235 /"), max_size=12))
def test_region_ids_survive_and_hold_no_hash(text):
    assert suggestion_of(region_id(text)) == text
    assert "#" not in region_id(text)


def test_quarter_turn_is_enclosed():
    value = {"x": 50.0, "y": 50.0, "width": 10.0, "height": 20.0, "rotation": 90.0}
    assert to_pixels(value, 200, 100) == (80.0, 50.0, 100.0, 70.0)  # the corner stays, width goes down


def test_turned_rectangle_is_enclosed():
    value = {"x": 40.0, "y": 20.0, "width": 30.0, "height": 10.0, "rotation": 30.0}
    c, s = cos(radians(30)), sin(radians(30))
    expected = (40 - 10 * s, 20, 40 + 30 * c, 20 + 30 * s + 10 * c)
    assert to_pixels(value, 100, 100) == pytest.approx(expected, abs=1e-6)


def test_suggestion_carries_id_grade_reason_and_score():
    shown = region(SHOWN[0], 640, 480)
    assert shown["id"] == "s%231"
    assert shown["value"]["rectanglelabels"] == ["deposit · clean?"]
    assert shown["meta"]["text"] == ["clean: crowd and model agree (score 0.90)"]
    assert shown["score"] == 0.9


def test_suggestion_is_cut_at_the_border():
    shown = region(Suggestion("s", (-5.0, 470.0, 30.0, 500.0), "deposit", 0.5), 640, 480)
    assert to_pixels(shown["value"], 640, 480) == (0.0, 470.0, 30.0, 480.0)


def test_blind_tasks_carry_no_suggestion():
    blind = TaskSpec("k", IMAGE, SHOWN, blind=True)
    assert prediction(blind) is None
    assert task_body(blind, "u")["predictions"] == []
    assert "no suggestions" in task_body(blind, "u")["data"]["note"]


def test_predictions_fit_the_page():
    from label_studio_sdk.label_interface import LabelInterface

    page = LabelInterface(configuration(CATEGORIES))
    assert page.validate_prediction(prediction(TASK), return_errors=True) == []
    foreign = {"result": [{**region(SHOWN[0], 640, 480), "from_name": "other"}]}
    assert page.validate_prediction(foreign, return_errors=True) != []


def test_task_body_is_plain_json():
    data = json.loads(json.dumps(task_body(TASK, "u")))["data"]
    assert (data["key"], data["value"], data["width"], data["image"]) == ("run/00aa/1", 2.5, 640, "u")


def test_what_is_shown_is_read_back():
    task = served()
    found = suggestions(task, CATEGORIES)
    assert [(s.suggestion_id, s.category, s.grade) for s in found] == [
        ("s#1", "deposit", "clean"),
        ("s2", "vesicle", "missed"),
    ]
    assert found[1].box == pytest.approx(SHOWN[1].box, abs=1e-6)


def test_answers_name_the_suggestion_they_came_from():
    got = reading(rectangle(["deposit"], name="s%231"), rectangle(["vesicle"], name="drawn"))
    assert [box.suggestion_id for box in got.answer.boxes] == ["s#1", ""]
    assert got.answer.boxes[0].box == (10.0, 20.0, 110.0, 80.0)
    assert (got.answer.key, got.answer.task_id, got.answer.annotation_id) == ("run/00aa/1", 3, 7)
    assert got.faults == ()


def test_what_a_program_answers_is_read_back():
    boxes = [
        AnsweredBox((1.0, 2.0, 30.0, 40.0), "vesicle"),
        AnsweredBox((5.0, 5.0, 9.0, 9.0), "deposit", "s#1"),
    ]
    got = reading(*annotation_body(boxes, 640, 480)["result"])
    assert list(got.answer.boxes) == boxes


def test_empty_answer_means_no_objects_and_skip_means_nothing():
    assert reading().answer.boxes == ()
    assert not reading().answer.skipped
    skipped = reading(rectangle(["deposit"]), was_cancelled=True)
    assert skipped.answer.skipped
    assert skipped.answer.boxes == ()


@pytest.mark.parametrize(
    ("labels", "kept", "words"),
    [
        (["deposit · clean?"], (), "undecided"),
        (["weird"], (), "no known category (labels: weird)"),
        ([], (), "no known category (labels: none)"),
        (["weird", "vesicle"], ("vesicle",), ""),
        (["vesicle", "deposit"], ("vesicle",), "several categories (vesicle, deposit)"),
    ],
)
def test_odd_labels_are_told_in_words(labels, kept, words):
    got = reading(rectangle(labels))
    assert tuple(box.category for box in got.answer.boxes) == kept
    assert words in "".join(got.faults)
    assert bool(got.faults) == bool(words)


@pytest.mark.parametrize("value", [{"width": 0.0}, {"x": 100.0}, {"x": float("nan")}, {"height": None}])
def test_box_without_area_is_left_out(value):
    got = reading(rectangle(["deposit"], **value))
    assert got.answer.boxes == ()
    assert "no area" in got.faults[0]


def test_box_over_the_border_is_cut():
    box = reading(rectangle(["deposit"], box=(600.0, -10.0, 700.0, 50.0))).answer.boxes[0]
    assert box.box == (600.0, 0.0, 640.0, 50.0)


def test_other_results_are_no_boxes():
    remark = {"id": "r", "type": "textarea", "from_name": "comment", "value": {"text": ["blurred"]}}
    assert reading(remark).answer.boxes == ()
    assert reading(remark).faults == ()


def test_foreign_json_is_refused():
    task = served()
    with pytest.raises(KeyError):
        read(task, {"id": 1, "result": []}, CATEGORIES, "")


def test_boxes_belong_to_the_page():
    assert region(SHOWN[0], 640, 480)["from_name"] == BOXES
