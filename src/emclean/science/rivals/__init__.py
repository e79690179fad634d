"""Other methods of finding wrong labels, behind one signature, on the same labels and predictions as ours."""

from collections.abc import Mapping, Sequence

import numpy as np

from emclean.science.grading.evidence import Evidence
from emclean.science.rivals import clod, cross_entropy, loss, objectlab, paper
from emclean.science.rivals.base import Rival, Suspicion
from emclean.science.rivals.objectlab import ObjectLab
from emclean.types import Floats

RIVALS: Mapping[str, Rival] = {
    "objectlab": objectlab.objectlab,
    "clod": clod.clod,
    "loss": loss.loss,
    "cross_entropy": cross_entropy.cross_entropy,
    "paper": paper.paper,
}
"""Every rival by the name used in configurations."""


def image_scores(strategy: str, evidences: Sequence[Evidence]) -> dict[str, Floats]:
    """The column ``Pool.scores`` for a strategy: the rival's image scores, none where it is not a rival's."""
    if strategy not in RIVALS:
        return {}
    return {strategy: np.array([s.image for s in RIVALS[strategy](evidences)], dtype=np.float64)}


__all__ = ["RIVALS", "ObjectLab", "Rival", "Suspicion", "image_scores"]
