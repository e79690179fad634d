"""What several experts who slip say together, and how far each of them can be trusted."""

from dataclasses import dataclass

import numpy as np

from emclean.science.classes.votes import ABSENT
from emclean.types import Floats, Ints

_STEPS = 100
_CLOSE = 1e-6
_EDGE = 0.02
_BELIEF = np.array([4.0, 1.0])
"""As if everybody had been seen to be right four times and wrong once."""


@dataclass(frozen=True, eq=False)
class Weighed:
    """The chance ``[n,K]`` of every class by all that is known, and each labeller's ``accuracy [L]``."""

    chance: Floats
    accuracy: Floats


def weigh(votes: Ints, probabilities: Floats) -> Weighed:
    """Weigh ``votes [n,L]`` (``ABSENT``: none) and a model's out-of-sample ``probabilities [n,K]``.

    Expectation maximisation for labellers who err at rates of their own, each wrong class alike (Dawid and
    Skene 1979, Applied Statistics 28, 20, with one rate a labeller), the classifier standing where they have
    the share of each class (Raykar et al. 2010, JMLR 11, 1297). The model's chances count as no surer
    than 98 %, and each accuracy is drawn towards four in five: ten pictures tell little.
    """
    n_classes = probabilities.shape[1]
    prior = np.log(np.clip(probabilities, _EDGE, 1 - _EDGE))
    accuracy: Floats = np.full(votes.shape[1], _BELIEF[0] / _BELIEF.sum())
    for _ in range(_STEPS):
        chance = _chances(votes, prior, accuracy)
        before, accuracy = accuracy, _accuracies(votes, chance)
        if np.abs(accuracy - before).max(initial=0.0) < _CLOSE:
            break
    return Weighed(_chances(votes, prior, accuracy), np.maximum(accuracy, 1 / n_classes))


def _chances(votes: Ints, prior: Floats, accuracy: Floats) -> Floats:
    """Bayes' rule ``[n,K]``: the prior's log chances and everybody's word."""
    n_classes = prior.shape[1]
    right, wrong = np.log(accuracy), np.log((1 - accuracy) / (n_classes - 1))
    named = votes[:, :, None] == np.arange(n_classes)  # [n,L,K]
    given = (votes != ABSENT)[:, :, None]
    logs = prior + np.where(named, right[:, None], np.where(given, wrong[:, None], 0.0)).sum(axis=1)
    chance = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(chance / chance.sum(axis=1, keepdims=True))


def _accuracies(votes: Ints, chance: Floats) -> Floats:
    """How often each labeller is right by the chances, with the belief that all start from ``[L]``."""
    given = votes != ABSENT
    hit = np.where(given, np.take_along_axis(chance, np.where(given, votes, 0), axis=1), 0.0)
    return np.asarray((hit.sum(axis=0) + _BELIEF[0]) / (given.sum(axis=0) + _BELIEF.sum()))
