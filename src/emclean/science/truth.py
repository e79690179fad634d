"""What is true of each crowd label and each verdict, once an expert has labelled the image."""

from typing import NamedTuple

import numpy as np

from emclean.boxes import coverage, iou, match, paired_iou
from emclean.types import GRADES, Bools, Floats, Grade, Ints, Labels, Verdicts

CLEAN_IOU = 0.7
"""From this IoU with the truth a label counts as well placed; experts agree with one another to 0.8-0.9."""

_INDEX: dict[Grade, int] = {grade: i for i, grade in enumerate(GRADES)}


class TrueGrades(NamedTuple):
    """``grade [N]`` of each label; ``truth [N]`` its object or -1; ``missed`` objects that no label shows."""

    grade: Ints
    truth: Ints
    missed: Ints


def _merged(labels: Floats, truth: Floats) -> Bools:
    """Which labels ``[N]`` are one box around several objects: it fits their hull better than any one."""
    if not len(truth):
        return np.zeros(len(labels), dtype=np.bool_)
    inside = coverage(truth, labels).T >= 0.7  # [N,T]
    several = inside.sum(axis=1) >= 2
    low = np.where(inside[:, :, None], truth[None, :, :2], np.inf).min(axis=1)
    high = np.where(inside[:, :, None], truth[None, :, 2:], -np.inf).max(axis=1)
    fit = np.zeros(len(labels))
    for i in np.flatnonzero(several):  # few: only labels that hold two objects or more
        hull = np.concatenate([low[i], high[i]])[None]
        fit[i] = iou(labels[i : i + 1], hull)[0, 0]
    single = iou(labels, truth).max(axis=1)
    return np.asarray(several & (fit >= 0.5) & (fit > single))


def _lone_grades(grade: Ints, labels: Labels, truth: Labels, taken: Ints) -> None:
    """Grade the labels that got no object: a second box on a labelled one, or on nothing."""
    open_ = np.flatnonzero(grade < 0)
    grade[open_] = _INDEX["spurious"]
    again = iou(labels.boxes[open_], truth.boxes[taken]).max(axis=1, initial=0.0) >= 0.5
    grade[open_[again]] = _INDEX["duplicate"]


def true_grades(labels: Labels, truth: Labels, clean_iou: float = CLEAN_IOU) -> TrueGrades:
    """Grade every label by the truth.

    A label around several objects is ``merged``. Of the others each takes at most one object: first with
    IoU >= 0.5, preferring the same category, then (for objects left over) with IoU >= 0.2. One with its
    object is ``mislabelled`` if the category differs, else ``clean`` from ``clean_iou``, else ``shifted``;
    one without is a ``duplicate`` where its object is taken (IoU >= 0.5), else ``spurious``. Objects that
    neither have a label nor lie in a merged one are ``missed``.
    """
    n = len(labels)
    grade, owner = np.full(n, -1, dtype=np.int64), np.full(n, -1, dtype=np.int64)
    merged = _merged(labels.boxes, truth.boxes)
    grade[merged] = _INDEX["merged"]
    same = labels.categories[:, None] == truth.categories[None, :]
    for threshold, allowed in ((0.5, same), (0.5, ~same), (0.2, np.ones_like(same))):
        free = (owner < 0) & ~merged
        usable = allowed & free[:, None] & ~np.isin(np.arange(len(truth)), owner)[None, :]
        rows, cols = match(labels.boxes, truth.boxes, threshold, usable)
        owner[rows] = cols
    found = np.flatnonzero(owner >= 0)
    overlap = iou(labels.boxes, truth.boxes)[found, owner[found]]
    grade[found] = np.where(overlap >= clean_iou, _INDEX["clean"], _INDEX["shifted"])
    grade[found[~same[found, owner[found]]]] = _INDEX["mislabelled"]
    _lone_grades(grade, labels, truth, owner[found])
    held = (coverage(truth.boxes, labels.boxes[merged]) >= 0.7).any(axis=1)
    unlabelled = ~np.isin(np.arange(len(truth)), owner) & ~held
    return TrueGrades(grade, owner, np.flatnonzero(unlabelled))


