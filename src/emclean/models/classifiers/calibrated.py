"""Probabilities as the model card calibrates them, for the service and the registered model alike."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURE = "temperature"
"""The card's key; none or null: probabilities stay as they are."""


def temperature_of(card: Mapping[str, Any]) -> float | None:
    """The temperature in a model card; ``ValueError`` where it is none."""
    given = card.get(TEMPERATURE)
    if given is None:
        return None
    value = float(given)
    if not (np.isfinite(value) and value > 0):
        raise ValueError(f"{TEMPERATURE}: expected a number above 0, got {given!r}")
    return value


def calibrate(probabilities: NDArray[np.float64], temperature: float | None) -> NDArray[np.float64]:
    """``p^(1/T)``, normalised, of probabilities ``[n,K]``."""
    if temperature is None:
        return probabilities
    logs = np.log(np.clip(probabilities, 1e-12, 1.0)) / temperature
    raised = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))
