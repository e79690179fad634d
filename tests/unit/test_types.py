import pickle

import numpy as np
import pytest

from emclean.types import GRADES, Cost, Labels, Predictions, Target, Verdicts, as_boxes

TWO = [[0, 0, 2, 2], [1, 1, 5, 4]]


def verdicts(**fields):
    values = {
        "label": [0, -1],
        "prediction": [-1, 3],
        "grade": [GRADES.index("spurious"), GRADES.index("missed")],
        "probability": [0.9, 0.8],
        "box": TWO,
        "category": [0, 0],
        "reason": ("nothing is there", "the model sees one"),
    }
    return Verdicts(**{**values, **fields})


@pytest.mark.parametrize(
    "bad",
    [[[0, 0, np.nan, 1]], [[0, 0, np.inf, 1]], [[1, 0, 1, 2]], [[0, 2, 1, 1]]],
    ids=["nan", "infinity", "no width", "upside down"],
)
def test_boxes_without_sense_are_refused(bad):
    with pytest.raises(ValueError, match="boxes: expected"):
        as_boxes(bad)


def test_empty_values_have_their_shapes():
    assert Labels.empty().boxes.shape == (0, 4)
    assert Predictions.empty().scores.shape == (0,)
    assert Target.of(Labels.empty()).ignore.shape == (0, 4)


def test_an_area_is_ignored_for_every_category_unless_one_is_named():
    assert Target(TWO, [0, 1], ignore=TWO).ignore_categories.tolist() == [-1, -1]
    with pytest.raises(ValueError, match="ignore_categories: expected 2 values, got 1"):
        Target(TWO, [0, 1], ignore=TWO, ignore_categories=[0])


def test_labels_get_ids_and_annotators():
    labels = Labels(TWO, [0, 1])
    assert labels.ids == ("0", "1")
    assert labels.annotators == ("", "")
    assert labels.boxes.dtype == np.float64
    assert labels.categories.dtype == np.int64


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"categories": [0]}, "categories: expected 2 values, got 1"),
        ({"categories": [0, 1], "ids": ("a",)}, "ids: expected 2 values, got 1"),
        ({"categories": [0, 1], "annotators": ("a",) * 3}, "annotators: expected 2 values, got 3"),
    ],
)
def test_labels_name_the_column_that_does_not_fit(fields, message):
    with pytest.raises(ValueError, match=message):
        Labels(TWO, **fields)


def test_values_cannot_be_written_to():
    source = np.array(TWO, dtype=float)
    labels = Labels(source, [0, 1])
    with pytest.raises(ValueError, match="read-only"):
        labels.boxes[0, 0] = 9
    source[0, 0] = 1.5
    assert labels.boxes[0, 0] == 0


def test_take_keeps_columns_together():
    labels = Labels(TWO, [0, 1], ("a", "b"), ("anna", "ben"))
    for index in ([1], np.array([False, True])):
        taken = labels.take(index)
        assert (taken.ids, taken.annotators, taken.categories.tolist()) == (("b",), ("ben",), [1])
    assert len(labels.take([])) == 0


@pytest.mark.parametrize("score", [-0.1, 1.1, np.nan])
def test_scores_lie_between_0_and_1(score):
    with pytest.raises(ValueError, match="scores: expected numbers from 0 to 1"):
        Predictions(TWO, [0, 0], [0.5, score])


def test_above_keeps_the_equal_score():
    assert Predictions(TWO, [0, 1], [0.5, 0.49]).above(0.5).categories.tolist() == [0]


def test_a_target_trusts_its_labels_unless_told_otherwise():
    target = Target(TWO, [0, 1])
    assert target.weights.tolist() == [1, 1]
    assert target.regress.tolist() == [True, True]
    with pytest.raises(ValueError, match="weights: expected 2 values, got 1"):
        Target(TWO, [0, 1], weights=[1.0])


def test_verdicts_speak_in_words():
    assert verdicts().names() == ("spurious", "missed")


@pytest.mark.parametrize("field", ["prediction", "grade", "probability", "category", "reason"])
def test_verdicts_are_aligned(field):
    with pytest.raises(ValueError, match=f"{field}: expected 2"):
        verdicts(**{field: [0]} if field != "reason" else {"reason": ("one",)})


def test_costs_add_up():
    total = Cost(1, 2, 3, 4, 5, 0.5) + Cost(images=1, minutes=0.25)
    assert total == Cost(2, 2, 3, 4, 5, 0.75)


@pytest.mark.parametrize("value", [Labels(TWO, [0, 1]), Predictions(TWO, [0, 1], [0.1, 1]), verdicts()])
def test_values_survive_pickle(value):
    again = pickle.loads(pickle.dumps(value))
    for name, content in vars(value).items():
        assert np.array_equal(getattr(again, name), content), name
