"""The estimate of label error finds what was planted."""

import pickle

import numpy as np
import pytest

from emclean.science.classes import ConfidentJudge, errors, estimate, plant


def scene(rate: float, n: int = 1000, sure: float = 4.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, labels with ``rate`` wrong, and what a good model trained on them says."""
    rng = np.random.default_rng(2)
    truth = np.repeat([0, 1], n // 2)
    labels = plant(truth, np.arange(n), rate, rng)
    logit = np.where(truth == 1, sure, -sure) + rng.normal(0, 1.5, n)
    right = 1 / (1 + np.exp(-logit))
    p = right * (1 - rate) + (1 - right) * rate
    return truth, labels, np.stack([1 - p, p], axis=1)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.3, 0.45])
def test_the_rate_is_found(rate: float) -> None:
    _, labels, probabilities = scene(rate)
    found = estimate(labels, probabilities)
    assert found.rate == pytest.approx(rate, abs=0.03)
    assert found.joint.sum() == pytest.approx(1)
    assert found.transition.sum(axis=1) == pytest.approx([1, 1])
    assert found.transition[0, 1] == pytest.approx(rate, abs=0.04)


def test_the_direction_of_errors_is_found() -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], 600)
    wrong = (truth == 0) & (rng.random(1200) < 0.3)  # class 0 is called 1, never the reverse
    labels = np.where(wrong, 1, truth)
    right = 1 / (1 + np.exp(-np.where(truth == 1, 4, -4) - rng.normal(0, 1.5, 1200)))
    p = right + 0.3 * (1 - right)
    found = estimate(labels, np.stack([1 - p, p], axis=1))
    assert found.transition[0, 1] == pytest.approx(0.3, abs=0.1)
    assert found.transition[1, 0] < 0.03
    assert found.joint[1, 0] > 5 * found.joint[0, 1]  # given label first, true class second


def test_wrong_labels_are_found() -> None:
    truth, labels, probabilities = scene(0.2)
    suspects = errors(labels, probabilities)
    wrong = labels != truth
    assert suspects.dtype == np.bool_
    assert (suspects & wrong).sum() > 0.9 * wrong.sum()
    assert (suspects & ~wrong).sum() < 0.1 * suspects.sum()


def test_the_judge_is_the_functions_and_pickles() -> None:
    _, labels, probabilities = scene(0.2, 200)
    judge = pickle.loads(pickle.dumps(ConfidentJudge()))
    assert judge.estimate(labels, probabilities).rate == estimate(labels, probabilities).rate
    assert np.array_equal(judge.errors(labels, probabilities), errors(labels, probabilities))
    assert repr(judge) == repr(ConfidentJudge())  # part of a fit's digest


def test_the_input_stays_as_it_was() -> None:
    _, labels, probabilities = scene(0.2, 200)
    before = labels.copy(), probabilities.copy()
    estimate(labels, probabilities)
    errors(labels, probabilities)
    assert np.array_equal(labels, before[0])
    assert np.array_equal(probabilities, before[1])


@pytest.mark.parametrize(
    ("labels", "shape", "field"),
    [([0, 1], (3, 2), "probabilities"), ([], (0, 2), "probabilities"), ([0, 0], (2, 2), "labels")],
)
def test_what_cannot_be_judged_is_refused(labels: list[int], shape: tuple[int, int], field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        estimate(np.array(labels, np.int64), np.full(shape, 0.5))
