"""Pictures of many kinds of particles, to teach a detector what an object is before it sees real labels."""

from dataclasses import dataclass

import numpy as np

from emclean import boxes
from emclean.imaging.simulate.canvas import (
    Field,
    Plane,
    Shape,
    Size,
    Stamp,
    blend,
    box_of,
    expose,
    smooth,
    stamp,
)
from emclean.imaging.simulate.glomerulus import field
from emclean.types import Floats, Labels

MIN_SIDE = 6.0
"""A particle with less than this many px in the picture is not drawn: every drawn one is labelled."""


@dataclass(frozen=True)
class Batch:
    """What one picture's particles share: half size in px and its spread, form, contrast, crowding."""

    radius: float
    spread: float
    aspect: float
    power: float
    corners: int
    rough: float
    dark: float
    crowd: float
    sheer: bool
    hollow: bool

    @staticmethod
    def draw(rng: np.random.Generator) -> "Batch":
        """One kind of particle."""
        form = rng.choice(["round", "rough", "rod", "cube", "facets"], p=[0.4, 0.15, 0.15, 0.08, 0.22])
        return Batch(
            radius=float(np.exp(rng.uniform(np.log(4.5), np.log(48.0)))),
            spread=rng.choice([0.04, 0.12, 0.4], p=[0.35, 0.4, 0.25]),
            aspect=rng.uniform(0.3, 0.6) if form == "rod" else rng.uniform(0.75, 1.0),
            power=rng.uniform(3.5, 7.0) if form in ("rod", "cube") else 2.0,
            corners=int(rng.choice([3, 4, 5, 6, 6, 8])) if form == "facets" else 0,
            rough={"rough": 0.25, "round": 0.05}.get(str(form), 0.0),
            dark=rng.uniform(0.3, 0.95),
            crowd=rng.choice([0.0, 0.5, 0.9]),
            sheer=bool(rng.random() < 0.2),
            hollow=bool(rng.random() < 0.12),
        )


def mixed_field(rng: np.random.Generator, size: Size = (256, 256)) -> Field:
    """For pre-training: particles of every kind, or a capillary wall; one category, index 0 ("object")."""
    return field(rng, size) if rng.random() < 0.3 else particles(rng, size)


def particles(rng: np.random.Generator, size: Size = (256, 256)) -> Field:
    """Dark or bright particles on an even or textured ground: 1 to 60 per 256 px, 8 to 120 px large."""
    plane = _ground(rng, size)
    found = _scatter(rng, plane, Batch.draw(rng))
    if rng.random() < 0.2:  # two kinds on one grid
        found = _scatter(rng, plane, Batch.draw(rng), found)
    if rng.random() < 0.35:
        _scale_bar(rng, plane, found)
    if rng.random() < 0.22:
        plane = 1.05 - plane
    return Field(expose(rng, plane), Labels(found, np.zeros(len(found), np.int64)))


def _ground(rng: np.random.Generator, size: Size) -> Plane:
    """The support film: even, grainy or cloudy, now and then with a pale or darker sheet lying on it."""
    level = rng.uniform(0.5, 0.95)
    grain = rng.choice([0.0, 0.02, 0.06]) * smooth(rng, size, rng.uniform(1.0, 3.0))
    cloud = rng.choice([0.0, 0.02, 0.07]) * smooth(rng, size, rng.uniform(8.0, 50.0))
    plane = (level + grain + cloud).astype(np.float32)
    if rng.random() < 0.25:
        sheet = smooth(rng, size, rng.uniform(30.0, 80.0)) - np.float32(rng.uniform(-0.5, 1.0))
        plane = plane - np.float32(rng.uniform(-0.1, 0.15)) * np.clip(4 * sheet, 0, 1)
    return np.asarray(np.clip(plane, 0.2, 1.0))


def _scatter(rng: np.random.Generator, plane: Plane, batch: Batch, before: Floats | None = None) -> Floats:
    """Paint one kind's particles, none hiding another; return all boxes ``[N,4]``."""
    size = (plane.shape[0], plane.shape[1])
    found = [] if before is None else list(before)
    spots: list[Shape] = []
    for _ in range(_count(rng, size, batch)):
        shape = _next(rng, size, batch, spots)
        piece = stamp(rng, size, shape)
        box = None if piece is None else box_of(piece)
        if piece is None or box is None or not _fits(box, found, batch):
            continue
        _particle(rng, plane, piece, batch)
        spots.append(shape)
        found.append(box)
    return np.array(found).reshape(-1, 4)


