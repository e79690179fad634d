"""How far annotators agree: pairwise F1 and overlap, and Krippendorff's alpha lifted to boxes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from emclean.boxes import iou, match
from emclean.science.annotators.gather import Crowd, crowd, gather
from emclean.types import Floats, Ints, Labels


@dataclass(frozen=True, eq=False)
class Agreement:
    """How alike the annotators' boxes are.

    ``f1 [A,A]`` of each pair (IoU >= threshold, same category) and ``mean_iou [A,A]`` of the boxes that
    match, over the images that both were shown, NaN without any; ``alpha`` over every place where somebody
    drew (values: the category, or nothing); ``alpha_category`` over what was called something only.

    ``alpha`` is 1 for full agreement, 0 for chance. Places where all agree that there is nothing are not
    counted, since there is no end to them, so it is lower than among a fixed list of items.
    """

    names: tuple[str, ...]
    f1: Floats
    mean_iou: Floats
    alpha: float
    alpha_category: float


def agreement(
    labels: Sequence[Labels],
    n_categories: int,
    seen: Sequence[Sequence[str]] | None = None,
    threshold: float = 0.5,
) -> Agreement:
    """Compare all annotators of these images with one another (arguments as in ``estimate``)."""
    given = crowd(labels, seen)
    f1, overlap = _pairs(given, threshold)
    counts = _votes(given, n_categories)
    return Agreement(given.names, f1, overlap, krippendorff_alpha(counts), krippendorff_alpha(counts[:, 1:]))


def _pair(given: Crowd, a: int, b: int, threshold: float) -> tuple[float, float]:
    """F1 and mean IoU of two annotators."""
    found: list[Floats] = [np.zeros(0)]
    total = 0
    for i in np.flatnonzero(given.looked[:, a] & given.looked[:, b]):
        who = given.who(int(i))
        one, other = given.labels[i].take(who == a), given.labels[i].take(who == b)
        same = one.categories[:, None] == other.categories[None, :]
        rows, cols = match(one.boxes, other.boxes, threshold, same)
        found.append(iou(one.boxes, other.boxes)[rows, cols])
        total += len(one) + len(other)
    every = np.concatenate(found)
    f1 = 2 * len(every) / total if total else float("nan")
    return f1, float(every.mean()) if len(every) else float("nan")


def _pairs(given: Crowd, threshold: float) -> tuple[Floats, Floats]:
    n = len(given.names)
    f1, overlap = np.eye(n), np.eye(n)
    for a, b in combinations(range(n), 2):
        f1[a, b], overlap[a, b] = _pair(given, a, b, threshold)
        f1[b, a], overlap[b, a] = f1[a, b], overlap[a, b]
    return f1, overlap


def _votes(given: Crowd, n_categories: int) -> Ints:
    """How many annotators gave each value (nothing, then the categories) at each place ``[J, K+1]``."""
    draws = gather(given, np.ones(len(given.names)))
    counts = np.zeros((len(draws), n_categories + 1), dtype=np.int64)
    np.add.at(counts, (draws.candidate, draws.category + 1), 1)
    counts[:, 0] = given.looked[draws.image].sum(axis=1) - counts[:, 1:].sum(axis=1)
    return counts


def krippendorff_alpha(counts: Ints) -> float:
    """Krippendorff's alpha for nominal values from how many raters gave each value to each unit ``[U, V]``.

    Units with fewer than two values are left out. NaN without a pair of values, or where only one value is
    ever given (nothing could have disagreed). Source: Krippendorff, Content Analysis, chapter on reliability.
    """
    pairable = np.asarray(counts[counts.sum(axis=1) >= 2], dtype=np.float64)
    raters = pairable.sum(axis=1)
    totals = pairable.sum(axis=0)
    n = totals.sum()
    if n < 2:
        return float("nan")
    alike = (pairable * (pairable - 1)).sum(axis=1) / (raters - 1)
    observed = 1 - alike.sum() / n
    expected = 1 - (totals * (totals - 1)).sum() / (n * (n - 1))
    return float(1 - observed / expected) if expected > 0 else float("nan")
