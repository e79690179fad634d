"""Choosing which pictures' classes to ask about in a round, and what is told with each question."""

import numpy as np

from emclean.config import ActiveClasses
from emclean.loop.asking import Question, make_question, questions_until
from emclean.loop.classes.judging import Judged
from emclean.loop.classes.labels import LABEL, classes_of
from emclean.loop.classes.sets import ClassSet
from emclean.loop.classes.training import Pictures
from emclean.loop.cleaning import standing_labels
from emclean.loop.job import Job
from emclean.loop.selecting import Pick, picked
from emclean.loop.spending import dearer
from emclean.loop.states import RunState
from emclean.science.classes import asking, votes
from emclean.science.cost import Changes
from emclean.science.selection import Pool
from emclean.types import Floats, Ints, Suggestion


def choose(
    job: Job, state: RunState, settings: ActiveClasses, given: ClassSet, judged: Judged
) -> tuple[list[Question], str]:
    """The questions of the round that ``state`` is in, or none and the reason to stop."""
    asked = {q.task.image.image_id for q in questions_until(job, state.round - 1)}
    minutes = dearer(job, state.round - 1) * _minutes(job)
    left = np.array([k for k, i in enumerate(judged.ids) if i not in asked], np.int64)
    pool = _pool(job, settings.strategy, given, judged, left, minutes)
    chosen, reason = picked(job, state, pool, asking.STRATEGIES)
    return _questions(job, state.round, judged, chosen, minutes), reason


def _minutes(job: Job) -> float:
    """What naming one picture's class takes by the stated cost model."""
    return job.cost_model.seconds(1, Changes(0, 0, 0, 1)) / 60.0


def _pool(job: Job, strategy: str, given: ClassSet, judged: Judged, left: Ints, minutes: float) -> Pool:
    """One question about each picture that was never asked about, in numbers."""
    p = judged.probabilities[left]
    return Pool(
        tuple(judged.ids[k] for k in left),
        judged.doubt[left],
        asking.entropy(p),
        np.ones(len(left), np.int64),
        np.full(len(left), minutes),
        scores=_scores(strategy, given, judged, left),
    )


def _scores(strategy: str, given: ClassSet, judged: Judged, left: Ints) -> dict[str, Floats]:
    """The column that a strategy ranks by; none where it ranks by what every pool has.

    Labels are those that were given, all votes of a picture as shares; what was corrected without asking is
    judged as it stands now: an error that is thought mended needs no expert.
    """
    if not len(left):
        return {strategy: np.zeros(0)}
    if strategy == "cross_entropy":
        return {strategy: asking.cross_entropy(_given(given, judged)[left], judged.probabilities[left])}
    if strategy == "activelab":
        scores = asking.activelab(_votes(given, judged), judged.probabilities)
        return {strategy: np.where(judged.flips, 0.0, scores)[left]}
    return {}


def _given(given: ClassSet, judged: Judged) -> Floats:
    """The labels of all pictures as shares of the votes ``[n,K]``; of corrected ones the corrected label."""
    n_classes = judged.probabilities.shape[1]
    soft = votes.shares(given.all_votes()[Pictures(given).places(judged.ids)], n_classes)
    return np.where(judged.flips[:, None], np.eye(n_classes)[judged.best], soft)


def _votes(given: ClassSet, judged: Judged) -> Ints:
    """What every labeller and the expert (the last) say of all pictures ``[n,L+1]``."""
    crowd = given.all_votes()[Pictures(given).places(judged.ids)]
    expert = np.array([judged.known.get(i, -1) for i in judged.ids], np.int64)
    return np.concatenate([crowd, expert[:, None]], axis=1)


def _questions(job: Job, round_: int, judged: Judged, chosen: list[Pick], minutes: float) -> list[Question]:
    """The chosen questions; a share of them, drawn at random, does not tell the label so far."""
    draws = job.rng("blind", round_).random(len(chosen))
    return [
        make_question(
            job,
            pick.image_id,
            round_,
            [suggestion(job, judged, pick.image_id)],
            at_random=pick.at_random,
            blind=bool(draws[place] < job.settings.budget.blind_share),
            value=float(len(chosen) - place),
            minutes=minutes,
        )
        for place, pick in enumerate(chosen)
    ]


def suggestion(job: Job, judged: Judged, image_id: str) -> Suggestion:
    """The label as it stands, how likely it was right, and what the models say."""
    k, record, names = judged.place[image_id], job.data.record(image_id), job.data.categories
    now = classes_of({image_id: standing_labels(job)[image_id]})[image_id]
    chance = float(judged.chance[k])
    same = now == int(judged.labels[k])
    return Suggestion(
        LABEL,
        (0.0, 0.0, float(record.width), float(record.height)),
        names[now],
        1 - chance if same else chance,
        "mislabelled" if chance >= 0.5 else "clean",
        judged.reason(k, names),
    )
