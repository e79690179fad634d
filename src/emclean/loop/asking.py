"""Asking the expert: the plan of a round, pushing it, and taking in the answers, each safe to repeat."""

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from emclean.errors import LabelServiceError
from emclean.loop.job import Job
from emclean.loop.states import RunState, write_atomically
from emclean.stores import label_view
from emclean.stores import labels as label_events
from emclean.types import Answer, AnsweredBox, Ints, Labels, Pull, Suggestion, TaskSpec


@dataclass(frozen=True)
class Question:
    """One planned task as it is kept on disk: what is asked, whether drawn at random, and what is shown.

    ``minutes`` is what the answer was expected to cost when it was planned.
    """

    task: TaskSpec
    at_random: bool
    minutes: float = 0.0


def plan_file(job: Job, round_: int) -> Path:
    """Where the plan of a round is kept."""
    return job.folder / f"plan-{round_}.json"


def make_question(job: Job, image_id: str, round_: int, shown: Sequence[Suggestion], **kind: Any) -> Question:
    """The question about one image, or with ``review`` about the instances shown alone.

    ``kind`` holds ``at_random``, ``blind``, ``value``, ``minutes``, ``review`` and ``seen_by``.
    """
    at_random, blind = bool(kind["at_random"]), bool(kind["blind"])
    task = TaskSpec(
        key=_task_key(job, image_id, round_),
        image=job.data.record(image_id),
        suggestions=() if blind else tuple(shown),
        kind="review" if kind.get("review") else "image",
        blind=blind,
        value=float(kind["value"]),
        seen_by=tuple(kind.get("seen_by", ())),
    )
    return Question(task, at_random, float(kind.get("minutes", 0.0)))


def _task_key(job: Job, image_id: str, round_: int) -> str:
    return f"{job.run}/{image_id}/{round_}"


def save_plan(job: Job, round_: int, questions: Sequence[Question]) -> None:
    """Keep the plan, before anything is sent."""
    rows = [
        {
            "key": q.task.key,
            "image_id": q.task.image.image_id,
            "suggestions": [asdict(s) for s in q.task.suggestions],
            "kind": q.task.kind,
            "blind": q.task.blind,
            "value": q.task.value,
            "seen_by": q.task.seen_by,
            "at_random": q.at_random,
            "minutes": q.minutes,
        }
        for q in questions
    ]
    write_atomically(plan_file(job, round_), json.dumps(rows, indent=1))


def load_plan(job: Job, round_: int) -> list[Question]:
    """The plan of a round as it was saved."""
    questions = []
    for row in json.loads(plan_file(job, round_).read_text(encoding="utf-8")):
        shown = tuple(Suggestion(**{**s, "box": tuple(s["box"])}) for s in row["suggestions"])
        image = job.data.record(row["image_id"])
        seen_by = tuple(row.get("seen_by", ()))  # plans of earlier versions have none
        task = TaskSpec(row["key"], image, shown, row["kind"], row["blind"], row["value"], seen_by)
        questions.append(Question(task, row["at_random"], row["minutes"]))
    return questions


def questions_until(job: Job, round_: int) -> list[Question]:
    """The questions of every round up to this one."""
    return [q for r in range(round_ + 1) if plan_file(job, r).exists() for q in load_plan(job, r)]


def drawn_at_random(job: Job, round_: int) -> list[str]:
    """The images asked about up to this round that were drawn at random, in the order of drawing."""
    return [q.task.image.image_id for q in questions_until(job, round_) if q.at_random]


def push(job: Job, round_: int) -> int:
    """Send the round's tasks: journal first, then the service, then the task ids. Safe to repeat."""
    tasks = [q.task for q in load_plan(job, round_)]
    if not _sent_before(job):
        _refuse_others(job, round_)
    _journal(job, round_, tasks, "planned", {})
    numbers = job.parts.service.push(tasks)
    _journal(job, round_, tasks, "pushed", {key: (number, "") for key, number in numbers.items()})
    return len(tasks)


def _sent_before(job: Job) -> bool:
    """Whether the run may have sent tasks already: its journal names what was sent before it is sent."""
    return bool(job.parts.tables.read("tasks", columns=["key"], where={"run": job.run}).num_rows)


def _refuse_others(job: Job, round_: int) -> None:
    """A run that has sent nothing must find none of its questions there: others' answers are not its own."""
    keys = [_task_key(job, image_id, round_) for image_id in job.data.ids()]
    brought = job.parts.service.pull(keys)
    if there := len({*brought.open, *(answer.key for answer in brought.answers)}):
        raise LabelServiceError(
            f"the label service holds {there} tasks of a run of this name that this workspace never sent",
            f"run {job.run}",
            "Start this one under another name with run=NAME, or delete the project of that run first.",
        )


