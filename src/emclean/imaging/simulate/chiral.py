"""Chiral particles as a scanning electron microscope shows them: facetted bodies whose ridge tells the hand.

A body is drawn right-handed in its own frame (x across, y along the long axis, downwards, in px); the
left-handed one is its mirror image. All else (light, grain, scan lines, dirt) is drawn without looking at the
hand, from distributions that are their own mirror images, so that nothing but the body tells the hand. The
look follows the published description of such particles (Groschner et al. 2022, npj Comput. Mater. 8, 149):
a bright rim, two to four grey facets, one tilted ridge across the middle with a Y at both flanks, and a
slightly sheared outline; in other poses none of this shows.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from emclean.imaging.simulate.canvas import Plane, Size, smooth, soft_step
from emclean.imaging.simulate.sem import NOMINAL, Microscope, Population, dirt, expose
from emclean.types import Floats

Hand = Literal["left", "right"]
Pose = Literal["front", "plain", "side", "end"]

HANDS: tuple[Hand, Hand] = ("left", "right")
HIDDEN: tuple[Pose, ...] = ("plain", "side", "end")
"""The poses that show no hand: one facet, a straight ridge along the body, the body seen from its end."""


@dataclass(frozen=True, eq=False)
class Body:
    """One right-handed particle in its own frame.

    Inside are the points with ``sides [K,3] @ (x, y, 1) > 0`` (px to each side of the outline); of the planes
    ``facets [F,3] @ (x, y, 1)`` the lowest is the surface's height. ``greys [F]``; ``bites [B,3]`` are discs
    (x, y, radius) broken out of it; ``half_length``, ``half_width`` in px.
    """

    sides: Floats
    facets: Floats
    greys: Floats
    bites: Floats
    pose: Pose
    half_length: float
    half_width: float


@dataclass(frozen=True)
class Place:
    """Where a body lies in a picture: centre in px, turn in radians, magnification, and its hand."""

    x: float
    y: float
    turn: float = 0.0
    zoom: float = 1.0
    hand: Hand = "right"


def body(rng: np.random.Generator, population: Population = "ideal", pose: Pose = "front") -> Body:
    """Draw one right-handed body; the practical ones vary in form, and may be bitten."""
    ideal = population == "ideal"
    half_length = float(rng.uniform(48, 57) if ideal else rng.uniform(45, 60))
    half_width = float(rng.uniform(29, 33) if ideal else rng.uniform(26, 36))
    if pose == "end":
        half_length = half_width * float(rng.uniform(0.95, 1.15))
    tilt = float(np.radians(rng.uniform(20, 32) if ideal else rng.uniform(9, 36)))
    lean = tilt * float(rng.uniform(0.15, 0.4) if ideal else rng.uniform(-0.05, 0.3))
    lean = lean if pose == "front" else 0.0
    sides = _sheared(_outline(rng, half_length, half_width, pose), lean)
    facets = _facets(rng, half_length, half_width, pose, tilt)
    greys = rng.uniform(0.36, 0.5) + rng.normal(0.0, 0.05 if ideal else 0.06, len(facets))
    bites = _bites(rng, half_length, half_width, 0.0 if ideal else 0.45)
    return Body(sides, facets, greys, bites, pose, half_length, half_width)


def _outline(rng: np.random.Generator, a: float, b: float, pose: Pose) -> Floats:
    """The sides of the outline ``[K,3]``: flanks with a slight bulge, shoulders, clipped tips."""
    if pose == "end":
        turns = np.arange(6) * (np.pi / 3) + rng.uniform(0, np.pi / 3) + rng.uniform(-0.12, 0.12, 6)
        reach = b * rng.uniform(0.9, 1.05, 6)
        return np.stack([-np.cos(turns), -np.sin(turns) * b / a, reach], axis=1)
    corners = [
        corner
        for left, up in ((1, -1), (1, 1), (-1, 1), (-1, -1))
        for corner in _corners(rng, a, b, left, up)
    ]
    return _sides_of(np.array(corners))


def _corners(rng: np.random.Generator, a: float, b: float, x: int, y: int) -> list[tuple[float, float]]:
    """The corners of one quarter of the outline, in the order in which they follow round the body."""
    flank = (x * b * rng.uniform(0.97, 1.03), y * a * rng.uniform(0.02, 0.12))
    shoulder = (x * b * rng.uniform(0.86, 0.97), y * a * rng.uniform(0.42, 0.62))
    tip = (x * b * rng.uniform(0.2, 0.42), y * a * rng.uniform(0.96, 1.03))
    quarter = [flank, shoulder, tip]
    return quarter if x == y else quarter[::-1]


def _sides_of(corners: Floats) -> Floats:
    """Half planes ``[K,3]`` of a polygon ``[K,2]``, positive inside, in px."""
    along = np.roll(corners, -1, axis=0) - corners
    inward = np.stack([-along[:, 1], along[:, 0]], axis=1) / np.hypot(along[:, 0], along[:, 1])[:, None]
    inward *= np.sign((inward * -corners).sum(axis=1))[:, None]  # towards the origin, which lies inside
    return np.concatenate([inward, -(inward * corners).sum(axis=1, keepdims=True)], axis=1)


def _sheared(planes: Floats, lean: float) -> Floats:
    """Half planes after x has become x - lean * y: the body leans as its ridge does."""
    moved = planes.copy()
    moved[:, 1] += lean * planes[:, 0]
    return np.asarray(moved / np.hypot(moved[:, 0], moved[:, 1])[:, None])


def _facets(rng: np.random.Generator, a: float, b: float, pose: Pose, tilt: float) -> Floats:
    """The planes of the surface ``[F,3]``: a hip roof whose ridge runs across the body, tilted."""
    if pose == "plain":
        return np.array([[0.0, 0.0, 0.0], *_flanks(rng, b * 0.85), *_ends(rng, a * 0.8)])
    if pose == "side":
        off, lean = rng.uniform(-0.25, 0.25) * b, rng.uniform(-0.05, 0.05)
        ridge = [[1.0, lean, -off], [-1.0, -lean, off]]
        return np.array([*ridge, *_ends(rng, a * rng.uniform(0.35, 0.6))])
    if pose == "end":
        turns = np.arange(4) * (np.pi / 2) + rng.uniform(0, np.pi / 2) + rng.uniform(-0.3, 0.3, 4)
        return np.stack([np.cos(turns), np.sin(turns), rng.uniform(-2, 2, 4)], axis=1)
    off = rng.uniform(-0.08, 0.08) * a
    across = np.array([np.sin(tilt), np.cos(tilt), off])  # px below the ridge, which rises to the right
    planes = [across, -across, *_flanks(rng, b * rng.uniform(0.3, 0.62))]
    return np.array(planes + (_ends(rng, a * rng.uniform(0.72, 0.9)) if rng.random() < 0.5 else []))


def _flanks(rng: np.random.Generator, reach: float) -> list[Any]:
    """The two small facets at the flanks; each begins where the ridge forks."""
    slopes, starts = rng.uniform(1.0, 1.7, 2), reach * rng.uniform(0.85, 1.15, 2)
    return [[-slopes[0], 0.0, slopes[0] * starts[0]], [slopes[1], 0.0, slopes[1] * starts[1]]]


def _ends(rng: np.random.Generator, reach: float) -> list[Any]:
    """The two small facets at the tips; far below the others until ``reach`` px from the middle."""
    slopes, starts = rng.uniform(2.0, 3.5, 2), reach * rng.uniform(0.92, 1.08, 2)
    return [[0.0, -slopes[0], (slopes[0] - 1) * starts[0]], [0.0, slopes[1], (slopes[1] - 1) * starts[1]]]


def _bites(rng: np.random.Generator, a: float, b: float, chance: float) -> Floats:
    """Discs ``[B,3]`` at the outline where a neighbour touched."""
    n = int(rng.random() < chance) + int(rng.random() < chance / 2)
    turns, radii = rng.uniform(0, 2 * np.pi, n), rng.uniform(6, 16, n)
    reach = 1.0 + radii * rng.uniform(0.1, 0.5, n) / b
    return np.stack([reach * b * np.cos(turns), reach * a * np.sin(turns), radii], axis=1).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class Painted:
    """A body on a canvas: ``inside [H,W]`` px from the outline (negative outside) and its ``grey [H,W]``."""

    inside: Plane
    grey: Plane


def in_picture(planes: Floats, place: Place) -> Floats:
    """Planes ``[K,3]`` of a body's frame as planes of the picture, whose values are in picture px."""
    cos, sin = np.cos(place.turn), np.sin(place.turn)
    hand = 1.0 if place.hand == "right" else -1.0
    x = hand * planes[:, 0] * cos - planes[:, 1] * sin
    y = hand * planes[:, 0] * sin + planes[:, 1] * cos
    return np.stack([x, y, planes[:, 2] * place.zoom - x * place.x - y * place.y], axis=1)


