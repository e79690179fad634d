"""What an image as a whole is worth asking about."""

from dataclasses import dataclass

import numpy as np

from emclean.science.cost import CostModel
from emclean.science.grading.evidence import Evidence
from emclean.types import GRADES, Bools, Floats, Predictions, Verdicts


@dataclass(frozen=True)
class ImageScore:
    """One image in numbers.

    ``discrepancy`` expected number of wrong or missing labels (what ``Pool.discrepancy`` takes); ``share``
    the same as a share of all instances, 0-1; ``uncertainty`` mean entropy of the model's scores in bits;
    ``expected_boxes`` objects that the expert's answer will probably hold; ``expected_minutes`` to correct
    the shown labels, ``blank_minutes`` to label the image from nothing.
    """

    discrepancy: float
    share: float
    uncertainty: float
    expected_boxes: float
    expected_minutes: float
    blank_minutes: float


def _entropy(predictions: Predictions, least: float = 0.05) -> float:
    """Mean binary entropy in bits of all scores of at least ``least``, 0 without any."""
    p = np.clip(predictions.above(least).scores, 1e-6, 1 - 1e-6)
    bits = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return float(bits.mean()) if len(bits) else 0.0


def _expected(verdicts: Verdicts) -> dict[str, float]:
    """The expected number of instances of each grade, candidates counted under ``missed`` only."""
    labels = verdicts.label >= 0
    counts: Floats = verdicts.posterior[labels].sum(axis=0)
    missed = verdicts.posterior[~labels, GRADES.index("missed")].sum()
    return {**dict(zip(GRADES, counts.tolist(), strict=True)), "missed": float(missed)}


SHOW = 0.5
"""A missed object or a spurious label is shown as a suggestion when it is more likely there than not."""


def shown(verdicts: Verdicts) -> Bools:
    """Which verdicts ``[K]`` the expert sees as suggestions.

    Not the labels that are probably spurious or duplicate, once that is known from an expert's answers, nor
    candidates that are probably no object.
    """
    kind = np.array(GRADES)[verdicts.grade]
    likely = verdicts.probability >= SHOW
    gone = np.isin(kind, ("spurious", "duplicate")) & likely & verdicts.calibrated
    return np.asarray(~gone & ((kind != "missed") | likely))


def expected_minutes(verdicts: Verdicts, costs: CostModel) -> float:
    """Expected minutes to mend what is shown: to confirm it where it is right, to move or delete it where it
    is wrong, and to draw what is not shown."""
    p, visible = verdicts.probability, shown(verdicts)
    missed = verdicts.grade == GRADES.index("missed")
    parts = np.maximum(np.bincount(verdicts.part_of, minlength=len(p))[: len(p)], 1)
    boxes = np.where(verdicts.grade == GRADES.index("merged"), parts, 1)
    wrong = np.where(missed, costs.verify_s, costs.move_s)
    seen = boxes * (p * costs.verify_s + (1 - p) * wrong)
    unseen = np.where(missed, p, 1 - p) * costs.draw_s
    return (costs.open_s + float(np.where(visible, seen, unseen).sum())) / 60


def image_score(evidence: Evidence, verdicts: Verdicts, model: CostModel | None = None) -> ImageScore:
    """Sum up an image's verdicts: how much is wrong, and what asking about it will cost."""
    costs = model if model is not None else CostModel()
    count = _expected(verdicts)
    n = len(evidence.labels)
    parts = np.bincount(verdicts.part_of, minlength=1)
    merged = float((parts[parts > 0]).mean()) if (parts > 0).any() else 2.0
    wrong = n - count["clean"] + count["missed"]
    added = count["missed"] + merged * count["merged"]
    boxes = n - count["spurious"] - count["duplicate"] - count["merged"] + added
    minutes = expected_minutes(verdicts, costs)
    total = max(n + count["missed"], 1e-9)
    blank = costs.full(1, boxes)
    return ImageScore(wrong, min(wrong / total, 1.0), _entropy(evidence.reference), boxes, minutes, blank)
