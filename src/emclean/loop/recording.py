"""What a run writes down: predictions, verdicts and corrections in tables, rounds and pictures in MLflow."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emclean.loop.asking import load_plan
from emclean.loop.cleaning import Judged, correct, expert_labels, judge, standing_labels
from emclean.loop.job import Job
from emclean.loop.publishing import metrics_of
from emclean.loop.states import RunState
from emclean.report import overlays
from emclean.science.correction import Corrected
from emclean.types import GRADES, NOISE_KINDS, Labels, Predictions, Verdicts

OVERLAYS = 3
"""Pictures of each sort (asked, corrected) that a round keeps."""


def digests(job: Job) -> dict[str, str]:
    """What the run was made from: digests of the images and labels of each part, and of the settings."""
    found = {
        "settings": job.settings.digest(),
        "pool": _digest([r.image_id for r in job.data.pool.records], job.data.pool.labels),
    }
    if job.data.test is not None:
        found["test"] = _digest([r.image_id for r in job.data.test.records], job.data.test.labels)
    if job.data.truth is not None:
        found["truth"] = _digest([], job.data.truth)
    return found


def _digest(names: Sequence[str], labels: Mapping[str, Labels]) -> str:
    sha = hashlib.sha256("\n".join(sorted(names)).encode())
    for name in sorted(labels):
        sha.update(name.encode())
        sha.update(labels[name].boxes.tobytes())
        sha.update(labels[name].categories.tobytes())
    return sha.hexdigest()[:16]


def record_predictions(job: Job, round_: int, model: str, found: Mapping[str, Predictions]) -> None:
    """Keep a model's predictions for the pool."""
    rows = [
        {
            "run": job.run,
            "round": round_,
            "model": model,
            "image_id": image_id,
            **{name: p.boxes[:, side].tolist() for side, name in enumerate(("x1", "y1", "x2", "y2"))},
            "category": [job.data.categories[c] for c in p.categories],
            "score": p.scores.tolist(),
        }
        for image_id, p in found.items()
    ]
    job.parts.tables.append("predictions", rows)


def record_verdicts(job: Job, round_: int, judged: Judged) -> None:
    """Keep the grade of every instance, with its probability, correction and reason."""
    rows: list[dict[str, Any]] = []
    for image_id, verdicts in judged.verdicts.items():
        ids = judged.evidence[image_id].labels.ids
        rows += [_verdict_row(job, round_, image_id, verdicts, k, ids) for k in range(len(verdicts))]
    job.parts.tables.append("verdicts", rows)


def _verdict_row(
    job: Job, round_: int, image_id: str, verdicts: Verdicts, k: int, ids: Sequence[str]
) -> dict[str, Any]:
    label = int(verdicts.label[k])
    box = dict(zip(("x1", "y1", "x2", "y2"), verdicts.box[k].tolist(), strict=True))
    return {
        "run": job.run,
        "round": round_,
        "image_id": image_id,
        "item": k,
        "instance_id": ids[label] if label >= 0 else None,
        "grade": GRADES[verdicts.grade[k]],
        "probability": float(verdicts.probability[k]),
        "calibrated": verdicts.calibrated,
        **box,
        "category": job.data.categories[int(verdicts.category[k])],
        "parts": verdicts.parts[verdicts.part_of == k].reshape(-1).tolist(),
        "reason": verdicts.reason[k],
    }


def record_corrections(
    job: Job, round_: int, judged: Judged, fixed: Mapping[str, Corrected]
) -> dict[str, Any]:
    """Write the automatic corrections as label events; return the round's counts, limits and precisions.

    Each round judges the crowd's labels anew, so a correction that is no longer safe is taken back.
    """
    standing = standing_labels(job)
    events: list[dict[str, Any]] = []
    for image_id, corrected in fixed.items():
        events += _events(job, round_, image_id, standing[image_id], corrected)
    job.parts.tables.append("labels", events)
    return _grade_facts(judged, fixed)


def _events(job: Job, round_: int, image_id: str, now: Labels, fixed: Corrected) -> list[dict[str, Any]]:
    """What turns the labels that stand ``now`` into the corrected ones."""
    before = {name: (tuple(b), int(c)) for name, b, c in zip(now.ids, now.boxes, now.categories, strict=True)}
    wanted = fixed.labels
    after = {
        name: (tuple(b), int(c))
        for name, b, c in zip(wanted.ids, wanted.boxes, wanted.categories, strict=True)
    }
    why = {change.label_id: change for change in fixed.changes}
    events = []
    for name in sorted({*before, *after}):
        if before.get(name) == after.get(name):
            continue
        box, category = after.get(name) or before[name]
        change = why.get(name)
        events.append(
            {
                "event_id": f"auto/{round_}/{image_id}/{name}",
                "image_id": image_id,
                "instance_id": name,
                "event": _event(before.get(name), after.get(name)),
                "source": "auto",
                "annotator": "emclean",
                "at": job.parts.now(),
                "round": round_,
                "reason": change.reason if change else "an earlier correction is no longer safe",
                "parent_id": (change.parent or None) if change else None,
                "category": job.data.categories[category],
                **dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True)),
                "task_key": None,
                "annotation_id": None,
                "run": job.run,
            }
        )
    return events


