"""The label service on a real Label Studio: tasks created exactly once, answers pulled, both by key."""

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from emclean.errors import LabelServiceError
from emclean.stores.label_studio.client import LabelStudioClient, Unanswered, task_filter
from emclean.stores.label_studio.convert import Reading
from emclean.stores.label_studio.forms import BOXES, Form
from emclean.stores.label_studio.page import VIEW, view_of
from emclean.stores.label_studio.pictures import LocalPictures
from emclean.types import Answer, Pull, TaskSpec

logger = logging.getLogger(__name__)

_BATCH = 100
_KEYS_A_CALL = 50
_SENDS = 3
_SETTLE_S = (0.5, 1.0, 2.0)
_TITLE_LENGTH = 50

_ANNOTATION_FIELDS = ("result", "was_cancelled", "updated_at", "lead_time", "completed_by")
"""Label Studio applies the list of wanted fields to the annotations inside a task as well."""


def project_title(name: str) -> str:
    """The project's title: Label Studio allows 3 to 50 characters, so a long name ends in its digest."""
    if len(name) <= _TITLE_LENGTH:
        return name.ljust(3, "_")
    return f"{name[: _TITLE_LENGTH - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _place(project: Mapping[str, Any]) -> str:
    return f"/projects/{project['id']}/data"


