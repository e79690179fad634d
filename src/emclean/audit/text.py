"""The audit's table for a terminal."""

from collections.abc import Sequence

from emclean.audit.summary import Summary
from emclean.types import NOISE_KINDS

SHOWN = 10
"""Images and instances that are printed; the files have all of them."""


def table(summary: Summary) -> str:
    """Notes, kinds of error, the worst images and instances, and where everything is."""
    parts = [*summary.notes, _counts(summary), kinds(summary)]
    parts += [part for part in (_check(summary), _images(summary), _instances(summary)) if part]
    parts.append("\n".join(str(summary.folder / name) for name in summary.files))
    return "\n\n".join(parts)


def mark(summary: Summary) -> str:
    """How probabilities are to be read, in a word."""
    return "calibrated" if summary.calibrated else "uncalibrated"


def _counts(summary: Summary) -> str:
    return (
        f"{summary.images} images, {summary.labels} labels, {summary.predictions} predictions; "
        f"{summary.set_aside.total} rows or images set aside"
    )


def kinds(summary: Summary) -> str:
    """One row per kind of error: how many are expected; with a truth, how right the audit is about them."""
    head = ["kind", "likely", f"expected ({mark(summary)})"]
    rows = [[k, str(summary.likely[k]), f"{summary.expected[k]:.1f}"] for k in NOISE_KINDS]
    if summary.check is not None:
        head += ["precision", "recall", "checked"]
        for row, kind in zip(rows, NOISE_KINDS, strict=True):
            seen = summary.check.kinds[kind]
            row += [_share(seen.precision), _share(seen.recall), str(seen.said)]
    if summary.corrections is not None and summary.check is not None:
        head += ["corrected from", "right", "corrected"]
        for row, kind in zip(rows, NOISE_KINDS, strict=True):
            seen, limit = summary.check.kinds[kind], summary.limits.get(kind, float("inf"))
            right = f"{seen.safe_right}/{seen.safe}"
            row += ["never" if limit > 1 else f"{limit:.2f}", right, str(summary.corrections[kind])]
    return aligned([head, *rows], left=(0,))


def _check(summary: Summary) -> str:
    check = summary.check
    if check is None:
        return ""
    ap, chance = _share(check.average_precision), _share(check.prevalence)
    words = f"checked on {check.images} images with truth, none judged with its own: "
    words += f"average precision of error finding {ap} (random order {chance})"
    if summary.calibrated:
        words += f", calibration error {_share(check.calibration_error)}"
    words += f"; labels' F1 {check.f1_before:.3f}"
    return words + ("" if check.f1_after is None else f", after automatic corrections {check.f1_after:.3f}")


def _images(summary: Summary) -> str:
    rows = [
        [str(rank), f"{row.expected:.1f}", str(row.likely), str(row.labels), row.kind, clean(row.image)]
        for rank, row in enumerate(summary.ranking[:SHOWN], start=1)
        if row.judged
    ]
    head = ["rank", "expected errors", "likely", "labels", "mostly", "image"]
    return aligned([head, *rows], left=(4, 5)) if rows else ""


def _instances(summary: Summary) -> str:
    head = ["rank", "error", "grade", "fix", "label", "image", f"reason (error is {mark(summary)})"]
    rows = [
        [str(rank), f"{f.error:.2f}", f.grade, f.fix, clean(f.label_id), clean(f.image), clean(f.reason)]
        for rank, f in enumerate(summary.top[:SHOWN], start=1)
    ]
    return aligned([head, *rows], left=(2, 3, 4, 5, 6)) if rows else ""


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def clean(text: str) -> str:
    """Text of a file without characters that steer a terminal, cut to a length that can be read."""
    shown = "".join(c if c.isprintable() else "?" for c in text)
    return shown if len(shown) <= 60 else "…" + shown[-59:]


def aligned(rows: Sequence[Sequence[str]], left: Sequence[int]) -> str:
    """Columns of equal width; those in ``left`` hold text, the others figures."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i in left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
