"""How good labels and model are, estimated from the expert's random images: no truth file is looked at."""

from collections.abc import Mapping
from typing import Any

from emclean.loop.asking import drawn_at_random
from emclean.loop.cleaning import expert_labels, judge, validation_ids
from emclean.loop.job import Job
from emclean.loop.modelling import predict
from emclean.loop.states import RunState
from emclean.science import evaluation
from emclean.science.correction import correct
from emclean.types import Labels


def estimate(job: Job, state: RunState, weights: str) -> dict[str, Any]:
    """The summary's ``estimate`` of a round, with 95 % intervals over images.

    ``labels``: F1 of the labels that no expert has seen, after the automatic corrections, from the images
    drawn at random; each is corrected by a grader that did not learn from it. ``ap50``: the model's, from the
    images of the random draw that no training has used.
    """
    expert = expert_labels(job)
    drawn = drawn_at_random(job, state.round)
    held = validation_ids(job, state.round, list(expert))
    return {
        "labels": _labels(job, state, {i: expert[i] for i in drawn if i in expert}),
        "ap50": _ap50(job, state.round, weights, {i: expert[i] for i in sorted(held)}),
    }


def _labels(job: Job, state: RunState, truth: Mapping[str, Labels]) -> dict[str, Any]:
    judged = judge(job, state, state.round)
    use = [i for i in truth if i in judged.held_out]
    labels = [correct(judged.evidence[i].labels, judged.held_out[i], judged.limits).labels for i in use]
    rng = job.rng("estimated label quality", state.round)
    found = evaluation.label_f1([truth[i] for i in use], labels, rng)
    return _entry(found, len(use))


def _ap50(job: Job, round_: int, weights: str, truth: Mapping[str, Labels]) -> dict[str, Any]:
    found = predict(job, weights, list(truth)) if truth else {}
    detection = evaluation.detection(
        list(truth.values()), [found[i] for i in truth], len(job.data.categories)
    )
    return _entry(evaluation.interval(detection, job.rng("estimated AP50", round_)), len(truth))


def _entry(found: evaluation.Interval, images: int) -> dict[str, Any]:
    """Unknown numbers are null; one image says nothing of how images differ, and so has no interval."""
    return {
        "value": _known(found.value, images > 0),
        "low": _known(found.low, images > 1),
        "high": _known(found.high, images > 1),
        "images": images,
    }


def _known(value: float, enough: bool) -> float | None:
    return float(value) if enough and value == value else None
