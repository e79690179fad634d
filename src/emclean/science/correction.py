"""Automatic corrections where they are safe, and training targets that say how far each label is trusted.

Labels that an expert gave never pass through here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from emclean.boxes import iou
from emclean.types import GRADES, NOISE_KINDS, Bools, Floats, Grade, Ints, Labels, Target, Verdicts

_INDEX: dict[Grade, int] = {grade: i for i, grade in enumerate(GRADES)}
LIKELY: Mapping[Grade, float] = dict.fromkeys(NOISE_KINDS, 0.5)
"""Limits with which every label is taken in its more likely version: for training, not for the record."""

Changed = Literal["added", "moved", "relabelled", "deleted"]


@dataclass(frozen=True)
class Change:
    """One automatic correction, as it goes into the label table.

    ``label_id`` the label that was changed, or the id of the new one; ``parent`` the merged label that a
    part came from, else empty.
    """

    event: Changed
    label_id: str
    box: tuple[float, float, float, float]
    category: int
    reason: str
    parent: str = ""


@dataclass(frozen=True, eq=False)
class Corrected:
    """The labels after correction, the changes that led there, and the target to train on.

    ``acted [K]``: which verdicts changed anything, as ``acted`` says.
    """

    labels: Labels
    changes: tuple[Change, ...]
    target: Target
    acted: Bools


@dataclass(frozen=True)
class Trust:
    """How probabilities become training targets.

    Boxes from labels are used for regression from ``regress`` on (probability of being clean); areas of
    labels whose probability to be an object at all lies under ``doubt``, and of candidates for missed objects
    above ``suspect`` that were not added, count neither as object nor as background of that category.
    """

    regress: float = 0.5
    doubt: float = 0.5
    suspect: float = 0.5


def safe(verdicts: Verdicts, limits: Mapping[Grade, float]) -> Bools:
    """Which verdicts may be acted on ``[K]``: an error, at or above its kind's limit."""
    limit = np.array([np.inf if g == "clean" else limits.get(g, np.inf) for g in GRADES])
    return np.asarray(verdicts.probability >= limit[verdicts.grade])


def acted(labels: Labels, verdicts: Verdicts, limits: Mapping[Grade, float]) -> Bools:
    """Which verdicts ``[K]`` change anything: all that are safe, but for those with no other box or category
    and no parts to split into, and for the last label of an object that is called a copy."""
    return _done(_plan(labels, verdicts, safe(verdicts, limits)), len(verdicts))


def _new_id(verdict: int, part: int, verdicts: Verdicts, labels: Labels) -> str:
    """A new id that does not depend on anything but the image's own labels and verdicts."""
    label = int(verdicts.label[verdict])
    name = f"{labels.ids[label]}/{part}" if label >= 0 else f"added-{verdict - len(labels)}"
    while name in labels.ids:  # an expert confirmed what was added under this name before
        name += "+"
    return name


def bib_split(labels: Labels, verdicts: Verdicts, verdict: int, others: Floats) -> Floats:
    """The parts ``[P,4]`` that a merged label is split into, less those that another label shows already.

    ``others [M,4]`` are the labels that stay. Fewer than two proposed parts: nothing to split into.
    """
    parts = verdicts.parts[verdicts.part_of == verdict]
    if len(parts) < 2:
        return np.zeros((0, 4))
    unshown = iou(parts, others).max(axis=1, initial=0.0) < 0.5
    return np.asarray(parts[unshown])


def _box(values: Floats) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(v) for v in values)
    return x1, y1, x2, y2


@dataclass(frozen=True, eq=False)
class _Plan:
    """What happens to each label ``[N]`` (their verdicts come first), and which verdicts add or split."""

    moved: Bools
    relabelled: Bools
    deleted: Bools
    split: Ints
    added: Ints


def _one_stays(labels: Labels, copies: Bools, gone: Bools, chance: Floats) -> Bools:
    """The ``copies [N]`` that may be deleted while another label of the same object (IoU >= 0.4) stays."""
    shows = iou(labels.boxes, labels.boxes) >= 0.4
    np.fill_diagonal(shows, False)
    stays = ~gone
    for i in np.argsort(-chance, kind="stable"):  # surest first; each decision depends on those before
        if copies[i]:
            stays[i] = not (shows[i] & stays).any()
    return np.asarray(copies & ~stays)


def _plan(labels: Labels, verdicts: Verdicts, safe: Bools) -> _Plan:
    n = len(labels)
    grade, act = verdicts.grade[:n], safe[:n]
    parts = np.bincount(verdicts.part_of, minlength=max(n, 1))[:n]
    split = act & (grade == _INDEX["merged"]) & (parts >= 2)
    gone = split | (act & (grade == _INDEX["spurious"]))
    gone |= _one_stays(labels, act & (grade == _INDEX["duplicate"]), gone, verdicts.probability[:n])
    moved = act & (grade == _INDEX["shifted"]) & (verdicts.box[:n] != labels.boxes).any(axis=1)
    called = act & (grade == _INDEX["mislabelled"]) & (verdicts.category[:n] != labels.categories)
    return _Plan(moved, called, gone, np.flatnonzero(split), n + np.flatnonzero(safe[n:]))


