"""How far grades can be trusted: kinds told apart, calibration, automatic corrections, what they depend on.

    EMCLEAN_DATA=DIR python -m benchmarks.grades --cache workspace/error-finding

Sets, labels and predictions are those of ``benchmarks.error_finding``. The expert's answers for a few images
drawn at random teach the grader; every figure is measured on images that the expert never saw, the same ones
for all rows of a table. Each label has its most probable grade, and a candidate counts as ``missed`` from a
probability of 0.5 on. What is true of them says the ledger of what was planted, on ``bccd`` the
re-annotation.

Grades: precision / recall of each kind, and the expected calibration error of P(clean) of the labels and of
P(missed) of the candidates, over ten bins of equal count; ``--picture`` draws them. Automatic corrections:
how many were made with the limits for an asked precision, the share that was right by the rule of the main
job (``science.truth.right_fixes``), and the labels' F1. What the grades depend on, on ``emps``: the number of
images, the errors planted into them, the slips of the expert, and the quality of the labels.

Printed: mean over seeds (standard deviation). Everything computed is kept in ``--cache`` under a digest of
what it was computed from: a stopped run goes on.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.cases import (
    NOISE,
    Cache,
    arguments,
    bccd_cases,
    data_folder,
    emps_cases,
    emps_seen,
    spoilt,
    spoilt_by,
)
from benchmarks.judging import (
    ASKED,
    Corrections,
    Measured,
    Teaching,
    bins,
    by_chance,
    calibration_error,
    chances,
    measured,
)
from emclean.report.theme import MARKERS, THEMES, png
from emclean.science.expert import Slips
from emclean.science.noise import NoiseRates
from emclean.types import GRADES, NOISE_KINDS

RARE = 10
"""Kinds with fewer errors are left out of the tables."""
TAUGHT = (0, 5, 10, 20)
NAMES = {0: "rules"} | {n: f"{n} images" for n in TAUGHT[1:]}
Rows = Mapping[int, Sequence[Measured]]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean over seeds and standard deviation; seeds without a value are left out."""
    known = np.array([v for v in values if v == v])
    return f"{known.mean():.{digits}f} ({known.std():.{digits}f})" if len(known) else "-"


