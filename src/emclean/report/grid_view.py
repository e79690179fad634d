"""What has to be said of a kind of grid so that its cells can be shown, to people and to programs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from emclean.report.grid_data import CellRow, GridData, Measure
from emclean.report.theme import ThemeName


class Draw(Protocol):
    """Draws one picture for a page theme."""

    def __call__(self, *, theme: ThemeName) -> bytes:
        """The picture as PNG."""


@dataclass(frozen=True)
class View:
    """How the cells of one kind of grid are shown.

    ``measures`` are the figures of which the means are told to MLflow; ``figures`` what is drawn of a noise,
    by name, with ``captions`` (title, note); ``sections`` the tables below the pictures as HTML; ``columns``
    the figures of a single cell as text, by their heading; ``totals`` the figures of the whole grid that are
    told to MLflow; ``table`` the rows for a terminal, the heading first, with remarks; ``extra`` what the
    summary holds beside the cells. The last two take the rate that the reader expects in labels of their own,
    or None.
    """

    measures: tuple[Measure, ...]
    figures: Callable[[GridData, str], dict[str, Draw]]
    captions: Mapping[str, tuple[str, str]]
    sections: Callable[[GridData], str]
    columns: Mapping[str, Callable[[CellRow], str]]
    totals: Callable[[Sequence[CellRow]], dict[str, float]]
    table: Callable[[Sequence[CellRow], float | None], tuple[list[list[str]], list[str]]]
    extra: Callable[[Sequence[CellRow], float | None], dict[str, Any]]


def number(value: float | None) -> str:
    """A figure in plain text."""
    return "–" if value is None else f"{value:.3f}"


def percent(value: float | None) -> str:
    """A share in percent, in plain text."""
    return "–" if value is None else f"{100 * value:.1f}"
