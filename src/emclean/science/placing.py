"""How much it counts against a candidate that its place shows no objects elsewhere (``grading.places``)."""

import numpy as np

from emclean.science.leaning import of_each
from emclean.types import Bools, Floats, Ints

USUAL_WEIGHT = 0.8
"""The weight before the expert's images tell: the mean of its prior, a Beta distribution of 4 and 1."""

_WEIGHTS = np.arange(1, 51, dtype=np.float64) / 50


def placed(probability: Floats, place: Floats, weight: float | Floats) -> Floats:
    """Probabilities ``[M]`` without the part that ``place [M]``, times the weight, says is no object."""
    return np.asarray(probability * (1 - weight * place))


def place_weights(probability: Floats, right: Bools, place: Floats, category: Ints) -> Floats:
    """The weight of each category ``[C]`` by which held-out probabilities ``[M]`` best tell ``right [M]``.

    Maximum a posteriori: where the crowd overlooks the same place in every picture, such as objects that the
    edge cuts, the expert's images show objects there, and the weight falls. For one category it may, and
    for another not.
    """
    found = np.full(int(category.max(initial=-1)) + 1, USUAL_WEIGHT)
    for kind in np.unique(category):  # few
        mine = category == kind
        p = np.clip(placed(probability[mine], place[mine], _WEIGHTS[:, None]), 1e-4, 1 - 1e-4)  # [weights,M]
        fit = np.where(right[mine], np.log(p), np.log(1 - p)).sum(axis=1)
        found[kind] = _WEIGHTS[(fit + 3 * np.log(_WEIGHTS)).argmax()]
    return found


def placed_by(probability: Floats, place: Floats, category: Ints, weights: Floats) -> Floats:
    """``placed`` with the weight of each candidate's category ``[M]``; an unknown one has the usual."""
    return placed(probability, place, of_each(weights, category, USUAL_WEIGHT))


def placed_held_out(probability: Floats, right: Bools, place: Floats, category: Ints, fold: Ints) -> Floats:
    """Probabilities ``[M]``, each weighted by what its category showed in the other folds ``[M]``."""
    held = probability.copy()
    for number in np.unique(fold):
        out = fold == number
        weights = place_weights(probability[~out], right[~out], place[~out], category[~out])
        held[out] = placed_by(probability[out], place[out], category[out], weights)
    return held
