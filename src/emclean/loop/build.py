"""From a configuration to a job: joins or starts the neighbours, reads the data, hands out plain parts."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emclean import services
from emclean.config import ActiveClean
from emclean.errors import LabelServiceError
from emclean.loop import compute, sources
from emclean.loop.console import Console
from emclean.loop.job import Job, Parts
from emclean.seams import LabelService
from emclean.stores.registry import MlflowRegistry
from emclean.stores.tables import Tables
from emclean.stores.tracking import MlflowTracker

EXPERIMENT = "emclean"


@dataclass(frozen=True)
class Addresses:
    """Where the neighbours of this run answer; None where one is not used."""

    label_studio: str | None
    token_file: Path | None
    mlflow: str
    ray: str | None


@contextmanager
def opened(config: ActiveClean, console: Console) -> Iterator[Job]:
    """A job ready to run; whatever was started for it ends with the block."""
    workspace = Path(config.workspace).absolute()
    workspace.mkdir(parents=True, exist_ok=True)
    name = config.run_name()
    config = sources.simulated(config, workspace / "simulated", console)
    data = sources.load(config, workspace, console)
    with ExitStack() as stack:
        at = _addresses(config, workspace, stack, console)
        tracker = MlflowTracker(at.mlflow, EXPERIMENT)
        registry = MlflowRegistry(at.mlflow, "emclean-" + "-".join(data.categories)[:48])
        service, program = _label_service(config, workspace, at)
        computing, swap = _compute(config, workspace, at, stack, console)
        parts = Parts(
            tables=Tables(str(workspace / "tables")),
            service=service,
            tracker=tracker,
            registry=registry,
            compute=computing,
            console=console,
            swap=swap,
            expert_program=program,
            addresses={"Label Studio": at.label_studio, "MLflow": at.mlflow, "Ray": at.ray},
            now=lambda: datetime.now(UTC),
        )
        yield Job(config, name, workspace, parts, data)
