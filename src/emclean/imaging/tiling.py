"""Large pictures in tiles, and the tiles' predictions back in one, without seams.

An object that a tile's border cuts is found whole in the neighbouring tile when it is no larger than the
overlap; then the cut piece is dropped. A larger object is in pieces everywhere; then its pieces are joined.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emclean import boxes
from emclean.types import Bools, Floats, Ints, Predictions

MARGIN = 4.0
"""A box that ends this near (px) to a tile's border counts as cut: detectors keep off borders a little."""

INSIDE = 0.7
"""A cut piece of which this share lies in a whole box is taken for a part of it."""


def plan(width: int, height: int, size: int, overlap: int) -> Ints:
    """Tiles ``[T, 4]`` (corners in px) that cover the picture, none reaching outside.

    Neighbours share at least ``overlap`` px; a side shorter than ``size`` gets one tile of that length.
    """
    if min(width, height, size) < 1 or not 0 <= overlap < size:
        raise ValueError(
            f"tiles: expected sides of at least 1 and 0 <= overlap < size, got picture {width} x {height}, "
            f"size {size}, overlap {overlap}"
        )
    lefts, tops = _starts(width, size, overlap), _starts(height, size, overlap)
    x, y = (grid.ravel() for grid in np.meshgrid(lefts, tops))
    return np.stack([x, y, np.minimum(x + size, width), np.minimum(y + size, height)], axis=1)


def _starts(length: int, size: int, overlap: int) -> Ints:
    if length <= size:
        return np.zeros(1, np.int64)
    count = int(np.ceil((length - overlap) / (size - overlap)))
    return np.round(np.linspace(0, length - size, count)).astype(np.int64)


@dataclass(frozen=True, eq=False)
class _Pieces:
    """All tiles' predictions in picture coordinates: N boxes, the tile of each, and whether it is cut."""

    boxes: Floats
    categories: Ints
    scores: Floats
    tile: Floats  # [N,4]
    origin: Ints  # [N], equal for predictions of the same tile
    cut: Bools

    def take(self, index: ArrayLike) -> "_Pieces":
        rows = np.asarray(index)
        columns = (self.boxes, self.categories, self.scores, self.tile, self.origin, self.cut)
        return _Pieces(*(column[rows] for column in columns))


def merge(
    tiles: Ints, predictions: Sequence[Predictions], width: int, height: int, iou: float = 0.5
) -> Predictions:
    """One answer for the whole picture from the answers for its tiles ``[T,4]``, best score first.

    ``iou`` is how well two boxes must agree, where both tiles can see them, to be one object. Boxes from the
    same tile never suppress one another: the detector has judged those already.
    """
    if len(tiles) != len(predictions):
        raise ValueError(f"predictions: expected one for each of {len(tiles)} tiles, got {len(predictions)}")
    pieces = _gather(np.asarray(tiles, np.float64), predictions, (width, height))
    pieces = _drop_covered(pieces, iou)
    pieces = _join(pieces, iou)
    pieces = pieces.take(np.argsort(-pieces.scores, kind="stable"))
    pieces = pieces.take(_best(pieces, iou))
    return Predictions(pieces.boxes, pieces.categories, pieces.scores)


def _gather(tiles: Floats, predictions: Sequence[Predictions], size: tuple[int, int]) -> _Pieces:
    origin = np.repeat(np.arange(len(tiles)), [len(found) for found in predictions])
    tile = tiles[origin]
    empty = Predictions.empty()
    stacked = [
        np.concatenate([getattr(empty, name), *(getattr(found, name) for found in predictions)])
        for name in ("boxes", "categories", "scores")
    ]
    placed = boxes.clip(stacked[0] + np.tile(tile[:, :2], 2), *size)
    limit = np.array([0.0, 0.0, *size])
    cut = ((np.abs(placed - tile) <= MARGIN) & (tile != limit)).any(axis=1)
    pieces = _Pieces(placed, stacked[1], stacked[2], tile, origin, cut)
    return pieces.take((placed[:, 2:] > placed[:, :2]).all(axis=1))


