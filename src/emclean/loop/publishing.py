"""Measuring a round's model, putting it into the registry, letting it pass the gate, and serving it."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from emclean.loop import likelier
from emclean.loop.asking import questions_until
from emclean.loop.cleaning import expert_labels, standing_labels, validation_ids
from emclean.loop.job import Job
from emclean.loop.modelling import predict, predict_pictures
from emclean.loop.serving import fetched
from emclean.loop.spending import full_minutes, skipped_until, spent_until
from emclean.loop.states import RunState
from emclean.report.text import plural
from emclean.science import evaluation, scores
from emclean.types import Cost, Labels, Predictions


def test_detection(job: Job, weights: str) -> evaluation.Detection | None:
    """How a model does on the test set; None without one."""
    if job.data.test is None:
        return None
    truth = test_truth(job)
    found = predict_pictures(job, weights, {i: job.picture(i) for i in truth})
    names = sorted(truth)
    return evaluation.detection(
        [truth[i] for i in names], [found[i] for i in names], len(job.data.categories)
    )


def test_truth(job: Job) -> dict[str, Labels]:
    """The trusted labels of the test images, by image id."""
    test = job.data.test
    return (
        {}
        if test is None
        else {r.image_id: test.labels.get(r.image_id, Labels.empty()) for r in test.records}
    )


def round_row(job: Job, round_: int, weights: str) -> dict[str, Any]:
    """One entry of ``rounds`` in the summary: cost, questions and skips so far, label quality, and how
    the model does."""
    cost = spent_until(job, round_)
    row: dict[str, Any] = {"round": round_, "cost": cost_entry(cost, full_minutes(job))}
    kinds = [q.task.kind for q in questions_until(job, round_)]
    row["asked"] = {kind: kinds.count(kind) for kind in ("image", "review")}
    row["skipped"] = skipped_until(job, round_)
    row["labels"] = job.kind.label_quality(job, standing_labels(job))
    return {**row, **job.kind.measure(job, round_, weights)}


def measure(job: Job, weights: str) -> dict[str, Any]:
    """How a detector does on the test set: AP50 with its interval, and AP; None without one."""
    found = test_detection(job, weights)
    row: dict[str, Any] = {"ap50": None, "ap50_low": None, "ap50_high": None, "ap": None}
    if found is not None:
        ends = evaluation.interval(found, job.rng("bootstrap"))
        row.update(ap50=_known(found.ap50), ap=_known(found.ap), ap50_low=ends.low, ap50_high=ends.high)
    return row


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def cost_entry(cost: Cost, full: float) -> dict[str, Any]:
    """The summary's ``cost``: images, boxes touched by kind, minutes, share of labelling everything."""
    touched = {name: getattr(cost, name) for name in ("added", "moved", "deleted", "verified")}
    share = cost.minutes / full if full > 0 else None
    return {"images": cost.images, "boxes": touched, "minutes": cost.minutes, "share_of_full": share}


def label_entry(job: Job, labels: Mapping[str, Labels]) -> dict[str, float | None]:
    """The summary's ``labels``: quality of the pool's labels against truth, null where no truth is known."""
    if job.data.truth is None:
        return {"precision": None, "recall": None, "f1": None, "mean_iou": None}
    ids = job.data.ids()
    truth = [job.data.truth.get(i, Labels.empty()) for i in ids]
    quality = evaluation.label_quality(truth, [labels.get(i, Labels.empty()) for i in ids])
    names = ("precision", "recall", "f1", "mean_iou")
    return {name: float(getattr(quality, name)) for name in names}


def likelier_entry(job: Job) -> dict[str, float | None]:
    """The summary's ``labels_likelier``: the same with the likelier version where no expert answered."""
    if job.data.truth is None:
        return label_entry(job, {})
    found = likelier.read(job.parts.tables, job.run, job.data.categories, expert_labels(job).keys())
    others = {i: Labels(p.boxes, p.categories) for i, p in (found or {}).items()}
    return label_entry(job, {**standing_labels(job), **others})


