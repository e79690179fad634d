"""What a grader looks at: per label and per unmatched prediction, one row of numbers.

``features`` relates the labels of an image to the predictions of every model once; graders, corrections
and reasons all read the same result.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from emclean.boxes import area, assign, centre, intersection, iou, nms
from emclean.science.grading.appearance import CANDIDATE_LOOKS, LABEL_LOOKS, looks
from emclean.science.grading.evidence import Evidence
from emclean.science.grading.habits import candidate_habits, label_habits
from emclean.types import Bools, Floats, Ints, Labels, Predictions

_MODELS = ("cleaning", "consensus", "crowd")
_OF_MODEL = ("overlap", "score", "support", "other")
LABEL_FEATURES = (
    *(f"{model}_{name}" for model in _MODELS for name in _OF_MODEL),
    *("matched_iou", "matched_score", "support_mean", "support_spread", "overlap_spread", "other_lead"),
    *("contained", "contained_mass", "contained_cover", "contained_fit"),
    *("twin_iou", "twin_lead", "holds_labels", "held_by_label"),
    *("log_size", "log_aspect", "at_border", "neighbours", "image_support", "image_ratio"),
    *LABEL_LOOKS,
)
"""The columns of ``Features.labels``; where annotators are told apart, those of ``habits`` follow."""

CANDIDATE_FEATURES = (
    *("score", "consensus_support", "crowd_support", "other_support", "models_agree"),
    *("label_overlap", "in_label", "holds_labels", "rival_overlap", "contained_mass"),
    *("log_size", "log_aspect", "at_border", "neighbours", "image_support", "image_ratio"),
    *CANDIDATE_LOOKS,
    "place",
)
"""The columns of ``Features.candidates``; where annotators are told apart, those of ``habits`` follow."""


@dataclass(frozen=True, eq=False)
class Features:
    """One image's labels (N) and candidates for missed objects (M), as numbers and as geometry.

    ``labels [N, len(LABEL_FEATURES)]``, ``candidates [M, len(CANDIDATE_FEATURES)]`` (three columns more where
    annotators are told apart); ``matched [N]`` the
    reference prediction of each label or -1; ``proposed [M]`` the reference prediction of each candidate;
    ``moved [N,4]`` where the models see the label's object; ``category [N]`` the other category that
    speaks most for it (its own without one);
    ``twin [N]`` the label that may show the same object or -1; ``parts [P,4]``, ``part_of [P]`` predictions
    that lie within a label which holds at least two.
    """

    labels: Floats
    candidates: Floats
    matched: Ints
    proposed: Ints
    moved: Floats
    category: Ints
    twin: Ints
    parts: Floats
    part_of: Ints


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Two sets of boxes related once: areas ``a [N]``, ``b [M]`` and what they ``share [N,M]``."""

    a: Floats
    b: Floats
    share: Floats

    @staticmethod
    def of(first: Floats, second: Floats) -> "_Pairs":
        return _Pairs(area(first), area(second), intersection(first, second))

    def columns(self, chosen: Ints) -> "_Pairs":
        """The pairs with some of the second set."""
        return _Pairs(self.a, self.b[chosen], self.share[:, chosen])

    def iou(self) -> Floats:
        """Intersection over union ``[N,M]``."""
        union = self.a[:, None] + self.b
        union -= self.share
        return np.asarray(self.share / np.maximum(union, 1e-12, out=union))

    def within(self, part: float) -> Bools:
        """Where at least this part of the first box lies within the second ``[N,M]``."""
        return np.asarray(self.share >= part * np.maximum(self.a, 1e-12)[:, None])

    def around(self, part: float) -> Bools:
        """Where at least this part of the second box lies within the first ``[N,M]``."""
        return np.asarray(self.share >= part * np.maximum(self.b, 1e-12))


@dataclass(frozen=True, eq=False)
class _View:
    """One model's predictions related to boxes: IoU ``[N,P]`` and where categories agree ``[N,P]``."""

    predictions: Predictions
    overlap: Floats
    same: Bools


def _view(categories: Ints, predictions: Predictions, overlap: Floats) -> _View:
    return _View(predictions, overlap, categories[:, None] == predictions.categories[None, :])


def _views(boxes: Floats, categories: Ints, models: Sequence[Predictions], first: Floats) -> list[_View]:
    """A view of each model, where one often stands in for another; ``first`` is the IoU with the first."""
    known = {id(models[0]): _view(categories, models[0], first)}
    for model in models:
        if id(model) not in known:
            known[id(model)] = _view(categories, model, iou(boxes, model.boxes))
    return [known[id(model)] for model in models]


def _top(values: Floats) -> Floats:
    """The largest of each row, 0 for rows without columns."""
    return np.asarray(values.max(axis=1, initial=0.0))


