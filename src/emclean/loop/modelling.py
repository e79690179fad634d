"""Training and predicting for the loop: pictures, targets, schedule; results are kept by content."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from emclean.loop.job import Job
from emclean.models.spec import PRETRAINED, SEARCH, DetectorSpec, FitJob, FitResult, Schedule
from emclean.report.text import plural
from emclean.types import Floats, Labels, Predictions, Target

LARGEST_TYPICAL, SMALLEST_TYPICAL = 64.0, 12.0
"""The median box, in pixels, should be no larger than the one and no smaller than the other where the
detector looks at it; between them pictures are taken as they are (docs/decisions/0004-scales.md)."""
LARGE = 80.0
"""From this side on, in pixels, an object is better looked at in a smaller copy of the picture."""

ENOUGH = 8
"""Validation pictures from which a training may be ended early by them; with fewer that is mostly noise."""


@dataclass(frozen=True)
class Training:
    """One training: a ``role`` for people, targets by image, a validation part, a bound on the steps."""

    role: str
    targets: Mapping[str, Target]
    validation: Mapping[str, Labels]
    steps: int
    seed: int


def choose_scales(boxes: Floats) -> tuple[float, ...]:
    """Magnifications, as powers of two, at which the detector sees the boxes well.

    ``boxes [N,4]`` are the crowd's. The first suits the median box: the original size, smaller where that box
    is larger than :data:`LARGEST_TYPICAL`, twice the size where it is smaller than :data:`SMALLEST_TYPICAL`.
    Where a tenth of the boxes are still larger than :data:`LARGE`, half that size is searched too.
    """
    if not len(boxes):
        return (1.0,)
    sides = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    median = float(np.median(sides))
    fit = np.floor(np.log2(LARGEST_TYPICAL / median))
    scale = 2.0 if median < SMALLEST_TYPICAL else float(2.0 ** np.clip(fit, -4, 0))
    return (scale, scale / 2) if scale * np.quantile(sides, 0.9) > LARGE else (scale,)


def detector_spec(job: Job) -> DetectorSpec:
    """The detector that the settings ask for, with scales from the crowd's boxes unless they are given."""
    settings = job.boxes.detector
    crowd = [labels.boxes for labels in job.data.pool.labels.values()]
    boxes = np.concatenate([*crowd, np.zeros((0, 4))])
    scales = settings.scales or choose_scales(boxes)
    return DetectorSpec(settings.family, len(job.data.categories), scales=scales)


def fit_job(job: Job, training: Training) -> FitJob:
    """The training as the engine wants it, its folder named after its content."""
    settings = job.boxes.detector
    spec = detector_spec(job)
    use = sorted(training.targets)
    check = sorted(training.validation)
    enough = len(check) >= ENOUGH
    schedule = Schedule(
        max_steps=training.steps,
        batch=settings.batch,
        crop=settings.crop,
        lr=settings.lr,
        eval_every=min(settings.eval_every, training.steps),
        patience=settings.patience if enough else 0,
        keep_best=enough,
    )
    return FitJob(
        spec,
        tuple(job.pictures(use)),
        tuple(training.targets[i] for i in use),
        tuple(job.pictures(check)),
        tuple(training.validation[i] for i in check),
        schedule,
        training.seed,
        out=str(job.workspace / "models" / "unnamed"),
        init=_start(settings.init),
    )


def _start(init: str | None) -> str | None:
    """Where training starts from; a file by its full path, because workers run in folders of their own."""
    return init if init is None or init == PRETRAINED else str(Path(init).absolute())


def fit(job: Job, trainings: Sequence[Training]) -> list[FitResult]:
    """Train side by side; what was trained before, by its content, is not trained again."""
    jobs = [_named(job, fit_job(job, training)) for training in trainings]
    names = ", ".join(f"{t.role} ({plural(len(t.targets), 'image')})" for t in trainings)
    with job.parts.console.stage(f"training {names}") as progress:
        results = job.parts.compute.fit_all(jobs, progress)
    for training, result in zip(trainings, results, strict=True):
        job.parts.console.say(f"  {training.role}: {_outcome(result)}")
    return results


def _named(job: Job, fit_: FitJob) -> FitJob:
    return replace(fit_, out=str(job.workspace / "models" / fit_.digest()))


def _outcome(result: FitResult) -> str:
    quality = (
        "no picture held out to measure it on"
        if result.ap50 is None
        else f"validation AP50 {result.ap50:.3f}"
    )
    return f"{result.steps} steps, {quality}"


def predict(job: Job, weights: str, ids: Sequence[str], flips: bool = False) -> dict[str, Predictions]:
    """What a model finds in the pool's images, kept by content of weights and images and how is searched."""
    pictures = {image_id: job.picture(image_id) for image_id in sorted(ids)}
    return predict_pictures(job, weights, pictures, flips)


def predict_pictures(
    job: Job, weights: str, pictures: Mapping[str, str], flips: bool = False
) -> dict[str, Predictions]:
    """What a model finds in prepared pictures, by name; computed once. ``flips`` averages two views."""
    names = sorted(pictures)
    kept = job.workspace / "predictions" / f"{_digest(weights, names, flips)}.npz"
    if kept.exists():
        return _read(kept, names)
    with job.parts.console.stage(f"searching {plural(len(names), 'image')}") as progress:
        found = job.parts.compute.predict_all(weights, [pictures[name] for name in names], progress, flips)
    _write(kept, found)
    return dict(zip(names, found, strict=True))


def _digest(weights: str, names: Sequence[str], flips: bool) -> str:
    sha = hashlib.sha256(Path(weights).read_bytes())
    sha.update(f"search {SEARCH}\n".encode())
    if flips:
        sha.update(b"flips")
    sha.update("\n".join(names).encode())
    return sha.hexdigest()[:24]


def _write(file: Path, found: Sequence[Predictions]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {
        "counts": np.array([len(p) for p in found], dtype=np.int64),
        "boxes": np.concatenate([*(p.boxes for p in found), np.zeros((0, 4))]),
        "categories": np.concatenate([*(p.categories for p in found), np.zeros(0, np.int64)]),
        "scores": np.concatenate([*(p.scores for p in found), np.zeros(0)]),
    }
    temporary = file.with_suffix(".part.npz")
    np.savez_compressed(temporary, allow_pickle=False, **columns)
    temporary.replace(file)


def _read(file: Path, names: Sequence[str]) -> dict[str, Predictions]:
    with np.load(file, allow_pickle=False) as columns:
        ends = np.cumsum(columns["counts"])[:-1]
        parts = [np.split(columns[name], ends) for name in ("boxes", "categories", "scores")]
    return {name: Predictions(*part) for name, *part in zip(names, *parts, strict=True)}
