"""The words that all parts share: frozen values, right once they exist.

Boxes are always ``[N, 4]`` float64 corners ``x1, y1, x2, y2`` in pixels of the full image, with
``x1 < x2`` and ``y1 < y2``; categories are ``[N]`` int64 indices into the project's list of
category names (0-based, no background class).
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Grade = Literal["clean", "missed", "shifted", "merged", "spurious", "mislabelled", "duplicate"]

GRADES: tuple[Grade, ...] = ("clean", "missed", "shifted", "merged", "spurious", "mislabelled", "duplicate")
"""What a grade may say of one instance. ``missed`` has no crowd box; the others have one."""

NOISE_KINDS = GRADES[1:]
"""The kinds of crowd error, as named in noise ledgers and grades."""

Source = Literal["crowd", "auto", "expert"]
Event = Literal["added", "moved", "relabelled", "deleted", "verified"]


def as_boxes(values: ArrayLike) -> Floats:
    """Return ``values`` as ``[N, 4]`` float64 corners; refuse what is not finite or has no area."""
    boxes = np.array(values, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(boxes).all():
        raise ValueError("boxes: expected finite numbers, got NaN or infinity")
    if not ((boxes[:, 2:] > boxes[:, :2]).all()):
        raise ValueError("boxes: expected x1 < x2 and y1 < y2, got a box without area")
    return boxes


def _column(name: str, values: ArrayLike, dtype: Any, length: int) -> NDArray[Any]:
    column = np.array(values, dtype=dtype).reshape(-1)
    if len(column) != length:
        raise ValueError(f"{name}: expected {length} values, got {len(column)}")
    return column


def _rows(index: ArrayLike, length: int) -> Ints:
    chosen = np.asarray(index)
    if chosen.size == 0:  # an empty list has no integer type
        return np.zeros(0, np.int64)
    return np.asarray(np.arange(length, dtype=np.int64)[chosen])


def _set(value: object, **fields: object) -> None:
    for name, content in fields.items():
        if isinstance(content, np.ndarray):
            content.setflags(write=False)
        object.__setattr__(value, name, content)


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of one image: ``boxes [N,4]``, ``categories [N]``, ``ids`` (N instance ids).

    ``annotators`` names who drew each box, empty strings where that is not known.
    """

    boxes: Floats
    categories: Ints
    ids: tuple[str, ...] = ()
    annotators: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        boxes = as_boxes(self.boxes)
        n = len(boxes)
        ids = tuple(self.ids) or tuple(str(i) for i in range(n))
        annotators = tuple(self.annotators) or ("",) * n
        for name, column in (("ids", ids), ("annotators", annotators)):
            if len(column) != n:
                raise ValueError(f"{name}: expected {n} values, got {len(column)}")
        categories = _column("categories", self.categories, np.int64, n)
        _set(self, boxes=boxes, categories=categories, ids=ids, annotators=annotators)

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, index: ArrayLike) -> "Labels":
        """The instances at ``index`` (integers or a mask), in that order."""
        rows = _rows(index, len(self))
        return Labels(
            self.boxes[rows],
            self.categories[rows],
            tuple(self.ids[i] for i in rows),
            tuple(self.annotators[i] for i in rows),
        )

    @staticmethod
    def empty() -> "Labels":
        """Labels of an image without objects."""
        return Labels(np.zeros((0, 4)), np.zeros(0, np.int64))


@dataclass(frozen=True, eq=False)
class Predictions:
    """A detector's answer for one image: ``boxes [N,4]``, ``categories [N]``, ``scores [N]`` in 0-1."""

    boxes: Floats
    categories: Ints
    scores: Floats

    def __post_init__(self) -> None:
        boxes = as_boxes(self.boxes)
        categories = _column("categories", self.categories, np.int64, len(boxes))
        scores = _column("scores", self.scores, np.float64, len(boxes))
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError("scores: expected numbers from 0 to 1")
        _set(self, boxes=boxes, categories=categories, scores=scores)

    def __len__(self) -> int:
        return len(self.boxes)

    def take(self, index: ArrayLike) -> "Predictions":
        """The predictions at ``index`` (integers or a mask), in that order."""
        rows = _rows(index, len(self))
        return Predictions(self.boxes[rows], self.categories[rows], self.scores[rows])

    def above(self, score: float) -> "Predictions":
        """Only the predictions with at least this score."""
        return self.take(self.scores >= score)

    @staticmethod
    def empty() -> "Predictions":
        """The answer for an image in which nothing was found."""
        return Predictions(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0))


