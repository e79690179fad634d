"""Choosing what to ask in a round, and what to show with each question."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emclean.loop import policies
from emclean.loop.asking import Question, drawn_at_random, make_question, questions_until
from emclean.loop.cleaning import Judged, expert_labels, judge
from emclean.loop.job import Job
from emclean.loop.spending import budget_minutes, dearer, spent_until
from emclean.loop.states import RunState
from emclean.science import doubt, questions, selection
from emclean.science.grading import ImageScore, image_score, shown
from emclean.types import GRADES, Ints, Suggestion, Verdicts


def choose(job: Job, state: RunState) -> tuple[list[Question], str]:
    """The questions of the round that ``state`` is in, or none and the reason to stop."""
    judged = judge(job, state, state.round - 1)
    before = questions_until(job, state.round - 1)
    asked = {q.task.image.image_id for q in before if q.task.kind == "image"}
    prices = _prices(job, judged, state.round - 1)
    chosen, reason = picked(job, state, _pool(job, judged, asked, prices), selection.STRATEGIES)
    return _questions(job, state.round, judged, chosen, prices.learnt), reason


def picked(
    job: Job,
    state: RunState,
    pool: selection.Pool,
    strategies: Mapping[str, selection.Strategy],
    limit: float = np.inf,
) -> "tuple[list[Pick], str]":
    """What is chosen of the questions that may be asked in this round, or nothing and the reason to stop.

    ``limit`` is the most minutes that the round may cost by another budget than that in minutes.
    """
    if state.round == 0:
        return [Pick(i, at_random=True) for i in _seed(job, state, pool, limit)], ""
    spending = _spending(job, state)
    cheapest = float(pool.expected_minutes.min(initial=np.inf))
    decision = policies.stop(
        spending, len(pool), cheapest, _gain(pool), job.settings.budget.min_gain_per_minute
    )
    if decision.now:
        return [], decision.reason
    minutes = min(max(spending.next_round(), cheapest), limit)
    return _spend(job, state.round, pool, minutes, strategies[job.settings.strategy]), ""


def _seed(job: Job, state: RunState, pool: selection.Pool, limit: float) -> list[str]:
    """The images of round 0, drawn at random: as many as asked for, fewer where the budget is smaller.

    By default as many as the round's equal share of the budget pays for; never fewer than 2.
    """
    wanted, spending = job.settings.budget.seed_images, _spending(job, state)
    order = job.rng("seed images").permutation(len(pool))[:wanted]
    most = min(spending.budget if wanted else spending.next_round(), limit)
    paid = int((np.cumsum(pool.expected_minutes[order]) <= most).sum())
    if wanted and paid < len(order):
        job.parts.console.say(f"the budget pays for {paid} of {wanted} seed images; at least 2 are asked")
    return [pool.image_ids[i] for i in order[: max(paid, 2)]]


def _spending(job: Job, state: RunState) -> policies.Spending:
    used = spent_until(job, state.round - 1).minutes
    return policies.Spending(budget_minutes(job), used, job.settings.budget.rounds - state.round + 1)


def _gain(pool: selection.Pool) -> float | None:
    """Label errors that a minute is expected to mend where it pays most."""
    if not len(pool):
        return None
    return float((pool.gain / np.maximum(pool.expected_minutes, 1e-9)).max())


def _pool(job: Job, judged: Judged, asked: set[str], prices: questions.Prices) -> selection.Pool:
    """The questions that may be asked, in numbers.

    One about every image that was never asked about as a whole, and where the strategy mixes both kinds, one
    about the doubtful instances of each.
    """
    left, strategy = [i for i in job.data.ids() if i not in asked], job.settings.strategy
    evidences, verdicts = [judged.evidence[i] for i in left], [judged.verdicts[i] for i in left]
    whole = questions.whole_images(left, evidences, verdicts, prices)
    whole = questions.ranked_by(strategy, whole, evidences)
    mixed = strategy == "gain" and job.settings.budget.reviews and judged.calibrator is not None
    return selection.joined(whole, questions.reviews(whole, verdicts, prices)) if mixed else whole


def _prices(job: Job, judged: Judged, round_: int) -> questions.Prices:
    learnt = experience(job, judged, round_)
    return questions.Prices(job.cost_model, learnt, dearer(job, round_), job.settings.budget.blind_share)


def experience(job: Job, judged: Judged, round_: int) -> doubt.Experience:
    """What answers brought and took, by the expert's random images; as expected before there are any."""
    expert = expert_labels(job)
    known = [i for i in drawn_at_random(job, round_) if i in judged.held_out and i in expert]
    return doubt.experience(
        [judged.evidence[i].labels for i in known],
        [judged.held_out[i] for i in known],
        [expert[i] for i in known],
        job.cost_model,
    )


