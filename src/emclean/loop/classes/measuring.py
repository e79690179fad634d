"""How good classifiers and class labels are: on the test set, on the expert's answers, against a champion."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from emclean.loop.asking import drawn_at_random
from emclean.loop.classes.judging import Judged, predict
from emclean.loop.classes.labels import answered, classes_of, held, label
from emclean.loop.classes.sets import ClassSet
from emclean.loop.job import Job
from emclean.loop.publishing import champion_weights, unseen
from emclean.report.text import plural
from emclean.science import evaluation
from emclean.science.classes import temperature
from emclean.science.classes.accuracy import Accuracy, accuracy, compared, wilson
from emclean.types import Bools, Floats, Ints, Labels

UNKNOWN = {"precision": None, "recall": None, "f1": None, "mean_iou": None}
"""What labels of classes do not have; kept so that every summary has the same keys."""


def label_quality(job: Job, labels: Mapping[str, Labels]) -> dict[str, float | None]:
    """The share of right labels by the truth file; unknown without one."""
    if job.data.truth is None:
        return {"accuracy": None, **UNKNOWN}
    truth, said = classes_of(job.data.truth), classes_of(labels)
    return {"accuracy": float(np.mean([said.get(i) == truth[i] for i in job.data.ids()])), **UNKNOWN}


def on_test(job: Job, test: ClassSet | None, weights: str) -> tuple[Bools, Ints] | None:
    """Which test pictures a model gets right ``[n]``, and their groups ``[n]``; None without a test set."""
    if test is None or job.data.test is None:
        return None
    records = job.data.test.records
    ids = [record.image_id for record in records]
    truth = classes_of(job.data.test.labels)
    found = np.argmax(predict(job, test, weights, ids), axis=1)
    right = found == np.array([truth[i] for i in ids], np.int64)
    return right, np.unique([record.group for record in records], return_inverse=True)[1].astype(np.int64)


def measured(job: Job, test: ClassSet | None, weights: str) -> Accuracy | None:
    """Accuracy on the test set, mirror images not counted; None without one."""
    found = on_test(job, test, weights)
    return None if found is None else accuracy(*found, job.rng("bootstrap"))


def figures(found: Accuracy | None) -> dict[str, Any]:
    """A round's figures for the summary; those of boxes are there and unknown."""
    row: dict[str, Any] = dict.fromkeys(("ap50", "ap50_low", "ap50_high", "ap"))
    names = {"accuracy": "value", "accuracy_low": "low", "accuracy_high": "high", "accuracy_error": "error"}
    return row | {name: None if found is None else getattr(found, of) for name, of in names.items()}


def estimate(job: Job, round_: int, pool: ClassSet, judged: Judged, weights: str) -> dict[str, Any]:
    """The summary's ``estimate`` of a round, with Wilson's 95 % intervals.

    ``labels``: the share of right labels by the automatic corrections alone, as if no expert had answered,
    by the pictures drawn at random; each is judged by answers to others. ``accuracy``: the
    model's, on the answered pictures that no training has used.
    """
    drawn = [i for i in drawn_at_random(job, round_) if i in judged.held_out]
    right = [_corrected(judged, i) == judged.known[i] for i in drawn]
    kept = held(job, round_)
    ids = sorted(kept)
    found = np.argmax(predict(job, pool, weights, ids), axis=1) if ids else np.zeros(0, np.int64)
    met = [int(k) == kept[i] for k, i in zip(found, ids, strict=True)]
    return {"labels": _entry(right), "accuracy": _entry(met), "ap50": _entry([])}


def _corrected(judged: Judged, image_id: str) -> int:
    """What the label would be, had the expert not answered."""
    k = judged.place[image_id]
    flipped = judged.held_out[image_id] >= judged.limit
    return int(judged.contest.rival[k] if flipped else judged.labels[k])


def _entry(right: list[bool]) -> dict[str, Any]:
    """Unknown numbers are null; one picture says nothing of how pictures differ, and so has no interval."""
    n = len(right)
    value = float(np.mean(right)) if n else None
    low, high = wilson(value, n) if value is not None and n > 1 else (None, None)
    return {"value": value, "low": low, "high": high, "images": n}


def served_temperature(job: Job, round_: int, pool: ClassSet, weights: str) -> float | None:
    """The temperature of the served probabilities; None where too few answers are held back to learn it."""
    kept = held(job, round_)
    ids = sorted(kept)
    found: Floats = predict(job, pool, weights, ids) if ids else np.zeros((0, len(pool.classes)))
    return temperature.fit(found, np.array([kept[i] for i in ids], np.int64))


def gate(job: Job, round_: int, pool: ClassSet, weights: str) -> tuple[bool, str]:
    """Whether a new model may take the champion's place, and why.

    It is turned down only when it is worse beyond noise: when the paired bootstrap interval of the
    difference in accuracy, on answered pictures that neither was trained on, lies wholly below zero.
    """
    champion = job.parts.registry.champion()
    if champion is None:
        return True, "there is no champion yet"
    kept = {i: label(job.data.record(i), k) for i, k in held(job, round_).items()}
    if not kept:
        return True, "no answered picture is held back to compare on"
    names, known = unseen(kept, job.parts.registry.card(champion).get("trained_on", ()))
    truth, said = np.array([answered(job)[i] for i in names]), str(champion_weights(job, champion))
    old, new = (np.argmax(predict(job, pool, file, names), axis=1) == truth for file in (said, weights))
    difference, _ = compared(old, new, np.arange(len(names)), job.rng("gate", round_))
    words = (
        f"accuracy {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] "
        f"on {plural(len(names), 'picture')}"
    )
    return evaluation.not_worse(difference), f"{words} against version {champion}{known}"


def share_of_ceiling(job: Job, test: ClassSet | None, ceiling: str, final: str) -> dict[str, float] | None:
    """The final model's accuracy as a percentage of the ceiling's, with the paired bootstrap interval."""
    both = [on_test(job, test, weights) for weights in (ceiling, final)]
    if both[0] is None or both[1] is None:
        return None
    _, ratio = compared(both[0][0], both[1][0], both[0][1], job.rng("bootstrap"))
    return {"percent": 100 * ratio.value, "low": 100 * ratio.low, "high": 100 * ratio.high}
