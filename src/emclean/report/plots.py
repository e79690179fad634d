"""Plots as PNG bytes, for the report and for MLflow; each takes plain values and a page theme."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

from emclean.report.data import KindRow, RoundRow, StageTime
from emclean.report.measures import MEASURES
from emclean.report.theme import GRADE_COLOURS, MARKERS, Theme, ThemeName, empty, figure, legend, png
from emclean.types import GRADES, LabelQuality

CostUnit = Literal["minutes", "share", "images", "answers"]

_COST_LABELS = {
    "minutes": "expert minutes",
    "share": "share of the minutes that labelling everything would cost",
    "images": "images answered by the expert",
    "answers": "answers of all experts",
}


@dataclass(frozen=True)
class Curve:
    """A score ``[N]`` against cost ``[N]``, with its interval ``low [N]``, ``high [N]`` where known.

    ``full`` is what labelling everything would cost, in the same unit; ``estimated`` scores come from the
    expert's random images, for want of held-out ones; ``of_labels`` are no model's.
    """

    name: str
    cost: Sequence[float]
    score: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    full: float | None = None
    estimated: bool = False
    of_labels: bool = False


def curve_of(rounds: Sequence[RoundRow], unit: CostUnit = "minutes", name: str = "this run") -> Curve:
    """The budget curve of a run, measured or else estimated; rounds without score or cost are left out."""
    field = "share_of_full" if unit == "share" else unit
    estimated = all(row.ap50 is None for row in rounds)
    if estimated:
        rounds = [_as_estimated(row) for row in rounds]
    rows = [row for row in rounds if row.ap50 is not None and getattr(row, field) is not None]
    banded = bool(rows) and all(row.ap50_low is not None and row.ap50_high is not None for row in rows)
    return Curve(
        name,
        [float(getattr(row, field)) for row in rows],
        [float(row.ap50 or 0.0) for row in rows],
        [float(row.ap50_low or 0.0) for row in rows] if banded else None,
        [float(row.ap50_high or 0.0) for row in rows] if banded else None,
        _full_cost(rows, field),
        estimated,
    )


def label_curve(rounds: Sequence[RoundRow], unit: CostUnit = "minutes", name: str = "labels") -> Curve:
    """The quality of a run's labels against cost; rounds where either is not known are left out."""
    field = "share_of_full" if unit == "share" else unit
    rows = [(getattr(row, field), row.f1) for row in rounds]
    known = [(float(cost), f1) for cost, f1 in rows if cost is not None and f1 is not None]
    return Curve(name, [cost for cost, _ in known], [f1 for _, f1 in known], of_labels=True)


def _as_estimated(row: RoundRow) -> RoundRow:
    found = row.ap50_estimate
    return replace(row, ap50=found.value, ap50_low=found.low, ap50_high=found.high) if found else row


def _full_cost(rows: Sequence[RoundRow], field: str) -> float | None:
    """What labelling everything would cost, from the last round that tells minutes and share."""
    if field != "minutes":
        return None
    known = [row.minutes / row.share_of_full for row in rows if row.minutes and row.share_of_full]
    return known[-1] if known else None


def budget_curve(
    curves: Sequence[Curve],
    floor: float | None = None,
    ceiling: float | None = None,
    unit: CostUnit = "minutes",
    theme: ThemeName = "light",
    task: str = "boxes",
) -> bytes:
    """The score against cost, between the floor (crowd labels alone) and the ceiling (all expert labels)."""
    drawing, axes, colours = figure(theme)
    drawn = [curve for curve in curves if len(curve.cost)]
    if not drawn:
        empty(axes, colours, "no round has been evaluated yet")
        return png(drawing)
    for i, curve in enumerate(drawn):
        colour = colours.series[i % len(colours.series)]
        _draw_curve(axes, curve, colour, MARKERS[i % len(MARKERS)])
        _name_last(axes, curve, colour)
    _reference(axes, ceiling, "ceiling: all expert labels", colours, above=True)
    _reference(axes, floor, "floor: crowd labels alone", colours, above=False)
    axes.set_xlabel(_COST_LABELS[unit])
    estimated = any(curve.estimated for curve in drawn)
    measured = "{}, estimated on expert's random images" if estimated else "{} on held-out images"
    score = MEASURES[task].score
    axes.set_ylabel(measured.format(score) if not any(c.of_labels for c in drawn) else score)
    axes.set_ylim(*_score_range(drawn, floor, ceiling))
    axes.set_xlim(0, 1.06 * max(max(curve.cost) for curve in drawn) or 1.0)
    if unit == "share":
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    if unit == "minutes" and drawn[0].full:
        _share_axis(axes, drawn[0].full, colours)
    if len(drawn) > 1:
        legend(axes, colours, loc="lower right")
    return png(drawing)


