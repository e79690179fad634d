"""Our reconstruction of the plain procedure of arXiv 2602.05250; its formulas and thresholds are not public.

``paper``, its Label Selection Module: the source states that images are ranked by how crowd labels and the
cleaning model's predictions differ. Counted here: labels without a confident prediction of their category,
and confident predictions without such a label, matched one to one at IoU 0.5. Nothing is divided by what an
image costs.

``correct``, its noise-graded correction: the source states that the same discrepancy grades each instance,
that a consensus model works beside the cleaning model, and that merged boxes (box in box) are split. What
both models say is done, what only one says is left to the expert.
"""

from collections.abc import Sequence

import numpy as np

from emclean.boxes import assign, coverage, iou, match
from emclean.science.grading.evidence import Evidence
from emclean.science.rivals.base import OVERLAP, Suspicion
from emclean.types import Bools, Ints, Labels, Predictions

CONFIDENT = 0.3
"""The score from which a prediction is held against the labels, as in ``consensus.agreed``."""

NEAR = 0.1
"""From this IoU a badly placed label stands for an object; a label without anything so near is on nothing."""

WITHIN = 0.7
"""From this part within a label's box an object is one of those that a merged label holds."""


def _same(a: Labels | Predictions, b: Labels | Predictions) -> Bools:
    """Where categories agree ``[N,M]``."""
    return np.asarray(a.categories[:, None] == b.categories[None, :])


def _pairs(a: Labels | Predictions, b: Predictions) -> tuple[Ints, Ints]:
    """What shows the same objects, one to one."""
    return match(a.boxes, b.boxes, OVERLAP, _same(a, b))


def _judge(evidence: Evidence) -> Suspicion:
    labels, sure = evidence.labels, evidence.reference.above(CONFIDENT)
    rows, cols = _pairs(labels, sure)
    errors = np.ones(len(labels))
    errors[rows] = 1 - iou(labels.boxes, sure.boxes)[rows, cols]
    alone = np.setdiff1d(np.arange(len(sure)), cols)
    candidates = sure.take(alone)
    count = len(labels) - len(rows) + len(alone)
    return Suspicion(float(count), errors, candidates, np.array(candidates.scores))


def paper(evidences: Sequence[Evidence]) -> list[Suspicion]:
    """An image's score is the raw count; a label's error is one less the IoU with its match, 1 without."""
    return [_judge(evidence) for evidence in evidences]


def correct(labels: Labels, cleaning: Predictions, consensus: Predictions) -> Labels:
    """The labels of an image after the automatic corrections; plain rules, no probabilities.

    Kept is every label that a confident prediction of either model confirms. Objects that both models are
    sure of and no such label shows become labels: in place of those that are badly placed, called otherwise
    or merged round them, else as missed ones. Labels where neither model sees anything are deleted. The rest
    stays as it is, which is where the source asks the expert.
    """
    sure, second = cleaning.above(CONFIDENT), consensus.above(CONFIDENT)
    rows, cols = _pairs(labels, sure)
    doubted = np.setdiff1d(np.arange(len(labels)), np.union1d(rows, _pairs(labels, second)[0]))
    confirmed = np.delete(labels.boxes, doubted, axis=0)
    unshown = sure.take(np.setdiff1d(np.arange(len(sure)), cols))
    agreed = unshown.take(_pairs(unshown, second)[0])
    objects = agreed.take(iou(agreed.boxes, confirmed).max(axis=1, initial=0.0) < OVERLAP)
    doubtful = labels.take(doubted)
    gone = doubted[_replaced(doubtful, objects) | ~_seen(doubtful, sure, second)]
    kept = labels.take(np.setdiff1d(np.arange(len(labels)), gone))
    return Labels(
        np.concatenate([kept.boxes, objects.boxes]),
        np.concatenate([kept.categories, objects.categories]),
        (*kept.ids, *(f"found-{k}" for k in range(len(objects)))),
        (*kept.annotators, *("" for _ in range(len(objects)))),
    )


def _replaced(labels: Labels, objects: Predictions) -> Bools:
    """Which labels ``[N]`` stand for one of the objects, badly (one to one), or round several."""
    overlap, same = iou(labels.boxes, objects.boxes), _same(labels, objects)
    held = same & (coverage(objects.boxes, labels.boxes).T >= WITHIN)
    replaced = held.sum(axis=1) >= 2
    replaced[assign(overlap, NEAR, same | (overlap >= OVERLAP))[0]] = True
    return np.asarray(replaced)


def _seen(labels: Labels, *models: Predictions) -> Bools:
    """Which labels ``[N]`` any model sees anything near."""
    near = [iou(labels.boxes, found.boxes).max(axis=1, initial=0.0) >= NEAR for found in models]
    return np.asarray(np.any(near, axis=0))