def _drop_covered(pieces: _Pieces, iou: float) -> _Pieces:
    """Leave out each cut piece of which another tile has the whole."""
    i, j = _pairs(pieces)
    i, j = np.concatenate([i, j]), np.concatenate([j, i])
    usable = pieces.cut[i] & ~pieces.cut[j]
    i, j = i[usable], j[usable]
    seen = _cut_to(pieces.boxes[j], pieces.tile[i])  # the whole object as the piece's tile shows it
    agree = _iou(seen, pieces.boxes[i]) >= iou
    shared = _area(_common(pieces.boxes[i], pieces.boxes[j]))
    within = shared >= INSIDE * _area(pieces.boxes[i])
    keep = np.ones(len(pieces.boxes), np.bool_)
    keep[i[agree | within]] = False
    return pieces.take(keep)


def _join(pieces: _Pieces, iou: float) -> _Pieces:
    """Join cut pieces of one object: those that agree where both their tiles look."""
    i, j = _pairs(pieces)
    both = pieces.cut[i] & pieces.cut[j]
    i, j = i[both], j[both]
    strip = _widen(_common(pieces.tile[i], pieces.tile[j]))
    one, other = (_cut_to(_widen(pieces.boxes[k]), strip) for k in (i, j))
    same = _iou(one, other) >= iou
    n = len(pieces.boxes)
    links = coo_array((np.ones(int(same.sum())), (i[same], j[same])), shape=(n, n))
    count, group = connected_components(links, directed=False)
    return _enclose(pieces, group.astype(np.int64), int(count))


def _enclose(pieces: _Pieces, group: Ints, count: int) -> _Pieces:
    """One piece a group: the box around all, the best score; joined ones belong to no tile any more."""
    hull = np.tile([np.inf, np.inf, -np.inf, -np.inf], (count, 1))
    np.minimum.at(hull[:, :2], group, pieces.boxes[:, :2])
    np.maximum.at(hull[:, 2:], group, pieces.boxes[:, 2:])
    best = np.zeros(count)
    np.maximum.at(best, group, pieces.scores)
    first = np.zeros(count, np.int64)
    first[group[::-1]] = np.arange(len(group))[::-1]
    merged = pieces.take(first)
    joined = np.bincount(group, minlength=count) > 1
    origin = np.where(joined, -1 - np.arange(count), merged.origin)
    return _Pieces(hull, merged.categories, best, merged.tile, origin, merged.cut)


def _best(pieces: _Pieces, iou: float) -> Bools:
    """Greedy non-maximum suppression over pairs of different tiles; pieces are sorted, best first.

    All pieces whose better rivals are decided are decided together, so rounds are few.
    """
    i, j = _pairs(pieces)
    rival = _iou(pieces.boxes[i], pieces.boxes[j]) >= iou
    better, worse = np.minimum(i, j)[rival], np.maximum(i, j)[rival]
    keep = np.ones(len(pieces.boxes), np.bool_)
    while True:
        decided = np.ones(len(keep), np.bool_)
        decided[worse[keep[better]]] = False
        if np.array_equal(decided, keep):
            return keep
        keep = decided


def _pairs(pieces: _Pieces) -> tuple[Ints, Ints]:
    """Pairs of pieces of different tiles and equal category whose widened boxes meet (sort and sweep)."""
    wide = _widen(pieces.boxes)
    order = np.argsort(wide[:, 0], kind="stable")
    left = wide[order, 0]
    stop = np.searchsorted(left, wide[order, 2])
    counts = np.maximum(stop - np.arange(len(order)) - 1, 0)
    first = np.repeat(np.arange(len(order)), counts)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(counts) - counts, counts)
    i, j = order[first].astype(np.int64), order[second].astype(np.int64)
    meet = (wide[i, 1] < wide[j, 3]) & (wide[j, 1] < wide[i, 3])
    meet &= (pieces.origin[i] != pieces.origin[j]) & (pieces.categories[i] == pieces.categories[j])
    return i[meet], j[meet]


def _widen(corners: Floats) -> Floats:
    return np.asarray(corners + np.array([-MARGIN, -MARGIN, MARGIN, MARGIN]))


def _common(a: Floats, b: Floats) -> Floats:
    """What row k of ``a [K,4]`` and of ``b [K,4]`` share; a negative side where that is nothing."""
    return np.concatenate([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])], axis=1)


_cut_to = _common


def _area(corners: Floats) -> Floats:
    return np.asarray(np.clip(corners[:, 2:] - corners[:, :2], 0.0, None).prod(axis=1))


def _iou(a: Floats, b: Floats) -> Floats:
    """Intersection over union ``[K]``, row by row."""
    shared = _area(_common(a, b))
    return np.asarray(shared / np.maximum(_area(a) + _area(b) - shared, 1e-12))