def gate_part(job: Job, round_: int) -> dict[str, Labels]:
    """The expert images that no training of this run has used: early stopping, gate and score calibration."""
    expert = expert_labels(job)
    return {i: expert[i] for i in sorted(validation_ids(job, round_, list(expert)))}


def gate(job: Job, state: RunState, weights: str) -> tuple[bool, str]:
    """Whether a new model may take the champion's place, and why.

    It is turned down only when it is worse beyond noise: when the paired bootstrap interval of the AP50
    difference on the validation part lies wholly below zero. A champion of another run is compared on
    pictures that it was not trained on, as long as there are any.
    """
    champion = job.parts.registry.champion()
    if champion is None:
        return True, "there is no champion yet"
    held = gate_part(job, state.round)
    if not any(len(labels) for labels in held.values()):
        return True, "no validation object to compare on"
    old = str(champion_weights(job, champion))
    names, known = unseen(held, job.parts.registry.card(champion).get("trained_on", ()))
    truth = [held[i] for i in names]
    both = [
        evaluation.detection(truth, [found[i] for i in names], len(job.data.categories))
        for found in (predict(job, old, names), predict(job, weights, names))
    ]
    difference = evaluation.bootstrap(both[0], both[1], job.rng("gate", state.round)).difference
    words = (
        f"AP50 {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] "
        f"on {plural(len(names), 'image')}"
    )
    return evaluation.not_worse(difference), f"{words} against version {champion}{known}"


def unseen(held: Mapping[str, Labels], trained_on: Sequence[str]) -> tuple[list[str], str]:
    """The images that a champion was not trained on; all and a remark where none of those has an object."""
    fresh = [i for i in sorted(held) if i not in set(trained_on)]
    if any(len(held[i]) for i in fresh):
        return fresh, ""
    return sorted(held), ", which was trained on these images"


def card(job: Job, state: RunState, row: Mapping[str, Any]) -> dict[str, Any]:
    """The model card kept with the weights and shown by the server."""
    return {
        "categories": list(job.data.categories),
        "run": job.run,
        "round": state.round,
        "name": job.kind.registered_name(job.data.categories),
        "label_revision": state.models[f"final-{state.round}"]["label_version"],
        "cost_share": row["cost"]["share_of_full"],
        "strategy": job.settings.strategy,
        "correction": job.settings.correction,
        **job.kind.card(job, state, row),
        "data": dict(state.facts.get("digests", {})),
        "code_version": state.facts.get("code_version", ""),
    }


def detector_card(job: Job, state: RunState, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the model card says of a detector."""
    return {
        "ap50": row["ap50"],
        "detector": job.boxes.detector.model_dump(mode="json"),
        "score_calibration": score_calibration(job, state),
    }


def score_calibration(job: Job, state: RunState) -> list[list[float]]:
    """Knots ``[score, probability]`` learnt on the validation part; empty where it is too small to learn."""
    held = gate_part(job, state.round)
    weights = state.models[f"final-{state.round}"]["weights"]
    found: Mapping[str, Predictions] = predict(job, weights, sorted(held)) if held else {}
    return scores.score_knots([held[i] for i in sorted(held)], [found[i] for i in sorted(held)])


def champion_weights(job: Job, version: str) -> Path:
    """The weights of a registered version, in a folder that every replica reaches."""
    name = job.kind.registered_name(job.data.categories)
    return fetched(job.parts.registry, job.workspace, name, version)


def registered_name(categories: Sequence[str]) -> str:
    """The registered model of these categories: models of other categories never compete with it."""
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", "-".join(categories))
    digest = hashlib.sha256("\n".join(categories).encode()).hexdigest()[:6]
    return f"emclean-{plain[:40]}-{digest}"


def model_key(job: Job, round_: int, weights: str) -> str:
    """What makes a registered model unique: run, round and content."""
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]
    return f"{job.run}/{round_}/{digest}"


def metrics_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a summary row as flat metrics, ``cost.minutes`` and so on; unknown ones are left out."""
    flat: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            flat.update({f"{name}.{inner}": v for inner, v in metrics_of(value).items()})
        elif isinstance(value, int | float) and not isinstance(value, bool):
            flat[name] = float(value)
    return flat