def _lowest(planes: Floats, corner: tuple[int, int], size: Size) -> tuple[Plane, Plane, NDArray[np.uint8]]:
    """Of planes ``[K,3]`` over a part of a picture: the lowest value, the second lowest, and which it is."""
    y = np.arange(corner[0], corner[0] + size[0], dtype=np.float32)[:, None] + np.float32(0.5)
    x = np.arange(corner[1], corner[1] + size[1], dtype=np.float32)[None, :] + np.float32(0.5)
    of = planes.astype(np.float32)
    low = of[0, 0] * x + (of[0, 1] * y + of[0, 2])
    second, which = np.full_like(low, np.inf), np.zeros(low.shape, np.uint8)
    for k in range(1, len(of)):
        value = of[k, 0] * x + (of[k, 1] * y + of[k, 2])
        np.copyto(which, np.uint8(k), where=value < low)
        np.minimum(second, np.maximum(low, value), out=second)
        np.minimum(low, value, out=low)
    return low, second, which


def paint(
    rng: np.random.Generator,
    shape: Body,
    place: Place,
    scope: Microscope,
    size: Size,
    corner: tuple[int, int] = (0, 0),
) -> Painted:
    """Draw a body over the part of a picture that begins at ``corner`` (row, column)."""
    sides = in_picture(shape.sides, place)
    inside, _, side = _lowest(sides, corner, size)
    for bite in shape.bites:
        np.minimum(inside, _beyond(bite, place, corner, size), out=inside)
    facets = in_picture(shape.facets, place)
    low, second, facet = _lowest(facets, corner, size)
    light = np.array([np.cos(scope.light), np.sin(scope.light)])
    facing = -facets[:, :2] @ light / np.maximum(np.hypot(facets[:, 0], facets[:, 1]), 1.0)
    grey = (shape.greys + scope.shading * facing).astype(np.float32)[facet]
    width = np.float32(1.1 * place.zoom)
    grey += np.float32(scope.ridge) / (1 + ((second - low) / (2 * width)) ** 2)
    edge = (scope.rim * (1 - 1.5 * scope.shading * (sides[:, :2] @ light))).astype(np.float32)[side]
    grey += edge * np.exp(-np.maximum(inside, 0) / np.float32(scope.rim_px * place.zoom))
    grey += np.float32(0.02) * smooth(rng, size, max(round(5 * place.zoom), 1))
    return Painted(inside, grey)


