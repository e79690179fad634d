"""Seeded injection of crowd errors into trustworthy labels, with a ledger of everything that was planted.

Every rate is a share of the N true objects of an image. The count of a kind is ``floor(rate * N + u)``
with ``u`` uniform in 0-1, so it is exact to one in each image and without bias over many, and it is cut
at what is there (a box cannot be both missed and merged; a merge needs a near neighbour; a spurious box
needs free space).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from emclean.boxes import centre, clip, enclosing, intersection, iou
from emclean.types import GRADES, NOISE_KINDS, Bools, Floats, Grade, Ints, Labels

_TRIES = 64
"""Places tried for each spurious box before it is given up."""


@dataclass(frozen=True)
class NoiseRates:
    """How often a labeller makes each kind of error, as shares of the true objects.

    ``shift_sigma`` is the standard deviation by which each of the four sides of a shifted (or copied) box
    moves, in units of the box's own side along that axis. ``shifted = 1`` moves every box that is left.
    With ``redraw`` shifted boxes are instead drawn anew, uniformly within twice the true box.
    """

    missed: float = 0.0
    shifted: float = 0.0
    shift_sigma: float = 0.15
    merged: float = 0.0
    spurious: float = 0.0
    mislabelled: float = 0.0
    duplicate: float = 0.0
    redraw: bool = False

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0:
                raise ValueError(f"{name}: expected a finite rate of at least 0, got {value}")
        if self.missed + self.merged > 1 + 1e-9:
            raise ValueError(f"missed + merged: expected at most 1, got {self.missed + self.merged}")


@dataclass(frozen=True, eq=False)
class Ledger:
    """What was planted in one image, one row per error, as aligned arrays over K errors.

    ``kind [K]`` index into ``GRADES``; ``noisy [K]`` index of the noisy label, -1 for a missed object;
    ``iou [K]`` of the noisy box with its (first) truth, 0 without one; ``truth [P]`` with ``truth_of [P]``
    name the true objects of each row (none for spurious, two or more for merged). One label may have two
    rows, for instance shifted and mislabelled.
    """

    kind: Ints
    noisy: Ints
    iou: Floats
    truth: Ints
    truth_of: Ints

    def __len__(self) -> int:
        return len(self.kind)

    def count(self, kind: Grade) -> int:
        """How many errors of this kind were planted."""
        return int((self.kind == GRADES.index(kind)).sum())

    def truths(self, row: int) -> Ints:
        """Indices of the true objects that a row is about."""
        return np.asarray(self.truth[self.truth_of == row])


@dataclass(frozen=True)
class Planted:
    """Noisy labels and the ledger of how they differ from the truth."""

    labels: Labels
    ledger: Ledger


def una(ratio: float) -> NoiseRates:
    """The recipe of Universal Noise Annotation (arXiv 2312.13822) at ``ratio`` r, plus no merges.

    r·N boxes deleted, r·N redrawn within twice their extent, r·N re-classed, r·N/(1-r) bogus ones added.
    Ours differs in that bogus boxes keep off the objects and have their sizes, so that the ledger stays true.
    """
    if not 0 <= ratio <= 0.5:
        raise ValueError(f"ratio: expected a number from 0 to 0.5, got {ratio}")
    bogus = ratio / (1 - ratio)
    return NoiseRates(missed=ratio, shifted=ratio, spurious=bogus, mislabelled=ratio, redraw=True)


def at_rate(noise: str, rate: float, n_categories: int) -> NoiseRates:
    """The rates of a noise that is known by one number: about ``rate`` errors for each true object.

    ``noise`` is one of ``NOISE_KINDS`` alone, ``mixed`` (every kind alike; mislabelled ones only with several
    categories), or ``una`` with ``rate`` as its ratio.
    """
    if noise == "una":
        return una(rate)
    if noise != "mixed" and noise not in NOISE_KINDS:
        raise ValueError(f"noise: expected una, mixed or one of {', '.join(NOISE_KINDS)}, got {noise!r}")
    several = [kind for kind in NOISE_KINDS if kind != "mislabelled" or n_categories > 1]
    kinds = several if noise == "mixed" else [noise]
    rates: dict[str, Any] = dict.fromkeys(kinds, rate / len(kinds))
    return NoiseRates(**rates)


PRESETS: Mapping[str, NoiseRates] = {
    "expert_raters": NoiseRates(
        missed=0.228,
        shifted=1.0,
        shift_sigma=0.095,
        merged=0.003,
        spurious=0.111,
        mislabelled=0.139,
        duplicate=0.004,
    ),
    "una": una(0.2),
    "crowd": NoiseRates(missed=0.35, shifted=1.0, shift_sigma=0.15, merged=0.20, spurious=0.20),
}
"""Named rates. ``expert_raters`` is measured by ``benchmarks/fit_noise.py`` on ten pathology experts who
labelled from scratch; ``crowd`` is the recipe of the ``emps`` crowd labels."""


class _Canvas:
    """Boxes under change: the current noisy boxes with the truths behind each, and the ledger's rows."""

    def __init__(self, labels: Labels, width: float, height: float, rng: np.random.Generator) -> None:
        self.truth, self.width, self.height, self.rng = labels, width, height, rng
        self.boxes: list[Floats] = list(labels.boxes)
        self.categories = [int(c) for c in labels.categories]
        self.ids = list(labels.ids)
        self.alone = np.ones(len(labels), dtype=np.bool_)  # still a label of its own
        self.rows: list[tuple[Grade, int, tuple[int, ...]]] = []

    def count(self, rate: float) -> int:
        return int(np.floor(rate * len(self.truth) + self.rng.random()))

    def pick(self, rate: float) -> Ints:
        """That share of the truth, from the boxes that are still labels of their own."""
        free = np.flatnonzero(self.alone)
        chosen = self.rng.permutation(free)[: self.count(rate)]
        return np.sort(chosen)

    def jitter(self, box: Floats, sigma: float) -> Floats:
        """Each side moved by N(0, sigma) of the box's side along that axis, kept inside with some area."""
        side = np.tile(box[2:] - box[:2], 2)
        moved = clip((box + self.rng.normal(0.0, sigma, 4) * side)[None], self.width, self.height)[0]
        low, high = np.minimum(moved[:2], moved[2:]), np.maximum(moved[:2], moved[2:])
        sized = bool((high - low >= np.maximum(0.2 * side[:2], 1e-3)).all())
        return np.concatenate([low, high]) if sized else np.array(box)

    def redraw(self, box: Floats) -> Floats:
        """Two corners drawn uniformly within twice the box; the box itself where they leave no area."""
        side = box[2:] - box[:2]
        corners = box[:2] + side * self.rng.uniform(-0.5, 1.5, (2, 2))
        fresh = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        inside = clip(fresh[None], self.width, self.height)[0]
        sized = bool((inside[2:] - inside[:2] >= 0.02 * side).all())
        return inside if sized else np.array(box)

    def append(self, kind: Grade, box: Floats, category: int, truths: tuple[int, ...]) -> None:
        self.rows.append((kind, len(self.boxes), truths))
        self.boxes.append(box)
        self.categories.append(category)
        self.ids.append(f"{kind}-{len(self.rows)}")