def _score(job: Job, judged: Judged, image_id: str) -> ImageScore:
    return image_score(judged.evidence[image_id], judged.verdicts[image_id], job.cost_model)


@dataclass(frozen=True)
class Pick:
    """A chosen question: which image, whether drawn at random, whether about some instances only."""

    image_id: str
    at_random: bool = False
    review: bool = False


def _spend(
    job: Job, round_: int, pool: selection.Pool, minutes: float, strategy: selection.Strategy
) -> list[Pick]:
    """Questions for this many minutes: a random share first, the strategy's choice for the rest."""
    rng = job.rng("selection", round_)
    share = job.settings.budget.random_share
    whole = selection.subset(pool, np.flatnonzero(~pool.review))
    sample, _ = selection.split_random_share(whole, minutes, share, rng)
    left = max(minutes - float(whole.expected_minutes[sample].sum()), 0.0)
    drawn = [whole.image_ids[i] for i in sample]
    remaining = selection.subset(pool, np.flatnonzero(~np.isin(pool.image_ids, drawn)))
    best = strategy(remaining, left, rng)
    chosen = [Pick(remaining.image_ids[i], review=bool(remaining.review[i])) for i in best]
    return [Pick(i, at_random=True) for i in drawn] + chosen


def _questions(
    job: Job, round_: int, judged: Judged, chosen: Sequence[Pick], learnt: doubt.Experience
) -> list[Question]:
    """The chosen questions; of those about whole images a share, drawn at random, is blind."""
    draws = job.rng("blind", round_).random(len(chosen))
    return [
        _question(
            job,
            judged,
            pick,
            round_,
            learnt,
            blind=bool(draws[place] < job.settings.budget.blind_share) and not pick.review,
            value=float(len(chosen) - place),
        )
        for place, pick in enumerate(chosen)
    ]


def _question(
    job: Job, judged: Judged, pick: Pick, round_: int, learnt: doubt.Experience, **kind: Any
) -> Question:
    """One question, with what its answer will probably cost."""
    i, kind = pick.image_id, {**kind, "at_random": pick.at_random, "review": pick.review}
    offer = doubt.review(judged.verdicts[i], job.cost_model) if pick.review else None
    if offer is not None:
        minutes = learnt.review_time * offer.minutes
        return make_question(job, i, round_, suggestions(job, judged, i, offer.rows), minutes=minutes, **kind)
    score = _score(job, judged, i)
    minutes = score.blank_minutes if kind["blind"] else learnt.image_time * score.expected_minutes
    return make_question(job, i, round_, suggestions(job, judged, i), minutes=minutes, **kind)


def suggestions(job: Job, judged: Judged, image_id: str, rows: Ints | None = None) -> list[Suggestion]:
    """What the expert is shown for an image: each label as the verdict would have it, and what seems missed.

    Labels that are probably spurious or duplicate are not shown once that is known from an expert's answers;
    a merged one is shown as its parts. With ``rows`` (a review) these verdicts and no others.
    """
    verdicts = judged.verdicts[image_id]
    labels = judged.evidence[image_id].labels
    found: list[Suggestion] = []
    for k in np.flatnonzero(shown(verdicts)) if rows is None else rows:
        label = verdicts.label[k]
        found += _suggested(job, verdicts, int(k), labels.ids[label] if label >= 0 else "")
    return found


def _suggested(job: Job, verdicts: Verdicts, k: int, label_id: str) -> list[Suggestion]:
    grade, probability = GRADES[verdicts.grade[k]], float(verdicts.probability[k])
    boxes = doubt.proposals(verdicts, [k]).boxes
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
        for place, box in enumerate(boxes)
    ]
