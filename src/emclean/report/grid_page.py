"""The report of a grid: a single HTML file that needs nothing else, neither network nor script."""

from functools import partial
from typing import Protocol

from emclean.report import grid_plots, html
from emclean.report.data import Figure
from emclean.report.grid_data import NAMES, CellRow, GridData, points
from emclean.report.theme import ThemeName


def render(data: GridData) -> str:
    """The page of a grid as HTML, light or dark as the reader's device is set."""
    parts = (
        _header(data),
        _tiles(data),
        _failures(data),
        *(_noise(data, noise) for noise in data.noises),
        _means(data),
        _set_aside(data),
        html.section("What this grid was made from", html.pairs(data.lineage) if data.lineage else ""),
        html.folded("Every cell", _every(data)),
        html.folded("Configuration", html.pairs(data.config)),
    )
    return html.document(f"{data.name} – emclean grid", "".join(parts))


def _header(data: GridData) -> str:
    kind = {"finished": "good", "failed": "bad"}.get(data.status, "")
    addresses = "".join(
        f"<dt>{html.text(name)}</dt><dd>{html.link(address)}</dd>" for name, address in data.services.items()
    )
    return (
        f'<header><h1>{html.text(data.name)}</h1><span class="pill {kind}">{html.text(data.status)}</span>'
        f'<span class="soft">{html.text(data.finished or "")}</span></header>'
        f'<p class="lead">{_headline(data)}</p><dl>{addresses}</dl>'
    )


def _headline(data: GridData) -> str:
    finished = sum(cell.status == "finished" for cell in data.cells)
    axes = {
        "method": len(data.methods),
        "noise": len(data.noises),
        "rate": len({cell.rate for cell in data.cells}),
        "seed": len({cell.seed for cell in data.cells}),
    }
    words = ", ".join(f"{count} {name}{'s' if count != 1 else ''}" for name, count in axes.items())
    return html.text(f"{finished} of {len(data.cells)} cells: {words}.")


def _tiles(data: GridData) -> str:
    cells = "".join(
        f'<div class="tile"><b>{html.text(value)}</b><span>{html.text(name)}</span></div>'
        for name, value in data.facts.items()
    )
    return f'<div class="tiles">{cells}</div>'


def _failures(data: GridData) -> str:
    rows = [[*_place(cell), html.text(cell.reason)] for cell in data.cells if cell.status != "finished"]
    if not rows:
        return ""
    note = "The other cells are not touched by it. Submit the grid again to try these once more."
    head = ("method", "noise", "rate", "seed", "reason")
    return html.section(f"Failed ({len(rows)})", html.table(head, rows, left=(0, 1, 4)), note=note)


def _place(cell: CellRow) -> list[str]:
    return [html.text(cell.method), html.text(cell.noise), f"{cell.rate:g}", str(cell.seed)]


class Draw(Protocol):
    """Draws one picture for a page theme."""

    def __call__(self, *, theme: ThemeName) -> bytes:
        """The picture as PNG."""


def figures(data: GridData, noise: str) -> dict[str, Draw]:
    """What is drawn of one noise, by name: of each measure a heat map and curves."""
    drawn: dict[str, Draw] = {}
    for measure in NAMES:
        every = points(data.cells, measure)
        mine = [point for point in every if point.noise == noise]
        span = grid_plots.span_of([point.mean for point in every])
        drawn[f"heat_{measure}"] = partial(grid_plots.heat_map, mine, data.methods, measure, span)
        drawn[f"curve_{measure}"] = partial(grid_plots.rate_curves, mine, data.methods, measure)
    return drawn


_CAPTIONS = {
    "heat_ap50": ("AP50 by method and rate.", "The colours mean the same in every noise."),
    "curve_ap50": ("AP50 against the rate.", "Means over the seeds; band: standard error, if several."),
    "heat_label_f1": ("F1 of the labels trained on.", "Against the truth, at IoU 0.5."),
    "curve_label_f1": ("F1 of the labels against the rate.", "Means over the seeds, as above."),
}


def _noise(data: GridData, noise: str) -> str:
    shown = "".join(
        html.image(Figure(_CAPTIONS[name][0], draw(theme="light"), _CAPTIONS[name][1], draw(theme="dark")))
        for name, draw in figures(data, noise).items()
    )
    return html.section(f"Noise: {noise}", f'<div class="gallery">{shown}</div>')


def _means(data: GridData) -> str:
    f1 = {(p.method, p.noise, p.rate): p for p in points(data.cells, "label_f1")}
    rows = [
        [
            html.text(p.method),
            html.text(p.noise),
            f"{p.rate:g}",
            str(p.n),
            html.number(p.mean),
            html.number(p.error),
            html.number(f1[p.method, p.noise, p.rate].mean),
        ]
        for p in points(data.cells, "ap50")
    ]
    head = ("method", "noise", "rate", "seeds", "AP50", "standard error", "label F1")
    return html.section("Means over the seeds", html.table(head, rows, left=(0, 1)) if rows else "")


def _every(data: GridData) -> str:
    rows = [
        [
            *_place(cell),
            html.number(cell.ap50),
            html.number(cell.label_f1),
            html.number(cell.seconds, 1),
            html.number(cell.train_seconds, 1),
            html.text(cell.status),
        ]
        for cell in data.cells
    ]
    head = ("method", "noise", "rate", "seed", "AP50", "label F1", "seconds", "seconds of training", "status")
    note = (
        "Seconds are those that the cell itself spent; those of training also count the models that it found "
        "trained by another cell."
    )
    return f'<p class="note">{html.text(note)}</p>{html.table(head, rows, left=(0, 1))}'


def _set_aside(data: GridData) -> str:
    rows = [[html.text(e.kind), html.text(e.item), html.text(e.reason)] for e in data.set_aside]
    if not rows:
        return ""
    listed = html.table(("kind", "item", "reason"), rows, left=(0, 1, 2))
    return html.section(f"Set aside ({len(rows)})", listed)