def open_project(job: Job, state: RunState) -> RunState:
    """Create or find the run's project and keep its address; every process does so before it talks of tasks.

    What was pushed to one project is never looked for in another: the label service refuses. One in this
    process forgets with it.
    """
    known = state.facts.get("label_project", "") if _may_hold_tasks(job) else ""
    title = f"emclean {job.run}"
    address = job.parts.service.ensure_project(title, job.data.categories, job.kind.instructions, known)
    return state.knowing(label_project=address)


def _may_hold_tasks(job: Job) -> bool:
    """Whether a project outside this process may hold tasks of the run: the journal names what was sent."""
    return job.settings.label_service != "in_process" and _sent_before(job)


INSTRUCTIONS = (
    "Draw a tight box round every object that belongs to a category. Boxes that are already there are "
    "suggestions: click one and press its category's key to accept it, move the badly placed ones, delete "
    "those on nothing, add what is missing. Some pictures come without suggestions on purpose. Where the "
    "line above the picture says REVIEW, decide the suggestions and nothing else. Submit an empty picture "
    "when there is no object; skip one that cannot be judged."
)


def _journal(
    job: Job, round_: int, tasks: Sequence[TaskSpec], state: str, ids: Mapping[str, tuple[int, str]]
) -> None:
    """One row for each task; ``ids`` are the service's id and the answer's ``updated_at``, where known."""
    rows = [
        {
            "key": task.key,
            "run": job.run,
            "round": round_,
            "image_id": task.image.image_id,
            "kind": task.kind,
            "blind": task.blind,
            "value": task.value,
            "state": state,
            "revision": ids.get(task.key, (None, ""))[1],
            "task_id": ids.get(task.key, (None, ""))[0],
            "suggestions": [_suggestion_row(s) for s in task.suggestions],
            "at": job.parts.now(),
        }
        for task in tasks
    ]
    job.parts.tables.append("tasks", rows)


def _corners(box: Sequence[float]) -> dict[str, float]:
    return dict(zip(("x1", "y1", "x2", "y2"), (float(side) for side in box), strict=True))


def _suggestion_row(s: Suggestion) -> dict[str, Any]:
    said = {"suggestion_id": s.suggestion_id, "category": s.category, "score": s.score}
    return {**_corners(s.box), **said, "grade": s.grade, "reason": s.reason}


def pull(job: Job, round_: int) -> Pull:
    """Fetch the answers to a round's questions and write what is new into the tables. Safe to repeat.

    Label events are written before the answers that caused them, so that a crash between the two only means
    that the same events are offered, and left out, once more.
    """
    questions = {q.task.key: q for q in load_plan(job, round_)}
    brought = job.parts.service.pull(sorted(questions))
    known = _known_versions(job)
    fresh = [a for a in brought.answers if (a.key, a.annotation_id, a.updated_at) not in known]
    if fresh:
        _write_events(job, questions, brought.answers)
        _keep_answers(job, fresh)
        job.parts.tables.tidy(job.run)  # every poll with news adds files
    return brought


def _known_versions(job: Job) -> set[tuple[str, int, str]]:
    columns = ["key", "annotation_id", "updated_at"]
    rows = job.parts.tables.read("answers", columns=columns, where={"run": job.run}).to_pylist()
    return {(row["key"], row["annotation_id"], row["updated_at"]) for row in rows}


def _write_events(job: Job, questions: Mapping[str, Question], answers: Sequence[Answer]) -> None:
    categories = job.data.categories
    table = job.parts.tables.read("labels", where={"run": job.run})
    standing = label_view.current(table, categories)
    events: list[dict[str, Any]] = []
    for image_id, answer in sorted(label_events.untaken(table, answers).items()):
        task = questions[answer.key].task
        shown = [s.suggestion_id for s in task.suggestions]
        events += label_events.expert_events(
            image_id,
            standing.get(image_id, Labels.empty()),
            answer,
            instances=_instances(shown, label_view.instance_ids(table, image_id)),
            categories=categories,
            round_=round_number(answer.key),
            run=job.run,
            asked=_asked(task) if task.kind == "review" else None,
        )
    job.parts.tables.append("labels", events)


def _asked(task: TaskSpec) -> list[AnsweredBox]:
    return [AnsweredBox(s.box, s.category, s.suggestion_id) for s in task.suggestions]


def _instances(shown: Sequence[str], known: Set[str]) -> dict[str, str]:
    """The instance that each suggestion showed: itself, or for a part (``<label>.1``) the label it is of.

    A suggestion of something that no label speaks of showed none. ``known`` are the image's instances, also
    those that were deleted since the question was asked.
    """
    stems = {name: name.rpartition(".") for name in shown}
    parts = {n: stem for n, (stem, _, place) in stems.items() if place.isdecimal() and stem in known}
    return parts | {name: name for name in shown if name in known}


def pull_edits(job: Job, round_: int) -> None:
    """Fetch what was answered or changed since in the questions of earlier rounds, and put it on record."""
    for earlier in range(round_):
        if plan_file(job, earlier).exists():
            _put_on_record(job, earlier, pull(job, earlier))


