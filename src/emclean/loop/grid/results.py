"""What a grid leaves: a table, a summary for programs, a page for people, and the same in MLflow."""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emclean.loop.code import code_version
from emclean.loop.console import duration
from emclean.loop.grid.experiment import FAILED, FINISHED, Experiment, Row
from emclean.loop.grid.opening import Grid
from emclean.loop.states import write_atomically
from emclean.report import grid_page
from emclean.report.grid_data import CellRow, GridData, points
from emclean.report.grid_page import VIEWS
from emclean.stores.tracking import public


def schema_of(experiment: Experiment) -> pa.Schema:
    """The columns of ``grid.parquet``, and the keys of each of the summary's ``cells``."""
    return pa.schema(
        [
            *((name, pa.string()) for name in ("method", "noise")),
            ("rate", pa.float64()),
            ("seed", pa.int64()),
            *((name, pa.float64()) for name in experiment.figures),
            *((name, pa.int64()) for name in experiment.counts),
            *((name, pa.float64()) for name in ("seconds", "train_seconds", "compute_seconds")),
            *((n, pa.string()) for n in ("status", "reason", "digest", "code_version", "finished_at")),
        ]
    )


@dataclass(frozen=True)
class Spent:
    """The seconds that the cells of this run took by the clock, on so many slots of a core side by side."""

    wall_s: float
    slots: int

    def efficiency(self, compute_s: float) -> float | None:
        """The share of the cores' time that was processor time of cells; None where none was run."""
        return compute_s / (self.wall_s * self.slots) if compute_s and self.wall_s else None


