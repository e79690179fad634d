"""Expectation maximisation between the objects and the annotators.

An object is drawn by annotator a with probability ``seen_a``, what is no object with ``invented_a`` (the two
coins of Dawid and Skene 1979); its category goes through the annotator's confusion matrix with a Dirichlet
prior, its place gets the annotator's Gaussian bias and spread of centre and size (the idea of BDC, arXiv
2407.07958). Candidates that nobody drew are not seen; their expected number is added (zero truncation), so
that two annotators who both overlook much do not look perfect.
"""

from dataclasses import dataclass

import numpy as np

from emclean.science.annotators.gather import Draws
from emclean.types import Bools, Floats, Ints

_CEILING = 0.98  # of the share of candidates that nobody draws: at most 49 unseen ones for each seen


@dataclass(frozen=True)
class Priors:
    """What is believed of annotators before any box is seen, as pseudo counts and spreads.

    ``seen``, ``invented`` Beta parameters of drawing an object and a non-object; ``right`` and ``wrong``
    Dirichlet counts on and (in total) off the diagonal of each row of the confusion; ``bias`` the standard
    deviation of an annotator's mean offset; ``sigma`` and ``sigma_weight`` a typical spread and how many
    boxes that belief is worth. Offsets are in units of the object's side, or of log size.
    """

    seen: tuple[float, float] = (4.0, 2.0)
    invented: tuple[float, float] = (1.5, 8.0)
    right: float = 4.0
    wrong: float = 1.0
    bias: float = 0.1
    sigma: float = 0.1
    sigma_weight: float = 4.0


@dataclass(frozen=True, eq=False)
class Parameters:
    """Of every annotator: ``seen [A]``, ``invented [A]``, ``bias [A,4]``, ``variance [A,4]``, ``confusion
    [A,K,K]`` (row: true category); of the world: ``real`` (share of candidates that are objects) and
    ``shares [K]`` of the categories."""

    seen: Floats
    invented: Floats
    bias: Floats
    variance: Floats
    confusion: Floats
    real: float
    shares: Floats


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Of every candidate: ``real [J]`` probability to be an object, ``category [J,K]``, ``place [J,4]`` with
    its variance ``[J,4]``."""

    real: Floats
    category: Floats
    place: Floats
    variance: Floats


@dataclass(frozen=True, eq=False)
class Table:
    """The draws with ``drew [J,A]`` and ``looked [J,A]``, and the number of categories."""

    draws: Draws
    drew: Bools
    looked: Bools
    n_categories: int


def table(draws: Draws, looked: Bools, n_categories: int) -> Table:
    """Spread the draws out; ``looked [I,A]`` is by image."""
    drew = np.zeros((len(draws), looked.shape[1]), dtype=np.bool_)
    drew[draws.candidate, draws.annotator] = True
    return Table(draws, drew, looked[draws.image], n_categories)


def start(t: Table, priors: Priors) -> Parameters:
    """Where the iteration begins: the priors' means."""
    n, k = t.drew.shape[1], t.n_categories
    row = _prior_confusion(k, priors)
    return Parameters(
        seen=np.full(n, priors.seen[0] / sum(priors.seen)),
        invented=np.full(n, priors.invented[0] / sum(priors.invented)),
        bias=np.zeros((n, 4)),
        variance=np.full((n, 4), priors.sigma**2),
        confusion=np.tile(row / row.sum(axis=1, keepdims=True), (n, 1, 1)),
        real=0.5,
        shares=np.full(k, 1.0 / k),
    )


def _prior_confusion(k: int, priors: Priors) -> Floats:
    off = priors.wrong / max(k - 1, 1)
    return np.asarray(np.where(np.eye(k) > 0, priors.right, off))


def _categories(t: Table, p: Parameters) -> tuple[Floats, Floats]:
    """The category of each candidate ``[J,K]``, and the log likelihood ratio ``[J]`` of its draws' categories
    between an object and a non-object (whose boxes are called anything, as often as that is used)."""
    d, k = t.draws, t.n_categories
    used = np.bincount(d.category, minlength=k) + 1.0
    logs = np.tile(np.log(p.shares), (len(d), 1))
    rows = np.log(p.confusion[d.annotator, :, d.category])  # [B,K]
    for c in range(k):
        logs[:, c] += np.bincount(d.candidate, rows[:, c], len(d))
    top = logs.max(axis=1, initial=-np.inf, keepdims=True)
    mass = np.exp(logs - top)
    total = mass.sum(axis=1, keepdims=True)
    chance = np.bincount(d.candidate, np.log(used / used.sum())[d.category], len(d))
    ratio = (top + np.log(total))[:, 0] - chance
    called = np.where((d.known & d.real)[:, None], np.eye(k)[d.called], mass / total)
    return np.asarray(called), ratio


def _summed(rows: Ints, values: Floats, n: int) -> Floats:
    """Sums ``[n,4]`` of ``values [B,4]`` by row."""
    sums = [np.bincount(rows, column, n).astype(np.float64) for column in values.T]
    return np.stack(sums, axis=1)


