"""Graded targets with one kind of mistake mended by the truth: what each kind costs the detector."""

import numpy as np

from emclean.boxes import coverage, match
from emclean.types import Bools, Floats, Ints, Labels, Target

FOUND = 0.5
"""From this IoU with an object a box shows it."""
NEAR = 0.2
"""From this IoU a box that shows nothing is a badly placed one, and not one too many."""


def with_all_objects(target: Target, truth: Labels) -> Target:
    """What no box shows, not even badly, is added; nothing is ignored any more."""
    rows, _ = _owners(target, truth)
    unseen = np.setdiff1d(np.arange(len(truth)), rows[rows >= 0])
    held = coverage(truth.boxes[unseen], target.boxes) >= 0.7  # in a box around several: its own mistake
    unseen = unseen[~held.any(axis=1)] if len(target) else unseen
    return Target(
        np.concatenate([target.boxes, truth.boxes[unseen]]),
        np.concatenate([target.categories, truth.categories[unseen]]),
        np.concatenate([target.weights, np.ones(len(unseen))]),
        np.concatenate([target.regress, np.ones(len(unseen), np.bool_)]),
    )


def with_true_corners(target: Target, truth: Labels) -> Target:
    """Every box that has an object gets the object's corners, and is learnt."""
    rows, has = _owners(target, truth)
    boxes = target.boxes.copy()
    boxes[has] = truth.boxes[rows[has]]
    return _changed(target, np.ones(len(target), np.bool_), boxes, target.regress | has)


def without_empty(target: Target, truth: Labels) -> Target:
    """Boxes without an object of their own are left out."""
    _, has = _owners(target, truth)
    return _changed(target, has, target.boxes, target.regress)


def _owners(target: Target, truth: Labels) -> tuple[Ints, Bools]:
    """The object of each box ``[N]`` or -1, one each, and whether it has one."""
    owner = np.full(len(target), -1, dtype=np.int64)
    same = target.categories[:, None] == truth.categories[None, :]
    for least in (FOUND, NEAR):
        free = (owner < 0)[:, None] & ~np.isin(np.arange(len(truth)), owner)[None, :]
        rows, columns = match(target.boxes, truth.boxes, least, same & free)
        owner[rows] = columns
    return owner, owner >= 0


def _changed(target: Target, kept: Bools, boxes: Floats, regress: Bools) -> Target:
    return Target(
        boxes[kept],
        target.categories[kept],
        target.weights[kept],
        regress[kept],
        target.ignore,
        target.ignore_categories,
    )
