"""Average precision at IoU 0.5, small and fast enough to steer training."""

from collections.abc import Sequence

import numpy as np

from emclean.boxes import iou
from emclean.types import Bools, Floats, Labels, Predictions

_RECALLS = np.linspace(0.0, 1.0, 101)


def ap50(truths: Sequence[Labels], predictions: Sequence[Predictions], n_categories: int = 1) -> float:
    """COCO's average precision at IoU 0.5 (101 recall points), mean over the categories that occur.

    No limit on detections per image. Without any true box the answer is 0.
    """
    values = [_category(truths, predictions, c) for c in range(n_categories)]
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else 0.0


def _category(truths: Sequence[Labels], predictions: Sequence[Predictions], category: int) -> float | None:
    n_true = sum(int((truth.categories == category).sum()) for truth in truths)
    if n_true == 0:
        return None
    hits, scores = [], []
    for truth, found in zip(truths, predictions, strict=True):
        rows = np.flatnonzero(found.categories == category)
        rows = rows[np.argsort(-found.scores[rows], kind="stable")]
        overlap = iou(found.boxes[rows], truth.boxes[truth.categories == category])  # [P,T]
        hits.append(_greedy(overlap))
        scores.append(found.scores[rows])
    return _average(np.concatenate(hits), np.concatenate(scores), n_true)


def _greedy(overlap: Floats) -> Bools:
    """Which detections (best first, ``[P, T]`` IoU) find a true box that is still free, at IoU 0.5."""
    hit = np.zeros(len(overlap), dtype=np.bool_)
    free = overlap >= 0.5
    for row in np.flatnonzero(free.any(axis=1)):  # greedy by definition: each match depends on those before
        candidates = np.flatnonzero(free[row])
        if len(candidates):
            hit[row] = True
            free[:, candidates[np.argmax(overlap[row, candidates])]] = False
    return hit


def _average(hits: Bools, scores: Floats, n_true: int) -> float:
    """Mean over 101 recalls of the best precision at that recall or a later one."""
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(hits[order])
    recall = found / n_true
    precision = found / np.arange(1, len(found) + 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, _RECALLS, side="left")
    return float(np.append(envelope, 0.0)[np.minimum(at, len(envelope))].mean())
