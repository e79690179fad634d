"""What a run remembers between two steps, saved atomically after each.

A run may be killed at any moment and submitted again: everything heavy (tables, weights, predictions) is
stored under a key of its content, and this small state says how far the run has come.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from emclean.errors import DataError, EmcleanError, ServiceError

FAILED = "failed.json"
"""In the run's folder: why its newest job failed."""


WAITING = "waiting.json"
"""In the run's folder: how far the answers were at the last look."""


class Phase(Enum):
    """The steps of a run, in their order; those from ``PLAN`` to ``PUBLISH`` repeat in every round."""

    INGEST = "ingest"
    CROWD = "crowd models"
    PLAN = "select"
    PUSH = "push"
    WAIT = "wait for experts"
    CLEAN = "grade and correct"
    TRAIN = "retrain"
    EVALUATE = "evaluate"
    PUBLISH = "publish"
    BASELINES = "floor and ceiling"
    FINISH = "report"
    DONE = "done"


@dataclass(frozen=True)
class RunState:
    """How far a run has come, and the small facts that later steps need.

    ``plans`` holds one entry per round (what was asked), ``rounds`` the finished rounds as they stand in the
    summary, ``models`` the weights file and version by role, ``seconds`` the time spent per phase, ``facts``
    digests and counts for the record.
    """

    run: str
    phase: Phase = Phase.INGEST
    round: int = 0
    plans: tuple[Mapping[str, Any], ...] = ()
    rounds: tuple[Mapping[str, Any], ...] = ()
    models: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    started_at: str = ""
    stop_reason: str = ""

    def at(self, phase: Phase, round_: int | None = None) -> "RunState":
        """The same run, gone on to another phase."""
        return replace(self, phase=phase, round=self.round if round_ is None else round_)

    def knowing(self, **facts: Any) -> "RunState":
        """The same run with more facts on record."""
        return replace(self, facts={**self.facts, **facts})

    def with_model(self, role: str, **entry: Any) -> "RunState":
        """The same run with a model on record."""
        return replace(self, models={**self.models, role: {**self.models.get(role, {}), **entry}})

    def spent(self, phase: str, seconds: float) -> "RunState":
        """The same run with time added to a phase."""
        total = {**self.seconds, phase: round(self.seconds.get(phase, 0.0) + seconds, 2)}
        return replace(self, seconds=total)


def save(state: RunState, file: Path) -> None:
    """Write the state to a temporary name, flush it to disk, and rename it into place."""
    content = {**asdict(state), "phase": state.phase.name}
    write_atomically(file, json.dumps(content, indent=1))


def write_atomically(file: Path, text: str, private: bool = False) -> None:
    """Replace ``file`` in one step: a reader sees the old or the new content, never a part.

    Nobody but its owner may read a ``private`` one, as may hold a password.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)  # what a killed process left may have other rights
    mode = 0o600 if private else 0o666  # less the user's mask
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def load(file: Path, run: str) -> RunState:
    """The saved state, or a fresh one when the run has none yet."""
    if not file.exists():
        return RunState(run)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        phase = Phase[content.pop("phase")]
        content.update({name: tuple(content[name]) for name in ("plans", "rounds")})
        return RunState(phase=phase, **content)
    except (ValueError, KeyError, TypeError) as error:
        fix = "Move this file away to start the run anew; labels and models are kept."
        raise DataError(f"the saved state cannot be read ({error})", str(file), fix) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run for this process alone; the lock ends with the process, however it ends."""
    import fcntl

    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            fix = (
                f"Its log: emclean logs {folder.name}. Stop it: emclean stop {folder.name}. "
                "Or choose another run name with run=NAME."
            )
            raise ServiceError("another job is working on this run.", str(folder), fix) from error
        yield


def is_locked(folder: Path) -> bool:
    """Whether a job works on the run: it holds the lock for as long as it lives."""
    import fcntl

    file = folder / "lock"
    if not file.exists():
        return False
    try:
        with file.open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


@contextmanager
def failure_kept(folder: Path) -> Iterator[None]:
    """Keep why a job on this run failed, for ``emclean status``; the next attempt begins without it.

    Being stopped is no failure, nor is being refused because another job works on the run.
    """
    if not is_locked(folder):
        (folder / FAILED).unlink(missing_ok=True)
    try:
        yield
    except Exception as error:
        if not is_locked(folder):
            reason = str(error) if isinstance(error, EmcleanError) else f"{type(error).__name__}: {error}"
            with suppress(OSError):  # must not hide the failure itself
                write_atomically(folder / FAILED, json.dumps({"reason": reason}))
        raise