def _beyond(bite: Floats, place: Place, corner: tuple[int, int], size: Size) -> Plane:
    """Px from a bitten-out disc ``[3]``, negative within it."""
    spot = in_picture(np.array([[1.0, 0.0, -bite[0]], [0.0, 1.0, -bite[1]]]), place).astype(np.float32)
    y = np.arange(corner[0], corner[0] + size[0], dtype=np.float32)[:, None] + np.float32(0.5)
    x = np.arange(corner[1], corner[1] + size[1], dtype=np.float32)[None, :] + np.float32(0.5)
    u, v = (p[0] * x + (p[1] * y + p[2]) for p in spot)
    return np.asarray(np.hypot(u, v) - np.float32(bite[2] * place.zoom))


def lay(plane: Plane, painted: Painted) -> None:
    """Put a painted body onto the canvas, in place; the substrate beside it lies in its shadow."""
    cover = soft_step(painted.inside, 0.8)
    shadow = np.exp(np.minimum(painted.inside, 0) / np.float32(7.0))
    plane *= 1 - np.float32(0.35) * shadow * (1 - cover)
    plane += cover * (painted.grey - plane)


@dataclass(frozen=True, eq=False)
class Cutout:
    """One particle in its frame: ``pixels [S,S]`` uint8, its hand, and its pose (only ``front`` shows it)."""

    pixels: NDArray[np.uint8]
    hand: Hand
    pose: Pose

    @property
    def usable(self) -> bool:
        """Whether the pose shows the hand."""
        return self.pose == "front"

    def mirrored(self) -> "Cutout":
        """The mirror image: a particle of the other hand, exactly as likely as this one."""
        other: Hand = "left" if self.hand == "right" else "right"
        return replace(self, pixels=np.ascontiguousarray(self.pixels[:, ::-1]), hand=other)


