"""A run taken out of its workspace: its folder and its rows, but never an answer of an expert by accident."""

import shutil
from pathlib import Path

from emclean.errors import ConfigError, DataError
from emclean.loop import overview
from emclean.loop.submitting import refuse_twice, tables_of
from emclean.stores.tables import Tables


def remove(workspace: Path, run: str, with_answers: bool, tables: str | None = None) -> int:
    """Take out a run that no job works on; return how many rows of labels went with it.

    One that experts have answered for is refused unless ``with_answers``. Models, predictions and pixels
    are kept by their content and may serve other runs; what MLflow and the label service know stays there.
    Past versions of the tables still hold the rows.
    """
    folder = workspace / "runs" / run
    if not run or not folder.is_dir():
        known = ", ".join(path.name for path in overview.run_folders(workspace)) or "none"
        raise ConfigError([f"there is no run {run!r} in {workspace} (runs there: {known})"], "remove")
    refuse_twice(folder)
    stored = Tables(tables or tables_of(workspace, run))
    answers = stored.read("answers", columns=["run"], where={"run": run}).num_rows
    if answers and not with_answers:
        fix = f"Export its labels first (emclean export {run}), then remove it with --with-answers."
        raise DataError(f"experts have answered {answers} of its questions.", run, fix)
    labels = int(stored.read("labels", columns=["run"], where={"run": run}).num_rows)
    stored.forget(run)
    shutil.rmtree(folder)
    return labels
