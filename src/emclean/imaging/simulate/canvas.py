"""What simulated pictures are painted with: smooth noise, soft-edged stamps, and the microscope's flaws.

Pictures are float32 planes ``[H, W]`` with grey from 0 (black, electron dense) to 1 (white, empty resin).
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.types import Floats, Labels

Plane = NDArray[np.floating[Any]]
Size = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Field:
    """A simulated picture: ``pixels [H,W]`` uint8 and the exact ``labels`` (one category, index 0)."""

    pixels: NDArray[np.uint8]
    labels: Labels


@dataclass(frozen=True, eq=False)
class Stamp:
    """A soft-edged shape at ``rows``, ``cols`` of the canvas.

    ``mask [h,w]`` goes from 0 to 1 and is 0.5 on the outline; ``depth [h,w]`` is 0 there and 1 in the middle.
    """

    rows: slice
    cols: slice
    mask: Plane
    depth: Plane


@dataclass(frozen=True)
class Shape:
    """A blob: centre and half axes in px, turn in radians.

    ``rough`` is the outline's unevenness, ``soft`` the edge's half width in px, ``power`` the exponent of the
    superellipse (2 round, 4 and more like a rod or cube), ``corners`` those of a polygon in its place.
    """

    x: float
    y: float
    a: float
    b: float
    angle: float = 0.0
    rough: float = 0.0
    soft: float = 1.0
    power: float = 2.0
    corners: int = 0


@lru_cache(maxsize=256)
def _spread(length: int, scale: float) -> Plane:
    """Gaussian weights ``[length, K]`` that carry K knots, one each ``scale`` px, to every pixel."""
    knots = np.arange(-2, length / scale + 3, dtype=np.float32) * scale
    gap = np.arange(length, dtype=np.float32)[:, None] - knots[None, :]
    weights = np.exp(-0.5 * (gap / scale) ** 2)
    return np.asarray(weights / np.sqrt((weights**2).sum(axis=1, keepdims=True)), dtype=np.float32)


def smooth(rng: np.random.Generator, size: Size, scale: float) -> Plane:
    """Gaussian noise ``[H, W]`` of mean 0 and variance 1 whose grains measure about ``scale`` px."""
    if scale < 0.8:
        return rng.standard_normal(size, dtype=np.float32)
    rows, cols = _spread(size[0], scale), _spread(size[1], scale)
    knots = rng.standard_normal((rows.shape[1], cols.shape[1]), dtype=np.float32)
    return np.asarray(rows @ knots @ cols.T)


def profile(rng: np.random.Generator, length: int, scale: float) -> Plane:
    """Smooth noise ``[length]`` along a line, mean 0 and variance 1."""
    weights = _spread(length, scale)
    return np.asarray(weights @ rng.standard_normal(weights.shape[1], dtype=np.float32))


def soft_step(distance: Plane, width: float) -> Plane:
    """From 0 to 1 where ``distance`` (px) goes from negative to positive, over about ``width`` px."""
    return np.clip(0.5 + distance / (2.0 * max(width, 0.1)), 0.0, 1.0)


def stamp(rng: np.random.Generator, size: Size, shape: Shape) -> Stamp | None:
    """Cut out a blob, or None where nothing of it lies in the picture."""
    reach = 1.65 * max(shape.a, shape.b) + 2 * shape.soft + 2
    top, left = max(int(shape.y - reach), 0), max(int(shape.x - reach), 0)
    bottom, right = min(int(shape.y + reach) + 1, size[0]), min(int(shape.x + reach) + 1, size[1])
    if top >= bottom or left >= right:
        return None
    y, x = np.ogrid[top:bottom, left:right]
    dx, dy = (x + 0.5 - shape.x).astype(np.float32), (y + 0.5 - shape.y).astype(np.float32)
    cos, sin = np.float32(np.cos(shape.angle)), np.float32(np.sin(shape.angle))
    along, across = (dx * cos + dy * sin) / shape.a, (dy * cos - dx * sin) / shape.b
    gap = _radius(rng, np.arctan2(across, along), shape) - np.hypot(along, across)
    mask = soft_step(gap * min(shape.a, shape.b), shape.soft)
    return Stamp(slice(top, bottom), slice(left, right), mask, np.clip(gap, 0.0, 1.0))


def _radius(rng: np.random.Generator, turn: Plane, shape: Shape) -> Plane:
    """How far the outline lies from the centre in each direction, in units of the half axes."""
    if shape.corners:
        return _facets(rng, turn, shape.corners)
    radius = np.ones_like(turn)
    if shape.power != 2.0:
        radius = (np.abs(np.cos(turn)) ** shape.power + np.abs(np.sin(turn)) ** shape.power) ** (
            -1 / shape.power
        )
    for wave in range(2, 7) if shape.rough else ():
        phase, strength = rng.uniform(0.0, 2 * np.pi), shape.rough * rng.standard_normal() / wave
        radius += np.float32(strength) * np.cos(wave * turn + np.float32(phase))
    return np.clip(radius, 0.35, 1.6)


def _facets(rng: np.random.Generator, turn: Plane, corners: int) -> Plane:
    """A polygon's outline: the nearest of its sides, each at its own small distance."""
    sides = np.arange(corners) * (2 * np.pi / corners) + rng.uniform(-0.12, 0.12, corners)
    reach = np.cos(np.pi / corners) * rng.uniform(0.92, 1.08, corners)
    facing = np.cos(turn[..., None] - sides.astype(np.float32))  # [h,w,corners]
    ray = np.where(facing > 0.05, reach.astype(np.float32) / np.maximum(facing, 0.05), 9.0)
    return np.asarray(np.minimum(ray.min(axis=-1), 1.25))


