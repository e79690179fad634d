"""Pictures for training and prediction: read from the map, brought to size, varied a batch at a time.

Pictures stay uint8 until the batch is made. Turns, zooms and shifts of a whole batch are one resampling;
everything random is drawn from torch's generator, so a batch can be made again.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from emclean.errors import DataError
from emclean.models.classifiers.spec import ClassRecipe, Ints

_KEPT = 2**30  # bytes; what is larger at its final size is read and resized for each batch
_CHUNK = 512


class Pictures:
    """Chosen rows of a picture file, as uint8 ``[b,C,size,size]`` by position among ``rows``."""

    def __init__(self, source: NDArray[Any], rows: Ints, size: int, channels: int) -> None:
        _check(source, rows, channels)
        self.source, self.rows, self.size = source, rows, size
        self.kept: Tensor | None = None
        if len(rows) * channels * size * size <= _KEPT:
            parts = [self._read(rows[i : i + _CHUNK]) for i in range(0, len(rows), _CHUNK)]
            self.kept = (
                torch.cat(parts) if parts else torch.zeros((0, channels, size, size), dtype=torch.uint8)
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __call__(self, positions: Tensor) -> Tensor:
        """The pictures at these positions, uint8 ``[b,C,size,size]``."""
        if self.kept is not None:
            return self.kept[positions]
        return self._read(self.rows[positions.numpy()])

    def _read(self, rows: Ints) -> Tensor:
        pixels = np.asarray(self.source[rows])
        return fit_size(torch.from_numpy(pixels[..., None] if pixels.ndim == 3 else pixels), self.size)


def open_pictures(path: str) -> NDArray[Any]:
    """The picture file, mapped into memory."""
    try:
        pictures: NDArray[Any] = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        advice = "Give a uint8 .npy file [N,H,W] or [N,H,W,3]."
        raise DataError(f"not usable as a picture file ({error})", path, advice) from error
    return pictures


def _check(source: NDArray[Any], rows: Ints, channels: int) -> None:
    shape = source.shape
    advice = "Give uint8 pictures [N,H,W] (grey) or [N,H,W,3], and the classifier as many channels."
    if source.dtype != np.uint8 or len(shape) not in (3, 4) or (*shape, 1)[3] != channels:
        raise DataError(f"{source.dtype} {shape} is no set for {channels} channel(s)", "pictures", advice)
    if len(rows) and not 0 <= rows.min() <= rows.max() < shape[0]:
        raise DataError(f"rows {rows.min()} to {rows.max()} of {shape[0]} pictures", "rows", "")


def fit_size(pixels: Tensor, size: int) -> Tensor:
    """uint8 ``[b,H,W,C]`` to uint8 ``[b,C,size,size]``: bilinear, smoothed where it shrinks."""
    images = pixels.permute(0, 3, 1, 2)
    if images.shape[-2:] == (size, size):
        return images.contiguous()
    shrinks = min(images.shape[-2:]) > size
    scaled = functional.interpolate(images.float(), (size, size), mode="bilinear", antialias=shrinks)
    return scaled.round_().clamp_(0, 255).to(torch.uint8)


def as_floats(images: Tensor) -> Tensor:
    """uint8 to float32 in 0-1."""
    return images.float().div_(255)


def vary(images: Tensor, recipe: ClassRecipe) -> Tensor:
    """A batch in 0-1 ``[B,C,S,S]``, each picture turned, zoomed, shifted (and mirrored) at random.

    What comes into view from beyond a picture continues its border (0 where the
    background is masked).
    """
    if _still(recipe):
        return images
    grid = functional.affine_grid(_moves(len(images), recipe, images.device), list(images.shape), False)
    return functional.grid_sample(images, grid, "bilinear", "border", align_corners=False)


def _still(recipe: ClassRecipe) -> bool:
    fixed = recipe.rotate == 0 and recipe.zoom == (1.0, 1.0) and recipe.shift == 0
    return fixed and not recipe.half_turns and not recipe.flip


def _moves(n: int, recipe: ClassRecipe, device: torch.device) -> Tensor:
    """Random maps ``[n,2,3]`` from places in the result to places in the picture, both in -1 to 1."""
    draws = torch.rand((6, n), device=device)
    low, high = math.log(recipe.zoom[0]), math.log(recipe.zoom[1])
    angle = (2 * draws[0] - 1) * math.radians(recipe.rotate)
    if recipe.half_turns:
        angle = angle + math.pi * (draws[1] < 0.5)
    scale = torch.exp(-(low + (high - low) * draws[2]))
    side = 1 - 2.0 * (draws[3] < 0.5) if recipe.flip else torch.ones_like(scale)
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    shift = (2 * draws[4:] - 1) * 2 * recipe.shift
    first = torch.stack([side * cos, -sin, shift[0]], dim=1)
    second = torch.stack([side * sin, cos, shift[1]], dim=1)
    return torch.stack([first, second], dim=1)
