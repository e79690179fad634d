"""What a run writes down: images, predictions, verdicts and corrections in tables; pictures of its rounds."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from emclean.loop.asking import load_plan, questions_until
from emclean.loop.cleaning import Judged, correct, crowd_labels, expert_labels, judge, standing_labels
from emclean.loop.ingest import Ingested
from emclean.loop.job import Job
from emclean.loop.states import RunState
from emclean.report import overlays
from emclean.science import correction
from emclean.science.correction import Corrected
from emclean.science.truth import right_fixes, true_grades
from emclean.stores import columns
from emclean.stores import labels as label_events
from emclean.types import GRADES, NOISE_KINDS, Labels, Predictions, SetAside, TaskSpec, Verdicts

T = TypeVar("T")

OVERLAYS = 3
"""Pictures of each sort (asked, corrected) that a round keeps."""

IMAGES_AT_ONCE = 4096
"""Images whose rows are built and written together; with ten boxes each, a few megabytes."""


def digests(job: Job) -> dict[str, str]:
    """What the run was made from: digests of the images and labels of each part, and of the settings."""
    found = {"settings": job.settings.digest(), "pool": part_digest(job.data.pool)}
    if job.data.test is not None:
        found["test"] = part_digest(job.data.test)
    if job.data.truth is not None:
        found["truth"] = labels_digest([], job.data.truth)
    return found | job.kind.digests()


def part_digest(part: Ingested) -> str:
    """16 hex digits that the same images in the same groups with the same labels always give.

    A label means its category's name: the same indices under other names are other labels.
    """
    names = [f"{record.image_id} {record.group}" for record in part.records]
    facts = [json.dumps(part.categories), labels_digest(names, part.labels)]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def labels_digest(names: Sequence[str], labels: Mapping[str, Labels]) -> str:
    """16 hex digits that the same images with the same labels always give."""
    sha = hashlib.sha256("\n".join(sorted(names)).encode())
    for name in sorted(labels):
        sha.update(name.encode())
        sha.update(labels[name].boxes.tobytes())
        sha.update(labels[name].categories.tobytes())
    return sha.hexdigest()[:16]


def record_inputs(job: Job, aside: Sequence[SetAside]) -> None:
    """Keep what the run is about, the images, the crowd's labels and what was set aside."""
    tables, at = job.parts.tables, job.parts.now()
    settings = json.dumps(job.settings.deciding(), sort_keys=True)
    about = {"run": job.run, "categories": list(job.data.categories), "settings": settings, "at": at}
    tables.append("runs", [about])
    for part, source in (("pool", job.data.pool), ("test", job.data.test)):
        for records in batches(source.records if source else ()):
            rows = [{**asdict(record), "run": job.run, "part": part, "at": at} for record in records]
            tables.append("images", rows)
    crowd = crowd_labels(job)
    for names in batches(sorted(crowd)):
        labels = {i: crowd[i] for i in names}
        tables.append("labels", label_events.crowd_events(labels, job.data.categories, run=job.run, at=at))
    for items in batches(aside):
        tables.append("set_aside", [{**asdict(item), "run": job.run, "at": at} for item in items])


