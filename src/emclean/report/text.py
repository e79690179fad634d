"""The tables of a run's rounds and of a grid's cells for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from emclean.report.grid_data import CellRow, points

HEAD = (
    "round",
    "images",
    "added",
    "moved",
    "deleted",
    "verified",
    "minutes",
    "share",
    "label F1",
    "AP50",
    "model",
)


def rounds_table(summary: Mapping[str, Any]) -> str:
    """The rounds of a summary as aligned text, with floor, ceiling and what the served model reaches."""
    rows = [_cells(row) for row in summary["rounds"]]
    crowd = summary.get("crowd_labels") or {}
    blank = [""] * (len(HEAD) - 4)
    floor, ceiling = summary["floor"]["ap50"], summary["ceiling"]["ap50"]
    rows.insert(0, ["crowd", *blank, _number(crowd.get("f1")), _number(floor), ""])
    if ceiling is not None:
        rows.append(["ceiling", *blank, "", _number(ceiling), ""])
    lines = [_aligned([HEAD, *rows])]
    percent = summary["final"]["percent_of_ceiling"]
    if percent is not None:
        lines.append(
            f"{percent:.1f} % of the ceiling for {_percent(summary['final']['cost_share'])} of its cost"
        )
    return "\n".join(lines)


def _cells(row: Mapping[str, Any]) -> list[str]:
    cost = row["cost"]
    touched = [str(cost["boxes"][name]) for name in ("added", "moved", "deleted", "verified")]
    spent = [str(cost["images"]), *touched, f"{cost['minutes']:.1f}", _percent(cost["share_of_full"])]
    version = row["model_version"] or ""
    mark = "" if row.get("promoted") or not version else " (not promoted)"
    return [str(row["round"]), *spent, _number(row["labels"]["f1"]), _number(row["ap50"]), f"{version}{mark}"]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"


GRID_HEAD = ("method", "noise", "rate", "seeds", "AP50", "±", "label F1")


def grid_table(summary: Mapping[str, Any]) -> str:
    """The means of a grid's cells over the seeds, with standard errors; failed cells follow, with reasons."""
    cells = [CellRow.of(cell) for cell in summary["cells"]]
    f1 = {(p.method, p.noise, p.rate): p.mean for p in points(cells, "label_f1")}
    rows = [
        (p.method, p.noise, f"{p.rate:g}", str(p.n), _number(p.mean), _number(p.error),
         _number(f1.get((p.method, p.noise, p.rate))))
        for p in points(cells, "ap50")
    ]  # fmt: skip
    failed = [f"failed: {c.method} {c.noise} {c.rate:g} seed {c.seed}: {c.reason}" for c in cells if c.reason]
    return "\n".join([_aligned([GRID_HEAD, *rows]), *failed])


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
