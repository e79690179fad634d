"""Our reconstruction of the plain Label Selection Module of arXiv 2602.05250: the raw count of discrepancies.

The source states that images are ranked by how crowd labels and the cleaning model's predictions differ; its
formula is not public. Counted here: labels without a confident prediction of their category, and confident
predictions without such a label, matched one to one at IoU 0.5. Nothing is divided by what an image costs.
"""

from collections.abc import Sequence

import numpy as np

from emclean.boxes import iou, match
from emclean.science.grading.evidence import Evidence
from emclean.science.rivals.base import OVERLAP, Suspicion

CONFIDENT = 0.3
"""The score from which a prediction is held against the labels, as in ``consensus.agreed``."""


def _judge(evidence: Evidence) -> Suspicion:
    labels, sure = evidence.labels, evidence.reference.above(CONFIDENT)
    same = labels.categories[:, None] == sure.categories[None, :]
    rows, cols = match(labels.boxes, sure.boxes, OVERLAP, same)
    errors = np.ones(len(labels))
    errors[rows] = 1 - iou(labels.boxes, sure.boxes)[rows, cols]
    alone = np.setdiff1d(np.arange(len(sure)), cols)
    candidates = sure.take(alone)
    count = len(labels) - len(rows) + len(alone)
    return Suspicion(float(count), errors, candidates, np.array(candidates.scores))


def paper(evidences: Sequence[Evidence]) -> list[Suspicion]:
    """An image's score is the raw count; a label's error is one less the IoU with its match, 1 without."""
    return [_judge(evidence) for evidence in evidences]
