"""What finished runs of ``benchmarks.budget_curves`` say: tables, paired differences, pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from emclean.report.theme import MARKERS, THEMES, png
from emclean.science import evaluation
from emclean.types import Floats

REACHED = (90, 95, 98, 99)
"""Shares of the ceiling, in per cent, to which the time is told."""
COSTS = {"images": "images answered", "touched": "boxes touched", "minutes": "expert minutes"}
SCORES = {
    "ap50": "AP50 on held-out images",
    "f1": "F1 of the labels",
    "f1_likelier": "F1 of the likelier labels",
}
RESAMPLES = 1000

HEAD = (
    *("method", "seeds", "round", "cost", "images", "touched", "AP50"),
    *("% of ceiling", "label F1", "likelier F1"),
)
Row = Mapping[str, Any]
"""A finished run as ``benchmarks.curve_rows`` keeps it."""


def frame(runs: Sequence[Row]) -> pd.DataFrame:
    """One row for each run and round."""
    return pd.DataFrame([row for run in runs for row in _rounds(run)])


def _rounds(run: Row) -> Iterator[dict[str, Any]]:
    same = {name: run[name] for name in ("set", "seed", "method", "share", "floor", "ceiling", "crowd_f1")}
    for row in run["rounds"]:
        last = row is run["rounds"][-1]
        low = run["percent_low"] if last else None
        yield {**same, **row, "last": last, "percent": 100 * row["ap50"] / run["ceiling"], "percent_low": low}


def spread(values: pd.Series, digits: int = 3) -> str:
    """Mean, and standard deviation over several seeds."""
    deviation = f" ({values.std(ddof=1):.{digits}f})" if len(values) > 1 else ""
    return f"{values.mean():.{digits}f}{deviation}"


def table(found: pd.DataFrame) -> Iterator[str]:
    """Means and standard deviations over the seeds after each round, and how far the ceiling is reached."""
    for (name, share), part in found.groupby(["set", "share"], sort=False):
        once = part.drop_duplicates("seed")
        yield (
            f"\n`{name}`, budget {share:.0%}: floor {spread(once['floor'])}, "
            f"ceiling {spread(once['ceiling'])}, crowd labels F1 {once['crowd_f1'].mean():.3f}\n"
        )
        yield "| " + " | ".join(HEAD) + " |"
        yield "|---" * len(HEAD) + "|"
        for (method, number), rows in part.groupby(["method", "round"], sort=False):
            columns = [
                method,
                len(rows),
                number,
                f"{rows['cost_share'].mean():.1%}",
                f"{rows['images'].mean():.0f}",
                f"{rows['touched'].mean():.0f}",
                spread(rows["ap50"]),
                spread(rows["percent"], 1),
                spread(rows["f1"]),
                spread(rows["f1_likelier"]),
            ]
            yield "| " + " | ".join(map(str, columns)) + " |"


def reached(found: pd.DataFrame) -> Iterator[str]:
    """Expert minutes until a share of the ceiling is reached and kept, for each method; mean over the seeds.

    Between two rounds the curve is taken as straight; before the first one nothing is known.
    """
    for name, part in found.groupby("set", sort=False):
        yield f"\n`{name}`: minutes until so many per cent of the ceiling are reached and kept\n"
        yield "| method | " + " | ".join(f"{p} %" for p in REACHED) + " |"
        yield "|---" * (1 + len(REACHED)) + "|"
        for method, mine in part[part["share"] == part["share"].max()].groupby("method", sort=False):
            curves = [rows.sort_values("round") for _, rows in mine.groupby("seed")]
            cells = [_in_words([_minutes_to(curve, percent) for curve in curves]) for percent in REACHED]
            yield "| " + " | ".join([str(method), *cells]) + " |"


def _minutes_to(curve: pd.DataFrame, percent: float) -> tuple[float, bool]:
    """When a curve passes ``percent`` for good (NaN: not within the budget); whether it began above."""
    minutes, values = curve["minutes"].to_numpy(), curve["percent"].to_numpy()
    below = np.flatnonzero(values < percent)
    if not len(below):
        return float(minutes[0]), True
    k = int(below[-1])
    if k == len(values) - 1:
        return float("nan"), False
    part = (percent - values[k]) / (values[k + 1] - values[k])
    return float(minutes[k] + part * (minutes[k + 1] - minutes[k])), False


def _in_words(found: Sequence[tuple[float, bool]]) -> str:
    known = [minutes for minutes, _ in found if np.isfinite(minutes)]
    if not known:
        return "not reached"
    text = f"{'at most ' if any(first for _, first in found) else ''}{np.mean(known):.0f}"
    return text if len(known) == len(found) else f"{text} ({len(known)} of {len(found)} seeds)"


def differences(runs: Sequence[Row], base: str) -> Iterator[str]:
    """AP50 of ``base`` less that of every other method and the ceiling at the end of the same budget, paired.

    The interval is a bootstrap over test images and seeds: seeds are drawn with replacement, and the images
    of each draw are the same for both methods and for every seed.
    """
    yield "\n| set | budget | less | seeds | AP50 | 95 % |"
    yield "|---" * 6 + "|"
    for name, share in dict.fromkeys((run["set"], run["share"]) for run in runs):
        mine = {(r["method"], r["seed"]): r for r in runs if (r["set"], r["share"]) == (name, share)}
        methods = list(dict.fromkeys(method for method, _ in mine if method != base))
        for other in [*methods, "ceiling"]:
            rival = base if other == "ceiling" else other
            pairs = [(mine[base, s], mine[rival, s]) for m, s in mine if m == base and (rival, s) in mine]
            if pairs:
                role = "ceiling" if other == "ceiling" else "final"
                value, low, high = _difference(pairs, role)
                ends = f"{low:+.3f} to {high:+.3f}"
                yield f"| {name} | {share:.0%} | {other} | {len(pairs)} | {value:+.3f} | {ends} |"


def _difference(pairs: Sequence[tuple[Row, Row]], role: str) -> tuple[float, float, float]:
    """The mean difference and its 95 % interval; ``role`` is the rival's model."""
    both = [(unpacked(ours["found"]["final"]), unpacked(rival["found"][role])) for ours, rival in pairs]
    rng, n = np.random.default_rng(0), both[0][0].n_images
    weights = rng.multinomial(n, np.full(n, 1 / n), size=RESAMPLES).astype(np.float64)
    draws = np.stack(
        [evaluation.resampled_ap50(a, weights) - evaluation.resampled_ap50(b, weights) for a, b in both]
    )
    seeds = rng.integers(len(both), size=(len(both), RESAMPLES))
    mean: Floats = np.take_along_axis(draws, seeds, axis=0).mean(axis=0)
    low, high = np.quantile(mean, [0.025, 0.975])
    return float(np.mean([a.ap50 - b.ap50 for a, b in both])), float(low), float(high)