def batches(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Bounded parts: what is built for a table does not grow with the pool."""
    return (items[start : start + IMAGES_AT_ONCE] for start in range(0, len(items), IMAGES_AT_ONCE))


def record_predictions(job: Job, round_: int, model: str, found: Mapping[str, Predictions]) -> None:
    """Keep a model's predictions for the pool."""
    same = {"run": job.run, "round": round_, "model": model}
    for names in batches(sorted(found)):
        batch = {i: found[i] for i in names}
        job.parts.tables.append("predictions", columns.predictions(batch, job.data.categories, same))


def record_verdicts(job: Job, round_: int, judged: Judged) -> None:
    """Keep the grade of every instance, with its probability, correction and reason."""
    same = {"run": job.run, "round": round_}
    for names in batches(sorted(judged.verdicts)):
        batch = {i: (judged.verdicts[i], judged.evidence[i].labels.ids) for i in names}
        job.parts.tables.append("verdicts", columns.verdicts(batch, job.data.categories, same))


def record_corrections(
    job: Job, round_: int, judged: Judged, fixed: Mapping[str, Corrected]
) -> dict[str, Any]:
    """Write the automatic corrections as label events; return the round's counts, limits and precisions.

    Each round judges the crowd's labels anew, so a correction that is no longer safe is taken back.
    """
    standing = standing_labels(job)
    same: dict[str, Any] = {"round_": round_, "run": job.run, "at": job.parts.now()}
    for names in batches(sorted(fixed)):
        events: list[dict[str, Any]] = []
        for i in names:
            why = {change.label_id: (change.reason, change.parent) for change in fixed[i].changes}
            wanted = fixed[i].labels
            events += label_events.auto_events(
                i, standing[i], wanted, why, categories=job.data.categories, **same
            )
        job.parts.tables.append("labels", events)
    questions = [q.task for q in questions_until(job, round_)]
    facts = grade_facts(judged, fixed, {task.image.image_id for task in questions if task.kind == "image"})
    asked_by = Counter(facts["asked_by"]) + _asked_in_reviews(questions)
    right = right_corrections(job, judged, fixed)
    return {**facts, "asked_by": dict(asked_by), "right_by": right}


def _asked_in_reviews(tasks: Sequence[TaskSpec]) -> Counter[str]:
    """How many instances of each grade reviews asked about; the parts of a merged one are one."""
    found: Counter[str] = Counter()
    for task in tasks:
        names = {s.suggestion_id for s in task.suggestions}
        whole = [s for s in task.suggestions if s.suggestion_id.rpartition(".")[0] not in names]
        found.update(s.grade for s in whole if task.kind == "review")
    return found


def right_corrections(job: Job, judged: Judged, fixed: Mapping[str, Corrected]) -> dict[str, int] | None:
    """How many of the automatic corrections of each kind are right by the truth file; None without one."""
    if job.data.truth is None:
        return None
    right = Counter[str]()
    for image_id in fixed:
        labels, verdicts = judged.evidence[image_id].labels, judged.verdicts[image_id]
        truth = job.data.truth.get(image_id, Labels.empty())
        good = right_fixes(labels, verdicts, truth, true_grades(labels, truth))
        made = correction.acted(labels, verdicts, judged.limits)
        right.update(GRADES[k] for k in verdicts.grade[good & made])
    return dict(right)


def grade_facts(judged: Judged, fixed: Mapping[str, Corrected], asked: Set[str]) -> dict[str, Any]:
    """What a round found, by grade: ``counts`` in the whole pool, of these ``corrected_by`` grade without
    asking and ``asked_by`` grade in the images that the expert was asked about so far; with the corrections'
    ``limits`` and the ``precision`` of what was ``checked``.
    """
    counts, given, changed = Counter[str](), Counter[str](), Counter[str]()
    for image_id, verdicts in judged.verdicts.items():
        likely = (verdicts.label >= 0) | (verdicts.probability >= 0.5)  # a candidate is no finding by itself
        names = [name for name, counted in zip(verdicts.names(), likely, strict=True) if counted]
        counts.update(names)
        given.update(names if image_id in asked else ())
        if image_id in fixed:
            changed.update(_kinds(verdicts, judged.evidence[image_id].labels.ids, fixed[image_id]))
    facts = {"counts": dict(counts), "corrected_by": dict(changed), "asked_by": dict(given)}
    total = sum(len(c.changes) for c in fixed.values())
    return {**facts, **_precision_facts(judged), "corrected": total}


def _kinds(verdicts: Verdicts, ids: Sequence[str], fixed: Corrected) -> list[str]:
    """The grade of each instance that was corrected, once for each; what has no label was missed."""
    kind = _kind_of(verdicts, ids)
    instances = {change.parent or change.label_id for change in fixed.changes}
    return [kind.get(i, "missed") for i in sorted(instances)]


def _kind_of(verdicts: Verdicts, ids: Sequence[str]) -> dict[str, str]:
    """The grade of each label, by its id: the first verdicts are on the labels, in their order."""
    return dict(zip(ids, verdicts.names(), strict=False))


def _precision_facts(judged: Judged) -> dict[str, Any]:
    facts: dict[str, Any] = {"limits": {}, "precision": {}, "checked": {}}
    for kind in NOISE_KINDS:
        limit = judged.limits.get(kind, np.inf)
        facts["limits"][kind] = float(limit) if np.isfinite(limit) else None
        if judged.calibrator is None or not np.isfinite(limit):
            continue
        seen = judged.calibrator.observations.of(kind)
        above = seen.probability >= limit
        facts["checked"][kind] = int(above.sum())
        facts["precision"][kind] = float(seen.right[above].mean()) if above.any() else None
    return facts


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
        kind = _kind_of(judged.verdicts[image_id], labels.ids)
        changes = [
            overlays.Change(
                place.get(c.label_id),
                None if c.event == "deleted" else np.array(c.box),
                kind.get(c.parent or c.label_id, "missed"),
            )
            for c in fixed[image_id].changes
        ]
        touched = {c.parent or c.label_id for c in fixed[image_id].changes}
        kept = [
            k for k, name in enumerate(labels.ids) if name not in touched
        ]  # the others are drawn as before
        layers = overlays.Layers(labels.take(kept), evidence.reference.above(0.3), changes=changes)
        files.append(_draw(job, state.round, "corrected", image_id, layers))
    return files


def _draw(job: Job, round_: int, sort: str, image_id: str, layers: overlays.Layers) -> Path:
    pixels = np.load(job.picture(image_id), mmap_mode="r")
    file = job.folder / "overlays" / f"round-{round_}-{sort}-{image_id}.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(overlays.overlay(np.asarray(pixels), layers))
    return file
