"""Which class labels are worth an expert's look: scores ``[n]``, the largest first."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import xlogy

from emclean.science import selection
from emclean.science.classes.votes import ABSENT
from emclean.types import Floats, Ints

_EDGE = 1e-6

STRATEGIES: Mapping[str, selection.Strategy] = {
    "random": selection.random,
    "uncertainty": selection.uncertainty,
    "cross_entropy": selection.ranked("cross_entropy"),
    "activelab": selection.ranked("activelab"),
}
"""Every strategy over classes by the name used in configurations."""


def entropy(probabilities: Floats) -> Floats:
    """Entropy ``[n]`` in nats of ``probabilities [n,K]``: how unsure the model is, whatever the label."""
    return np.asarray(-xlogy(probabilities, probabilities).sum(axis=1))


def cross_entropy(given: Ints | Floats, probabilities: Floats) -> Floats:
    """Cross-entropy of the given labels against the prediction, less the prediction's entropy.

    ``given`` is one label for each picture ``[n]``, or the share of its labels that name each class ``[n,K]``
    (:func:`emclean.science.classes.votes.shares`), of which one label is the special case of a share of 1.
    Source: Bernhardt et al. 2022 (Nature Communications 13, 1161), the score of their label cleaning: with
    l the normalised counts of a picture's labels and p the prediction,

        score = CE(l, p) - H(p) = - sum_k l_k log p_k + sum_k p_k log p_k.

    Large where the model is sure of another class than the labels name; that labellers differ, or that the
    model finds a picture hard, does not make it large alone. Chances are taken as 1e-6 at least.
    """
    logs = np.log(np.clip(probabilities, _EDGE, 1.0))
    soft = np.eye(probabilities.shape[1])[given] if given.ndim == 1 else given
    return np.asarray(-(soft * logs).sum(axis=1) - entropy(probabilities))


def activelab(votes: Ints, probabilities: Floats) -> Floats:
    """One less the ActiveLab score (Goh and Mueller 2023, arXiv 2301.11856), as ``cleanlab`` computes it.

    ``votes [n,L]`` of one or several labellers (-1: none); every picture needs one.
    """
    scores, _ = _multiannotator().get_active_learning_scores(_table(votes), probabilities)
    return np.asarray(1 - scores, dtype=np.float64)


def crowdlab(votes: Ints, probabilities: Floats) -> tuple[Ints, Floats]:
    """The consensus ``[n]`` of labellers and model, and the chance ``[n]`` that it is right.

    CROWDLAB (Goh, Tkachenko and Mueller 2022, arXiv 2210.06812), as ``cleanlab`` computes it: votes and
    out-of-sample ``probabilities [n,K]`` weigh by how often each agrees with the others.
    """
    table = _table(votes)
    if table.shape[1] < 2:
        raise ValueError(f"votes: expected those of several labellers, got {table.shape[1]} with any")
    found = _multiannotator().get_label_quality_multiannotator(
        table,
        probabilities,
        verbose=False,
        return_detailed_quality=False,
        return_annotator_stats=False,
    )["label_quality"]
    labels = np.asarray(found["consensus_label"], dtype=np.int64)
    return labels, np.asarray(found["consensus_quality_score"], dtype=np.float64)


def _table(votes: Ints) -> Floats:
    """Votes as ``cleanlab`` takes them; labellers without any vote are left out."""
    table = np.where(votes == ABSENT, np.nan, votes.astype(np.float64))
    return np.asarray(table[:, ~np.isnan(table).all(axis=0)])


def _multiannotator() -> Any:
    import cleanlab.multiannotator

    return cleanlab.multiannotator