@dataclass(frozen=True, eq=False)
class Target:
    """What a detector is trained on in one image.

    ``weights [N]`` scale each instance's classification loss, ``regress [N]`` says which boxes are
    trusted for box regression, and inside ``ignore [M,4]`` no negative loss is counted for the category
    ``ignore_categories [M]`` (-1, the default: for any), because an unlabelled object may be there.
    """

    boxes: Floats
    categories: Ints
    weights: Floats = field(default_factory=lambda: np.zeros(0))
    regress: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))
    ignore: Floats = field(default_factory=lambda: np.zeros((0, 4)))
    ignore_categories: Ints = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        boxes = as_boxes(self.boxes)
        ignore = as_boxes(self.ignore)
        n, m = len(boxes), len(ignore)
        of = self.ignore_categories if len(self.ignore_categories) else np.full(m, -1)
        _set(
            self,
            boxes=boxes,
            categories=_column("categories", self.categories, np.int64, n),
            weights=_column("weights", self.weights if len(self.weights) else np.ones(n), np.float64, n),
            regress=_column("regress", self.regress if len(self.regress) else np.ones(n), np.bool_, n),
            ignore=ignore,
            ignore_categories=_column("ignore_categories", of, np.int64, m),
        )

    def __len__(self) -> int:
        return len(self.boxes)

    @staticmethod
    def of(labels: Labels) -> "Target":
        """A target that trusts every label fully."""
        return Target(labels.boxes, labels.categories)


@dataclass(frozen=True)
class ImageRecord:
    """One image of the pool or test set.

    ``image_id`` is the content address (first 16 hex digits of the SHA-256 of the file's bytes),
    ``uri`` an absolute path or fsspec URI, ``pixel_size_nm`` the side of a pixel in nanometres where
    the file tells it, ``bit_depth`` 8 or 16 (or 32 for float files), ``group`` a section or article
    that must not be split between parts.
    """

    image_id: str
    uri: str
    name: str
    width: int
    height: int
    bit_depth: int = 8
    pixel_size_nm: float | None = None
    group: str = ""


