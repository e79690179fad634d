"""Probabilities that mean what they say: graders fitted to the expert's images, and safe thresholds.

The expert's images say what is true of each crowd label there. A small classifier learns it from the
features; predictions held out by image give its calibration and, per kind of correction, the threshold
from which a stated precision is reached.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from emclean.science.forest import Blend, Bounds, Forest, Linear, fit_forest, fit_linear, tempered
from emclean.science.grading.evidence import Evidence
from emclean.science.grading.features import CANDIDATE_FEATURES, LABEL_FEATURES, Features, features
from emclean.science.grading.grade import judged, verdicts
from emclean.science.grading.rules import Rules
from emclean.science.leaning import leanings, leant, leant_held_out
from emclean.science.noise import plant
from emclean.science.placing import place_weights, placed_by, placed_held_out
from emclean.science.rates import estimate
from emclean.science.truth import TrueGrades, missed_right, right_fixes, true_grades
from emclean.types import GRADES, NOISE_KINDS, Bools, Floats, Grade, Ints, Labels, Verdicts

_MISSED = GRADES.index("missed")
_PLACE = CANDIDATE_FEATURES.index("place")
"""Not for the classifier: a few pictures teach it nothing of places, but there is a prior (``placing``)."""
_FOLDS = 5
_COPIES = 5
_SHARES = (0.0, 0.3, 0.5, 0.7, 1.0)
_TEMPERATURES = (0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.3, 1.8)


@dataclass(frozen=True, eq=False)
class Observations:
    """Held-out verdicts on the expert's images: ``grade [K]``, ``probability [K]``, whether the correction
    that it stands for was ``right [K]``, and the ``image [K]`` it came from."""

    grade: Ints
    probability: Floats
    right: Bools
    image: Ints

    def of(self, kind: Grade) -> "Observations":
        """Only the verdicts of one kind."""
        return self._only(self.grade == GRADES.index(kind))

    def of_images(self, images: Sequence[int]) -> "Observations":
        """Only the verdicts on these images, by their place among those that were learnt from."""
        return self._only(np.isin(self.image, np.array(images, dtype=np.int64)))

    def _only(self, mine: Bools) -> "Observations":
        return Observations(self.grade[mine], self.probability[mine], self.right[mine], self.image[mine])

    def __len__(self) -> int:
        return len(self.grade)


@dataclass(frozen=True, eq=False)
class Calibrator:
    """Grades with calibrated probabilities; ``observations`` are its own held-out verdicts.

    ``judge`` knows the grades of labels, ``finder`` whether a candidate is a missed object. Either is None
    where the expert's images could not teach it; then rules answer, and ``calibrated`` is False.
    ``held_out`` are the verdicts on the expert's images, in their order, by models that did not see them;
    ``leaning [C]`` what is added to the log odds of a candidate of each category, ``place_weights [C]`` how
    much it counts there that a place shows no objects.
    """

    judge: Blend | None
    finder: Blend | None
    observations: Observations
    n_images: int = 0
    held_out: tuple[Verdicts, ...] = ()
    leaning: Floats = field(default_factory=lambda: np.zeros(0))
    place_weights: Floats = field(default_factory=lambda: np.zeros(0))

    @property
    def calibrated(self) -> bool:
        """Whether both parts were fitted."""
        return self.judge is not None and self.finder is not None

    def label_posterior(self, rows: Floats) -> Floats:
        """The probability ``[N, len(GRADES)]`` of each grade of each label."""
        ruled = Rules().label_posterior(rows)
        return ruled if self.judge is None else _advised(self.judge.predict(rows), ruled, self.n_images)

    def missed_probability(self, rows: Floats, categories: Ints) -> Floats:
        """The probability ``[M]`` that each candidate is an object without a label."""
        if self.finder is None:
            return Rules().missed_probability(rows, categories)
        alone = self.finder.predict(_without_place(rows))[:, 1]
        by_category = leant(alone, categories, self.leaning)
        return placed_by(by_category, rows[:, _PLACE], categories, self.place_weights)


def _advised(learnt: Floats, ruled: Floats, n_images: int) -> Floats:
    """What was learnt from a few images, with a share of the rules: kinds that were hardly seen need it."""
    share = 3 / (n_images + 5)
    return np.asarray((1 - share) * learnt + share * ruled)


class _Image(NamedTuple):
    """One expert image, prepared: evidence, features, truth, and what is true of each row."""

    evidence: Evidence
    found: Features
    truth: Labels
    known: TrueGrades
    missed: Bools


def _prepared(evidence: Evidence, truth: Labels) -> _Image:
    known, found = true_grades(evidence.labels, truth), features(evidence)
    verdict = judged(evidence, found, Rules())
    return _Image(evidence, found, truth, known, missed_right(verdict, truth, known))


def _fold_of(n_images: int, rng: np.random.Generator) -> Ints:
    """A fold for every image, all folds alike in size."""
    return rng.permutation(np.arange(n_images) % min(_FOLDS, n_images))


class _Table(NamedTuple):
    """Rows to learn from: ``rows [K,D]``, true class, fold of the image, and weight of each."""

    rows: Floats
    classes: Ints
    fold: Ints
    weight: Floats

    def but(self, fold: int) -> "_Table":
        """The rows of the other folds."""
        return self._only(self.fold != fold)

    def none(self) -> "_Table":
        """No rows, as wide as these."""
        return self._only(np.zeros(len(self.fold), np.bool_))

    def _only(self, mine: Bools) -> "_Table":
        return _Table(self.rows[mine], self.classes[mine], self.fold[mine], self.weight[mine])


def _without_place(rows: Floats) -> Floats:
    """Rows of candidates as the classifier learns and reads them."""
    return np.delete(rows, _PLACE, axis=1)


def _table(images: Sequence[_Image], folds: Sequence[int], weight: float, labels: bool) -> _Table:
    """The label rows (or the candidate rows) of these images."""
    rows = [i.found.labels if labels else _without_place(i.found.candidates) for i in images]
    classes = [i.known.grade if labels else i.missed.astype(np.int64) for i in images]
    fold = np.repeat(np.array(folds, dtype=np.int64), [len(r) for r in rows])
    return _Table(np.concatenate(rows), np.concatenate(classes), fold, np.full(len(fold), weight))


def _bounds(table: _Table, n: int) -> Bounds:
    """Of the columns that every grader has: annotators' habits are of the whole pool, and never new."""
    own = table.rows[:, : len(LABEL_FEATURES) if n == len(GRADES) else len(CANDIDATE_FEATURES) - 1]
    return Bounds(own.min(axis=0), own.max(axis=0))


