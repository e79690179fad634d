"""What an expert's work costs: boxes touched, by kind, and minutes from a stated cost model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from emclean.types import Cost, Labels


@dataclass(frozen=True)
class CostModel:
    """Seconds of an expert's time: to open an image, and to draw, move or verify (or delete) one box.

    Drawing takes from 7 s by extreme clicking to 35 s by classic drawing; a yes/no verification 1.5 to 3 s.
    """

    open_s: float = 5.0
    draw_s: float = 14.0
    move_s: float = 6.0
    verify_s: float = 2.0

    def __post_init__(self) -> None:
        for name in ("open_s", "draw_s", "move_s", "verify_s"):
            value = getattr(self, name)
            if not np.isfinite(value) or value < 0:
                raise ValueError(f"{name}: expected seconds of at least 0, got {value}")

    def ends(self) -> tuple["CostModel", "CostModel"]:
        """The same model at the fast and at the slow end of what is published for drawing and verifying."""
        fast = replace(self, draw_s=7.0, move_s=min(self.move_s, 3.5), verify_s=1.5)
        slow = replace(self, draw_s=35.0, move_s=max(self.move_s, 15.0), verify_s=3.0)
        return fast, slow

    def seconds(self, images: float, changes: "Changes") -> float:
        """Seconds to open ``images`` and make ``changes``; a deletion costs what a verification does."""
        decided = changes.deleted + changes.verified
        touched = self.draw_s * changes.added + self.move_s * changes.moved + self.verify_s * decided
        return self.open_s * images + touched

    def full(self, n_images: float, n_boxes: float) -> float:
        """Minutes of labelling ``n_images`` with ``n_boxes`` objects from nothing."""
        return (self.open_s * n_images + self.draw_s * n_boxes) / 60.0


class Changes(NamedTuple):
    """How many boxes an expert added, moved (or relabelled), deleted, and left as they were."""

    added: int
    moved: int
    deleted: int
    verified: int


def changes(shown: Labels, answered: Labels, origin: ArrayLike, tolerance: float = 1.0) -> Changes:
    """Compare an answer with what was shown.

    ``origin [len(answered)]`` is the index of the shown box that each answered box came from, or -1. A box
    is moved when a side differs by more than ``tolerance`` pixels or its category changed.
    """
    source = np.asarray(origin, dtype=np.int64).reshape(-1)
    if len(source) != len(answered):
        raise ValueError(f"origin: expected {len(answered)} values, got {len(source)}")
    if len(source) and (source.min() < -1 or source.max() >= len(shown)):
        raise ValueError(f"origin: expected -1 or an index below {len(shown)}, got {source.tolist()}")
    kept = np.flatnonzero(source >= 0)
    at = source[kept]
    still = (np.abs(answered.boxes[kept] - shown.boxes[at]) <= tolerance).all(axis=1)
    still &= answered.categories[kept] == shown.categories[at]
    verified = int(still.sum())
    deleted = len(shown) - len(np.unique(at))
    return Changes(len(source) - len(kept), len(kept) - verified, deleted, verified)


def cost(made: Changes, model: CostModel, images: int = 1) -> Cost:
    """The cost of these changes in ``images`` opened images."""
    return Cost(images, *made, minutes=model.seconds(images, made) / 60.0)


def total(costs: Sequence[Cost]) -> Cost:
    """The sum of many costs."""
    return sum(costs, Cost())
