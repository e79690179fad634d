"""The table of rounds for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

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


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
