"""Prediction: pictures of any size, searched tile by tile at several scales, one merged answer each."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from emclean import boxes as geometry
from emclean.models.augment import Picture, resize
from emclean.models.detectors import Detector
from emclean.types import Floats, Predictions

_SEAM = 2.0  # pixels: a box this near to an inner tile edge is taken to be cut off by it


@dataclass(frozen=True)
class _Tile:
    """A piece of a picture, in pixels of the scaled picture."""

    left: int
    top: int
    right: int
    bottom: int


def predict(
    detector: Detector,
    pictures: Iterable[NDArray[Any]],
    scales: Sequence[float] | None = None,
    tile: int = 1024,
    overlap: int = 128,
    flips: bool = False,
) -> Iterator[Predictions]:
    """The objects in each grey picture ``[H, W]`` (uint8, or floats in 0-1), answered one by one.

    ``scales`` are magnifications (by default the detector's own); a scaled picture larger than ``tile`` is
    searched in tiles that share ``overlap`` pixels. ``flips`` also searches the mirrored picture and takes
    the mean of both scores (test-time augmentation): what is seen in one of the two only counts half.
    """
    search = _Search(detector, tuple(scales or detector.spec.scales), tile, overlap, flips)
    for picture in pictures:
        yield search(picture)


@dataclass(frozen=True)
class _Search:
    detector: Detector
    scales: tuple[float, ...]
    tile: int
    overlap: int
    flips: bool

    def __call__(self, picture: NDArray[Any]) -> Predictions:
        pixels = as_grey(picture)
        found = self._at_every_scale(pixels)
        if not self.flips:
            return found
        mirrored = self._at_every_scale(np.ascontiguousarray(pixels[:, ::-1]))
        return average([found, _mirrored(mirrored, pixels.shape[1])], self.detector.spec.overlap)

    def _at_every_scale(self, pixels: Picture) -> Predictions:
        return fuse([self._at(pixels, scale) for scale in self.scales], self.detector.spec.overlap)

    def _at(self, pixels: Picture, scale: float) -> Predictions:
        """What one scale shows, in pixels of the unscaled picture."""
        height, width = pixels.shape
        scaled = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
        found = self._tiled(scaled)
        ratio = np.tile([width / scaled.shape[1], height / scaled.shape[0]], 2)
        return _placed(found, found.boxes * ratio, width, height)

    def _tiled(self, pixels: Picture) -> Predictions:
        height, width = pixels.shape
        size = self.detector.fixed_size or self.tile
        tiles = plan(width, height, size, min(self.overlap, size // 2))
        found = [_whole(self._detect(pixels, t), t, width, height) for t in tiles]
        return found[0] if len(found) == 1 else _joined(found, self.detector.spec.overlap)

    def _detect(self, pixels: Picture, tile: _Tile) -> Predictions:
        piece = np.ascontiguousarray(pixels[tile.top : tile.bottom, tile.left : tile.right])
        height, width = piece.shape
        size = self.detector.fixed_size
        if size is not None:
            piece = np.pad(piece, ((0, size - height), (0, size - width)), constant_values=piece.mean())
        device = next(self.detector.parameters()).device
        with torch.inference_mode():
            found = self.detector.detect(torch.from_numpy(piece)[None, None].to(device))[0]
        return _placed(found, found.boxes, width, height)


def as_grey(picture: NDArray[Any]) -> Picture:
    """A grey picture as float32 in 0-1; refuses another shape, and floats outside that range."""
    if picture.ndim != 2 or not picture.size:
        raise ValueError(f"picture: expected grey [H, W], got shape {picture.shape}")
    if picture.dtype == np.uint8:
        return np.asarray(picture, np.float32) / np.float32(255)
    pixels = np.asarray(picture, np.float32)
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise ValueError("picture: expected uint8, or floats from 0 to 1")
    return pixels


def plan(width: int, height: int, size: int, overlap: int) -> list[_Tile]:
    """Evenly spread tiles of at most ``size`` that share at least ``overlap`` pixels."""
    columns, rows = _starts(width, size, overlap), _starts(height, size, overlap)
    return [_Tile(x, y, min(x + size, width), min(y + size, height)) for y in rows for x in columns]


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    n = -(-(length - overlap) // (size - overlap))
    return [round(i * (length - size) / (n - 1)) for i in range(n)]


def _whole(found: Predictions, tile: _Tile, width: int, height: int) -> Predictions:
    """A tile's boxes in the picture's pixels, the score halved of those that an inner edge cut off.

    Where the neighbouring tile sees the object whole, its box wins; where none does, the piece remains.
    """
    boxes = found.boxes + np.array([tile.left, tile.top, tile.left, tile.top], np.float64)
    cut = (tile.left > 0) & (boxes[:, 0] < tile.left + _SEAM)
    cut |= (tile.top > 0) & (boxes[:, 1] < tile.top + _SEAM)
    cut |= (tile.right < width) & (boxes[:, 2] > tile.right - _SEAM)
    cut |= (tile.bottom < height) & (boxes[:, 3] > tile.bottom - _SEAM)
    return Predictions(boxes, found.categories, np.where(cut, 0.5, 1.0) * found.scores)


def _joined(found: Sequence[Predictions], overlap: float) -> Predictions:
    """The tiles' boxes as one answer: duplicates are dropped, and pieces that lie within a better box."""
    every = _concatenated(found)
    every = every.take(np.argsort(-every.scores, kind="stable"))
    kept = every.take(geometry.nms(every.boxes, every.scores, overlap, every.categories))
    within = geometry.coverage(kept.boxes, kept.boxes) > 0.8  # [inner, outer]
    within &= kept.categories[:, None] == kept.categories[None, :]
    larger = geometry.area(kept.boxes)[None, :] > geometry.area(kept.boxes)[:, None]
    better = kept.scores[None, :] >= 2 * kept.scores[:, None]
    return kept.take(~(within & larger & better).any(axis=1))


def fuse(views: Sequence[Predictions], overlap: float) -> Predictions:
    """One answer from several views of a picture: groups of overlapping boxes become one.

    The best box of a group gathers those that overlap it by more than ``overlap`` IoU; its corners become the
    mean weighted by score, its score the best one.
    """
    if len(views) == 1:
        return views[0]
    every = _concatenated(views)
    if not len(every):
        return every
    kept = geometry.nms(every.boxes, every.scores, overlap, every.categories)
    near = geometry.iou(every.boxes[kept], every.boxes)  # [K,N]
    near[every.categories[kept][:, None] != every.categories[None, :]] = 0.0
    weight = np.where(near > max(overlap, 0.5), near * every.scores[None, :], 0.0)
    weight[np.arange(len(kept)), kept] += 1e-9  # a box of score 0 still stands for itself
    boxes = weight @ every.boxes / weight.sum(axis=1, keepdims=True)
    return Predictions(boxes, every.categories[kept], every.scores[kept])


def average(views: Sequence[Predictions], overlap: float) -> Predictions:
    """One answer from several views of a picture, each score the mean over the views (0 where unseen).

    A view sees an object where its box of the same category has an IoU of 0.5 with the fused one.
    """
    fused = fuse(views, overlap)
    scores = np.zeros(len(fused))
    for view in views:
        seen = geometry.iou(fused.boxes, view.boxes) >= 0.5  # [K,N]
        seen &= fused.categories[:, None] == view.categories[None, :]
        scores += np.where(seen, view.scores[None, :], 0.0).max(axis=1, initial=0.0)
    return Predictions(fused.boxes, fused.categories, scores / len(views))


def _concatenated(parts: Sequence[Predictions]) -> Predictions:
    return Predictions(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.categories for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _mirrored(found: Predictions, width: int) -> Predictions:
    x1, y1, x2, y2 = found.boxes.T
    return Predictions(np.stack([width - x2, y1, width - x1, y2], axis=1), found.categories, found.scores)


def _placed(found: Predictions, boxes: Floats, width: float, height: float) -> Predictions:
    """The same answer with ``boxes``, cut at the border ``width, height``; empty ones are dropped."""
    clipped = geometry.clip(boxes, width, height)
    keep = (clipped[:, 2:] > clipped[:, :2]).all(axis=1)
    return Predictions(clipped[keep], found.categories[keep], found.scores[keep])
