"""From a configuration to a grid: opens the experiment, plans the cells, finds the computers."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from emclean import services
from emclean.config import GridKeys
from emclean.errors import ComputeError
from emclean.loop.console import Console
from emclean.loop.grid.boxes.opening import opened as boxes_opened
from emclean.loop.grid.cells import Cell, CellFiles
from emclean.loop.grid.classes.opening import opened as classes_opened
from emclean.loop.grid.experiment import Experiment, Opened, Row
from emclean.loop.grid.work import Work, failure
from emclean.seams import Tracker
from emclean.stores.tracking import MlflowTracker, public
from emclean.types import SetAside

EXPERIMENT = "emclean-grids"
Told = Callable[[str, float], None]
Ended = Callable[[str, Row | None], None]

OPENERS: Mapping[str, Callable[[Any, Path, Console], Opened]] = {
    "boxes": boxes_opened,
    "classes": classes_opened,
}
"""By the configuration's task: what reads its data and plans its cells."""


class Runner(Protocol):
    """Runs cells."""

    @property
    def slots(self) -> int:
        """How many cells run side by side."""

    def run(self, work: Work, digests: Sequence[str], told: Told, ended: Ended) -> dict[str, Row]:
        """The row of every cell, by digest; ``told`` takes its training steps, ``ended`` its row."""


class InlineRunner:
    """One cell after another, in this process."""

    slots = 1

    def run(self, work: Work, digests: Sequence[str], told: Told, ended: Ended) -> dict[str, Row]:
        """Run the cells in their order."""
        rows = {}
        for digest in digests:
            rows[digest] = work(digest, lambda done, name=digest: told(name, done))  # type: ignore[misc]
            ended(digest, rows[digest])
        return rows


@dataclass(frozen=True)
class RayRunner:
    """As many cells side by side as the cluster has room for, each a trial of Ray Tune in its own process."""

    storage: Path
    gpus: float
    at_once: int | None
    slots: int

    def run(self, work: Work, digests: Sequence[str], told: Told, ended: Ended) -> dict[str, Row]:
        """Run the cells under Ray Tune; one whose process died too often has failed."""
        from emclean.distributed import grid

        need = grid.Need(self.gpus, self.at_once)
        found = grid.run_all(work, digests, need, storage=self.storage, told=told, ended=ended)
        return {
            digest: failure(work.cells[digest], digest, out) if isinstance(out, ComputeError) else out
            for digest, out in found.items()
        }


@dataclass(frozen=True, eq=False)
class Grid:
    """A grid ready to run: its cells by digest, what they work with, and where to tell of it."""

    settings: GridKeys
    workspace: Path
    experiment: Experiment
    cells: Mapping[str, Cell]
    runner: Runner
    tracker: Tracker
    console: Console
    digests: Mapping[str, str]
    set_aside: Sequence[SetAside]
    addresses: Mapping[str, str | None]

    @property
    def run(self) -> str:
        """The run's name."""
        return self.settings.run_name()

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return self.workspace / "runs" / self.run

    @property
    def files(self) -> CellFiles:
        """The finished cells, shared by all grids of the workspace."""
        return CellFiles(self.workspace / "grids" / "cells")


@contextmanager
def opened(config: GridKeys, console: Console) -> Iterator[Grid]:
    """A grid ready to run; a Ray that had to be started for it ends with the block."""
    workspace = Path(config.workspace).absolute()
    workspace.mkdir(parents=True, exist_ok=True)
    running = services.addresses(workspace)
    mlflow = config.services.mlflow or running.mlflow or f"sqlite:///{workspace / 'mlflow.db'}"
    found = OPENERS[config.task](config, workspace, console)
    with runner_of(config, workspace, running.ray, console) as runner:
        yield Grid(
            config,
            workspace,
            found.experiment,
            by_digest(found.experiment),
            runner,
            MlflowTracker(mlflow, EXPERIMENT),
            console,
            found.digests,
            found.set_aside,
            {"MLflow": public(mlflow)},
        )


def by_digest(experiment: Experiment) -> dict[str, Cell]:
    """The cells of an experiment by what they are known by."""
    return {cell.digest(experiment.facts(cell)): cell for cell in experiment.cells}


@contextmanager
def runner_of(
    config: GridKeys, workspace: Path, ray: str | None, console: Console
) -> Iterator[InlineRunner | RayRunner]:
    """What runs the cells: this process, or the Ray of the environment, of the workspace, or a new one."""
    if config.compute == "inline":
        yield InlineRunner()
        return
    from emclean.distributed import grid, session

    address = os.environ.get("RAY_ADDRESS") or ray
    with session.connect(address, home=workspace / ".emclean") as joined:
        slots = grid.Need(config.gpu_per_cell, config.concurrent).slots(joined.cpus, joined.gpus)
        console.say(f"Ray with {joined.cpus} cores at {joined.address}: {slots} cells side by side")
        storage = workspace / "grids" / "tune" / config.run_name()
        yield RayRunner(storage, config.gpu_per_cell, config.concurrent, slots)
