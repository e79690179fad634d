"""How a labeller errs, measured where the truth is known: the inverse of planting noise."""

from collections.abc import Sequence

import numpy as np

from emclean.boxes import iou
from emclean.science.noise import NoiseRates
from emclean.science.truth import true_grades
from emclean.types import GRADES, Floats, Ints, Labels


def residuals(truth: Labels, labels: Labels, owner: Ints) -> tuple[Floats, Floats]:
    """Side residuals ``[P,4]`` in units of the true side, and IoU ``[P]``, of labels with their object.

    ``owner [N]`` is the object of each label or -1.
    """
    rows = np.flatnonzero(owner >= 0)
    at = owner[rows]
    sides = np.tile(truth.boxes[at, 2:] - truth.boxes[at, :2], (1, 2))
    overlap = np.asarray(iou(labels.boxes, truth.boxes)[rows, at])
    return np.asarray((labels.boxes[rows] - truth.boxes[at]) / sides), overlap


def _spread(residual: Floats) -> float:
    """A robust standard deviation: 1.4826 times the median absolute deviation, exact for normal noise."""
    if not len(residual):
        return 0.0
    return float(1.4826 * np.median(np.abs(residual - np.median(residual, axis=0))))


def estimate(truths: Sequence[Labels], labels: Sequence[Labels]) -> NoiseRates:
    """The rates that would plant what these labels got wrong.

    Every label with an object counts as shifted, by what its sides are off; rates are shares of the true
    objects. Without any object the rates are zero.
    """
    if len(truths) != len(labels):
        raise ValueError(f"labels: expected {len(truths)} images, got {len(labels)}")
    counts, sides = np.zeros(len(GRADES)), [np.zeros((0, 4))]
    for truth, given in zip(truths, labels, strict=True):
        known = true_grades(given, truth)
        counts += np.bincount(known.grade, minlength=len(GRADES))
        counts[GRADES.index("missed")] += len(known.missed)
        sides.append(residuals(truth, given, known.truth)[0].reshape(-1, 4))
    objects = sum(len(t) for t in truths)
    if not objects:
        return NoiseRates()
    share = dict(zip(GRADES, (counts / objects).tolist(), strict=True))
    merged = min(2 * share["merged"], 1 - share["missed"])  # each merged box hides two objects or more
    return NoiseRates(
        missed=share["missed"],
        shifted=1.0,
        shift_sigma=_spread(np.concatenate(sides)),
        merged=merged,
        spurious=share["spurious"],
        mislabelled=share["mislabelled"],
        duplicate=share["duplicate"],
    )
