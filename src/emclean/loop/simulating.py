"""The simulated expert beside the loop: a program with a real label service, or answers in this process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from emclean.loop.asking import annotations_so_far, load_plan, side_by_side
from emclean.loop.job import Job
from emclean.science import expert
from emclean.types import Answer, AnsweredBox, Labels, TaskSpec

SIMULATED = "simulated expert"
"""Who answers in this process where one expert is simulated."""


@contextmanager
def answering(job: Job, round_: int) -> Iterator[Callable[[], None]]:
    """Have the simulated expert at work, where the expert is simulated; yields a check that it lives."""
    if job.settings.expert.kind != "simulated":
        yield lambda: None
    elif job.parts.expert_program is None:
        simulated_answers(job, round_)
        yield lambda: None
    else:
        with job.parts.expert_program() as check:
            yield check


def simulated_answers(job: Job, round_: int) -> None:
    """Let the simulated expert answer the open tasks of an in-process label service.

    Such a service has forgotten everything when the job was started again: what was answered before is put
    back as it was, so that nothing is answered, and counted, twice.
    """
    service: Any = job.parts.service
    tasks = [q.task for q in load_plan(job, round_)]
    service.push(tasks)
    service.restore(annotations_so_far(job))
    still_open = set(service.pull([task.key for task in tasks]).open)
    for task in tasks:
        if task.key in still_open:
            service.answer(task.key, job.kind.simulate(job, task), annotator=job.kind.answerer(job, task))


def simulate_one(job: Job, task: TaskSpec) -> list[AnsweredBox]:
    """What the simulated expert says to one task; the draw depends on the seed and the task's key alone."""
    slips = job.settings.expert
    truth = (job.data.truth or {}).get(task.image.image_id, Labels.empty())
    shown, _, _ = side_by_side(task, Answer(task.key, 0, 0, "", ""), job.data.categories)
    answered = expert.answer(
        truth,
        None if task.blind else shown,
        expert.Slips(slips.miss, slips.jitter, slips.rubber_stamp),
        job.rng(f"expert {task.key}"),
        task.image.width,
        task.image.height,
        only_shown=task.kind == "review",
    )
    return [
        AnsweredBox(
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            job.data.categories[int(category)],
            task.suggestions[int(k)].suggestion_id if k >= 0 else "",
        )
        for box, category, k in zip(
            answered.labels.boxes, answered.labels.categories, answered.origin, strict=True
        )
    ]
