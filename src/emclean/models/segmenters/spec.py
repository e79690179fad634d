"""What a segmenter is and what decides a training of it, as plain frozen values that pickle."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields

from emclean.models.classifiers.spec import require
from emclean.models.spec import file_digest

RECIPE = 1
"""Goes up when the same job would train to other weights, so that stored results are not used again."""


@dataclass(frozen=True)
class SegmenterSpec:
    """A U-Net: ``width`` maps at its finest level, doubled at each of ``levels`` reductions by two.

    It works at half the picture's resolution: four neighbouring px come in as four channels.
    """

    width: int = 16
    levels: int = 3

    def __post_init__(self) -> None:
        require(self.width >= 4 and self.width % 4 == 0, "width", "a multiple of 4", self.width)
        require(1 <= self.levels <= 5, "levels", "1 to 5", self.levels)

    @property
    def multiple(self) -> int:
        """The sides of what goes in are multiples of this many px."""
        return int(2 ** (self.levels + 1))

    def to_json(self) -> str:
        """The specification as JSON with sorted keys."""
        return json.dumps(asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "SegmenterSpec":
        """The specification that ``to_json`` wrote; unknown keys are errors."""
        stored = json.loads(text)
        unknown = set(stored) - {item.name for item in fields(SegmenterSpec)}
        require(not unknown, "specification", "known keys", sorted(unknown))
        return SegmenterSpec(**stored)


@dataclass(frozen=True)
class SegmentSchedule:
    """``max_steps`` batches of ``batch`` crops of ``crop`` px at learning rate ``lr``, falling as a cosine.

    Crops are taken at magnifications within ``zoom``; ``ema`` is the decay of the averaged weights, which are
    kept. Progress is told every ``eval_every`` steps.
    """

    max_steps: int = 400
    batch: int = 8
    crop: int = 192
    lr: float = 3e-3
    zoom: tuple[float, float] = (0.7, 1.4)
    ema: float = 0.98
    eval_every: int = 20

    def __post_init__(self) -> None:
        for name in ("max_steps", "batch", "eval_every"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.crop >= 32 and self.crop % 32 == 0, "crop", "a multiple of 32", self.crop)
        require(self.lr > 0, "lr", "a number above 0", self.lr)
        require(0 < self.zoom[0] <= self.zoom[1], "zoom", "a range above 0", self.zoom)
        require(0 <= self.ema < 1, "ema", "a number from 0 to 1", self.ema)


@dataclass(frozen=True)
class SegmentJob:
    """Everything that decides one training, and the folder ``out`` that receives it.

    ``pictures`` are paths of grey ``.npy`` files ``[H,W]`` uint8, ``maps`` of their instance ids ``[H,W]``
    (0: ground).
    """

    pictures: tuple[str, ...]
    maps: tuple[str, ...]
    out: str
    spec: SegmenterSpec = field(default_factory=SegmenterSpec)
    schedule: SegmentSchedule = field(default_factory=SegmentSchedule)
    seed: int = 0

    def __post_init__(self) -> None:
        require(len(self.pictures) > 0, "pictures", "at least one", 0)
        require(len(self.maps) == len(self.pictures), "maps", "one per picture", len(self.maps))
        require(bool(self.out), "out", "a folder", self.out)

    def digest(self) -> str:
        """16 hex digits that the same pictures, maps and settings always give, wherever the files lie."""
        sha = hashlib.sha256(f"segments {RECIPE}\n{self.spec.to_json()}\n{self.seed}\n".encode())
        sha.update(json.dumps(asdict(self.schedule), sort_keys=True).encode())
        for path in (*self.pictures, *self.maps):
            sha.update(file_digest(path))
        return sha.hexdigest()[:16]


@dataclass(frozen=True)
class SegmentResult:
    """What a training left: the file of weights, the mean loss at each report as (step, loss), the time."""

    weights: str
    history: tuple[tuple[int, float], ...]
    seconds: float
