"""What asking the expert would mend: where the labels in their likelier version are probably still wrong.

Training takes the likelier version of every label, so an error that the grader is sure of needs no expert.
What is left are the doubts; how many errors an answer really mends per expected one is learnt from the
images that an expert has answered already.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from emclean.boxes import match
from emclean.science.correction import LIKELY, correct
from emclean.science.cost import CostModel
from emclean.science.expert import Slips, answer
from emclean.science.settling import settle
from emclean.types import GRADES, Floats, Ints, Labels, Settled, Verdicts

LEAST = 0.1
"""An instance that is wrong with less than this probability is not worth a look of its own."""

MOST = 10
"""The most instances in one review: a person is to decide on a few, not to comb the picture."""

BELIEF = 2.0
"""Errors' worth of belief that as many are mended as expected, against what the answers showed."""


def doubts(verdicts: Verdicts) -> Floats:
    """The probability ``[K]`` that the likelier version of each instance is wrong, in labels mended."""
    p = verdicts.probability
    return np.asarray(np.where(verdicts.label >= 0, 1 - p, np.minimum(p, 1 - p)))


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
class Mending:
    """How many label errors an answer mends for each one expected: of a whole image, and of a review.

    A whole image also mends what no model sees; a review also finds that the likelier version was right.
    """

    whole: float = 1.0
    review: float = 1.0


def mending(
    labels: Sequence[Labels], verdicts: Sequence[Verdicts], truths: Sequence[Labels], costs: CostModel
) -> Mending:
    """Learn it from the expert's images: ``labels`` as the crowd drew them, ``verdicts`` by graders that did
    not learn from the image, ``truths`` the expert's answers.

    Images that were drawn at random give an unbiased figure. What a review would have brought is found by
    letting the answer that is known decide on the instances that it would have asked about.
    """
    whole, part = np.full(2, BELIEF), np.full(2, BELIEF)
    for crowd, said, truth in zip(labels, verdicts, truths, strict=True):
        before = errors(correct(crowd, said, LIKELY).labels, truth)
        whole += before, float(doubts(said).sum())
        asked = review(said, costs)
        if asked is not None:
            part += before - errors(_reviewed(crowd, said, truth, asked.rows), truth), asked.errors
    return Mending(float(whole[0] / whole[1]), max(float(part[0] / part[1]), 0.0))


def errors(labels: Labels, truth: Labels) -> int:
    """Labels that show no object of theirs, and objects that no label shows, at IoU 0.5 and by category."""
    same = labels.categories[:, None] == truth.categories[None, :]
    right, _ = match(labels.boxes, truth.boxes, 0.5, same)
    return len(labels) + len(truth) - 2 * len(right)


def _reviewed(labels: Labels, verdicts: Verdicts, truth: Labels, rows: Ints) -> Labels:
    """The labels in their likelier version after a review of ``rows`` by somebody who knows the truth."""
    shown = proposals(verdicts, rows)
    steady = np.random.default_rng(0)  # without slips nothing is drawn
    given = answer(truth, shown.labels(), Slips(), steady, np.inf, np.inf, only_shown=True).labels
    gone = np.setdiff1d(np.arange(len(shown.row)), _confirmed(shown, given))
    decided = frozenset(labels.ids[k] for k in verdicts.label[rows] if k >= 0)
    names = tuple(f"reviewed-{n}" for n in range(len(given)))
    kept = Labels(given.boxes, given.categories, names)
    return correct(*settle(labels, verdicts, Settled(kept, decided, shown.boxes[gone])), LIKELY).labels


def _confirmed(shown: Proposals, given: Labels) -> Ints:
    """The proposals that the answer kept, in place or moved."""
    rows, _ = match(shown.boxes, given.boxes, 0.3)
    return rows
