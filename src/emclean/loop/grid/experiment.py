"""The seam between a grid and what its cells try: boxes and classes each bring an experiment behind it.

A further kind of grid is one more package beside ``boxes`` and ``classes``: an experiment, how it is opened
from a configuration (``opening.OPENERS``), and how its results are shown (``report.grid_views.VIEWS``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from emclean.loop.grid.cells import Cell
from emclean.types import SetAside

FINISHED, FAILED = "finished", "failed"

Row = dict[str, Any]
Watch = Callable[[float], None]
"""Takes the training steps that a cell has done."""


class Experiment(Protocol):
    """What all cells of a grid share; plain and picklable, so that a cell runs in any process."""

    @property
    def figures(self) -> tuple[str, ...]:
        """The keys of a row that hold a cell's results, numbers or None."""

    @property
    def counts(self) -> tuple[str, ...]:
        """The keys of a row that hold whole numbers."""

    @property
    def own_rate(self) -> float | None:
        """The rate that the reader expects in labels of their own, for advice."""

    @property
    def cells(self) -> Sequence[Cell]:
        """Every cell of the grid, in order."""

    def facts(self, cell: Cell) -> Mapping[str, Any]:
        """All that decides the cell's result beside the cell itself, as plain values."""

    def steps(self, cell: Cell) -> int:
        """The training steps of a cell, if no other cell has done any of them."""

    def measured(self, cell: Cell, watch: Watch, device: str | None) -> Row:
        """Run a cell; its figures, counts, and the seconds that it took and trained."""

    def words(self, row: Row) -> str:
        """A finished cell's result in a few words."""


@dataclass(frozen=True, eq=False)
class Opened:
    """An experiment, the digests of its data, and what of those was set aside."""

    experiment: Experiment
    digests: Mapping[str, str]
    set_aside: tuple[SetAside, ...] = ()
