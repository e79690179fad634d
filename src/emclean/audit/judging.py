"""Verdicts for an image with any number of boxes: crowded images are judged part by part, in flat memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from emclean.boxes import centre
from emclean.science.grading import Evidence, grade
from emclean.science.grading.grade import Grader
from emclean.types import Bools, Floats, Ints, Labels, Predictions, Verdicts

CROWDED = 2000
"""With more labels and predictions than this an image is judged in parts: pairs of boxes are held dense."""


@dataclass(frozen=True, eq=False)
class Part:
    """A part of a crowded image: the boxes that it answers for come first, then those around it.

    ``labels`` and ``predictions`` are indices into the image's; ``own_labels`` and ``own_predictions`` say
    how many of them are the part's own; ``bounds [4]`` is the area that it answers for.
    """

    labels: Ints
    predictions: Ints
    own_labels: int
    own_predictions: int
    bounds: Floats


def judge(evidence: Evidence, grader: Grader | None = None, crowded: int = CROWDED) -> Verdicts:
    """``grade`` for one set of predictions and any number of boxes."""
    if len(evidence.labels) + len(evidence.crowd) <= crowded:
        return grade(evidence, grader)
    judged = []
    for part in parts(evidence.labels.boxes, evidence.crowd, crowded // 4):
        labels, predictions = evidence.labels.take(part.labels), evidence.crowd.take(part.predictions)
        said = grade(replace(evidence, labels=labels, crowd=predictions), grader)
        judged.append(_own(said, part))
    return _joined(judged, len(evidence.labels))


def pieces(evidence: Evidence, truth: Labels, crowded: int = CROWDED) -> list[tuple[Evidence, Labels]]:
    """An image with its truth as pieces small enough to learn from, each box in one of them."""
    if len(evidence.labels) + len(evidence.crowd) <= crowded:
        return [(evidence, truth)]
    middles, found = centre(truth.boxes), []
    for part in parts(evidence.labels.boxes, evidence.crowd, crowded // 4):
        labels = evidence.labels.take(part.labels[: part.own_labels])
        seen = evidence.crowd.take(part.predictions[: part.own_predictions])
        inside = ((middles >= part.bounds[:2]) & (middles < part.bounds[2:])).all(axis=1)
        found.append((replace(evidence, labels=labels, crowd=seen), truth.take(inside)))
    return found


def parts(labels: Floats, predictions: Predictions, most: int) -> Iterator[Part]:
    """Cut an image's boxes into parts of at most ``most`` boxes, by halving at the median of their centres.

    Each part also sees what lies near it, as far as its own largest box reaches, but at most three times
    ``most`` boxes: nearest labels and best predictions first.
    """
    boxes = np.concatenate([labels, predictions.boxes])
    middles = centre(boxes)
    everywhere = np.array([-np.inf, -np.inf, np.inf, np.inf])
    waiting: list[tuple[Ints, Floats]] = [(np.arange(len(boxes)), everywhere)]
    while waiting:
        own, bounds = waiting.pop()
        if len(own) > most:
            waiting += _halves(own, middles, bounds)
        else:
            yield _part(own, bounds, (labels, predictions), most)


def _halves(own: Ints, middles: Floats, bounds: Floats) -> list[tuple[Ints, Floats]]:
    """Two halves across the longer side; equal numbers of boxes, even where all centres are the same."""
    axis = int(np.ptp(middles[own], axis=0).argmax())
    order = own[np.argsort(middles[own, axis], kind="stable")]
    half = len(order) // 2
    low, high = bounds.copy(), bounds.copy()
    low[2 + axis] = high[axis] = middles[order[half], axis]
    return [(order[:half], low), (order[half:], high)]


def _part(own: Ints, bounds: Floats, given: tuple[Floats, Predictions], most: int) -> Part:
    labels, predictions = given
    n = len(labels)
    mine, seen = np.sort(own[own < n]), np.sort(own[own >= n]) - n
    boxes = np.concatenate([labels[mine], predictions.boxes[seen]])
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    reach = (boxes[:, 2:] - boxes[:, :2]).max(axis=0)
    around = np.concatenate([low - reach, high + reach])
    near = np.setdiff1d(np.flatnonzero(touching(labels, around)), mine)
    also = np.setdiff1d(np.flatnonzero(touching(predictions.boxes, around)), seen)
    off = np.abs(centre(labels[near]) - (low + high) / 2).max(axis=1, initial=0.0)
    near = near[np.argsort(off, kind="stable")[:most]]
    also = also[np.argsort(-predictions.scores[also], kind="stable")[: 2 * most]]
    every = np.concatenate([mine, near]), np.concatenate([seen, also])
    return Part(*every, len(mine), len(seen), bounds)


def touching(boxes: Floats, around: Floats) -> Bools:
    """Which boxes share something with the area ``around [4]``."""
    return np.asarray((boxes[:, :2] < around[2:]).all(axis=1) & (boxes[:, 2:] > around[:2]).all(axis=1))


def _own(said: Verdicts, part: Part) -> Verdicts:
    """A part's verdicts about its own boxes, in the image's indices."""
    mine = np.where(said.label >= 0, said.label < part.own_labels, said.prediction < part.own_predictions)
    rows = np.flatnonzero(mine)
    into = np.full(len(said), -1)
    into[rows] = np.arange(len(rows))
    kept = np.isin(said.part_of, rows)
    known, seen = np.append(part.labels, -1), np.append(part.predictions, -1)  # -1 stays -1
    return Verdicts(
        label=known[said.label[rows]],
        prediction=seen[said.prediction[rows]],
        grade=said.grade[rows],
        probability=said.probability[rows],
        box=said.box[rows],
        category=said.category[rows],
        reason=tuple(said.reason[i] for i in rows),
        parts=said.parts[kept],
        part_of=into[said.part_of[kept]],
        calibrated=said.calibrated,
        posterior=said.posterior[rows],
    )


def _joined(judged: Sequence[Verdicts], n: int) -> Verdicts:
    """The verdicts of all parts, those of labels first and in the labels' order."""
    label = np.concatenate([v.label for v in judged])
    order = np.argsort(np.where(label < 0, n, label), kind="stable")
    into = np.empty(len(order), dtype=np.int64)
    into[order] = np.arange(len(order))
    shift = np.repeat(np.cumsum([0, *(len(v) for v in judged)])[:-1], [len(v.part_of) for v in judged])
    reasons = [reason for v in judged for reason in v.reason]
    columns = {
        name: np.concatenate([getattr(v, name) for v in judged])[order]
        for name in ("prediction", "grade", "probability", "box", "category", "posterior")
    }
    return Verdicts(
        label=label[order],
        reason=tuple(reasons[i] for i in order),
        parts=np.concatenate([v.parts for v in judged]),
        part_of=into[np.concatenate([v.part_of for v in judged]) + shift],
        calibrated=judged[0].calibrated,
        **columns,
    )
