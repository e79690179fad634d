"""Running one cell, in whatever process: its row of figures, or the reason why there is none."""

import math
import time
import traceback
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emclean.errors import EmcleanError
from emclean.loop.code import code_version
from emclean.loop.grid.bench import Bench, Case, Watch
from emclean.loop.grid.cells import Cell, CellFiles
from emclean.loop.grid.methods import METHODS
from emclean.science import evaluation

FINISHED, FAILED = "finished", "failed"


@dataclass(frozen=True, eq=False)
class Work:
    """The cells to run, by digest, and where the finished ones go; ``device`` None is a GPU if any."""

    bench: Bench
    cells: Mapping[str, Cell]
    files: str
    device: str | None = None

    def __call__(self, digest: str, watch: Watch) -> dict[str, Any]:
        """Run a cell and keep its row; a fault of any kind becomes a row that says so, and is not kept."""
        cell, since = self.cells[digest], time.monotonic()
        try:
            row = {**head(cell, digest), **measured(Case(self.bench, cell, watch, self.device))}
            CellFiles(Path(self.files)).keep(row)
        except Exception as error:  # whatever befell one cell, the others go on
            return {**failure(cell, digest, error), "seconds": time.monotonic() - since}
        return row


def head(cell: Cell, digest: str) -> dict[str, Any]:
    """The part of a row that is known before the cell has run."""
    return {**asdict(cell), "digest": digest, "code_version": code_version()}


def measured(case: Case) -> dict[str, Any]:
    """Teach, train, search the test pictures, and measure; ``seconds`` without those spent waiting."""
    since, bench = time.monotonic(), case.bench
    taught = METHODS[case.cell.method].teach(case)
    weights = case.fit(taught.targets, bench.recipe.final_steps, "final")
    tests, given = bench.test.ids(), sorted(taught.labels)
    found = case.predict(weights, bench.test, tests)
    score = evaluation.detection(
        [bench.test.truth[i] for i in tests], [found[i] for i in tests], bench.n_categories
    )
    labels = evaluation.label_quality(
        [bench.train.truth[i] for i in given], [taught.labels[i] for i in given]
    )
    return {
        "status": FINISHED,
        "reason": None,
        "ap50": _known(score.ap50),
        "ap": _known(score.ap),
        "label_f1": labels.f1,
        "label_precision": labels.precision,
        "label_recall": labels.recall,
        "images": len(given),
        "seconds": time.monotonic() - since - case.waited_s,
        "train_seconds": case.trained_s,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def failure(cell: Cell, digest: str, error: Exception) -> dict[str, Any]:
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


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
