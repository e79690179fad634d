"""What out-of-sample models and the expert's answers say of every label of the pool."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from emclean.config import ActiveClasses
from emclean.loop.classes.labels import answered, classes_of, label, trusted
from emclean.loop.classes.sets import ClassSet
from emclean.loop.classes.training import Pictures, Training, fit
from emclean.loop.cleaning import FOLDS, crowd_labels, fold_of
from emclean.loop.job import Job
from emclean.loop.states import RunState
from emclean.report.text import plural
from emclean.science.classes import asking, doubt
from emclean.science.classes.votes import ABSENT
from emclean.types import GRADES, Bools, Floats, Ints, Labels, Verdicts

CLEAN, WRONG = GRADES.index("clean"), GRADES.index("mislabelled")


@dataclass(frozen=True, eq=False)
class Judged:
    """The labels of all pool pictures in one round, as aligned arrays over ``ids``.

    ``labels [n]`` are the crowd's, ``probabilities [n,K]`` out-of-sample; ``contest`` sets a rival against
    each label, ``doubts`` turns the odds into chances, and from ``limit`` on the rival takes the place
    without asking. ``known`` are the expert's classes by id, ``held_out`` the chances of those pictures'
    rivals by the answers to others; ``consensus [n]`` marks labels that labellers and model together say,
    where that is not what most labellers say.
    """

    ids: tuple[str, ...]
    labels: Ints
    probabilities: Floats
    contest: doubt.Contest
    doubts: doubt.Doubts = field(default_factory=doubt.Doubts)
    limit: float = float("inf")
    known: Mapping[str, int] = field(default_factory=dict)
    held_out: Mapping[str, float] = field(default_factory=dict)
    consensus: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))

    @cached_property
    def place(self) -> Mapping[str, int]:
        """Where each picture stands."""
        return {i: k for k, i in enumerate(self.ids)}

    @cached_property
    def chance(self) -> Floats:
        """The chance ``[n]`` that the rival of the label is right."""
        return self.doubts.probability(self.contest.odds)

    @cached_property
    def flips(self) -> Bools:
        """Mask ``[n]`` of the labels that are corrected without asking; never one that an expert gave."""
        unseen = np.array([i not in self.known for i in self.ids], dtype=np.bool_)
        return np.asarray((self.chance >= self.limit) & unseen)

    @cached_property
    def best(self) -> Ints:
        """The labels ``[n]`` with the automatic corrections."""
        return np.where(self.flips, self.contest.rival, self.labels)

    @cached_property
    def doubt(self) -> Floats:
        """The chance ``[n]`` that the corrected label is wrong."""
        return np.where(self.flips, 1 - self.chance, self.chance)

    def corrected(self) -> dict[str, int]:
        """The class of each picture that no expert has answered, with the automatic corrections."""
        return {i: int(self.best[k]) for k, i in enumerate(self.ids) if i not in self.known}

    def reason(self, k: int, names: Sequence[str]) -> str:
        """In words what the models say of a label."""
        seen = int(np.argmax(self.probabilities[k]))
        return f"models that did not see this label say {names[seen]} ({self.probabilities[k, seen]:.2f})"

    def verdicts(self, k: int, own: Labels, names: Sequence[str]) -> Verdicts:
        """The verdict on one picture's label, for the tables."""
        wrong, chance = bool(self.chance[k] >= 0.5), float(self.chance[k])
        posterior = np.zeros((1, len(GRADES)))
        posterior[0, CLEAN], posterior[0, WRONG] = 1 - chance, chance
        return Verdicts(
            np.zeros(1, np.int64),
            np.zeros(1, np.int64),
            np.array([WRONG if wrong else CLEAN]),
            np.array([chance if wrong else 1 - chance]),
            own.boxes,
            np.array([self.contest.rival[k] if wrong else self.labels[k]]),
            (self.reason(k, names),),
            calibrated=self.doubts.n > 0,
            posterior=posterior,
        )


