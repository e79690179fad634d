"""A particle in a frame of its own: everything else black, its long axis upright, in a picture of fixed size.

Only turns and one magnification are applied, never a reflection, so that the hand stays what it was.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from emclean.types import Bools, Floats

SIDE = 128
"""Side of a cut-out in px, as in the published work (Groschner et al. 2022)."""

FILL = 0.82
"""The share of the side that a particle's length takes: 105 of 128 px."""


@dataclass(frozen=True)
class Form:
    """What a mask's moments say: centre (row, column), turn of the long axis, and the two axes in px.

    ``turn`` is the angle in radians, from -pi/2 to pi/2, by which the long axis is turned away from
    upright; positive where its top lies to the right. ``length`` and ``width`` are those of the ellipse with
    the same second moments.
    """

    y: float
    x: float
    turn: float
    length: float
    width: float


def form_of(mask: Bools) -> Form:
    """Centre, turn and axes of a mask ``[H,W]`` with at least one pixel."""
    y, x = np.nonzero(mask)
    centre_y, centre_x = float(y.mean()), float(x.mean())
    dy, dx = y - centre_y, x - centre_x
    # a pixel is a square, not a point: 1/12 is its own second moment
    yy, xx, xy = float((dy * dy).mean()) + 1 / 12, float((dx * dx).mean()) + 1 / 12, float((dx * dy).mean())
    turn = 0.5 * np.arctan2(-2 * xy, yy - xx)
    middle, spread = (yy + xx) / 2, float(np.hypot((yy - xx) / 2, xy))
    length, width = (4 * np.sqrt(max(middle + sign * spread, 1 / 12)) for sign in (1, -1))
    return Form(centre_y, centre_x, float(turn), float(length), float(width))


def cutout(
    pixels: NDArray[np.uint8], mask: Bools, side: int = SIDE, fill: float | None = FILL
) -> NDArray[np.uint8]:
    """The particle under ``mask [H,W]``, upright and alone, ``[side,side]``.

    It is magnified so that its length takes the share ``fill`` of the side; None leaves it as large as it is.
    """
    form = form_of(mask)
    cos, sin = np.cos(form.turn), np.sin(form.turn)
    y, x = np.nonzero(mask)
    along = (y - form.y) * cos - (x - form.x) * sin
    across = (y - form.y) * sin + (x - form.x) * cos
    middle = (along.max() + along.min()) / 2, (across.max() + across.min()) / 2
    extent = along.max() - along.min() + 1, across.max() - across.min() + 1
    step = 1.0 if fill is None else max(extent[0], extent[1]) / (fill * side)
    turned = np.array([[cos, sin], [-sin, cos]]) * step  # from the cut-out's px to the picture's
    start = np.array([form.y, form.x]) + np.array([[cos, sin], [-sin, cos]]) @ np.array(middle)
    offset = start - turned @ np.full(2, (side - 1) / 2)
    weight = mask.astype(np.float32)
    layers = [pixels * weight, weight]
    if step > 1.5:  # much smaller than it was: without this its noise would fold into false detail
        layers = [ndimage.gaussian_filter(layer, 0.4 * step) for layer in layers]
    grey, share, inside = (_turned(layer, turned, offset, side) for layer in (*layers, weight))
    out = np.clip(grey / np.maximum(share, 1e-3) + 0.5, 0, 255)
    return np.asarray(np.where(inside >= 0.5, out, 0), dtype=np.uint8)


def _turned(layer: NDArray[np.float32], turn: Floats, offset: Floats, side: int) -> NDArray[np.float32]:
    """A plane seen through a linear map from the cut-out's px ``[side,side]`` to its own, 0 beyond it."""
    return np.asarray(ndimage.affine_transform(layer, turn, offset, (side, side), order=1, mode="constant"))
