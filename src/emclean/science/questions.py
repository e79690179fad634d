"""The questions that an expert may be asked, in numbers: what each would cost and what it would mend."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from emclean.boxes import area
from emclean.science import rivals, selection
from emclean.science.cost import CostModel
from emclean.science.doubt import Experience, doubts, review
from emclean.science.grading import Evidence, image_score
from emclean.science.selection import Pool
from emclean.types import Floats, Verdicts

FEATURES = 2


@dataclass(frozen=True)
class Prices:
    """What goes into every question's numbers.

    ``costs`` the stated cost model, ``learnt`` what answers brought and took for each unit expected,
    ``dearer`` how many times dearer than planned with all that they were, ``blind`` the share of whole images
    that will be shown without suggestions.
    """

    costs: CostModel
    learnt: Experience = field(default_factory=Experience)
    dearer: float = 1.0
    blind: float = 0.0


def whole_images(
    ids: Sequence[str], evidences: Sequence[Evidence], verdicts: Sequence[Verdicts], prices: Prices
) -> Pool:
    """One question about each image as a whole."""
    pairs = list(zip(evidences, verdicts, strict=True))
    scores = [image_score(evidence, said, prices.costs) for evidence, said in pairs]
    dear, blind = prices.learnt.image_time, prices.blind
    minutes = [(1 - blind) * dear * s.expected_minutes + blind * s.blank_minutes for s in scores]
    return Pool(
        tuple(ids),
        np.array([s.discrepancy for s in scores]),
        np.array([s.uncertainty for s in scores]),
        np.array([len(evidence.labels) for evidence in evidences], dtype=np.int64),
        prices.dearer * np.array(minutes),
        np.array([_features(evidence) for evidence in evidences]).reshape(-1, FEATURES),
        gain=prices.learnt.image_errors * np.array([doubts(said).sum() for said in verdicts]),
    )


def ranked_by(strategy: str, pool: Pool, evidences: Sequence[Evidence]) -> Pool:
    """The same with the column by which a rival ranks; without it where the strategy is none."""
    return replace(pool, scores=rivals.image_scores(strategy, list(evidences)))


def reviews(whole: Pool, verdicts: Sequence[Verdicts], prices: Prices) -> Pool:
    """A question about the doubtful instances of each image that has some, with its other columns."""
    offers = [review(said, prices.costs) for said in verdicts]
    at = np.array([k for k, offer in enumerate(offers) if offer is not None], dtype=np.int64)
    some = [offer for offer in offers if offer is not None]
    return replace(
        selection.subset(whole, at),
        expected_minutes=prices.dearer
        * prices.learnt.review_time
        * np.array([offer.minutes for offer in some]),
        gain=prices.learnt.review_errors * np.array([offer.errors for offer in some]),
        review=np.ones(len(some), dtype=np.bool_),
    )


def _features(evidence: Evidence) -> Floats:
    """What tells pictures apart for the diversity ``[2]``: how many objects there are, and how large."""
    boxes = evidence.reference.above(0.3).boxes
    side = float(np.median(np.sqrt(area(boxes)))) if len(boxes) else 1.0
    return np.array([np.log1p(len(boxes)), np.log(side)])
