"""Which images to ask the expert about: strategies behind one signature, and the unbiased random share.

A strategy takes ``(pool, minutes, rng)`` and returns indices into the pool in order of value, whose
expected minutes fit the budget.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.science.rivals import RIVALS
from emclean.types import Bools, Floats, Ints


@dataclass(frozen=True, eq=False)
class Pool:
    """The candidate questions, as aligned arrays over n of them: most often one for each image.

    ``discrepancy [n]`` expected number of wrong labels (a count, not a share); ``uncertainty [n]`` mean
    entropy of the model's scores; ``n_boxes [n]`` crowd labels; ``expected_minutes [n]`` of expert time;
    ``features [n,d]`` for diversity (d may be 0); ``scores`` further columns ``[n]`` by the name of the
    strategy that ranks by them; ``gain [n]`` errors that the answer is expected to mend (the discrepancy,
    where not given); ``review [n]`` whether the question is about a few instances of the image only, which
    may then be there twice.
    """

    image_ids: tuple[str, ...]
    discrepancy: Floats
    uncertainty: Floats
    n_boxes: Ints
    expected_minutes: Floats
    features: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    scores: Mapping[str, Floats] = field(default_factory=dict)
    gain: Floats = field(default_factory=lambda: np.zeros(0))
    review: Bools = field(default_factory=lambda: np.zeros(0, np.bool_))

    def __post_init__(self) -> None:
        n = len(self.image_ids)
        if not len(self.gain):
            object.__setattr__(self, "gain", self.discrepancy)
        review = np.array(self.review if len(self.review) else np.zeros(n), dtype=np.bool_)
        object.__setattr__(self, "review", review)
        for name in ("discrepancy", "uncertainty", "n_boxes", "expected_minutes", "gain"):
            column = np.array(getattr(self, name), dtype=np.int64 if name == "n_boxes" else np.float64)
            self._check(name, column, n)
            column.setflags(write=False)
            object.__setattr__(self, name, column)
        features = np.array(self.features, dtype=np.float64)
        features = features if features.size else np.zeros((n, 0))
        if features.shape[0] != n:
            raise ValueError(f"features: expected {n} rows, got {features.shape[0]}")
        features.setflags(write=False)
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "image_ids", tuple(self.image_ids))
        for name, values in self.scores.items():
            if values.shape != (n,) or not np.isfinite(values).all():
                raise ValueError(f"scores[{name}]: expected {n} finite numbers, got shape {values.shape}")

    @staticmethod
    def _check(name: str, column: NDArray[Any], n: int) -> None:
        if column.shape != (n,):
            raise ValueError(f"{name}: expected {n} values, got shape {column.shape}")
        if not np.isfinite(column).all() or (column < 0).any():
            raise ValueError(f"{name}: expected finite numbers of at least 0")

    def __len__(self) -> int:
        return len(self.image_ids)


Strategy = Callable[[Pool, float, np.random.Generator], Ints]


def _within(order: Ints, costs: Floats, minutes: float, fill: bool) -> Ints:
    """The images of ``order`` that the minutes pay for, never more.

    What is too dear is passed over until the first image is taken; after that only with ``fill``.
    """
    taken: list[int] = []
    spent = 0.0
    for i in order:
        if spent + costs[i] <= minutes:
            taken.append(int(i))
            spent += float(costs[i])
        elif taken and not fill:
            break
    return np.array(taken, dtype=np.int64)


def _by(value: Floats, rng: np.random.Generator) -> Ints:
    """Indices of falling value, ties in random order."""
    shuffled = rng.permutation(len(value))
    return shuffled[np.argsort(-value[shuffled], kind="stable")].astype(np.int64)


def random(pool: Pool, minutes: float, rng: np.random.Generator) -> Ints:
    """Images at random; stops at the first that does not fit, so that small images are not favoured."""
    return _within(rng.permutation(len(pool)).astype(np.int64), pool.expected_minutes, minutes, fill=False)


def uncertainty(pool: Pool, minutes: float, rng: np.random.Generator) -> Ints:
    """Images where the model's own scores are least sure, whatever they cost (a rival, blind to labels)."""
    return _within(_by(pool.uncertainty, rng), pool.expected_minutes, minutes, fill=True)


def discrepancy(pool: Pool, minutes: float, rng: np.random.Generator) -> Ints:
    """Images with the most expected label errors per minute of the expert's time."""
    rate = pool.discrepancy / np.maximum(pool.expected_minutes, 1e-9)
    return _within(_by(rate, rng), pool.expected_minutes, minutes, fill=True)


ALIKE = 0.25
"""How much of its gain a question loses that is just like one chosen already."""


