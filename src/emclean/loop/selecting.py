"""Choosing what to ask in a round, and what to show with each question."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from emclean.loop import policies
from emclean.loop.asking import Question, make_question, questions_until
from emclean.loop.cleaning import Judged, judge
from emclean.loop.job import Job
from emclean.loop.spending import budget_minutes, dearer, spent_until
from emclean.loop.states import RunState
from emclean.science import rivals, selection
from emclean.science.grading import ImageScore, image_score, shown
from emclean.types import GRADES, Suggestion, Verdicts


def choose(job: Job, state: RunState) -> tuple[list[Question], str]:
    """The questions of the round that ``state`` is in, or none and the reason to stop."""
    judged = judge(job, state, state.round - 1)
    asked = {q.task.image.image_id for q in questions_until(job, state.round - 1)}
    pool = _pool(job, judged, asked, dearer(job, state.round - 1))
    if state.round == 0:
        return _questions(job, state.round, judged, [(i, True) for i in _seed(job, pool)]), ""
    spending = _spending(job, state)
    cheapest = float(pool.expected_minutes.min(initial=np.inf))
    decision = policies.stop(
        spending, len(pool), cheapest, _gain(pool), job.settings.budget.min_gain_per_minute
    )
    if decision.now:
        return [], decision.reason
    chosen = _spend(job, state.round, pool, max(spending.next_round(), cheapest))
    return _questions(job, state.round, judged, chosen), ""


def _seed(job: Job, pool: selection.Pool) -> list[str]:
    """The images of round 0, drawn at random: as many as asked for, fewer where the budget is smaller."""
    wanted = job.settings.budget.seed_images
    order = job.rng("seed images").permutation(len(pool))[:wanted]
    paid = int((np.cumsum(pool.expected_minutes[order]) <= budget_minutes(job)).sum())
    if paid < len(order):
        job.parts.console.say(f"the budget pays for {paid} of {wanted} seed images; at least 2 are asked")
    return [pool.image_ids[i] for i in order[: max(paid, 2)]]


def _spending(job: Job, state: RunState) -> policies.Spending:
    used = spent_until(job, state.round - 1).minutes
    return policies.Spending(budget_minutes(job), used, job.settings.budget.rounds - state.round + 1)


def _gain(pool: selection.Pool) -> float | None:
    """Expected label errors fixed per minute in the image where a minute pays most."""
    if not len(pool):
        return None
    return float((pool.discrepancy / np.maximum(pool.expected_minutes, 1e-9)).max())


def _pool(job: Job, judged: Judged, asked: set[str], factor: float) -> selection.Pool:
    """The images that were never asked about, in numbers; ``factor`` corrects their expected minutes."""
    left = [i for i in job.data.ids() if i not in asked]
    scores = {i: _score(job, judged, i) for i in left}
    blind = job.settings.budget.blind_share
    minutes = [(1 - blind) * scores[i].expected_minutes + blind * scores[i].blank_minutes for i in left]
    return selection.Pool(
        tuple(left),
        np.array([scores[i].discrepancy for i in left]),
        np.array([scores[i].uncertainty for i in left]),
        np.array([len(judged.evidence[i].labels) for i in left], dtype=np.int64),
        factor * np.array(minutes),
        scores=rivals.image_scores(job.settings.strategy, [judged.evidence[i] for i in left]),
    )


def _score(job: Job, judged: Judged, image_id: str) -> ImageScore:
    return image_score(judged.evidence[image_id], judged.verdicts[image_id], job.cost_model)


def _spend(job: Job, round_: int, pool: selection.Pool, minutes: float) -> list[tuple[str, bool]]:
    """Images for this many minutes: a random share first, the strategy's choice for the rest."""
    rng = job.rng("selection", round_)
    share = job.settings.budget.random_share
    sample, rest = selection.split_random_share(pool, minutes, share, rng)
    left = max(minutes - float(pool.expected_minutes[sample].sum()), 0.0)
    remaining = selection.subset(pool, rest)
    picked = selection.STRATEGIES[job.settings.strategy](remaining, left, rng)
    chosen = [(remaining.image_ids[i], False) for i in picked]
    return [(pool.image_ids[i], True) for i in sample] + chosen


def _questions(job: Job, round_: int, judged: Judged, chosen: Sequence[tuple[str, bool]]) -> list[Question]:
    """The questions about the chosen images; a share of them, drawn at random, is blind."""
    draws = job.rng("blind", round_).random(len(chosen))
    return [
        _question(
            job,
            judged,
            (image_id, round_),
            at_random=at_random,
            blind=bool(draws[place] < job.settings.budget.blind_share),
            value=float(len(chosen) - place),
        )
        for place, (image_id, at_random) in enumerate(chosen)
    ]


def _question(job: Job, judged: Judged, about: tuple[str, int], **kind: Any) -> Question:
    """The question about an image in a round, with what its answer will probably cost."""
    image_id, round_ = about
    score = _score(job, judged, image_id)
    minutes = score.blank_minutes if kind["blind"] else score.expected_minutes
    shown = suggestions(job, judged, image_id)
    return make_question(job, image_id, round_, shown, minutes=minutes, **kind)


def suggestions(job: Job, judged: Judged, image_id: str) -> list[Suggestion]:
    """What the expert is shown for an image: each label as the verdict would have it, and what seems missed.

    Labels that are probably spurious or duplicate are not shown once that is known from an expert's answers;
    a merged one is shown as its parts.
    """
    verdicts = judged.verdicts[image_id]
    labels = judged.evidence[image_id].labels
    found: list[Suggestion] = []
    for k in np.flatnonzero(shown(verdicts)):
        label = verdicts.label[k]
        found += _suggested(job, verdicts, int(k), labels.ids[label] if label >= 0 else "")
    return found


def _suggested(job: Job, verdicts: Verdicts, k: int, label_id: str) -> list[Suggestion]:
    grade, probability = GRADES[verdicts.grade[k]], float(verdicts.probability[k])
    parts = verdicts.parts[verdicts.part_of == k] if grade == "merged" else verdicts.box[k : k + 1]
    if not len(parts):
        parts = verdicts.box[k : k + 1]
    name = label_id or f"seen-{k}"
    return [
        Suggestion(
            name if place == 0 else f"{name}.{place}",
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            job.data.categories[int(verdicts.category[k])],
            probability,
            grade,
            verdicts.reason[k],
        )
        for place, box in enumerate(parts)
    ]
