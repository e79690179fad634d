"""What a simulated expert says of a picture's class."""

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


def answer(truth: int, shown: int | None, n_classes: int, slips: ClassSlips, rng: np.random.Generator) -> int:
    """The class named for a picture of class ``truth``, where ``shown`` (None: nothing) is its label so far.

    A wrong class is each of the others with the same chance. The same draws are made whatever is shown.
    """
    stamps, errs = rng.random(2)
    other = (truth + int(rng.integers(1, n_classes))) % n_classes
    if shown is not None and shown != truth and stamps < slips.rubber_stamp:
        return shown
    return other if errs < slips.wrong else truth
