"""A picture's class as the loop keeps it: one label round the whole picture (docs/decisions)."""

from collections.abc import Mapping

import numpy as np

from emclean.loop.asking import drawn_at_random
from emclean.loop.cleaning import expert_labels
from emclean.loop.job import Job
from emclean.types import ImageRecord, Labels

LABEL = "class"
"""The instance id of a picture's one label."""


def label(record: ImageRecord, category: int, who: str = "") -> Labels:
    """A picture's class: one label round the whole of it."""
    whole = np.array([[0.0, 0.0, record.width, record.height]])
    return Labels(whole, np.array([category]), (LABEL,), (who,))


def classes_of(labels: Mapping[str, Labels]) -> dict[str, int]:
    """The class of each picture that has one."""
    return {i: int(own.categories[0]) for i, own in labels.items() if len(own)}


def answered(job: Job) -> dict[str, int]:
    """The class of each picture that an expert has named, by image id."""
    return classes_of(expert_labels(job))


def held(job: Job, round_: int) -> dict[str, int]:
    """The answered pictures that no training uses: every second one of those drawn at random.

    On them the gate, the calibration of the served probabilities and the estimates rest; a picture's place
    among the draws decides, so that no later draw moves it.
    """
    known = answered(job)
    return {i: known[i] for i in drawn_at_random(job, round_)[1::2] if i in known}


def trusted(job: Job, round_: int) -> dict[str, int]:
    """The answered pictures that trainings use."""
    kept = held(job, round_)
    return {i: k for i, k in answered(job).items() if i not in kept}
