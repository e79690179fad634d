"""Label cleaning by cross-entropy (Bernhardt et al. 2022, Nature Communications 13, 1161), lifted to boxes.

The published score of an image with one class label is the cross-entropy of the label under the prediction
less the prediction's own entropy: wrong labels that the model finds clear come first, ambiguous ones last.
Lifting it is ours: every label, and every predicted object without one (label: nothing), is an instance.
Taken literally, a doubtful prediction of 0.3 would be less suspicious than one of 0.02; so under 0.5 the
entropy is held at its largest, and such predictions (the model itself says: nothing) are not summed.
"""

from collections.abc import Sequence

import numpy as np

from emclean.science.grading.evidence import Evidence
from emclean.science.rivals.base import (
    LEAST,
    Suspicion,
    class_probabilities,
    n_categories,
    unlabelled,
)
from emclean.types import Floats, Ints, Predictions


def _excess(table: Floats, given: Ints) -> Floats:
    """Cross-entropy less entropy, in nats, of rows ``table [N,C]`` for the classes ``given [N]``."""
    logs = np.log(table)
    return np.asarray(-logs[np.arange(len(given)), given] + (table * logs).sum(axis=1))


def _overlooked(found: Predictions) -> Floats:
    """The score ``[M]`` of predictions where the given label is nothing."""
    p = np.clip(found.scores, LEAST, 1 - LEAST)
    firm = np.maximum(p, 0.5)
    return np.asarray(-np.log(1 - p) + firm * np.log(firm) + (1 - firm) * np.log(1 - firm))


def _judge(evidence: Evidence, n: int) -> Suspicion:
    found = evidence.reference.take(unlabelled(evidence))
    labels = _excess(class_probabilities(evidence, n), evidence.labels.categories)
    missed = _overlooked(found)
    summed = labels.sum() + missed[found.scores >= 0.5].sum()
    return Suspicion(float(summed), labels, found, missed)


def cross_entropy(evidences: Sequence[Evidence]) -> list[Suspicion]:
    """An image's score is the sum over its instances."""
    n = n_categories(evidences)
    return [_judge(evidence, n) for evidence in evidences]
