"""The services that a job works with: those that the configuration names, that run here, or new ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from emclean import services
from emclean.config import ActiveKeys
from emclean.errors import ConfigError, LabelServiceError
from emclean.loop.console import Console


@dataclass(frozen=True)
class Neighbours:
    """Where the services answer; ``document_root`` is the folder from which Label Studio serves pictures.

    ``documents_there`` is that folder as Label Studio sees it, empty where it sees the same. ``ray`` is the
    cluster that ``emclean up`` started here, None to join the one of the environment or to start one.
    """

    mlflow: str
    ray: str | None = None
    label_studio: str | None = None
    token_file: Path | None = None
    document_root: Path | None = None
    documents_there: str = ""


@contextmanager
def find(config: ActiveKeys, workspace: Path, console: Console) -> Iterator[Neighbours]:
    """The neighbours of a job; a Label Studio that had to be started for it ends with the block."""
    running = services.addresses(workspace)
    mlflow = config.services.mlflow or running.mlflow or f"sqlite:///{workspace / 'mlflow.db'}"
    if config.label_service == "in_process":
        yield Neighbours(mlflow, running.ray)
    elif config.services.label_studio:
        there = config.services.label_studio_documents_there or ""
        yield Neighbours(mlflow, running.ray, config.services.label_studio, *_files_of(config), there)
    elif running.label_studio:
        files = running.label_studio_token_file, running.label_studio_documents
        yield Neighbours(mlflow, running.ray, running.label_studio, *files)
    else:
        with _own_label_studio(config, workspace, console) as own:
            files = own.label_studio_token_file, own.label_studio_documents
            yield Neighbours(mlflow, running.ray, own.label_studio, *files)


def _files_of(config: ActiveKeys) -> tuple[Path, Path]:
    """Token and picture folder of a server that the configuration names."""
    token, documents = config.services.label_studio_token_file, config.services.label_studio_documents
    faults = [
        f"services.{name}: needed with services.label_studio"
        for name, value in (("label_studio_token_file", token), ("label_studio_documents", documents))
        if value is None
    ]
    if token is None or documents is None:
        raise ConfigError(faults)
    return Path(token).absolute(), Path(documents).absolute()


@contextmanager
def _own_label_studio(config: ActiveKeys, workspace: Path, console: Console) -> Iterator[services.Addresses]:
    """A Label Studio for this job alone; people need one that stays when the job ends."""
    if config.expert.kind == "label_studio":
        fix = f"Start it: emclean up --workspace {config.workspace}, or name one in services.label_studio."
        raise LabelServiceError("no Label Studio runs for this workspace", "label_service", fix)
    services.up(workspace, ["label_studio"], say=console.say)
    try:
        yield services.addresses(workspace)
    finally:
        services.down(workspace, ["label_studio"], say=console.say)