def summary(grid: Grid, rows: Sequence[Row], fresh: Set[str], spent: Spent) -> dict[str, Any]:
    """The result in the form that programs rely on; ``fresh`` are the digests of the cells run now."""
    failed = [row for row in rows if row["status"] == FAILED]
    columns = schema_of(grid.experiment).names
    view = VIEWS[grid.settings.task]
    compute = sum(row.get("compute_seconds") or 0.0 for row in rows if row["digest"] in fresh)
    return {
        "run": grid.run,
        "status": FAILED if len(failed) == len(rows) else FINISHED,
        "task": grid.settings.task,
        "preset": grid.settings.preset,
        "cells": [{name: row.get(name) for name in columns} for row in rows],
        **view.extra([CellRow.of(row) for row in rows], grid.experiment.own_rate),
        "counts": {"cells": len(rows), "run": len(fresh), "failed": len(failed)},
        "efficiency": spent.efficiency(compute),
        "wall_seconds": spent.wall_s,
        "slots": spent.slots,
        "set_aside": len(grid.set_aside),
        "digests": dict(grid.digests),
        "code_version": code_version(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "report": str(grid.folder / "report.html"),
    }


def write(grid: Grid, rows: Sequence[Row], fresh: Set[str], spent: Spent) -> Path:
    """Write the table, the plots, the report and the summary; return the summary's path."""
    rows = [{"seconds": None, **row} for row in rows]
    content = summary(grid, rows, fresh, spent)
    file = grid.folder / "summary.json"
    _write_table(grid.folder / "grid.parquet", content["cells"], schema_of(grid.experiment))
    data = page_data(grid, content)
    plots = grid.folder / "plots"
    plots.mkdir(exist_ok=True)
    for noise in data.noises:
        for name, draw in VIEWS[data.task].figures(data, noise).items():
            (plots / f"{name}-{noise}.png").write_bytes(draw(theme="light"))
    write_atomically(grid.folder / "report.html", grid_page.render(data))
    write_atomically(file, json.dumps(content, indent=1, allow_nan=False))
    return file


def _write_table(file: Path, cells: Sequence[Row], schema: pa.Schema) -> None:
    draft = file.with_name(f".{file.name}")
    pq.write_table(pa.Table.from_pylist(list(cells), schema), draft)
    draft.replace(file)


def page_data(grid: Grid, content: Mapping[str, Any]) -> GridData:
    """Everything that the page shows."""
    counts, efficiency = content["counts"], content["efficiency"]
    return GridData(
        name=grid.run,
        status=content["status"],
        cells=[CellRow.of(cell) for cell in content["cells"]],
        task=grid.settings.task,
        own_rate=grid.experiment.own_rate,
        finished=content["finished_at"],
        facts={
            "cells": str(counts["cells"]),
            "run now, the others were on file": str(counts["run"]),
            "failed": str(counts["failed"]),
            "for the cells run now": duration(content["wall_seconds"]),
            f"of {content['slots']} cores' time was the cells' processor time": "–"
            if efficiency is None
            else f"{100 * efficiency:.0f} %",
        },
        set_aside=grid.set_aside,
        services=grid.addresses,
        config=settings_record(grid),
        lineage={**content["digests"], "code version": content["code_version"]},
    )


def settings_record(grid: Grid) -> dict[str, Any]:
    """The settings as they may be shown: addresses without passwords."""
    values = grid.settings.model_dump(mode="json")
    if values["services"]["mlflow"]:
        values["services"]["mlflow"] = public(values["services"]["mlflow"])
    return values


@contextmanager
def followed(grid: Grid) -> Iterator[str]:
    """Open the grid's run in MLflow, before any cell, and close it there when the job breaks off."""
    run_id = grid.tracker.run(f"grid/{grid.run}", grid.run, tags={"emclean.run": grid.run})
    grid.tracker.resume(run_id)
    params = {name: str(value) for name, value in settings_record(grid).items() if name != "services"}
    grid.tracker.log(run_id, params={**params, **{f"digest.{k}": v for k, v in grid.digests.items()}})
    try:
        yield run_id
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        _close(grid, run_id, "KILLED" if stopped else "FAILED")
        raise


def _close(grid: Grid, run_id: str, status: str) -> None:
    """Tell MLflow how the grid ended; what goes wrong here must not hide why it ended."""
    try:
        grid.tracker.finish(run_id, status)
    except Exception as error:
        grid.console.say(f"MLflow could not be told that the run is {status}: {error}")


def tell(grid: Grid, run_id: str, rows: Sequence[Row]) -> None:
    """Log every finished cell as a run of its own, their means in the grid's, and all files; close both."""
    with grid.console.stage("telling MLflow") as progress:
        for number, row in enumerate(rows, start=1):
            if row["status"] == FINISHED:
                _tell_cell(grid, run_id, row)
            progress(number, len(rows))
        _tell_means(grid, run_id, [CellRow.of(row) for row in rows])
        names = ("grid.parquet", "summary.json", "report.html", "plots")
        failed = sum(row["status"] == FAILED for row in rows)
        counts = {"cells": float(len(rows)), "failed": float(failed)}
        grid.tracker.log(run_id, metrics=counts, artifacts=[grid.folder / name for name in names])
        grid.tracker.finish(run_id, "FAILED" if failed == len(rows) else "FINISHED")


def _tell_means(grid: Grid, run_id: str, cells: Sequence[CellRow]) -> None:
    view = VIEWS[grid.settings.task]
    grid.tracker.log(run_id, metrics=view.totals(cells))
    for measure in view.measures:
        for point in points(cells, measure):
            name = f"{measure}.{point.method}.{point.noise}"
            grid.tracker.log(run_id, metrics={name: point.mean}, step=round(1000 * point.rate))


def _tell_cell(grid: Grid, parent: str, row: Row) -> None:
    name = f"{row['method']} {row['noise']} {row['rate']:g} seed {row['seed']}"
    child = grid.tracker.run(f"grid/{grid.run}/{row['digest']}", name, parent=parent)
    names = (*grid.experiment.figures, "seconds", "train_seconds", "compute_seconds")
    figures = {key: row[key] for key in names if row.get(key) is not None}
    params = {key: str(row[key]) for key in ("method", "noise", "rate", "seed", "digest")}
    grid.tracker.log(child, metrics=figures, params=params)
