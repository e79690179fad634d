"""The page of an analysis: what it says of sizes, of samples that are not corrected, of clean labels."""

from dataclasses import asdict, replace

import pytest

from emclean.report import analysis_page, analysis_plots
from emclean.report.analysis_data import AnalysisData, Ratio
from emclean.report.analysis_text import analysis_table
from emclean.science.population import Confusion

SAMPLE = Ratio("sample", "a", "", 2, 10, 4, 0.4, 0.2, 0.6, without_nm=3, note="Not like the <clean> labels.")


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch):
    """Plots take longer than all the rest."""
    monkeypatch.setattr(analysis_plots, "shares", lambda *_, **__: b"png")
    monkeypatch.setattr(analysis_plots, "sizes", lambda counts, unit, theme: f"{unit} {counts}".encode())


def page(**more):
    return analysis_page.render(AnalysisData("a", [SAMPLE], **more))


def test_lengths_in_nm_and_in_px_are_kept_apart():
    both = page(sizes={"nm": {"a": {80: 7}}, "px": {"a": {40: 3}}})
    assert both.index("Lengths in nm.") < both.index("Lengths in px.")
    assert "3 of 10 lie in pictures that do not tell the side of a pixel" in both
    alone = page(sizes={"nm": {"a": {80: 7}}, "px": {}})
    assert "Lengths in px." not in alone
    assert "do not tell" not in alone


def test_what_must_be_known_of_a_sample_is_said():
    assert "Not like the &lt;clean&gt; labels." in page()


def test_notes_stand_below_the_table_each_once():
    rows = [asdict(replace(SAMPLE, sample=name)) for name in "abc"]
    rows[2]["note"] = ""
    assert analysis_table({"samples": rows}).splitlines()[4:] == [f"a, b: {SAMPLE.note}"]


def test_what_became_of_clean_labels_is_a_table():
    shown = page(confusion=asdict(Confusion((41, 2, 3), (4, 45, 6), (7, 8, 59))))
    for count in ("41", "45", "59", "set aside"):
        assert f">{count}<" in shown
    assert ">unusable</td>" in shown
    assert ">unusable</td>" not in page(confusion=asdict(Confusion((1, 0, 0), (0, 1, 0))))
