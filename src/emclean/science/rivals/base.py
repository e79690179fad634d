"""What every method of finding wrong labels answers, on the same labels and predictions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from emclean.boxes import iou, nms
from emclean.science.grading.evidence import Evidence
from emclean.types import Floats, Grade, Ints, Predictions

OVERLAP = 0.5
"""From this IoU a prediction and a label are about the same object."""

LEAST = 0.01
"""Probabilities are kept between this and one minus this, so that no logarithm runs away."""


@dataclass(frozen=True, eq=False)
class Suspicion:
    """What a method suspects in one image; larger is always more suspicious, the scale is the method's own.

    ``image`` ranks the image among others; ``labels [N]`` is the error score of each given label; ``kinds``
    holds, for the kinds of error that the method tells apart, a score ``[N]`` of its own for each label;
    ``candidates`` are overlooked objects with their error scores ``missed [M]``.
    """

    image: float
    labels: Floats
    candidates: Predictions
    missed: Floats
    kinds: Mapping[Grade, Floats] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, m = len(self.labels), len(self.candidates)
        for name, column, length in (
            ("missed", self.missed, m),
            *((f"kinds[{k}]", v, n) for k, v in self.kinds.items()),
        ):
            if column.shape != (length,):
                raise ValueError(f"{name}: expected {length} values, got shape {column.shape}")


class Rival(Protocol):
    """A method: images of one data set in, one :class:`Suspicion` for each of them out, in order.

    All images are given at once because some methods take their thresholds from the whole set; every method
    also answers for a single image.
    """

    def __call__(self, evidences: Sequence[Evidence]) -> list[Suspicion]:
        """Judge every image by its labels and its most trusted predictions (``Evidence.reference``)."""


def n_categories(evidences: Sequence[Evidence]) -> int:
    """One more than the largest category in any label or reference prediction, at least 1."""
    largest = [
        max(int(e.labels.categories.max(initial=0)), int(e.reference.categories.max(initial=0)))
        for e in evidences
    ]
    return 1 + max(largest, default=0)


def class_probabilities(evidence: Evidence, n: int) -> Floats:
    """What the model says is at each label ``[N, n+1]``: every category, and nothing (the last column).

    A category has the best score of its predictions that overlap the label with IoU >= 0.5; what the best
    category leaves is the background's.
    """
    labels, found = evidence.labels, evidence.reference
    table = np.zeros((len(labels), n + 1))
    near = np.where(iou(labels.boxes, found.boxes) >= OVERLAP, found.scores, 0.0)  # [N,P]
    for category in range(n):
        table[:, category] = near[:, found.categories == category].max(axis=1, initial=0.0)
    table[:, n] = 1 - table[:, :n].max(axis=1)
    return normalised(table)


def normalised(table: Floats) -> Floats:
    """Rows ``[N, C]`` as probabilities, none of them nearer to 0 or 1 than ``LEAST``."""
    share = np.clip(table, LEAST, 1 - LEAST)
    return np.asarray(share / share.sum(axis=1, keepdims=True))


def unlabelled(evidence: Evidence) -> Ints:
    """Indices of the reference predictions that no label shows (IoU under 0.5), without repetitions."""
    found = evidence.reference
    kept = nms(found.boxes, found.scores, OVERLAP, found.categories)
    shown = iou(found.boxes[kept], evidence.labels.boxes).max(axis=1, initial=0.0)
    return np.asarray(kept[shown < OVERLAP])
