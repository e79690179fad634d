"""The left shares of an analysis as a table for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

HEAD = ("sample", "pictures", "usable", "counted", "corrected", "interval", "true")


def analysis_table(summary: Mapping[str, Any]) -> str:
    """One line for each sample, then what must be known of them; true shares are known of simulated ones."""
    true = any(row["true_left"] is not None for row in summary["samples"])
    rows = [_cells(row) for row in summary["samples"]]
    width = len(HEAD) if true else len(HEAD) - 1
    lines = [HEAD[:width], *(row[:width] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(width)]
    shown = [
        "  ".join([line[0].ljust(widths[0]), *(line[k].rjust(widths[k]) for k in range(1, width))])
        for line in lines
    ]
    return "\n".join([*shown, *_notes(summary["samples"])])


def _notes(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each note once, behind the samples that it is about."""
    found: dict[str, list[str]] = {}
    for row in samples:
        if row.get("note"):
            found.setdefault(row["note"], []).append(row["sample"])
    return [f"{', '.join(names)}: {note}" for note, names in found.items()]


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    interval = "–" if row["low"] is None else f"{_percent(row['low'])} to {_percent(row['high'])}"
    return (
        row["sample"],
        str(row["images"]),
        str(row["particles"]),
        _percent(row["naive"]),
        _percent(row["corrected"]),
        interval,
        _percent(row["true_left"]),
    )


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f} %"
