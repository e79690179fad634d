"""Robust training without an expert: boxes refined by what the detector itself is sure of.

Our reconstruction, in stages, of object-aware multiple instance learning (Liu et al., ECCV 2022, arXiv
2207.09697). There, during training, a noisy box is a bag of proposals; the one that the classifier is
surest of is selected, and the box moves towards it by ``min(score**gamma, most)``. Here the bag are the
out-of-sample predictions of the label's category that overlap it, and the detector is trained anew on the
refined boxes. Like its source the method moves boxes and does nothing else: what was overlooked stays
overlooked, what is spurious stays.
"""

import numpy as np

from emclean.boxes import iou
from emclean.types import Floats, Labels, Predictions

NEAR = 0.3
"""The IoU with a label from which a prediction belongs to its bag: a box that far off is still one of it."""


def refine(labels: Labels, found: Predictions, gamma: float = 1.0, most: float = 0.8) -> Labels:
    """The labels with boxes moved towards the surest prediction of their bag; without one they stay.

    A label's move is ``min(score**gamma, most)`` of the way, ``score`` being that of the prediction. The
    surest is the one of the largest product of score and IoU, so that of neighbours each keeps its own.
    """
    if not len(labels) or not len(found):
        return labels
    overlap = np.where(
        labels.categories[:, None] == found.categories[None, :], iou(labels.boxes, found.boxes), 0.0
    )
    surest = np.where(overlap >= NEAR, overlap * found.scores, 0.0)  # [N,P]
    best = surest.argmax(axis=1)
    seen = surest.max(axis=1) > 0
    share: Floats = np.where(seen, np.minimum(found.scores[best] ** gamma, most), 0.0)[:, None]
    boxes = (1 - share) * labels.boxes + share * found.boxes[best]
    return Labels(boxes, labels.categories, labels.ids, labels.annotators)
