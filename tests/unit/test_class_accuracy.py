"""Accuracy with intervals over particles, and comparisons of two models on the same pictures."""

import numpy as np
import pytest

from emclean.science.classes.accuracy import accuracy, compared, wilson
from emclean.science.classes.expert import ClassSlips, answer


def rng():
    return np.random.default_rng(0)


def test_pictures_of_one_particle_count_as_one():
    right = np.array([True, False] * 50)
    single = accuracy(right, np.arange(100), rng())
    paired = accuracy(np.repeat(right, 4), np.repeat(np.arange(100), 4), rng())
    assert single.value == paired.value == 0.5
    assert paired.units == 100
    assert paired.error == pytest.approx(single.error)
    assert single.error == pytest.approx(0.05, rel=0.1)
    assert single.low == pytest.approx(0.4, abs=0.02)


def test_all_right_is_no_certainty():
    found = accuracy(np.ones(20, bool), np.arange(20), rng())
    assert found.value == 1.0
    assert found.low == pytest.approx(0.839, abs=1e-3)
    assert wilson(0.0, 20)[1] == pytest.approx(1 - 0.839, abs=1e-3)


def test_models_are_compared_in_pairs():
    old = np.arange(200) % 4 != 0
    new = old.copy()
    new[:20] = True
    difference, ratio = compared(old, new, np.arange(200), rng())
    assert difference.value == pytest.approx(5 / 200)
    assert ratio.value == pytest.approx(155 / 150)
    assert 0 < difference.low < difference.value < difference.high
    same, _ = compared(old, old, np.arange(200), rng())
    assert (same.low, same.high) == (0.0, 0.0)


def test_the_simulated_expert_slips_as_often_as_told():
    def said(shown=None, **slips):
        return [answer(1, shown, 3, ClassSlips(**slips), np.random.default_rng(k)) for k in range(400)]

    assert set(said()) == {1}
    assert np.mean(np.array(said(wrong=0.25)) != 1) == pytest.approx(0.25, abs=0.06)
    assert set(said(wrong=1.0)) == {0, 2}
    assert np.mean(np.array(said(2, rubber_stamp=0.5)) == 2) == pytest.approx(0.5, abs=0.08)
    assert set(said(1, rubber_stamp=1.0)) == {1}


def test_slips_are_shares():
    with pytest.raises(ValueError, match="wrong: expected a number from 0 to 1"):
        ClassSlips(wrong=1.5)
