"""What a run over classes writes down: predictions, verdicts and corrections; pictures of its rounds."""

from collections import Counter
from typing import Any

import numpy as np

from emclean.loop.asking import load_plan, questions_until
from emclean.loop.classes.judging import CLEAN, WRONG, Judged
from emclean.loop.classes.labels import LABEL, answered, classes_of, label
from emclean.loop.cleaning import crowd_labels, standing_labels
from emclean.loop.job import Job
from emclean.loop.recording import OVERLAYS, batches, record_predictions
from emclean.loop.states import RunState
from emclean.report.captions import captioned
from emclean.stores import columns
from emclean.stores import labels as label_events
from emclean.types import GRADES, Predictions

CONSENSUS = "what labellers and model together say (CROWDLAB)"


def record_round(job: Job, round_: int, judged: Judged) -> dict[str, Any]:
    """Keep a round's predictions, verdicts and corrections; return its counts, limits and precisions."""
    names = job.data.categories
    record_predictions(job, round_, "judging", _predictions(job, judged))
    own = {i: label(job.data.record(i), int(judged.labels[k])) for k, i in enumerate(judged.ids)}
    for part in batches(judged.ids):
        batch = {i: (judged.verdicts(judged.place[i], own[i], names), own[i].ids) for i in part}
        job.parts.tables.append("verdicts", columns.verdicts(batch, names, {"run": job.run, "round": round_}))
    _record_corrections(job, round_, judged)
    return facts(job, round_, judged)


def _predictions(job: Job, judged: Judged) -> dict[str, Predictions]:
    """The likeliest class of every picture, as a box round the whole of it."""
    best = np.argmax(judged.probabilities, axis=1)
    return {
        i: Predictions(
            label(job.data.record(i), 0).boxes, best[k : k + 1], judged.probabilities[k, best[k : k + 1]]
        )
        for k, i in enumerate(judged.ids)
    }


def _record_corrections(job: Job, round_: int, judged: Judged) -> None:
    """Write the automatic corrections as label events; one that is no longer safe is taken back."""
    standing, wanted = standing_labels(job), judged.corrected()
    same: dict[str, Any] = {"round_": round_, "run": job.run, "at": job.parts.now()}
    for part in batches(sorted(wanted)):
        events: list[dict[str, Any]] = []
        for i in part:
            why = _why(job, judged, judged.place[i])
            after = label(job.data.record(i), wanted[i])
            events += label_events.auto_events(
                i, standing[i], after, why, categories=job.data.categories, **same
            )
        job.parts.tables.append("labels", events)


def _why(job: Job, judged: Judged, k: int) -> dict[str, tuple[str, str]]:
    """Why a label is not what most labellers say; nothing where it is."""
    if judged.flips[k]:
        return {LABEL: (judged.reason(k, job.data.categories), "")}
    return {LABEL: (CONSENSUS, "")} if judged.consensus[k] else {}


def facts(job: Job, round_: int, judged: Judged) -> dict[str, Any]:
    """What a round found, as for boxes: ``counts`` by grade, what was corrected, asked, and how right."""
    grade = np.where(judged.chance >= 0.5, WRONG, CLEAN)
    asked = {q.task.image.image_id for q in questions_until(job, round_)}
    given = Counter(GRADES[grade[judged.place[i]]] for i in asked)
    flips = int(judged.flips.sum())
    return {
        "counts": {GRADES[g]: int((grade == g).sum()) for g in (CLEAN, WRONG)},
        "corrected_by": {"mislabelled": flips} if flips else {},
        "asked_by": dict(given),
        **_precision_facts(judged),
        "corrected": flips,
        "right_by": _right(job, judged),
    }


def _precision_facts(judged: Judged) -> dict[str, Any]:
    """The chance from which labels are corrected, and how often the rival was right above it."""
    if not np.isfinite(judged.limit):
        return {"limits": {"mislabelled": None}, "precision": {}, "checked": {}}
    right = [
        judged.known[i] == int(judged.contest.rival[judged.place[i]])
        for i, chance in judged.held_out.items()
        if chance >= judged.limit
    ]
    precision = float(np.mean(right)) if right else None
    return {
        "limits": {"mislabelled": float(judged.limit)},
        "precision": {"mislabelled": precision},
        "checked": {"mislabelled": len(right)},
    }


def _right(job: Job, judged: Judged) -> dict[str, int] | None:
    """How many automatic corrections are right by the truth file; None without one."""
    if job.data.truth is None:
        return None
    truth, fixed = classes_of(job.data.truth), judged.corrected()
    flipped = [judged.ids[k] for k in np.flatnonzero(judged.flips)]
    return {"mislabelled": sum(truth.get(i) == fixed[i] for i in flipped)}


def round_pictures(job: Job, state: RunState, judged: Judged, run_id: str) -> None:
    """Keep some pictures that were asked about and some that were corrected, and log them."""
    known, crowd, names = answered(job), classes_of(crowd_labels(job)), job.data.categories
    asked = [q.task.image.image_id for q in load_plan(job, state.round)]
    told = {i: f"{names[crowd[i]]} > {names[known[i]]}" for i in asked if i in known}
    fixed = judged.corrected()
    flipped = np.flatnonzero(judged.flips)
    surest = [judged.ids[k] for k in flipped[np.argsort(-judged.chance[flipped], kind="stable")]]
    files = []
    for sort, words in (
        ("asked", told),
        ("corrected", {i: f"{names[crowd[i]]} > {names[fixed[i]]}" for i in surest}),
    ):
        for i in list(words)[:OVERLAYS]:
            file = job.folder / "overlays" / f"round-{state.round}-{sort}-{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(captioned(job.pixels(i), words[i]))
            files.append(file)
    job.parts.tracker.log(run_id, artifacts=files, step=state.round)
