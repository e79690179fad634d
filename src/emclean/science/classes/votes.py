"""What several labellers say of the same pictures."""

import numpy as np
from numpy.typing import NDArray

from emclean.types import Floats

Ints = NDArray[np.int64]

ABSENT = -1
"""The vote of a labeller who did not see a picture."""


def counts(votes: Ints, n_classes: int) -> Ints:
    """How often each class was named, ``[n,K]``, by votes ``[n,labellers]`` (``ABSENT``: none)."""
    if votes.ndim != 2:
        raise ValueError(f"votes: expected [pictures, labellers], got {votes.shape}")
    if votes.size and not ABSENT <= votes.min() <= votes.max() < n_classes:
        raise ValueError(f"votes: expected {ABSENT} to {n_classes - 1}, got others")
    named: Ints = (votes[:, :, None] == np.arange(n_classes)).sum(axis=1)
    return named


def consensus(votes: Ints, n_classes: int, rng: np.random.Generator) -> Ints:
    """The label ``[n]`` that most named; ties are drawn by lot. Every picture needs a vote."""
    named = counts(votes, n_classes)
    without = np.flatnonzero(named.sum(axis=1) == 0)
    if len(without):
        raise ValueError(
            f"votes: expected at least one for every picture, got none for {without[:10].tolist()}"
        )
    label: Ints = np.argmax(named + rng.random(named.shape) * 0.5, axis=1)
    return label


def agreement(votes: Ints, n_classes: int) -> Floats:
    """Share ``[n]`` of a picture's votes that name its most named class; NaN without any."""
    named = counts(votes, n_classes)
    total = named.sum(axis=1)
    with np.errstate(invalid="ignore"):
        share: Floats = np.where(total > 0, named.max(axis=1) / total, np.nan)
    return share


def shares(votes: Ints, n_classes: int) -> Floats:
    """The share ``[n,K]`` of each picture's votes for every class: a soft label. Every picture needs one."""
    named = counts(votes, n_classes)
    total = named.sum(axis=1, keepdims=True)
    if not total.all():
        raise ValueError("votes: expected at least one for every picture")
    found: Floats = named / total
    return found