def _done(plan: _Plan, n_verdicts: int) -> Bools:
    """Which verdicts ``[K]`` a plan acts on."""
    done = np.zeros(n_verdicts, dtype=np.bool_)
    done[: len(plan.moved)] = plan.moved | plan.relabelled | plan.deleted
    done[plan.added] = True
    return done


def _edits(labels: Labels, verdicts: Verdicts, plan: _Plan) -> list[Change]:
    """Moves, relabellings and deletions, in label order."""
    changes = []
    for i in range(len(labels)):
        flags: tuple[tuple[Bools, Changed], ...] = (
            (plan.moved, "moved"),
            (plan.relabelled, "relabelled"),
            (plan.deleted, "deleted"),
        )
        changes += [
            Change(event, labels.ids[i], _box(verdicts.box[i]), int(verdicts.category[i]), verdicts.reason[i])
            for flag, event in flags
            if flag[i]
        ]
    return changes


def _additions(labels: Labels, verdicts: Verdicts, plan: _Plan, kept: Floats) -> tuple[list[Change], Floats]:
    """New labels from splits and missed objects, with the probability of each."""
    changes, chances = [], []
    for i in plan.split:
        for number, part in enumerate(bib_split(labels, verdicts, int(i), kept)):
            name, parent = _new_id(int(i), number, verdicts, labels), labels.ids[i]
            changes.append(
                Change("added", name, _box(part), int(labels.categories[i]), verdicts.reason[i], parent)
            )
            chances.append(float(verdicts.probability[i]))
    for k in plan.added:
        name, box = _new_id(int(k), 0, verdicts, labels), _box(verdicts.box[k])
        changes.append(Change("added", name, box, int(verdicts.category[k]), verdicts.reason[k]))
        chances.append(float(verdicts.probability[k]))
    return changes, np.array(chances, dtype=np.float64)


def _object_chance(verdicts: Verdicts) -> Floats:
    """The probability ``[K]`` that there is one object of this category here that no other label shows."""
    wrong = [_INDEX[g] for g in ("spurious", "mislabelled", "duplicate", "merged", "missed")]
    return np.asarray(1 - verdicts.posterior[:, wrong].sum(axis=1))


def correct(
    labels: Labels, verdicts: Verdicts, thresholds: Mapping[Grade, float], trust: Trust | None = None
) -> Corrected:
    """Act on every verdict that is safe, and weigh what is left by how likely it is right.

    A kind missing from ``thresholds`` is never acted on. ``verdicts`` must be those of these labels.
    """
    if len(verdicts) < len(labels) or (verdicts.label[: len(labels)] != np.arange(len(labels))).any():
        raise ValueError(f"verdicts: expected one for each of the {len(labels)} labels, in order, first")
    rule = trust if trust is not None else Trust()
    plan = _plan(labels, verdicts, safe(verdicts, thresholds))
    n, keep = len(labels), np.flatnonzero(~plan.deleted)
    boxes = np.where(plan.moved[:, None], verdicts.box[:n], labels.boxes)[keep]
    categories = np.where(plan.relabelled, verdicts.category[:n], labels.categories)[keep]
    added, chances = _additions(labels, verdicts, plan, boxes)
    result = Labels(
        np.concatenate([boxes, np.array([c.box for c in added]).reshape(-1, 4)]),
        np.concatenate([categories, np.array([c.category for c in added], dtype=np.int64)]),
        (*(labels.ids[i] for i in keep), *(c.label_id for c in added)),
        (*(labels.annotators[i] for i in keep), *("" for _ in added)),
    )
    target = _target(result, verdicts, plan, (keep, chances), rule)
    changes = (*_edits(labels, verdicts, plan), *added)
    return Corrected(result, changes, target, _done(plan, len(verdicts)))


def _target(
    result: Labels, verdicts: Verdicts, plan: _Plan, kept: tuple[Ints, Floats], trust: Trust
) -> Target:
    """Weights, boxes trusted for regression, and areas where nothing is known."""
    keep, chances = kept
    edited = (plan.moved | plan.relabelled)[keep]
    sure = np.where(edited, verdicts.probability[keep], _object_chance(verdicts)[keep])
    placed = np.where(edited, verdicts.probability[keep], verdicts.posterior[keep, _INDEX["clean"]])
    doubtful = sure < trust.doubt
    called_wrong = verdicts.grade[keep] == _INDEX["mislabelled"]
    unsure = np.where(called_wrong, -1, result.categories[: len(keep)])
    waiting = np.setdiff1d(np.flatnonzero(verdicts.label < 0), plan.added)
    suspects = waiting[verdicts.probability[waiting] >= trust.suspect]
    return Target(
        result.boxes,
        result.categories,
        np.clip(np.concatenate([sure, chances]), 0.0, 1.0),
        np.concatenate([placed >= trust.regress, chances >= trust.regress]),
        np.concatenate([result.boxes[: len(keep)][doubtful], verdicts.box[suspects]]),
        np.concatenate([unsure[doubtful], verdicts.category[suspects]]),
    )
