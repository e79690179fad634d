"""What every result is compared with: trained on the crowd's labels (floor), on the expert's (ceiling)."""

from collections.abc import Mapping

from emclean.errors import DataError
from emclean.loop.cleaning import crowd_labels
from emclean.loop.job import Job
from emclean.loop.modelling import Training
from emclean.types import Labels, Target

VALIDATION_SHARE = 0.15


def baseline_trainings(job: Job) -> list[Training]:
    """Floor and ceiling, the same recipe as ours, each stopped by a validation part of its own labels."""
    if job.data.truth is None:
        fix = "Give expert.truth, or run with baselines=false."
        raise DataError("the ceiling needs the truth of the whole pool", "baselines", fix)
    truth = {i: job.data.truth.get(i, Labels.empty()) for i in job.data.ids()}
    return [_training(job, "floor", crowd_labels(job)), _training(job, "ceiling", truth)]


def _training(job: Job, role: str, labels: Mapping[str, Labels]) -> Training:
    held = _held_out(job)
    return Training(
        role,
        {i: Target.of(found) for i, found in labels.items() if i not in held},
        {i: found for i, found in labels.items() if i in held},
        job.boxes.detector.baseline_steps,
        job.seed("final"),
    )


def _held_out(job: Job) -> set[str]:
    """About :data:`VALIDATION_SHARE` of the pool, whole groups at a time."""
    ids = job.data.ids()
    groups: dict[str, list[str]] = {}
    for i in ids:
        groups.setdefault(job.data.record(i).group or i, []).append(i)
    names = sorted(groups)
    held: set[str] = set()
    for place in job.rng("validation part").permutation(len(names)):
        if len(held) >= VALIDATION_SHARE * len(ids):
            break
        held.update(groups[names[int(place)]])
    return held if len(held) < len(ids) else set()