def cutout(
    rng: np.random.Generator,
    hand: Hand = "right",
    *,
    size: int = NOMINAL,
    population: Population = "ideal",
    pose: Pose = "front",
    masked: bool = True,
) -> Cutout:
    """One particle, long axis upright, alone in ``size`` px; ``masked``: all that is not particle is 0.

    From the same state of ``rng`` the two hands are exact mirror images.
    """
    scope = Microscope.draw(rng, population)
    shape = body(rng, population, pose)
    place = _place(rng, size, population)
    plane = np.full((size, size), scope.ground, np.float32)
    plane += np.float32(0.012) * smooth(rng, (size, size), 0.1 * size)
    painted = paint(rng, shape, place, scope, (size, size))
    rest: Plane | float = -np.inf
    if population == "practical":
        rest = _beside(rng, plane, shape, place, scope, painted.inside)
    lay(plane, painted)
    if population == "practical":
        dirt(rng, plane, place.zoom)
    pixels = expose(rng, plane, scope, rng.uniform(0, np.pi))
    if masked:
        pixels[np.maximum(painted.inside, rest) <= _slip(rng, size)] = 0
    made = Cutout(pixels, "right", pose)
    return made if hand == "right" else made.mirrored()


def _place(rng: np.random.Generator, size: int, population: Population) -> Place:
    """Near the middle and nearly upright: as well as segmentation and turning get it."""
    ideal, unit = population == "ideal", size / NOMINAL
    x, y = size / 2 + rng.normal(0, 1.0 if ideal else 2.0, 2) * unit
    turn = rng.normal(0, np.radians(2.0 if ideal else 4.5))
    zoom = rng.uniform(0.97, 1.03) if ideal else np.clip(np.exp(rng.normal(-0.1, 0.13)), 0.65, 1.06)
    return Place(float(x), float(y), float(turn), float(zoom) * unit)


def _slip(rng: np.random.Generator, size: int) -> Plane:
    """Where the outline was cut, in px from the true one: a little outside, unevenly."""
    return np.asarray(rng.uniform(-2.5, 0.5) + 0.7 * smooth(rng, (size, size), 0.09 * size))


def _beside(
    rng: np.random.Generator, plane: Plane, shape: Body, place: Place, scope: Microscope, own: Plane
) -> Plane | float:
    """Lay a neighbour down now and then; return what of it was cut out with the particle (positive there)."""
    if rng.random() > 0.25:
        return -np.inf
    size = (plane.shape[0], plane.shape[1])
    turn = rng.uniform(0, 2 * np.pi)
    reach = (shape.half_width + rng.uniform(24, 34)) * place.zoom
    stretch = shape.half_length / shape.half_width
    spot = Place(
        place.x + reach * float(np.cos(turn)),
        place.y + reach * stretch * float(np.sin(turn)),
        rng.uniform(0, 2 * np.pi),
        place.zoom,
        HANDS[int(rng.random() < 0.5)],
    )
    other = paint(rng, body(rng, "practical"), spot, scope, size)
    lay(plane, other)
    if rng.random() > 0.5:
        return -np.inf
    return np.asarray(np.minimum(other.inside, own + np.float32(9 * place.zoom)))
