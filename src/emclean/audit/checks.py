"""How good the audit is where the truth is known: every image judged without its own truth."""

from array import array
from collections import Counter
from dataclasses import dataclass

import numpy as np

from emclean.audit.findings import LIKELY, errors
from emclean.audit.judging import CROWDED
from emclean.audit.sources import Case
from emclean.boxes import match
from emclean.science.truth import missed_right, right_fixes, true_grades
from emclean.types import GRADES, Bools, Floats, Labels, Verdicts

_BINS = 10


@dataclass(frozen=True)
class KindCheck:
    """One kind of error, counted over the images with truth.

    ``said`` likely verdicts of the kind, of which ``right`` mend the label; ``safe`` and ``safe_right`` are
    those corrected unasked; ``true`` errors of the kind there are, ``named`` of them
    by their kind.
    """

    said: int
    right: int
    safe: int
    safe_right: int
    true: int
    named: int

    @property
    def precision(self) -> float | None:
        """Share of likely verdicts whose fix mends the label."""
        return self.right / self.said if self.said else None

    @property
    def recall(self) -> float | None:
        """Share of the errors of the kind that were given their kind."""
        return self.named / self.true if self.true else None


@dataclass(frozen=True)
class Check:
    """Over all images with truth: per kind, and of the ranking by probability of error.

    ``average_precision`` of finding wrong labels and missed objects (``prevalence``: what a random order
    reaches), the calibration error of these probabilities, and the labels' F1 at IoU 0.5 before and after
    the automatic corrections (None without any).
    """

    images: int
    kinds: dict[str, KindCheck]
    average_precision: float | None
    prevalence: float | None
    calibration_error: float | None
    f1_before: float
    f1_after: float | None


class Checker:
    """Adds up the check image by image."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()
        self._error, self._wrong = array("f"), array("b")
        self._unseen = self._images = 0
        self._hits: Counter[str] = Counter()

    def add(self, case: Case, verdicts: Verdicts, truth: Labels, safe: Bools) -> None:
        """One image; ``safe [K]`` are the verdicts that are acted on. Very crowded images are left out."""
        labels = case.labels
        if len(labels) + len(truth) > CROWDED:
            return
        self._images += 1
        known = true_grades(labels, truth)
        right = right_fixes(labels, verdicts, truth, known)
        found = missed_right(verdicts, truth, known)
        true = np.concatenate([known.grade, np.where(found, GRADES.index("missed"), 0)])
        self._error.extend(errors(verdicts).tolist())
        self._wrong.extend((true != 0).astype(np.int8).tolist())
        self._unseen += len(known.missed) - int(found.sum())
        likely = errors(verdicts) >= LIKELY
        for k, kind in enumerate(GRADES):
            mine = (verdicts.grade == k) & likely
            self._counts[kind, "said"] += int(mine.sum())
            self._counts[kind, "right"] += int((mine & right).sum())
            self._counts[kind, "safe"] += int((mine & safe).sum())
            self._counts[kind, "safe_right"] += int((mine & safe & right).sum())
            self._counts[kind, "true"] += int((true == k).sum())
            self._counts[kind, "named"] += int((mine & (true == k)).sum())
        self._counts["missed", "true"] += len(known.missed) - int(found.sum())

    def compare(self, name: str, labels: Labels, truth: Labels) -> None:
        """Count the labels of an image that show an object, for the F1 of ``before`` or ``after``."""
        if len(labels) + len(truth) > CROWDED:
            return
        same = labels.categories[:, None] == truth.categories[None, :]
        self._hits[name] += 2 * len(match(labels.boxes, truth.boxes, 0.5, same)[0])
        self._hits[f"{name} of"] += len(labels) + len(truth)

    def _f1(self, name: str) -> float:
        total = self._hits[f"{name} of"]
        return self._hits[name] / total if total else 1.0

    def result(self, corrected: bool) -> Check | None:
        """The check, or None when no image had a truth."""
        if not self._images:
            return None
        fields = ("said", "right", "safe", "safe_right", "true", "named")
        kinds: dict[str, KindCheck] = {
            kind: KindCheck(*(self._counts[kind, field] for field in fields)) for kind in GRADES
        }
        error, wrong = np.array(self._error, dtype=np.float64), np.array(self._wrong, dtype=np.bool_)
        positives = int(wrong.sum()) + self._unseen
        return Check(
            images=self._images,
            kinds=kinds,
            average_precision=average_precision(error, wrong, positives) if positives else None,
            prevalence=float(wrong.mean()) if len(wrong) else None,
            calibration_error=calibration_error(error, wrong) if len(wrong) else None,
            f1_before=self._f1("before"),
            f1_after=self._f1("after") if corrected else None,
        )


def average_precision(score: Floats, wrong: Bools, positives: int) -> float:
    """The mean, over all ``positives``, of the precision at each one's rank; those not listed count 0.

    Entries of equal score share the precision at the end of their tie.
    """
    order = np.argsort(-score, kind="stable")
    ranked, hits = score[order], np.cumsum(wrong[order])
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # end of each tie
    precision = hits[last] / (last + 1)
    return float(precision[wrong[order]].sum() / positives)


def calibration_error(probability: Floats, wrong: Bools) -> float:
    """Expected calibration error: mean gap of probability and frequency over ten bins of equal width."""
    bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
    said, seen = np.bincount(bins, probability, _BINS), np.bincount(bins, wrong, _BINS)
    return float(np.abs(said - seen).sum() / len(bins))
