"""Label cleaning by cross-entropy (Bernhardt et al. 2022, Nature Communications 13, 1161), lifted to boxes.

The published score of an image with one class label is the cross-entropy of the label under the prediction
less the prediction's own entropy: wrong labels that the model finds clear come first, ambiguous ones last.
Lifting it is ours: every label, and every predicted object without one (label: nothing), is an instance.
"""

from collections.abc import Sequence

import numpy as np

from emclean.science.grading.evidence import Evidence
from emclean.science.rivals.base import (
    Suspicion,
    class_probabilities,
    n_categories,
    normalised,
    unlabelled,
)
from emclean.types import Floats, Ints


def _excess(table: Floats, given: Ints) -> Floats:
    """Cross-entropy less entropy, in nats, of rows ``table [N,C]`` for the classes ``given [N]``."""
    logs = np.log(table)
    return np.asarray(-logs[np.arange(len(given)), given] + (table * logs).sum(axis=1))


def _judge(evidence: Evidence, n: int) -> Suspicion:
    rows = unlabelled(evidence)
    found = evidence.reference.take(rows)
    outside = np.zeros((len(rows), n + 1))
    outside[np.arange(len(rows)), found.categories] = found.scores
    outside[:, n] = 1 - found.scores
    labels = _excess(class_probabilities(evidence, n), evidence.labels.categories)
    missed = _excess(normalised(outside), np.full(len(rows), n, dtype=np.int64))
    return Suspicion(float(labels.sum() + missed.sum()), labels, found, missed)


def cross_entropy(evidences: Sequence[Evidence]) -> list[Suspicion]:
    """An image's score is the sum over its instances."""
    n = n_categories(evidences)
    return [_judge(evidence, n) for evidence in evidences]
