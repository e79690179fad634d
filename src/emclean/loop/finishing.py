"""The end of a run: the summary that programs read, the report that people read, the figures in MLflow."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from emclean.config import ActiveKeys
from emclean.loop.asking import look_once_more
from emclean.loop.job import Job
from emclean.loop.logbook import draw_curve, parent_run, settings_record
from emclean.loop.publishing import metrics_of
from emclean.loop.states import Phase, RunState, write_atomically
from emclean.report.data import Figure, GradeRow, ReportData, RoundRow, StageTime
from emclean.report.measures import MEASURES, Measures
from emclean.report.page import render
from emclean.report.text import plural
from emclean.types import GRADES, LabelQuality

EXPORTS = {"boxes": "labels.json", "classes": "labels.csv"}
"""The file that labels are exported to, by what is labelled."""


def summary(job: Job, state: RunState, status: str) -> dict[str, Any]:
    """The run's result in the form that programs rely on; what cannot be known is null, never absent."""
    baselines = state.facts.get("baselines", {})
    compared = state.facts.get("compared") or {}
    last, figure = state.rounds[-1] if state.rounds else None, job.kind.figure
    return {
        "run": job.run,
        "status": status,
        "task": job.settings.task,
        "strategy": job.settings.strategy,
        "correction": job.settings.correction,
        "seed": job.settings.seed,
        "floor": {"ap50": None, figure: baselines.get("floor")},
        "ceiling": {"ap50": None, figure: baselines.get("ceiling")},
        "crowd_labels": state.facts.get("crowd"),
        "rounds": list(state.rounds),
        "final": {
            "ap50": None,
            figure: last[figure] if last else None,
            "percent_of_ceiling": compared.get("percent"),
            "percent_of_ceiling_low": compared.get("low"),
            "percent_of_ceiling_high": compared.get("high"),
            "cost_share": last["cost"]["share_of_full"] if last else None,
        },
        "served": state.facts.get("served"),
        "set_aside": state.facts.get("set_aside"),
        "stop_reason": state.stop_reason or None,
        "seconds": dict(state.seconds),
        "started_at": state.started_at or None,
        "digests": dict(state.facts.get("digests", {})),
        "label_version": job.parts.tables.version("labels"),
        "code_version": state.facts.get("code_version"),
        "report": str(report_file(job)),
    }


def report_file(job: Job) -> Path:
    """Where the report is written."""
    return job.folder / "report.html"


def export_command(settings: ActiveKeys, run: str) -> str:
    """The command that writes the run's labels to a file, from any folder."""
    words = ["emclean", "export", run, "--out", EXPORTS[settings.task]]
    words += ["--workspace", str(Path(settings.workspace).absolute())]
    if settings.tables:
        place = settings.tables
        words += ["--tables", place if "://" in place else str(Path(place).absolute())]
    return shlex.join(words)


def write_summary(job: Job, state: RunState, status: str) -> Path:
    """Write ``summary.json`` and the report beside it; return the summary's path."""
    file = job.folder / "summary.json"
    content = summary(job, state, status)
    write_atomically(file, json.dumps(_plain(content), indent=1, allow_nan=False))
    _write_report(job, state, content)
    return file


def write_report(job: Job, state: RunState, status: str) -> None:
    """Write the report alone, while the job goes on."""
    _write_report(job, state, summary(job, state, status))


def _write_report(job: Job, state: RunState, content: Mapping[str, Any]) -> None:
    write_atomically(report_file(job), render(report_data(job, state, content)))


