"""What is said of one label, or of one object without a label: grade, how likely it is wrong, fix, reason."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from emclean.audit.sources import Case
from emclean.boxes import iou
from emclean.stores.formats.coco import Key
from emclean.types import GRADES, Floats, Grade, Verdicts

LIKELY = 0.5
"""From this probability of error on an instance counts as probably wrong."""

FIXES: dict[Grade, str] = {
    "clean": "keep",
    "missed": "add",
    "shifted": "move",
    "merged": "split",
    "spurious": "delete",
    "mislabelled": "relabel",
    "duplicate": "delete",
}
"""The fix that each grade proposes; ``check`` stands where the models cannot say how."""

COLUMNS = (
    *("error", "calibrated", "image", "label_id", "grade", "probability", "category"),
    *("x1", "y1", "x2", "y2", "fix", "new_x1", "new_y1", "new_x2", "new_y2", "new_category", "parts"),
    *("score", "reason"),
)
"""The columns of ``instances.csv``, after the rank."""

Box = list[float]


class Finding(NamedTuple):
    """One judged instance. ``label`` is its index in the image, -1 for an object without a label.

    ``error`` is the probability that the label is wrong, or that an object is missing here; ``box`` corners
    in px; ``new_box``, ``new_category`` and ``parts`` what the fix changes, else None or empty; ``score``
    the matched prediction's.
    """

    key: Key
    image: str
    label: int
    label_id: str
    grade: Grade
    probability: float
    error: float
    calibrated: bool
    category: int
    box: Box
    fix: str
    new_box: Box | None
    new_category: int | None
    parts: list[Box]
    score: float | None
    reason: str

    def cells(self, names: Sequence[str]) -> list[Any]:
        """The row of ``instances.csv`` (``COLUMNS``)."""
        new = self.new_box if self.new_box is not None else [""] * 4
        return [
            self.error,
            "yes" if self.calibrated else "no",
            self.image,
            self.label_id,
            self.grade,
            self.probability,
            names[self.category],
            *self.box,
            self.fix,
            *new,
            "" if self.new_category is None else names[self.new_category],
            "; ".join(" ".join(f"{side:g}" for side in part) for part in self.parts) if self.parts else "",
            "" if self.score is None else self.score,
            self.reason,
        ]

    def fields(self, category_ids: Sequence[Key]) -> dict[str, Any]:
        """What is added to the label's row in the COCO file."""
        fields: dict[str, Any] = {
            "grade": self.grade,
            "probability": self.probability,
            "error": self.error,
            "calibrated": self.calibrated,
            "fix": self.fix,
            "reason": self.reason,
        }
        if self.new_box is not None:
            fields["bbox"] = sides(self.new_box)
        if self.new_category is not None:
            fields["category_id"] = category_ids[self.new_category]
        if self.parts:
            fields["parts"] = [sides(part) for part in self.parts]
        return fields


def sides(box: Sequence[float]) -> Box:
    """COCO's x, y, width, height of one box, to the hundredth of a pixel."""
    x1, y1, x2, y2 = (float(side) for side in box)
    return [round(x1, 2), round(y1, 2), round(x2 - x1, 2), round(y2 - y1, 2)]


def errors(verdicts: Verdicts) -> Floats:
    """The probability ``[K]`` that a label is wrong, or that an object is missing where none is."""
    missing = verdicts.posterior[:, GRADES.index("missed")]
    return np.where(verdicts.label >= 0, 1 - verdicts.posterior[:, 0], missing)


def findings(case: Case, verdicts: Verdicts) -> list[Finding]:
    """What is said of every instance of an image, in the order of the verdicts."""
    labels, seen, n = case.labels, case.evidence.crowd, len(case.labels)
    boxes = np.round(np.concatenate([labels.boxes, verdicts.box[n:]]), 2).tolist()
    moved = np.round(verdicts.box, 2).tolist()
    categories = np.concatenate([labels.categories, verdicts.category[n:]]).tolist()
    called = verdicts.category.tolist()
    scores = np.round(np.append(seen.scores, 0.0)[verdicts.prediction], 4).tolist()
    pieces = _pieces(verdicts)
    rows = zip(
        verdicts.label.tolist(),
        verdicts.names(),
        np.round(verdicts.probability, 6).tolist(),
        np.round(errors(verdicts), 6).tolist(),
        verdicts.prediction.tolist(),
        verdicts.reason,
        strict=True,
    )
    found = []
    for k, (label, grade, probability, error, prediction, reason) in enumerate(rows):
        own, parts = boxes[k], pieces.get(k, [])
        new_box = moved[k] if grade == "shifted" and moved[k] != own else None
        called_now = called[k] if grade == "mislabelled" and called[k] != categories[k] else None
        if grade == "duplicate":
            reason = _twin(case, label)
        found.append(
            Finding(
                key=case.key,
                image=case.entry.file_name,
                label=label,
                label_id=labels.ids[label] if label >= 0 else "",
                grade=grade,
                probability=probability,
                error=error,
                calibrated=verdicts.calibrated,
                category=categories[k],
                box=own,
                fix=_fix(grade, new_box, called_now, parts),
                new_box=new_box,
                new_category=called_now,
                parts=parts,
                score=scores[k] if prediction >= 0 else None,
                reason=reason,
            )
        )
    return found


def _fix(grade: Grade, new_box: Box | None, category: int | None, parts: list[Box]) -> str:
    """The fix by name; where its detail is lacking, somebody has to look."""
    if (grade == "shifted" and new_box is None) or (grade == "mislabelled" and category is None):
        return "check"
    return "check" if grade == "merged" and len(parts) < 2 else FIXES[grade]


def _pieces(verdicts: Verdicts) -> dict[int, list[Box]]:
    """The parts of each merged label, by verdict."""
    pieces: dict[int, list[Box]] = {}
    for owner, part in zip(verdicts.part_of.tolist(), np.round(verdicts.parts, 2).tolist(), strict=True):
        pieces.setdefault(owner, []).append(part)
    return pieces


def _twin(case: Case, label: int) -> str:
    """Which other label shows the same object: the one that overlaps this one most, if any does."""
    overlap = iou(case.labels.boxes[label : label + 1], case.labels.boxes)[0]
    overlap[label] = 0.0
    twin = int(overlap.argmax())
    if not overlap[twin]:
        return "it seems to show an object twice, but no other label overlaps it"
    return f"the same object as label {case.labels.ids[twin]}"