@dataclass(frozen=True, eq=False)
class Judges:
    """The models that judge each other's pictures, over one run's set."""

    settings: ActiveClasses
    pool: ClassSet

    def fit(self, job: Job, round_: int) -> list[str]:
        """Train one model per fold, blind to the labels of its own fold; -1 is before any answer.

        They learn from the crowd's labels, and from the expert's where there are some.
        """
        crowd, bought = classes_of(crowd_labels(job)), trusted(job, round_) if round_ >= 0 else {}
        fold = fold_of(job, job.data.ids(), "crowd folds")
        trainings = [
            Training(
                f"judging model {k + 1}",
                {i: c for i, c in crowd.items() if fold[i] != k},
                self.settings.classifier.steps,
                job.seed(f"judging {k}"),
                {i: c for i, c in bought.items() if fold[i] != k},
            )
            for k in range(FOLDS)
        ]
        return [result.weights for result in fit(job, self.settings, self.pool, trainings)]

    def probabilities(self, job: Job, weights: Sequence[str]) -> Floats:
        """What each picture's own fold model, which never saw its label, says of it ``[n,K]``."""
        ids = job.data.ids()
        fold = fold_of(job, ids, "crowd folds")
        found = np.zeros((len(ids), len(self.pool.classes)))
        for k, file in enumerate(weights):
            mine = [place for place, i in enumerate(ids) if fold[i] == k]
            found[mine] = predict(job, self.pool, file, [ids[place] for place in mine])
        return found

    def newest(self, job: Job, state: RunState) -> Floats:
        """What the newest judging models of the run say of every picture ``[n,K]``."""
        roles = ["crowd", *(f"cleaning-{r}" for r in range(state.round + 1))]
        (*_, last) = (role for role in roles if role in state.models)
        return self.probabilities(job, state.models[last]["weights"])

    def judge(self, job: Job, state: RunState, round_: int) -> Judged:
        """Judge every label with the models of a round; kept in memory while the labels stay as they are."""
        key = (round_, job.parts.tables.version("labels"))
        return job.remembered("judged", key, lambda: self._judge(job, state, round_))

    def _judge(self, job: Job, state: RunState, round_: int) -> Judged:
        role = "crowd" if round_ < 0 else f"cleaning-{round_}"
        p, ids = self.probabilities(job, state.models[role]["weights"]), tuple(job.data.ids())
        crowd = classes_of(crowd_labels(job))
        given = np.array([crowd[i] for i in ids], np.int64)
        labels, contest = self._contest(ids, given, p)
        judged = Judged(ids, labels, p, contest, consensus=labels != given)
        return judged if round_ < 0 else self._calibrated(job, round_, judged)

    def _contest(self, ids: Sequence[str], given: Ints, p: Floats) -> tuple[Ints, doubt.Contest]:
        """The labels and their rivals; of several labellers by what they and the model say together."""
        votes = self.pool.all_votes()[Pictures(self.pool).places(ids)]
        if (votes != ABSENT).any(axis=0).sum() < 2:
            return given, doubt.contest(given, p)
        labels, quality = asking.crowdlab(votes, p)
        sure = np.clip(quality, 1e-6, 1 - 1e-6)
        return labels, doubt.Contest(doubt.contest(labels, p).rival, np.log(1 - sure) - np.log(sure))

    def _calibrated(self, job: Job, round_: int, judged: Judged) -> Judged:
        """The same with chances learnt from what the expert answered."""
        known = answered(job)
        at = np.array([judged.place[i] for i in sorted(known)], np.int64)
        odds = judged.contest.odds[at]
        right = judged.contest.rival[at] == np.array([known[i] for i in sorted(known)], np.int64)
        chance = doubt.held_out(odds, right, job.rng("calibration", round_))
        return Judged(
            judged.ids,
            judged.labels,
            judged.probabilities,
            judged.contest,
            doubt.fit(odds, right),
            doubt.limit(chance, right, self.settings.corrections.precision),
            known,
            dict(zip(sorted(known), chance.tolist(), strict=True)),
            judged.consensus,
        )

    def labels(self, job: Job, judged: Judged) -> dict[str, Labels]:
        """The labels of the pictures that no expert has answered, with the automatic corrections."""
        return {i: label(job.data.record(i), k, "emclean") for i, k in judged.corrected().items()}


def predict(job: Job, part: ClassSet, weights: str, ids: Sequence[str]) -> Floats:
    """Probabilities ``[n,K]`` of pictures, where the set is mirrored averaged with those of their mirror
    images; computed once for the same weights and pictures."""
    pictures = Pictures(part)
    places, mirrors = pictures.places(ids), pictures.mirrors(ids)
    found = _predicted(job, part, weights, part.rows[np.concatenate([places, mirrors])])
    if not len(mirrors):
        return found
    return np.asarray((found[: len(places)] + found[len(places) :, ::-1]) / 2)


def _predicted(job: Job, part: ClassSet, weights: str, rows: Ints) -> Floats:
    """Probabilities ``[n,K]`` of rows of a set, kept by the content of weights and pictures."""
    sha = hashlib.sha256(Path(weights).read_bytes())
    sha.update(f"classes {part.digest}".encode() + np.ascontiguousarray(rows).tobytes())
    kept = job.workspace / "predictions" / f"{sha.hexdigest()[:24]}.npy"
    if kept.exists():
        return np.asarray(np.load(kept, allow_pickle=False))
    with job.parts.console.stage(f"looking at {plural(len(rows), 'picture')}") as progress:
        found = job.parts.compute.predict_classes(weights, part.pictures, rows, progress)
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_suffix(".part.npy")
    np.save(draft, found)
    draft.replace(kept)
    return found
