"""What several sources agree on: crowd with cleaning model, and weighted fusion of many sets of boxes."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array

from emclean.boxes import iou, match, nms
from emclean.types import Floats, Ints, Labels, Predictions, Target

Boxes = tuple[Floats, Floats, Ints]
"""Boxes ``[N,4]``, scores ``[N]`` and categories ``[N]`` of one source."""


def agreed(labels: Labels, cleaning: Predictions, threshold: float = 0.5, score: float = 0.3) -> Labels:
    """The labels that the cleaning model confirms: one-to-one, same category, IoU and score high enough.

    The box is the mean of both, the model's weighted by its score and the label's by one.
    """
    sure = cleaning.above(score)
    same = labels.categories[:, None] == sure.categories[None, :]
    rows, cols = match(labels.boxes, sure.boxes, threshold, same)
    share = sure.scores[cols][:, None]
    boxes = (labels.boxes[rows] + share * sure.boxes[cols]) / (1 + share)
    kept = labels.take(rows)
    return Labels(boxes, kept.categories, kept.ids, kept.annotators)


def agreement_target(crowd: Labels, cleaning: Predictions, score: float = 0.3) -> Target:
    """Train on what both say; ignore what only one of them says."""
    both = agreed(crowd, cleaning, score=score)
    only_crowd = crowd.take([i for i, name in enumerate(crowd.ids) if name not in set(both.ids)])
    perhaps = cleaning.above(score / 2)
    doubtful = np.concatenate([only_crowd.boxes, perhaps.boxes])
    of = np.concatenate([only_crowd.categories, perhaps.categories])
    return Target(both.boxes, both.categories, ignore=doubtful, ignore_categories=of)


def _clusters(boxes: Floats, scores: Floats, categories: Ints, threshold: float) -> Ints:
    """Cluster ``[N]`` of each box: the seed (kept by suppression) of its category that it overlaps most."""
    seeds = nms(boxes, scores, threshold, categories)
    overlap = iou(boxes, boxes[seeds])
    overlap[categories[:, None] != categories[seeds][None, :]] = -1.0
    return np.asarray(overlap.argmax(axis=1), dtype=np.int64)


def weighted_boxes_fusion(
    sources: Sequence[Boxes], threshold: float = 0.55, weights: Sequence[float] | None = None
) -> Predictions:
    """Fuse the boxes of several sources into one set (weighted boxes fusion, arXiv 1910.13302).

    Boxes of one category that overlap by more than ``threshold`` form a cluster; its corners are the mean
    weighted by score times source weight, its score the weighted mean score times the share of the total
    source weight that saw it. Clusters form around the boxes that greedy suppression keeps, instead of the
    published running average, so that no result depends on the order of the sources.
    """
    importance = np.ones(len(sources)) if weights is None else np.asarray(weights, dtype=np.float64)
    if len(importance) != len(sources) or (importance <= 0).any():
        raise ValueError(f"weights: expected {len(sources)} positive numbers, got {importance.tolist()}")
    counts = [len(s[1]) for s in sources]
    if not sum(counts):
        return Predictions.empty()
    boxes = np.concatenate([np.asarray(s[0], dtype=np.float64).reshape(-1, 4) for s in sources])
    scores = np.concatenate([np.asarray(s[1], dtype=np.float64) for s in sources])
    categories = np.concatenate([np.asarray(s[2], dtype=np.int64) for s in sources])
    source = np.repeat(np.arange(len(sources)), counts)
    cluster = _clusters(boxes, scores * importance[source], categories, threshold)
    return _fuse(boxes, scores, categories, (cluster, source, importance))


def _fuse(boxes: Floats, scores: Floats, categories: Ints, by: tuple[Ints, Ints, Floats]) -> Predictions:
    """Average each cluster; ``by`` = cluster [N], source [N], weight of each source [S]."""
    cluster, source, importance = by
    k = int(cluster.max()) + 1
    mass = importance[source]
    weight = np.maximum(scores * mass, 1e-9)
    sums = np.stack([np.bincount(cluster, weight * c, k) for c in boxes.T], axis=1)
    corners = sums / np.bincount(cluster, weight, k)[:, None]
    score = np.bincount(cluster, scores * mass, k) / np.bincount(cluster, mass, k)
    seen = coo_array((np.ones(len(cluster)), (cluster, source)), shape=(k, len(importance))).toarray() > 0
    score = np.clip(score * (seen @ importance) / importance.sum(), 0.0, 1.0)
    category = np.zeros(k, dtype=np.int64)
    category[cluster] = categories
    order = np.argsort(-score, kind="stable")
    return Predictions(corners[order], category[order], score[order])
