"""What is known of one image when its labels are graded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emclean.types import Floats, Ints, Labels, Predictions


class Habit(NamedTuple):
    """How an annotator differs from the mean of all, by what models see of their labels over the whole pool.

    ``overlap`` and ``support`` of a label by the models (more: they draw better), and ``unseen``: the log of
    the objects that the models see for each label of an image (more: they overlook more).
    """

    overlap: float
    support: float
    unseen: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """The labels of one image and what out-of-sample models say of it.

    ``crowd`` are predictions of a model trained on other images' crowd labels, ``cleaning`` of the one
    trained on what experts confirmed, ``consensus`` of the one trained on what both agree on; the last two
    are None while they do not exist. Predictions with a score of at least ``confident`` can propose
    objects that no label shows. ``picture`` brings the uint8 grey levels ``[H,W]``; without it nothing is
    said of how instances look. ``names`` are what reasons call the categories. ``habits`` are those of the
    annotators by name, the same for every image of a pool; empty where annotators are not told apart.
    ``places [P]`` is the probability, for each prediction of ``reference``, that what other pictures
    show at its place is no object (``places.with_places``); None where no pictures can be compared.
    """

    labels: Labels
    cleaning: Predictions | None
    consensus: Predictions | None
    crowd: Predictions
    width: float
    height: float
    confident: float = 0.2
    picture: Callable[[], NDArray[np.uint8]] | None = None
    names: Sequence[str] = ()
    habits: Mapping[str, Habit] = field(default_factory=dict)
    places: Floats | None = None

    @property
    def reference(self) -> Predictions:
        """The most trusted predictions at hand; verdicts' prediction indices point into these."""
        if self.cleaning is not None:
            return self.cleaning
        return self.consensus if self.consensus is not None else self.crowd

    @property
    def confident_rows(self) -> Ints:
        """The rows of ``reference`` that can propose objects, in order."""
        return np.flatnonzero(self.reference.scores >= self.confident)

    @property
    def models(self) -> tuple[Predictions, Predictions, Predictions]:
        """Cleaning, consensus and crowd model; the reference stands in for one that does not exist."""
        consensus = self.consensus if self.consensus is not None else self.reference
        return self.reference, consensus, self.crowd
