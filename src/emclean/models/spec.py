"""What a detector is and how it is trained, as plain frozen values that pickle and hash; no torch here.

Pictures are named by the paths of uint8 grey ``[H, W]`` ``.npy`` files, which training maps into memory.
"""

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from emclean.types import Labels, Target

FAMILIES = (
    "compact",
    "fcos_resnet18",
    "fcos_resnet34",
    "fcos_resnet50",
    "retinanet_resnet18",
    "retinanet_resnet34",
    "retinanet_resnet50",
    "ssdlite",
    "fasterrcnn_resnet18",
    "fasterrcnn_resnet50",
)
"""The detectors that can be built, by name."""

PRETRAINED = "pretrained"
"""Value of ``FitJob.init`` that means the weights shipped with the package."""

SHIPPED = Path(__file__).with_name("weights") / "compact.safetensors"
"""The shipped weights: the compact detector, trained on simulated pictures, one category."""

RECIPE = 3
"""Goes up when the same job would train to other weights, so that stored results are not used again."""

SEARCH = 1
"""Goes up when the same weights would find other boxes in the same picture, or with other scores."""

_TICK_NS = 2_000_000_000  # coarser than the clock of any file system (2 s on FAT)


def _require(sound: bool, name: str, expected: str, got: object) -> None:
    if not sound:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")


