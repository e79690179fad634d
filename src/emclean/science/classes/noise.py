"""Planting label error: an exact number of labels is changed, by particle or by picture."""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def plant(
    labels: Ints,
    pairs: Ints,
    rate: float,
    rng: np.random.Generator,
    n_classes: int = 2,
    coherent: bool = True,
) -> Ints:
    """The labels ``[n]`` with a share ``rate`` of them wrong, exact up to rounding.

    ``coherent``: particles (``pairs [n]``) are wrong as a whole, so that a picture and its mirror image are
    wrong together, and the share is one of particles; else every picture is drawn by itself. A wrong label
    is each other class with the same chance; within a particle the labels are moved on by the same number of
    classes, so that two that differed still do.
    """
    _check(labels, pairs, rate, n_classes)
    units = np.unique(pairs, return_inverse=True)[1] if coherent else np.arange(len(labels))
    n_units = int(units.max()) + 1 if len(units) else 0
    wrong = rng.permutation(n_units)[: round(rate * n_units)]
    moves = np.zeros(n_units, np.int64)
    moves[wrong] = rng.integers(1, n_classes, len(wrong))
    return ((labels + moves[units]) % n_classes).astype(np.int64)


def _check(labels: Ints, pairs: Ints, rate: float, n_classes: int) -> None:
    if len(labels) != len(pairs):
        raise ValueError(f"pairs: expected {len(labels)}, one per label, got {len(pairs)}")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate: expected a number from 0 to 1, got {rate!r}")
    if n_classes < 2 or (len(labels) and not 0 <= labels.min() <= labels.max() < n_classes):
        raise ValueError(f"labels: expected 0 to {n_classes - 1}, of at least two classes")
