"""What may be taken for a deposit: vesicles, mitochondria, lysosomes, fibres, dirt, folds."""

import numpy as np

from emclean.imaging.simulate.canvas import Plane, Shape, Size, blend, paint, profile, soft_step, stamp
from emclean.imaging.simulate.membrane import Membrane


def scatter(rng: np.random.Generator, plane: Plane, cells: Plane, difficulty: float) -> None:
    """Fill the cytoplasm with organelles; the more ``difficulty``, the more of them resemble deposits."""
    spots = np.flatnonzero(cells[::4, ::4] > 0.9)
    if not len(spots):
        return
    count = int(rng.poisson(9.0 * len(spots) * 16 / cells.size + 1.0))
    odds = np.array([0.45, 0.25, 0.12 + 0.28 * difficulty])
    for spot in rng.choice(spots, count):
        row, col = np.unravel_index(spot, cells[::4, ::4].shape)
        kind = rng.choice(3, p=odds / odds.sum())
        (_vesicle, _mitochondrion, _lysosome)[kind](rng, plane, float(col * 4 + 2), float(row * 4 + 2))


def _size(plane: Plane) -> Size:
    return plane.shape[0], plane.shape[1]


def _vesicle(rng: np.random.Generator, plane: Plane, x: float, y: float) -> None:
    radius = float(np.exp(rng.uniform(np.log(3.0), np.log(11.0))))
    outline = Shape(x, y, radius, radius * rng.uniform(0.7, 1.0), rng.uniform(0, np.pi), 0.12, 1.0)
    piece = stamp(rng, _size(plane), outline)
    if piece is None:
        return
    rim = 4 * piece.mask * (1 - piece.mask)  # 1 on the outline
    paint(plane, piece, rng.uniform(0.55, 0.9), 0.9)
    blend(plane[piece.rows, piece.cols], 0.8 * rim, 0.2)


def _mitochondrion(rng: np.random.Generator, plane: Plane, x: float, y: float) -> None:
    a, b, turn = rng.uniform(10, 24), rng.uniform(6, 10), rng.uniform(0, np.pi)
    piece = stamp(rng, _size(plane), Shape(x, y, a, b, turn, 0.1, 1.2))
    if piece is None:
        return
    rows, cols = np.ogrid[piece.rows, piece.cols]
    along = (cols - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    across = (rows - y) * np.cos(turn) - (cols - x) * np.sin(turn)
    cristae = np.sin(2 * np.pi * (along / rng.uniform(4.0, 6.0) + 0.15 * np.sin(across / 2)))
    paint(plane, piece, (rng.uniform(0.3, 0.42) + 0.07 * cristae).astype(np.float32))
    blend(plane[piece.rows, piece.cols], 3.2 * piece.mask * (1 - piece.mask), 0.18)


def _lysosome(rng: np.random.Generator, plane: Plane, x: float, y: float) -> None:
    radius = rng.uniform(5, 15)
    outline = Shape(
        x, y, radius, radius * rng.uniform(0.7, 1.0), rng.uniform(0, np.pi), 0.1, rng.uniform(0.8, 2.0)
    )
    piece = stamp(rng, _size(plane), outline)
    if piece is not None:
        grain = 0.05 * rng.standard_normal(piece.mask.shape, dtype=np.float32)
        paint(plane, piece, rng.uniform(0.14, 0.3) + grain, rng.uniform(0.7, 1.0))


def smudges(rng: np.random.Generator, plane: Plane, line: Membrane, difficulty: float) -> None:
    """Slightly denser clouds in the membrane that are no deposits: too pale, without an edge."""
    places = line.visible(_size(plane))
    for place in rng.choice(places, rng.poisson(2.0 * difficulty)) if len(places) else ():
        x, y, turn = line.locate(float(place), rng.uniform(-0.6, 0.6) * line.half[place])
        a = rng.uniform(8, 22)
        piece = stamp(rng, _size(plane), Shape(x, y, a, a * rng.uniform(0.4, 0.7), turn, 0.2, 6.0))
        if piece is not None:
            paint(plane, piece, 0.32, rng.uniform(0.12, 0.32))


def fibres(rng: np.random.Generator, plane: Plane) -> None:
    """A bundle of collagen-like fibres, cut across: small dark dots in a loose group."""
    size = _size(plane)
    x, y = rng.uniform(0, size[1]), rng.uniform(0, size[0])
    spots = rng.normal((x, y), rng.uniform(10, 26), (int(rng.integers(12, 40)), 2))
    for dot in spots:
        length = rng.choice([1.8, 5.0], p=[0.75, 0.25])
        piece = stamp(rng, size, Shape(dot[0], dot[1], length, 1.8, rng.uniform(0, np.pi), 0.0, 1.0))
        if piece is not None:
            paint(plane, piece, 0.35, 0.8)


def dirt(rng: np.random.Generator, plane: Plane) -> None:
    """Black specks of stain on the section."""
    size = _size(plane)
    for _ in range(int(rng.integers(1, 5))):
        radius = float(np.exp(rng.uniform(np.log(1.0), np.log(5.0))))
        spot = Shape(rng.uniform(0, size[1]), rng.uniform(0, size[0]), radius, radius, 0.0, 0.4, 0.5)
        piece = stamp(rng, size, spot)
        if piece is not None:
            paint(plane, piece, rng.uniform(0.0, 0.1))


def wrinkle(rng: np.random.Generator, plane: Plane) -> None:
    """A fold of the section: a long dark streak with a light side."""
    height, width = plane.shape
    turn = rng.uniform(0, np.pi)
    y, x = np.ogrid[0:height, 0:width]
    along = (x - width / 2) * np.cos(turn) + (y - height / 2) * np.sin(turn)
    bend = 6 * profile(rng, 2 * (height + width), 60.0)
    index = np.clip(along + height + width, 0, 2 * (height + width) - 1).astype(np.int64)
    off = (y - height / 2) * np.cos(turn) - (x - width / 2) * np.sin(turn) - rng.uniform(-0.4, 0.4) * height
    gap = off - bend[index]
    wide = rng.uniform(2.0, 6.0)
    blend(plane, 0.55 * soft_step(wide - np.abs(gap), 1.5), 0.15)
    blend(plane, 0.35 * soft_step(wide / 2 - np.abs(gap - 1.5 * wide), 1.5), 0.95)
