"""Choosing what to ask in a round, and what to show with each question."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from emclean.boxes import area
from emclean.loop import policies
from emclean.loop.asking import Question, drawn_at_random, make_question, questions_until
from emclean.loop.cleaning import Judged, expert_labels, judge
from emclean.loop.job import Job
from emclean.loop.spending import budget_minutes, dearer, spent_until
from emclean.loop.states import RunState
from emclean.science import doubt, rivals, selection
from emclean.science.grading import ImageScore, image_score, shown
from emclean.types import GRADES, Ints, Suggestion, Verdicts


def choose(job: Job, state: RunState) -> tuple[list[Question], str]:
    """The questions of the round that ``state`` is in, or none and the reason to stop."""
    judged = judge(job, state, state.round - 1)
    before = questions_until(job, state.round - 1)
    asked = {q.task.image.image_id for q in before if q.task.kind == "image"}
    mends = mending(job, judged, state.round - 1)
    pool = _pool(job, judged, asked, dearer(job, state.round - 1), mends)
    if state.round == 0:
        return _questions(job, state.round, judged, [Pick(i, at_random=True) for i in _seed(job, pool)]), ""
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
    """Label errors that a minute is expected to mend where it pays most."""
    if not len(pool):
        return None
    return float((pool.gain / np.maximum(pool.expected_minutes, 1e-9)).max())


def _pool(job: Job, judged: Judged, asked: set[str], factor: float, mends: doubt.Mending) -> selection.Pool:
    """The questions that may be asked, in numbers; ``factor`` corrects their expected minutes.

    One about every image that was never asked about as a whole, and where the strategy mixes both kinds, one
    about the doubtful instances of each.
    """
    left = [i for i in job.data.ids() if i not in asked]
    whole = _whole_images(job, judged, left, factor, mends)
    mixed = job.settings.strategy == "gain" and job.settings.budget.reviews and judged.calibrator is not None
    return selection.joined(whole, _reviews(job, judged, whole, factor, mends)) if mixed else whole


def mending(job: Job, judged: Judged, round_: int) -> doubt.Mending:
    """What an answer mends for each error expected, by the expert's random images; 1 before there are any."""
    expert = expert_labels(job)
    known = [i for i in drawn_at_random(job, round_) if i in judged.held_out and i in expert]
    return doubt.mending(
        [judged.evidence[i].labels for i in known],
        [judged.held_out[i] for i in known],
        [expert[i] for i in known],
        job.cost_model,
    )


def _whole_images(
    job: Job, judged: Judged, ids: Sequence[str], factor: float, mends: doubt.Mending
) -> selection.Pool:
    scores = {i: _score(job, judged, i) for i in ids}
    blind = job.settings.budget.blind_share
    minutes = [(1 - blind) * scores[i].expected_minutes + blind * scores[i].blank_minutes for i in ids]
    return selection.Pool(
        tuple(ids),
        np.array([scores[i].discrepancy for i in ids]),
        np.array([scores[i].uncertainty for i in ids]),
        np.array([len(judged.evidence[i].labels) for i in ids], dtype=np.int64),
        factor * np.array(minutes),
        np.array([_features(judged, i) for i in ids]).reshape(-1, FEATURES),
        rivals.image_scores(job.settings.strategy, [judged.evidence[i] for i in ids]),
        mends.whole * np.array([doubt.doubts(judged.verdicts[i]).sum() for i in ids]),
    )


def _reviews(
    job: Job, judged: Judged, whole: selection.Pool, factor: float, mends: doubt.Mending
) -> selection.Pool:
    """The reviews that some of these images offer, each with its image's other columns."""
    offers = [doubt.review(judged.verdicts[i], job.cost_model) for i in whole.image_ids]
    at = [k for k, offer in enumerate(offers) if offer is not None]
    some = [offer for offer in offers if offer is not None]
    return replace(
        selection.subset(whole, np.array(at, dtype=np.int64)),
        expected_minutes=factor * np.array([offer.minutes for offer in some]),
        gain=mends.review * np.array([offer.errors for offer in some]),
        review=np.ones(len(some), dtype=np.bool_),
    )


FEATURES = 2


def _features(judged: Judged, image_id: str) -> tuple[float, float]:
    """What tells pictures apart for the diversity: how many objects there are, and how large."""
    boxes = judged.evidence[image_id].reference.above(0.3).boxes
    side = float(np.median(np.sqrt(area(boxes)))) if len(boxes) else 1.0
    return float(np.log1p(len(boxes))), float(np.log(side))


def _score(job: Job, judged: Judged, image_id: str) -> ImageScore:
    return image_score(judged.evidence[image_id], judged.verdicts[image_id], job.cost_model)


@dataclass(frozen=True)
class Pick:
    """A chosen question: which image, whether drawn at random, whether about some instances only."""

    image_id: str
    at_random: bool = False
    review: bool = False


def _spend(job: Job, round_: int, pool: selection.Pool, minutes: float) -> list[Pick]:
    """Questions for this many minutes: a random share first, the strategy's choice for the rest."""
    rng = job.rng("selection", round_)
    share = job.settings.budget.random_share
    whole = selection.subset(pool, np.flatnonzero(~pool.review))
    sample, _ = selection.split_random_share(whole, minutes, share, rng)
    left = max(minutes - float(whole.expected_minutes[sample].sum()), 0.0)
    drawn = [whole.image_ids[i] for i in sample]
    rest = [k for k, image_id in enumerate(pool.image_ids) if image_id not in set(drawn)]
    remaining = selection.subset(pool, np.array(rest, dtype=np.int64))
    picked = selection.STRATEGIES[job.settings.strategy](remaining, left, rng)
    chosen = [Pick(remaining.image_ids[i], review=bool(remaining.review[i])) for i in picked]
    return [Pick(i, at_random=True) for i in drawn] + chosen


def _questions(job: Job, round_: int, judged: Judged, chosen: Sequence[Pick]) -> list[Question]:
    """The chosen questions; of those about whole images a share, drawn at random, is blind."""
    draws = job.rng("blind", round_).random(len(chosen))
    return [
        _question(
            job,
            judged,
            pick,
            round_,
            blind=bool(draws[place] < job.settings.budget.blind_share) and not pick.review,
            value=float(len(chosen) - place),
        )
        for place, pick in enumerate(chosen)
    ]


def _question(job: Job, judged: Judged, pick: Pick, round_: int, **kind: Any) -> Question:
    """One question, with what its answer will probably cost."""
    i, kind = pick.image_id, {**kind, "at_random": pick.at_random, "review": pick.review}
    offer = doubt.review(judged.verdicts[i], job.cost_model) if pick.review else None
    if offer is not None:
        shown = suggestions(job, judged, i, offer.rows)
        return make_question(job, i, round_, shown, minutes=offer.minutes, **kind)
    score = _score(job, judged, i)
    minutes = score.blank_minutes if kind["blind"] else score.expected_minutes
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
