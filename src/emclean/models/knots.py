"""Detector scores as probabilities, by the knots that a model card holds."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from emclean.errors import ServingError
from emclean.types import Floats


def calibrate(scores: Floats, knots: Floats) -> Floats:
    """Probabilities ``[N]`` of ``scores [N]`` by linear interpolation between ``knots [K,2]``."""
    if not len(knots):
        return scores
    return np.clip(np.interp(scores, knots[:, 0], knots[:, 1]), 0.0, 1.0)


def knots_of(card: Mapping[str, Any]) -> Floats:
    """The card's ``score_calibration`` as ``[K,2]``, sorted by score; refused where it falls."""
    knots: Floats = np.array(card.get("score_calibration") or [], dtype=np.float64).reshape(-1, 2)
    knots = knots[np.argsort(knots[:, 0], kind="stable")]
    inside = bool(np.isfinite(knots).all() and (knots >= 0).all() and (knots <= 1).all())
    if not inside or (np.diff(knots[:, 1]) < 0).any():
        fix = "Register the model again with a rising calibration."
        raise ServingError("score_calibration must rise and lie within 0 to 1.", "model card", fix)
    return knots
