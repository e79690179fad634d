import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from emclean.report import html
from emclean.report.data import Figure, GradeRow, KindRow, ReportData, RoundRow, StageTime
from emclean.report.page import headline, render
from emclean.report.text import rounds_table
from emclean.types import LabelQuality, SetAside

PNG = b"\x89PNG picture"


def full(**fields):
    first = RoundRow(0, 6, 40, 0, 0, 0, 8.5, 0.07, 0.6, 0.5, 0.545, 0.61, 0.55, 0.66, "1", True)
    graded = {"clean": 30, "spurious": 17}
    rounds = [
        replace(first, grades=graded, corrected={"spurious": 11}, asked={"clean": 9, "spurious": 5}),
        RoundRow(
            1, 15, 90, 12, 9, 22, 19.7, 0.16, 0.7, 0.6, 0.646, 0.7, 0.65, 0.75, "2", False, {"clean": 3}
        ),
    ]
    values = {
        "name": "demo",
        "status": "finished",
        "rounds": rounds,
        "floor": 0.431,
        "ceiling": 0.792,
        "percent_of_ceiling": 88.4,
        "before": LabelQuality(0.68, 0.51, 0.583, 0.74),
        "after": LabelQuality(0.91, 0.84, 0.874, 0.86),
        "kinds": [KindRow("missed", 320, 102, 0.88, 0.74)],
        "grades": [GradeRow("spurious", 36, 0.88, 0.97, 31, 25, 6, 24)],
        "overlays": [Figure("Asked: a.png", PNG, "round 1")],
        "stages": [StageTime("ingest", 4.0), StageTime("retrain", 80.0, 1), StageTime("retrain", 70.0, 2)],
        "set_aside": [SetAside("image", "b.png", "ends early")],
        "services": {"MLflow": "http://127.0.0.1:5000", "Served model": None},
        "config": {"budget": {"rounds": 2}},
        "lineage": {"label table version": 17},
    }
    return ReportData(**{**values, **fields})


