"""What the pool as a whole says of each annotator, with no expert: how far models agree with what they drew.

One label says little of who drew it, a hundred do. Out-of-sample models err alike for all annotators, so that
an annotator with whom they agree less than with the others is likely the worse one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from emclean.boxes import iou
from emclean.science.grading.evidence import Evidence, Habit
from emclean.types import Floats, Labels, Predictions

Key = TypeVar("Key")

_LABELS = 20.0
"""As many labels of a common annotator are added to each one's own."""
_IMAGES = 2.0
"""As many images likewise."""
_TAUGHT = 5


class _Seen(NamedTuple):
    """Sums over one annotator's labels ``[2]`` (overlap, support) and images, with their counts."""

    labels: Floats
    n_labels: int
    sight: float
    n_images: int

    def plus(self, other: "_Seen") -> "_Seen":
        """Both together."""
        return _Seen(
            self.labels + other.labels,
            self.n_labels + other.n_labels,
            self.sight + other.sight,
            self.n_images + other.n_images,
        )


_NOTHING = _Seen(np.zeros(2), 0, 0.0, 0)


def habits(evidences: Iterable[Evidence]) -> dict[str, Habit]:
    """The habit of every named annotator, against the mean of all; empty with fewer than two of them.

    Means over an annotator's labels and images are drawn towards those of all annotators by ``_LABELS`` and
    ``_IMAGES`` common ones, so that a few labels make nobody an exception.
    """
    seen: dict[str, _Seen] = {}
    for evidence in evidences:
        for name, mine in _of_image(evidence).items():
            seen[name] = seen.get(name, _NOTHING).plus(mine)
    if len(seen) < 2:
        return {}
    every = _NOTHING
    for mine in seen.values():
        every = every.plus(mine)
    return {name: _against(mine, every) for name, mine in seen.items()}


def with_habits(evidence: Mapping[Key, Evidence], n_expert: int) -> dict[Key, Evidence]:
    """A pool's evidence with its annotators told apart, where two or more are named.

    What a habit means is learnt from the expert's images: with fewer than ``_TAUGHT`` of the ``n_expert``
    for each annotator the grader learns single images by heart instead, and is better off without.
    """
    names = {name for one in evidence.values() for name in _named(one.labels)}
    if len(names) < 2 or n_expert < _TAUGHT * len(names):
        return dict(evidence)
    known = habits(evidence.values())
    return {key: replace(one, habits=known) for key, one in evidence.items()}


def _named(labels: Labels) -> list[str]:
    """Those who drew the labels, as far as they are known."""
    return sorted(set(labels.annotators) - {""})


def _of_image(evidence: Evidence) -> dict[str, _Seen]:
    """What one image says of each annotator who is named there."""
    labels, sure = evidence.labels, evidence.reference.take(evidence.confident_rows)
    agreed = _agreed(labels, sure)
    sight = float(np.log((sure.scores.sum() + 1.0) / (len(labels) + 1.0)))
    who = np.array(labels.annotators, dtype=np.str_)
    return {
        name: _Seen(agreed[who == name].sum(axis=0), int((who == name).sum()), sight, 1)
        for name in _named(labels)
    }


def _agreed(labels: Labels, sure: Predictions) -> Floats:
    """Of each label ``[N,2]`` the best IoU with a prediction, and the best IoU x score of its category."""
    overlap = iou(labels.boxes, sure.boxes)
    same = labels.categories[:, None] == sure.categories[None, :]
    weighted = np.where(same, overlap * sure.scores, 0.0)
    return np.stack([overlap.max(axis=1, initial=0.0), weighted.max(axis=1, initial=0.0)], axis=1)


def _against(mine: _Seen, every: _Seen) -> Habit:
    common = every.labels / every.n_labels
    own = (mine.labels + _LABELS * common) / (mine.n_labels + _LABELS) - common
    usual = every.sight / every.n_images
    sight = (mine.sight + _IMAGES * usual) / (mine.n_images + _IMAGES) - usual
    return Habit(float(own[0]), float(own[1]), float(sight))


def label_habits(labels: Labels, known: Mapping[str, Habit]) -> Floats:
    """A row ``[N,3]`` of habits for each label: zeros, as of the mean of all, for who is not known."""
    rows = [known.get(name, Habit(0.0, 0.0, 0.0)) for name in labels.annotators]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def candidate_habits(labels: Labels, known: Mapping[str, Habit], n: int) -> Floats:
    """The same row for every candidate of an image ``[n,3]``: the mean over its labels."""
    rows = label_habits(labels, known)
    mean = rows.mean(axis=0) if len(rows) else np.zeros(3)
    return np.tile(mean, (n, 1))
