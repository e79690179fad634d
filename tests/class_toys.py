"""A toy set of two mirror-image classes, and tasks on it, for the tests of classifiers."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe, ClassTask
from emclean.science.classes import plant

SIDE = 16
RECIPE = ClassRecipe(steps=24, batch=32, lr=1e-2, rotate=5, zoom=(0.9, 1.1), eval_every=12)
SPEC = ClassifierSpec(size=SIDE, width=4)


def strokes(n: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``n`` pictures of a slanted bright stroke in noise (class 0), then their mirror images (class 1)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    slope, place = rng.uniform(0.6, 1.4, (n, 1, 1)), rng.uniform(-2, 2, (n, 1, 1))
    pictures = 180 * np.exp(-((x - slope * y - place) ** 2) / 4) + rng.uniform(0, 70, (n, SIDE, SIDE))
    one_hand = pictures.astype(np.uint8)
    return np.concatenate([one_hand, one_hand[:, :, ::-1]])


@dataclass(frozen=True)
class Toy:
    """Pictures on disk: particles 0 to ``n`` - 1 of class 0, their mirror images in the same order after."""

    path: str
    n: int

    def both(self, first: int, last: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Rows of these particles and of their mirror images."""
        some = np.arange(first, last)
        return np.concatenate([some, some + self.n])

    def truth(self, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The right classes of these rows."""
        return (rows >= self.n).astype(np.int64)


def toy(folder: Path, n: int = 190) -> Toy:
    """Write the set into a folder."""
    path = folder / "strokes.npy"
    np.save(path, strokes(n))
    return Toy(str(path), n)


def task(data: Toy, out: Path, rate: float = 0.2, **changes: Any) -> ClassTask:
    """80 particles to train on, 20 to validate, 10 trusted, ``rate`` of the labels of particles wrong."""
    rng = np.random.default_rng(5)
    rows, validation, trusted = data.both(0, 80), data.both(80, 100), data.both(100, 110)
    given = ClassTask(
        data.path,
        rows,
        plant(data.truth(rows), rows % data.n, rate, rng),
        rows % data.n,
        validation,
        plant(data.truth(validation), validation % data.n, rate, rng),
        trusted,
        data.truth(trusted),
        spec=SPEC,
        recipe=RECIPE,
        out=str(out),
    )
    return replace(given, **changes)
