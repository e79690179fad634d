"""Where training and searching happen: in this process, or on a Ray cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from emclean.models import engine, robust
from emclean.models.classifiers import engine as classifiers
from emclean.models.classifiers.fits import ClassFit
from emclean.models.classifiers.spec import ClassResult
from emclean.models.hooks import LocalHooks, Progress
from emclean.models.spec import FitJob, FitResult
from emclean.science.classes import ConfidentJudge
from emclean.types import Floats, Ints, Predictions

Watch = Callable[[float, float], None]
"""Takes how much is done, and of how much."""


class Compute(Protocol):
    """What the loop asks of its computers; both give results in the order of what was asked."""

    def fit_all(self, jobs: Sequence[FitJob], progress: Watch) -> list[FitResult]:
        """Train every job; what a job's folder already holds is not trained again."""

    def predict_all(
        self, weights: str, pictures: Sequence[str], progress: Watch, flips: bool = False
    ) -> list[Predictions]:
        """What the detector in ``weights`` finds in grey ``.npy`` pictures; ``flips`` averages two views."""

    def fit_classes(self, fits: Sequence[ClassFit], progress: Watch) -> list[ClassResult]:
        """Train every classifier; what a task's folder already holds is not trained again."""

    def predict_classes(self, weights: str, pictures: str, rows: Ints, progress: Watch) -> Floats:
        """Probabilities ``[n,K]`` of ``rows`` of the array in the file ``pictures``."""


class InlineCompute:
    """Everything in this process, one job after another."""

    def fit_all(self, jobs: Sequence[FitJob], progress: Watch) -> list[FitResult]:
        """Train one job after another; an interrupted one goes on from its last checkpoint."""
        total = sum(job.schedule.max_steps for job in jobs)
        results: list[FitResult] = []
        before = 0
        for job in jobs:
            hooks = LocalHooks(job.out, watch=_shifted(progress, before, total))
            results.append(engine.fit(job, hooks))
            before += job.schedule.max_steps
            progress(before, total)
        return results

    def predict_all(
        self, weights: str, pictures: Sequence[str], progress: Watch, flips: bool = False
    ) -> list[Predictions]:
        """Search one picture after another."""
        detector = engine.load(weights)
        loaded = (np.load(path, mmap_mode="r", allow_pickle=False) for path in pictures)
        found: list[Predictions] = []
        for one in engine.predict(detector, loaded, flips=flips):
            found.append(one)
            progress(len(found), len(pictures))
        return found

    def fit_classes(self, fits: Sequence[ClassFit], progress: Watch) -> list[ClassResult]:
        """Train one classifier after another; an interrupted one goes on from its last checkpoint."""
        total, before = sum(fit.steps for fit in fits), 0
        results: list[ClassResult] = []
        for fit in fits:
            hooks = LocalHooks(fit.task.out, watch=_shifted(progress, before, total))
            results.append(robust.fit(fit.method, fit.task, hooks, ConfidentJudge()))
            before += fit.steps
            progress(before, total)
        return results

    def predict_classes(self, weights: str, pictures: str, rows: Ints, progress: Watch) -> Floats:
        """All at once."""
        found = classifiers.predict(weights, np.load(pictures, mmap_mode="r", allow_pickle=False), rows)
        progress(len(rows), len(rows))
        return found


def _shifted(progress: Watch, before: int, total: int) -> Callable[[Progress], None]:
    return lambda at: progress(before + at.step, total)


@dataclass(frozen=True)
class RayCompute:
    """A Ray cluster that this process has joined; ``storage`` keeps the checkpoints of running jobs."""

    storage: Path
    workers: int = 1
    use_gpu: bool = False

    def fit_all(self, jobs: Sequence[FitJob], progress: Watch) -> list[FitResult]:
        """Train side by side, as many jobs at a time as the cluster has room for."""
        from emclean.distributed import train

        resources = train.Resources(self.workers, self.use_gpu)
        return train.fit_all(jobs, resources, storage=self.storage, progress=progress)

    def predict_all(
        self, weights: str, pictures: Sequence[str], progress: Watch, flips: bool = False
    ) -> list[Predictions]:
        """Search in chunks, spread over the cluster."""
        from emclean.distributed import score

        return score.predict_all(weights, pictures, flips=flips, progress=progress)

    def fit_classes(self, fits: Sequence[ClassFit], progress: Watch) -> list[ClassResult]:
        """Train side by side, each on one worker."""
        from emclean.distributed import classify

        return classify.fit_all(fits, self.use_gpu, progress)

    def predict_classes(self, weights: str, pictures: str, rows: Ints, progress: Watch) -> Floats:
        """In parts, spread over the cluster."""
        from emclean.distributed import classify

        return classify.predict(weights, pictures, rows, progress)
