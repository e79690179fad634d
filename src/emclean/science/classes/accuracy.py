"""Accuracy with intervals over particles: a picture and its mirror image, or a group, err together."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from emclean.science.evaluation import Interval
from emclean.types import Bools, Floats, Ints


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers, its standard error, and the 95 % interval, over ``units`` groups."""

    value: float
    error: float
    low: float
    high: float
    units: int


def accuracy(right: Bools, groups: Ints, rng: np.random.Generator, resamples: int = 1000) -> Accuracy:
    """Accuracy of ``right [n]`` with a bootstrap over ``groups [n]``; there must be a picture.

    Where all or none is right the bootstrap knows no doubt: the interval is then Wilson's.
    """
    hits, sizes = _by_group(right, groups)
    weights = _weights(len(sizes), resamples, rng)
    draws = weights @ hits / (weights @ sizes)
    value = float(right.mean())
    low, high = np.quantile(draws, [0.025, 0.975])
    if right.all() or not right.any():
        low, high = wilson(value, len(sizes))
    return Accuracy(value, float(draws.std()), float(low), float(high), len(sizes))


def compared(
    champion: Bools, challenger: Bools, groups: Ints, rng: np.random.Generator, resamples: int = 1000
) -> tuple[Interval, Interval]:
    """Difference and ratio of the challenger's accuracy to the champion's on the same pictures, paired."""
    (old, sizes), (new, _) = _by_group(champion, groups), _by_group(challenger, groups)
    weights = _weights(len(sizes), resamples, rng)
    before, after = weights @ old, weights @ new
    difference = (after - before) / (weights @ sizes)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, whole = after / before, float(np.divide(new.sum(), old.sum()))
    return _interval(float((new.sum() - old.sum()) / sizes.sum()), difference), _interval(whole, ratio)


def wilson(share: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share seen in ``n`` independent cases."""
    z = float(norm.ppf((1 + confidence) / 2))
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = max(middle - half, 0.0), min(middle + half, 1.0)
    return float(min(low, share)), float(max(high, share))  # against rounding, where all or none is right


def _by_group(right: Bools, groups: Ints) -> tuple[Floats, Floats]:
    """How many of each group are right, and how many there are."""
    _, place = np.unique(groups, return_inverse=True)
    hits = np.bincount(place, right.astype(np.float64)).astype(np.float64)
    return hits, np.bincount(place).astype(np.float64)


def _weights(units: int, resamples: int, rng: np.random.Generator) -> Floats:
    return rng.multinomial(units, np.full(units, 1.0 / units), size=resamples).astype(np.float64)


def _interval(value: float, draws: Floats) -> Interval:
    known = draws[np.isfinite(draws)]
    if not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(value, float(low), float(high))
