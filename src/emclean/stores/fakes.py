"""The three neighbours in memory, or in a folder: for tests, benchmark sweeps and runs without a server."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from emclean.errors import LabelServiceError, TrackingError
from emclean.stores.label_studio.client import Unanswered
from emclean.types import Answer, AnsweredBox, Pull, TaskSpec

Said = AnsweredBox | tuple[Sequence[float], str, str]
"""A box of an answer: itself, or ``(corners, category, suggestion_id)``."""


_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
"""Where the clock of a service in memory begins, unless it is given one."""


class InMemoryLabelService:
    """A label service that keeps its promises, and whose experts are the test.

    While ``down`` is true every call raises; ``calls`` counts the calls by name. ``clock`` is the server's;
    by default each change comes a second after the one before, so that times repeat from run to run.
    """

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self.down = False
        self.calls: dict[str, int] = {}
        self.projects: dict[str, tuple[str, ...]] = {}
        self.tasks: dict[str, TaskSpec] = {}
        self._ids: dict[str, int] = {}
        self._answers: dict[int, Answer] = {}
        self._deleted: set[str] = set()
        self._clock, self._ticks = clock, 0
        self._lock = threading.RLock()

    def ensure_project(self, name: str, categories: Sequence[str], instructions: str, known: str = "") -> str:
        """Create the project once, or find it again; return its address for people."""
        self._called("ensure_project")
        if known and name not in self.projects:
            raise LabelServiceError(f"project '{name}' is not here any more", known, "Start a new run.")
        here = self.projects.setdefault(name, tuple(categories))
        if here != tuple(categories):
            raise LabelServiceError(f"project '{name}' has the categories {', '.join(here)}", "label service")
        return f"memory://{name}"

    def push(self, tasks: Sequence[TaskSpec]) -> Mapping[str, int]:
        """Create each task exactly once, by its key; return the task id of every key."""
        self._called("push")
        with self._lock:
            for task in tasks:
                if task.key not in self._ids:
                    self._ids[task.key] = len(self._ids) + 1
                    self.tasks[task.key] = task
            return {task.key: self._ids[task.key] for task in tasks}

    def pull(self, keys: Sequence[str]) -> Pull:
        """The answers to these tasks, one per annotation, newest version."""
        self._called("pull")
        with self._lock:
            wanted = set(keys)
            answers = tuple(a for a in self._answers.values() if a.key in wanted and a.key in self.tasks)
            deleted = tuple(key for key in keys if key in self._deleted)
            done = {answer.key for answer in answers}
            return Pull(answers, deleted, tuple(k for k in keys if k in self.tasks and k not in done))

    def answer(
        self,
        key: str,
        boxes: Sequence[Said] = (),
        annotator: str = "expert",
        lead_time_s: float | None = None,
        skipped: bool = False,
    ) -> Answer:
        """Answer a task as a person would; a second call is a second annotation."""
        with self._lock:
            said = tuple(_box(box) for box in boxes)
            task, number = self._task(key), max(self._answers, default=0) + 1
            new = Answer(key, self._ids[task.key], number, self._now(), annotator, said, skipped, lead_time_s)
            self._answers[number] = new
            return new

    def restore(self, answers: Iterable[Answer]) -> None:
        """Take back what was answered before this service began, as it was; what is here already stays."""
        with self._lock:
            for answer in answers:
                self._answers.setdefault(answer.annotation_id, answer)
                since = (datetime.fromisoformat(answer.updated_at) - _BEGIN).total_seconds()
                self._ticks = max(self._ticks, int(since))

    def skip(self, key: str, annotator: str = "expert") -> Answer:
        """Skip a task."""
        return self.answer(key, annotator=annotator, skipped=True)

    def edit(self, annotation_id: int, boxes: Sequence[Said], skipped: bool = False) -> Answer:
        """Change an annotation; its ``updated_at`` grows."""
        with self._lock:
            old = self._annotation(annotation_id)
            said = tuple(_box(box) for box in boxes)
            new = replace(old, boxes=said, skipped=skipped, updated_at=self._now())
            self._answers[annotation_id] = new
            return new

    def withdraw(self, annotation_id: int) -> None:
        """Delete an annotation; its number is not used again."""
        with self._lock:
            old = self._annotation(annotation_id)
            self._answers[annotation_id] = replace(old, key="")

    def delete(self, key: str) -> None:
        """Delete a task with its annotations."""
        with self._lock:
            self._task(key)
            del self.tasks[key]
            self._deleted.add(key)

    def _task(self, key: str) -> TaskSpec:
        if key not in self.tasks:
            raise LabelServiceError(f"there is no task '{key}'", "label service", "Push it first.")
        return self.tasks[key]

    def _annotation(self, number: int) -> Answer:
        if number not in self._answers or not self._answers[number].key:
            raise LabelServiceError(f"there is no annotation {number}", "label service", "Answer first.")
        return self._answers[number]

    def _called(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        if self.down:
            raise Unanswered("the label service is down", "label service", "Start it and try again.")

    def _now(self) -> str:
        self._ticks += 1
        now = self._clock() if self._clock else _BEGIN + timedelta(seconds=self._ticks)
        return now.isoformat()


def _box(said: Said) -> AnsweredBox:
    if isinstance(said, AnsweredBox):
        return said
    corners, category, suggestion_id = said
    x1, y1, x2, y2 = (float(side) for side in corners)
    return AnsweredBox((x1, y1, x2, y2), category, suggestion_id)


@dataclass
class TrackedRun:
    """What a fake tracker knows of one run; ``metrics`` maps a name to its value at each step."""

    run_id: str
    key: str
    name: str
    parent: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[int, float]] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Path] = field(default_factory=dict)
    status: str = "RUNNING"


class InMemoryTracker:
    """A tracker that keeps everything in ``runs``, by run id; ``down`` makes every call raise."""

    def __init__(self) -> None:
        self.runs: dict[str, TrackedRun] = {}
        self.down = False

    def run(
        self, key: str, name: str, parent: str | None = None, tags: Mapping[str, str] | None = None
    ) -> str:
        """Find or create the run with this unique key; return its id."""
        self._up()
        found = next((run for run in self.runs.values() if run.key == key), None)
        if found is None:
            found = TrackedRun(f"run-{len(self.runs) + 1}", key, name, parent)
            self.runs[found.run_id] = found
        found.tags.update(tags or {})
        return found.run_id

    def log(
        self,
        run_id: str,
        metrics: Mapping[str, float] | None = None,
        params: Mapping[str, str] | None = None,
        artifacts: Sequence[Path] = (),
        step: int = 0,
    ) -> None:
        """Add figures, settings and files to a run; logging the same again changes nothing."""
        run = self._run(run_id)
        for path in artifacts:
            if not Path(path).exists():
                raise TrackingError(f"there is no file {path}", "artifact", "Write it before it is logged.")
            run.artifacts[Path(path).name] = Path(path)
        for name, value in (metrics or {}).items():
            run.metrics.setdefault(name, {})[step] = value
        run.params = {**(params or {}), **run.params}

    def finish(self, run_id: str, status: str) -> None:
        """Close a run, and what is still open below it, as ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._run(run_id).status = status
        for run in self.runs.values():
            if run.parent == run_id and run.status == "RUNNING":
                run.status = status

    def resume(self, run_id: str) -> bool:
        """Open a closed run again as ``RUNNING``; False where there is no such run."""
        self._up()
        if run_id in self.runs:
            self.runs[run_id].status = "RUNNING"
        return run_id in self.runs

    def _run(self, run_id: str) -> TrackedRun:
        self._up()
        if run_id not in self.runs:
            raise TrackingError(f"there is no run '{run_id}'", "tracker", "Create it with run().")
        return self.runs[run_id]

    def _up(self) -> None:
        if self.down:
            raise TrackingError("the tracker is down", "tracker", "Start it and try again.")


