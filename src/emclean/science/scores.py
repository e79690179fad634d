"""Detector scores as probabilities: how often a box of this score is right."""

from collections.abc import Sequence

import numpy as np

from emclean.boxes import match
from emclean.types import Labels, Predictions

LEAST = 30
"""Fewer boxes than this teach nothing; the score is then given as it is."""


def score_knots(truths: Sequence[Labels], predictions: Sequence[Predictions]) -> list[list[float]]:
    """Knots ``[score, probability]`` of a rising line through the share of right boxes at each score.

    A box is right when it is matched one to one at IoU 0.5 with an object of its category. Isotonic
    regression (pool adjacent violators, scikit-learn); between knots the probability is interpolated. Empty
    with fewer than :data:`LEAST` boxes, or when all or none are right.
    """
    from sklearn.isotonic import IsotonicRegression

    hits = [_hits(t, p) for t, p in zip(truths, predictions, strict=True)]
    right = np.concatenate([*hits, np.zeros(0, np.bool_)])
    scores = np.concatenate([*(p.scores for p in predictions), np.zeros(0)])
    if len(scores) < LEAST or right.all() or not right.any():
        return []
    least = 1 / (len(scores) + 2)  # rule of succession: few boxes cannot show certainty
    line = IsotonicRegression(y_min=least, y_max=1 - least, out_of_bounds="clip").fit(scores, right)
    return [[float(x), float(y)] for x, y in zip(line.X_thresholds_, line.y_thresholds_, strict=True)]


def _hits(truth: Labels, found: Predictions) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    same = found.categories[:, None] == truth.categories[None, :]
    rows, _ = match(found.boxes, truth.boxes, 0.5, same)
    right = np.zeros(len(found), dtype=np.bool_)
    right[rows] = True
    return right