def _joined(one: _Table, other: _Table) -> _Table:
    rows, weight = np.concatenate([one.rows, other.rows]), np.concatenate([one.weight, other.weight])
    classes, fold = np.concatenate([one.classes, other.classes]), np.concatenate([one.fold, other.fold])
    return _Table(rows, classes, fold, weight)


def _both(table: _Table, n: int, seed: int) -> tuple[Linear, Forest]:
    """Both models, fitted to all rows of the table."""
    data = table.rows, table.classes, table.weight
    return fit_linear(*data, n), fit_forest(*data, n, seed)


def _held_out(real: _Table, more: _Table, n: int, seed: int) -> tuple[Floats, Floats]:
    """Both models' probabilities ``[K,n]`` for every real row from models that did not see its image."""
    prior = _prior(real.classes, n)
    linear, forest = np.tile(prior, (len(real.rows), 1)), np.tile(prior, (len(real.rows), 1))
    for fold in np.unique(real.fold):
        others, out = _joined(real.but(fold), more.but(fold)), real.fold == fold
        if len(np.unique(others.classes)) < 2:
            continue
        one, other = _both(others, n, seed)
        linear[out], forest[out] = one.predict(real.rows[out]), other.predict(real.rows[out])
    return linear, forest


def _prior(classes: Ints, n: int) -> Floats:
    """How often each class is seen, with a quarter of a count for each added."""
    counts = np.bincount(classes, minlength=n) + 0.25
    return np.asarray(counts / counts.sum())


def _best_mix(
    linear: Floats, forest: Floats, classes: Ints, prior: tuple[Floats, float]
) -> tuple[float, float]:
    """The share of the forest and the temperature of least log loss on held-out rows."""
    at = np.arange(len(classes))
    losses = {
        (share, heat): -np.log(tempered(linear, forest, share, heat, prior)[at, classes]).mean()
        for share in _SHARES
        for heat in _TEMPERATURES
    }
    return min(losses, key=lambda key: (losses[key], key))


