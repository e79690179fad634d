"""How far each category leans from what its candidates look like: some are overlooked more than others."""

import numpy as np

from emclean.types import Bools, Floats, Ints

LEAN = 2.0
"""Standard deviation, in log odds, by which a category is believed to differ from all others at first."""


def leanings(probability: Floats, right: Bools, category: Ints) -> Floats:
    """What to add to the log odds of each category ``[C]``, learnt from held-out probabilities.

    The crowd may label one category completely and overlook half of another, which no feature of a
    candidate tells. Maximum a posteriori with a normal prior (:data:`LEAN`), by Newton's method; nothing
    where there is but one category.
    """
    odds = _log_odds(probability)
    found = np.zeros(int(category.max(initial=-1)) + 1)
    for kind in np.unique(category) if len(np.unique(category)) > 1 else ():
        mine = category == kind
        for _ in range(30):
            p = 1 / (1 + np.exp(-(odds[mine] + found[kind])))
            slope = (right[mine] - p).sum() - found[kind] / LEAN**2
            found[kind] += slope / ((p * (1 - p)).sum() + 1 / LEAN**2)
    return found


def leant(probability: Floats, category: Ints, leaning: Floats) -> Floats:
    """Probabilities ``[M]`` with the leaning of their category in the log odds; an unknown one has none."""
    more = of_each(leaning, category, 0.0)
    return np.asarray(np.where(more == 0, probability, 1 / (1 + np.exp(-(_log_odds(probability) + more)))))


def of_each(values: Floats, category: Ints, unknown: float) -> Floats:
    """The value of each candidate's category ``[M]`` from those of the categories ``[C]``."""
    found = np.full(len(category), unknown)
    known = category < len(values)
    found[known] = values[category[known]]
    return found


def _log_odds(probability: Floats) -> Floats:
    p = np.clip(probability, 1e-4, 1 - 1e-4)
    return np.asarray(np.log(p / (1 - p)))


def leant_held_out(probability: Floats, right: Bools, category: Ints, fold: Ints) -> Floats:
    """Probabilities ``[M]``, each leant by what its category showed in the other folds ``[M]``."""
    held = probability.copy()
    for number in np.unique(fold):
        out = fold == number
        others = leanings(probability[~out], right[~out], category[~out])
        held[out] = leant(probability[out], category[out], others)
    return held
