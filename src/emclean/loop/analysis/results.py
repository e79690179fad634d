"""What an analysis leaves: tables, a summary for programs, a page for people, and the same in MLflow."""

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emclean.imaging import windows
from emclean.imaging.segmentation import stretched
from emclean.loop.analysis.gathering import REASONS, Gathered, Mark
from emclean.loop.analysis.judges import Judges
from emclean.loop.analysis.opening import Analysis, record, settings_of
from emclean.loop.analysis.shares import POPULATION, population
from emclean.loop.code import code_version
from emclean.loop.states import write_atomically
from emclean.report import analysis_page
from emclean.report.analysis_data import AnalysisData, Ratio
from emclean.report.micrographs import overlay, sheet, view
from emclean.types import SetAside

SIDE = 1100
"""Side in px of the part of a picture that an overlay shows."""


@dataclass(frozen=True)
class Spent:
    """The windows there are, those worked through now, their px, and the seconds that took."""

    windows: int
    done: int
    pixels: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Pixels a second; None where none was worked through."""
        return self.pixels / self.seconds if self.pixels and self.seconds else None


def judged_words(found: Judges) -> str:
    """What clean labels say of the classifiers, in a sentence."""
    right, kept = found.facts.get("hand right"), found.facts.get("usable kept")
    if right is None:
        return "handedness: no clean labels to test the classifier on"
    kept_words = "" if kept is None else f", {100 * kept:.0f} % of the usable are kept"
    return f"handedness: {100 * right:.1f} % right on {found.facts['tested on']} clean labels{kept_words}"


def write(
    analysis: Analysis,
    found: Gathered,
    used: Judges,
    aside: Sequence[SetAside],
    spent: Spent,
    more: Mapping[str, Any],
) -> Path:
    """Write the population tables, the report and the summary, with what there is ``more`` to say; return its
    path."""
    settings, folder = analysis.settings, analysis.folder
    rows = population(found.counts, used.confusion, settings.confidence, analysis.truth)
    _write_rows(folder, rows)
    content = {**summary(analysis, rows, used, aside, spent), **more}
    page = _page(analysis, found, rows, content, aside)
    for name, picture in (*page.overlays.items(), *page.gallery.items()):
        _write_picture(folder / "pictures" / f"{name.replace('/', '-').replace(' ', '-')}.png", picture)
    write_atomically(folder / "report.html", analysis_page.render(page))
    file = folder / "summary.json"
    write_atomically(file, json.dumps(content, indent=1, allow_nan=False))
    return file


def _write_rows(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    draft = folder / ".population"
    pq.write_table(pa.Table.from_pylist(list(rows), POPULATION), draft)
    draft.replace(folder / "population.parquet")
    with draft.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, POPULATION.names)
        out.writeheader()
        out.writerows(rows)
    draft.replace(folder / "population.csv")


def _write_picture(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)


def summary(
    analysis: Analysis,
    rows: Sequence[Mapping[str, Any]],
    used: Judges,
    aside: Sequence[SetAside],
    spent: Spent,
) -> dict[str, Any]:
    """The result in the form that programs rely on."""
    samples = [dict(row) for row in rows if row["level"] == "sample"]
    images = [dict(row) for row in rows if row["level"] == "image"]
    return {
        "run": analysis.run,
        "status": "finished",
        "task": analysis.settings.task,
        "samples": samples,
        "images": images,
        "counts": {
            "images": len(images),
            "particles": sum(row["particles"] for row in samples),
            "left": sum(row["left"] for row in samples),
            **{name: sum(row[name] for row in samples) for name in (*REASONS, "without_nm")},
        },
        "confidence": analysis.settings.confidence,
        "confusion": None if used.confusion is None else asdict(used.confusion),
        "classifier": {**used.facts, "digest": used.digest()},
        "windows": {"all": spent.windows, "done_now": spent.done},
        "pixels_per_second": spent.rate,
        "set_aside": [asdict(item) for item in aside],
        "digests": {"images": sorted(picture.image_id for picture in analysis.pictures)},
        "code_version": code_version(),
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "report": str(analysis.folder / "report.html"),
        "tables": {name: str(analysis.folder / f"{name}.parquet") for name in ("population", "particles")},
    }


def _page(
    analysis: Analysis,
    found: Gathered,
    rows: Sequence[Mapping[str, Any]],
    content: Mapping[str, Any],
    aside: Sequence[SetAside],
) -> AnalysisData:
    """Everything that the page shows."""
    rate = content["pixels_per_second"]
    return AnalysisData(
        name=analysis.run,
        finished=content["finished_at"],
        ratios=[Ratio.of(row) for row in rows],
        confidence=analysis.settings.confidence,
        sizes=found.sizes,
        overlays={mark.picture.name: _overlay(analysis, mark) for mark in found.marks},
        gallery={name: sheet(entries) for name, entries in found.gallery.items() if entries},
        classifier=content["classifier"],
        confusion=content["confusion"],
        facts={
            "windows": str(content["windows"]["all"]),
            "worked through now, the others were on file": str(content["windows"]["done_now"]),
            "million pixels a second": "–" if rate is None else f"{rate / 1e6:.1f}",
        },
        set_aside=aside,
        services={**analysis.addresses, "Served model": (content["served"] or {}).get("url")},
        config=record(analysis.settings),
        lineage={"code version": content["code_version"], "images": len(content["digests"]["images"])},
    )


def _overlay(analysis: Analysis, mark: Mark) -> bytes:
    """A part of a picture with what was found there."""
    settings = settings_of(analysis.settings)
    with windows.opened(mark.picture.uri, mark.picture.decoded_in(analysis.home)) as source:
        rows, cols = view(source.shape, mark.columns["y"], mark.columns["x"], SIDE)
        grey = stretched(source.read(rows, cols), mark.levels, settings.bright)
    return overlay(grey, (rows.start, cols.start), mark.columns)


@contextmanager
def followed(analysis: Analysis) -> Iterator[str]:
    """Open the run in MLflow before any work, and close it there when the job breaks off."""
    tracker = analysis.tracker
    run_id = tracker.run(f"analysis/{analysis.run}", analysis.run, tags={"emclean.run": analysis.run})
    tracker.resume(run_id)
    values = {name: str(value) for name, value in record(analysis.settings).items() if name != "services"}
    tracker.log(run_id, params=values)
    try:
        yield run_id
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        try:
            tracker.finish(run_id, "KILLED" if stopped else "FAILED")
        except Exception as second:  # must not hide why the run ended
            analysis.console.say(f"MLflow could not be told that the run has ended: {second}")
        raise


def tell(analysis: Analysis, run_id: str) -> None:
    """Log the shares of every sample and all files but the table of particles; close the run."""
    content = json.loads((analysis.folder / "summary.json").read_text(encoding="utf-8"))
    with analysis.console.stage("telling MLflow"):
        for row in content["samples"]:
            names = ("particles", "naive", "corrected", "low", "high")
            figures = {f"{name}.{row['sample']}": row[name] for name in names if row[name] is not None}
            analysis.tracker.log(run_id, metrics=figures)
        counts = {name: float(value) for name, value in content["counts"].items()}
        files = ("population.parquet", "population.csv", "summary.json", "report.html")
        analysis.tracker.log(run_id, metrics=counts, artifacts=[analysis.folder / name for name in files])
        analysis.tracker.finish(run_id, "FINISHED")
