"""How sure a classifier may be: one temperature, learnt from answers that it was not trained on."""

import numpy as np
from scipy.optimize import minimize_scalar

from emclean.types import Floats, Ints

LEAST = 10
"""Fewer pictures than this teach nothing; probabilities are then given as they are."""

_SPREAD = 0.7
_EDGE = 1e-6


def fit(probabilities: Floats, truth: Ints) -> float | None:
    """The temperature T with which p^(1/T), normalised, is likeliest by the ``truth [n]``; or None.

    Guo et al. 2017 (arXiv 1706.04599), with log T drawn towards 0 (normal, a standard deviation of 0.7).
    ``probabilities [n,K]`` are those of pictures that no training has used.
    """
    if len(truth) < LEAST:
        return None
    logs = np.log(np.clip(probabilities, _EDGE, 1.0))

    def loss(log_t: float) -> float:
        scaled = logs / np.exp(log_t)
        missed = np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(truth)), truth]
        return float(missed.sum() + (log_t / _SPREAD) ** 2 / 2)

    found = minimize_scalar(loss, bounds=(-2.0, 2.5), method="bounded")
    return float(np.exp(found.x))