def _places(t: Table, p: Parameters) -> tuple[Floats, Floats]:
    """Place and variance ``[J,4]`` of each candidate: the mean of what was drawn less bias, by precision."""
    d = t.draws
    precision = 1 / p.variance[d.annotator]
    mass = _summed(d.candidate, precision, len(d))
    sums = _summed(d.candidate, precision * (d.place_of - p.bias[d.annotator]), len(d))
    settled = (d.known & d.real)[:, None] | (mass == 0)
    place = np.divide(sums, mass, out=d.place.copy(), where=~settled)
    return place, np.divide(1.0, mass, out=np.zeros_like(mass), where=~settled)


def believe(t: Table, p: Parameters) -> Beliefs:
    """The expectation step: what the annotators, as known now, say of every candidate."""
    category, ratio = _categories(t, p)
    yes = np.log(p.seen) - np.log(p.invented)
    no = np.log1p(-p.seen) - np.log1p(-p.invented)
    odds = np.log(p.real) - np.log1p(-p.real) + ratio
    odds = odds + (t.drew * yes + (t.looked & ~t.drew) * no).sum(axis=1)
    real = 1 / (1 + np.exp(-np.clip(odds, -40, 40)))
    real = np.where(t.draws.known, t.draws.real, real)
    return Beliefs(real, category, *_places(t, p))


def _unseen(t: Table, chance: Floats) -> Floats:
    """How many candidates nobody drew there are for each seen one ``[J]``, by the chance ``[A]`` to draw."""
    silent = np.exp((t.looked * np.log1p(-chance)).sum(axis=1))
    silent = np.minimum(silent, _CEILING)
    return np.where(t.draws.known, 0.0, silent / (1 - silent))


def _coin(t: Table, mass: Floats, unseen: Floats, prior: tuple[float, float]) -> Floats:
    """The mode ``[A]`` of the chance to draw, over candidates that count ``mass [J]`` each."""
    drawn = mass @ t.drew
    shown = (mass * (1 + unseen)) @ t.looked
    value = (drawn + prior[0] - 1) / (shown + prior[0] + prior[1] - 2)
    return np.asarray(np.clip(value, 1e-3, 1 - 1e-3))


def _spreads(t: Table, b: Beliefs, p: Parameters, priors: Priors) -> tuple[Floats, Floats]:
    """Bias and variance ``[A,4]``; a box alone on its candidate says nothing of either."""
    d, n = t.draws, t.drew.shape[1]
    company = (t.drew.sum(axis=1) > 1) | (d.known & d.real)
    weight = (b.real * company)[d.candidate][:, None]
    count = np.bincount(d.annotator, weight[:, 0], n)[:, None]
    off = d.place_of - b.place[d.candidate]
    bias = _summed(d.annotator, weight * off, n) / (count + p.variance / priors.bias**2)
    if not (d.known & d.real).any():  # without any truth only differences between annotators can be seen
        bias = bias - (count * bias).sum(axis=0) / np.maximum(count.sum(), 1e-9)
    squares = (off - bias[d.annotator]) ** 2 + b.variance[d.candidate]
    total = _summed(d.annotator, weight * squares, n) + priors.sigma_weight * priors.sigma**2
    return np.asarray(bias), np.asarray(total / (count + priors.sigma_weight))


def improve(t: Table, b: Beliefs, p: Parameters, priors: Priors) -> Parameters:
    """The maximisation step: the annotators that explain these beliefs best."""
    d, k = t.draws, t.n_categories
    hidden, ghosts = _unseen(t, p.seen), _unseen(t, p.invented)
    confusion = np.tile(_prior_confusion(k, priors), (t.drew.shape[1], 1, 1))
    np.add.at(
        confusion.transpose(0, 2, 1),
        (d.annotator, d.category),
        (b.real[:, None] * b.category)[d.candidate],
    )
    shares = (b.real[:, None] * b.category).sum(axis=0) + 1.0
    objects = float((b.real * (1 + hidden)).sum()) + 1.0
    others = float(((1 - b.real) * (1 + ghosts)).sum()) + 1.0
    bias, variance = _spreads(t, b, p, priors)
    return Parameters(
        seen=_coin(t, b.real, hidden, priors.seen),
        invented=_coin(t, 1 - b.real, ghosts, priors.invented),
        bias=bias,
        variance=variance,
        confusion=confusion / confusion.sum(axis=2, keepdims=True),
        real=objects / (objects + others),
        shares=shares / shares.sum(),
    )


def _moved(a: Parameters, b: Parameters) -> float:
    """The largest change of any figure that is reported."""
    pairs = ((a.seen, b.seen), (a.bias, b.bias), (np.sqrt(a.variance), np.sqrt(b.variance)))
    return max(float(np.abs(x - y).max(initial=0.0)) for x, y in pairs)


def iterate(
    t: Table, p: Parameters, priors: Priors, steps: int = 300, tolerance: float = 1e-4
) -> tuple[Parameters, Beliefs]:
    """Expectation and maximisation in turn, until nothing moves by more than ``tolerance``."""
    beliefs = believe(t, p)
    for _ in range(steps):
        better = improve(t, beliefs, p, priors)
        beliefs = believe(t, better)
        still = _moved(p, better) < tolerance
        p = better
        if still:
            break
    return p, beliefs
