"""How a grid over classes is shown: accuracy against the share of wrong labels, and what to use at one's own.

All figures are shares of test pictures with clean labels, in percent where people read them.
"""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from emclean.report import grid_plots, html
from emclean.report.grid_data import CellRow, GridData, Point, points
from emclean.report.grid_scores import GOOD, Advice, Curve, advice, curves
from emclean.report.grid_view import Draw, View, percent

CAPTIONS = {
    "curve_accuracy": (
        "Accuracy against the share of wrong labels.",
        "On clean test pictures; means over the seeds, band: standard error, if several.",
    ),
    "dots_accuracy": ("Accuracy of each method.", "Means over the seeds; bars: standard error, if several."),
    "heat_accuracy": ("Accuracy by method and rate.", "The colours mean the same in every noise."),
}

NOTE = (
    "Accuracy in percent on clean test pictures, mean ± standard error over the seeds. Trusted: particles "
    "whose true label the method was given, for which an expert has to be paid. Area: under accuracy against "
    f"rate, as a mean. Last: the largest rate with at least {100 * GOOD:g} %."
)
LIMIT = (
    "At 50 % wrong labels of two classes the labels say nothing of which class is which: no method can be "
    "better than chance there, except by labels that are trusted."
)


def figures(data: GridData, noise: str) -> dict[str, Draw]:
    """Curves of the accuracy and a heat map; of a single rate a dot for each method."""
    every = points(data.cells, "accuracy")
    mine = [point for point in every if point.noise == noise]
    if len({point.rate for point in mine}) == 1:
        return {"dots_accuracy": partial(grid_plots.dots, mine, data.methods, "accuracy")}
    span = grid_plots.span_of([point.mean for point in every])
    return {
        "curve_accuracy": partial(grid_plots.rate_curves, mine, data.methods, "accuracy"),
        "heat_accuracy": partial(grid_plots.heat_map, mine, data.methods, "accuracy", span),
    }


def table(cells: Sequence[CellRow], own_rate: float | None) -> tuple[list[list[str]], list[str]]:
    """The means of all noises in one table, and the advice in words."""
    rates = sorted({cell.rate for cell in cells})
    head = [
        "method",
        "noise",
        "trusted",
        *(f"{100 * rate:g} %" for rate in rates),
        "area",
        f">= {100 * GOOD:g} %",
    ]
    every, trusted = points(cells, "accuracy"), _trusted(cells)
    rows = [
        [curve.method, curve.noise, str(trusted.get(curve.method, 0)), *_along(every, curve, rates),
         *_ends(curve)]
        for curve in curves(cells)
    ]  # fmt: skip
    return [head, *rows], [*_advice_lines(cells, own_rate), *_limits(cells)]


def _along(every: Sequence[Point], curve: Curve, rates: Sequence[float]) -> list[str]:
    """Mean and standard error at every rate."""
    own = {p.rate: p for p in every if (p.method, p.noise) == (curve.method, curve.noise)}
    return [_mean(own[rate].mean, own[rate].error) if rate in own else "" for rate in rates]


def _mean(mean: float | None, error: float | None) -> str:
    return percent(mean) + ("" if error is None else f" ± {percent(error)}")


def _ends(curve: Curve) -> list[str]:
    holds = "–" if curve.holds is None else f"{100 * curve.holds:g} %"
    return [_mean(curve.area, curve.area_error), holds]


def _advice_lines(cells: Sequence[CellRow], own_rate: float | None) -> list[str]:
    return [_words(found, _trusted(cells)) for found in advice(cells, own_rate)]


def _trusted(cells: Sequence[CellRow]) -> dict[str, int]:
    """How many particles with trusted labels each method was given, where it was given any."""
    return {cell.method: cell.trusted for cell in cells if cell.trusted}


def _words(found: Advice, trusted: dict[str, int]) -> str:
    """Which method to use at a rate, in a sentence."""
    place = f"at {100 * found.rate:g} % wrong labels ({found.noise})"
    if not found.ranking:
        return f"{place}: nothing is known; the rate lies outside those tried"
    names = {r.method: f"{r.method}{_given(trusted.get(r.method))}" for r in found.ranking}
    best, *others = (r for r in found.ranking if r.as_good)
    also = f"; within the standard error: {', '.join(names[r.method] for r in others)}" if others else ""
    doubt = "" if best.error is not None else " (one seed: no standard error)"
    return f"{place}: {names[best.method]}, {_mean(best.accuracy, best.error)} %{doubt}{also}"


def _given(trusted: int | None) -> str:
    return f" (with {trusted} trusted particles)" if trusted else ""


def _limits(cells: Sequence[CellRow]) -> list[str]:
    planted = any(cell.rate >= 0.5 and cell.noise != "crowd" for cell in cells)
    return [LIMIT] if planted else []


def sections(data: GridData) -> str:
    """What to use, and the means of every noise."""
    return _recommended(data) + "".join(_noise_means(data, noise) for noise in data.noises)


def _recommended(data: GridData) -> str:
    lines = _advice_lines(data.cells, data.own_rate)
    if not lines:
        lines = [
            "Give own_rate, the share of wrong labels that you expect in your own, for a recommendation."
        ]
    listed = "".join(f"<p>{html.text(line[:1].upper() + line[1:])}.</p>" for line in lines)
    rows = [
        [html.text(found.noise), html.text(r.method), percent(r.accuracy), percent(r.error),
         "yes" if r.as_good else ""]
        for found in advice(data.cells, data.own_rate)
        for r in found.ranking
    ]  # fmt: skip
    head = ("noise", "method", "accuracy, %", "standard error", "as good as the best")
    return html.section(
        "Which method to use", listed + (html.table(head, rows, left=(0, 1, 4)) if rows else "")
    )


def _noise_means(data: GridData, noise: str) -> str:
    mine = [cell for cell in data.cells if cell.noise == noise]
    rows, _ = table(mine, None)
    head, *body = [[row[0], *row[2:]] for row in rows]
    cells = [[html.text(cell) for cell in row] for row in body]
    note = " ".join((NOTE, *_limits(mine)))
    return html.section(f"Means over the seeds: {noise}", html.table(head, cells, left=(0,)), note=note)


def totals(cells: Sequence[CellRow]) -> dict[str, float]:
    """Of every method and noise the area and the rate up to which it holds, where known."""
    named = [
        (f"{name}.{curve.method}.{curve.noise}", value)
        for curve in curves(cells)
        for name, value in (("area", curve.area), ("holds", curve.holds))
    ]
    return {name: value for name, value in named if value is not None}


def extra(cells: Sequence[CellRow], own_rate: float | None) -> dict[str, Any]:
    """The curves in figures, and the recommendation."""
    return {
        "own_rate": own_rate,
        "curves": [asdict(curve) for curve in curves(cells)],
        "recommendation": [asdict(found) for found in advice(cells, own_rate)],
    }


VIEW = View(
    measures=("accuracy",),
    figures=figures,
    captions=CAPTIONS,
    sections=sections,
    columns={
        "accuracy, %": lambda cell: percent(cell.accuracy),
        "wrong labels, %": lambda cell: percent(cell.true_rate),
        "estimated, %": lambda cell: percent(cell.estimated_rate),
        "trusted": lambda cell: "–" if cell.trusted is None else str(cell.trusted),
    },
    totals=totals,
    table=table,
    extra=extra,
)