@dataclass(frozen=True)
class DetectorSpec:
    """One detector: family, number of categories, and how it looks at a picture.

    ``scales`` are the magnifications at which a picture is searched (0.5 = half size); ``image_size`` is the
    side in pixels that families with a fixed input (``ssdlite``) work at; ``width`` the channels of the
    compact detector at its finest level; ``score`` and ``limit`` bound what is returned per tile;
    ``overlap`` is the IoU above which the weaker of two boxes is dropped.
    """

    family: str = "compact"
    n_categories: int = 1
    scales: tuple[float, ...] = (1.0,)
    image_size: int = 256
    width: int = 32
    score: float = 0.02
    limit: int = 600
    overlap: float = 0.5

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        _require(self.family in FAMILIES, "family", f"one of {', '.join(FAMILIES)}", self.family)
        _require(self.n_categories >= 1, "n_categories", "at least 1", self.n_categories)
        _require(bool(self.scales) and min(self.scales) > 0, "scales", "numbers above 0", self.scales)
        _require(self.image_size >= 64, "image_size", "at least 64", self.image_size)
        _require(self.width >= 8 and self.width % 8 == 0, "width", "a multiple of 8", self.width)
        _require(0 <= self.score < 1, "score", "a number from 0 to 1", self.score)
        _require(self.limit >= 1, "limit", "at least 1", self.limit)
        _require(0 < self.overlap <= 1, "overlap", "a number from 0 to 1", self.overlap)

    @property
    def weighs_targets(self) -> bool:
        """Whether the family's loss honours weights, untrusted boxes and areas to ignore."""
        return self.family == "compact" or self.family.startswith(("fcos", "retinanet"))

    def to_json(self) -> str:
        """The specification as one line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "DetectorSpec":
        """The specification that ``to_json`` wrote; keys of later versions are refused."""
        values: dict[str, Any] = json.loads(text)
        unknown = sorted(set(values) - {f.name for f in fields(DetectorSpec)})
        _require(not unknown, "detector specification", "only known keys", unknown)
        return DetectorSpec(**values)


@dataclass(frozen=True)
class Augmentation:
    """How training crops are varied; every strength is the largest change, 0 switches one off.

    ``jitter`` is the range of magnification around the working scale; ``gain`` and ``offset`` change the grey
    level (1 = full range), ``gamma`` its curve; ``noise`` is the standard deviation of added noise and
    ``blur`` that of a Gaussian blur in pixels; ``focus`` the share of crops placed to contain an object.
    """

    jitter: tuple[float, float] = (0.7, 1.4)
    flips: bool = True
    turns: bool = True
    gain: float = 0.25
    offset: float = 0.15
    gamma: float = 0.3
    noise: float = 0.04
    blur: float = 1.0
    invert: float = 0.0
    focus: float = 0.8

    def __post_init__(self) -> None:
        object.__setattr__(self, "jitter", (float(self.jitter[0]), float(self.jitter[1])))
        _require(0 < self.jitter[0] <= self.jitter[1], "jitter", "a range above 0", self.jitter)
        for name in ("gain", "offset", "gamma", "noise", "blur", "invert", "focus"):
            _require(getattr(self, name) >= 0, name, "a number from 0", getattr(self, name))

    @staticmethod
    def none() -> "Augmentation":
        """Random crops at the working scale and nothing else."""
        return Augmentation((1.0, 1.0), False, False, 0.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Schedule:
    """How long and how fast to train.

    ``batch`` crops of ``crop`` pixels make one step, over all workers together. Every ``eval_every`` steps
    (and after the last) the validation part is scored; training ends early after ``patience`` evaluations
    without a better AP50, and never does with ``patience`` 0. ``scales`` are the working scales of training;
    empty means the detector's own. ``ema`` is the decay of the averaged weights, which are what is kept:
    those of the best evaluation, or of the last step where a validation part is too small to choose by
    (``keep_best`` false).
    """

    max_steps: int = 500
    batch: int = 8
    crop: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.01
    warmup: int = 50
    eval_every: int = 100
    patience: int = 0
    keep_best: bool = True
    ema: float = 0.99
    clip: float = 5.0
    scales: tuple[float, ...] = ()
    augment: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scales", tuple(float(scale) for scale in self.scales))
        for name in ("max_steps", "batch", "eval_every"):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("warmup", "patience", "weight_decay"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        _require(self.crop >= 64 and self.crop % 32 == 0, "crop", "a multiple of 32 from 64", self.crop)
        _require(self.lr > 0, "lr", "a number above 0", self.lr)
        _require(0 <= self.ema < 1, "ema", "a number from 0 to 1", self.ema)
        _require(self.clip > 0, "clip", "a number above 0", self.clip)
        _require(all(scale > 0 for scale in self.scales), "scales", "numbers above 0", self.scales)


@dataclass(frozen=True, eq=False)
class FitJob:
    """Everything that decides the outcome of one training, and the folder ``out`` that receives it.

    ``init`` is a file of weights to start from, ``"pretrained"`` for the shipped ones, or None for none.
    """

    spec: DetectorSpec
    pictures: tuple[str, ...]
    targets: tuple[Target, ...]
    validation_pictures: tuple[str, ...] = ()
    validation_labels: tuple[Labels, ...] = ()
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0
    out: str = ""
    init: str | None = PRETRAINED

    def __post_init__(self) -> None:
        for name in ("pictures", "targets", "validation_pictures", "validation_labels"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "pictures", tuple(str(path) for path in self.pictures))
        object.__setattr__(self, "validation_pictures", tuple(str(path) for path in self.validation_pictures))
        _require(len(self.pictures) > 0, "pictures", "at least one", len(self.pictures))
        _require(len(self.targets) == len(self.pictures), "targets", "one per picture", len(self.targets))
        n_labels, n_pictures = len(self.validation_labels), len(self.validation_pictures)
        _require(n_labels == n_pictures, "validation_labels", f"{n_pictures}, one per picture", n_labels)
        _require(self.seed >= 0, "seed", "at least 0", self.seed)
        _require(bool(self.out), "out", "a folder", self.out)
        self._check_targets()

    def _check_targets(self) -> None:
        n = self.spec.n_categories
        given = [*(t.categories for t in self.targets), *(v.categories for v in self.validation_labels)]
        for index, categories in enumerate(given):
            inside = bool(((categories >= 0) & (categories < n)).all())
            _require(
                inside, f"categories of image {index}", f"0 to {n - 1}", sorted(set(categories.tolist()))
            )
        if not self.spec.weighs_targets and any(_partial(target) for target in self.targets):
            raise ValueError(
                f"targets: {self.spec.family} cannot honour weights, untrusted boxes or areas to ignore; "
                "use compact, or a member of the fcos or retinanet families"
            )

    def digest(self) -> str:
        """16 hex digits that the same pictures, targets and settings always give."""
        sha = hashlib.sha256(f"recipe {RECIPE}\n{self.spec.to_json()}\n".encode())
        sha.update(json.dumps(asdict(self.schedule), sort_keys=True).encode())
        sha.update(f"\nseed {self.seed}\n".encode())
        for path in (*self.pictures, *self.validation_pictures):
            sha.update(file_digest(path))
        for target in self.targets:
            _add(sha, target.boxes, target.categories, target.weights, target.regress)
            _add(sha, target.ignore, target.ignore_categories)
        for labels in self.validation_labels:
            _add(sha, labels.boxes, labels.categories)
        start = SHIPPED if self.init == PRETRAINED else self.init
        sha.update(file_digest(start) if start is not None else b"from scratch")
        return sha.hexdigest()[:16]


@dataclass(frozen=True)
class Evaluation:
    """One line of history: mean loss since the last one, and the validation AP50 (None without)."""

    step: int
    loss: float
    ap50: float | None


@dataclass(frozen=True)
class FitResult:
    """What training left: the file of weights, its history, the best AP50, steps taken and seconds spent."""

    weights: str
    history: tuple[Evaluation, ...]
    ap50: float | None
    steps: int
    seconds: float


def _partial(target: Target) -> bool:
    return bool(len(target.ignore) or not target.regress.all() or (target.weights != 1.0).any())


def file_digest(path: str | Path) -> bytes:
    """SHA-256 of a file's content; a file that has not changed since is not read again.

    A change soon after another may leave size and time as they were, so files that young are always read.
    """
    found = os.stat(path)
    if time.time_ns() - found.st_mtime_ns < _TICK_NS:
        return _read_digest(path)
    return _kept_digest(os.path.abspath(path), found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=65536)  # some 20 MB when it is full
def _kept_digest(path: str, size: int, changed: int) -> bytes:
    return _read_digest(path)


def _read_digest(path: str | Path) -> bytes:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _add(sha: Any, *arrays: np.ndarray[Any, Any]) -> None:
    for array in arrays:
        sha.update(f"{array.shape}{array.dtype.str}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
