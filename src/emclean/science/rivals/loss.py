"""Loss inspection (arXiv 2303.06999): labels that cost a detector much are probably wrong.

The published method sums the classification and the regression loss of a two-stage detector for each
instance. Here both are computed from predictions at hand: cross-entropy of the given class, and the smooth
L1 loss of the box deltas with the usual weights 10, 10, 5, 5 (Faster R-CNN, arXiv 1506.01497).
"""

from collections.abc import Sequence

import numpy as np

from emclean.boxes import centre, iou
from emclean.science.grading.evidence import Evidence
from emclean.science.rivals.base import (
    LEAST,
    OVERLAP,
    Suspicion,
    class_probabilities,
    n_categories,
    unlabelled,
)
from emclean.types import Floats

_WEIGHTS = np.array([10.0, 10.0, 5.0, 5.0])


def _deltas(boxes: Floats, anchors: Floats) -> Floats:
    """Offsets ``[N,4]`` of centre (in anchor sides) and log size of ``boxes`` from ``anchors``."""
    sides, own = anchors[:, 2:] - anchors[:, :2], boxes[:, 2:] - boxes[:, :2]
    return np.concatenate([(centre(boxes) - centre(anchors)) / sides, np.log(own / sides)], axis=1)


def _smooth_l1(values: Floats) -> Floats:
    """The Huber loss with its bend at 1, summed over the last axis."""
    size = np.abs(values)
    return np.asarray(np.where(size < 1, 0.5 * size**2, size - 0.5).sum(axis=-1))


def _regression(evidence: Evidence) -> Floats:
    """The regression loss ``[N]`` of each label against the prediction that is assigned to it, else 0."""
    labels, found = evidence.labels, evidence.reference
    losses = np.zeros(len(labels))
    if not len(labels) or not len(found):
        return losses
    overlap = iou(labels.boxes, found.boxes)
    claim = np.where(overlap >= OVERLAP, overlap * found.scores, 0.0)
    best = claim.argmax(axis=1)
    has = np.flatnonzero(claim.max(axis=1) > 0)
    losses[has] = _smooth_l1(_deltas(labels.boxes[has], found.boxes[best[has]]) * _WEIGHTS)
    return losses


def _judge(evidence: Evidence, n: int) -> Suspicion:
    probability = class_probabilities(evidence, n)
    given = probability[np.arange(len(evidence.labels)), evidence.labels.categories]
    labels = -np.log(given) + _regression(evidence)
    found = evidence.reference.take(unlabelled(evidence))
    missed = -np.log(np.clip(1 - found.scores, LEAST, 1.0))
    total, count = float(labels.sum() + missed.sum()), max(len(labels), 1)
    return Suspicion(total / count, labels, found, missed)


def loss(evidences: Sequence[Evidence]) -> list[Suspicion]:
    """An image's score is its detection loss: the sum over all instances, divided by the number of labels."""
    n = n_categories(evidences)
    return [_judge(evidence, n) for evidence in evidences]