def _learn(real: _Table, more: _Table, n: int, seed: int) -> tuple[Blend | None, Floats]:
    """A classifier and its held-out probabilities; None where there is nothing to tell apart."""
    prior = _prior(real.classes, n)
    if len(np.unique(real.classes)) < 2 or len(np.unique(real.fold)) < 2:
        return None, np.tile(prior, (len(real.rows), 1))
    trust = len(real.rows) / (len(real.rows) + 2.0)
    linear, forest = _held_out(real, more, n, seed)
    share, heat = _best_mix(linear, forest, real.classes, (prior, trust))
    held_out = tempered(linear, forest, share, heat, (prior, trust))
    for fold in np.unique(real.fold):
        out = real.fold == fold
        held_out[out] = _bounds(real.but(fold), n).shy(held_out[out], real.rows[out], prior)
    models = _both(_joined(real, more), n, seed)
    return Blend(*models, share, heat, prior, trust, _bounds(real, n)), held_out


def _held_out_verdicts(images: Sequence[_Image], posterior: Floats, missed: Floats) -> tuple[Verdicts, ...]:
    """The verdicts on every expert image from its rows of the held-out probabilities."""
    starts = np.cumsum([0, *(len(i.evidence.labels) for i in images)])
    ends = np.cumsum([0, *(len(i.found.proposed) for i in images)])
    return tuple(
        verdicts(
            image.evidence,
            image.found,
            posterior[starts[k] : starts[k + 1]],
            missed[ends[k] : ends[k + 1]],
            calibrated=True,
        )
        for k, image in enumerate(images)
    )


def _observe(images: Sequence[_Image], held_out: Sequence[Verdicts]) -> Observations:
    """Held-out verdicts of every expert image against its truth."""
    rights = [
        right_fixes(image.evidence.labels, verdict, image.truth, image.known)
        for image, verdict in zip(images, held_out, strict=True)
    ]
    return Observations(
        np.concatenate([v.grade for v in held_out]),
        np.concatenate([v.probability for v in held_out]),
        np.concatenate(rights),
        np.repeat(np.arange(len(images), dtype=np.int64), [len(v) for v in held_out]),
    )


def uncalibrated() -> Calibrator:
    """A calibrator before any expert image: rules, and nothing observed."""
    none = Observations(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.bool_), np.zeros(0, np.int64))
    return Calibrator(None, None, none)


def _planted(images: Sequence[_Image], copies: int, rng: np.random.Generator) -> list[_Image]:
    """The expert's images again, ``copies`` times, with errors like the crowd's planted into the truth.

    The crowd's rates are estimated from the same images; the predictions stay as they are.
    """
    truths = [i.truth for i in images]
    rates = estimate(truths, [i.evidence.labels for i in images])
    n_categories = 1 + max(int(t.categories.max(initial=0)) for t in truths)
    again = []
    for image in list(images) * copies:
        size = image.evidence.width, image.evidence.height
        noisy = plant(image.truth, *size, rates, n_categories, rng).labels
        again.append(_prepared(replace(image.evidence, labels=noisy), image.truth))
    return again


