"""The flow of a grid: run the cells that are not on file, then write and tell what came out."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emclean.loop.console import Console
from emclean.loop.grid import results
from emclean.loop.grid.cells import Cell
from emclean.loop.grid.experiment import FAILED, FINISHED, Experiment, Row
from emclean.loop.grid.opening import Grid
from emclean.loop.grid.work import Work
from emclean.loop.states import locked


@dataclass(frozen=True)
class Outcome:
    """The summary's path, and the exit code: not 0 only where every cell has failed."""

    summary: Path
    code: int


@dataclass
class Progress:
    """How far a grid is, in training steps; ``steps`` are those of each cell that has to be run."""

    console: Console
    experiment: Experiment
    cells: Mapping[str, Cell]
    steps: Mapping[str, int]
    done: dict[str, float] = field(default_factory=dict)
    ended: int = 0
    since: float = field(default_factory=time.monotonic)

    def told(self, digest: str, done: float) -> None:
        """A cell has done so many steps."""
        self.done[digest] = min(done, self.steps[digest])
        text = f"{self.ended} of {len(self.steps)} cells are done; training steps"
        self.console.progress(text, sum(self.done.values()), sum(self.steps.values()), self.since)

    def end(self, digest: str, row: Row | None) -> None:
        """A cell has ended, one way or the other."""
        self.ended += 1
        self.console.say(f"{self.cells[digest]}: {self.words(row)}")
        self.told(digest, self.steps[digest])

    def words(self, row: Row | None) -> str:
        """How a cell came out, in a few words."""
        if row is None or row["status"] == FAILED:
            return f"failed: {row['reason'] if row else 'its process did not come to an end'}"
        return self.experiment.words(row)


def run(grid: Grid) -> Outcome:
    """Run the grid to its end; what is on file is not run again, what has failed before is tried again."""
    with locked(grid.folder), results.followed(grid) as run_id:
        kept = {digest: row for digest in grid.cells if (row := grid.files.read(digest)) is not None}
        missing = [digest for digest in grid.cells if digest not in kept]
        grid.console.say(f"{len(grid.cells)} cells: {len(kept)} on file, {len(missing)} to run")
        since = time.monotonic()
        fresh = run_missing(grid, missing)
        spent = results.Spent(time.monotonic() - since, grid.runner.slots)
        rows = [{**kept, **fresh}[digest] for digest in grid.cells]
        file = results.write(grid, rows, set(fresh), spent)
        results.tell(grid, run_id, rows)
        return Outcome(file, exit_code(rows))


def run_missing(grid: Grid, missing: Sequence[str]) -> dict[str, Row]:
    """Run these cells; their rows by digest."""
    if not missing:
        return {}
    device = "cpu" if grid.settings.compute == "ray" and not grid.settings.gpu_per_cell else None
    work = Work(grid.experiment, grid.cells, str(grid.files.folder), device)
    steps = {digest: grid.experiment.steps(grid.cells[digest]) for digest in missing}
    progress = Progress(grid.console, grid.experiment, grid.cells, steps)
    return grid.runner.run(work, missing, progress.told, progress.end)


def exit_code(rows: Sequence[Row]) -> int:
    """0 where any cell has finished; else the code of the first fault."""
    if any(row["status"] == FINISHED for row in rows):
        return 0
    return int(rows[0]["exit_code"])
