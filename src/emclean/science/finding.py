"""How well a method finds wrong labels: what was wrong, average precision and precision at k per kind."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emclean.boxes import iou
from emclean.science.noise import Planted
from emclean.science.rivals.base import Suspicion
from emclean.science.truth import CLEAN_IOU, true_grades
from emclean.types import GRADES, Bools, Floats, Grade, Ints, Labels, Predictions


@dataclass(frozen=True, eq=False)
class Faults:
    """What is wrong with the labels of one image.

    ``labels [N, len(GRADES)]`` which kinds of error each label has (none: it is clean); ``touching [N]``
    whether it overlaps another label; ``missed [M,4]`` the objects without a label; ``poorly [P,4]`` those
    whose label is wrong in another way (proposing them again is neither right nor wrong).
    """

    labels: Bools
    touching: Bools
    missed: Floats
    poorly: Floats


def _faults(labels: Labels, kinds: Bools, truth: Labels, missed: Ints, shown: Ints) -> Faults:
    overlap = iou(labels.boxes, labels.boxes)
    np.fill_diagonal(overlap, 0.0)
    poorly = np.setdiff1d(np.arange(len(truth)), np.concatenate([missed, shown]))
    touching = np.asarray((overlap > 0).any(axis=1))
    return Faults(kinds, touching, truth.boxes[missed], truth.boxes[poorly])


def planted_faults(planted: Planted, truth: Labels) -> Faults:
    """What a ledger says; a label that was shifted so little that its IoU is still 0.7 counts as clean."""
    ledger, n = planted.ledger, len(planted.labels)
    small = (ledger.kind == GRADES.index("shifted")) & (ledger.iou >= CLEAN_IOU)
    kinds = np.zeros((n, len(GRADES)), dtype=np.bool_)
    rows = np.flatnonzero((ledger.noisy >= 0) & ~small)
    kinds[ledger.noisy[rows], ledger.kind[rows]] = True
    missing = np.flatnonzero(ledger.kind == GRADES.index("missed"))
    missed = ledger.truth[np.isin(ledger.truth_of, missing)]
    hurt = ledger.truth[np.isin(ledger.truth_of, np.flatnonzero(~small))]
    return _faults(planted.labels, kinds, truth, missed, np.setdiff1d(np.arange(len(truth)), hurt))


def true_faults(labels: Labels, truth: Labels) -> Faults:
    """What a trusted labelling of the same image says (``truth.true_grades``)."""
    known = true_grades(labels, truth)
    kinds = np.eye(len(GRADES), dtype=np.bool_)[known.grade]
    kinds[:, GRADES.index("clean")] = False
    clean = known.truth[known.grade == GRADES.index("clean")]
    return _faults(labels, kinds, truth, known.missed, clean)


def average_precision(scores: Floats, right: Bools, total: int | None = None) -> float:
    """Average precision of a ranking, equal scores as one step; NaN where there is nothing to find.

    ``total`` counts all that could be found, where not all of it stands in the ranking.
    """
    wanted = int(right.sum()) if total is None else total
    if not wanted:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(right[order])
    last = np.append(scores[order][:-1] > scores[order][1:], True) if len(order) else np.zeros(0, np.bool_)
    at = np.flatnonzero(last)
    return float((np.diff(hits[at], prepend=0) * hits[at] / (at + 1)).sum() / wanted)


def precision_at(scores: Floats, right: Bools, k: int) -> float:
    """The share of right ones among the first ``k`` (fewer where there are not so many), expected over the
    order of equal scores; NaN without any."""
    first = min(k, len(scores))
    if not first:
        return float("nan")
    limit = np.sort(scores)[::-1][first - 1]
    above, level = scores > limit, scores == limit
    share = (first - above.sum()) / level.sum()
    return float((right[above].sum() + share * right[level].sum()) / first)


@dataclass(frozen=True)
class Found:
    """How well one kind of error is found: how many there are, average precision, precision at k."""

    total: int
    ap: float
    precision: float
    k: int


def _proposals(suspicion: Suspicion, faults: Faults) -> tuple[Floats, Bools]:
    """Scores and rights of an image's candidates; each missed object is found once (IoU >= 0.5)."""
    order = np.argsort(-suspicion.missed, kind="stable")
    boxes: Predictions = suspicion.candidates.take(order)
    overlap = iou(boxes.boxes, faults.missed)
    right = np.zeros(len(boxes), dtype=np.bool_)
    for i in np.flatnonzero((overlap >= 0.5).any(axis=1)):  # best first, as detections are scored
        best = int(overlap[i].argmax())
        right[i] = overlap[i, best] >= 0.5
        overlap[:, best] = np.where(right[i], 0.0, overlap[:, best])
    neutral = ~right & (iou(boxes.boxes, faults.poorly) >= 0.5).any(axis=1)
    return suspicion.missed[order][~neutral], right[~neutral]


def _found(scores: Floats, right: Bools, total: int, k: int) -> Found:
    return Found(total, average_precision(scores, right, total), precision_at(scores, right, k), k)


def evaluate(
    suspicions: Sequence[Suspicion], faults: Sequence[Faults], k: int = 50, own: bool = False
) -> dict[str, Found]:
    """How well a method finds each kind of error over all images together.

    ``any``: wrong labels among all; ``touching``: the same among labels that overlap another. Each kind of
    label error is ranked among the clean labels alone, since finding another error is no fault; with ``own``
    among all labels and by the method's own score of that kind, which asks whether it tells kinds apart.
    ``missed``: overlooked objects among the candidates.
    """
    errors = np.concatenate([np.zeros(0), *(s.labels for s in suspicions)])
    kinds = np.concatenate([np.zeros((0, len(GRADES)), np.bool_), *(f.labels for f in faults)])
    wrong = kinds.any(axis=1)
    if own:
        named = [(kind, kinds[:, GRADES.index(kind)], _own(suspicions, kind)) for kind in GRADES[2:]]
        return {kind: _found(e, w, int(w.sum()), k) for kind, w, e in named if e is not None}
    touching = np.concatenate([np.zeros(0, np.bool_), *(f.touching for f in faults)])
    sets = {"any": (np.ones_like(wrong), wrong), "touching": (touching, wrong)}
    for kind in GRADES[2:]:
        mine = kinds[:, GRADES.index(kind)]
        sets[kind] = (mine | ~wrong, mine)
    table = {name: _found(errors[s], w[s], int(w[s].sum()), k) for name, (s, w) in sets.items()}
    pairs = [_proposals(s, f) for s, f in zip(suspicions, faults, strict=True)]
    scores = np.concatenate([np.zeros(0), *(p[0] for p in pairs)])
    right = np.concatenate([np.zeros(0, np.bool_), *(p[1] for p in pairs)])
    return {**table, "missed": _found(scores, right, sum(len(f.missed) for f in faults), k)}


def _own(suspicions: Sequence[Suspicion], kind: Grade) -> Floats | None:
    """The method's own scores of a kind for all labels, None where it has none."""
    if not suspicions or any(kind not in s.kinds for s in suspicions):
        return None
    return np.concatenate([s.kinds[kind] for s in suspicions])