@dataclass(frozen=True)
class SetAside:
    """An image or label that was not used: ``item`` (file, field or row), ``reason``, ``kind``."""

    kind: Literal["image", "label"]
    item: str
    reason: str


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Grades of the instances of one image, as aligned arrays over K judged instances.

    ``label [K]`` index of the judged label, -1 for a ``missed`` object; ``prediction [K]`` index of the
    matched or proposed prediction of the cleaning model, -1 without one; ``grade [K]`` index into
    ``GRADES``; ``probability [K]`` of that grade, calibrated when ``calibrated``; ``box [K,4]`` and
    ``category [K]`` the proposed correction (the label's own where nothing changes); ``parts``
    ``[P,4]`` with ``part_of [P]`` the boxes that a ``merged`` one is split into; ``reason`` K short
    English phrases for the expert; ``posterior [K, len(GRADES)]`` the probability of every grade (for a
    ``missed`` row the column ``clean`` says that nothing is missing there); where it is not given, what
    ``probability`` leaves is spread evenly over the other grades.
    """

    label: Ints
    prediction: Ints
    grade: Ints
    probability: Floats
    box: Floats
    category: Ints
    reason: tuple[str, ...]
    parts: Floats = field(default_factory=lambda: np.zeros((0, 4)))
    part_of: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    calibrated: bool = False
    posterior: Floats = field(default_factory=lambda: np.zeros((0, len(GRADES))))

    def __post_init__(self) -> None:
        k = len(self.label)
        parts = as_boxes(self.parts)
        grade = _column("grade", self.grade, np.int64, k)
        probability = _column("probability", self.probability, np.float64, k)
        if len(self.reason) != k:
            raise ValueError(f"reason: expected {k} phrases, got {len(self.reason)}")
        _set(
            self,
            label=_column("label", self.label, np.int64, k),
            prediction=_column("prediction", self.prediction, np.int64, k),
            grade=grade,
            probability=probability,
            box=np.array(self.box, dtype=np.float64).reshape(k, 4),
            category=_column("category", self.category, np.int64, k),
            reason=tuple(self.reason),
            parts=parts,
            part_of=_column("part_of", self.part_of, np.int64, len(parts)),
            posterior=self._posterior(grade, probability),
        )

    def _posterior(self, grade: Ints, probability: Floats) -> Floats:
        if len(self.posterior):
            return np.array(self.posterior, dtype=np.float64).reshape(len(grade), len(GRADES))
        chosen = np.eye(len(GRADES))[grade]
        rest = (1 - chosen) / (len(GRADES) - 1)
        return np.asarray(chosen * probability[:, None] + rest * (1 - probability[:, None]))

    def __len__(self) -> int:
        return len(self.label)

    def names(self) -> tuple[Grade, ...]:
        """The grade of each judged instance as a word."""
        return tuple(GRADES[i] for i in self.grade)


@dataclass(frozen=True, eq=False)
class Settled:
    """What an expert has said of single instances of an image, without answering for the whole of it.

    ``kept`` the labels as they stand by the expert's word; ``decided`` the ids of all instances that were
    decided on, kept or not; ``empty [M,4]`` boxes that the expert deleted: nothing of the kind is there.
    """

    kept: Labels
    decided: frozenset[str] = frozenset()
    empty: Floats = field(default_factory=lambda: np.zeros((0, 4)))

    def __post_init__(self) -> None:
        _set(self, empty=as_boxes(self.empty))


@dataclass(frozen=True)
class Suggestion:
    """A box shown to the expert: where, what, how sure, and why it is shown."""

    suggestion_id: str
    box: tuple[float, float, float, float]
    category: str
    score: float
    grade: str = ""
    reason: str = ""


@dataclass(frozen=True)
class TaskSpec:
    """One question to the expert.

    ``key`` is the external key ``{run}/{image_id}/{round}`` that makes pushing exactly-once; of an ``image``
    every object is to be marked, in a ``review`` only the suggestions are to be decided; ``blind`` tasks
    show no suggestion; ``value`` orders the tasks (largest first). ``seen_by`` names those who have answered
    about the image before: somebody else is to take this second look.
    """

    key: str
    image: ImageRecord
    suggestions: tuple[Suggestion, ...] = ()
    kind: Literal["image", "review"] = "image"
    blind: bool = False
    value: float = 0.0
    seen_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnsweredBox:
    """One box of an expert's answer; ``suggestion_id`` names the suggestion it came from, or is empty."""

    box: tuple[float, float, float, float]
    category: str
    suggestion_id: str = ""


@dataclass(frozen=True)
class Answer:
    """One annotation pulled from the label service.

    ``annotation_id`` and ``updated_at`` (ISO 8601, server clock) identify the version; ``skipped`` answers
    carry no boxes and count as no label; an empty, not skipped answer says "no objects".
    """

    key: str
    task_id: int
    annotation_id: int
    updated_at: str
    annotator: str
    boxes: tuple[AnsweredBox, ...] = ()
    skipped: bool = False
    lead_time_s: float | None = None


@dataclass(frozen=True)
class Pull:
    """What one poll of the label service brought: every task's newest answers, and the tasks that are gone.

    ``answers`` hold one entry per annotation; ``deleted`` lists the keys whose task no longer exists;
    ``open`` the keys still without an answer.
    """

    answers: tuple[Answer, ...]
    deleted: tuple[str, ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What the expert spent: images opened, boxes touched by kind, minutes."""

    images: int = 0
    added: int = 0
    moved: int = 0
    deleted: int = 0
    verified: int = 0
    minutes: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        pairs = zip(self.as_row(), other.as_row(), strict=True)
        images, added, moved, deleted, verified, minutes = (a + b for a, b in pairs)
        return Cost(int(images), int(added), int(moved), int(deleted), int(verified), minutes)

    def as_row(self) -> tuple[float, ...]:
        """The six numbers in the order of the fields."""
        return (self.images, self.added, self.moved, self.deleted, self.verified, self.minutes)


@dataclass(frozen=True)
class LabelQuality:
    """Precision, recall and F1 of labels against truth at IoU 0.5, and the mean IoU of the matches."""

    precision: float
    recall: float
    f1: float
    mean_iou: float
