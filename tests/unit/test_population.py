"""The left share: hand-worked corrections, what happens at the edges, and how often the interval holds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.science.population import (
    Confusion,
    adjusted,
    design_effect,
    left_share,
    profile,
    wilson,
)

GOOD = Confusion(90, 10, 5, 95)
counts = st.integers(0, 60)


def test_the_correction_by_hand():
    # naive 0.135 = 0.1 * 0.9 + 0.9 * 0.05
    assert adjusted(0.135, GOOD) == pytest.approx(0.1)
    assert left_share([27], [200], GOOD).corrected == pytest.approx(0.1)
    both = Confusion(90, 10, 30, 270, symmetric=True)  # 40 errors in 400, whatever the hand
    assert both.rates == (0.9, 0.9)
    assert adjusted(0.18, both) == pytest.approx(0.1)


def test_confusion_is_counted_from_two_columns():
    made = Confusion.of([1, 1, 1, 0, 0], [1, 0, 1, 0, 1])
    assert made == Confusion(2, 1, 1, 1)
    with pytest.raises(ValueError, match="one length"):
        Confusion.of([1, 0], [1])
    with pytest.raises(ValueError, match="left_as_right"):
        Confusion(1, -1, 1, 1)


def test_a_population_of_one_hand_has_an_interval_that_begins_there():
    none = left_share([5, 4], [100, 100], GOOD)  # about as many as a pure sample's mistakes
    assert none.corrected == 0
    assert none.low == 0
    assert 0 < none.high < 0.1
    assert none.naive_low > 0  # the naive interval leaves the truth out
    every = left_share([100], [100], Confusion(50, 0, 0, 50))
    assert (every.corrected, every.high) == (1, 1)


def test_without_clean_labels_of_both_hands_nothing_is_known():
    for confusion in (Confusion(0, 0, 0, 50), Confusion(0, 0, 0, 0), Confusion(25, 25, 25, 25)):
        share = left_share([10], [50], confusion)
        assert (share.corrected, share.low, share.high) == (None, 0, 1)
    one_hand = left_share([10], [50], Confusion(0, 0, 5, 95, symmetric=True))
    assert one_hand.corrected == pytest.approx((0.2 - 0.05) / 0.9)


def test_no_particle_no_share():
    assert left_share([], [], GOOD) is None
    assert left_share([0, 0], [0, 0], GOOD) is None
    with pytest.raises(ValueError, match="called_left"):
        left_share([3], [2], GOOD)


@settings(max_examples=25, deadline=None)
@given(counts, counts, counts, counts, st.integers(0, 80), st.integers(1, 80), st.booleans())
def test_the_interval_holds_the_estimate_and_lies_within_0_and_1(a, b, c, d, x, n, symmetric):
    share = left_share([min(x, n)], [n], Confusion(a, b, c, d, symmetric))
    assert 0 <= share.low <= share.high <= 1
    assert share.naive_low <= share.naive <= share.naive_high
    if share.corrected is not None:
        assert share.low <= share.corrected <= share.high


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 50), st.integers(40, 99), st.integers(40, 99))
def test_left_and_right_are_treated_alike(x, hits, rejections):
    confusion = Confusion(hits, 100 - hits, 100 - rejections, rejections)
    other = Confusion(rejections, 100 - rejections, 100 - hits, hits)
    a, b = left_share([x], [50], confusion), left_share([50 - x], [50], other)
    if a.corrected is not None:
        assert a.corrected == pytest.approx(1 - b.corrected)
        assert a.low == pytest.approx(1 - b.high, abs=2e-3)


def test_more_clean_labels_make_a_narrower_interval():
    widths = []
    for n in (20, 100, 1000):
        share = left_share([40], [200], Confusion(9 * n, n, n, 9 * n))
        widths.append(share.high - share.low)
    assert widths[0] > widths[1] > widths[2]


def test_images_that_differ_count_as_less():
    alike, unlike = left_share([10] * 8, [40] * 8, GOOD), left_share([0, 20] * 4, [40] * 8, GOOD)
    assert alike.design_effect == 1
    assert unlike.design_effect > 2
    assert unlike.high - unlike.low > 1.3 * (alike.high - alike.low)
    assert design_effect(np.array([3]), np.array([9])) == 1


def test_the_likelihood_is_highest_at_the_corrected_share():
    grid = np.linspace(0, 1, 201)
    assert grid[profile(grid, 27, 200, GOOD).argmax()] == pytest.approx(0.1, abs=0.011)


def test_wilsons_interval():
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)  # Newcombe 1998, by the same formula
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


@pytest.mark.parametrize("true", [0.0, 0.02, 0.1, 0.3, 0.5])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(true):
    rng, held, naive_held = np.random.default_rng(7), 0, 0
    errors = []
    for _ in range(60):
        total = rng.poisson(40, 6)
        left = rng.binomial(total, true)
        called = rng.binomial(left, 0.92) + rng.binomial(total - left, 0.12)
        clean = rng.binomial(80, 0.92), rng.binomial(80, 0.88)
        share = left_share(called, total, Confusion(clean[0], 80 - clean[0], 80 - clean[1], clean[1]))
        held += share.low <= true <= share.high
        naive_held += share.naive_low <= true <= share.naive_high
        errors.append((share.corrected - true, share.naive - true))
    assert held >= 53  # 57 expected of 60; fewer than 53 in 2 % of runs
    corrected, naive = np.abs(np.mean(errors, axis=0))
    assert corrected < 0.03  # at 0 % it can only err upwards
    if true < 0.3:
        assert naive_held < 20
        assert naive > 0.07
