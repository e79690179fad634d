"""How likely a class label is wrong, and what it should be: calibrated on what the expert answered.

Against each label stands the likeliest other class, its rival, by the log odds of rival to label. The chance
that the expert names the rival is a logistic function of these odds (Platt 2000), pulled towards the odds as
they are: few answers change little. Which pictures a strategy had asked about does not matter here, as long
as it chose them by label and probabilities: given the odds, the answer does not depend on the choice.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit

from emclean.science.calibration import threshold
from emclean.types import Bools, Floats, Ints

LEAST = 10
"""With fewer answers than this nothing is corrected without asking."""

_FOLDS = 5
_SHIFT_SD, _SLOPE_SD = 1.0, 0.5
_EDGE = 1e-6


@dataclass(frozen=True, eq=False)
class Contest:
    """Each label's ``rival [n]``, a class, and the log ``odds [n]`` of the rival to the label."""

    rival: Ints
    odds: Floats


def contest(labels: Ints, probabilities: Floats) -> Contest:
    """The rivals of ``labels [n]`` by out-of-sample ``probabilities [n,K]``."""
    at = np.arange(len(labels))
    p = np.clip(probabilities, _EDGE, 1 - _EDGE)
    others = p.copy()
    others[at, labels] = -1.0
    rival: Ints = np.argmax(others, axis=1).astype(np.int64)
    return Contest(rival, np.log(p[at, rival]) - np.log(p[at, labels]))


@dataclass(frozen=True)
class Doubts:
    """The chance that the rival is right: ``expit(shift + slope * odds)``, learnt from ``n`` answers."""

    shift: float = 0.0
    slope: float = 1.0
    n: int = 0

    def probability(self, odds: Floats) -> Floats:
        """The chance ``[n]`` at these odds."""
        return np.asarray(expit(self.shift + self.slope * odds))


def fit(odds: Floats, rival_right: Bools) -> Doubts:
    """Most likely shift and slope by the answers ``[n]``; prior: none and one, normal (the slope's log too).

    Both have their standard deviations in this module; without answers the odds stand as they are.
    """
    if not len(odds):
        return Doubts()
    sign = np.where(rival_right, 1.0, -1.0)

    def loss(at: Floats) -> float:
        missed = np.logaddexp(0.0, -sign * (at[0] + np.exp(at[1]) * odds)).sum()
        return float(missed + (at[0] / _SHIFT_SD) ** 2 / 2 + (at[1] / _SLOPE_SD) ** 2 / 2)

    found = minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-6})
    return Doubts(float(found.x[0]), float(np.exp(found.x[1])), len(odds))


def held_out(odds: Floats, rival_right: Bools, rng: np.random.Generator) -> Floats:
    """The chance ``[n]`` of every answered label by the answers of the other folds."""
    n = len(odds)
    fold = rng.permutation(np.arange(n) % _FOLDS)
    chance = np.zeros(n)
    for k in range(_FOLDS):
        chance[fold == k] = fit(odds[fold != k], rival_right[fold != k]).probability(odds[fold == k])
    return chance


def limit(chance: Floats, rival_right: Bools, precision: float = 0.95) -> float:
    """The chance from which a label is changed without asking; infinity where that is not safe.

    Never under ``precision``; above it where the held-out chances ``[n]`` of answered labels, at or above
    one half, turned out to promise too much.
    """
    if len(chance) < LEAST:
        return float("inf")
    likely = chance >= 0.5
    return max(threshold(chance[likely], rival_right[likely], precision), precision)