def _miss(canvas: _Canvas, rate: float) -> None:
    for i in canvas.pick(rate):
        canvas.alone[i] = False
        canvas.rows.append(("missed", -1, (int(i),)))


def _neighbour(canvas: _Canvas, i: int, near: Bools) -> int | None:
    """The nearest neighbour of the same category that is still free, or None."""
    free = canvas.alone & near & (canvas.truth.categories == canvas.truth.categories[i])
    free[i] = False
    candidates = np.flatnonzero(free)
    if not len(candidates):
        return None
    centres = centre(canvas.truth.boxes)
    return int(candidates[np.argmin(((centres[candidates] - centres[i]) ** 2).sum(axis=1))])


def _near(boxes: Floats) -> Bools:
    """Pairs ``[N,N]`` whose gap along both axes is at most half the mean of their sides."""
    sides = boxes[:, 2:] - boxes[:, :2]
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    reach = (sides[:, None] + sides[None, :]) / 4
    return np.asarray((low - high <= reach).all(axis=2))


def _merge(canvas: _Canvas, rate: float) -> None:
    near = _near(canvas.truth.boxes)
    wanted = int(np.floor(rate * len(canvas.truth) / 2 + canvas.rng.random()))
    for i in canvas.rng.permutation(np.flatnonzero(canvas.alone)):
        if wanted <= 0:
            return
        j = _neighbour(canvas, int(i), near[i]) if canvas.alone[i] else None
        if j is None:
            continue
        pair = (int(i), j)
        canvas.alone[list(pair)] = False
        canvas.append("merged", enclosing(canvas.truth.boxes[list(pair)]), canvas.categories[i], pair)
        wanted -= 1


