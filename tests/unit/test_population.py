"""The left share: hand-worked corrections, what happens at the edges, and how often the interval holds."""

from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.science import latent
from emclean.science.population import (
    Confusion,
    design_effect,
    left_share,
    likeliest,
    profile,
    wilson,
)

GOOD = Confusion((90, 10, 0), (5, 95, 0))
MIXED = Confusion((80, 10, 10), (5, 85, 10), (10, 10, 80))
EVEN = Confusion((85, 6, 9), (6, 85, 9), (9, 9, 82), symmetric=True)
ROWS = np.array([[0.9, 0.06, 0.04], [0.08, 0.88, 0.04], [0.1, 0.12, 0.78]])
MIRRORED = np.array([[0.9, 0.06, 0.04], [0.06, 0.9, 0.04], [0.11, 0.11, 0.78]])
counts = st.integers(0, 60)
rows = st.tuples(counts, counts, counts)


def test_the_correction_by_hand():
    # naive 0.135 = 0.1 * 0.9 + 0.9 * 0.05
    assert left_share([[27, 173]], GOOD).corrected == pytest.approx(0.1, abs=1e-5)
    both = Confusion((90, 10, 0), (30, 270, 0), symmetric=True)  # 40 errors in 400, whatever the hand
    assert both.rates[:2, 0].tolist() == [0.9, 0.1]
    assert left_share([[36, 164]], both).corrected == pytest.approx(0.1, abs=1e-5)


def test_the_samples_own_unusable_particles_are_taken_out_however_many_they_are():
    # 20 left, 180 right of MIXED, and so many unusable ones
    for hidden in (0, 50, 400):
        outcomes = [20 * 0.8 + 180 * 0.05 + hidden * 0.1, 20 * 0.1 + 180 * 0.85 + hidden * 0.1]
        outcomes.append(200 * 0.1 + hidden * 0.8)
        share = left_share([outcomes], MIXED)
        assert share.corrected == pytest.approx(0.1, abs=1e-4)
        assert share.low < 0.1 < share.high
        assert share.note == ""


def test_confusion_is_counted_from_two_columns():
    made = Confusion.of([0, 0, 1, 2, 2], [0, 2, 0, 1, 2])
    assert made == Confusion((1, 0, 1), (1, 0, 0), (0, 1, 1))
    assert Confusion.of([0, 1], [0, 1]).unusable is None
    assert Confusion(**{name: value and list(value) for name, value in asdict(made).items()}) == made
    with pytest.raises(ValueError, match="one length"):
        Confusion.of([1, 0], [1])
    with pytest.raises(ValueError, match="left: expected three counts"):
        Confusion((1, -1, 1), (1, 1, 1))


def test_where_unusable_labels_are_missing_that_is_said_and_none_is_taken_to_pass():
    bare = Confusion((80, 10, 10), (5, 85, 10))
    share = left_share([[25, 155, 20 + 300]], bare)  # 300 unusable ones, all of them set aside
    assert share.corrected == pytest.approx(0.1, abs=1e-4)
    assert "No clean label says unusable" in share.note


def test_mirrored_rows_pool_their_labels():
    share = left_share([[40, 160, 100]], Confusion((45, 1, 4), (5, 40, 5), (12, 6, 82), symmetric=True))
    pooled = left_share([[40, 160, 100]], Confusion((85, 6, 9), (0, 0, 0), (9, 9, 82), symmetric=True))
    assert share.corrected == pytest.approx(pooled.corrected, abs=1e-6)
    assert share.high == pytest.approx(pooled.high, abs=1e-3)


def test_a_population_of_one_hand_has_an_interval_that_begins_there():
    none = left_share([[5, 95], [4, 96]], GOOD)  # about as many as a pure sample's mistakes
    assert none.corrected == 0
    assert none.low == 0
    assert 0 < none.high < 0.1
    assert none.naive_low > 0  # the naive interval leaves the truth out
    every = left_share([[100, 0]], Confusion((50, 0, 0), (0, 50, 0)))
    assert (every.corrected, every.high) == (1, 1)


def test_without_clean_labels_of_both_hands_nothing_is_known():
    for left, right in (((0, 0, 0), (0, 50, 0)), ((0, 0, 0),) * 2, ((25, 25, 3),) * 2):
        share = left_share([[10, 40, 3]], Confusion(left, right))
        assert (share.corrected, share.low, share.high) == (None, 0, 1)
        assert "cannot tell left from right" in share.note
    one_hand = left_share([[10, 40]], Confusion((0, 0, 0), (5, 95, 0), symmetric=True))
    assert one_hand.corrected == pytest.approx((0.2 - 0.05) / 0.9, abs=1e-5)


def test_a_sample_unlike_the_clean_labels_is_not_corrected_and_that_is_said():
    gone = left_share([[4, 30, 470]], EVEN)  # more are set aside than even of the unusable ones
    assert (gone.corrected, gone.low, gone.high) == (None, 0, 1)
    assert "93 % are set aside" in gone.note
    assert "9 to 82 %" in gone.note
    kept = left_share([[50, 400, 1]], EVEN)  # fewer than of any kind
    assert kept.corrected is None
    few = left_share([[1, 2, 20]], EVEN)  # chance may do that
    assert few.corrected is not None


def test_filters_that_tell_nothing_leave_the_share_open():
    blind = Confusion((60, 30, 10), (30, 60, 10), (45, 45, 10), symmetric=True)  # a mix of both hands
    share = left_share([[100, 80, 20]], blind)
    assert share.high - share.low > 0.95


