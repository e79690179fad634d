"""The report of a grid: a single HTML file that needs nothing else, neither network nor script."""

from collections.abc import Mapping

from emclean.report import grid_boxes, grid_classes, html
from emclean.report.data import Figure
from emclean.report.grid_data import CellRow, GridData
from emclean.report.grid_view import View

VIEWS: Mapping[str, View] = {"boxes": grid_boxes.VIEW, "classes": grid_classes.VIEW}
"""How the cells of a grid are shown, by its task."""


def render(data: GridData) -> str:
    """The page of a grid as HTML, light or dark as the reader's device is set."""
    view = VIEWS[data.task]
    parts = (
        _header(data),
        _tiles(data),
        _failures(data),
        *(_noise(data, noise, view) for noise in data.noises),
        view.sections(data),
        _set_aside(data),
        html.section("What this grid was made from", html.pairs(data.lineage) if data.lineage else ""),
        html.folded("Every cell", _every(data, view)),
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


def _noise(data: GridData, noise: str, view: View) -> str:
    shown = "".join(
        html.image(
            Figure(view.captions[name][0], draw(theme="light"), view.captions[name][1], draw(theme="dark"))
        )
        for name, draw in view.figures(data, noise).items()
    )
    return html.section(f"Noise: {noise}", f'<div class="gallery">{shown}</div>')


def _every(data: GridData, view: View) -> str:
    rows = [
        [
            *_place(cell),
            *(html.text(shown(cell)) for shown in view.columns.values()),
            html.number(cell.seconds, 1),
            html.number(cell.train_seconds, 1),
            html.text(cell.status),
        ]
        for cell in data.cells
    ]
    head = ("method", "noise", "rate", "seed", *view.columns, "seconds", "seconds of training", "status")
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
