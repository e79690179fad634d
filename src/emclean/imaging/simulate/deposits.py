"""Electron dense deposits: dark granular patches of irregular outline in and along the membrane."""

import numpy as np

from emclean import boxes
from emclean.imaging.simulate.canvas import Plane, Shape, Stamp, box_of, paint, stamp
from emclean.imaging.simulate.membrane import Membrane
from emclean.imaging.simulate.tissue import Grain
from emclean.types import Floats

KINDS = ("subepithelial", "intramembranous", "subendothelial")
"""Where a deposit may lie: a hump on the podocyte's side, within, a plaque under the endothelium."""

MIN_SIDE = 5.0
"""A deposit with less than this many px in the picture is not drawn: every drawn one is labelled."""

MAX_OVERLAP = 0.35
"""Largest share of the smaller of two boxes that may lie within the other."""


def count(rng: np.random.Generator) -> int:
    """How many deposits to try: none in one of eight pictures, about five in the others, at most 12."""
    if rng.random() < 0.12:
        return 0
    return int(np.clip(rng.negative_binomial(2.2, 0.31) + 1, 1, 12))


def place(rng: np.random.Generator, plane: Plane, line: Membrane, grain: Grain, difficulty: float) -> Floats:
    """Paint this picture's deposits; return their boxes ``[N,4]`` at half density."""
    size = (plane.shape[0], plane.shape[1])
    spots = line.visible(size, margin=6.0)
    found: list[Floats] = []
    if not len(spots):
        return np.zeros((0, 4))
    likely = rng.dirichlet(np.full(len(KINDS), 0.7))
    dark = rng.uniform(0.07, 0.19)
    at, kind = float(rng.choice(spots)), str(rng.choice(KINDS, p=likely))
    for _ in range(count(rng)):
        shape = _shape(rng, line, at, kind)
        piece = stamp(rng, size, shape)
        box = None if piece is None else box_of(piece)
        if piece is not None and box is not None and _fits(box, found):
            _deposit(rng, plane, piece, grain, (dark, difficulty))
            found.append(box)
        if rng.random() < 0.35:  # the next one touches this one
            at += rng.choice([-1, 1]) * shape.a * rng.uniform(1.5, 2.2)
        else:
            at, kind = float(rng.choice(spots)), str(rng.choice(KINDS, p=likely))
    return np.array(found).reshape(-1, 4)


def _shape(rng: np.random.Generator, line: Membrane, at: float, kind: str) -> Shape:
    half = float(line.half[int(np.clip(at, 0, line.length - 1))])
    a = float(np.exp(rng.normal(np.log(14.5), 0.36)))
    flat = {"subepithelial": rng.uniform(0.6, 1.0), "intramembranous": rng.uniform(0.45, 0.85)}
    b = min(a * flat.get(kind, rng.uniform(0.3, 0.6)), half * 1.1)
    across = {"subepithelial": -half + 0.1 * b, "subendothelial": half - 0.5 * b}
    off = across.get(kind, rng.uniform(-0.4, 0.4) * half)
    x, y, turn = line.locate(at, off + rng.normal(0, 1.5))
    soft = float(rng.uniform(1.0, 2.6))
    return Shape(x, y, max(a, 7.0), max(b, 5.5), turn + rng.normal(0, 0.15), 0.28, soft)


def _fits(box: Floats, found: list[Floats]) -> bool:
    if (box[2:] - box[:2]).min() < MIN_SIDE:
        return False
    if not found:
        return True
    others = np.array(found)
    shared = np.maximum(boxes.coverage(box[None], others), boxes.coverage(others, box[None]).T)
    return bool(shared.max() < MAX_OVERLAP)


def _deposit(
    rng: np.random.Generator, plane: Plane, piece: Stamp, grain: Grain, look: tuple[float, float]
) -> None:
    """Paint one deposit; with ``difficulty`` more of them are faint or mottled."""
    dark, difficulty = look
    faint = rng.random() < 0.25 * difficulty
    strength = rng.uniform(0.45, 0.7) if faint else rng.uniform(0.78, 1.0)
    mottle = rng.uniform(0.02, 0.06)
    fine, floc = grain.fine[piece.rows, piece.cols], grain.floc[piece.rows, piece.cols]
    level = np.clip(dark + rng.normal(0, 0.03) + mottle * fine + 0.5 * mottle * floc, 0.04, 0.5)
    paint(plane, piece, level.astype(np.float32), float(strength))
