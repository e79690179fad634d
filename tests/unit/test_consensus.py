import numpy as np
import pytest

from emclean.science.consensus import agreed, agreement_target, weighted_boxes_fusion
from emclean.types import Labels, Predictions

A, B, C = [0.0, 0, 10, 10], [1.0, 0, 11, 10], [50.0, 50, 60, 60]


def boxes(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=float).reshape(-1, 4)


def test_agreement_needs_place_category_and_score() -> None:
    labels = Labels(boxes(A, C, [80, 80, 90, 90]), np.array([0, 1, 0]), ids=("a", "c", "z"))
    model = Predictions(boxes(B, C, [80, 80, 90, 90]), np.array([0, 0, 0]), np.array([1.0, 0.9, 0.2]))
    both = agreed(labels, model, score=0.3)
    assert both.ids == ("a",)
    assert both.boxes.tolist() == [[0.5, 0, 10.5, 10]]


def test_what_only_one_says_is_no_background_of_its_category() -> None:
    labels = Labels(boxes(A, C), np.array([0, 1]))
    model = Predictions(boxes(B, C, [80, 80, 90, 90]), np.array([0, 0, 1]), np.array([1.0, 0.9, 0.1]))
    target = agreement_target(labels, model)
    assert target.categories.tolist() == [0]
    assert target.ignore.tolist() == [C, B, C]
    assert target.ignore_categories.tolist() == [1, 0, 0]


def test_agreement_with_nothing() -> None:
    labels = Labels(boxes(A), np.array([0]))
    assert len(agreed(labels, Predictions.empty())) == 0
    assert len(agreed(Labels.empty(), Predictions.empty())) == 0


def test_fusion_of_a_hand_worked_case() -> None:
    one = (boxes(A, C), np.array([0.9, 0.8]), np.array([0, 0]))
    two = (boxes(B), np.array([0.3]), np.array([0]))
    fused = weighted_boxes_fusion([one, two])
    assert fused.boxes[0] == pytest.approx([0.25, 0, 10.25, 10])
    assert fused.scores.tolist() == pytest.approx([0.6, 0.4])  # seen by both; seen by one of two
    assert fused.boxes[1].tolist() == C


def test_fusion_keeps_categories_apart_and_weighs_sources() -> None:
    one = (boxes(A), np.array([0.5]), np.array([0]))
    two = (boxes(A), np.array([0.5]), np.array([1]))
    fused = weighted_boxes_fusion([one, two], weights=[3, 1])
    assert fused.categories.tolist() == [0, 1]
    assert fused.scores.tolist() == pytest.approx([0.375, 0.125])


def test_the_order_of_sources_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    low = rng.random((30, 2)) * 50
    everything = np.concatenate([low, low + rng.uniform(5, 20, (30, 2))], axis=1)
    parts = [(everything[i::3], rng.random(10), rng.integers(0, 2, 10)) for i in range(3)]
    one, other = weighted_boxes_fusion(parts), weighted_boxes_fusion(parts[::-1])
    assert np.allclose(one.boxes, other.boxes)
    assert np.allclose(one.scores, other.scores)


def test_fusion_of_nothing_and_wrong_weights() -> None:
    assert len(weighted_boxes_fusion([])) == 0
    assert len(weighted_boxes_fusion([(boxes(), np.zeros(0), np.zeros(0, int))])) == 0
    with pytest.raises(ValueError, match="weights"):
        weighted_boxes_fusion([(boxes(A), np.ones(1), np.zeros(1, int))], weights=[1, 2])