def _share_axis(axes: Any, full: float, colours: Theme) -> None:
    """The same cost once more along the top, as a share of the minutes for everything."""
    top = axes.secondary_xaxis("top", functions=(lambda m: m / full, lambda share: share * full))
    top.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    top.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    top.tick_params(colors=colours.soft, length=0, labelsize=9)
    top.spines["top"].set_visible(False)
    top.set_xlabel(_COST_LABELS["share"], color=colours.soft)


def labels_by_round(rounds: Sequence[RoundRow], theme: ThemeName = "light", task: str = "boxes") -> bytes:
    """The quality of the labels after each round."""
    drawing, axes, colours = figure(theme)
    names = MEASURES[task].labels
    for colour, marker, (field, name) in zip(colours.series, MARKERS, names.items(), strict=False):
        rows = [(row.round, getattr(row, field)) for row in rounds if getattr(row, field) is not None]
        if rows:
            _draw_curve(axes, Curve(name, [row[0] for row in rows], [row[1] for row in rows]), colour, marker)
    axes.set_xlabel("round")
    axes.set_ylabel(MEASURES[task].against)
    axes.set_ylim(0, 1.05)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(x=0.08)
    legend(axes, colours, loc="lower right", ncols=3)
    return png(drawing)


def _draw_curve(axes: Any, curve: Curve, colour: str, marker: str) -> None:
    if curve.low is not None and curve.high is not None:
        axes.fill_between(curve.cost, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
    axes.plot(
        curve.cost, curve.score, color=colour, marker=marker, linewidth=2, markersize=6, label=curve.name
    )


def _name_last(axes: Any, curve: Curve, colour: str) -> None:
    last = (curve.cost[-1], curve.score[-1])
    axes.annotate(
        f"{last[1]:.3f}", last, (0, 9), textcoords="offset points", ha="center", color=colour, weight="bold"
    )


def _reference(axes: Any, value: float | None, text: str, colours: Theme, above: bool) -> None:
    if value is None:
        return
    axes.axhline(value, color=colours.soft, linewidth=1.2, linestyle=(0, (5, 3)))
    offset, place = ((0, 4), "bottom") if above else ((0, -4), "top")
    axes.annotate(
        f"{text} {value:.3f}",
        (0.01, value),
        offset,
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        va=place,
        fontsize=9,
        color=colours.soft,
    )


def _score_range(curves: Sequence[Curve], floor: float | None, ceiling: float | None) -> tuple[float, float]:
    values = [value for value in (floor, ceiling) if value is not None]
    for curve in curves:
        values += [*curve.score, *(curve.low or ()), *(curve.high or ())]
    margin = max(0.12 * (max(values) - min(values)), 0.04)
    return max(0.0, min(values) - margin), min(1.02, max(values) + margin)


def label_quality(
    before: LabelQuality | None, after: LabelQuality | None, theme: ThemeName = "light"
) -> bytes:
    """Precision, recall, F1 and mean IoU of the labels against the truth, before and after cleaning."""
    drawing, axes, colours = figure(theme)
    sides = [("before", before, "#8c8c8c"), ("after", after, colours.series[0])]
    known = [(name, quality, colour) for name, quality, colour in sides if quality is not None]
    if not known:
        empty(axes, colours, "label quality is known only where there is a truth to compare with")
        return png(drawing)
    names = ("precision", "recall", "f1", "mean_iou")
    for i, (name, quality, colour) in enumerate(known):
        place = np.arange(4) + (i - (len(known) - 1) / 2) * 0.38
        values = [getattr(quality, field) for field in names]
        bars = axes.bar(place, values, 0.34, color=colour, label=name)
        axes.bar_label(bars, fmt="{:.2f}", padding=2, fontsize=9, color=colours.text)
    axes.set_xticks(range(4), ("precision", "recall", "F1", "mean IoU\nof matches"))
    axes.set_ylim(0, 1.12)
    axes.grid(visible=False, axis="x")
    legend(axes, colours, loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.13))
    return png(drawing)


