"""The tables of a run's rounds and of a grid's cells for a terminal, and counts in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from emclean.report.data import Estimated, RoundRow
from emclean.report.grid_data import CellRow
from emclean.report.grid_page import VIEWS
from emclean.report.measures import MEASURES, Measures


def plural(count: int, noun: str) -> str:
    """``1 picture``, ``3 pictures``."""
    return f"{count} {noun}{'s' * (count != 1)}"


def rounds_table(summary: Mapping[str, Any]) -> str:
    """The rounds of a summary as aligned text, with floor, ceiling and what the served model reaches.

    Where nothing was there to measure on, a figure is the estimate, marked ``≈``.
    """
    named = MEASURES[summary.get("task", "boxes")]
    head = ["round", "images", *named.touched.values(), "minutes", "share"]
    blank = [""] * (len(head) - 1)
    head += [f"label {named.quality}", named.score, "model"]
    rows = [_cells(row, named) for row in summary["rounds"]]
    crowd = summary.get("crowd_labels") or {}
    floor, ceiling = (_reached(summary[name]) for name in ("floor", "ceiling"))
    before = crowd.get("accuracy", crowd.get("f1"))
    rows.insert(0, ["crowd", *blank, _number(before), _number(floor), ""])
    if ceiling is not None:
        rows.append(["ceiling", *blank, "", _number(ceiling), ""])
    lines = [_aligned([head, *rows])]
    lines += _remarks(summary["rounds"], named)
    percent = summary["final"]["percent_of_ceiling"]
    if percent is not None:
        lines.append(
            f"{percent:.1f} % of the ceiling for {_percent(summary['final']['cost_share'])} of its cost"
        )
    return "\n".join(lines)


def next_steps(summary: Mapping[str, Any], export: str) -> str:
    """Where the results are to be had: the served model's address, the command that writes the labels."""
    served = summary.get("served") or {}
    lines = (
        [f"served model: {served['url']} (version {served['model_version']})"] if served.get("url") else []
    )
    form = MEASURES[summary.get("task", "boxes")].exported
    return "\n".join([*lines, f"cleaned labels as {form}: {export}"])


def _remarks(rounds: Sequence[Mapping[str, Any]], named: Measures) -> list[str]:
    """What the figures do not say: the tasks that were skipped, and what an estimate rests on."""
    last = RoundRow.of(rounds[-1]) if rounds else RoundRow(0)
    said = (
        [f"{plural(last.skipped, 'task')} skipped: no answer, not among the images"] if last.skipped else []
    )
    labels = f"label {named.quality}"
    for name, measured, found in (
        (labels, last.f1, last.f1_estimate), (named.score, last.ap50, last.ap50_estimate),
    ):  # fmt: skip
        if measured is None and found and found.low is not None and found.high is not None:
            place = f"{found.low:.2f} to {found.high:.2f}, from {plural(found.images or 0, 'random picture')}"
            more = f" {named.estimated}" if name == labels else ""
            said.append(f"≈ {name}{more}: estimated, {place}; there is no truth to measure on")
    return said


def _score(measured: float | None, found: Estimated | None) -> str:
    return f"≈{found.value:.2f}" if measured is None and found is not None else _number(measured)


def _reached(figures: Mapping[str, float | None]) -> float | None:
    """The accuracy of a summary's floor or ceiling where classes are labelled, else its AP50."""
    return figures.get("accuracy", figures.get("ap50"))


def _cells(row: Mapping[str, Any], named: Measures) -> list[str]:
    cost, known = row["cost"], RoundRow.of(row)
    touched = [str(cost["boxes"][name]) for name in named.touched]
    spent = [str(cost["images"]), *touched, f"{cost['minutes']:.1f}", _percent(cost["share_of_full"])]
    version = row["model_version"] or ""
    mark = "" if row.get("promoted") or not version else " (not promoted)"
    scores = [_score(known.f1, known.f1_estimate), _score(known.ap50, known.ap50_estimate)]
    return [str(row["round"]), *spent, *scores, f"{version}{mark}"]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


def grid_table(summary: Mapping[str, Any]) -> str:
    """The means of a grid's cells over the seeds, with standard errors; failed cells follow, with reasons."""
    cells = [CellRow.of(cell) for cell in summary["cells"]]
    rows, remarks = VIEWS[summary["task"]].table(cells, summary.get("own_rate"))
    failed = [f"failed: {c.method} {c.noise} {c.rate:g} seed {c.seed}: {c.reason}" for c in cells if c.reason]
    return "\n".join([_aligned(rows), *remarks, *failed])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
