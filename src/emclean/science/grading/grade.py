"""From evidence to verdicts: the grade of every instance, its probability, correction and reason."""

from typing import Protocol

import numpy as np

from emclean.boxes import clip
from emclean.science.grading.evidence import Evidence
from emclean.science.grading.features import LABEL_FEATURES, Features, features
from emclean.science.grading.rules import Rules
from emclean.types import GRADES, Floats, Grade, Ints, Verdicts

_AT = {name: i for i, name in enumerate(LABEL_FEATURES)}
_MISSED = GRADES.index("missed")


class Grader(Protocol):
    """What turns rows of features into probabilities; ``calibrated`` says whether they may be called that."""

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities were fitted to an expert's answers."""

    def label_posterior(self, rows: Floats) -> Floats:
        """The probability ``[N, len(GRADES)]`` of each grade of each label."""

    def missed_probability(self, rows: Floats, categories: Ints) -> Floats:
        """The probability ``[M]`` that each candidate is an object without a label."""


def _why(kind: Grade, row: Floats, twin: int, parts: int, called: str) -> str:
    """A short phrase for the expert; ``called`` is the other category that a label could be, if any."""
    overlap, score = row[_AT["matched_iou"]], row[_AT["matched_score"]]
    phrases: dict[Grade, str] = {
        "clean": f"the model agrees (IoU {overlap:.2f})",
        "shifted": f"the model places it differently (IoU {overlap:.2f})",
        "merged": f"{parts} objects predicted inside",
        "spurious": "no model sees an object here",
        "mislabelled": f"the model calls it {called}",
        "duplicate": "another label shows the same object",
    }
    if kind == "clean" and overlap < 0.3:
        return "nothing speaks against it"
    if kind == "spurious" and score > 0.3:
        return f"little speaks for it (IoU {overlap:.2f})"
    if kind == "shifted" and overlap <= 0:  # the grader may be sure of a grade whose fix no model shows
        return "it seems out of place, but the model sees no object that it fits"
    if kind == "mislabelled" and not called:
        return "its category is doubtful, but the model knows no other for it"
    if kind == "duplicate" and twin < 0:
        return "it seems to show an object twice, but no other label overlaps it"
    if kind == "merged" and parts < 2:
        return "it seems to hold several objects, but the model does not tell them apart"
    return phrases[kind]


def _called(evidence: Evidence, found: Features) -> list[str]:
    """What else each label could be called; nothing where only its own category speaks for it."""
    pairs = zip(found.category.tolist(), evidence.labels.categories.tolist(), strict=True)
    numbered = dict(enumerate(evidence.names))
    return ["" if other == own else numbered.get(other, f"category {other}") for other, own in pairs]


def _reasons(evidence: Evidence, found: Features, grades: Ints) -> tuple[str, ...]:
    called = _called(evidence, found)
    parts = np.bincount(found.part_of, minlength=len(grades)) if len(grades) else np.zeros(0, np.int64)
    of_labels = [
        _why(GRADES[g], found.labels[i], int(found.twin[i]), int(parts[i]), called[i])
        for i, g in enumerate(grades)
    ]
    return (*of_labels, *["the model sees an object here that has no label"] * len(found.proposed))


def _missed_rows(probability: Floats) -> Floats:
    """The posterior of candidates: missed, or (in the column clean) nothing there."""
    rows = np.zeros((len(probability), len(GRADES)))
    rows[:, _MISSED] = probability
    rows[:, 0] = 1 - probability
    return rows


def _corrected(evidence: Evidence, found: Features, grades: Ints) -> tuple[Floats, Ints]:
    """The box and category that each label should have, its own where the grade changes nothing."""
    labels = evidence.labels
    shifted = grades == GRADES.index("shifted")
    relabelled = grades == GRADES.index("mislabelled")
    boxes = np.where(shifted[:, None], clip(found.moved, evidence.width, evidence.height), labels.boxes)
    sized = np.all(boxes[:, 2:] > boxes[:, :2], axis=1, keepdims=True)
    boxes = np.where(sized, boxes, labels.boxes)
    return boxes, np.where(relabelled, found.category, labels.categories)


def verdicts(
    evidence: Evidence, found: Features, posterior: Floats, missed: Floats, calibrated: bool
) -> Verdicts:
    """Verdicts from known probabilities: ``posterior [N, len(GRADES)]`` of labels, ``missed [M]``."""
    n, reference = len(evidence.labels), evidence.reference
    grades = posterior.argmax(axis=1).astype(np.int64) if n else np.zeros(0, np.int64)
    boxes, categories = _corrected(evidence, found, grades)
    merged = np.isin(found.part_of, np.flatnonzero(grades == GRADES.index("merged")))
    return Verdicts(
        label=np.concatenate([np.arange(n), np.full(len(missed), -1)]),
        prediction=np.concatenate([found.matched, found.proposed]),
        grade=np.concatenate([grades, np.full(len(missed), _MISSED)]),
        probability=np.concatenate([posterior[np.arange(n), grades], missed]),
        box=np.concatenate([boxes, reference.boxes[found.proposed]]),
        category=np.concatenate([categories, reference.categories[found.proposed]]),
        reason=_reasons(evidence, found, grades),
        parts=found.parts[merged],
        part_of=found.part_of[merged],
        calibrated=calibrated,
        posterior=np.concatenate([posterior, _missed_rows(missed)]),
    )


def grade(evidence: Evidence, calibrator: Grader | None = None) -> Verdicts:
    """Judge every label of an image and every confident prediction without one.

    The first N verdicts are those of the labels, in order; then follow the ``missed`` ones. Without a
    ``calibrator`` the probabilities are raw scores of rules.
    """
    return judged(evidence, features(evidence), calibrator if calibrator is not None else Rules())


def judged(evidence: Evidence, found: Features, judge: Grader) -> Verdicts:
    """``grade`` for features that are worked out already: they take most of the time, and the picture."""
    posterior = judge.label_posterior(found.labels)
    called = evidence.reference.categories[found.proposed]
    missed = judge.missed_probability(found.candidates, called)
    return verdicts(evidence, found, posterior, missed, judge.calibrated)
