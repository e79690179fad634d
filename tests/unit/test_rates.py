from dataclasses import fields

import numpy as np
import pytest
from science_scenes import SIDE, objects

from emclean.science.noise import NoiseRates, plant
from emclean.science.rates import estimate
from emclean.types import Labels


def test_what_was_planted_is_estimated() -> None:
    planted = NoiseRates(
        missed=0.25, shifted=1.0, shift_sigma=0.08, merged=0.1, spurious=0.2, mislabelled=0.15, duplicate=0.1
    )
    rng = np.random.default_rng(0)
    truths = [objects(rng, 25, 3) for _ in range(60)]
    noisy = [plant(t, SIDE, SIDE, planted, 3, rng).labels for t in truths]
    found = estimate(truths, noisy)
    for name in (f.name for f in fields(NoiseRates) if f.name != "redraw"):
        assert getattr(found, name) == pytest.approx(getattr(planted, name), abs=0.035), name


def test_perfect_labels_have_no_errors() -> None:
    truth = objects(np.random.default_rng(1), 10)
    assert estimate([truth], [truth]) == NoiseRates(shifted=1.0, shift_sigma=0.0)


def test_nothing_to_compare() -> None:
    assert estimate([], []) == NoiseRates()
    assert estimate([Labels.empty()], [objects(np.random.default_rng(0), 5)]) == NoiseRates()
    with pytest.raises(ValueError, match="labels"):
        estimate([Labels.empty()], [])


def test_rates_can_be_planted_whatever_was_seen() -> None:
    truth = Labels(np.array([[0.0, 0, 20, 20], [22, 0, 42, 20]]), np.zeros(2, int))
    hull = Labels(np.array([[0.0, 0, 42, 20]]), np.zeros(1, int))
    assert estimate([truth], [hull]).merged == 1.0
    assert estimate([truth], [Labels.empty()]).missed == 1.0