def look_once_more(job: Job, state: RunState) -> None:
    """Take in what was answered or changed after its round had ended, when the work is over.

    It counts in the labels from now on; models stay as they are. A label service that is away is no reason to
    lose a finished run; one in this process has nobody who could have changed anything.
    """
    if job.settings.label_service == "in_process":
        return
    before = len(_known_versions(job))
    try:
        open_project(job, state)
        pull_edits(job, state.round + 1)
    except LabelServiceError as error:
        job.parts.console.say(f"no look for late answers: {error}")
        return
    if late := len(_known_versions(job)) - before:
        job.kind.settle(job, state)
        what = "answers were" if late > 1 else "answer was"
        job.parts.console.say(
            f"{late} {what} given or changed since: counted in the labels (emclean export), in no model yet"
        )


def close(job: Job, round_: int, brought: Pull) -> None:
    """Put on record how each task of the round ended: answered, skipped or deleted."""
    tasks = {q.task.key for q in load_plan(job, round_)}
    if tasks and tasks <= set(brought.deleted):
        fix = "Is it the right server and project? Put them back, or start a new run with run=NAME."
        raise LabelServiceError("none of the tasks that were pushed exists any more", f"round {round_}", fix)
    _put_on_record(job, round_, brought)


def _put_on_record(job: Job, round_: int, brought: Pull) -> None:
    answers = label_events.newest(brought.answers)
    tasks = [q.task for q in load_plan(job, round_)]
    ids = {key: (answer.task_id, answer.updated_at) for key, answer in answers.items()}
    for state in ("answered", "skipped", "deleted"):
        ended = [task for task in tasks if _ending(task.key, answers, brought) == state]
        _journal(job, round_, ended, state, ids)


def _ending(key: str, answers: Mapping[str, Answer], brought: Pull) -> str | None:
    """How a task ended; None while it is open (again)."""
    if key in answers:
        return "skipped" if answers[key].skipped else "answered"
    return "deleted" if key in brought.deleted else None


def round_number(key: str) -> int:
    """The round that a task's key names."""
    return int(key.rsplit("/", 1)[1])


def _keep_answers(job: Job, answers: Sequence[Answer]) -> None:
    rows = [
        {
            "key": answer.key,
            "run": job.run,
            "round": round_number(answer.key),
            "image_id": label_events.image_of(answer.key),
            "task_id": answer.task_id,
            "annotation_id": answer.annotation_id,
            "updated_at": answer.updated_at,
            "annotator": answer.annotator,
            "skipped": answer.skipped,
            "lead_time_s": answer.lead_time_s,
            "boxes": [_answer_row(box) for box in answer.boxes],
            "at": job.parts.now(),
        }
        for answer in answers
    ]
    job.parts.tables.append("answers", rows)


def _answer_row(box: AnsweredBox) -> dict[str, Any]:
    return {**_corners(box.box), "category": box.category, "suggestion_id": box.suggestion_id}


def answers_so_far(job: Job) -> dict[str, Answer]:
    """The answer that counts for each task of this run, from the tables."""
    return label_events.newest(annotations_so_far(job))


def annotations_so_far(job: Job) -> list[Answer]:
    """Every annotation of this run's tasks as it was last saved, from the tables; a task may have several."""
    rows = job.parts.tables.read("answers", where={"run": job.run}).to_pylist()
    last: dict[tuple[str, int], Answer] = {}
    for answer in sorted(map(_answer, rows), key=lambda a: label_events.when(a.updated_at)):
        last[answer.key, answer.annotation_id] = answer
    return list(last.values())


def _answer(row: Mapping[str, Any]) -> Answer:
    boxes = tuple(
        AnsweredBox((b["x1"], b["y1"], b["x2"], b["y2"]), b["category"], b["suggestion_id"])
        for b in row["boxes"]
    )
    names = ("key", "task_id", "annotation_id", "updated_at", "annotator", "skipped", "lead_time_s")
    return Answer(boxes=boxes, **{name: row[name] for name in names})


def side_by_side(task: TaskSpec, answer: Answer, categories: Sequence[str]) -> tuple[Labels, Labels, Ints]:
    """What was shown, what was answered, and for each answered box the shown one it came from (or -1)."""
    index = {name: i for i, name in enumerate(categories)}
    place = {s.suggestion_id: i for i, s in enumerate(task.suggestions)}
    shown = Labels(
        np.array([s.box for s in task.suggestions]).reshape(-1, 4),
        np.array([index[s.category] for s in task.suggestions], dtype=np.int64),
    )
    answered = Labels(
        np.array([b.box for b in answer.boxes]).reshape(-1, 4),
        np.array([index[b.category] for b in answer.boxes], dtype=np.int64),
    )
    origin = np.array([place.get(b.suggestion_id, -1) for b in answer.boxes], dtype=np.int64)
    return shown, answered, origin
