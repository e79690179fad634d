"""What lies together is parted into particles, and how ragged one is."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull, QhullError
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from emclean.types import Bools, Ints

LEAST_MARKER = 12
"""Px below which the middle of a particle is noise."""


def mapped(foreground: NDArray[np.float32], depth: NDArray[np.float32]) -> Ints:
    """Labels ``[H,W]`` by watershed of the depth, each from a connected part that is at least half deep.

    What is linked to no such part is left out.
    """
    inside = foreground > 0.5
    markers, _ = ndimage.label((depth > 0.5) & inside)
    markers[np.bincount(markers.ravel())[markers] < LEAST_MARKER] = 0
    return np.asarray(watershed(-depth, markers, mask=inside), dtype=np.int64)


def split(mask: Bools, neck: float, length: float) -> Ints:
    """Part touching particles: labels ``[H,W]`` of a mask, by watershed of the distance to its outline.

    Each maximum of the distance starts a part; parts are joined again where the neck between them (the
    largest distance on their common border) is at least ``neck`` times the thinner one's maximum. Source:
    watershed on the distance transform (Beucher and Lantuejoul 1979), as in scikit-image.
    """
    padded = np.pad(mask, 1)
    distance = ndimage.distance_transform_edt(padded)
    smooth = ndimage.gaussian_filter(distance, 1.0) * padded
    apart = max(int(length / 8), 2)
    peaks = peak_local_max(smooth, min_distance=apart, labels=padded.astype(np.int32), exclude_border=False)
    markers = np.zeros(padded.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-smooth, markers, mask=padded)
    return np.asarray(_joined_parts(labels, smooth, neck)[1:-1, 1:-1], dtype=np.int64)


def _joined_parts(labels: Ints, distance: NDArray[np.float64], neck: float) -> Ints:
    """Labels after parts with a wide common neck have become one."""
    n = int(labels.max())
    if n < 2:
        return labels
    peak = ndimage.maximum(distance, labels, np.arange(1, n + 1))
    pairs, width = _borders(labels, distance)
    thinner = np.minimum(peak[pairs[:, 0] - 1], peak[pairs[:, 1] - 1])
    same = pairs[width >= neck * thinner] - 1
    graph = coo_array((np.ones(len(same)), (same[:, 0], same[:, 1])), shape=(n, n))
    _, group = connected_components(graph, directed=False)
    return np.asarray(np.concatenate([[0], group + 1])[labels], dtype=np.int64)


def _borders(labels: Ints, distance: NDArray[np.float64]) -> tuple[Ints, NDArray[np.float64]]:
    """Neighbouring labels ``[P,2]`` and the largest distance to the outline on each common border ``[P]``."""
    rows = (labels[1:], labels[:-1], np.minimum(distance[1:], distance[:-1]))
    cols = (labels[:, 1:], labels[:, :-1], np.minimum(distance[:, 1:], distance[:, :-1]))
    a, b, value = (np.concatenate([up.ravel(), left.ravel()]) for up, left in zip(rows, cols, strict=True))
    touching = (a != b) & (a > 0) & (b > 0)
    sides = np.stack([np.minimum(a, b), np.maximum(a, b)], axis=1)[touching]
    if not len(sides):
        return np.zeros((0, 2), np.int64), np.zeros(0)
    pairs, which = np.unique(sides, axis=0, return_inverse=True)
    width = np.zeros(len(pairs))
    np.maximum.at(width, which.ravel(), value[touching])
    return pairs.astype(np.int64), width


def solidity_of(mask: Bools) -> float:
    """The share of its convex hull that a mask fills; 1 where it is too thin to have one."""
    edge = mask & ~ndimage.binary_erosion(mask)
    y, x = np.nonzero(edge)
    # the corners of the border pixels, so that a convex mask fills its hull
    points = np.concatenate([np.stack([y + i, x + j], axis=1) for i in (0, 1) for j in (0, 1)])
    try:
        return float(min(mask.sum() / ConvexHull(points).volume, 1.0))
    except QhullError:
        return 1.0
