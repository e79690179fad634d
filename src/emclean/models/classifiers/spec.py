"""What a classifier is and what decides a training of it, as plain frozen values that pickle; no torch here.

Pictures lie in one memory-mapped uint8 ``.npy`` file, ``[N,H,W]`` (grey) or ``[N,H,W,3]``; ``rows`` are
indices into it.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.models.spec import file_digest

Ints = NDArray[np.int64]

FAMILIES = ("compact", "basic", "pooled")
"""The networks that can be built, by name."""

OPTIMISERS = ("adam", "sgd", "adadelta")
SCHEDULES = ("cosine", "constant", "late_linear")

RECIPE = 2
"""Goes up when the same task would train to other weights, so that stored results are not used again."""


def require(sound: bool, name: str, expected: str, got: object) -> None:
    """Raise ``ValueError`` naming the field, what was expected and what was given, unless ``sound``."""
    if not sound:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


@dataclass(frozen=True)
class ClassifierSpec:
    """One classifier.

    ``family``: ``basic`` is the source's network (two convolutions, one dense layer), ``pooled`` its network
    for co-teaching, 88 times smaller, ``compact`` a small residual network with normalisation and global
    pooling. ``size`` is the side in pixels that pictures are
    brought to; ``width`` the channels of the first maps (0: the family's own). ``mirror`` makes the answer
    mirror-equivariant by construction, for two classes: p(left-right flip of x) = 1 - p(x).
    """

    family: str = "compact"
    n_classes: int = 2
    size: int = 64
    channels: int = 1
    mirror: bool = False
    width: int = 0

    def __post_init__(self) -> None:
        require(self.family in FAMILIES, "family", f"one of {', '.join(FAMILIES)}", self.family)
        require(self.n_classes >= 2, "n_classes", "at least 2", self.n_classes)
        require(self.size >= 16 and self.size % 16 == 0, "size", "a multiple of 16 from 16", self.size)
        require(self.channels in (1, 3), "channels", "1 or 3", self.channels)
        require(not self.mirror or self.n_classes == 2, "mirror", "two classes", self.n_classes)
        require(self.width >= 0 and self.width % 2 == 0, "width", "an even number from 0", self.width)

    def to_json(self) -> str:
        """The specification as JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "ClassifierSpec":
        """The specification that ``to_json`` wrote; unknown keys are errors."""
        stored = json.loads(text)
        unknown = set(stored) - {item.name for item in fields(ClassifierSpec)}
        require(not unknown, "specification", "known keys", sorted(unknown))
        return ClassifierSpec(**stored)


@dataclass(frozen=True)
class ClassRecipe:
    """How long and how fast to train, and how pictures are varied.

    ``steps`` batches of ``batch`` pictures are trained on, at ``lr`` falling with the ``schedule``
    (``late_linear``: constant for 15 of 40 parts, then linearly to 0). ``adam`` is AdamW, ``sgd`` has
    momentum 0.9, ``adadelta`` rho 0.95 and epsilon 1e-7. ``rotate`` is the largest turn in degrees,
    ``zoom`` the range of magnifications, ``shift`` the largest move as a share of the side;
    ``half_turns`` turns half of the pictures by 180 degrees, ``flip`` mirrors half of them (only for sets
    whose mirror image is of the same class). Every ``eval_every`` steps, and after the last, the (noisy)
    validation part is predicted; ``keep`` says which weights stay: the ``last``, or the ``best``: those
    of the latest evaluation that is not clearly (by a standard error) below the best one. ``ema`` is the
    decay of averaged weights, which are then what is validated and kept; 0 averages nothing. Of every
    batch, ``trusted_share`` is drawn from the trusted labels where there are any, however few beside the
    others.
    """

    steps: int = 400
    batch: int = 64
    lr: float = 2e-3
    optimiser: str = "adam"
    weight_decay: float = 0.01
    schedule: str = "cosine"
    rotate: float = 5.0
    zoom: tuple[float, float] = (0.7, 1.3)
    half_turns: bool = True
    flip: bool = False
    shift: float = 0.0
    eval_every: int = 50
    keep: str = "best"
    ema: float = 0.0
    trusted_share: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "zoom", (float(self.zoom[0]), float(self.zoom[1])))
        for name in ("steps", "batch", "eval_every"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("weight_decay", "rotate", "shift"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        require(self.lr > 0, "lr", "a number above 0", self.lr)
        require(0 < self.zoom[0] <= self.zoom[1], "zoom", "a range above 0", self.zoom)
        require(0 <= self.trusted_share < 1, "trusted_share", "a number from 0 to 1", self.trusted_share)
        require(0 <= self.ema < 1, "ema", "a number from 0 to 1", self.ema)
        require(self.optimiser in OPTIMISERS, "optimiser", " or ".join(OPTIMISERS), self.optimiser)
        require(self.schedule in SCHEDULES, "schedule", " or ".join(SCHEDULES), self.schedule)
        require(self.keep in ("best", "last"), "keep", "best or last", self.keep)


def _none() -> Ints:
    return np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class ClassTask:
    """Everything that decides the outcome of one training, and the folder ``out`` that receives it.

    ``labels`` (noisy), ``pairs`` (the particle that a picture shows; a picture and its mirror image share
    it) and ``groups`` (what out-of-sample predictions may not part, a person or a scene; each particle its
    own where None) go with ``rows``. The labels of the validation part are noisy as well; labels that were
    bought from an expert are ``trusted``, and may name rows of the training part, whose label they then
    replace.
    ``noise_rate`` is the share of wrong labels; None: a method that needs it estimates it from out-of-sample
    probabilities ``[n,K]`` of its training rows, which are ``probabilities`` or, where those are None, come
    from a cross-fit of its own. ``options`` are a method's own settings, over its defaults.
    """

    pictures: str
    rows: Ints
    labels: Ints
    pairs: Ints
    validation_rows: Ints = field(default_factory=_none)
    validation_labels: Ints = field(default_factory=_none)
    trusted_rows: Ints = field(default_factory=_none)
    trusted_labels: Ints = field(default_factory=_none)
    noise_rate: float | None = None
    spec: ClassifierSpec = field(default_factory=ClassifierSpec)
    recipe: ClassRecipe = field(default_factory=ClassRecipe)
    seed: int = 0
    out: str = ""
    probabilities: NDArray[np.float64] | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    groups: Ints | None = None

    def __post_init__(self) -> None:
        for name in _COLUMNS:
            object.__setattr__(self, name, _column(name, getattr(self, name)))
        n = len(self.rows)
        require(n > 0, "rows", "at least one", n)
        require(len(self.labels) == n, "labels", f"{n}, one per row", len(self.labels))
        require(len(self.pairs) == n, "pairs", f"{n}, one per row", len(self.pairs))
        for part in ("validation", "trusted"):
            rows, labels = (len(getattr(self, f"{part}_{name}")) for name in ("rows", "labels"))
            require(rows == labels, f"{part}_labels", f"{rows}, one per row", labels)
        for name in ("labels", "validation_labels", "trusted_labels"):
            _inside(name, getattr(self, name), self.spec.n_classes)
        rate = self.noise_rate
        require(rate is None or 0 <= rate < 1, "noise_rate", "None or a number from 0 to 1", rate)
        require(self.seed >= 0, "seed", "at least 0", self.seed)
        require(bool(self.out), "out", "a folder", self.out)
        object.__setattr__(self, "options", dict(self.options))
        self._check_probabilities(n)
        self._check_groups(n)

    def _check_groups(self, n: int) -> None:
        if self.groups is None:
            return
        groups = _column("groups", self.groups)
        require(len(groups) == n, "groups", f"{n}, one per row", len(groups))
        particles = len(np.unique(self.pairs))
        both = len(np.unique(np.stack([self.pairs, groups]), axis=1).T)
        require(both == particles, "groups", "one group for each particle", f"{both} for {particles}")
        alone = len(np.unique(groups)) == particles  # says no more than the particles do
        object.__setattr__(self, "groups", None if alone else groups)

    def _check_probabilities(self, n: int) -> None:
        if self.probabilities is None:
            return
        array = np.ascontiguousarray(self.probabilities, dtype=np.float64)
        require(array.shape == (n, self.spec.n_classes), "probabilities", "[rows, classes]", array.shape)
        require(bool(np.isfinite(array).all()), "probabilities", "finite numbers", "others")
        object.__setattr__(self, "probabilities", array)

    def digest(self) -> str:
        """16 hex digits that the same pictures, labels and settings always give, wherever the file lies."""
        sha = hashlib.sha256(f"classes {RECIPE}\n{self.spec.to_json()}\n".encode())
        settings = {"rate": self.noise_rate, "seed": self.seed, "options": dict(self.options)}
        sha.update(json.dumps([asdict(self.recipe), settings], sort_keys=True).encode())
        sha.update(file_digest(self.pictures))
        for name in _COLUMNS:
            _add(sha, name, getattr(self, name))
        if self.probabilities is not None:
            _add(sha, "probabilities", self.probabilities)
        if self.groups is not None:
            _add(sha, "groups", self.groups)
        return sha.hexdigest()[:16]


_COLUMNS = (
    "rows",
    "labels",
    "pairs",
    "validation_rows",
    "validation_labels",
    "trusted_rows",
    "trusted_labels",
)


@dataclass(frozen=True)
class ClassEvaluation:
    """One line of history: mean loss since the last one, and the accuracy on the validation part's (noisy)
    labels, None without one."""

    stage: str
    step: int
    loss: float
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class ClassResult:
    """What a training left.

    ``weights`` is the file to serve; ``noise_rate`` the rate that was given or estimated, None where the
    method needs none; ``kept`` says of every training row, in the task's order, how far the method trusted
    its label (0 to 1), None where it does not judge; ``probabilities`` ``[n,K]`` are out-of-sample, where the
    method made them.
    """

    weights: str
    method: str
    noise_rate: float | None
    history: tuple[ClassEvaluation, ...]
    seconds: float
    kept: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float64] | None = None


def _column(name: str, values: object) -> Ints:
    array = np.asarray(values)
    require(array.ndim == 1, name, "one number per picture", array.shape)
    require(array.size == 0 or array.dtype.kind in "iu", name, "whole numbers", array.dtype)
    return np.ascontiguousarray(array, dtype=np.int64)


def _inside(name: str, labels: Ints, n_classes: int) -> None:
    sound = bool(((labels >= 0) & (labels < n_classes)).all())
    require(sound, name, f"0 to {n_classes - 1}", sorted(set(labels.tolist()))[:10])


def _add(sha: Any, name: str, array: NDArray[Any]) -> None:
    sha.update(f"{name}{array.shape}{array.dtype.str}".encode())
    sha.update(np.ascontiguousarray(array).tobytes())
