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
from emclean.models.knots import calibrate, knots_of
from emclean.types import Predictions

Load = Callable[[str], Any]
Predict = Callable[[Any, Iterable[NDArray[np.uint8]]], Iterator[Predictions]]

SMOKE_SIDE = 96
"""Side in pixels of the grey picture on which a new model must answer before it is used."""


@dataclass(frozen=True)
class Pinned:
    """One exact version: its number, its file of weights, what the file must hash to, and its model card."""

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
        return Pinned(str(config["version"]), str(config["weights"]), card, str(config.get("sha256") or ""))

    @property
    def name(self) -> str | None:
        """The name that the model is registered under, where its card says it."""
        return name_of(self.card)


@dataclass(frozen=True)
class Loaded:
    """A model in use. ``knots [K,2]`` map raw scores to probabilities; no knots leave scores as they are."""

    version: str
    detector: Any
    card: Mapping[str, Any]
    categories: tuple[str, ...]
    knots: NDArray[np.float64]
    loaded_at: str
    sha256: str

    @property
    def name(self) -> str | None:
        """The name that the model is registered under, where its card says it."""
        return name_of(self.card)

    def is_same(self, pinned: Pinned) -> bool:
        """Whether that is this model: numbers begin at 1 under every name, so that they alone say little."""
        sha256 = pinned.sha256 or _sha256(pinned)
        return (self.name, self.version, self.sha256) == (pinned.name, pinned.version, sha256)

    @property
    def label_revision(self) -> str | None:
        """The revision of the label table that the model was trained on."""
        revision = self.card.get("label_revision")
        return None if revision is None else str(revision)


def name_of(card: Mapping[str, Any]) -> str | None:
    """The card's ``name``: the name in the registry within which version numbers count."""
    name = card.get("name")
    return None if name is None else str(name)


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
            try:
                pinned = Pinned.of(config)
                if self.current is not None and self.current.is_same(pinned):
                    return
                self.current = self._try(pinned)
                self.failure = None
                self.swaps += 1
            except Exception as error:  # whatever a file of weights can raise: the replica must go on
                self.failures += 1
                version, attempt = str(config.get("version", "?")), str(config.get("attempt", ""))
                failure = {"model_version": version, "error": _describe(error), "at": _now()}
                self.failure = {**failure, "attempt": attempt}

    def detect(self, model: Loaded, picture: NDArray[np.uint8]) -> Predictions:
        """Calibrated predictions for one grey picture ``[H, W]``, best score first."""
        (found,) = self._predict(model.detector, [picture])
        order = np.argsort(-found.scores, kind="stable")
        scores = calibrate(found.scores[order], model.knots)
        return Predictions(found.boxes[order], found.categories[order], scores)

    def _try(self, pinned: Pinned) -> Loaded:
        sha256 = _checked(pinned)
        detector = self._load(pinned.weights)
        n_categories = int(detector.spec.n_categories)
        names = tuple(str(name) for name in pinned.card.get("categories", ()))
        if len(names) != n_categories:
            fix = "Register the model again with its category names."
            raise ServingError(
                f"{n_categories} categories, but the card names {len(names)}.", pinned.weights, fix
            )
        knots = knots_of(pinned.card)
        model = Loaded(pinned.version, detector, pinned.card, names, knots, _now(), sha256)
        self.detect(model, np.full((SMOKE_SIDE, SMOKE_SIDE), 128, np.uint8))
        return model


def _checked(pinned: Pinned) -> str:
    """The SHA-256 of the weights; refused where another one was promised."""
    digest = _sha256(pinned)
    if pinned.sha256 and digest != pinned.sha256:
        fix = "Fetch it from the registry again."
        raise ServingError("the file of weights has changed since it was deployed.", pinned.weights, fix)
    return digest


def _sha256(pinned: Pinned) -> str:
    file = Path(pinned.weights)
    if not file.is_file():
        raise ServingError(
            "the file of weights does not exist.", pinned.weights, "Fetch it from the registry."
        )
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _describe(error: Exception) -> str:
    text = str(error).strip() or "no message"
    name = "" if isinstance(error, EmcleanError) else f"{type(error).__name__}: "
    return f"{name}{text}"[:500]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
