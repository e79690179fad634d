"""Plots of a grid as PNG bytes: a heat map of method x rate, and curves of a measure against the rate."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from emclean.report.grid_data import NAMES, RATES, Measure, Point
from emclean.report.theme import MARKERS, Theme, ThemeName, empty, figure, legend, png

LEAST_SPAN = 0.1
"""What the colours and the axis of a plot span at least: differences that are noise must not look large."""

MANY = 8
"""From more lines or columns than this a plot makes them smaller."""

_COLOURS = "cividis"  # even for the colour-blind, and readable in grey
_DASHES = ("-", "--", ":")
_DARK, _PALE = "#101418", "#f5f7f9"


def heat_map(
    points: Sequence[Point],
    methods: Sequence[str],
    measure: Measure = "ap50",
    span: tuple[float, float] | None = None,
    theme: ThemeName = "light",
) -> bytes:
    """The means of one noise, a row for each of ``methods``, a column for each rate.

    ``span`` are the values at the ends of the colour scale (by default those of the points), so that the maps
    of several noises can be compared. What is not known stays blank, with a dash.
    """
    rates = sorted({point.rate for point in points})
    drawing, axes, colours = figure(theme, height=_height(len(methods)))
    if not points:
        empty(axes, colours, "no cell has finished yet")
        return png(drawing)
    table = np.full((len(methods), len(rates)), np.nan)
    for point in points:
        table[methods.index(point.method), rates.index(point.rate)] = point.mean
    low, high = span or span_of([point.mean for point in points])
    palette = matplotlib.colormaps[_COLOURS]
    image = axes.imshow(table, cmap=palette, vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(table):
        _write(axes, (column, row), value, palette, (low, high), colours, len(rates))
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_yticks(range(len(methods)), methods)
    axes.set_xlabel(RATES[measure])
    axes.grid(visible=False)
    bar = drawing.colorbar(image, ax=axes, pad=0.02)
    bar.set_label(NAMES[measure], color=colours.soft)
    bar.ax.tick_params(colors=colours.soft, length=0, labelsize=9)
    bar.outline.set_visible(False)
    return png(drawing)


def span_of(means: Sequence[float]) -> tuple[float, float]:
    """The least and the largest mean, or more: at least :data:`LEAST_SPAN` apart."""
    low, high = min(means, default=0.0), max(means, default=1.0)
    more = max(LEAST_SPAN - (high - low), 0.0) / 2
    return low - more, high + more


def _height(methods: int) -> float:
    """The height in inches of a figure with a line for each method: rows that are many are narrow."""
    return max(3.8, 1.2 + 0.5 * min(methods, MANY) + 0.3 * max(methods - MANY, 0))


def _write(
    axes: Any,
    at: tuple[int, int],
    value: float,
    palette: Any,
    span: tuple[float, float],
    colours: Theme,
    columns: int,
) -> None:
    """The figure in its field, in the ink that stands out from the field's colour."""
    if np.isnan(value):
        axes.text(*at, "–", ha="center", va="center", color=colours.soft)
        return
    low, high = span
    red, green, blue, _ = palette((value - low) / (high - low))
    bright = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5  # luma (ITU-R BT.601)
    text, size = (f"{value:.3f}", 10) if columns <= MANY else (f"{value:.2f}", 8)
    axes.text(*at, text, ha="center", va="center", color=_DARK if bright else _PALE, fontsize=size)


def _look(i: int, colours: Theme) -> dict[str, Any]:
    """Colour, marker and dashes of the i-th line; all of them differ."""
    n = len(colours.series)
    dashes = _DASHES[i // n % len(_DASHES)]
    return {"color": colours.series[i % n], "marker": MARKERS[i % len(MARKERS)], "linestyle": dashes}


def _ticks(rates: Sequence[float]) -> list[float]:
    """The rates that are far enough from the one before to be written side by side."""
    shown: list[float] = []
    for rate in rates:
        if not shown or rate - shown[-1] >= (rates[-1] - rates[0]) / 14:
            shown.append(rate)
    return shown


def rate_curves(
    points: Sequence[Point],
    methods: Sequence[str],
    measure: Measure = "ap50",
    theme: ThemeName = "light",
) -> bytes:
    """The means of one noise against the rate, a line for each of ``methods``, with standard errors."""
    drawing, axes, colours = figure(theme, height=max(3.8, _height(len(methods)) - 1.2))
    if not points:
        empty(axes, colours, "no cell has finished yet")
        return png(drawing)
    for i, method in enumerate(methods):
        mine = sorted((p for p in points if p.method == method), key=lambda point: point.rate)
        if mine:
            look = _look(i, colours)
            rates, means = [p.rate for p in mine], np.array([p.mean for p in mine])
            errors = np.array([p.error or 0.0 for p in mine])
            axes.fill_between(
                rates, means - errors, means + errors, color=look["color"], alpha=0.18, linewidth=0
            )
            axes.plot(rates, means, linewidth=2, markersize=6, label=method, **look)
    axes.set_xlabel(RATES[measure])
    axes.set_ylabel(NAMES[measure])
    axes.set_xticks(_ticks(sorted({p.rate for p in points})))
    axes.margins(x=0.05, y=0.12)
    axes.update_datalim([(points[0].rate, value) for value in span_of([p.mean for p in points])])
    axes.autoscale_view()
    legend(axes, colours, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return png(drawing)


def dots(
    points: Sequence[Point], methods: Sequence[str], measure: Measure, theme: ThemeName = "light"
) -> bytes:
    """The means of one noise at one rate, a dot for each of ``methods``, with standard errors."""
    drawing, axes, colours = figure(theme, height=_height(len(methods)))
    if not points:
        empty(axes, colours, "no cell has finished yet")
        return png(drawing)
    places = [methods.index(point.method) for point in points]
    means = np.array([point.mean for point in points])
    errors = np.array([point.error or 0.0 for point in points])
    axes.errorbar(means, places, xerr=errors, fmt="o", color=colours.series[0], markersize=7, capsize=3)
    axes.set_yticks(range(len(methods)), methods)
    axes.set_ylim(len(methods) - 0.5, -0.5)
    low, high = span_of([*(means - errors), *(means + errors)])
    axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    axes.set_xlabel(f"{NAMES[measure]}; {RATES[measure]}: {points[0].rate:g}")
    return png(drawing)