def _model_columns(view: _View) -> list[Floats]:
    """Best overlap, score of that prediction, best score x IoU of the same and of another category."""
    n, p = view.overlap.shape
    if not p:
        return [np.zeros(n)] * len(_OF_MODEL)
    weighted = view.overlap * view.predictions.scores
    best = (view.overlap * (0.2 + 0.8 * view.predictions.scores)).argmax(axis=1)
    rows = np.arange(n)
    overlap = view.overlap[rows, best]
    score = np.where(overlap > 0, view.predictions.scores[best], 0.0)
    return [
        overlap,
        score,
        _top(np.where(view.same, weighted, 0.0)),
        _top(np.where(view.same, 0.0, weighted)),
    ]


def _columns_of(views: Sequence[_View]) -> list[list[Floats]]:
    """The columns of every model, worked out once for one that stands in for another."""
    known = {id(view): _model_columns(view) for view in {id(v): v for v in views}.values()}
    return [known[id(view)] for view in views]


def _shape_columns(boxes: Floats, typical: float, evidence: Evidence) -> list[Floats]:
    """Log size against the image's typical one, log aspect, whether the border cuts it."""
    sides = boxes[:, 2:] - boxes[:, :2]
    size = np.asarray(np.log(np.sqrt(area(boxes)) / typical))
    limits = np.array([evidence.width, evidence.height])
    border = (boxes[:, :2] <= 1).any(axis=1) | (boxes[:, 2:] >= limits - 1).any(axis=1)
    aspect = np.asarray(np.log(sides[:, 0] / sides[:, 1]))
    return [size, aspect, np.asarray(border, dtype=np.float64)]


def _crowding(boxes: Floats, others: Floats) -> Floats:
    """How many ``others`` have their centre within one and a half sides of each box (log of 1 + count)."""
    if not len(others):
        return np.zeros(len(boxes))
    reach = 1.5 * (boxes[:, 2:] - boxes[:, :2])
    mine, theirs = centre(boxes), centre(others)
    near = np.ones((len(boxes), len(others)), dtype=np.bool_)
    for axis in (0, 1):  # [N,M] arrays, never [N,M,2]
        near &= np.abs(mine[:, axis, None] - theirs[:, axis]) <= reach[:, axis, None]
    return np.asarray(np.log1p(near.sum(axis=1)))


def _typical(labels: Labels, predictions: Predictions) -> float:
    """The median side of what is in the image, 1 pixel for an empty one."""
    sizes = np.sqrt(np.concatenate([area(labels.boxes), area(predictions.boxes)]))
    return float(np.median(sizes)) if len(sizes) else 1.0


def _contained(pairs: _Pairs) -> Bools:
    """Which predictions lie within which label ``[N,P]`` while being clearly smaller than it."""
    return pairs.around(0.7) & (pairs.b <= 0.8 * pairs.a[:, None])


