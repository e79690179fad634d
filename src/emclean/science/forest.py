"""A small classifier as plain arrays: ridge logistic regression blended with a forest of shallow trees.

The pieces are fitted with scikit-learn and then kept as numbers, so that they pickle small and predict
without scikit-learn's version in mind.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from emclean.types import Floats, Ints

TREES = 60
_DEPTH = 8


@dataclass(frozen=True, eq=False)
class Linear:
    """Multinomial logistic regression on standardised columns: ``weights [C,D]``, ``bias [C]``."""

    mean: Floats
    scale: Floats
    weights: Floats
    bias: Floats

    def predict(self, rows: Floats) -> Floats:
        """Probabilities ``[N,C]``."""
        logits = np.clip((rows - self.mean) / self.scale, -8, 8) @ self.weights.T + self.bias
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(odds / odds.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Forest:
    """Decision trees in one table of nodes: a node goes ``left`` if its ``feature`` is <= ``threshold``.

    A leaf leads to itself; ``value [nodes,C]`` are class shares; ``roots [T]`` the trees' first nodes.
    """

    roots: Ints
    feature: Ints
    threshold: Floats
    left: Ints
    right: Ints
    value: Floats

    def predict(self, rows: Floats) -> Floats:
        """Probabilities ``[N,C]``: the mean over trees of the leaf that each row reaches."""
        node = np.broadcast_to(self.roots, (len(rows), len(self.roots)))  # [N,T]
        single = rows.astype(np.float32)  # trees were grown on single precision
        row = np.arange(len(rows))[:, None]
        for _ in range(_DEPTH):
            below = single[row, self.feature[node]] <= self.threshold[node]
            node = np.where(below, self.left[node], self.right[node])
        return np.asarray(self.value[node].mean(axis=1))


def fit_linear(rows: Floats, classes: Ints, weight: Floats, n_classes: int, strength: float = 0.3) -> Linear:
    """Ridge logistic regression (scikit-learn's ``C = strength`` on standardised columns)."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    scale = np.where(spread > 1e-6, spread, 1.0)
    model = LogisticRegression(C=strength, max_iter=500)
    present = np.unique(classes)
    weights, bias = np.zeros((n_classes, rows.shape[1])), np.full(n_classes, -8.0)
    model.fit(np.clip((rows - mean) / scale, -8, 8), classes, sample_weight=weight)
    if len(present) == 2:  # scikit-learn keeps one row of weights for two classes
        weights[present[1]], bias[present] = model.coef_[0], [0.0, float(model.intercept_[0])]
    else:
        weights[present], bias[present] = model.coef_, model.intercept_
    return Linear(mean, scale, weights, bias)


def fit_forest(rows: Floats, classes: Ints, weight: Floats, n_classes: int, seed: int) -> Forest:
    """Extremely randomised trees, shallow and with at least three rows in every leaf."""
    from sklearn.ensemble import ExtraTreesClassifier

    model = ExtraTreesClassifier(
        TREES, max_depth=_DEPTH, min_samples_leaf=3, max_features=0.4, random_state=seed, n_jobs=1
    ).fit(rows, classes, sample_weight=weight)
    return _packed([tree.tree_ for tree in model.estimators_], np.unique(classes), n_classes)


def _packed(trees: list[Any], present: Ints, n_classes: int) -> Forest:
    """Many trees in one table."""
    sizes = np.array([t.node_count for t in trees])
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    shift = np.repeat(roots, sizes)
    own = np.arange(sizes.sum())
    left, right, feature, threshold = (
        np.concatenate([getattr(t, name) for t in trees])
        for name in ("children_left", "children_right", "feature", "threshold")
    )
    leaf = left < 0
    value = np.zeros((len(own), n_classes))
    shares = np.concatenate([t.value[:, 0, :] for t in trees])
    value[:, present] = shares / shares.sum(axis=1, keepdims=True)
    return Forest(
        roots=roots,
        feature=np.where(leaf, 0, feature).astype(np.int64),
        threshold=threshold.astype(np.float64),
        left=np.where(leaf, own, left + shift).astype(np.int64),
        right=np.where(leaf, own, right + shift).astype(np.int64),
        value=value,
    )


@dataclass(frozen=True, eq=False)
class Bounds:
    """What was seen: values of the first columns, those of pictures, from ``low [D]`` to ``high [D]``.

    Trees do not extrapolate: outside, what they say is as sure as ever but no longer founded. Pictures unlike
    any that were learnt from err as a whole, with hundreds of instances.
    """

    low: Floats
    high: Floats

    def shy(self, probabilities: Floats, rows: Floats, prior: Floats) -> Floats:
        """The ``probabilities [N,C]``, drawn half way to the ``prior`` for rows outside in any column."""
        own = rows[:, : len(self.low)]
        outside = ((own < self.low) | (own > self.high)).any(axis=1, keepdims=True)
        return np.where(outside, 0.5 * (probabilities + prior), probabilities)


@dataclass(frozen=True, eq=False)
class Blend:
    """Both models mixed (``share`` of the forest), tempered, leaning on the ``prior``, shy of what is new."""

    linear: Linear
    forest: Forest
    share: float
    temperature: float
    prior: Floats
    trust: float
    bounds: Bounds

    def predict(self, rows: Floats) -> Floats:
        """Probabilities ``[N,C]``."""
        parts = self.linear.predict(rows), self.forest.predict(rows)
        mixed = tempered(*parts, self.share, self.temperature, (self.prior, self.trust))
        return self.bounds.shy(mixed, rows, self.prior)


def tempered(
    linear: Floats, forest: Floats, share: float, temperature: float, prior: tuple[Floats, float]
) -> Floats:
    """Mix, raise to ``1/temperature``, and lean on the ``prior`` with weight ``1 - trust``."""
    mixed = np.clip((1 - share) * linear + share * forest, 1e-6, 1.0) ** (1 / temperature)
    sharp = mixed / mixed.sum(axis=1, keepdims=True)
    base, trust = prior
    return np.asarray(trust * sharp + (1 - trust) * base)
