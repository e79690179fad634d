"""What the expert's work has cost, what it may cost, and what a question will probably cost."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from emclean.loop.asking import (
    Question,
    annotations_so_far,
    answers_so_far,
    questions_until,
    side_by_side,
)
from emclean.loop.cleaning import expert_labels
from emclean.loop.job import Job
from emclean.science import cost
from emclean.types import Answer, Cost

BELIEF = 3
"""How many tasks' worth of belief the stated cost model gets against what the answers really cost."""


def spent(job: Job, answers: Iterable[Answer], questions: Sequence[Question]) -> Cost:
    """What these annotations cost; every annotator's time counts, an image counts once, if it was answered.

    Minutes are Label Studio's lead time where people answer (at most ``expert.longest_task_s`` a task: more
    is taken for a pause), and the stated cost model's where the expert is simulated. A skipped task costs
    its opening.
    """
    asked = {q.task.key: q for q in questions}
    mine = [a for a in answers if a.key in asked]
    whole = cost.total([_cost_of(job, asked[a.key], a) for a in mine])
    return replace(whole, images=len({_about(asked[a.key]) for a in mine if not a.skipped}))


def _about(question: Question) -> str:
    """What a question is about: an image, however often it is asked about as a whole, or one review."""
    task = question.task
    return task.image.image_id if task.kind == "image" else task.key


def _cost_of(job: Job, question: Question, answer: Answer) -> Cost:
    shown, answered, origin = side_by_side(question.task, answer, job.data.categories)
    made = cost.Changes(0, 0, 0, 0) if answer.skipped else cost.changes(shown, answered, origin)
    expert = job.settings.expert
    if expert.kind == "label_studio" and answer.lead_time_s is not None:
        return Cost(1, *made, minutes=min(answer.lead_time_s, expert.longest_task_s) / 60.0)
    return cost.cost(made, job.cost_model)


def spent_until(job: Job, round_: int) -> Cost:
    """What all answers to the questions up to this round have cost."""
    return spent(job, annotations_so_far(job), questions_until(job, round_))


def skipped_until(job: Job, round_: int) -> int:
    """How many tasks up to this round were skipped by everybody: that is no answer."""
    asked = {q.task.key for q in questions_until(job, round_)}
    return sum(a.skipped for key, a in answers_so_far(job).items() if key in asked)


def dearer(job: Job, round_: int) -> float:
    """How many times dearer the answers up to a round were than planned; 1 before there are any.

    Drawn towards 1 as if :data:`BELIEF` more tasks had cost what was planned, so that the first few answers
    do not upset the plan.
    """
    answers = annotations_so_far(job)
    given = {a.key for a in answers}
    done = [q for q in questions_until(job, round_) if q.task.key in given and q.minutes > 0]
    planned = sum(q.minutes for q in done)
    if not planned:
        return 1.0
    belief = BELIEF * planned / len(done)
    return (spent(job, answers, done).minutes + belief) / (planned + belief)


def full_minutes(job: Job) -> float:
    """Expert minutes that labelling the whole pool from nothing would cost.

    The number of objects is the truth file's where there is one; with people it is estimated as the crowd's
    count times how many objects the expert found per crowd box so far.
    """
    ids = job.data.ids()
    if job.data.truth is not None:
        return job.cost_model.full(len(ids), sum(len(job.data.truth.get(i, ())) for i in ids))
    crowd = {i: len(labels) for i, labels in job.data.pool.labels.items()}
    expert = expert_labels(job)
    seen = sum(crowd.get(i, 0) for i in expert)
    ratio = sum(len(labels) for labels in expert.values()) / seen if seen else 1.0
    return job.cost_model.full(len(ids), sum(crowd.values()) * ratio)


def budget_minutes(job: Job) -> float:
    """The expert minutes that may be spent in this run."""
    budget = job.settings.budget
    return budget.minutes if budget.minutes is not None else budget.share_of_full * full_minutes(job)
