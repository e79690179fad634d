import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from science_scenes import SIDE, objects
from sklearn.metrics import average_precision_score

from emclean.science.finding import (
    Faults,
    average_precision,
    evaluate,
    planted_faults,
    precision_at,
    true_faults,
)
from emclean.science.noise import NoiseRates, plant
from emclean.science.rivals import Suspicion
from emclean.types import GRADES, Labels, Predictions

RATES = NoiseRates(missed=0.2, shifted=0.3, shift_sigma=0.4, merged=0.2, spurious=0.2, duplicate=0.1)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=40, deadline=None)
def test_average_precision_is_scikit_learns(rows: list[tuple[int, bool]]) -> None:
    scores, right = np.array([r[0] for r in rows], float), np.array([r[1] for r in rows])
    if not right.any():
        assert np.isnan(average_precision(scores, right))
        return
    assert average_precision(scores, right) == pytest.approx(average_precision_score(right, scores))


def test_what_is_not_in_the_ranking_lowers_the_average_precision() -> None:
    scores, right = np.array([0.9, 0.5]), np.array([True, False])
    assert average_precision(scores, right, total=4) == 0.25
    assert average_precision(np.zeros(0), np.zeros(0, bool), total=3) == 0.0


def test_precision_at_k_shares_ties() -> None:
    scores, right = np.array([3.0, 1, 1, 1, 1]), np.array([True, True, False, False, False])
    assert precision_at(scores, right, 1) == 1.0
    assert precision_at(scores, right, 3) == pytest.approx((1 + 2 * 0.25) / 3)
    assert precision_at(scores, right, 50) == pytest.approx(0.4)
    assert np.isnan(precision_at(np.zeros(0), np.zeros(0, bool), 5))


@pytest.mark.parametrize("seed", range(4))
def test_ledger_and_truth_tell_of_the_same_faults(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = objects(rng, 40)
    planted = plant(truth, SIDE, SIDE, RATES, 1, rng)
    told, seen = planted_faults(planted, truth), true_faults(planted.labels, truth)
    assert (told.labels == seen.labels).all(axis=1).mean() > 0.85  # far shifts read as spurious and missed
    assert len(told.missed) == planted.ledger.count("missed")
    for kind in ("merged", "spurious", "duplicate"):
        assert told.labels[:, GRADES.index(kind)].sum() == planted.ledger.count(kind)


def test_small_shifts_are_clean() -> None:
    rng = np.random.default_rng(0)
    truth = objects(rng, 20)
    planted = plant(truth, SIDE, SIDE, NoiseRates(shifted=1.0, shift_sigma=0.01), 1, rng)
    faults = planted_faults(planted, truth)
    assert not faults.labels.any()
    assert len(faults.poorly) == 0


BOXES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], float)


def one_image(errors: list[float], scores: list[float]) -> tuple[Suspicion, Faults]:
    """Four labels: clean, shifted, spurious, clean; one missed object, and candidates on it and elsewhere."""
    kinds = np.zeros((4, len(GRADES)), bool)
    kinds[1, GRADES.index("shifted")] = kinds[2, GRADES.index("spurious")] = True
    places = np.array([[100, 0, 110, 10], [100, 1, 110, 11], [20, 2, 30, 12], [200, 0, 210, 10]], float)
    candidates = Predictions(places, np.zeros(4, int), np.full(4, 0.5))
    faults = Faults(kinds, np.array([True, True, False, False]), places[:1], BOXES[1:2])
    return Suspicion(1.0, np.array(errors), candidates, np.array(scores)), faults


def test_each_kind_is_ranked_among_the_clean_labels() -> None:
    suspicion, faults = one_image([0.1, 0.5, 0.9, 0.7], [0.9, 0.8, 0.95, 0.1])
    found = evaluate([suspicion], [faults], k=1)
    assert found["spurious"].ap == 1.0
    assert found["shifted"].ap == 0.5  # the spurious label before it does not count, the clean one does
    assert found["any"].ap == pytest.approx((1 + 2 / 3) / 2)
    assert found["touching"].ap == 1.0
    assert (found["any"].precision, found["shifted"].precision) == (1.0, 0.0)
    assert np.isnan(found["merged"].ap)


def test_a_missed_object_counts_once_and_poor_labels_do_not() -> None:
    suspicion, faults = one_image([0, 0, 0, 0], [0.9, 0.8, 0.95, 0.1])
    found = evaluate([suspicion], [faults], k=2)["missed"]
    assert found.ap == 1.0  # the surest lies on an object whose label is wrong: left out
    assert found.precision == 0.5  # the second proposal of the same object is a false alarm


def test_own_scores_ask_whether_kinds_are_told_apart() -> None:
    suspicion, faults = one_image([0.1, 0.5, 0.9, 0.7], [0, 0, 0, 0])
    told = Suspicion(
        1.0, suspicion.labels, suspicion.candidates, suspicion.missed, {"shifted": np.array([0, 1.0, 0, 0])}
    )
    found = evaluate([told], [faults], own=True)
    assert list(found) == ["shifted"]
    assert found["shifted"].ap == 1.0
    assert evaluate([suspicion], [faults], own=True) == {}
    assert evaluate([], [])["any"].total == 0


def test_labels_without_truth_are_spurious() -> None:
    faults = true_faults(Labels(BOXES, np.zeros(4, int)), Labels.empty())
    assert faults.labels[:, GRADES.index("spurious")].all()
