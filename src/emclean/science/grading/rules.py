"""A grader without any calibration: plain rules turn features into raw scores that sum to one."""

from dataclasses import dataclass

import numpy as np

from emclean.science.grading.features import CANDIDATE_FEATURES, LABEL_FEATURES
from emclean.science.placing import USUAL_WEIGHT, placed
from emclean.types import GRADES, Floats, Ints


def _ramp(values: Floats, low: float, high: float) -> Floats:
    """0 below ``low``, 1 above ``high``, straight between."""
    return np.asarray(np.clip((values - low) / (high - low), 0.0, 1.0))


@dataclass(frozen=True)
class Rules:
    """Raw scores from rules: what can be said before an expert has answered anything.

    ``floor`` is the weight of "no model sees it", so that weak models do not condemn every label; ``blind``
    the share of "spurious" that goes to "clean" in an image of which the models see next to nothing.
    """

    floor: float = 0.25
    blind: float = 0.5
    calibrated = False

    def label_posterior(self, rows: Floats) -> Floats:
        """Scores ``[N, len(GRADES)]`` of label rows (columns ``LABEL_FEATURES``)."""
        at = {name: rows[:, i] for i, name in enumerate(LABEL_FEATURES)}
        seen = at["matched_score"]
        placed = _ramp(at["matched_iou"], 0.45, 0.75)
        near = _ramp(at["matched_iou"], 0.1, 0.3)
        support = np.maximum.reduce([at[f"{m}_support"] for m in ("cleaning", "consensus", "crowd")])
        other = np.maximum.reduce([at[f"{m}_other"] for m in ("cleaning", "consensus", "crowd")])
        # weak specks inside one large object fit its hull, but leave most of it empty
        filled = at["contained_fit"] * _ramp(at["contained_cover"], 0.2, 0.4)
        many = (at["contained"] >= 2) * filled * np.minimum(at["contained_mass"] / 2, 1.0)
        weaker = _ramp(at["twin_iou"], 0.4, 0.7) * _ramp(-at["twin_lead"], -0.05, 0.3)
        scores = {
            "clean": support * placed + 0.5 * self.floor,
            "shifted": seen * near * (1 - placed),
            "merged": 2 * many,
            "spurious": (1 - np.maximum(support, seen)) ** 2 * (1 + self.floor) - self.floor,
            "mislabelled": np.maximum(other - support, 0.0),
            "duplicate": weaker,
        }
        raw = np.stack([np.maximum(scores.get(g, np.zeros(len(rows))), 0.0) for g in GRADES], axis=1)
        share = np.asarray(raw / np.maximum(raw.sum(axis=1, keepdims=True), 1e-9))
        return self._spare(share, at["image_support"])

    def _spare(self, share: Floats, image_support: Floats) -> Floats:
        """Where the models see little of an image's labels, that they do not see one of them says less."""
        spurious = GRADES.index("spurious")
        doubt = share[:, spurious] * self.blind * (1 - _ramp(image_support, 0.05, 0.2))
        share[:, spurious] -= doubt
        share[:, 0] += doubt
        return share

    def missed_probability(self, rows: Floats, categories: Ints) -> Floats:
        """Scores ``[M]`` of candidate rows (columns ``CANDIDATE_FEATURES``) to be objects without a label."""
        at = {name: rows[:, i] for i, name in enumerate(CANDIDATE_FEATURES)}
        backing = 0.7 + 0.3 * np.minimum(np.maximum(at["consensus_support"], at["crowd_support"]) / 0.3, 1.0)
        alone = at["score"] * backing * (1 - 0.5 * _ramp(at["in_label"], 0.3, 0.9))
        return placed(np.asarray(alone), at["place"], USUAL_WEIGHT)