def box_of(piece: Stamp) -> Floats | None:
    """The box ``[4]`` of the pixels that are at least half covered, or None when there are none."""
    covered = piece.mask >= 0.5
    rows, cols = np.flatnonzero(covered.any(axis=1)), np.flatnonzero(covered.any(axis=0))
    if not len(rows):
        return None
    x, y = piece.cols.start, piece.rows.start
    return np.array([x + cols[0], y + rows[0], x + cols[-1] + 1, y + rows[-1] + 1], dtype=np.float64)


def blend(plane: Plane, mask: Plane, value: Plane | float) -> None:
    """Paint ``value`` over ``plane`` where ``mask`` is 1, in place."""
    plane += mask * (value - plane)


def paint(plane: Plane, piece: Stamp, value: Plane | float, strength: float = 1.0) -> None:
    """Paint one stamp onto the canvas; ``value`` is a grey level, or a plane as large as the stamp."""
    blend(plane[piece.rows, piece.cols], piece.mask * np.float32(strength), value)


def expose(rng: np.random.Generator, plane: Plane) -> NDArray[np.uint8]:
    """Photograph the canvas: blur, drifting grey level, contrast, shot and camera noise, 8 bits.

    Shot noise is Poisson's in its normal approximation: its variance is level / dose.
    """
    size = (plane.shape[0], plane.shape[1])
    image = _blur(plane, float(rng.uniform(0.5, 1.1)))
    image = image * (1 + np.float32(rng.uniform(0.0, 0.08)) * smooth(rng, size, 0.5 * max(size)))
    low, high = rng.uniform(0.0, 0.16), rng.uniform(0.78, 1.0)
    image = np.clip(low + (high - low) * image, 0.0, 1.2) ** np.float32(rng.uniform(0.8, 1.3))
    dose = np.exp(rng.uniform(np.log(110.0), np.log(1500.0)))
    grain = 0.7 * smooth(rng, size, 0.0) + 0.7 * smooth(rng, size, 1.1)
    image = image + np.sqrt(np.maximum(image, 0.02) / np.float32(dose)) * grain
    return np.asarray(np.clip(image * 255.0 + 0.5, 0, 255), dtype=np.uint8)


def _blur(plane: Plane, sigma: float) -> Plane:
    """Gaussian blur, border repeated; written out as two products because that is fastest at this size."""
    taps = np.exp(-0.5 * (np.arange(-3, 4) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    h, w = plane.shape
    padded = np.pad(plane, 3, mode="edge")
    tall = sum(tap * padded[i : i + h] for i, tap in enumerate(taps))
    return np.asarray(sum(tap * tall[:, i : i + w] for i, tap in enumerate(taps)))
