"""Choosing which pictures' classes to ask about in a round, and what is told with each question."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from emclean.config import ActiveClasses
from emclean.loop.asking import Question, make_question, questions_until
from emclean.loop.classes.agreeing import Words, together, words
from emclean.loop.classes.judging import Judged
from emclean.loop.classes.labels import LABEL, classes_of
from emclean.loop.classes.sets import ClassSet
from emclean.loop.classes.spending import binding, label_minutes, labels_left, limit
from emclean.loop.classes.training import Pictures
from emclean.loop.cleaning import standing_labels
from emclean.loop.job import Job
from emclean.loop.selecting import Pick, picked
from emclean.loop.states import RunState
from emclean.science.classes import asking, votes
from emclean.science.selection import Pool
from emclean.types import Floats, Ints, Suggestion


@dataclass(frozen=True, eq=False)
class Table:
    """What a round's questions are chosen from: the judged labels, the set, the experts' words so far, and
    how often each picture was ``asked`` about."""

    judged: Judged
    given: ClassSet
    heard: Words
    asked: Mapping[str, int]


def choose(
    job: Job, state: RunState, settings: ActiveClasses, given: ClassSet, judged: Judged
) -> tuple[list[Question], str]:
    """The questions of the round that ``state`` is in, or none and the reason to stop."""
    minutes = label_minutes(job, state.round - 1)
    if state.round == 0 and (said := binding(job, settings)):
        job.parts.console.say(said)
    if not labels_left(job, settings, state.round):
        return [], f"all {settings.budget.labels} labels of the budget are given"
    asked = Counter(q.task.image.image_id for q in questions_until(job, state.round - 1))
    table = Table(judged, given, words(job, judged.ids), asked)
    pool = _pool(table, settings.strategy, _doubtful(settings, table), minutes)
    most = limit(job, settings, state.round, minutes)
    chosen, reason = picked(job, state, pool, asking.STRATEGIES, most)
    return _questions(job, state.round, table, chosen, minutes), reason


def _doubtful(settings: ActiveClasses, table: Table) -> dict[int, float]:
    """Answered pictures that another expert may look at, and the chance that their label is wrong.

    Only with ``activelab``, and as often as there are experts; what is as sure as a correction has to be is
    settled.
    """
    judged, count = table.judged, settings.expert.count
    if settings.strategy != "activelab" or not settings.budget.second_looks or count == 1:
        return {}
    chance = together(table.given, table.heard, judged.probabilities).chance
    left = [k for k, i in enumerate(judged.ids) if table.heard.looks[k] and table.asked[i] < count]
    wrong = {k: 1 - float(chance[k, judged.known[judged.ids[k]]]) for k in left}
    return {k: doubt for k, doubt in wrong.items() if doubt > 1 - settings.corrections.precision}


def _pool(table: Table, strategy: str, doubtful: Mapping[int, float], minutes: float) -> Pool:
    """One question about each picture that was never asked about and each second look, in numbers."""
    left = [k for k, i in enumerate(table.judged.ids) if i not in table.asked]
    rows = np.array([*left, *doubtful], np.int64)
    again = np.isin(np.arange(len(rows)), np.arange(len(left), len(rows)))
    unseen = table.judged.doubt[rows[~again]]
    return Pool(
        tuple(table.judged.ids[k] for k in rows),
        np.concatenate([unseen, np.array(list(doubtful.values()))]),
        asking.entropy(table.judged.probabilities[rows]),
        np.ones(len(rows), np.int64),
        np.full(len(rows), minutes),
        scores=_scores(strategy, table, rows),
        review=again,
    )


def _scores(strategy: str, table: Table, rows: Ints) -> dict[str, Floats]:
    """The column that a strategy ranks by; none where it ranks by what every pool has.

    Labels are those that were given, all votes of a picture as shares; what was corrected without asking is
    judged as it stands now: an error that is thought mended needs no expert.
    """
    judged = table.judged
    if not len(rows):
        return {strategy: np.zeros(0)}
    if strategy == "cross_entropy":
        soft = _given(table.given, judged)
        return {strategy: asking.cross_entropy(soft[rows], judged.probabilities[rows])}
    if strategy == "activelab":
        scores = asking.activelab(_votes(table), judged.probabilities)
        return {strategy: np.where(judged.flips, 0.0, scores)[rows]}
    return {}


def _given(given: ClassSet, judged: Judged) -> Floats:
    """The labels of all pictures as shares of the votes ``[n,K]``; of corrected ones the corrected label."""
    n_classes = judged.probabilities.shape[1]
    soft = votes.shares(given.all_votes()[Pictures(given).places(judged.ids)], n_classes)
    return np.where(judged.flips[:, None], np.eye(n_classes)[judged.best], soft)


def _votes(table: Table) -> Ints:
    """What every labeller and every expert says of all pictures ``[n,L+E]``."""
    crowd = table.given.all_votes()[Pictures(table.given).places(table.judged.ids)]
    return np.concatenate([crowd, table.heard.said], axis=1)


def _questions(job: Job, round_: int, table: Table, chosen: list[Pick], minutes: float) -> list[Question]:
    """The chosen questions; a share of them, drawn at random, does not tell the label so far.

    A second look never tells it: two words are worth more than one only where each is the expert's own.
    """
    draws = job.rng("blind", round_).random(len(chosen))
    share = job.settings.budget.blind_share
    return [
        make_question(
            job,
            pick.image_id,
            round_,
            [suggestion(job, table.judged, pick.image_id)],
            at_random=pick.at_random,
            blind=pick.review or bool(draws[place] < share),
            value=float(len(chosen) - place),
            minutes=minutes,
            seen_by=table.heard.who(table.judged.place[pick.image_id]) if pick.review else (),
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
