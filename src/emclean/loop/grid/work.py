"""Running one cell, in whatever process: its row of figures, or the reason why there is none."""

import resource
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emclean.errors import EmcleanError
from emclean.loop.code import code_version
from emclean.loop.grid.cells import Cell, CellFiles
from emclean.loop.grid.experiment import FAILED, FINISHED, Experiment, Row, Watch


@dataclass(frozen=True, eq=False)
class Work:
    """The cells to run, by digest, and where the finished ones go; ``device`` None is a GPU if any."""

    experiment: Experiment
    cells: Mapping[str, Cell]
    files: str
    device: str | None = None

    def __call__(self, digest: str, watch: Watch) -> Row:
        """Run a cell and keep its row; a fault of any kind becomes a row that says so, and is not kept."""
        cell, since, before = self.cells[digest], time.monotonic(), processor_time()
        try:
            measured = self.experiment.measured(cell, watch, self.device)
            row = finished(cell, digest, {**measured, "compute_seconds": processor_time() - before})
            CellFiles(Path(self.files)).keep(row)
        except Exception as error:  # whatever befell one cell, the others go on
            spent = {"seconds": time.monotonic() - since, "compute_seconds": processor_time() - before}
            return {**failure(cell, digest, error), **spent}
        return row


def processor_time() -> float:
    """The seconds of processor time that this process has used, with those of its ended children."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def head(cell: Cell, digest: str) -> Row:
    """The part of a row that is known before the cell has run."""
    return {**asdict(cell), "digest": digest, "code_version": code_version()}


def finished(cell: Cell, digest: str, measured: Mapping[str, Any]) -> Row:
    """The row of a cell that has run."""
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    return {**head(cell, digest), "status": FINISHED, "reason": None, **measured, "finished_at": ended}


def failure(cell: Cell, digest: str, error: Exception) -> Row:
    """The row of a cell that could not be run, with the reason and the exit code that it stands for."""
    known = isinstance(error, EmcleanError)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" ({Path(frame.filename).name}:{frame.lineno})" for frame in last)
    reason = str(error) if known else f"{type(error).__name__}: {error}{place}"
    return {
        **head(cell, digest),
        "status": FAILED,
        "reason": " ".join(reason.split())[:500],
        "exit_code": error.exit_code if isinstance(error, EmcleanError) else 1,
    }
