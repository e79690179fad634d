"""Scenes for the tests of the science: true objects, and predictions made from them with known faults."""

from dataclasses import dataclass

import numpy as np

from emclean.boxes import clip, iou
from emclean.science.grading import Evidence
from emclean.science.noise import NoiseRates, Planted, plant
from emclean.types import Labels, Predictions

SIDE = 512
RATES = NoiseRates(missed=0.25, shifted=0.2, shift_sigma=0.2, merged=0.15, spurious=0.2, duplicate=0.08)


def objects(rng: np.random.Generator, n: int, n_categories: int = 1) -> Labels:
    """Up to ``n`` hardly overlapping boxes of 20 to 50 pixels in a square of ``SIDE``."""
    sizes = rng.uniform(20, 50, (8 * n, 2))
    low = rng.random((8 * n, 2)) * (SIDE - sizes)
    boxes = np.concatenate([low, low + sizes], axis=1)
    overlap = np.triu(iou(boxes, boxes) > 0.05, 1)
    chosen = np.flatnonzero(~overlap.any(axis=0))[:n]
    return Labels(boxes[chosen], rng.integers(0, n_categories, len(chosen)))


def model(
    rng: np.random.Generator, truth: Labels, miss: float = 0.15, sigma: float = 0.06, n_categories: int = 1
) -> Predictions:
    """What a fair detector says: most objects slightly displaced, some unseen, some invented."""
    seen = truth.take(rng.random(len(truth)) >= miss)
    sides = np.tile(seen.boxes[:, 2:] - seen.boxes[:, :2], (1, 2))
    boxes = clip(seen.boxes + rng.normal(0, sigma, seen.boxes.shape) * sides, SIDE, SIDE)
    confused = rng.random(len(seen)) < 0.1
    categories = np.where(confused, rng.integers(0, n_categories, len(seen)), seen.categories)
    invented = objects(rng, int(rng.poisson(0.2 * len(truth))) + 1, n_categories)
    scores = np.concatenate([rng.beta(5, 2, len(seen)), rng.beta(1.5, 4, len(invented))])
    return Predictions(
        np.concatenate([boxes, invented.boxes]), np.concatenate([categories, invented.categories]), scores
    )


@dataclass(frozen=True)
class Scene:
    """One image with its truth, what was planted, and the evidence for grading it."""

    truth: Labels
    planted: Planted
    evidence: Evidence


def scene(rng: np.random.Generator, rates: NoiseRates = RATES, n_categories: int = 1) -> Scene:
    """One image of 10 to 30 objects with planted errors and three out-of-sample models."""
    truth = objects(rng, int(rng.integers(10, 30)), n_categories)
    planted = plant(truth, SIDE, SIDE, rates, n_categories, rng)
    models = [
        model(rng, truth, miss, sigma, n_categories)
        for miss, sigma in ((0.15, 0.06), (0.2, 0.07), (0.3, 0.1))
    ]
    return Scene(truth, planted, Evidence(planted.labels, *models, SIDE, SIDE))


def scenes(seed: int, n: int, rates: NoiseRates = RATES, n_categories: int = 1) -> list[Scene]:
    """``n`` scenes."""
    rng = np.random.default_rng(seed)
    return [scene(rng, rates, n_categories) for _ in range(n)]
