"""When a class label is changed without asking, and how sure a served probability may be."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.models.classifiers.calibrated import calibrate, temperature_of
from emclean.science.classes import doubt, temperature


def test_the_rival_is_the_likeliest_other_class():
    p = np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]])
    found = doubt.contest(np.array([0, 0]), p)
    assert found.rival.tolist() == [1, 1]
    assert found.odds == pytest.approx([np.log(0.5 / 0.2), np.log(0.3 / 0.6)])


def test_without_answers_the_odds_stand():
    assert doubt.fit(np.zeros(0), np.zeros(0, bool)) == doubt.Doubts(0.0, 1.0, 0)
    assert doubt.Doubts().probability(np.array([0.0, np.log(9)])) == pytest.approx([0.5, 0.9])


def answers(n, slope, seed=0):
    rng = np.random.default_rng(seed)
    odds = rng.normal(0, 3, n)
    return odds, rng.random(n) < 1 / (1 + np.exp(-slope * odds))


def test_what_answers_say_of_the_odds_is_learnt():
    odds, right = answers(2000, 0.4)
    found = doubt.fit(odds, right)
    assert found.slope == pytest.approx(0.4, abs=0.08)
    assert found.shift == pytest.approx(0.0, abs=0.15)


def test_few_answers_change_little():
    found = doubt.fit(np.array([2.0, -2.0]), np.array([False, True]))
    assert 0.5 < found.slope < 1


def test_nothing_is_corrected_before_there_are_enough_answers_or_where_they_promise_too_much():
    sure, wrong = np.full(9, 0.99), np.ones(9, bool)
    assert doubt.limit(sure, wrong) == np.inf
    many = np.full(40, 0.97)
    assert doubt.limit(many, np.ones(40, bool)) == pytest.approx(0.97)
    assert doubt.limit(many, np.arange(40) % 2 == 0) == np.inf
    spread = np.concatenate([np.full(30, 0.99), np.full(30, 0.96)])
    assert doubt.limit(spread, np.arange(60) < 35) == pytest.approx(0.99)


def test_a_low_limit_is_never_under_the_wanted_precision():
    chance = np.linspace(0.5, 0.99, 50)
    assert doubt.limit(chance, np.ones(50, bool), 0.9) == 0.9


def test_held_out_chances_do_not_know_their_own_answer():
    odds, right = answers(60, 1.0)
    found = doubt.held_out(odds, right, np.random.default_rng(1))
    turned = right.copy()
    turned[0] = ~turned[0]
    assert doubt.held_out(odds, turned, np.random.default_rng(1))[0] == pytest.approx(found[0])


def test_a_temperature_mends_a_model_that_is_too_sure():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (3000, 3))
    honest = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    truth = np.array([rng.choice(3, p=row) for row in honest])
    bold = calibrate(honest, 0.5)
    found = temperature.fit(bold, truth)
    assert found == pytest.approx(2.0, rel=0.1)
    assert calibrate(bold, found) == pytest.approx(honest, abs=0.03)


def test_too_few_answers_leave_probabilities_as_they_are():
    p = np.full((9, 2), 0.5)
    assert temperature.fit(p, np.zeros(9, np.int64)) is None
    assert calibrate(p, None) is p


@given(st.floats(0.05, 20), st.floats(0, 1))
@settings(max_examples=30, deadline=None)
def test_calibrated_probabilities_sum_to_one_and_keep_their_order(t, p):
    found = calibrate(np.array([[p, 1 - p]]), t)
    assert found.sum() == pytest.approx(1)
    assert (found[0, 0] - found[0, 1]) * (2 * p - 1) >= 0


@pytest.mark.parametrize("given_", [0, -1.0, float("nan")])
def test_a_card_with_a_bad_temperature_is_refused(given_):
    with pytest.raises(ValueError, match="temperature"):
        temperature_of({"temperature": given_})
    assert temperature_of({}) is None
