"""What the report of a grid shows: its cells, and their means over the seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from emclean.types import SetAside

Measure = Literal["ap50", "label_f1", "accuracy"]
"""The figures of a cell that are drawn."""

NAMES: Mapping[Measure, str] = {
    "ap50": "AP50 on held-out images",
    "label_f1": "F1 of the labels trained on",
    "accuracy": "accuracy on clean test pictures",
}

RATES: Mapping[Measure, str] = {
    "ap50": "errors for each true object",
    "label_f1": "errors for each true object",
    "accuracy": "share of wrong labels",
}
"""What the rate of a cell is, by what was measured."""


@dataclass(frozen=True)
class CellRow:
    """One cell; figures are None where it failed, for the ``reason``, or where its task has others."""

    method: str
    noise: str
    rate: float
    seed: int
    ap50: float | None = None
    label_f1: float | None = None
    accuracy: float | None = None
    true_rate: float | None = None
    estimated_rate: float | None = None
    trusted: int | None = None
    seconds: float | None = None
    train_seconds: float | None = None
    status: str = "finished"
    reason: str | None = None

    @staticmethod
    def of(row: Mapping[str, Any]) -> "CellRow":
        """Read one entry of ``cells`` in a grid's ``summary.json``."""
        fields: dict[str, Any] = {name: row.get(name) for name in CellRow.__dataclass_fields__}
        return CellRow(**fields)


@dataclass(frozen=True)
class Point:
    """The mean of a measure over ``n`` seeds; ``error`` is its standard error, None of a single one."""

    method: str
    noise: str
    rate: float
    n: int
    mean: float
    error: float | None


def points(cells: Sequence[CellRow], measure: Measure) -> list[Point]:
    """The mean of every method, noise and rate that has a figure, in the order of the cells."""
    values: dict[tuple[str, str, float], list[float]] = {}
    for cell in cells:
        value = getattr(cell, measure)
        if value is not None:
            values.setdefault((cell.method, cell.noise, cell.rate), []).append(value)
    return [Point(*key, len(v), float(np.mean(v)), standard_error(v)) for key, v in values.items()]


def standard_error(values: Sequence[float]) -> float | None:
    """The standard error of the mean; None of a single value."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


@dataclass(frozen=True)
class GridData:
    """Everything that the page of a grid shows; ``facts`` are figures for the head of the page, as text.

    ``own_rate`` is the share of wrong labels that the reader expects in labels of their own.
    """

    name: str
    status: str
    cells: Sequence[CellRow]
    task: str = "boxes"
    own_rate: float | None = None
    finished: str | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    set_aside: Sequence[SetAside] = ()
    services: Mapping[str, str | None] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def methods(self) -> list[str]:
        """The methods, in the order of the cells."""
        return list(dict.fromkeys(cell.method for cell in self.cells))

    @property
    def noises(self) -> list[str]:
        """The noises, in the order of the cells."""
        return list(dict.fromkeys(cell.noise for cell in self.cells))
