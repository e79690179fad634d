"""The report of one run: a single HTML file that needs nothing else, neither network nor script."""

from collections.abc import Callable, Iterable, Sequence

from emclean.report import html, plots
from emclean.report.data import Estimated, Figure, ReportData, RoundRow
from emclean.report.measures import Measures
from emclean.report.text import plural
from emclean.report.theme import ThemeName

_PILLS = {"finished": "good", "waiting": "warn", "running": "warn", "failed": "bad"}


def render(data: ReportData) -> str:
    """The page of one run as HTML, readable on a phone, light or dark as the reader's device is set."""
    parts = (
        _header(data),
        _tiles(data),
        _notes(data),
        _export(data),
        _curves(data),
        _rounds(data),
        _quality(data),
        _grades(data),
        html.section("What was asked and corrected", _gallery(data.overlays), note=data.measures.pictures),
        html.section("More figures", _gallery(data.figures)),
        _times(data),
        _set_aside(data),
        _records(data),
    )
    return html.document(f"{data.name} – emclean report", "".join(parts))


def _header(data: ReportData) -> str:
    kind = _PILLS.get(data.status.lower(), "")
    when = " – ".join(html.text(html.moment(time)) for time in (data.started, data.finished) if time)
    addresses = "".join(
        f"<dt>{html.text(name)}</dt><dd>{html.link(address)}</dd>" for name, address in data.services.items()
    )
    return (
        f'<header><h1>{html.text(data.name)}</h1><span class="pill {kind}">{html.text(data.status)}</span>'
        f'<span class="soft">{when}</span></header><p class="lead">{headline(data)}</p><dl>{addresses}</dl>'
    )


def headline(data: ReportData) -> str:
    """The run in one sentence, of what is known and no more."""
    last = data.last
    if last is None:
        return "No round has been evaluated yet."
    words = f"Round {last.round} {_reached(last, data.measures.score)}"
    if data.percent_of_ceiling is not None:
        words += f", {data.percent_of_ceiling:.1f} % of what all expert labels give"
    if last.share_of_full is not None:
        words += (
            f", for {html.percent(last.share_of_full)} of the expert time that labelling everything costs"
        )
    if data.floor is not None:
        words += f"; crowd labels alone give {data.floor:.3f}"
    return html.text(words + ".")


def _reached(row: RoundRow, score: str) -> str:
    """What the model reaches: measured on held-out images, else estimated, else not known."""
    if row.ap50 is not None:
        return f"reaches {score} {row.ap50:.3f}"
    if row.ap50_estimate is None:
        return "is done; how good its model is cannot be told, because no picture was held back to measure it"
    found = row.ap50_estimate
    return f"reaches {score} {found.value:.2f} {_range(found)}, {_origin(found)}"


def _range(found: Estimated) -> str:
    if found.low is None or found.high is None:
        return ""
    return f"({found.low:.2f} to {found.high:.2f})"


def _origin(found: Estimated) -> str:
    return f"estimated from {plural(found.images or 0, 'picture')} that the expert answered"


def _tiles(data: ReportData) -> str:
    last = data.last or RoundRow(0)
    of_ceiling: tuple[tuple[str, str], ...] = ()
    if data.percent_of_ceiling is not None:
        of_ceiling = (
            (html.percent(data.percent_of_ceiling / 100), f"of the ceiling {html.number(data.ceiling)}"),
        )
    tiles = (
        (html.measured(last.ap50, last.ap50_estimate), f"{data.measures.score} {_interval(last)}"),
        *of_ceiling,
        (html.number(last.minutes, 1), "expert minutes"),
        (html.percent(last.share_of_full), "of the cost of labelling everything"),
        _label_tile(data, last),
        (html.whole(last.images), f"images answered by the expert{_skipped(last)}"),
        (html.whole(len(data.set_aside)), "images and labels set aside"),
    )
    cells = "".join(f'<div class="tile"><b>{value}</b><span>{name}</span></div>' for value, name in tiles)
    return f'<div class="tiles">{cells}</div>'


def _label_tile(data: ReportData, last: RoundRow) -> tuple[str, str]:
    before, after = (quality.f1 if quality else None for quality in (data.before, data.after))
    name = data.measures.quality
    if after is None and last.f1 is None and last.f1_estimate is not None:
        words = f"{name} {data.measures.estimated} {_range(last.f1_estimate)}"
        return html.measured(None, last.f1_estimate), f"{words}, {_origin(last.f1_estimate)}"
    return html.number(after), f"{name} of the labels, {html.number(before)} before"


