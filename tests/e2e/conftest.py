"""A real Label Studio and the main job as a program, for tests of the whole."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import label_studio_copies
import pytest

from emclean.errors import LabelServiceError
from emclean.stores.label_studio import server

ROOT = Path(__file__).resolve().parents[2]
JOB = "pipelines/active_clean.py"

SMALL = (
    "data.simulate={pool: 10, test: 4, size: 128, noise: crowd}",
    "budget={rounds: 1, seed_images: 4, share_of_full: 0.7}",
    "detector={steps: 4, final_steps: 4, eval_every: 2, batch: 2, crop: 128, patience: 0}",
    "services.poll_s=0.3",
)
"""Settings under which the job takes seconds: what it learns does not matter here."""


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[server.ServerProcess]:
    """A running Label Studio; where it is not installed, CI fails and other machines skip."""
    try:
        command = server.find_executable()
    except LabelServiceError as error:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(error))
    folder = tmp_path_factory.mktemp("label-studio")
    label_studio_copies.prepare(folder)
    running = server.start(folder, executable=command)
    yield running
    server.stop(running.pid)


class Program:
    """The main job, started as users start it, with its settings."""

    def __init__(self, workspace: Path, *settings: str) -> None:
        self.workspace, self.settings = workspace, settings
        self.log = workspace.with_suffix(".log")

    def start(self, *more: str, script: Sequence[str] = (JOB,)) -> "subprocess.Popen[bytes]":
        """Start the job; its output goes to the log."""
        line = [sys.executable, *script, f"workspace={self.workspace}"]
        variables = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*line, *self.settings, *more], cwd=ROOT, env=variables, stdout=log, stderr=log
            )

    def run(self, *more: str, script: Sequence[str] = (JOB,), seconds: float = 600) -> int:
        """Run the job to its end; return its exit code."""
        return self.start(*more, script=script).wait(timeout=seconds)

    def said(self) -> str:
        """Everything that the job has printed."""
        return self.log.read_text(encoding="utf-8")

    def summary(self, run: str) -> dict[str, Any]:
        """The result of a run."""
        return dict(json.loads((self.workspace / "runs" / run / "summary.json").read_text()))


def at(label_studio: server.ServerProcess, url: str = "") -> tuple[str, ...]:
    """Settings that lead a job to this Label Studio, or to a proxy before it."""
    return (
        f"services.label_studio={url or label_studio.url}",
        f"services.label_studio_token_file={label_studio.credentials}",
        f"services.label_studio_documents={label_studio.document_root}",
    )
