"""How a grid over boxes is shown: AP50 and the F1 of the labels, by method, noise and rate."""

from collections.abc import Sequence
from functools import partial

from emclean.report import grid_plots, html
from emclean.report.grid_data import CellRow, GridData, Measure, points
from emclean.report.grid_view import Draw, View, number

MEASURES: tuple[Measure, ...] = ("ap50", "label_f1")
HEAD = ["method", "noise", "rate", "seeds", "AP50", "±", "label F1"]


def figures(data: GridData, noise: str) -> dict[str, Draw]:
    """Of each measure a heat map and curves."""
    drawn: dict[str, Draw] = {}
    for measure in MEASURES:
        every = points(data.cells, measure)
        mine = [point for point in every if point.noise == noise]
        span = grid_plots.span_of([point.mean for point in every])
        drawn[f"heat_{measure}"] = partial(grid_plots.heat_map, mine, data.methods, measure, span)
        drawn[f"curve_{measure}"] = partial(grid_plots.rate_curves, mine, data.methods, measure)
    return drawn


CAPTIONS = {
    "heat_ap50": ("AP50 by method and rate.", "The colours mean the same in every noise."),
    "curve_ap50": ("AP50 against the rate.", "Means over the seeds; band: standard error, if several."),
    "heat_label_f1": ("F1 of the labels trained on.", "Against the truth, at IoU 0.5."),
    "curve_label_f1": ("F1 of the labels against the rate.", "Means over the seeds, as above."),
}


def _means(cells: Sequence[CellRow]) -> list[list[str]]:
    """A row for every method, noise and rate that has a figure."""
    f1 = {(p.method, p.noise, p.rate): p.mean for p in points(cells, "label_f1")}
    return [
        [p.method, p.noise, f"{p.rate:g}", str(p.n), number(p.mean), number(p.error),
         number(f1.get((p.method, p.noise, p.rate)))]
        for p in points(cells, "ap50")
    ]  # fmt: skip


def sections(data: GridData) -> str:
    """The means over the seeds."""
    rows = [[html.text(cell) for cell in row] for row in _means(data.cells)]
    head = ("method", "noise", "rate", "seeds", "AP50", "standard error", "label F1")
    return html.section("Means over the seeds", html.table(head, rows, left=(0, 1)) if rows else "")


VIEW = View(
    measures=MEASURES,
    figures=figures,
    captions=CAPTIONS,
    sections=sections,
    columns={"AP50": lambda cell: number(cell.ap50), "label F1": lambda cell: number(cell.label_f1)},
    totals=lambda cells: {},
    table=lambda cells, own_rate: ([HEAD, *_means(cells)], []),
    extra=lambda cells, own_rate: {},
)
