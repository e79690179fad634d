"""Planted label error is exact in count and coherent over a particle."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.science.classes import plant


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), rate=st.floats(0, 1), seed=st.integers(0, 99))
def test_both_pictures_of_a_particle_are_wrong_together(n: int, rate: float, seed: int) -> None:
    labels, pairs = np.repeat([0, 1], n), np.tile(np.arange(n), 2)
    noisy = plant(labels, pairs, rate, rng(seed))
    wrong = noisy != labels
    assert np.array_equal(wrong[:n], wrong[n:])
    assert np.array_equal(noisy[:n] + noisy[n:], np.ones(n))  # still one of each class
    assert wrong[:n].sum() == round(rate * n)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), rate=st.floats(0, 1), classes=st.integers(2, 5), seed=st.integers(0, 99))
def test_independent_error_is_exact_in_pictures(n: int, rate: float, classes: int, seed: int) -> None:
    labels = rng(seed).integers(0, classes, n)
    noisy = plant(labels, np.zeros(n, np.int64), rate, rng(seed), classes, coherent=False)
    assert (noisy != labels).sum() == round(rate * n)
    assert noisy.min() >= 0
    assert noisy.max() < classes


def test_wrong_labels_are_every_other_class() -> None:
    labels = np.zeros(900, np.int64)
    noisy = plant(labels, np.arange(900), 1.0, rng(), 4)
    counts = np.bincount(noisy, minlength=4)
    assert counts[0] == 0
    assert (counts[1:] > 240).all()


def test_the_same_seed_plants_the_same_and_the_labels_stay() -> None:
    labels, pairs = np.repeat([0, 1], 50), np.tile(np.arange(50), 2)
    before = labels.copy()
    assert np.array_equal(plant(labels, pairs, 0.3, rng(4)), plant(labels, pairs, 0.3, rng(4)))
    assert not np.array_equal(plant(labels, pairs, 0.3, rng(4)), plant(labels, pairs, 0.3, rng(5)))
    assert np.array_equal(labels, before)


def test_nothing_is_planted_in_nothing() -> None:
    assert len(plant(np.zeros(0, np.int64), np.zeros(0, np.int64), 0.4, rng())) == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [({"rate": 1.2}, "rate"), ({"pairs": np.zeros(3, np.int64)}, "pairs"), ({"n_classes": 1}, "labels")],
)
def test_what_cannot_be_is_refused(changes: dict, field: str) -> None:
    labels = np.array([0, 1])
    with pytest.raises(ValueError, match=f"^{field}: expected"):
        plant(**{"labels": labels, "pairs": labels, "rate": 0.2, "rng": rng(), **changes})