def gain(pool: Pool, minutes: float, rng: np.random.Generator) -> Ints:
    """Questions with the most errors expected to be mended for the minutes, whole images and reviews mixed.

    Greedy for the multiple-choice knapsack problem (Sinha and Zoltners 1979): the steps are to ask about an
    image at all, and to ask about the whole of it instead of a review, each by its errors per minute. What
    resembles a chosen question is worth up to :data:`ALIKE` less, by a Gaussian of the distance in features,
    each scaled by its standard deviation.
    """
    spread = pool.features.std(axis=0) if len(pool) else np.ones(pool.features.shape[1])
    scaled = pool.features / np.where(spread > 0, spread, 1.0)
    whole, open_ = _first_steps(pool)
    more, extra = pool.gain.copy(), pool.expected_minutes.copy()  # of each step beyond what it replaces
    like, tie = np.zeros(len(pool)), rng.random(len(pool))
    asked: dict[str, int] = {}
    spent = 0.0
    while (fits := open_ & (spent + extra <= minutes)).any():
        worth = more / np.maximum(extra, 1e-9) * (1 - ALIKE * like)
        best = int(np.lexsort((tie, np.where(fits, worth, -1.0)))[-1])
        asked[pool.image_ids[best]] = best
        spent += float(extra[best])
        open_[best] = False
        if pool.review[best] and whole[best] >= 0:
            image = whole[best]
            more[image], extra[image] = more[image] - more[best], max(extra[image] - extra[best], 0.0)
            open_[image] = more[image] > 0
        if scaled.shape[1]:
            like = np.maximum(like, np.exp(-((scaled - scaled[best]) ** 2).sum(axis=1) / 2))
    return np.array(list(asked.values()), dtype=np.int64)


def _first_steps(pool: Pool) -> tuple[Ints, Bools]:
    """For every review the question about its whole image ``[n]`` or -1; and what may be asked first ``[n]``.

    Of the two that is the one with more gain per minute; a review with less is never asked.
    """
    place = {image: k for k, image in enumerate(pool.image_ids) if not pool.review[k]}
    whole = np.array([place.get(image, -1) for image in pool.image_ids], dtype=np.int64)
    whole[~pool.review] = -1
    rate = pool.gain / np.maximum(pool.expected_minutes, 1e-9)
    paired = np.flatnonzero(whole >= 0)
    first = rate[paired] > rate[whole[paired]]
    open_ = np.ones(len(pool), dtype=np.bool_)
    open_[paired[~first]] = False
    open_[whole[paired[first]]] = False
    return whole, open_


def ranked(name: str) -> Strategy:
    """The strategy that asks by the score of this name: the largest first, whatever it costs."""

    def strategy(pool: Pool, minutes: float, rng: np.random.Generator) -> Ints:
        if name not in pool.scores:
            raise ValueError(f"scores: expected a column {name!r}, got {sorted(pool.scores)}")
        return _within(_by(pool.scores[name], rng), pool.expected_minutes, minutes, fill=True)

    return strategy


STRATEGIES: Mapping[str, Strategy] = {
    "random": random,
    "uncertainty": uncertainty,
    "discrepancy": discrepancy,
    "gain": gain,
    **{name: ranked(name) for name in RIVALS},
}
"""Every strategy by the name used in configurations."""


def split_random_share(
    pool: Pool, minutes: float, share: float, rng: np.random.Generator
) -> tuple[Ints, Ints]:
    """Spend ``share`` of the budget on random images; return ``(random images, all the others)``.

    The first part is an unbiased sample of the pool that costs the share on average; from it label quality
    and AP are estimated. The second is what a strategy may choose from.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: expected a number from 0 to 1, got {share}")
    sample = _drawn(pool.expected_minutes, minutes * share, minutes, rng)
    rest = np.setdiff1d(np.arange(len(pool), dtype=np.int64), sample)
    return sample, rest


def _drawn(costs: Floats, share: float, most: float, rng: np.random.Generator) -> Ints:
    """Images in random order for ``share`` minutes, up to the first that they do not pay for.

    Where that is the first of all, it is drawn as seldom as it costs more than the share, if ``most`` minutes
    pay for it: else small images would be drawn too often.
    """
    order = rng.permutation(len(costs)).astype(np.int64)
    paid = int((np.cumsum(costs[order]) <= share).sum())
    if paid or not len(order):
        return order[:paid]
    dear = float(costs[order[0]])
    return order[: int(dear <= most and rng.random() < share / dear)]


def subset(pool: Pool, index: Ints) -> Pool:
    """The pool's images at ``index``, in that order."""
    rows = np.asarray(index, dtype=np.int64)
    return Pool(
        tuple(pool.image_ids[i] for i in rows),
        pool.discrepancy[rows],
        pool.uncertainty[rows],
        pool.n_boxes[rows],
        pool.expected_minutes[rows],
        pool.features[rows],
        {name: values[rows] for name, values in pool.scores.items()},
        pool.gain[rows],
        pool.review[rows],
    )


def joined(first: Pool, second: Pool) -> Pool:
    """The questions of both, those of the first first; they have the same features and scores."""
    names = ("discrepancy", "uncertainty", "n_boxes", "expected_minutes", "features", "gain", "review")
    both = {name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names}
    scores = {name: np.concatenate([first.scores[name], second.scores[name]]) for name in first.scores}
    return Pool((*first.image_ids, *second.image_ids), scores=scores, **both)
