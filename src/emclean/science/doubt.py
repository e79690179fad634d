"""What asking the expert would mend: where the labels in their likelier version are probably still wrong.

Training takes the likelier version of every label, so an error that the grader is sure of needs no expert.
What is left are the doubts; how many errors an answer really mends per expected one is learnt from the
images that an expert has answered already.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from emclean.boxes import match
from emclean.science.correction import LIKELY, correct
from emclean.science.cost import CostModel, changes
from emclean.science.expert import Slips, answer
from emclean.science.grading import expected_minutes, shown
from emclean.science.settling import settle
from emclean.types import GRADES, Floats, Ints, Labels, Settled, Verdicts

LEAST = 0.1
"""An instance that is wrong with less than this probability is not worth a look of its own."""

MOST = 10
"""The most instances in one review: a person is to decide on a few, not to comb the picture."""

BELIEF = 2.0
"""Errors' worth of belief that as many are mended as expected, against what the answers showed."""


def doubts(verdicts: Verdicts) -> Floats:
    """The probability ``[K]`` that the likelier version of each instance is wrong.

    Wrong is what leaves a label without an object of its own, or an object without a label, at IoU 0.5: a
    label that stays where it is has its object whether ``clean`` or ``shifted``, one that goes was
    ``spurious`` or ``duplicate`` alike.
    """
    p = verdicts.probability
    doubt = np.where(verdicts.label >= 0, 1 - p, np.minimum(p, 1 - p))
    for alike in (("clean", "shifted"), ("spurious", "duplicate")):
        columns = [GRADES.index(name) for name in alike]
        mine = (verdicts.label >= 0) & np.isin(verdicts.grade, columns)
        doubt[mine] = 1 - verdicts.posterior[mine][:, columns].sum(axis=1)
    return np.asarray(np.clip(doubt, 0.0, 1.0))


class Proposals(NamedTuple):
    """What is shown for some verdicts: ``boxes [S,4]``, ``categories [S]``, and the verdict ``row [S]``."""

    boxes: Floats
    categories: Ints
    row: Ints

    def labels(self) -> Labels:
        """The same as labels."""
        return Labels(self.boxes, self.categories)


def proposals(verdicts: Verdicts, rows: Sequence[int] | Ints) -> Proposals:
    """Each of these verdicts as it is proposed: the corrected box, or the parts of a merged one."""
    boxes: list[Floats] = [np.zeros((0, 4))]
    row: list[Ints] = [np.zeros(0, np.int64)]
    for k in rows:
        parts = verdicts.parts[verdicts.part_of == k]
        split = GRADES[verdicts.grade[k]] == "merged" and len(parts) > 0
        boxes.append(parts if split else verdicts.box[k : k + 1])
        row.append(np.full(len(boxes[-1]), k, dtype=np.int64))
    of = np.concatenate(row)
    return Proposals(np.concatenate(boxes), verdicts.category[of], of)


@dataclass(frozen=True, eq=False)
class Review:
    """A question about some instances: verdict ``rows [m]``, ``errors`` expected in them, and ``minutes``."""

    rows: Ints
    errors: float
    minutes: float


def review(verdicts: Verdicts, costs: CostModel) -> Review | None:
    """The doubtful instances that are best asked about together, or None where nothing is doubtful.

    In order of falling doubt, as many as give the most expected errors per minute, opening included.
    """
    doubt = doubts(verdicts)
    order = np.argsort(-doubt, kind="stable")
    order = order[doubt[order] > LEAST][:MOST]
    if not len(order):
        return None
    shown = np.bincount(proposals(verdicts, order).row, minlength=len(verdicts))[order]
    shifted = verdicts.posterior[order, GRADES.index("shifted")]
    each = shown * costs.verify_s + np.minimum(doubt[order], shifted) * (costs.move_s - costs.verify_s)
    seconds, errors = costs.open_s + np.cumsum(each), np.cumsum(doubt[order])
    last = int(np.argmax(errors / np.maximum(seconds, 1e-9)))
    return Review(order[: last + 1], float(errors[last]), float(seconds[last]) / 60)