def test_no_particle_no_share():
    assert left_share([], GOOD) is None
    assert left_share([[0, 0, 7], [0, 0, 0]], GOOD) is None
    for wrong in ([[3, -2]], [[1, 2, 3, 4]], [3, 2]):
        with pytest.raises(ValueError, match="outcomes"):
            left_share(wrong, GOOD)


@settings(max_examples=12, deadline=None)
@given(rows, rows, st.none() | rows, rows, st.booleans())
def test_the_interval_holds_the_estimate_and_lies_within_0_and_1(left, right, unusable, sample, symmetric):
    share = left_share([sample], Confusion(left, right, unusable, symmetric))
    if share is None:
        assert sample[:2] == (0, 0)
        return
    assert 0 <= share.low <= share.high <= 1
    assert share.naive_low <= share.naive <= share.naive_high
    if share.corrected is not None:
        assert share.low <= share.corrected <= share.high


@settings(max_examples=8, deadline=None)
@given(rows, st.integers(40, 99), st.integers(40, 99), st.integers(5, 30))
def test_left_and_right_are_treated_alike(sample, hits, rejections, hidden):
    confusion = Confusion((hits, 100 - hits, 9), (100 - rejections, rejections, 9), (hidden, 9, 50))
    other = Confusion((rejections, 100 - rejections, 9), (100 - hits, hits, 9), (9, hidden, 50))
    a = left_share([sample], confusion)
    b = left_share([(sample[1], sample[0], sample[2])], other)
    assert (a is None) == (b is None)
    if a is not None and a.corrected is not None and b.corrected is not None:
        assert a.low == pytest.approx(1 - b.high, abs=2e-3)


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.tuples(rows, rows, rows), rows, st.booleans(), st.integers(0, 99))
def test_no_other_start_leads_higher(table, sample, symmetric, seed):
    evidence = Confusion(*table, symmetric).evidence(sample)
    grid, rng = np.linspace(0, 1, 5), np.random.default_rng(seed)
    for _ in range(3):
        state = latent.State(grid, rng.uniform(0.02, 0.98, 5), evidence.rates(rng.gamma(1, 1, (5, 3, 3))))
        for _ in range(300):  # plain EM
            state = latent._step(state, evidence, free=False)
        assert (profile(grid, evidence) >= latent.likelihood(state, evidence) - 0.02).all()


def test_more_clean_labels_make_a_narrower_interval():
    widths = []
    for n in (20, 100, 1000):
        share = left_share([[40, 160, 60]], Confusion((9 * n, n, n), (n, 9 * n, n), (n, n, 9 * n)))
        widths.append(share.high - share.low)
    assert widths[0] > widths[1] > widths[2]


def test_images_that_differ_count_as_less():
    alike, unlike = (left_share(list(one) * 4, GOOD) for one in ([(10, 30)] * 2, [(0, 40), (20, 20)]))
    assert alike.design_effect == 1
    assert unlike.design_effect > 2
    assert unlike.high - unlike.low > 1.3 * (alike.high - alike.low)
    assert design_effect(np.array([[3.0, 6.0, 0.0]]), np.array([2.0, -1.0, 0.0])) == 1


def test_images_whose_unusable_ones_differ_count_as_less_where_these_pass():
    def effect(unusable):
        return left_share([(20, 30, 2), (20, 30, 60)] * 4, Confusion((9, 1, 0), (1, 9, 0), unusable))

    assert effect((1, 0, 20)).design_effect < 0.8 * effect((12, 0, 20)).design_effect


def test_the_likelihood_is_highest_at_the_corrected_share():
    grid = np.linspace(0, 1, 201)
    assert grid[profile(grid, GOOD.evidence([27, 173, 0])).argmax()] == pytest.approx(0.1, abs=0.011)
    evidence = EVEN.evidence([90, 60, 3])  # fewer set aside than expected: no unusable ones
    share, level = likeliest(evidence)
    assert grid[profile(grid, evidence).argmax()] == pytest.approx(share, abs=0.004)
    assert level >= profile(grid, evidence).max() - 1e-3


def test_wilsons_interval():
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)  # Newcombe 1998, by the same formula
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=1e-4)


def drawn(rng, true, hidden, labels, table):
    """Six images of about 40 particles, and clean labels, of which a third is unusable."""
    mix = np.array([true * (1 - hidden), (1 - true) * (1 - hidden), hidden])
    outcomes = rng.multinomial(rng.poisson(40, 6), mix @ table)
    clean = [tuple(rng.multinomial(labels, table[k])) for k in range(3)]
    return outcomes, clean


@pytest.mark.slow
@pytest.mark.parametrize("true", [0.0, 0.02, 0.1, 0.3, 0.5])
@pytest.mark.parametrize(("hidden", "table"), [(0.1, ROWS), (0.4, ROWS), (0.4, MIRRORED)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(true, hidden, table):
    rng, held, naive_held, errors = np.random.default_rng(7), 0, 0, []
    for _ in range(60):
        outcomes, clean = drawn(rng, true, hidden, 60, table)
        share = left_share(outcomes, Confusion(*clean, symmetric=table is MIRRORED))
        held += share.low <= true <= share.high
        naive_held += share.naive_low <= true <= share.naive_high
        errors.append((share.corrected - true, share.naive - true))
    assert held >= 53  # 57 expected of 60; fewer than 53 in 2 % of runs
    corrected, naive = np.abs(np.mean(errors, axis=0))
    assert corrected < 0.035  # at 0 % it can only err upwards
    if true < 0.1:
        assert naive_held < 20
        assert naive > 0.06