def _enclosing_fit(labels: Floats, boxes: Floats, inside: Bools) -> Floats:
    """IoU ``[N]`` of each label with the box around what it contains, 0 where that is nothing."""
    some = inside.any(axis=1)
    if not some.any():
        return np.zeros(len(labels))
    row, held = np.nonzero(inside)  # few, row by row
    first = np.flatnonzero(np.diff(row, prepend=-1))
    low = np.minimum.reduceat(boxes[held, :2], first)
    high = np.maximum.reduceat(boxes[held, 2:], first)
    around = np.concatenate([low, high], axis=1)
    fit = np.zeros(len(labels))
    low, high = np.maximum(around[:, :2], labels[some, :2]), np.minimum(around[:, 2:], labels[some, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    fit[some] = shared / (area(around) + area(labels[some]) - shared)
    return fit


def _part_columns(labels: Labels, sure: Predictions, inside: Bools) -> list[Floats]:
    """How many predictions a label contains, their scores, the share they cover, how their hull fits."""
    mass = inside @ sure.scores
    cover = (inside @ area(sure.boxes)) / np.maximum(area(labels.boxes), 1e-9)
    fit = _enclosing_fit(labels.boxes, sure.boxes, inside)
    return [inside.sum(axis=1).astype(np.float64), mass, np.minimum(cover, 1.5), fit]


def _twins(labels: Labels, support: Floats) -> tuple[Ints, list[Floats]]:
    """The label that overlaps each one most (or -1), the IoU, and which of the two models support more."""
    n = len(labels)
    if n < 2:
        return np.full(n, -1, dtype=np.int64), [np.zeros(n)] * 4
    pairs = _Pairs.of(labels.boxes, labels.boxes)
    overlap = pairs.iou()
    np.fill_diagonal(overlap, 0.0)
    twin = overlap.argmax(axis=1)
    best = overlap[np.arange(n), twin]
    within = pairs.within(0.7)
    np.fill_diagonal(within, False)
    lead = np.where(best > 0.1, support - support[twin], 0.0)
    held = [np.log1p(within.sum(axis=0)), np.log1p(within.sum(axis=1))]
    return np.where(best > 0.1, twin, -1), [best, lead, *held]


def _moved(labels: Labels, matched: Ints, views: Sequence[_View], reference: Predictions) -> Floats:
    """Where the models see each label's object: overlapping predictions averaged by score, else the label."""
    boxes = np.array(labels.boxes)
    rows = np.flatnonzero(matched >= 0)
    if not len(rows):
        return boxes
    anchor = reference.boxes[matched[rows]]
    total, mass = np.zeros((len(rows), 4)), np.zeros(len(rows))
    for model, times in _counted([view.predictions for view in views]):
        agree = np.where(iou(anchor, model.boxes) >= 0.6, times * model.scores, 0.0)
        total += agree @ model.boxes
        mass += agree.sum(axis=1)
    boxes[rows] = np.where(mass[:, None] > 0, total / np.maximum(mass, 1e-9)[:, None], anchor)
    return boxes


def _counted(models: Sequence[Predictions]) -> list[tuple[Predictions, int]]:
    """Each model once, with how often it is there."""
    by_id = {id(model): model for model in models}
    return [(model, sum(m is model for m in models)) for model in by_id.values()]


def _called(labels: Labels, views: Sequence[_View]) -> tuple[Ints, Floats]:
    """The other category that the models support most at each label (else its own), and its lead ``[N]``."""
    top = max((int(v.predictions.categories.max(initial=0)) for v in views), default=0)
    votes = np.zeros((len(labels), max(top, int(labels.categories.max(initial=0))) + 1))
    for view in {id(v): v for v in views}.values():
        times = sum(v is view for v in views)
        weighted = np.where(view.overlap >= 0.3, view.overlap * view.predictions.scores, 0.0)
        for category in np.unique(view.predictions.categories):  # few
            votes[:, category] += times * _top(weighted[:, view.predictions.categories == category])
    rows = np.arange(len(labels))
    own = votes[rows, labels.categories]
    votes[rows, labels.categories] = 0.0
    best = votes.argmax(axis=1)
    lead = votes[rows, best] - own
    return np.where(votes[rows, best] > 0, best, labels.categories), lead


def _match_reference(overlap: Floats, kept: Ints) -> Ints:
    """One-to-one: the reference prediction (index) of each label, -1 without one; IoU ``[N, len(kept)]``."""
    matched = np.full(len(overlap), -1, dtype=np.int64)
    rows, cols = assign(overlap, threshold=0.1)
    matched[rows] = kept[cols]
    return matched


def _proposed(overlap: Floats, kept: Ints, matched: Ints, inside: Bools) -> Ints:
    """Predictions that propose an unlabelled object: confident, unmatched, not a part of a crowded label."""
    free = ~np.isin(kept, matched)
    known = overlap.max(axis=0, initial=0.0) >= 0.5
    part = (inside & (inside.sum(axis=1) >= 2)[:, None]).any(axis=0)
    return np.asarray(kept[free & ~known & ~part])


def _parts(inside: Bools, scores: Floats) -> Bools:
    """Which predictions ``[N,P]`` a label would be split into: those half as sure as its best or more."""
    held = np.where(inside, scores, 0.0)
    strong = inside & (held >= 0.5 * _top(held)[:, None])
    return np.asarray(strong & (strong.sum(axis=1) >= 2)[:, None])


@dataclass(frozen=True, eq=False)
class _Related:
    """An image's labels related to every model, and the confident predictions ``sure`` within them."""

    views: Sequence[_View]
    sure: Predictions
    inside: Bools
    matched: Ints


def _image_columns(support: Floats, sure: Predictions, n: int) -> list[Floats]:
    """How well the models know the image: support of its other labels (shrunk to 0.5), objects seen a label.

    Where a model fails on a whole image, it must not condemn the labels there.
    """
    others = (support.sum() - support + 0.5) / max(n, 1)
    return [np.asarray(others), np.full(n, _ratio(sure, n))]


def _ratio(sure: Predictions, n: int) -> float:
    """Log of the expected number of objects that the model sees for each label."""
    return float(np.log((sure.scores.sum() + 1.0) / (n + 1.0)))


def _image_level(rows: Floats, sure: Predictions) -> Floats:
    """The image's own values ``[2]`` of the two image columns, for its candidates."""
    support = rows[:, LABEL_FEATURES.index("support_mean")]
    return np.array([(support.sum() + 0.5) / (len(rows) + 1), _ratio(sure, len(rows))])


def _label_rows(evidence: Evidence, related: _Related, lead: Floats) -> tuple[Floats, Ints]:
    labels, reference = evidence.labels, evidence.reference
    views, sure, matched = related.views, related.sure, related.matched
    per_model = _columns_of(views)
    overlaps, supports = np.stack([c[0] for c in per_model]), np.stack([c[2] for c in per_model])
    found = matched >= 0
    own_iou = np.zeros(len(labels))
    own_score = np.zeros(len(labels))
    own_iou[found] = views[0].overlap[np.flatnonzero(found), matched[found]]
    own_score[found] = reference.scores[matched[found]]
    support = supports.mean(axis=0)
    twin, twin_columns = _twins(labels, support)
    columns = [
        *(column for model in per_model for column in model),
        *(own_iou, own_score, support, supports.std(axis=0), overlaps.std(axis=0), lead),
        *_part_columns(labels, sure, related.inside),
        *twin_columns,
        *_shape_columns(labels.boxes, _typical(labels, sure), evidence),
        _crowding(labels.boxes, sure.boxes),
        *_image_columns(support, sure, len(labels)),
    ]
    return np.stack(columns, axis=1).reshape(len(labels), len(columns)), twin


def _candidate_rows(evidence: Evidence, sure: Predictions, proposed: Ints, image: Floats) -> Floats:
    labels, found = evidence.labels, evidence.reference.take(proposed)
    first = iou(found.boxes, evidence.reference.boxes)
    _, consensus, crowd = _columns_of(_views(found.boxes, found.categories, evidence.models, first))
    shown, seen = _Pairs.of(found.boxes, labels.boxes), _Pairs.of(found.boxes, sure.boxes)
    inside_label = shown.share / np.maximum(shown.a, 1e-12)[:, None]
    rivals = seen.iou()
    rivals[rivals > 0.999] = 0.0  # itself
    columns = [
        *(found.scores, consensus[2], crowd[2], np.maximum(consensus[3], crowd[3])),
        np.minimum(consensus[0], crowd[0]),
        *(_top(shown.iou()), _top(inside_label), np.log1p(shown.around(0.7).sum(axis=1))),
        *(_top(rivals), _contained(seen) @ sure.scores),
        *_shape_columns(found.boxes, _typical(labels, sure), evidence),
        _crowding(found.boxes, sure.boxes),
        *np.broadcast_to(image[:, None], (2, len(found))),
    ]
    return np.stack(columns, axis=1).reshape(len(found), len(columns))


def _habit_columns(evidence: Evidence, n_candidates: int) -> tuple[Floats, Floats]:
    """What is known of who drew the labels ``[N,3]`` and labelled the image ``[M,3]``; else no columns."""
    if not evidence.habits:
        return np.zeros((len(evidence.labels), 0)), np.zeros((n_candidates, 0))
    labels, known = evidence.labels, evidence.habits
    return label_habits(labels, known), candidate_habits(labels, known, n_candidates)


def _place_column(evidence: Evidence, proposed: Ints) -> Floats:
    """How probably the place of each candidate shows no objects ``[M,1]``; 0 where none can be compared."""
    places = evidence.places if evidence.places is not None else np.zeros(len(evidence.reference))
    return np.asarray(places[proposed, None])


def features(evidence: Evidence) -> Features:
    """Relate an image's labels to what every model predicts."""
    labels, reference = evidence.labels, evidence.reference
    strong = evidence.confident_rows
    kept = strong[nms(reference.boxes[strong], reference.scores[strong], 0.5)]
    sure = reference.take(kept)
    pairs = _Pairs.of(labels.boxes, reference.boxes)
    overlap = pairs.iou()
    inside = _contained(pairs.columns(kept))
    matched = _match_reference(overlap[:, kept], kept)
    proposed = _proposed(overlap[:, kept], kept, matched, inside)
    views = _views(labels.boxes, labels.categories, evidence.models, overlap)
    category, lead = _called(labels, views)
    rows, twin = _label_rows(evidence, _Related(views, sure, inside, matched), lead)
    moved = _moved(labels, matched, views[:2], reference)
    part_of, part = np.nonzero(_parts(inside, sure.scores))
    candidates = _candidate_rows(evidence, sure, proposed, _image_level(rows, sure))
    picture = evidence.picture() if evidence.picture is not None else None
    shown, proposal = looks(picture, labels.boxes, moved, reference.boxes[proposed])
    places, habits = _place_column(evidence, proposed), _habit_columns(evidence, len(proposed))
    return Features(
        labels=np.concatenate([rows, shown, habits[0]], axis=1),
        candidates=np.concatenate([candidates, proposal, places, habits[1]], axis=1),
        matched=matched,
        proposed=proposed,
        moved=moved,
        category=category,
        twin=twin,
        parts=sure.boxes[part],
        part_of=part_of.astype(np.int64),
    )
