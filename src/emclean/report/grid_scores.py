"""What a grid over classes comes down to: how long each method holds, and which one is best at a rate."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np

from emclean.report.grid_data import CellRow, Point, points, standard_error

GOOD = 0.9
"""The accuracy up to which a method is said to hold."""


@dataclass(frozen=True)
class Curve:
    """One method under one noise, over all its rates.

    ``area`` is the area under accuracy against rate, divided by the range of rates: the mean accuracy if
    every rate of the range were as likely; with its standard error over seeds. ``holds`` is the largest rate
    whose mean accuracy is at least :data:`GOOD`.
    """

    method: str
    noise: str
    area: float | None
    area_error: float | None
    holds: float | None


def curves(cells: Sequence[CellRow]) -> list[Curve]:
    """The curve of every method and noise, in the order of the cells."""
    means = points(cells, "accuracy")
    keys = dict.fromkeys((cell.method, cell.noise) for cell in cells)
    return [_curve(*key, cells, means) for key in keys]


def _curve(method: str, noise: str, cells: Sequence[CellRow], means: Sequence[Point]) -> Curve:
    mine = [cell for cell in cells if (cell.method, cell.noise) == (method, noise)]
    areas = _areas(mine)
    good = [p.rate for p in means if (p.method, p.noise) == (method, noise) and p.mean >= GOOD]
    mean = float(np.mean(areas)) if areas else None
    return Curve(method, noise, mean, standard_error(areas), max(good, default=None))


def _areas(cells: Sequence[CellRow]) -> list[float]:
    """The area of every seed that has a figure at all rates, of which there are at least two."""
    rates = sorted({cell.rate for cell in cells})
    if len(rates) < 2:
        return []
    known = {(cell.seed, cell.rate): cell.accuracy for cell in cells if cell.accuracy is not None}
    seeds = dict.fromkeys(cell.seed for cell in cells)
    whole = [
        [known[seed, rate] for rate in rates] for seed in seeds if all((seed, r) in known for r in rates)
    ]
    return [float(np.trapezoid(values, rates)) / (rates[-1] - rates[0]) for values in whole]


@dataclass(frozen=True)
class Ranked:
    """A method at a rate; ``as_good``: the best is not better by more than their standard errors together."""

    method: str
    accuracy: float
    error: float | None
    as_good: bool


@dataclass(frozen=True)
class Advice:
    """The methods at one rate of a noise, the best first; empty where the rate lies outside those tried."""

    noise: str
    rate: float
    ranking: tuple[Ranked, ...]


def advice(cells: Sequence[CellRow], own_rate: float | None) -> list[Advice]:
    """For every noise, which method to use at ``own_rate``; where only one rate is known, at that."""
    found = []
    for noise in dict.fromkeys(cell.noise for cell in cells):
        mine = [point for point in points(cells, "accuracy") if point.noise == noise]
        rates = {point.rate for point in mine}
        rate = next(iter(rates)) if len(rates) == 1 else own_rate
        if rate is not None:
            found.append(Advice(noise, rate, _ranking(mine, rate)))
    return found


def _ranking(means: Sequence[Point], rate: float) -> tuple[Ranked, ...]:
    at = {method: _at([p for p in means if p.method == method], rate) for method in _methods(means)}
    known = sorted(((value, method) for method, value in at.items() if value), key=lambda pair: -pair[0][0])
    if not known:
        return ()
    best, doubt = known[0][0]
    return tuple(
        Ranked(method, mean, error, best - mean <= hypot(doubt or 0.0, error or 0.0))
        for (mean, error), method in known
    )


def _methods(means: Sequence[Point]) -> list[str]:
    return list(dict.fromkeys(point.method for point in means))


def _at(means: Sequence[Point], rate: float) -> tuple[float, float | None] | None:
    """Mean and standard error of one method at a rate, linearly between those tried; None outside them."""
    ordered = sorted(means, key=lambda point: point.rate)
    rates = [point.rate for point in ordered]
    if not rates or not rates[0] <= rate <= rates[-1]:
        return None
    mean = float(np.interp(rate, rates, [point.mean for point in ordered]))
    errors = [point.error for point in ordered]
    known = [error for error in errors if error is not None]
    error = float(np.interp(rate, rates, known)) if len(known) == len(errors) else None
    return mean, error
