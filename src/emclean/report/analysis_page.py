"""The report of an analysis: a single HTML file that needs nothing else, neither network nor script."""

from emclean.report import analysis_plots, html
from emclean.report.analysis_data import AnalysisData, Ratio
from emclean.report.data import Figure
from emclean.report.micrographs import WORDS

_GALLERY = {
    "surest left": "Below each: the probability that it is left-handed.",
    "surest right": "Below each: the probability that it is left-handed.",
    "least sure": "Below each: the probability that it is left-handed. Look here first.",
    "unusable": "Below each: the probability that its pose shows the hand.",
}


def render(data: AnalysisData) -> str:
    """The page of an analysis as HTML, light or dark as the reader's device is set."""
    parts = (
        _header(data),
        _tiles(data),
        _shares(data),
        html.section("Sizes", *(html.image(_sizes(data, unit)) for unit, own in data.sizes.items() if own)),
        _overlays(data),
        _gallery(data),
        _classifier(data),
        _set_aside(data),
        html.section("What this was made from", html.pairs(data.lineage)),
        html.folded("Every picture", _table(data.images, "image")),
        html.folded("Configuration", html.pairs(data.config)),
    )
    return html.document(f"{data.name} – emclean analysis", "".join(parts))


def _header(data: AnalysisData) -> str:
    particles = sum(ratio.particles for ratio in data.samples)
    words = f"{particles} usable particles in {len(data.images)} pictures of {len(data.samples)} sample(s)."
    addresses = "".join(
        f"<dt>{html.text(name)}</dt><dd>{html.link(address)}</dd>" for name, address in data.services.items()
    )
    return (
        f'<header><h1>{html.text(data.name)}</h1><span class="pill good">finished</span>'
        f'<span class="soft">{html.text(data.finished or "")}</span></header>'
        f'<p class="lead">{html.text(words)}</p><dl>{addresses}</dl>'
    )


def _tiles(data: AnalysisData) -> str:
    cells = "".join(
        f'<div class="tile"><b>{html.text(value)}</b><span>{html.text(name)}</span></div>'
        for name, value in data.facts.items()
    )
    return f'<div class="tiles">{cells}</div>'


def _shares(data: AnalysisData) -> str:
    """The left share of every sample, as a plot and a table."""
    light, dark = (analysis_plots.shares(data.samples, data.images, theme=t) for t in ("light", "dark"))
    plot = html.image(Figure("Left share of every sample.", light, f"{_level(data)} intervals.", dark))
    note = (
        "The count is pulled towards one half by the classifier's mistakes; the corrected share is not. Its "
        "interval takes in how few clean labels tell of the mistakes, and how much pictures differ."
    )
    if data.confusion is None:
        note = (
            "There are no clean labels of particles from such micrographs (data.particles, data.labels) that "
            "tell of the classifier's mistakes, so nothing is corrected."
        )
    return html.section(
        "Left to right", plot, _table(data.samples, "sample"), _notes(data.samples), note=note
    )


def _notes(samples: list[Ratio]) -> str:
    """What must be known of single samples."""
    rows = [[html.text(one.sample), html.text(one.note)] for one in samples if one.note]
    return html.table(("sample", "note"), rows, (0, 1)) if rows else ""


def _level(data: AnalysisData) -> str:
    return f"{100 * data.confidence:g} %"


def _table(ratios: list[Ratio], level: str) -> str:
    """One line for each sample or picture."""
    rows = [
        [
            html.text(ratio.image or ratio.sample),
            html.whole(ratio.particles),
            html.whole(ratio.left),
            html.percent(ratio.naive),
            html.percent(ratio.corrected),
            f"{html.percent(ratio.low)} to {html.percent(ratio.high)}",
            html.number(ratio.design_effect, 2),
            html.percent(ratio.true_left),
            *(html.whole(count) for count in (ratio.unusable, ratio.border, ratio.cluster, ratio.debris)),
        ]
        for ratio in ratios
    ]
    head = (
        level,
        "usable",
        "called left",
        "share as counted",
        "corrected",
        "interval",
        "design effect",
        "true (simulated)",
        "unusable",
        "border",
        "cluster",
        "debris",
    )
    return html.table(head, rows)


def _sizes(data: AnalysisData, unit: str) -> Figure:
    light, dark = (analysis_plots.sizes(data.sizes[unit], unit, theme=t) for t in ("light", "dark"))
    words = "The long axis of the ellipse with the same moments, of usable particles."
    if unit == "px":
        every, own = (sum(getattr(one, n) for one in data.samples) for n in ("particles", "without_nm"))
        words += f" {own} of {every} lie in pictures that do not tell the side of a pixel."
    return Figure(f"Lengths in {unit}.", light, words, dark)


def _overlays(data: AnalysisData) -> str:
    shown = "".join(html.image(Figure(name, png, "")) for name, png in data.overlays.items())
    return html.section("What was found", f'<div class="gallery">{shown}</div>' if shown else "", note=WORDS)


def _gallery(data: AnalysisData) -> str:
    shown = "".join(html.image(Figure(f"{name}.", png, _GALLERY[name])) for name, png in data.gallery.items())
    return html.section("Single particles", f'<div class="gallery">{shown}</div>' if shown else "")


def _classifier(data: AnalysisData) -> str:
    """What clean labels say of the classifiers."""
    if data.confusion is None:
        return html.section("Classifiers", html.pairs(data.classifier))
    c = data.confusion
    rows = [
        [html.text(name), *(html.number(count, 0) for count in c[name])]
        for name in ("left", "right", "unusable")
        if c[name] is not None
    ]
    note = "Clean labels that took no part in training, and what the classifiers made of them."
    table = html.table(("clean label", "called left", "called right", "set aside"), rows)
    return html.section("Classifiers", html.pairs(data.classifier), table, note=note)


def _set_aside(data: AnalysisData) -> str:
    rows = [[html.text(e.kind), html.text(e.item), html.text(e.reason)] for e in data.set_aside]
    if not rows:
        return ""
    return html.section(f"Set aside ({len(rows)})", html.table(("kind", "item", "reason"), rows, (0, 1, 2)))
