"""ObjectLab (arXiv 2309.00832) as ``cleanlab.object_detection`` computes it.

cleanlab scores quality (1: clean); suspicion is one less that. It comes with the extra ``rivals`` and is
imported when it is asked for. Its similarities of boxes (0.9 IoU + 0.1 exp(-0.1 distance of the centres in
pixels)) are handed to it ready made, as its interface allows: its own are computed pair by pair in Python,
eight times for what is needed here. A test holds the result to the library's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emclean.boxes import centre, iou
from emclean.science.grading.evidence import Evidence
from emclean.science.rivals.base import Suspicion, n_categories
from emclean.types import Floats, Grade

_ALPHA, _DECAY, _TINY = 0.9, 0.1, 1e-100


def _rank() -> Any:
    """The library's module of scores, loaded when it is asked for."""
    from cleanlab.object_detection import rank

    return rank


def to_cleanlab(evidence: Evidence, n: int) -> tuple[dict[str, Any], Any]:
    """An image's labels and its predictions (one array ``[M,5]`` for each of ``n`` categories) as cleanlab
    takes them."""
    found = evidence.reference
    rows = np.concatenate([found.boxes, found.scores[:, None]], axis=1)
    predictions = np.empty(n, dtype=object)
    for category in range(n):
        predictions[category] = rows[found.categories == category]
    labels = {"bboxes": evidence.labels.boxes, "labels": evidence.labels.categories}
    return labels, predictions


def _prepared(evidence: Evidence) -> dict[str, Any]:
    """What cleanlab calls auxiliary inputs, computed on arrays; its smallest similarity comes later."""
    labels, found = evidence.labels, evidence.reference
    overlap = iou(labels.boxes, found.boxes)
    gap = centre(labels.boxes)[:, None] - centre(found.boxes)[None]  # [N,M,2]
    near = np.exp(-_DECAY * np.sqrt((gap**2).sum(axis=2)))
    return {
        "pred_labels": found.categories,
        "pred_label_probs": found.scores,
        "pred_bboxes": found.boxes,
        "lab_labels": labels.categories,
        "lab_bboxes": labels.boxes,
        "similarity_matrix": _ALPHA * overlap + (1 - _ALPHA) * near,
        "iou_matrix": overlap,
    }


def _smallest(prepared: Sequence[dict[str, Any]]) -> float:
    """The smallest similarity above zero in the whole set, at most 1."""
    every = [p["similarity_matrix"] for p in prepared]
    return min([1.0, *(float(s[s > 0].min()) for s in every if (s > 0).any())])


@dataclass(frozen=True)
class ObjectLab:
    """The method with its two thresholds; None stands for the library's (0.5 and 0.95).

    Predictions above ``low`` are held against where labels lie, those above ``high`` against their category
    and against places without a label.
    """

    low: float | None = None
    high: float | None = None

    def __call__(self, evidences: Sequence[Evidence]) -> list[Suspicion]:
        """An image's score is one less the geometric mean of its three pooled qualities."""
        rank = _rank()
        prepared = [_prepared(evidence) for evidence in evidences]
        smallest = _smallest(prepared)
        several = n_categories(evidences) > 1
        inputs = [{**p, "min_possible_similarity": smallest} for p in prepared]
        boxes = (
            rank.compute_overlooked_box_scores(high_probability_threshold=self.high, auxiliary_inputs=inputs),
            rank.compute_badloc_box_scores(low_probability_threshold=self.low, auxiliary_inputs=inputs),
            rank.compute_swap_box_scores(
                high_probability_threshold=self.high,
                auxiliary_inputs=inputs,
                overlapping_label_check=several,  # conflicting categories need two; the check is quadratic
            ),
        )
        pooled = np.stack([rank.pool_box_scores_per_image(scores) for scores in boxes])
        images = 1 - np.exp(np.log(_TINY + pooled).mean(axis=0))
        return [
            _suspicion(evidence, float(image), *scores)
            for evidence, image, *scores in zip(evidences, images, *boxes, strict=True)
        ]


def _suspicion(
    evidence: Evidence, image: float, overlooked: Floats, misplaced: Floats, swapped: Floats
) -> Suspicion:
    """One image's qualities turned round; predictions that cleanlab leaves out are NaN."""
    rows = np.flatnonzero(~np.isnan(overlooked))
    errors = 1 - np.minimum(misplaced, swapped)
    kinds: dict[Grade, Floats] = {"shifted": 1 - misplaced, "mislabelled": 1 - swapped}
    found = evidence.reference.take(rows)
    return Suspicion(image, errors, found, 1 - overlooked[rows], kinds)


objectlab = ObjectLab(low=0.2, high=0.5)
"""With lower thresholds than the library's: a detector trained on few or noisy labels hardly ever reaches
0.95, and then nothing would be overlooked. ``benchmarks/error_finding.py`` compares both."""
