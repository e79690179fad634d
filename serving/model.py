"""The model that a replica holds: loaded beside the one in use, tried, then swapped in by one assignment."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.errors import EmcleanError, ServingError
from emclean.types import Predictions

Load = Callable[[str], Any]
Predict = Callable[[Any, Iterable[NDArray[np.uint8]]], Iterator[Predictions]]

SMOKE_SIDE = 96
"""Side in pixels of the grey picture on which a new model must answer before it is used."""


@dataclass(frozen=True)
class Pinned:
    """One exact version: its name, its file of weights, what the file must hash to, and its model card."""

    version: str
    weights: str
    card: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    @staticmethod
    def of(config: Mapping[str, Any]) -> "Pinned":
        """The version in a Serve ``user_config``; :class:`ServingError` names what is missing."""
        for name in ("version", "weights"):
            if not config.get(name):
                raise ServingError(f"{name} is missing.", "user_config", "Deploy through emclean.")
        card = config.get("card") or {}
        return Pinned(str(config["version"]), str(config["weights"]), card, str(config.get("sha256", "")))


@dataclass(frozen=True)
class Loaded:
    """A model in use. ``knots [K,2]`` map raw scores to probabilities; no knots leave scores as they are."""

    version: str
    detector: Any
    card: Mapping[str, Any]
    categories: tuple[str, ...]
    knots: NDArray[np.float64]
    loaded_at: str

    @property
    def label_revision(self) -> str | None:
        """The revision of the label table that the model was trained on."""
        revision = self.card.get("label_revision")
        return None if revision is None else str(revision)


def calibrate(scores: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities ``[N]`` of ``scores [N]`` by linear interpolation between ``knots [K,2]``."""
    if not len(knots):
        return scores
    return np.clip(np.interp(scores, knots[:, 0], knots[:, 1]), 0.0, 1.0)


def knots_of(card: Mapping[str, Any]) -> NDArray[np.float64]:
    """The card's ``score_calibration`` as ``[K,2]``, sorted by score; refused where it falls."""
    knots: NDArray[np.float64] = np.array(card.get("score_calibration") or [], dtype=np.float64).reshape(
        -1, 2
    )
    knots = knots[np.argsort(knots[:, 0], kind="stable")]
    inside = bool(np.isfinite(knots).all() and (knots >= 0).all() and (knots <= 1).all())
    if not inside or (np.diff(knots[:, 1]) < 0).any():
        fix = "Register the model again with a rising calibration."
        raise ServingError("score_calibration must rise and lie within 0 to 1.", "model card", fix)
    return knots


class ModelHolder:
    """Holds one model and takes the next one without ever failing its owner.

    ``load`` and ``predict`` are the engine's. A request reads :attr:`current` once and keeps that
    model to its end, so that a swap never mixes two.
    """

    def __init__(self, load: Load, predict: Predict) -> None:
        self._load = load
        self._predict = predict
        self._one_at_a_time = threading.Lock()
        self.current: Loaded | None = None
        self.failure: dict[str, str] | None = None
        self.swaps = 0
        self.failures = 0

    def take(self, config: Mapping[str, Any]) -> None:
        """Load, try and swap in the pinned version; on any failure keep the old one and remember why."""
        with self._one_at_a_time:
            version = str(config.get("version", "?"))
            if self.current is not None and self.current.version == version:
                return
            try:
                self.current = self._try(Pinned.of(config))
                self.failure = None
                self.swaps += 1
            except Exception as error:  # whatever a file of weights can raise: the replica must go on
                self.failures += 1
                attempt = str(config.get("attempt", ""))
                failure = {"model_version": version, "error": _describe(error), "at": _now()}
                self.failure = {**failure, "attempt": attempt}

    def detect(self, model: Loaded, picture: NDArray[np.uint8]) -> Predictions:
        """Calibrated predictions for one grey picture ``[H, W]``, best score first."""
        (found,) = self._predict(model.detector, [picture])
        order = np.argsort(-found.scores, kind="stable")
        scores = calibrate(found.scores[order], model.knots)
        return Predictions(found.boxes[order], found.categories[order], scores)

    def _try(self, pinned: Pinned) -> Loaded:
        _check_file(pinned)
        detector = self._load(pinned.weights)
        n_categories = int(detector.spec.n_categories)
        names = tuple(str(name) for name in pinned.card.get("categories", ()))
        if len(names) != n_categories:
            fix = "Register the model again with its category names."
            raise ServingError(
                f"{n_categories} categories, but the card names {len(names)}.", pinned.weights, fix
            )
        model = Loaded(pinned.version, detector, pinned.card, names, knots_of(pinned.card), _now())
        self.detect(model, np.full((SMOKE_SIDE, SMOKE_SIDE), 128, np.uint8))
        return model


def _check_file(pinned: Pinned) -> None:
    file = Path(pinned.weights)
    if not file.is_file():
        raise ServingError(
            "the file of weights does not exist.", pinned.weights, "Fetch it from the registry."
        )
    if not pinned.sha256:
        return
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != pinned.sha256:
        fix = "Fetch it from the registry again."
        raise ServingError("the file of weights has changed since it was deployed.", pinned.weights, fix)


def _describe(error: Exception) -> str:
    text = str(error).strip() or "no message"
    name = "" if isinstance(error, EmcleanError) else f"{type(error).__name__}: "
    return f"{name}{text}"[:500]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
