"""The course of a basement membrane through a picture, and the coordinates along and across it.

The middle line is ``v = c(u)`` in axes turned by a random angle; the signed distance across it is taken as
``(v - c(u)) / sqrt(1 + c'(u)^2)``, exact to first order for gently curved lines.
"""

from dataclasses import dataclass

import numpy as np

from emclean.imaging.simulate.canvas import Plane, Size, profile, smooth
from emclean.types import Floats, Ints


@dataclass(frozen=True, eq=False)
class Membrane:
    """Per pixel ``[H,W]``: ``place`` along the line and ``across`` it in px (negative: podocytes), and the
    whole number ``index`` of the place.

    Per place ``[L]`` along the line: ``middle`` (px), ``slope``, and ``half`` the half thickness (px).
    ``origin`` and ``angle`` turn line coordinates into pixels.
    """

    place: Plane
    index: Ints
    across: Plane
    middle: Floats
    slope: Floats
    half: Floats
    origin: tuple[float, float]
    angle: float

    @property
    def length(self) -> int:
        """How many places there are along the line, one a px."""
        return len(self.middle)

    def spread(self, values: Plane) -> Plane:
        """Carry values ``[L]`` along the line to every pixel ``[H,W]``."""
        return np.asarray(values[self.index])

    def locate(self, place: float, across: float) -> tuple[float, float, float]:
        """Pixel x, y and the direction of the line (radians) at a place and a distance across."""
        i = int(np.clip(place, 0, self.length - 1))
        norm = np.hypot(1.0, self.slope[i])
        u = place - self.length / 2 - across * self.slope[i] / norm
        v = self.middle[i] + across / norm
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x, y = self.origin[0] + u * cos - v * sin, self.origin[1] + u * sin + v * cos
        return float(x), float(y), float(self.angle + np.arctan(self.slope[i]))

    def visible(self, size: Size, margin: float = 2.0) -> Ints:
        """The places whose middle lies within the picture."""
        spots = np.array([self.locate(i, 0.0)[:2] for i in range(0, self.length, 4)])
        inside = (spots >= margin) & (spots <= np.array([size[1], size[0]]) - margin)
        return np.flatnonzero(inside.all(axis=1)) * 4


def grow(rng: np.random.Generator, size: Size) -> Membrane:
    """A gently curved membrane somewhere through the middle of the picture."""
    height, width = size
    angle = float(rng.uniform(0, 2 * np.pi))
    origin = (width * rng.uniform(0.3, 0.7), height * rng.uniform(0.3, 0.7))
    length = int(2.2 * np.hypot(height, width))
    u = np.arange(length) - length / 2
    middle, slope = _course(rng, u)
    half = rng.uniform(11.0, 24.0) * (1 + 0.14 * profile(rng, length, 45.0))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) + np.float32(0.5)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    along = (x - origin[0]) * cos + (y - origin[1]) * sin
    off = (y - origin[1]) * cos - (x - origin[0]) * sin
    place = np.clip(along + np.float32(length / 2), 0, length - 1)
    index = place.astype(np.int64)
    across = (off - middle[index]) / np.hypot(1.0, slope[index]) + 0.9 * smooth(rng, size, 5.0)
    return Membrane(
        place, index, across.astype(np.float32), middle, slope, np.maximum(half, 7.0), origin, angle
    )


def _course(rng: np.random.Generator, u: Plane) -> tuple[Floats, Floats]:
    middle, slope = np.zeros(len(u)), np.zeros(len(u))
    for wave in rng.uniform(180.0, 700.0, 3):
        tall, phase = wave * rng.uniform(0.01, 0.075), rng.uniform(0, 2 * np.pi)
        middle += tall * np.sin(2 * np.pi * u / wave + phase)
        slope += tall * 2 * np.pi / wave * np.cos(2 * np.pi * u / wave + phase)
    return middle, slope