class LabelStudioService:
    """Questions to experts in one project of a Label Studio server.

    ``pictures`` puts pictures where the server can serve them; ``timeout`` is in seconds per call. One writer
    per project is assumed; should a second one create the same task, the next ``push`` removes the surplus.
    ``form`` is the labelling page.
    """

    def __init__(
        self, url: str, token: str, pictures: LocalPictures, timeout: float = 60.0, form: Form = BOXES
    ):
        self._form = form
        self._client = LabelStudioClient(url, token, timeout)
        self._pictures = pictures
        self._project = 0
        self._categories: tuple[str, ...] = ()
        self._people: dict[int, str] = {}
        self._told: set[tuple[int, str]] = set()

    def __repr__(self) -> str:
        return f"LabelStudioService({self._client.url!r}, project={self._project})"

    def close(self) -> None:
        """End the session with the server."""
        self._client.close()

    def ensure_project(self, name: str, categories: Sequence[str], instructions: str, known: str = "") -> str:
        """Create the project once, or find it again; return its address for people.

        ``known`` is the address that was told before: the project must then be there already, by title and
        number, though the server may have moved.
        """
        title = project_title(name)
        wanted = _project_settings(title, categories, instructions, self._form)
        found = self._find(title)
        if known and (found is None or not known.endswith(_place(found))):
            raise LabelServiceError(
                f"the project '{title}' that holds this run's tasks is not here: they were pushed to {known}",
                self._client.url,
                "Let services.label_studio name that server, or start a new run with run=NAME.",
            )
        found = found or self._create(title, wanted)
        if found["label_config"] != wanted["label_config"]:
            self._client.patch(f"/api/projects/{found['id']}", wanted)
        self._project, self._categories = int(found["id"]), tuple(categories)
        self._ensure_storage()
        self._ensure_view()
        return self._client.url + _place(found)

    def push(self, tasks: Sequence[TaskSpec]) -> Mapping[str, int]:
        """Create each task exactly once, by its key; return the task id of every key, old and new.

        A call without an answer is followed by a look-up of its keys, never by sending blindly again.
        """
        keys = _unique_keys(tasks)
        known = self._look_up(keys, heal=True)
        new = sorted((task for task in tasks if task.key not in known), key=lambda task: -task.value)
        self._check(new)
        bodies = {task.key: self._form.task_body(task, self._pictures.publish(task.image)) for task in new}
        for batch in _batches(list(bodies), _BATCH):
            known |= self._send(batch, bodies)
        return {key: known[key] for key in keys}

    def pull(self, keys: Sequence[str]) -> Pull:
        """The newest answers to these tasks, the keys whose task is gone, and those without an answer."""
        answers: list[Answer] = []
        seen: set[str] = set()
        for task in self._tasks(keys, ("id", "data", "annotations", "predictions", *_ANNOTATION_FIELDS)):
            key, found = self._answers(task)
            seen.add(key)
            answers += found
        answered = {answer.key for answer in answers}
        return Pull(
            tuple(answers),
            deleted=tuple(key for key in keys if key not in seen),
            open=tuple(key for key in keys if key in seen and key not in answered),
        )

    def _find(self, title: str) -> dict[str, Any] | None:
        listed = self._client.get("/api/projects", title=title, page_size=1000, ordering="id")
        projects = listed.get("results", []) if isinstance(listed, dict) else listed
        exact = [project for project in projects if project.get("title") == title]
        return min(exact, key=lambda project: int(project["id"]), default=None)

    def _create(self, title: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Create the project; whoever created it a moment before us wins."""
        try:
            return dict(self._client.post("/api/projects", wanted))
        except LabelServiceError:
            found = self._find(title)
            if found is None:
                raise
            return found

    def _ensure_storage(self) -> None:
        """Without a storage of this project, the server refuses to serve the pictures."""
        folder = self._pictures.stored_at
        self._pictures.document_root.joinpath(self._pictures.folder).mkdir(parents=True, exist_ok=True)
        stored = self._client.get("/api/storages/localfiles", project=self._project)
        if any(item.get("path") == folder for item in stored):
            return
        storage = {"project": self._project, "path": folder, "title": "pictures", "use_blob_urls": True}
        self._client.post("/api/storages/localfiles", storage)

    def _ensure_view(self) -> None:
        views = self._client.get("/api/dm/views", project=self._project)
        if any((view.get("data") or {}).get("title") == VIEW for view in views):
            return
        known = self._client.get("/api/dm/columns", project=self._project)
        data = view_of((known or {}).get("columns", ()))
        self._client.post("/api/dm/views", {"project": self._project, "data": data})

    def _tasks(self, keys: Sequence[str], include: Sequence[str]) -> Iterable[dict[str, Any]]:
        if not self._project:
            raise LabelServiceError("no project yet", self._client.url, "Call ensure_project first.")
        for batch in _batches(list(dict.fromkeys(keys)), _KEYS_A_CALL):
            wanted = task_filter("data.key", "in_list", "List", batch)
            yield from self._client.tasks(self._project, [wanted], include)

    def _look_up(self, keys: Sequence[str], heal: bool = False) -> dict[str, int]:
        """The task of each key that exists; ``heal`` removes surplus tasks that nobody has answered."""
        known: dict[str, int] = {}
        for task in self._tasks(keys, ("id", "data", "total_annotations", "cancelled_annotations")):
            key, at = str(task["data"]["key"]), int(task["id"])
            if key not in known:  # tasks come by ascending id: the oldest stays
                known[key] = at
            elif heal and not task.get("total_annotations") and not task.get("cancelled_annotations"):
                self._client.delete(f"/api/tasks/{at}/")
        return known

    def _send(self, keys: Sequence[str], bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
        missing = list(keys)
        lost: Unanswered | None = None
        for _ in range(_SENDS):
            try:
                self._client.post(f"/api/projects/{self._project}/import", [bodies[key] for key in missing])
            except Unanswered as error:
                lost = error
                self._settle(missing)
            known = self._look_up(keys, heal=lost is not None)
            missing = [key for key in keys if key not in known]
            if not missing:
                return known
        fix = "Run the job again; tasks that exist are not created twice."
        reason = lost.what if lost else "no reason given"
        what = f"{len(missing)} of {len(keys)} tasks could not be created ({reason})"
        raise LabelServiceError(what, self._client.url, fix)

    def _settle(self, keys: Sequence[str]) -> None:
        """Give a server that may still be at work on a lost call the time to finish it."""
        for wait in _SETTLE_S:
            if len(self._look_up(keys)) == len(keys):
                return
            self._client.pause(wait)

    def _check(self, tasks: Sequence[TaskSpec]) -> None:
        """Refuse suggestions that the page could not show; the server itself accepts anything."""
        from label_studio_sdk.label_interface import LabelInterface

        page = LabelInterface(self._form.configuration(self._categories))
        for task in tasks:
            shown = self._form.prediction(task)
            faults = page.validate_prediction(shown, return_errors=True) if shown else []
            if faults:
                what = f"the suggestions cannot be shown: {'; '.join(map(str, faults))}"
                raise LabelServiceError(what, f"task {task.key}")

    def _answers(self, task: Mapping[str, Any]) -> tuple[str, list[Answer]]:
        try:
            readings = [
                self._form.read(
                    task, annotation, self._categories, self._person(annotation.get("completed_by"))
                )
                for annotation in task["annotations"]
            ]
            key = str(task["data"]["key"])
        except (KeyError, TypeError, ValueError) as error:
            where = f"{self._client.url}, task {task.get('id')}"
            what = f"Label Studio answered in an unexpected form ({type(error).__name__}: {error})"
            raise LabelServiceError(what, where, "Check that its version is supported.") from error
        for reading in readings:
            self._tell(reading)
        return key, [reading.answer for reading in readings]

    def _tell(self, reading: Reading) -> None:
        """Log what could not be used of an annotation, once per version."""
        answer = reading.answer
        for fault in dict.fromkeys(reading.faults):
            mark = (answer.annotation_id, f"{answer.updated_at} {fault}")
            if mark not in self._told:
                self._told.add(mark)
                logger.warning("task %s, annotation %d: %s", answer.key, answer.annotation_id, fault)

    def _person(self, who: Any) -> str:
        """The e-mail address of an annotator, else its number as text."""
        number = int((who["id"] if isinstance(who, dict) else who) or 0)
        if number and number not in self._people:
            users = self._client.get("/api/users/")
            self._people |= {int(user["id"]): str(user.get("email") or user["id"]) for user in users}
        return self._people.setdefault(number, str(number) if number else "")


def _batches(items: Sequence[str], size: int) -> list[list[str]]:
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def _unique_keys(tasks: Sequence[TaskSpec]) -> list[str]:
    keys = [task.key for task in tasks]
    doubled = sorted({key for key in keys if keys.count(key) > 1})
    if doubled:
        raise LabelServiceError(f"{len(doubled)} keys are given more than once", f"task {doubled[0]}")
    return keys


def _project_settings(title: str, categories: Sequence[str], words: str, form: Form) -> dict[str, Any]:
    return {
        "title": title,
        "label_config": form.configuration(categories),
        "expert_instruction": form.instructions(categories, words),
        "show_instruction": True,
        "sampling": "Sequential sampling",
        "show_collab_predictions": True,
        "model_version": "",
        "enable_empty_annotation": True,
        "show_skip_button": True,
        "maximum_annotations": 1,
    }
