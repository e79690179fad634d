"""Random training crops: pictures are varied and their targets moved along exactly.

Everything is drawn from the generator that is passed in, so a crop can be made again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch.nn import functional

from emclean import boxes as geometry
from emclean.models.spec import Augmentation
from emclean.types import Floats, Target

Picture = NDArray[np.float32]

_VISIBLE = 0.3  # an object of which less than this share lies within the crop is neither shown nor denied
_SMALLEST = 2.0  # pixels; a side smaller than this after scaling cannot be seen


@dataclass(frozen=True)
class Window:
    """A square of ``side`` source pixels at ``x, y``, perhaps over the edges, shown at ``size`` pixels."""

    x: int
    y: int
    side: int
    size: int

    @property
    def scale(self) -> float:
        """Output pixels per source pixel."""
        return self.size / self.side


@dataclass(frozen=True)
class Cropper:
    """Makes varied crops of ``size`` pixels around the working ``scales``."""

    size: int
    scales: tuple[float, ...]
    recipe: Augmentation

    def __call__(
        self, picture: NDArray[Any], target: Target, rng: np.random.Generator
    ) -> tuple[Picture, Target]:
        """One crop ``[size, size]`` in 0-1 of a grey picture ``[H, W]`` (uint8 or 0-1), and its target."""
        window = self.window(picture.shape, target, rng)
        pixels, moved = cut(picture, window), follow(target, window)
        if self.recipe.flips and rng.random() < 0.5:
            pixels, moved = pixels[:, ::-1], flip(moved, self.size)
        if self.recipe.turns:
            times = int(rng.integers(4))
            pixels, moved = np.rot90(pixels, times), turn(moved, self.size, times)
        return vary(np.ascontiguousarray(pixels), self.recipe, rng), moved

    def window(self, shape: tuple[int, ...], target: Target, rng: np.random.Generator) -> Window:
        """A random window, placed around a random object in a share ``focus`` of the draws."""
        low, high = np.log(self.recipe.jitter)
        magnification = rng.choice(self.scales) * np.exp(rng.uniform(low, high))
        side = max(2, round(self.size / magnification))
        focused = len(target) > 0 and rng.random() < self.recipe.focus
        box = target.boxes[rng.integers(len(target))] if focused else None
        x = _start(shape[1], side, None if box is None else (box[0] + box[2]) / 2, rng)
        y = _start(shape[0], side, None if box is None else (box[1] + box[3]) / 2, rng)
        return Window(x, y, side, self.size)


def _start(length: int, side: int, centre: float | None, rng: np.random.Generator) -> int:
    """Where a window of ``side`` starts on an axis of ``length``: shows all of it, or nothing beyond it."""
    low, high = min(0, length - side), max(0, length - side)
    if centre is not None:
        low, high = max(low, int(np.ceil(centre)) - side), min(high, int(centre))
    return int(rng.integers(low, max(low, high) + 1))


def cut(picture: NDArray[Any], window: Window) -> Picture:
    """The window's pixels ``[size, size]`` as floats in 0-1; beyond the picture stands a mean grey level."""
    height, width = picture.shape
    top, bottom = max(window.y, 0), min(window.y + window.side, height)
    left, right = max(window.x, 0), min(window.x + window.side, width)
    inner = np.asarray(picture[top:bottom, left:right])
    inner = inner.astype(np.float32) / np.float32(255 if inner.dtype == np.uint8 else 1)
    pixels = np.full((window.side, window.side), inner.mean() if inner.size else 0.5, np.float32)
    pixels[top - window.y : bottom - window.y, left - window.x : right - window.x] = inner
    return resize(pixels, window.size, window.size)


def resize(pixels: Picture, height: int, width: int) -> Picture:
    """Bilinear resampling to ``[height, width]``, smoothed when it shrinks; pixel areas keep their place."""
    if pixels.shape == (height, width):
        return pixels
    source = torch.from_numpy(pixels)[None, None]
    shrinks = height < pixels.shape[0]
    scaled = functional.interpolate(source, (height, width), mode="bilinear", antialias=shrinks)
    result: Picture = scaled[0, 0].numpy()
    return result


def follow(target: Target, window: Window) -> Target:
    """The target as seen in the window: boxes cut at its border; what is hardly in view is ignored."""
    whole = (target.boxes - np.tile([window.x, window.y], 2)) * window.scale
    seen = geometry.clip(whole, window.size, window.size)
    sides = seen[:, 2:] - seen[:, :2]
    inside = (sides > 0).all(axis=1)
    share = geometry.area(seen) / np.maximum(geometry.area(whole), 1e-12)
    keep = inside & (share >= _VISIBLE) & (sides >= _SMALLEST).all(axis=1)
    unknown = geometry.clip(
        (target.ignore - np.tile([window.x, window.y], 2)) * window.scale, window.size, window.size
    )
    ignore = np.concatenate([unknown, seen[inside & ~keep]])
    of = np.concatenate([target.ignore_categories, target.categories[inside & ~keep]])
    there = (ignore[:, 2:] > ignore[:, :2]).all(axis=1)
    return Target(
        seen[keep],
        target.categories[keep],
        target.weights[keep],
        target.regress[keep],
        ignore[there],
        of[there],
    )


def _mapped(target: Target, move: Callable[[Floats], Floats]) -> Target:
    return replace(target, boxes=move(target.boxes), ignore=move(target.ignore))


def flip(target: Target, size: int) -> Target:
    """The target of a crop mirrored left to right."""
    return _mapped(target, lambda b: np.stack([size - b[:, 2], b[:, 1], size - b[:, 0], b[:, 3]], axis=1))


def turn(target: Target, size: int, times: int) -> Target:
    """The target of a crop turned by ``times`` quarter turns against the clock, as ``numpy.rot90`` does."""
    for _ in range(times % 4):
        target = _mapped(
            target, lambda b: np.stack([b[:, 1], size - b[:, 2], b[:, 3], size - b[:, 0]], axis=1)
        )
    return target


def vary(pixels: Picture, recipe: Augmentation, rng: np.random.Generator) -> Picture:
    """Change grey level (gain, offset, gamma, inversion), blur and noise; the result stays in 0-1."""
    if rng.random() < recipe.invert:
        pixels = 1 - pixels
    if recipe.blur and rng.random() < 0.25:
        pixels = gaussian_filter(pixels, rng.uniform(0, recipe.blur))
    if recipe.gamma and rng.random() < 0.5:
        pixels = pixels ** np.float32(np.exp(rng.uniform(-recipe.gamma, recipe.gamma)))
    if recipe.gain or recipe.offset:
        gain = np.exp(rng.uniform(-recipe.gain, recipe.gain))
        pixels = (pixels - 0.5) * np.float32(gain) + np.float32(
            0.5 + rng.uniform(-recipe.offset, recipe.offset)
        )
    if recipe.noise and rng.random() < 0.5:
        strength = np.float32(rng.uniform(0, recipe.noise))
        pixels = pixels + rng.standard_normal(pixels.shape, dtype=np.float32) * strength
    varied: Picture = np.clip(pixels, 0, 1).astype(np.float32, copy=False)
    return varied
