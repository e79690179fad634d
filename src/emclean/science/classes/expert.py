"""What a simulated expert says of a picture's class."""

import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClassSlips:
    """How often the expert errs: names a wrong class (``wrong``), lets a wrong label that is shown pass."""

    wrong: float = 0.0
    rubber_stamp: float = 0.0

    def __post_init__(self) -> None:
        for name in ("wrong", "rubber_stamp"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}: expected a number from 0 to 1, got {value!r}")


def names(count: int) -> tuple[str, ...]:
    """What several simulated experts are called: addresses that nobody has (RFC 2606)."""
    return tuple(f"expert-{k + 1}@simulated.invalid" for k in range(count))


def answerer(count: int, seen_by: Collection[str], key: str) -> int:
    """Which of ``count`` experts takes a question: their turn by its key, passing those in ``seen_by``.

    Where all have answered already it is the first one's turn again.
    """
    first = zlib.crc32(key.encode())
    turns = [(first + k) % count for k in range(count)]
    left = [k for k in turns if names(count)[k] not in seen_by]
    return (left or turns)[0]


def answer(truth: int, shown: int | None, n_classes: int, slips: ClassSlips, rng: np.random.Generator) -> int:
    """The class named for a picture of class ``truth``, where ``shown`` (None: nothing) is its label so far.

    A wrong class is each of the others with the same chance. The same draws are made whatever is shown.
    """
    stamps, errs = rng.random(2)
    other = (truth + int(rng.integers(1, n_classes))) % n_classes
    if shown is not None and shown != truth and stamps < slips.rubber_stamp:
        return shown
    return other if errs < slips.wrong else truth