def packed(found: evaluation.Detection) -> dict[str, Any]:
    """What the bootstrap needs, small as text: of each category the images and hits, best score first."""
    categories = [
        {
            "images": m.image.tolist(),
            "hits": "".join("01"[int(hit)] for hit in m.hit),
            "objects": m.objects.tolist(),
        }
        for m in found.matches
    ]
    return {"ap50": found.ap50, "ap": found.ap, "n_images": found.n_images, "categories": categories}


def unpacked(row: Row) -> evaluation.Detection:
    """The same again, with ranks in place of scores."""
    matches = tuple(
        evaluation.Matches(
            -np.arange(len(c["hits"]), dtype=np.float64),
            np.array([hit == "1" for hit in c["hits"]], np.bool_),
            np.array(c["images"], np.int64),
            np.array(c["objects"], np.int64),
        )
        for c in row["categories"]
    )
    return evaluation.Detection(row["ap50"], row["ap"], (), matches, row["n_images"])


def picture(found: pd.DataFrame) -> bytes:
    """AP50 and F1 of the labels of one set against images, boxes and minutes: mean and range over seeds."""
    colours = THEMES["light"]
    drawing = Figure(figsize=(13, 10), facecolor=colours.ground, layout="constrained")
    FigureCanvasAgg(drawing)
    grid = drawing.subplots(len(SCORES), len(COSTS), sharey="row", sharex="col")
    found = found[found["share"] == found["share"].max()]
    for row, (score, title) in zip(grid, SCORES.items(), strict=True):
        for axes, (cost, unit) in zip(row, COSTS.items(), strict=True):
            for k, (method, mine) in enumerate(found.groupby("method", sort=False)):
                _draw(axes, mine, (cost, score), str(method), k)
            axes.grid(color=colours.grid)
            if score == list(SCORES)[-1]:
                axes.set_xlabel(unit)
        row[0].set_ylabel(title)
    for axes in grid[0]:
        axes.axhline(found["ceiling"].mean(), color=colours.soft, ls="--", lw=1, label="ceiling")
        axes.axhline(found["floor"].mean(), color=colours.soft, ls=":", lw=1, label="floor")
    grid[0][0].legend(frameon=False, fontsize=9)
    return png(drawing)


def _draw(axes: Any, mine: pd.DataFrame, columns: tuple[str, str], name: str, k: int) -> None:
    cost, score = columns
    each = mine.groupby("round")
    colour = THEMES["light"].series[k % len(THEMES["light"].series)]
    x = each[cost].mean()
    axes.fill_between(x, each[score].min(), each[score].max(), color=colour, alpha=0.15, lw=0)
    axes.plot(x, each[score].mean(), color=colour, marker=MARKERS[k % len(MARKERS)], label=name)
