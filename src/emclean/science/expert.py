"""A simulated expert: what a person with set slips would answer, given the truth and what is shown."""

from dataclasses import dataclass

import numpy as np

from emclean.boxes import clip, iou, match
from emclean.types import Bools, Floats, Ints, Labels


@dataclass(frozen=True)
class Slips:
    """How a simulated expert errs.

    ``miss``: share of the objects without a usable suggestion that are overlooked. ``jitter``: standard
    deviation of each side of a drawn or moved box, in units of the box's side. ``rubber_stamp``: share of
    the wrong suggestions (badly placed, wrong category or on nothing) that are left as they are.
    ``accept``: IoU with the truth from which a suggestion passes as well placed.
    """

    miss: float = 0.0
    jitter: float = 0.0
    rubber_stamp: float = 0.0
    accept: float = 0.75

    def __post_init__(self) -> None:
        for name in ("miss", "rubber_stamp", "accept"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a share from 0 to 1, got {value}")
        if not self.jitter >= 0:
            raise ValueError(f"jitter: expected at least 0, got {self.jitter}")


@dataclass(frozen=True, eq=False)
class Answered:
    """An expert's answer: ``labels`` and ``origin [N]``, the shown suggestion of each box or -1."""

    labels: Labels
    origin: Ints


def _drawn(boxes: Floats, jitter: float, size: tuple[float, float], rng: np.random.Generator) -> Floats:
    """Boxes as drawn by hand: every side off by N(0, jitter) of the box's side, inside the image."""
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], (1, 2))
    noisy = clip(boxes + rng.normal(0.0, 1.0, boxes.shape) * jitter * sides, *size)
    sound = np.all(noisy[:, 2:] - noisy[:, :2] >= 0.2 * sides[:, :2], axis=1, keepdims=True)
    return np.where(sound, noisy, boxes)


def _pairs(truth: Labels, shown: Labels) -> tuple[Ints, Ints]:
    """Which suggestion an expert takes for which object: best overlaps, any category."""
    return match(truth.boxes, shown.boxes, threshold=0.3)


def _good(truth: Labels, shown: Labels, pairs: tuple[Ints, Ints], accept: float) -> Bools:
    """Which pairs pass without a change."""
    t, s = pairs
    placed = iou(truth.boxes, shown.boxes)[t, s] >= accept
    return np.asarray(placed & (truth.categories[t] == shown.categories[s]))


def answer(
    truth: Labels,
    shown: Labels | None,
    slips: Slips,
    rng: np.random.Generator,
    width: float,
    height: float,
    only_shown: bool = False,
) -> Answered:
    """Answer one image of ``width`` x ``height`` pixels; ``shown`` None or empty is a blind task.

    With ``only_shown`` (a review) the suggestions are decided and nothing is added.

    Good suggestions are left, badly placed or wrongly classed ones moved onto the object, those on nothing
    deleted, and objects without a suggestion drawn, each with the expert's ``slips``.
    """
    given = shown if shown is not None else Labels.empty()
    t, s = _pairs(truth, given)
    good = _good(truth, given, (t, s), slips.accept)
    stamped = rng.random(len(t)) < slips.rubber_stamp
    as_is = good | stamped
    lone = np.setdiff1d(np.arange(len(given)), s)
    kept = np.concatenate([s[as_is], lone[rng.random(len(lone)) < slips.rubber_stamp]])
    unseen = np.setdiff1d(np.arange(len(truth)), t)
    new = unseen[(rng.random(len(unseen)) >= slips.miss) & (not only_shown)]
    corrected = np.concatenate([t[~as_is], new])
    origin = np.concatenate([kept, s[~as_is], np.full(len(new), -1)]).astype(np.int64)
    drawn = _drawn(truth.boxes[corrected], slips.jitter, (width, height), rng)
    labels = Labels(
        np.concatenate([given.boxes[kept], drawn]),
        np.concatenate([given.categories[kept], truth.categories[corrected]]),
        tuple(given.ids[i] if i >= 0 else f"drawn-{n}" for n, i in enumerate(origin)),
    )
    return Answered(labels, origin)
