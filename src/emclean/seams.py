"""The seams to everything remote: two to five methods each, with an in-memory fake in ``stores.fakes``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from emclean.types import Pull, TaskSpec


class LabelService(Protocol):
    """Where experts answer (Label Studio)."""

    def ensure_project(self, name: str, categories: Sequence[str], instructions: str, known: str = "") -> str:
        """Create the project once, or find it again; return its address for people.

        ``known`` is the address that was told before: the project is then not created once more, and
        :class:`LabelServiceError` says so where it is not there. The server may have moved.
        """

    def push(self, tasks: Sequence[TaskSpec]) -> Mapping[str, int]:
        """Create each task exactly once, by its key; return the task id of every key, old and new."""

    def pull(self, keys: Sequence[str]) -> Pull:
        """The newest answers to these tasks."""


class Tracker(Protocol):
    """Where every figure is kept (MLflow tracking)."""

    def run(
        self, key: str, name: str, parent: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Find or create the run with this unique key; return its id."""

    def log(
        self,
        run_id: str,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
        artifacts: Sequence[Path] = (),
        step: int = 0,
    ) -> None:
        """Add figures, settings and files to a run; logging the same again changes nothing."""

    def finish(self, run_id: str, status: str) -> None:
        """Close a run, and what is still open below it, as ``FINISHED``, ``FAILED`` or ``KILLED``."""

    def resume(self, run_id: str) -> bool:
        """Open a closed run again as ``RUNNING``; False where there is no such run."""


class Registry(Protocol):
    """Where every model is kept (MLflow model registry)."""

    def register(self, key: str, weights: Path, card: Mapping[str, Any], run_id: str | None) -> str:
        """Register the model once by its key; return its version."""

    def promote(self, version: str) -> None:
        """Point ``champion`` at this version and ``previous`` at the one before."""

    def champion(self) -> str | None:
        """The version that is served, or None."""

    def card(self, version: str) -> Mapping[str, Any]:
        """The model card of a version: spec, categories, label revision, metrics."""

    def fetch(self, version: str, folder: Path) -> Path:
        """Copy a version's weights into ``folder``; return the file."""
