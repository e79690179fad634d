"""Plots of an analysis: left shares with their intervals, and sizes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emclean.report.analysis_data import Ratio
from emclean.report.theme import MARKERS, Theme, ThemeName, empty, figure, legend, png
from emclean.types import Floats

BINS = 30
"""About how many bars a histogram has."""


def shares(samples: Sequence[Ratio], images: Sequence[Ratio], theme: ThemeName = "light") -> bytes:
    """The left share of every sample: as counted, corrected with its interval, and of each picture."""
    drawing, axes, colours = figure(theme, height=1.6 + 0.55 * max(len(samples), 2))
    if not samples:
        empty(axes, colours)
        return png(drawing)
    for i, sample in enumerate(samples):
        own = [image for image in images if image.sample == sample.sample]
        _sample(axes, colours, i, sample, own)
    axes.set_yticks(range(len(samples)), [sample.sample for sample in samples])
    axes.set_ylim(len(samples) - 0.4, -0.6)
    axes.set_xlim(-1, 101)
    axes.set_xlabel("left-handed, % of the usable particles")
    legend(axes, colours, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return png(drawing)


def _sample(axes: Any, colours: Theme, i: int, sample: Ratio, images: Sequence[Ratio]) -> None:
    """One row: the pictures as pale dots, the count, the corrected share with its interval, the truth."""
    blue, orange, green = colours.series[0], colours.series[1], colours.series[2]
    names = ["each picture, corrected", "as counted", "corrected", "true (simulated)"]
    names = names if i == 0 else ["_"] * 4  # one legend for all rows
    dots = [100 * image.corrected for image in images if image.corrected is not None]
    axes.plot(dots, [i + 0.22] * len(dots), "o", color=colours.soft, markersize=3, alpha=0.6, label=names[0])
    if sample.naive is not None:
        axes.plot([100 * sample.naive], [i], MARKERS[1], color=orange, markersize=6, label=names[1])
    if sample.corrected is not None and sample.low is not None and sample.high is not None:
        reach = [[100 * (sample.corrected - sample.low)], [100 * (sample.high - sample.corrected)]]
        axes.errorbar(
            [100 * sample.corrected],
            [i - 0.2],
            xerr=np.maximum(reach, 0),
            fmt="o",
            color=blue,
            capsize=3,
            label=names[2],
        )
    if sample.true_left is not None:
        axes.plot([100 * sample.true_left], [i - 0.2], "|", color=green, markersize=18, label=names[3])


def sizes(counts: Mapping[str, Mapping[int, int]], unit: str, theme: ThemeName = "light") -> bytes:
    """How long the usable particles of every sample are: shares of the sample by length."""
    drawing, axes, colours = figure(theme)
    every = [length for own in counts.values() for length in own]
    if not every:
        empty(axes, colours, "no usable particle")
        return png(drawing)
    step = max(round((max(every) - min(every)) / BINS), 1)
    edges = np.arange(min(every) - step / 2, max(every) + 1.5 * step, step, dtype=np.float64)
    for i, (sample, own) in enumerate(counts.items()):
        heights = _heights(own, edges)
        axes.stairs(heights, edges, color=colours.series[i % len(colours.series)], linewidth=2, label=sample)
    axes.set_xlabel(f"length ({unit})")
    axes.set_ylabel("share of the sample")
    axes.set_ylim(0, None)
    legend(axes, colours, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    return png(drawing)


def _heights(counts: Mapping[int, int], edges: Floats) -> Floats:
    """The share of a sample in each bin."""
    lengths, weights = list(counts), list(counts.values())
    found, _ = np.histogram(lengths, edges, weights=weights)
    return np.asarray(found / max(sum(weights), 1), dtype=np.float64)
