"""The audit's page: one HTML file that needs nothing else."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from emclean.audit.findings import Finding
from emclean.audit.summary import Summary
from emclean.audit.text import mark
from emclean.report import html
from emclean.report.data import Figure
from emclean.types import NOISE_KINDS

IMAGES = 50
"""So many images of the ranking are listed in the page."""

_COLOURS = (
    "crowd: the labels, thin orange. model: dashed blue. fix: what is proposed, thick green; the box "
    "before is dashed, a deleted one crossed. A label without a fix, to be checked, has its grade beside "
    "it. The number is the probability that something is wrong."
)
"""In the words of the pictures' legend."""


@dataclass(frozen=True)
class Drawn:
    """The pictures of the page; empty without a folder of images."""

    images: Sequence[Figure] = field(default_factory=tuple)
    instances: Sequence[Figure] = field(default_factory=tuple)


def render(summary: Summary, drawn: Drawn) -> str:
    """The page as HTML."""
    body = (
        _header(summary),
        _tiles(summary),
        html.section("Read this first", "".join(f"<p>{html.text(note)}</p>" for note in summary.notes)),
        html.section("Kinds of error", _kinds(summary), note=_kinds_note(summary)),
        html.section("Most suspicious images", _gallery(drawn.images), note=_COLOURS),
        html.section("Likely errors of each kind", _gallery(drawn.instances), note=_COLOURS),
        html.section(f"The first {len(summary.top)} of {summary.instances} instances", _instances(summary)),
        html.section("Images, most expected errors first", _images(summary)),
        _set_aside(summary),
    )
    return html.document("Label audit – emclean", "".join(body))


def _header(summary: Summary) -> str:
    kind = "good" if summary.calibrated else "warn"
    wrong = sum(summary.expected.values())
    words = (
        f"{html.whole(summary.labels)} labels of {html.whole(summary.images)} images were compared with "
        f"{html.whole(summary.predictions)} predictions: about {wrong:.0f} errors are expected."
    )
    pill = f'<span class="pill {kind}">{mark(summary)}</span>'
    return f'<header><h1>Label audit</h1>{pill}</header><p class="lead">{words}</p>'


def _tiles(summary: Summary) -> str:
    tiles = [
        (html.whole(summary.images), "images"),
        (html.whole(summary.labels), "labels"),
        (html.whole(sum(summary.likely.values())), "likely errors"),
        (html.number(sum(summary.expected.values()), 1), f"expected errors, {mark(summary)}"),
        (html.whole(summary.set_aside.total), "rows and images set aside"),
    ]
    check = summary.check
    if check is not None:
        chance = html.number(check.prevalence)
        tiles.append(
            (
                html.number(check.average_precision),
                f"average precision of error finding ({chance} by chance)",
            )
        )
        after = "" if check.f1_after is None else f", {check.f1_after:.3f} after automatic corrections"
        tiles.append((html.number(check.f1_before), f"F1 of the labels{after}"))
    if summary.corrections is not None and summary.truths < summary.images:
        tiles.append((html.whole(sum(summary.corrections.values())), "corrected automatically"))
    cells = "".join(
        f'<div class="tile"><b>{value}</b><span>{html.text(name)}</span></div>' for value, name in tiles
    )
    return f'<div class="tiles">{cells}</div>'


def _kinds(summary: Summary) -> str:
    head = ["kind", "likely", f"expected ({mark(summary)})"]
    rows = [[k, html.whole(summary.likely[k]), html.number(summary.expected[k], 1)] for k in NOISE_KINDS]
    if summary.check is not None:
        head += ["precision", "recall", "checked"]
        for row, kind in zip(rows, NOISE_KINDS, strict=True):
            seen = summary.check.kinds[kind]
            row += [html.number(seen.precision), html.number(seen.recall), html.whole(seen.said)]
    if summary.corrections is not None and summary.check is not None:
        head += ["corrected from", "of which right", "corrected"]
        for row, kind in zip(rows, NOISE_KINDS, strict=True):
            seen, limit = summary.check.kinds[kind], summary.limits.get(kind, float("inf"))
            shown = "never" if limit > 1 else html.number(limit, 2)
            row += [shown, f"{seen.safe_right} of {seen.safe}", html.whole(summary.corrections[kind])]
    return html.table(head, rows)


def _kinds_note(summary: Summary) -> str:
    if summary.check is None:
        return "Likely: probably wrong. Without a truth the expected numbers are those of rules."
    return (
        f"Precision and recall on {summary.check.images} images with truth, none judged with its own. "
        "Precision: the proposed fix mends the label."
    )


def _gallery(figures: Sequence[Figure]) -> str:
    if not figures:
        return ""
    return f'<div class="gallery">{"".join(html.image(figure) for figure in figures)}</div>'


def _instances(summary: Summary) -> str:
    if not summary.top:
        return ""
    head = ("rank", f"error ({mark(summary)})", "grade", "category", "fix", "label", "image", "box", "reason")
    rows = (_instance(rank, f, summary.categories) for rank, f in enumerate(summary.top, start=1))
    return html.table(head, rows, left=(2, 3, 4, 5, 6, 7, 8))


def _instance(rank: int, found: Finding, names: Sequence[str]) -> list[str]:
    box = ", ".join(f"{side:g}" for side in found.box)
    words = (found.grade, names[found.category], found.fix, found.label_id, found.image, box, found.reason)
    return [str(rank), html.number(found.error, 2), *(html.text(word) for word in words)]


def _images(summary: Summary) -> str:
    rows: Iterable[Sequence[str]] = (
        [
            str(rank),
            html.number(row.expected, 1),
            html.whole(row.likely),
            html.whole(row.labels),
            html.whole(row.predictions),
            html.text(row.kind),
            html.text(row.image),
        ]
        for rank, row in enumerate(summary.ranking[:IMAGES], start=1)
    )
    head = ("rank", "expected errors", "likely", "labels", "predictions", "mostly", "image")
    return html.table(head, rows, left=(5, 6))


def _set_aside(summary: Summary) -> str:
    aside = summary.set_aside
    if not aside.total:
        return html.section("Set aside", "<p>Nothing: every image and row could be used.</p>")
    rows = ([html.text(x.kind), html.text(x.item), html.text(x.reason)] for x in aside.first)
    more = aside.total - len(aside.first)
    note = f"The first {len(aside.first)}; the file set_aside.csv has all." if more else ""
    return html.section(
        f"Set aside ({aside.total})",
        html.table(("kind", "item", "reason"), rows, left=(0, 1, 2)),
        note=note,
    )