def error_kinds(kinds: Sequence[KindRow], theme: ThemeName = "light") -> bytes:
    """Label errors of each kind, before and after cleaning."""
    rows = [row for row in kinds if row.before is not None or row.after is not None]
    drawing, axes, colours = figure(theme, height=0.45 * max(len(rows), 3) + 1.2)
    if not rows:
        empty(axes, colours, "errors by kind are known only where they were planted")
        return png(drawing)
    place = np.arange(len(rows))
    for shift, name, colour in ((-0.2, "before", "#8c8c8c"), (0.2, "after", colours.series[0])):
        values = [getattr(row, name) or 0 for row in rows]
        bars = axes.barh(place + shift, values, 0.36, color=colour, label=name)
        words = ["–" if getattr(row, name) is None else str(getattr(row, name)) for row in rows]
        axes.bar_label(bars, words, padding=3, fontsize=9, color=colours.text)
    axes.set_yticks(place, [row.kind for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("label errors")
    axes.margins(x=0.1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(visible=False, axis="y")
    legend(axes, colours, loc="lower right")
    return png(drawing)


def grades_by_round(rounds: Sequence[RoundRow], theme: ThemeName = "light") -> bytes:
    """How the labels were graded in each round, as stacked bars that share one scale."""
    rows = [row for row in rounds if sum(row.grades.values())]
    drawing, axes, colours = figure(theme, height=0.5 * max(len(rows), 3) + 1.4)
    if not rows:
        empty(axes, colours, "no label has been graded yet")
        return png(drawing)
    left = np.zeros(len(rows))
    for grade in (grade for grade in GRADES if any(row.grades.get(grade) for row in rows)):
        counts = np.array([row.grades.get(grade, 0) for row in rows], dtype=float)
        bars = axes.barh(
            range(len(rows)), counts, 0.62, left=left, color=GRADE_COLOURS[grade], label=grade,
            edgecolor=colours.ground,
        )  # fmt: skip
        wide = counts >= 0.05 * max(sum(row.grades.values()) for row in rows)
        words = [f"{count:.0f}" if show else "" for count, show in zip(counts, wide, strict=True)]
        axes.bar_label(bars, words, label_type="center", fontsize=9, color="#101418")
        left += counts
    axes.set_yticks(range(len(rows)), [f"round {row.round}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("judged instances")
    axes.grid(visible=False, axis="y")
    legend(axes, colours, loc="lower center", bbox_to_anchor=(0.45, 1.0), ncols=4)
    return png(drawing)


def stage_times(stages: Sequence[StageTime], theme: ThemeName = "light") -> bytes:
    """Where the time went: seconds by stage, summed over the rounds, in the order of the stages."""
    totals: dict[str, float] = {}
    for entry in stages:
        totals[entry.stage] = totals.get(entry.stage, 0.0) + entry.seconds
    drawing, axes, colours = figure(theme, height=0.34 * max(len(totals), 3) + 0.9)
    if not totals:
        empty(axes, colours, "no stage has ended yet")
        return png(drawing)
    bars = axes.barh(range(len(totals)), list(totals.values()), 0.62, color=colours.series[0])
    axes.bar_label(bars, [duration(s) for s in totals.values()], padding=4, fontsize=9, color=colours.text)
    axes.set_yticks(range(len(totals)), list(totals))
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.margins(x=0.14)
    axes.grid(visible=False, axis="y")
    return png(drawing)


def duration(seconds: float) -> str:
    """Seconds as people say them: ``8.5 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