@dataclass(frozen=True)
class Experience:
    """What answers brought and took for each unit expected: of whole images and of reviews.

    ``*_errors`` label errors mended: a whole image also mends what no model sees, and a review may find that
    the likelier version was right. ``*_time`` of the stated cost model's seconds.
    """

    image_errors: float = 1.0
    review_errors: float = 1.0
    image_time: float = 1.0
    review_time: float = 1.0


def experience(
    labels: Sequence[Labels], verdicts: Sequence[Verdicts], truths: Sequence[Labels], costs: CostModel
) -> Experience:
    """Learn it from the expert's images: ``labels`` as the crowd drew them, ``verdicts`` by graders that did
    not learn from the image, ``truths`` the expert's answers.

    Images that were drawn at random give unbiased figures. What a question would have brought is found by
    letting the answer that is known reply to it. Each figure is drawn towards 1 by :data:`BELIEF` errors, or
    as many seconds of drawing.
    """
    image, part = np.zeros((2, 2)), np.zeros((2, 2))  # [errors, seconds] x [real, expected]
    for crowd, said, truth in zip(labels, verdicts, truths, strict=True):
        before = errors(correct(crowd, said, LIKELY).labels, truth)
        seconds = 60 * expected_minutes(said, costs)
        image += [[before, doubts(said).sum()], [whole_image(said, truth, costs), seconds]]
        asked = review(said, costs)
        if asked is not None:
            after, taken = reviewed(crowd, said, truth, asked.rows, costs)
            part += [[before - errors(after, truth), asked.errors], [taken, 60 * asked.minutes]]
    belief = np.array([[BELIEF], [BELIEF * costs.draw_s]])
    (image_errors, image_time), (review_errors, review_time) = (
        np.maximum((table + belief)[:, 0] / (table + belief)[:, 1], 0.0).tolist() for table in (image, part)
    )
    return Experience(image_errors, review_errors, image_time, review_time)


def errors(labels: Labels, truth: Labels) -> int:
    """Labels that show no object of theirs, and objects that no label shows, at IoU 0.5 and by category."""
    same = labels.categories[:, None] == truth.categories[None, :]
    right, _ = match(labels.boxes, truth.boxes, 0.5, same)
    return len(labels) + len(truth) - 2 * len(right)


def whole_image(verdicts: Verdicts, truth: Labels, costs: CostModel) -> float:
    """The seconds in which somebody who knows the truth answers for the whole image."""
    seen = proposals(verdicts, np.flatnonzero(shown(verdicts))).labels()
    given = answer(truth, seen, Slips(), np.random.default_rng(0), np.inf, np.inf)
    return costs.seconds(1, changes(seen, given.labels, given.origin))


def reviewed(
    labels: Labels, verdicts: Verdicts, truth: Labels, rows: Ints, costs: CostModel
) -> tuple[Labels, float]:
    """The labels in their likelier version after a review of ``rows`` by somebody who knows the truth, and
    the seconds that it takes."""
    asked = proposals(verdicts, rows)
    seen, steady = asked.labels(), np.random.default_rng(0)  # without slips nothing is drawn
    given = answer(truth, seen, Slips(), steady, np.inf, np.inf, only_shown=True)
    gone = np.setdiff1d(np.arange(len(seen)), given.origin)
    decided = frozenset(labels.ids[k] for k in verdicts.label[rows] if k >= 0)
    kept = replace(given.labels, ids=tuple(f"reviewed-{n}" for n in range(len(given.labels))))
    both = settle(labels, verdicts, Settled(kept, decided, asked.boxes[gone]))
    seconds = costs.seconds(1, changes(seen, given.labels, given.origin))
    return correct(*both, LIKELY).labels, seconds
