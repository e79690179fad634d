"""How many labels are wrong, which ones, and how: confident learning, as ``cleanlab`` computes it.

Northcutt, Jiang, Chuang 2021 (J. Artificial Intelligence Research 70, 1373): a label is counted as truly of
class j where the out-of-sample probability of j reaches the mean that the pictures labelled j give to j
(equation 1); the counts, brought to the number of given labels, are the joint distribution (equation 3).
``cleanlab`` is imported when it is asked for.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.types import Floats

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RateEstimate:
    """What out-of-sample predictions say of the labels' errors.

    ``joint [K,K]`` is the share of pictures with this given label (row) and true one (column), and sums to
    1; ``rate`` the share off its diagonal; ``transition [K,K]`` the probability of the given label (column)
    where the true one is the row. A class that nothing seems to belong to keeps its labels in it.
    """

    joint: Floats
    rate: float
    transition: Floats


def estimate(labels: Ints, probabilities: Floats) -> RateEstimate:
    """Rate and kind of error of labels ``[n]`` by out-of-sample ``probabilities [n,K]``."""
    _check(labels, probabilities)
    joint: Floats = library().count.estimate_joint(labels, probabilities)
    true = joint.sum(axis=0)  # [K]
    with np.errstate(invalid="ignore"):
        transition = np.where(true > 0, joint / true, np.eye(len(joint))).T
    return RateEstimate(joint, float(1 - np.trace(joint)), transition)


def errors(labels: Ints, probabilities: Floats) -> NDArray[np.bool_]:
    """Mask ``[n]`` of the labels that are probably wrong: pruned by noise rate.

    For every given label i and true class j, as many as the joint says, those of the largest
    p(j) - p(i) (Northcutt 2021, section 3.2).
    """
    _check(labels, probabilities)
    found: NDArray[np.bool_] = library().filter.find_label_issues(
        labels, probabilities, filter_by="prune_by_noise_rate", n_jobs=1
    )
    return found


@dataclass(frozen=True)
class ConfidentJudge:
    """``estimate`` and ``errors`` as one value, to be handed to what may not import this."""

    def estimate(self, labels: Ints, probabilities: Floats) -> RateEstimate:
        """Rate and kind of error."""
        return estimate(labels, probabilities)

    def errors(self, labels: Ints, probabilities: Floats) -> NDArray[np.bool_]:
        """Mask of the labels that are probably wrong."""
        return errors(labels, probabilities)


def library() -> Any:
    """``cleanlab``, loaded when it is asked for."""
    import cleanlab.count
    import cleanlab.filter

    return cleanlab


def _check(labels: Ints, probabilities: Floats) -> None:
    if probabilities.ndim != 2 or len(labels) != len(probabilities) or not len(labels):
        raise ValueError(
            f"probabilities: expected one row for each of {len(labels)} labels (at least one), "
            f"got {probabilities.shape}"
        )
    missing = sorted(set(range(probabilities.shape[1])) - set(labels.tolist()))
    if missing:
        raise ValueError(f"labels: expected every class at least once, got none of {missing}")