def _plain(value: Any) -> Any:
    """JSON's own types; a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def report_data(job: Job, state: RunState, content: Mapping[str, Any]) -> ReportData:
    """Everything that the report shows."""
    grades = state.facts.get("grades", {})
    crowd, labels = content["crowd_labels"], content["rounds"][-1]["labels"] if content["rounds"] else None
    return ReportData(
        name=job.run,
        status=content["status"],
        task=job.settings.task,
        started=state.started_at or None,
        finished=job.parts.now().isoformat(timespec="seconds"),
        rounds=[RoundRow.of(row, **_graded(grades.get(str(row["round"]), {}))) for row in content["rounds"]],
        floor=content["floor"][job.kind.figure],
        ceiling=content["ceiling"][job.kind.figure],
        percent_of_ceiling=content["final"]["percent_of_ceiling"],
        before=_quality(crowd),
        after=_quality(labels),
        grades=_grade_rows(grades[max(grades, key=int)]) if grades else (),
        overlays=_overlay_figures(job),
        stages=[StageTime(name, seconds) for name, seconds in state.seconds.items()],
        set_aside=[*job.data.pool.set_aside, *(job.data.test.set_aside if job.data.test else ())],
        services={**job.parts.addresses, "Served model": (content["served"] or {}).get("url")},
        config=settings_record(job),
        lineage={
            **content["digests"],
            "label table version": content["label_version"],
            "code version": content["code_version"],
            "seed": content["seed"],
        },
        notes=_notes(job, state, content),
        export=export_command(job.settings, job.run),
    )


def _quality(entry: Mapping[str, Any] | None) -> LabelQuality | None:
    quality = None if not entry else entry.get("accuracy", entry["f1"])
    if not entry or quality is None:
        return None
    if "accuracy" in entry:  # the one figure of class labels, and both of its parts
        return LabelQuality(quality, quality, quality, 1.0)
    return LabelQuality(entry["precision"], entry["recall"], quality, entry["mean_iou"])


def _grade_rows(facts: Mapping[str, Any]) -> list[GradeRow]:
    graded = _graded(facts)
    return [
        GradeRow(
            kind,
            facts["counts"].get(kind, 0),
            facts["limits"].get(kind),
            facts["precision"].get(kind),
            facts["checked"].get(kind),
            graded["corrected"].get(kind, 0),
            graded["asked"].get(kind, 0),
            None if facts.get("right_by") is None else facts["right_by"].get(kind, 0),
        )
        for kind in GRADES
        if kind in facts["counts"] or "missed" in facts["limits"]
    ]


def _graded(facts: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    """Per grade: how many were found, corrected without asking, and shown to the expert."""
    kept = {"grades": "counts", "corrected": "corrected_by", "asked": "asked_by"}
    return {name: facts.get(key, {}) for name, key in kept.items()}


def _overlay_figures(job: Job) -> list[Figure]:
    figures = []
    for file in sorted((job.folder / "overlays").glob("*.png")):
        _, number, sort, image_id = file.stem.split("-")
        name = job.data.record(image_id).name
        figures.append(Figure(f"Round {number}, {sort}: {name}", file.read_bytes()))
    return figures


def _notes(job: Job, state: RunState, content: Mapping[str, Any]) -> list[str]:
    notes = job.kind.notes(job, state)
    if job.settings.expert.kind == "simulated":
        notes.append(
            "The expert is simulated: it answers from a truth file, and its minutes come from the stated "
            "cost model, not from a clock."
        )
    if content["rounds"]:
        notes += _estimates(content["rounds"][-1]["estimate"], MEASURES[job.settings.task])
    low = content["final"]["percent_of_ceiling_low"]
    if low is not None:
        notes.append(f"The paired bootstrap puts the share of the ceiling at {low:.1f} % or more (95 %).")
    if content["status"] == "waiting":
        then = {
            "poll": "it goes on by itself when they have answered.",
            "exit": "submit it again when they have answered.",
        }
        project = state.facts.get("label_project", "Label Studio")
        notes.insert(0, f"The run waits for experts at {project}; {then[job.settings.wait]}")
    return notes


def _estimates(estimate: Mapping[str, Any], named: Measures) -> list[str]:
    """What the expert's random images alone say of labels and model."""
    words = {
        "labels": f"{named.quality} {named.estimated}",
        "accuracy": "accuracy of the model",
        "ap50": "AP50 of the model",
    }
    return [
        f"Estimated from {plural(found['images'], 'picture')} drawn at random, with no truth file looked at: "
        f"{what} {found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})."
        for name, what in words.items()
        if (found := estimate.get(name) or {}).get("value") is not None and found["low"] is not None
    ]


def finish(job: Job, state: RunState) -> RunState:
    """Log the whole run to MLflow with its curve, report and summary."""
    look_once_more(job, state)
    file = write_summary(job, state, "finished")
    run_id = parent_run(job, state)
    content = json.loads(file.read_text(encoding="utf-8"))
    figures = metrics_of({name: content[name] for name in ("floor", "ceiling", "final")})
    files = [file, report_file(job), draw_curve(job, state)]
    job.parts.tracker.log(run_id, metrics=figures, artifacts=files)
    job.parts.tracker.finish(run_id, "FINISHED")
    return state.at(Phase.DONE)
