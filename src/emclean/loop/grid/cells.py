"""The cells of a grid: what each is called, by what it is known again, and the file that keeps its result."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emclean.config import NoiseGrid
from emclean.loop.states import write_atomically
from emclean.models.spec import RECIPE as TRAINING
from emclean.models.spec import SEARCH

RECIPE = 1
"""Goes up when the same cell would come out differently, so that results on file are not used again."""


@dataclass(frozen=True, order=True)
class Cell:
    """One experiment: ``method`` on labels with about ``rate`` errors of kind ``noise`` for each object."""

    method: str
    noise: str
    rate: float
    seed: int

    def __str__(self) -> str:
        return f"{self.method} {self.noise} {self.rate:g} seed {self.seed}"

    def digest(self, given: Mapping[str, Any]) -> str:
        """By what the cell is known again: itself, all that decides its result, and the code's recipes."""
        facts = {**asdict(self), "given": dict(given), "recipe": RECIPE, "training": TRAINING}
        if SEARCH > 1:  # cells of the first search were kept before it had a number
            facts["search"] = SEARCH
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def cells_of(config: NoiseGrid) -> list[Cell]:
    """Every cell that the configuration names.

    Seeds change fastest: cells that run side by side then seldom wait for the same model.
    """
    axes = config.methods, config.noise, config.rates, config.seeds
    return [Cell(*values) for values in itertools.product(*axes)]


class CellFiles:
    """The finished cells of a workspace: ``<folder>/<digest>.json``, each written in one step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, digest: str) -> dict[str, Any] | None:
        """The row of a finished cell; None where there is none that can be read."""
        try:
            row = json.loads((self.folder / f"{digest}.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return row if isinstance(row, dict) and row.get("digest") == digest else None

    def keep(self, row: Mapping[str, Any]) -> None:
        """Write the row of a finished cell, under its ``digest``."""
        write_atomically(self.folder / f"{row['digest']}.json", json.dumps(row, indent=1, allow_nan=False))
