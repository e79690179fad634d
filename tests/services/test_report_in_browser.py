import pytest

from emclean.report.data import Figure, GradeRow, ReportData, RoundRow, StageTime
from emclean.report.page import render
from emclean.report.plots import grades_by_round
from emclean.types import LabelQuality, SetAside

pytestmark = pytest.mark.services

GRADES = {"clean": 40, "missed": 9, "spurious": 3}
DATA = ReportData(
    "a-run-with-a-rather-long-name-0123456789",
    "finished",
    rounds=[
        RoundRow(
            i, 1206, 4012, 310, 221, 919, 1208.0 + i, 0.1, 0.8, 0.7, 0.75, 0.6, 0.5, 0.7, "12", True, GRADES
        )
        for i in range(3)
    ],
    floor=0.4,
    ceiling=0.8,
    before=LabelQuality(0.6, 0.5, 0.55, 0.7),
    after=LabelQuality(0.9, 0.8, 0.85, 0.8),
    grades=[GradeRow("missed", 9, 0.9, 0.96, 20, 4, 5)],
    overlays=[Figure("Asked: a.png", grades_by_round([RoundRow(0, grades=GRADES)]))],
    stages=[StageTime("retrain", 80.0)],
    set_aside=[SetAside("image", "folder/" + "long" * 30 + ".png", "ends after 12 of 90 bytes")],
    services={"MLflow": "http://127.0.0.1:5000"},
    export="emclean export a-run-with-a-rather-long-name-0123456789 --out labels.json --workspace /"
    + "w" * 60,
)


@pytest.mark.parametrize("width", [390, 1235])
def test_the_report_fits_the_screen_and_shows_its_pictures(tmp_path, width):
    from chromium import Browser

    file = tmp_path / "report.html"
    file.write_text(render(DATA), encoding="utf-8")
    browser = Browser(tmp_path / "profile", width, 900)
    try:
        browser.open(file.as_uri())
        browser.wait("document.readyState === 'complete' && document.images.length")
        assert browser.run("document.documentElement.scrollWidth") <= width
        tables = (
            "[...document.querySelectorAll('.wide')].every(place => place.scrollWidth <= place.clientWidth)"
        )
        assert width < 1200 or browser.run(tables)
        assert browser.run("[...document.images].every(picture => picture.naturalWidth > 0)")
        assert browser.run("getComputedStyle(document.querySelector('section')).borderRadius") == "10px"
        assert browser.run("performance.getEntriesByType('resource').every(r => r.name.startsWith('data:'))")
    finally:
        browser.close()