def _count(rng: np.random.Generator, size: Size, batch: Batch) -> int:
    """1 to 60 in 256 x 256 px: a random part of what the picture has room for."""
    area = size[0] * size[1]
    room = 0.55 * area / (4 * batch.radius**2 * batch.aspect)
    most = max(min(room, 60.0 * area / 256**2), 1.0)
    return int(np.ceil(most ** rng.uniform(0.25, 1.0)))


def _next(rng: np.random.Generator, size: Size, batch: Batch, spots: list[Shape]) -> Shape:
    """The next particle: anywhere, or beside one that is there."""
    a = float(np.clip(batch.radius * np.exp(rng.normal(0, batch.spread)), 4.0, 60.0))
    x, y = rng.uniform(0, size[1]), rng.uniform(0, size[0])
    if spots and rng.random() < batch.crowd:
        old, turn = spots[int(rng.integers(len(spots)))], rng.uniform(0, 2 * np.pi)
        reach = (old.a + a) * rng.uniform(0.92, 1.08) * (1 + batch.aspect) / 2
        x, y = old.x + reach * np.cos(turn), old.y + reach * np.sin(turn)
    b = max(a * batch.aspect * rng.uniform(0.92, 1.0), 3.2)
    angle = rng.uniform(0, 2 * np.pi)
    return Shape(x, y, a, b, angle, batch.rough, rng.uniform(0.7, 1.6), batch.power, batch.corners)


def _fits(box: Floats, found: list[Floats], batch: Batch) -> bool:
    if (box[2:] - box[:2]).min() < MIN_SIDE:
        return False
    if not found:
        return True
    others = np.array(found)
    shared = np.maximum(boxes.coverage(box[None], others)[0], boxes.coverage(others, box[None])[:, 0])
    return bool(shared.max() < (0.5 if batch.sheer else 0.25))


def _particle(rng: np.random.Generator, plane: Plane, piece: Stamp, batch: Batch) -> None:
    """Take light away where the particle is thick, more at its edge, unevenly where the crystal diffracts."""
    view = plane[piece.rows, piece.cols]
    thick = (1 - (1 - piece.depth) ** 2) ** np.float32(rng.uniform(0.1, 0.5))
    if batch.hollow:
        thick = thick * (0.35 + 0.65 * (piece.depth < 0.45))
    shade = 1 + 0.12 * smooth(rng, (view.shape[0], view.shape[1]), max(2.0, 0.4 * batch.radius)) * (
        not batch.sheer
    )
    dark = np.clip(batch.dark * rng.uniform(0.85, 1.1) * (0.45 if batch.sheer else 1.0), 0.15, 0.97)
    blend(view, np.clip(dark * thick * shade, 0, 1) * piece.mask, 0.02)
    if rng.random() < 0.5:
        blend(view, 1.4 * piece.mask * (1 - piece.mask) * (1 - piece.mask), float(rng.choice([0.15, 1.0])))


def _scale_bar(rng: np.random.Generator, plane: Plane, found: Floats) -> None:
    """A scale bar and letter-like marks in a corner, as in printed pictures; never over a particle."""
    height, width = plane.shape
    tall, wide = int(rng.uniform(0.06, 0.1) * height), int(rng.uniform(0.2, 0.35) * width)
    top, left = rng.choice([3, height - tall - 3]), rng.choice([3, width - wide - 3])
    corner = np.array([[left, top, left + wide, top + tall]], dtype=np.float64)
    if boxes.intersection(corner, found).any():
        return
    ink = float(rng.choice([0.0, 1.0]))
    view = plane[top : top + tall, left : left + wide]
    if rng.random() < 0.5:
        view[:] = 1.0 - ink
    view[-5:-2, 3:-3] = ink
    letters = np.kron(rng.random((5, wide // 8)) < 0.55, np.ones((2, 2), np.bool_))
    room = view[1:11, 3 : 3 + letters.shape[1]]
    room[letters[: room.shape[0], : room.shape[1]]] = ink