def _mislabel(canvas: _Canvas, rate: float, n_categories: int) -> None:
    if n_categories < 2:
        return
    for i in canvas.pick(rate):
        step = int(canvas.rng.integers(1, n_categories))
        canvas.categories[i] = (canvas.categories[i] + step) % n_categories
        canvas.rows.append(("mislabelled", int(i), (int(i),)))


def _shift(canvas: _Canvas, rates: NoiseRates) -> None:
    for i in canvas.pick(rates.shifted):
        box = canvas.boxes[i]
        canvas.boxes[i] = canvas.redraw(box) if rates.redraw else canvas.jitter(box, rates.shift_sigma)
        canvas.rows.append(("shifted", int(i), (int(i),)))


def _duplicate(canvas: _Canvas, rate: float, sigma: float) -> None:
    for i in canvas.pick(rate):
        box = canvas.jitter(canvas.boxes[i], min(sigma, 0.1))
        canvas.append("duplicate", box, canvas.categories[i], (int(i),))


def _free_place(canvas: _Canvas, size: Floats) -> Floats | None:
    """A random box of this size that lies off every object and label (at most a tenth covered), or None."""
    room = np.array([canvas.width, canvas.height]) - size
    if (room < 0).any():
        return None
    low = canvas.rng.random((_TRIES, 2)) * room
    places = np.concatenate([low, low + size], axis=1)
    taken = np.concatenate([canvas.truth.boxes, np.array(canvas.boxes).reshape(-1, 4)])
    shared = intersection(places, taken)
    smaller = np.minimum(size.prod(), (taken[:, 2:] - taken[:, :2]).prod(axis=1))
    free = np.flatnonzero((shared / smaller).max(axis=1, initial=0.0) <= 0.1)
    return clip(places[free[:1]], canvas.width, canvas.height)[0] if len(free) else None


def _invent(canvas: _Canvas, rate: float) -> None:
    if not len(canvas.truth):
        return
    for _ in range(canvas.count(rate)):
        model = int(canvas.rng.integers(len(canvas.truth)))
        box = canvas.truth.boxes[model]
        place = _free_place(canvas, box[2:] - box[:2])
        if place is not None:
            canvas.append("spurious", place, int(canvas.truth.categories[model]), ())


def _finish(canvas: _Canvas) -> Planted:
    n = len(canvas.truth)
    kept = np.concatenate([np.flatnonzero(canvas.alone), np.arange(n, len(canvas.boxes))]).astype(np.int64)
    position = np.full(len(canvas.boxes) + 1, -1, dtype=np.int64)  # the last slot stays -1: no noisy label
    position[kept] = np.arange(len(kept))
    boxes = np.array(canvas.boxes, dtype=np.float64).reshape(-1, 4)
    labels = Labels(boxes[kept], np.array(canvas.categories)[kept], tuple(canvas.ids[i] for i in kept))
    noisy = position[np.array([row[1] for row in canvas.rows], dtype=np.int64)]
    truths = [np.array(row[2], dtype=np.int64) for row in canvas.rows]
    overlap = iou(labels.boxes, canvas.truth.boxes)
    ious = [overlap[k, t[0]] if k >= 0 and len(t) else 0.0 for k, t in zip(noisy, truths, strict=True)]
    ledger = Ledger(
        kind=np.array([GRADES.index(row[0]) for row in canvas.rows], dtype=np.int64),
        noisy=noisy,
        iou=np.array(ious, dtype=np.float64),
        truth=np.concatenate([*truths, np.zeros(0, np.int64)]),
        truth_of=np.repeat(np.arange(len(truths)), [len(t) for t in truths]),
    )
    return Planted(labels, ledger)


def plant(
    labels: Labels,
    width: float,
    height: float,
    rates: NoiseRates,
    n_categories: int,
    rng: np.random.Generator,
) -> Planted:
    """Add crowd errors at ``rates`` to the true ``labels`` of an image of ``width`` x ``height`` pixels.

    Order: missed objects are deleted; pairs of near neighbours of one category become one box around both;
    of the boxes that stand alone some change category (only with two or more), some are shifted, some get a
    second, jittered copy; spurious boxes with the size and category of random true ones are put on free
    places. Boxes that stand keep their ids and order; new ones follow.
    """
    canvas = _Canvas(labels, width, height, rng)
    _miss(canvas, rates.missed)
    _merge(canvas, rates.merged)
    _mislabel(canvas, rates.mislabelled, n_categories)
    _shift(canvas, rates)
    _duplicate(canvas, rates.duplicate, rates.shift_sigma)
    _invent(canvas, rates.spurious)
    return _finish(canvas)