class Reader(HTMLParser):
    """Collects tags, addresses and text, and checks that tags close in their order."""

    void = frozenset({"meta", "img", "source", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.addresses, self.words = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [(tag, value) for name, value in attrs if name in ("src", "srcset", "href")]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page():
    return Reader(render(full()))


def test_the_page_needs_nothing_from_elsewhere(page):
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    for tag, address in page.addresses:
        assert address.startswith("http://127.0.0.1" if tag == "a" else "data:image/png;base64,")


@pytest.mark.parametrize(
    "words",
    [
        "0.700",
        "(0.650 to 0.750)",
        "88.4 %",
        "19.7",
        "16.0 %",
        "0.431",
        "0.792",
        "b.png",
        "ends early",
        "0.97",
        "320",
        "17",
    ],
)
def test_the_figures_are_on_the_page(page, words):
    assert words in page.text


def test_rounds_stand_in_a_table_with_floor_and_ceiling(page):
    assert "0 6 40 0 0 0 8.5 7.0 % 0.600 0.500 0.545 0.610 1 yes" in page.text
    assert "1 15 90 12 9 22 19.7 16.0 % 0.700 0.600 0.646 0.700 2 no" in page.text
    assert re.search(r"floor (– )+0\.431 – – ceiling (– )+0\.792", page.text)


def test_each_round_tells_what_was_found_corrected_and_asked_by_grade(page):
    assert "round 0 found 30 0 0 0 17 0 0 round 0 corrected 0 0 0 0 11 0 0" in page.text
    assert "round 0 asked 9 0 0 0 5 0 0" in page.text
    assert "spurious 36 25 24 6 0.88 0.97 31" in page.text


def test_plots_come_in_a_light_and_a_dark_variant(page):
    assert page.tags.count("source") == page.tags.count("img") - 1  # the overlay is the same on both


def test_a_run_that_knows_nothing_yet_still_has_a_page():
    text = Reader(render(ReportData("new", "waiting"))).text
    assert "No round has been evaluated yet." in text
    assert "None" not in text
    assert "nan" not in text.lower()


def test_unknown_figures_are_dashes_not_zeros():
    row = RoundRow.of({"round": 0, "cost": {"images": 3, "boxes": None}, "labels": None, "ap50": None})
    text = Reader(render(ReportData("new", "running", rounds=[row]))).text
    assert "0 3 – – – – – – – – – – – –" in text


def test_names_from_files_cannot_become_markup():
    evil = "<script>alert('x')</script>&\""
    page = render(
        ReportData(
            evil,
            evil,
            set_aside=[SetAside("label", evil, evil)],
            overlays=[Figure(evil, PNG, evil)],
            services={evil: evil},
            config={evil: evil},
            notes=[evil],
        )
    )
    assert "<script" not in page
    assert evil in Reader(page).text


@pytest.mark.parametrize("address", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd"])
def test_only_web_addresses_become_links(address):
    assert "<a" not in html.link(address)


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("services.api_key", "abc", "********"),
        ("services.token", "abc", "********"),
        ("services.label_studio_token_file", "secrets/token", "secrets/token"),
        ("services.mlflow", "http://user:abc@host:5000/x", "http://********@host:5000/x"),
        ("images", "https://store/a?X-Token=abc&part=1", "https://store/a?X-Token=********&part=1"),
        ("seed", 7, "7"),
        ("run", None, "–"),
    ],
)
def test_secrets_are_masked(key, value, shown):
    assert html.masked(key, value) == shown


def test_no_secret_reaches_the_page():
    services = {"MLflow": "http://u:hunter2@127.0.0.1"}
    page = render(ReportData("new", "running", config={"a": {"password": "hunter2"}}, services=services))
    assert "hunter2" not in page


def test_the_headline_says_only_what_is_known():
    assert headline(full(percent_of_ceiling=None, floor=None, rounds=[RoundRow(2, ap50=0.5)])) == (
        "Round 2 reaches AP50 0.500."
    )
    assert "88.4 % of what all expert labels give" in headline(full())


def test_a_round_is_read_from_the_summary():
    row = RoundRow.of(
        {
            "round": 1,
            "cost": {
                "images": 4,
                "boxes": {"added": 3, "moved": 2, "deleted": 1, "verified": 0},
                "minutes": 2.5,
                "share_of_full": 0.1,
            },
            "labels": {"precision": 0.9, "recall": 0.8, "f1": 0.85},
            "ap50": 0.6,
            "model_version": "3",
        },
        promoted=True,
    )
    assert row == RoundRow(1, 4, 3, 2, 1, 0, 2.5, 0.1, 0.9, 0.8, 0.85, 0.6, None, None, "3", True)


ESTIMATE = {
    "labels": {"value": 0.62, "low": 0.5, "high": 0.71, "images": 7},
    "ap50": {"value": 0.7, "low": 0.2, "high": 0.96, "images": 3},
}
PLAIN = {
    "round": 1,
    "cost": {"images": 12, "boxes": {}, "minutes": 3.0, "share_of_full": 0.2},
    "labels": {"precision": None, "recall": None, "f1": None},
    "skipped": 1,
    "ap50": None,
    "ap50_low": None,
    "ap50_high": None,
    "model_version": "2",
    "promoted": True,
    "estimate": ESTIMATE,
}


def test_without_a_truth_the_estimates_are_shown_and_marked_as_such():
    data = ReportData("people", "finished", rounds=[RoundRow.of(PLAIN)])
    text = Reader(render(data)).text
    assert headline(data).startswith(
        "Round 1 reaches AP50 0.70 (0.20 to 0.96), estimated from 3 pictures that the expert answered, for 2"
    )
    assert "≈\u202f0.70" in render(data)
    assert "≈ 0.70 AP50 (0.20 to 0.96), estimated from 3 pictures" in text
    assert "≈ 0.62 F1 of the labels that no expert has seen (0.50 to 0.71), estimated from 7 pictures" in text
    assert "3.0 20.0 % – – ≈ 0.62 ≈ 0.70 2 yes" in text
    assert "AP50 against expert minutes" in text
    assert "F1 of the labels, – before" not in text


def test_what_is_measured_is_never_replaced_by_an_estimate():
    row = RoundRow.of({**PLAIN, "ap50": 0.5, "labels": {"f1": 0.9}, "skipped": 0})
    text = Reader(render(ReportData("truth", "finished", rounds=[row]))).text
    assert "≈" not in text
    assert "skipped" not in text


def test_a_round_without_any_figure_says_why():
    row = RoundRow.of({**PLAIN, "estimate": {"ap50": {"value": None}}})
    assert "no picture was held back to measure it" in headline(ReportData("x", "finished", rounds=[row]))


def test_skipped_tasks_are_told_beside_the_answered_images():
    text = Reader(render(ReportData("people", "finished", rounds=[RoundRow.of(PLAIN)]))).text
    assert "12 images answered by the expert, 1 skipped" in text
    assert "1 task skipped, which is no answer" in text


def test_times_are_plain_and_every_table_of_grades_has_a_title():
    page = Reader(render(full(started="2026-11-23T06:55:23+00:00", finished="soon", stages=(), kinds=())))
    assert "2026-11-23 06:55 UTC – soon" in page.text
    assert page.tags.count("h3") == 2


def test_the_table_of_corrections_says_that_the_wanted_precision_is_an_estimate(page):
    assert "what comes out, measured there or against a truth, may be less" in page.text


def test_the_terminal_shows_the_same_estimates_and_skips():
    boxes = dict.fromkeys(("added", "moved", "deleted", "verified"), 0)
    summary = {
        "rounds": [PLAIN | {"cost": {**PLAIN["cost"], "boxes": boxes}}],
        "crowd_labels": None,
        "floor": {"ap50": None},
        "ceiling": {"ap50": None},
        "final": {"percent_of_ceiling": None},
    }  # fmt: skip
    lines = rounds_table(summary).splitlines()
    assert lines[2].split()[-3:] == ["≈0.62", "≈0.70", "2"]
    assert lines[3] == "1 task skipped: no answer, not among the images"
    assert lines[4].startswith(
        "≈ label F1 of the labels that no expert has seen: estimated, 0.50 to 0.71, from 7"
    )
    assert lines[5].startswith("≈ AP50: estimated, 0.20 to 0.96, from 3 random pictures")
