"""Box geometry on arrays: ``[N, 4]`` corners ``x1, y1, x2, y2`` in pixels, vectorised."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from emclean.types import Bools, Floats, Ints


def area(boxes: Floats) -> Floats:
    """Areas ``[N]`` in square pixels."""
    return np.asarray((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))


def centre(boxes: Floats) -> Floats:
    """Centres ``[N, 2]`` as x, y."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def from_xywh(boxes: ArrayLike) -> Floats:
    """Corners from COCO's ``x, y, width, height``."""
    xywh = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def to_xywh(boxes: Floats) -> Floats:
    """COCO's ``x, y, width, height`` from corners."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def clip(boxes: Floats, width: float, height: float) -> Floats:
    """Boxes cut at the image's border; one that lies outside keeps no area."""
    limit = np.array([width, height, width, height], dtype=np.float64)
    return np.clip(boxes, 0.0, limit)


def intersection(a: Floats, b: Floats) -> Floats:
    """Shared areas ``[N, M]`` of ``a [N,4]`` and ``b [M,4]``."""
    # axis by axis and in place: a third of the time that [N,M,2] arrays take, and a third of the memory
    width = np.minimum(a[:, 2, None], b[:, 2])  # [N,M]
    edge = np.maximum(a[:, 0, None], b[:, 0])
    width -= edge
    np.maximum(width, 0.0, out=width)
    height = np.minimum(a[:, 3, None], b[:, 3])
    np.maximum(a[:, 1, None], b[:, 1], out=edge)
    height -= edge
    np.maximum(height, 0.0, out=height)
    width *= height
    return np.asarray(width)


def iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union ``[N, M]``."""
    shared = intersection(a, b)
    union = area(a)[:, None] + area(b)[None, :]
    union -= shared
    np.maximum(union, 1e-12, out=union)
    shared /= union
    return np.asarray(shared)


def paired_iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union ``[N]`` of each pair of two aligned arrays ``[N, 4]``; NaN where either is."""
    low, high = np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])
    shared = np.clip(high - low, 0.0, None).prod(axis=1)
    return np.asarray(shared / np.maximum(area(a) + area(b) - shared, 1e-12))


def coverage(inner: Floats, outer: Floats) -> Floats:
    """Share ``[N, M]`` of each ``inner [N,4]`` that lies within each ``outer [M,4]``."""
    shared = intersection(inner, outer)
    shared /= np.maximum(area(inner)[:, None], 1e-12)
    return shared


def match(a: Floats, b: Floats, threshold: float = 0.5, allowed: Bools | None = None) -> tuple[Ints, Ints]:
    """One-to-one pairs of largest total IoU, each at least ``threshold``.

    ``allowed [N, M]`` may forbid pairs (for instance of different category). Returns the indices
    ``(into a, into b)``, sorted by the first. Source: Kuhn-Munkres assignment (scipy).
    """
    return assign(iou(a, b), threshold, allowed)


def assign(overlap: Floats, threshold: float = 0.5, allowed: Bools | None = None) -> tuple[Ints, Ints]:
    """``match`` for IoU values ``[N, M]`` that are known already."""
    usable = overlap >= max(threshold, 1e-9)
    if allowed is not None:
        usable &= allowed
    rows, cols = linear_sum_assignment(np.where(usable, overlap, 0.0), maximize=True)
    keep = usable[rows, cols]
    return rows[keep].astype(np.int64), cols[keep].astype(np.int64)


def nms(boxes: Floats, scores: Floats, threshold: float, categories: Ints | None = None) -> Ints:
    """Indices kept by greedy non-maximum suppression, best score first, within each category."""
    order = np.argsort(-scores, kind="stable")
    over = np.triu(iou(boxes[order], boxes[order]) > threshold, 1)  # [better, worse]
    if categories is not None:
        over &= categories[order][:, None] == categories[order][None, :]
    keep = np.ones(len(order), dtype=np.bool_)
    for i in np.flatnonzero(over.any(axis=1)):  # greedy by nature: each decision depends on those before
        if keep[i]:
            keep &= ~over[i]
    return order[keep].astype(np.int64)


def enclosing(boxes: Floats) -> Floats:
    """The smallest box ``[4]`` around all of ``boxes [N,4]``, N at least 1."""
    return np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