def _added_right(verdicts: Verdicts, truth: Labels, missed: Ints) -> Bools:
    """Which ``missed`` verdicts propose an unlabelled object (IoU >= 0.5, right category), one each."""
    rows = np.flatnonzero(verdicts.label < 0)
    same = verdicts.category[rows][:, None] == truth.categories[missed][None, :]
    hit, _ = match(verdicts.box[rows], truth.boxes[missed], 0.5, same)
    right = np.zeros(len(verdicts), dtype=np.bool_)
    right[rows[hit]] = True
    return right


def missed_right(verdicts: Verdicts, truth: Labels, known: TrueGrades) -> Bools:
    """Of the ``missed`` verdicts (in order), which are objects without a label."""
    return _added_right(verdicts, truth, known.missed)[verdicts.label < 0]


def _parts_right(parts: Floats, truth: Floats) -> bool:
    """Whether splitting helps: at least two parts, each the box of a different object (IoU >= 0.5)."""
    rows, _ = match(parts, truth, 0.5)
    return len(parts) >= 2 and len(rows) == len(parts)


def _moved_right(verdicts: Verdicts, labels: Labels, truth: Labels, owner: Ints) -> Bools:
    """Which proposed boxes lie well on their object, or at least (IoU >= 0.5) better than the label's own."""
    n = len(labels)
    better = np.zeros(n, dtype=np.bool_)
    rows = np.flatnonzero(owner >= 0)
    before = paired_iou(labels.boxes[rows], truth.boxes[owner[rows]])
    after = paired_iou(verdicts.box[:n][rows], truth.boxes[owner[rows]])
    better[rows] = (after >= CLEAN_IOU) | ((after >= 0.5) & (after >= before))
    return better


def _spare(labels: Labels, verdicts: Verdicts, truth: Labels) -> Bools:
    """Which labels ``[N]`` may go because another one that stays shows the same object (both IoU >= 0.5)."""
    n = len(labels)
    if not n or not len(truth):
        return np.zeros(n, dtype=np.bool_)
    shows = iou(labels.boxes, truth.boxes) >= 0.5
    stays = np.isin(verdicts.grade[:n], [_INDEX["clean"], _INDEX["shifted"], _INDEX["mislabelled"]])
    others = (shows & stays[:, None]).sum(axis=0)[None, :] - (shows & stays[:, None])
    return np.asarray((shows & (others > 0)).any(axis=1))


def right_fixes(labels: Labels, verdicts: Verdicts, truth: Labels, known: TrueGrades) -> Bools:
    """Which verdicts ``[K]`` are right in what they would do to the labels.

    ``clean``: the label is. ``spurious``, ``duplicate``: it shows nothing that no other label shows.
    ``shifted``: the new corners lie well on its object, or better. ``mislabelled``: the new category is the
    object's. ``merged``: every part is an object. ``missed``: there is an object that no label shows.
    """
    n = len(labels)
    grade, true = verdicts.grade[:n], known.grade
    right = _added_right(verdicts, truth, known.missed)
    deletable = np.isin(true, [_INDEX["spurious"], _INDEX["duplicate"]])
    owned = known.truth >= 0
    category = np.zeros(n, dtype=np.bool_)
    category[owned] = verdicts.category[:n][owned] == truth.categories[known.truth[owned]]
    right[:n] = np.select(
        [grade == _INDEX[name] for name in ("clean", "shifted", "spurious", "duplicate", "mislabelled")],
        [
            true == _INDEX["clean"],
            _moved_right(verdicts, labels, truth, known.truth),
            deletable,
            deletable | _spare(labels, verdicts, truth),
            category,
        ],
        default=False,
    )
    for i in np.flatnonzero(grade == _INDEX["merged"]):  # few
        right[i] = _parts_right(verdicts.parts[verdicts.part_of == i], truth.boxes)
    return right