def ratio(part: Mapping[str, int], whole: Mapping[str, int], kind: str) -> float:
    """A share of one kind's count, NaN where there is none."""
    return part.get(kind, 0) / whole[kind] if whole.get(kind) else float("nan")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown."""
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for row in rows:
        print(f"| {' | '.join(row)} |", flush=True)


def show_grades(title: str, rows: Rows) -> None:
    """Precision / recall of each kind, and calibration errors."""
    first = rows[TAUGHT[0]]
    counts = {kind: np.mean([m.grades.true.get(kind, 0) for m in first]) for kind in GRADES}
    kinds = [kind for kind in GRADES if counts[kind] >= RARE]
    print(f"\n`{title}`: precision / recall; how many there are")
    lines = []
    for n, found in rows.items():
        grades = [m.grades for m in found]
        cells = [
            f"{spread([ratio(g.right, g.said, k) for g in grades])} / "
            f"{spread([ratio(g.right, g.true, k) for g in grades])}"
            for k in kinds
        ]
        lines.append([NAMES[n], *cells])
    table(["taught by", *(f"{kind} ({counts[kind]:.0f})" for kind in kinds)], lines)


def show_calibration(sets: Mapping[str, Rows]) -> None:
    """Calibration errors of both probabilities, a row for each set; the last column as a perfect grader."""
    for kind, of in (("clean", "labels"), ("missed", "candidates")):
        print(f"\nP({kind}) of {of}: expected calibration error")
        lines = []
        for title, rows in sets.items():
            cells = [spread([calibration_error(*chances(m, kind)) for m in rows[n]], 3) for n in rows]
            lines.append([f"`{title}`", *cells, spread([by_chance(m, kind) for m in rows[TAUGHT[-1]]], 3)])
        table(["set", *NAMES.values(), "exact"], lines)


def share_right(found: Sequence[Corrections], kind: str) -> str:
    """How many of a kind were made (mean over seeds), and the share of them that was right."""
    made = [c.made.get(kind, 0) for c in found]
    return (
        f"{np.mean(made):.0f}: {spread([ratio(c.right, c.made, kind) for c in found])}" if any(made) else "-"
    )


def show_corrections(asked: str, sets: Mapping[str, Rows]) -> None:
    """Made and right of each kind for an asked precision, and the F1 of the labels."""
    lines, kinds = [], [k for k in NOISE_KINDS if k != "mislabelled"]
    print(f"\nAsked precision {asked}: corrections of each kind: share right, and label F1")
    for title, rows in sets.items():
        for n in TAUGHT[1:]:
            found = [m.corrected[asked] for m in rows[n]]
            f1 = [[m.before for m in rows[n]], [c.f1 for c in found]]
            f1.append([m.corrected["likely"].f1 for m in rows[n]])
            cells = [share_right(found, kind) for kind in kinds]
            lines.append([f"`{title}`, {n} images", *cells, *(spread(values, 3) for values in f1)])
    table(["set", *kinds, "F1 as they came", "automatic", "likelier"], lines)


MOST = 50
USUAL = Teaching(10, outside=MOST)
WAYS: Mapping[str, Teaching] = {
    **{f"{n} images": replace(USUAL, images=n) for n in (5, 10, 20, MOST)},
    **{f"{n} images, nothing planted": replace(USUAL, images=n, planted=False) for n in (5, 10, 20)},
    **{f"overlooks {m:.0%}": replace(USUAL, slips=Slips(miss=m)) for m in (0.05, 0.1, 0.2)},
    **{f"draws {j:.0%} off": replace(USUAL, slips=Slips(jitter=j)) for j in (0.05, 0.1, 0.2)},
    **{
        f"confirms {r:.0%} of what is wrong": replace(USUAL, slips=Slips(rubber_stamp=r), shown=True)
        for r in (0.0, 0.25, 0.5)
    },
}
"""What is compared with the errors of ``crowd``; slips are those of ten images."""
QUALITY = (0.5, 1.5)
ANNOTATORS = (0.3, 1.0, 1.7)
"""How often each of three annotators errs, as a multiple of the errors of ``crowd``."""


def scaled(rates: NoiseRates, factor: float) -> NoiseRates:
    """Errors so many times as frequent; shifted boxes are as many, but so many times as far off."""
    return NoiseRates(
        missed=rates.missed * factor,
        shifted=rates.shifted,
        shift_sigma=rates.shift_sigma * factor,
        merged=rates.merged * factor,
        spurious=rates.spurious * factor,
        duplicate=rates.duplicate * factor,
    )


def depends(data: Path, cache: Cache, seeds: Sequence[int]) -> dict[str, list[Measured]]:
    """Every way of teaching, and every quality of the crowd's labels."""
    emps, found = emps_seen(data, cache)
    crowd = [spoilt(emps, found, NOISE["crowd"], seed) for seed in seeds]
    rows = {name: measured(crowd, way, cache) for name, way in WAYS.items()}
    for factor in QUALITY:
        rates = scaled(NOISE["crowd"], factor)
        worse = [spoilt(emps, found, rates, seed) for seed in seeds]
        rows[f"crowd's errors x {factor:g}"] = measured(worse, USUAL, cache)
    several = [scaled(NOISE["crowd"], factor) for factor in ANNOTATORS]
    for named, words in ((False, "names not known"), (True, "told apart")):
        cases = [spoilt_by(emps, found, several, seed, named) for seed in seeds]
        for n in (20, MOST):
            way = replace(USUAL, images=n)
            rows[f"three annotators, {words}, {n} images"] = measured(cases, way, cache)
    return rows