def _skipped(row: RoundRow) -> str:
    return f", {row.skipped} skipped" if row.skipped else ""


def _interval(row: RoundRow) -> str:
    if row.ap50 is None and row.ap50_estimate is not None:
        return f"{_range(row.ap50_estimate)}, {_origin(row.ap50_estimate)}"
    if row.ap50_low is None or row.ap50_high is None:
        return ""
    return f"({row.ap50_low:.3f} to {row.ap50_high:.3f})"


def _notes(data: ReportData) -> str:
    return html.section("Read this first", "".join(f"<p>{html.text(note)}</p>" for note in data.notes))


def _export(data: ReportData) -> str:
    if not data.export:
        return ""
    return html.section(
        "The labels as they stand",
        f"<p>As {data.measures.exported}: <code>{html.text(data.export)}</code></p>",
    )


def _both(title: str, draw: Callable[[ThemeName], bytes], caption: str = "") -> str:
    return html.image(Figure(title, draw("light"), caption, draw("dark")))


def _curves(data: ReportData) -> str:
    curve = plots.curve_of(data.rounds)
    if not curve.cost:
        return ""
    if any(row.answers for row in data.rounds):
        both = _against(data, "minutes", "expert minutes") + _against(data, "answers", "answers")
        return html.section("What the expert's time bought", f'<div class="pair">{both}</div>')
    score = _both(
        f"{data.measures.score} against expert minutes",
        lambda theme: plots.budget_curve([curve], data.floor, data.ceiling, "minutes", theme, data.task),
        _band_words(curve),
    )
    labels = ""
    if any(row.f1 is not None for row in data.rounds):
        labels = _both(
            "Quality of the labels by round",
            lambda theme: plots.labels_by_round(data.rounds, theme, data.task),
        )
    return html.section("What the expert's time bought", f'<div class="pair">{score}{labels}</div>')


def _against(data: ReportData, unit: plots.CostUnit, words: str) -> str:
    """Model and labels, which are measured alike where answers are counted, against one kind of cost."""
    model = plots.curve_of(data.rounds, unit, "of the model")
    curves = [model, plots.label_curve(data.rounds, unit, "of the labels")]
    return _both(
        f"{data.measures.score} of model and labels against {words}",
        lambda theme: plots.budget_curve(curves, data.floor, data.ceiling, unit, theme, data.task),
        _band_words(model),
    )


def _band_words(curve: plots.Curve) -> str:
    if curve.low is None:
        return ""
    return f"Band: interval over the {'expert’s random' if curve.estimated else 'held-out'} images."


def _rounds(data: ReportData) -> str:
    named = data.measures
    quality = list(named.labels.values())
    head = ("round", "images", *named.touched.values(), "minutes", "share of full",
            *(f"label {name}" if name == named.score else name for name in quality), named.score, "model",
            "promoted")  # fmt: skip
    rows = [_round_cells(row, named) for row in data.rounds]
    blank = [html.DASH] * (len(head) - 4)
    known = [(n, v) for n, v in (("floor", data.floor), ("ceiling", data.ceiling)) if v is not None]
    rows += [[name, *blank, html.number(value), html.DASH, html.DASH] for name, value in known]
    note = (
        f"Costs count everything spent up to the end of the round; {_listed(quality)} "
        f"{'are those' if len(quality) > 1 else 'before the model’s is that'} of the labels."
    )
    if known:
        note += " Floor: trained on crowd labels alone. Ceiling: trained on all expert labels."
    return html.section("Rounds", html.table(head, rows), note=note + _round_remarks(data))


def _listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _round_remarks(data: ReportData) -> str:
    """What the table does not say by itself: skipped tasks, and which figures are estimates."""
    skipped = data.last.skipped if data.last else None
    said = f" Images: answered; {plural(skipped, 'task')} skipped, which is no answer." if skipped else ""
    if any(_estimated(row) for row in data.rounds):
        said += (
            f" {html.ABOUT}: no truth to measure on, so estimated from the expert's random pictures; the "
            f"{data.measures.quality} is that {data.measures.estimated}."
        )
    return said


def _estimated(row: RoundRow) -> bool:
    return bool((row.ap50 is None and row.ap50_estimate) or (row.f1 is None and row.f1_estimate))


def _round_cells(row: RoundRow, named: Measures) -> list[str]:
    promoted = html.DASH if row.promoted is None else ("yes" if row.promoted else "no")
    counts = (row.images, *(getattr(row, name) for name in named.touched))
    others = [name for name in named.labels if name != "f1"]
    return [
        str(row.round),
        *(html.whole(count) for count in counts),
        html.number(row.minutes, 1),
        html.percent(row.share_of_full),
        *(html.number(getattr(row, name)) for name in others),
        html.measured(row.f1, row.f1_estimate),
        html.measured(row.ap50, row.ap50_estimate),
        html.text(row.model_version),
        promoted,
    ]


