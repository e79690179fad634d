"""A budget in labels: how many answers were given, how many a round may ask for, and which budget binds."""

import math

from emclean.config import ActiveClasses
from emclean.config_active_classes import NO_SHARE
from emclean.loop.asking import annotations_so_far, questions_until
from emclean.loop.job import Job
from emclean.loop.spending import budget_minutes, dearer
from emclean.science.cost import Changes

SLACK = 1 + 1e-9
"""Against rounding, where minutes stand for a whole number of labels."""


def label_minutes(job: Job, round_: int) -> float:
    """What naming one picture's class takes, by the stated cost model and what answers took so far."""
    return dearer(job, round_) * job.cost_model.seconds(1, Changes(0, 0, 0, 1)) / 60.0


def answers_until(job: Job, round_: int) -> int:
    """The answers to the questions up to a round, every expert's counted; a skip is none."""
    asked = {q.task.key for q in questions_until(job, round_)}
    return sum(not a.skipped for a in annotations_so_far(job) if a.key in asked)


def labels_left(job: Job, settings: ActiveClasses, round_: int) -> float:
    """How many answers the budget still has before this round; infinitely many without one in labels."""
    if settings.budget.labels is None:
        return math.inf
    return max(settings.budget.labels - answers_until(job, round_ - 1), 0)


def limit(job: Job, settings: ActiveClasses, round_: int, minutes: float) -> float:
    """The minutes that the round's share of the labels takes at ``minutes`` each: all in round 0, then what
    is left, shared evenly by the rounds to come."""
    left = labels_left(job, settings, round_)
    if math.isinf(left):
        return left
    rounds = 1 if round_ == 0 else max(settings.budget.rounds - round_ + 1, 1)
    return math.ceil(left / rounds) * minutes * SLACK


def allowance(job: Job, settings: ActiveClasses, round_: int) -> str:
    """``32 of 100 labels``; empty without a budget in labels."""
    wanted = settings.budget.labels
    return "" if wanted is None else f"{answers_until(job, round_)} of {wanted} labels of the budget"


def binding(job: Job, settings: ActiveClasses) -> str:
    """Which budget is the strictest by the stated cost model; empty without one in labels."""
    wanted, given = settings.budget.labels, settings.budget
    if wanted is None:
        return ""
    if given.minutes is None and given.share_of_full >= NO_SHARE:
        return f"Budget: {wanted} labels."
    minutes = budget_minutes(job)
    pays = int(minutes / label_minutes(job, -1) * SLACK)
    binds = "labels" if wanted <= pays else "minutes"
    return f"Budget: {wanted} labels, and {minutes:.1f} minutes, which pay for {pays}: the {binds} bind."
