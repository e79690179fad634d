"""The cells of a grid: what each is called, by what it is known again, and the file that keeps its result."""

import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emclean.loop.states import write_atomically


@dataclass(frozen=True, order=True)
class Cell:
    """One trial: ``method`` on labels with about ``rate`` errors of kind ``noise`` for each true label."""

    method: str
    noise: str
    rate: float
    seed: int

    def __str__(self) -> str:
        return f"{self.method} {self.noise} {self.rate:g} seed {self.seed}"

    def digest(self, facts: Mapping[str, Any]) -> str:
        """By what the cell is known again: itself, and all else that decides its result."""
        known = {**asdict(self), **facts}
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:24]


def cells_of(
    methods: Iterable[str], rates: Mapping[str, Sequence[float]], seeds: Sequence[int]
) -> tuple[Cell, ...]:
    """Every combination of method, noise with each of its ``rates``, and seed.

    Seeds change fastest: cells that run side by side then seldom wait for the same model.
    """
    places = [(noise, rate) for noise, own in rates.items() for rate in own]
    return tuple(Cell(m, *place, seed) for m, place, seed in itertools.product(methods, places, seeds))


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