def fit(
    evidences: Sequence[Evidence], truths: Sequence[Labels], rng: np.random.Generator, rows: int = 1000
) -> Calibrator:
    """Learn from the expert's images what each grade looks like, and how sure one may be of it.

    ``evidences`` must hold out-of-sample predictions and the crowd's labels as they were; ``truths`` are the
    expert's. Works from two images on; with fewer, rules answer. Where they hold less than ``rows`` crowd
    labels, more are made by planting the crowd's errors into them again; what is observed, and so every
    threshold and calibration, stays with the real ones.
    """
    if len(evidences) != len(truths):
        raise ValueError(f"truths: expected {len(evidences)} images, got {len(truths)}")
    if not len(truths):
        return uncalibrated()
    images = [_prepared(e, t) for e, t in zip(evidences, truths, strict=True)]
    folds, seed = _fold_of(len(images), rng).tolist(), int(rng.integers(2**31))
    n = sum(len(i.evidence.labels) for i in images)
    copies = min(_COPIES, max(rows - n, 0) // max(n, 1))
    more = _planted(images, copies, rng)
    share = 1 / max(copies, 1)  # all copies together count as much as the real rows

    def learned(labels: bool) -> tuple[Blend | None, Floats]:
        real = _table(images, folds, 1.0, labels)
        extra = _table(more, folds * copies, share, labels) if more else real.none()
        return _learn(real, extra, len(GRADES) if labels else 2, seed)

    (judge, posterior), (finder, missed) = learned(labels=True), learned(labels=False)
    ruled = Rules().label_posterior(_table(images, folds, 1.0, True).rows)
    posterior = ruled if judge is None else _advised(posterior, ruled, len(images))
    candidates = _candidates(images, folds)
    leaning: Floats = np.zeros(0)
    weights: Floats = np.zeros(0)
    if finder is None:
        found = Rules().missed_probability(candidates.rows, candidates.category)
    else:
        found, leaning, weights = _with_prior(missed[:, 1], candidates)
    held_out = _held_out_verdicts(images, posterior, found)
    observed = _observe(images, held_out)
    return Calibrator(judge, finder, observed, len(images), held_out, leaning, weights)


class _Candidates(NamedTuple):
    """The expert images' candidates: ``rows [M,D]``, category, whether each was missed, its image's fold."""

    rows: Floats
    category: Ints
    missed: Bools
    fold: Ints


def _candidates(images: Sequence[_Image], folds: Sequence[int]) -> _Candidates:
    return _Candidates(
        np.concatenate([i.found.candidates for i in images]),
        np.concatenate([i.evidence.reference.categories[i.found.proposed] for i in images]),
        np.concatenate([i.missed for i in images]),
        np.repeat(np.array(folds, dtype=np.int64), [len(i.missed) for i in images]),
    )


def _with_prior(held_out: Floats, seen: _Candidates) -> tuple[Floats, Floats, Floats]:
    """Held-out probabilities ``[M]`` leant by category and weighted by place; leaning and weights ``[C]``."""
    right, place = seen.missed, seen.rows[:, _PLACE]
    by_category = leant_held_out(held_out, right, seen.category, seen.fold)
    found = placed_held_out(by_category, right, place, seen.category, seen.fold)
    weights = place_weights(by_category, right, place, seen.category)
    return found, leanings(held_out, right, seen.category), weights


def design_effect(right: Bools, image: Ints) -> float:
    """How many observations are worth one, since those of one image err together (at least 1).

    Kish's ``1 + (m - 1) r`` with the mean cluster size m weighted by size, and the intra-class correlation
    r from the one-way analysis of variance.
    """
    _, cluster, size = np.unique(image, return_inverse=True, return_counts=True)
    n, k = len(right), len(size)
    if k < 2 or n <= k or right.all() or not right.any():
        return 1.0
    mean = np.bincount(cluster, right) / size
    between = (size * (mean - right.mean()) ** 2).sum() / (k - 1)
    within = ((right - mean[cluster]) ** 2).sum() / (n - k)
    typical = (n - (size**2).sum() / n) / (k - 1)
    correlation = (between - within) / max(between + (typical - 1) * within, 1e-12)
    return float(1 + max((size**2).sum() / n - 1, 0.0) * np.clip(correlation, 0.0, 1.0))


def threshold(
    probability: Floats, right: Bools, precision: float = 0.95, belief: float = 5.0, weight: float = 1.0
) -> float:
    """The smallest probability from which the estimated precision is at least the asked one, or infinity.

    The estimate for all corrections at or above it is the posterior mean of a Beta distribution: ``belief``
    observations whose precision is their own mean probability, and what was seen, each counting ``weight``
    (less than 1 where they hang together). A lower confidence bound in its place was measured to correct
    next to nothing without being more often right (``docs/decisions/0003-thresholds.md``).
    """
    if not len(probability):
        return float("inf")
    order = np.argsort(-probability, kind="stable")
    p, n = probability[order], np.arange(1, len(probability) + 1)
    good = np.cumsum(right[order], dtype=np.int64)
    estimate = (weight * good + belief * np.cumsum(p) / n) / (weight * n + belief)
    last_of_tie = np.append(p[:-1] > p[1:], True)
    safe = np.flatnonzero((estimate >= precision - 1e-9) & last_of_tie)
    return float(p[safe[-1]]) if len(safe) else float("inf")


def thresholds(seen: Observations, precision: float = 0.95, least: float = 0.75) -> dict[Grade, float]:
    """For every kind of error the probability from which it is corrected without asking (``threshold``).

    Never under ``least``: the mean precision of a kind must not be bought with single corrections that are
    about as likely wrong as right, nor with images unlike any that the expert has seen (``Bounds``).
    """
    limits: dict[Grade, float] = {}
    for kind in NOISE_KINDS:
        mine = seen.of(kind)
        weight = 1 / design_effect(mine.right, mine.image)
        limits[kind] = max(threshold(mine.probability, mine.right, precision, weight=weight), least)
    return limits