def _quality(data: ReportData) -> str:
    if (data.before is None and data.after is None and not data.kinds) or len(data.measures.labels) == 1:
        return ""  # one figure stands at the top already
    quality = _both(
        "Label quality at IoU 0.5", lambda theme: plots.label_quality(data.before, data.after, theme)
    )
    if not data.kinds:
        return html.section("Labels before and after", f'<div class="pair">{quality}</div>')
    kinds = _both("Label errors by kind", lambda theme: plots.error_kinds(data.kinds, theme))
    head = ("kind", "before", "after", "precision of the grade", "recall of the grade")
    rows = (
        [html.text(k.kind), html.whole(k.before), html.whole(k.after), html.number(k.precision, 2),
         html.number(k.recall, 2)]
        for k in data.kinds
    )  # fmt: skip
    pictures = f'<div class="pair">{quality}{kinds}</div>'
    return html.section("Labels before and after", pictures, html.table(head, rows))


def _grades(data: ReportData) -> str:
    if not data.grades and not any(row.grades for row in data.rounds):
        return ""
    stacked = _both("Grades by round", lambda theme: plots.grades_by_round(data.rounds, theme))
    head = ("grade", "found", "corrected", "right", "asked", "threshold",
            "measured precision", "checked")  # fmt: skip
    rows = (
        [html.text(g.grade), html.whole(g.count), html.whole(g.corrected), html.whole(g.right),
         html.whole(g.asked), html.number(g.threshold, 2), html.number(g.precision, 2), html.whole(g.checked)]
        for g in data.grades
    )  # fmt: skip
    note = (
        "A grade is corrected without asking only above its threshold, chosen on the expert's images "
        "for the wanted precision. A dash: that precision cannot be reached, so nothing is corrected. "
        "Found: in the whole pool, which each round judges anew. Corrected: automatically; right: of these, "
        "by the truth file where there is one. Asked: in the images that the expert was asked about so far. "
        "Measured precision: on those that were checked in the expert's images. The wanted precision (0.95 "
        "unless the configuration says otherwise) is met by an estimate from these few images; what comes "
        "out, measured there or against a truth, may be less (docs/decisions/0003)."
    )
    listed = html.titled("In the newest round", html.table(head, rows)) if data.grades else ""
    stacked = f'<div class="pair">{stacked}</div>'
    return html.section(
        "Grades", stacked, listed, _grades_by_round(data.rounds, data.measures.grades), note=note
    )


def _grades_by_round(rounds: Sequence[RoundRow], grades: Sequence[str]) -> str:
    """Found, corrected and asked, by round and grade."""
    rows = [
        [f"round {row.round}", what, *(html.whole(counts.get(grade, 0)) for grade in grades)]
        for row in rounds
        if row.grades
        for what, counts in (("found", row.grades), ("corrected", row.corrected), ("asked", row.asked))
    ]
    if not rows:
        return ""
    return html.titled(
        "Found, corrected and asked in each round", html.table(("", "", *grades), rows, left=(0, 1))
    )


def _gallery(figures: Iterable[Figure]) -> str:
    shown = "".join(html.image(figure) for figure in figures)
    return f'<div class="gallery">{shown}</div>' if shown else ""


def _times(data: ReportData) -> str:
    if not data.stages:
        return ""
    total = plots.duration(sum(entry.seconds for entry in data.stages))
    drawn = _both(f"Time by stage, {total} in all", lambda theme: plots.stage_times(data.stages, theme))
    return html.section("Where the time went", f'<div class="pair">{drawn}</div>')


def _set_aside(data: ReportData) -> str:
    rows = (
        [html.text(entry.kind), html.text(entry.item), html.text(entry.reason)] for entry in data.set_aside
    )
    if not data.set_aside:
        return html.section("Set aside", "<p>Nothing: every image and label could be used.</p>")
    title = f"Set aside ({len(data.set_aside)})"
    return html.section(title, html.table(("kind", "item", "reason"), rows, left=(0, 1, 2), long=(1, 2)))


def _records(data: ReportData) -> str:
    made_from = html.section("What this run was made from", html.pairs(data.lineage) if data.lineage else "")
    config = html.folded("Configuration", html.pairs(data.config)) if data.config else ""
    return made_from + config