class FolderRegistry:
    """A registry in a local folder: ``<version>/{weights.safetensors, card.json}`` and ``index.json``."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).absolute()

    def register(self, key: str, weights: Path, card: Mapping[str, Any], run_id: str | None) -> str:
        """Register the model once by its key; return its version."""
        index = self._index()
        if key in index["keys"]:
            return str(index["keys"][key])
        if not Path(weights).is_file():
            raise TrackingError(
                f"there are no weights at {weights}", "model registry", "Train the model first."
            )
        version = str(len(index["keys"]) + 1)
        place = self.folder / version
        place.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(weights, place / "weights.safetensors")
        (place / "card.json").write_text(json.dumps(dict(card)), encoding="utf-8")
        index["keys"][key] = version  # last, so that half a version is never listed
        self._save(index)
        return version

    def promote(self, version: str) -> None:
        """Point ``champion`` at this version and ``previous`` at the one before."""
        self._place(version)
        index = self._index()
        if index["champion"] != version:
            self._save({**index, "previous": index["champion"], "champion": version})

    def champion(self) -> str | None:
        """The version that is served, or None."""
        return self.alias("champion")

    def alias(self, alias: str) -> str | None:
        """The version that an alias points at, or None."""
        version = self._index().get(alias)
        return None if version is None else str(version)

    def card(self, version: str) -> Mapping[str, Any]:
        """The model card of a version."""
        return dict(json.loads((self._place(version) / "card.json").read_text(encoding="utf-8")))

    def fetch(self, version: str, folder: Path) -> Path:
        """Copy a version's weights into ``folder``; return the file."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        target = Path(folder) / "weights.safetensors"
        shutil.copyfile(self._place(version) / "weights.safetensors", target.with_suffix(".part"))
        os.replace(target.with_suffix(".part"), target)
        return target

    def _place(self, version: str) -> Path:
        if version not in self._index()["keys"].values():
            raise TrackingError(
                f"there is no version '{version}'", str(self.folder), "Register the model first."
            )
        return self.folder / version

    def _index(self) -> dict[str, Any]:
        path = self.folder / "index.json"
        if not path.exists():
            return {"keys": {}, "champion": None, "previous": None}
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def _save(self, index: Mapping[str, Any]) -> None:
        part = self.folder / "index.json.part"
        part.write_text(json.dumps(index), encoding="utf-8")
        os.replace(part, self.folder / "index.json")