def show_depends(rows: Mapping[str, Sequence[Measured]]) -> None:
    """One row for each way: automatic corrections and label F1."""
    lines = []
    for name, found in rows.items():
        made = [m.corrected[ASKED[0]] for m in found]
        counts = f"{np.mean([sum(c.made.values()) for c in made]):.0f}"
        f1 = [[m.before for m in found], [c.f1 for c in made], [m.corrected["likely"].f1 for m in found]]
        errors = [spread([calibration_error(*chances(m, k)) for m in found], 3) for k in ("clean", "missed")]
        lines.append([name, counts, spread([c.share() for c in made]), *(spread(v, 3) for v in f1), *errors])
    heads = ["expert, crowd", "corrected", "right", "F1 as they came", "automatic", "likelier"]
    table([*heads, "P(clean) off", "P(missed) off"], lines)


def reliability(sets: Mapping[str, Rows]) -> bytes:
    """Observed share against stated probability as PNG: a column for each set, all seeds together."""
    colours, names = THEMES["light"], {"clean": "P(clean) of labels", "missed": "P(missed) of candidates"}
    drawing = Figure(figsize=(2.6 * len(sets), 5.4), facecolor=colours.ground, layout="constrained")
    FigureCanvasAgg(drawing)
    panels = drawing.subplots(2, len(sets), sharex=True, sharey=True, squeeze=False)
    for row, kind in zip(panels, names, strict=True):
        for axes, (title, rows) in zip(row, sets.items(), strict=True):
            _panel(axes, rows, kind)
            axes.set_title(title if kind == "clean" else "", fontsize=10, color=colours.text)
        row[0].set_ylabel(f"{names[kind]}: observed", color=colours.soft)
    drawing.supxlabel("stated probability", fontsize=10, color=colours.soft)
    panels[0][0].legend(frameon=False, fontsize=9, labelcolor=colours.text, loc="upper left")
    return png(drawing, dpi=100)


def _panel(axes: Any, rows: Rows, kind: str) -> None:
    """Rules and ten images in one panel, with the count of each point."""
    colours, count = THEMES["light"], 0
    axes.plot([0, 1], [0, 1], color=colours.soft, linewidth=1, linestyle=(0, (5, 3)))
    for n, colour, marker in zip((0, 10), (colours.series[6], colours.series[0]), MARKERS, strict=False):
        pairs = [chances(m, kind) for m in rows[n]]
        found = bins(np.concatenate([p[0] for p in pairs]), np.concatenate([p[1] for p in pairs]))
        axes.plot(*found[:, :2].T, color=colour, marker=marker, markersize=5, label=NAMES[n])
        count = int(found[0, 2])
    axes.text(0.97, 0.04, f"{count} a point", ha="right", fontsize=9, color=colours.soft)
    axes.tick_params(colors=colours.soft, length=0, labelsize=9)
    axes.grid(color=colours.grid, linewidth=0.8)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(colours.grid)


def sets_of(
    data: Path, cache: Cache, seeds: Sequence[int], noise: Sequence[str], steps: int
) -> dict[str, Rows]:
    """Every set judged by the rules and by what 5, 10 and 20 images teach."""
    sets = {f"emps, {name}": emps_cases(data, cache, name, seeds) for name in noise}
    if steps:
        sets["bccd"] = bccd_cases(data, cache, steps, seeds)
    return {title: {n: measured(cases, Teaching(n), cache) for n in TAUGHT} for title, cases in sets.items()}


def main() -> int:
    """Teach, judge, print, draw."""
    parser = arguments(__doc__, "crowd,expert_raters,mixed", "0,1,2,3,4")
    parser.add_argument("--picture", type=Path, help="write the reliability diagram to this PNG file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    data, cache, began = data_folder(), Cache(given.cache), time.process_time()
    seeds = [int(text) for text in given.seeds.split(",")]
    sets = sets_of(data, cache, seeds, given.noise.split(","), given.steps)
    if given.picture:
        given.picture.write_bytes(reliability(sets))
    print("### Grades")
    for title, rows in sets.items():
        show_grades(title, rows)
    show_calibration(sets)
    print("\n### Automatic corrections")
    for asked in ASKED:
        show_corrections(asked, sets)
    print("\n### What the grades depend on")
    show_depends(depends(data, cache, seeds))
    print(f"\nseeds {given.seeds}, {time.process_time() - began:.0f} s of one core")
    return 0


if __name__ == "__main__":
    sys.exit(main())