def _event(before: tuple[Any, int] | None, after: tuple[Any, int] | None) -> str:
    if before is None:
        return "added"
    if after is None:
        return "deleted"
    return "moved" if before[0] != after[0] else "relabelled"


def _grade_facts(judged: Judged, fixed: Mapping[str, Corrected]) -> dict[str, Any]:
    counts: Counter[str] = Counter()
    for verdicts in judged.verdicts.values():
        likely = (verdicts.label >= 0) | (verdicts.probability >= 0.5)  # a candidate is no finding by itself
        counts.update(name for name, counted in zip(verdicts.names(), likely, strict=True) if counted)
    facts: dict[str, Any] = {"counts": dict(counts), "limits": {}, "precision": {}, "checked": {}}
    for kind in NOISE_KINDS:
        limit = judged.limits.get(kind, np.inf)
        facts["limits"][kind] = float(limit) if np.isfinite(limit) else None
        if judged.calibrator is None or not np.isfinite(limit):
            continue
        seen = judged.calibrator.observations.of(kind)
        above = seen.probability >= limit
        facts["checked"][kind] = int(above.sum())
        facts["precision"][kind] = float(seen.right[above].mean()) if above.any() else None
    facts["corrected"] = sum(len(c.changes) for c in fixed.values())
    return facts


def parent_run(job: Job, state: RunState) -> str:
    """The MLflow run of the whole job."""
    tags = {"emclean.run": job.run, **{f"digest.{k}": v for k, v in state.facts.get("digests", {}).items()}}
    return job.parts.tracker.run(job.run, job.run, tags=tags)


def log_round(job: Job, state: RunState, row: Mapping[str, Any]) -> str:
    """Log a round's figures to its own MLflow run, a child of the job's; return its id."""
    parent = parent_run(job, state)
    key, name = f"{job.run}/{state.round}", f"{job.run} round {state.round}"
    child = job.parts.tracker.run(key, name, parent=parent)
    params = {"round": str(state.round), "label_version": str(job.parts.tables.version("labels"))}
    job.parts.tracker.log(child, metrics=metrics_of(row), params=params, step=state.round)
    job.parts.tracker.log(parent, metrics=metrics_of(row), step=state.round)
    job.parts.tracker.finish(child, "FINISHED")
    return child


def round_overlays(job: Job, state: RunState, run_id: str) -> list[Path]:
    """Draw what was asked and what was corrected in this round; keep the pictures and log them."""
    judged = judge(job, state, state.round)
    files = [*_asked(job, state, judged), *_corrected(job, state, judged)]
    job.parts.tracker.log(run_id, artifacts=files, step=state.round)
    return files


def _asked(job: Job, state: RunState, judged: Judged) -> list[Path]:
    expert = expert_labels(job)
    asked = [q.task.image.image_id for q in load_plan(job, state.round)]
    files = []
    for image_id in [i for i in asked if i in expert][:OVERLAYS]:
        evidence = judged.evidence[image_id]
        layers = overlays.Layers(evidence.labels, evidence.reference.above(0.3), expert[image_id])
        files.append(_draw(job, state.round, "asked", image_id, layers))
    return files


def _corrected(job: Job, state: RunState, judged: Judged) -> list[Path]:
    fixed = correct(job, judged)
    most = sorted((i for i in fixed if fixed[i].changes), key=lambda i: (-len(fixed[i].changes), i))
    files = []
    for image_id in most[:OVERLAYS]:
        evidence = judged.evidence[image_id]
        labels = evidence.labels
        place = {name: labels.boxes[k] for k, name in enumerate(labels.ids)}
        changes = [
            overlays.Change(
                place.get(c.label_id),
                None if c.event == "deleted" else np.array(c.box),
                c.reason.split(" (")[0],
            )
            for c in fixed[image_id].changes
        ]
        layers = overlays.Layers(labels, evidence.reference.above(0.3), changes=changes)
        files.append(_draw(job, state.round, "corrected", image_id, layers))
    return files


def _draw(job: Job, round_: int, sort: str, image_id: str, layers: overlays.Layers) -> Path:
    pixels = np.load(job.picture(image_id), mmap_mode="r")
    file = job.folder / "overlays" / f"round-{round_}-{sort}-{image_id}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(overlays.overlay(np.asarray(pixels), layers))
    return file
