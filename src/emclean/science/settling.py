"""What an expert has said of single instances, put into the labels and verdicts of the image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.boxes import iou
from emclean.types import GRADES, Bools, Floats, Ints, Labels, Settled, Verdicts

SAME = 0.5
"""A candidate that overlaps a decided place this much is the thing that was decided on."""


def settle(labels: Labels, verdicts: Verdicts, said: Settled) -> tuple[Labels, Verdicts]:
    """The labels and verdicts of an image once the expert's word on some instances counts.

    Labels that were decided on give way to what the expert kept, which is ``clean`` with probability 1;
    candidates at a decided place are gone. ``verdicts`` must be those of ``labels``, in order, first.
    """
    open_ = np.array([name not in said.decided for name in labels.ids], dtype=np.bool_)
    kept = said.kept
    candidates = np.flatnonzero(verdicts.label < 0)
    free = candidates[_free(verdicts.box[candidates], np.concatenate([kept.boxes, said.empty]))]
    rows = np.concatenate([np.flatnonzero(open_), free]).astype(np.int64)
    both = _joined(labels.take(open_), kept)
    return both, _spliced(verdicts, rows, kept, int(open_.sum()))


def _free(boxes: Floats, decided: Floats) -> Bools:
    return np.asarray(iou(boxes, decided).max(axis=1, initial=0.0) < SAME)


def _joined(first: Labels, second: Labels) -> Labels:
    return Labels(
        np.concatenate([first.boxes, second.boxes]),
        np.concatenate([first.categories, second.categories]),
        (*first.ids, *second.ids),
        (*first.annotators, *second.annotators),
    )


def _spliced(verdicts: Verdicts, rows: Ints, kept: Labels, n_open: int) -> Verdicts:
    """The verdicts at ``rows``, with the sure ones of ``kept`` between the labels' and the candidates'."""
    m = len(kept)
    sure = np.zeros((m, len(GRADES)))
    sure[:, GRADES.index("clean")] = 1.0

    def put(own: NDArray[Any], more: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([own[rows[:n_open]], more, own[rows[n_open:]]])

    place = np.full(len(verdicts), -1, dtype=np.int64)
    place[rows] = np.concatenate([np.arange(n_open), m + np.arange(n_open, len(rows))])
    still = place[verdicts.part_of] >= 0
    reason = [verdicts.reason[k] for k in rows]
    return Verdicts(
        label=np.concatenate([np.arange(n_open + m), np.full(len(rows) - n_open, -1)]),
        prediction=put(verdicts.prediction, np.full(m, -1)),
        grade=put(verdicts.grade, np.zeros(m, np.int64)),
        probability=put(verdicts.probability, np.ones(m)),
        box=put(verdicts.box, kept.boxes),
        category=put(verdicts.category, kept.categories),
        reason=(*reason[:n_open], *["an expert said so"] * m, *reason[n_open:]),
        parts=verdicts.parts[still],
        part_of=place[verdicts.part_of[still]],
        calibrated=verdicts.calibrated,
        posterior=put(verdicts.posterior, sure),
    )
