"""The model that a replica holds: loaded beside the one in use, tried, then swapped in by one assignment."""

import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from emclean.errors import EmcleanError, ServingError
from emclean.imaging.readers import Picture
from emclean.imaging.sheets import fitted
from emclean.imaging.windows import Whole, Windows
from emclean.models import parts
from emclean.models.classifiers import answering
from emclean.models.classifiers import engine as classifiers
from emclean.models.knots import calibrate, knots_of
from emclean.types import Predictions

if TYPE_CHECKING:
    from emclean.loop.analysis.picture import Analyst, Found

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
    """A model in use: a detector (``task`` is ``boxes``), a classifier (``classes``) or an ``analysis``.

    ``network`` is a detector, a classifier, or the classifier of hands of an ``analyst``. ``knots [K,2]`` map
    a detector's raw scores to probabilities; no knots leave scores as they are. ``form`` says how a
    classifier answers.
    """

    version: str
    network: Any
    card: Mapping[str, Any]
    categories: tuple[str, ...]
    knots: NDArray[np.float64]
    loaded_at: str
    sha256: str
    task: str = "boxes"
    form: answering.AnswerForm | None = None
    analyst: "Analyst | None" = None

    @property
    def calibrated(self) -> bool:
        """Whether scores or probabilities are calibrated."""
        return bool(len(self.knots)) or (self.form is not None and self.form.temperature is not None)

    @property
    def colour(self) -> bool:
        """Whether pictures are looked at in colour."""
        return self.task == answering.TASK and int(self.network.spec.channels) == 3

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

    ``load`` and ``predict`` are the detectors' engine's; classifiers, by their card, have their own. A
    request reads :attr:`current` once and keeps that model to its end, so that a swap never mixes two.
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
        (found,) = self._predict(model.network, [picture])
        order = np.argsort(-found.scores, kind="stable")
        scores = calibrate(found.scores[order], model.knots)
        return Predictions(found.boxes[order], found.categories[order], scores)

    def classify(self, model: Loaded, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Calibrated probabilities ``[K]`` of one picture ``[H,W]`` or ``[H,W,3]``, of any size."""
        assert model.form is not None
        pixels = fitted(picture, *model.form.sides)
        return np.asarray(answering.answer(model.network, pixels[None], model.form)[0])

    def analyse(self, model: Loaded, picture: Windows, nm: float | None) -> "Found":
        """The particles of a micrograph and its left share; ``nm``: its pixel's side, if it tells none."""
        from emclean.loop.analysis.picture import analysed

        assert model.analyst is not None
        return analysed(picture, model.analyst, nm)

    def _try(self, pinned: Pinned) -> Loaded:
        ways = {answering.TASK: self._try_classifier, parts.TASK: self._try_analysis}
        return ways.get(str(pinned.card.get("task")), self._try_detector)(pinned)

    def _try_detector(self, pinned: Pinned) -> Loaded:
        sha256 = _checked(pinned)
        detector = self._load(pinned.weights)
        n_categories = int(detector.spec.n_categories)
        names = _categories(pinned, n_categories)
        knots = knots_of(pinned.card)
        model = Loaded(pinned.version, detector, pinned.card, names, knots, _now(), sha256)
        self.detect(model, np.full((SMOKE_SIDE, SMOKE_SIDE), 128, np.uint8))
        return model

    def _try_classifier(self, pinned: Pinned) -> Loaded:
        sha256, form = _checked(pinned), answering.AnswerForm.of(pinned.card)
        model = classifiers.load(pinned.weights)
        names, none = _categories(pinned, model.spec.n_classes), np.zeros((0, 2))
        task = answering.TASK
        made = Loaded(pinned.version, model, pinned.card, names, none, _now(), sha256, task, form)
        shape = form.sides if model.spec.channels == 1 else (*form.sides, 3)
        self.classify(made, np.full(shape, 128, np.uint8))
        return made

    def _try_analysis(self, pinned: Pinned) -> Loaded:
        from emclean.loop.analysis.picture import Analyst  # a replica with a detector need not load all that

        sha256 = _checked(pinned)
        analyst = Analyst.load(pinned.weights, pinned.card)
        hand, none = analyst.eyes.hand, np.zeros((0, 2))
        names = _categories(pinned, hand.spec.n_classes)
        made = Loaded(
            pinned.version, hand, pinned.card, names, none, _now(), sha256, parts.TASK, analyst=analyst
        )
        self.analyse(made, Whole(Picture(np.full((SMOKE_SIDE, SMOKE_SIDE), 128, np.uint8), 8)), None)
        return made


def _categories(pinned: Pinned, n_categories: int) -> tuple[str, ...]:
    """The names in the card, one for each category of the model."""
    names = tuple(str(name) for name in pinned.card.get("categories", ()))
    if len(names) != n_categories:
        fix = "Register the model again with its category names."
        raise ServingError(
            f"{n_categories} categories, but the card names {len(names)}.", pinned.weights, fix
        )
    return names


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
