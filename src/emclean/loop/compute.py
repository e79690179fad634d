"""Where training and searching happen: in this process, or on a Ray cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from emclean.models import engine
from emclean.models.hooks import LocalHooks, Progress
from emclean.models.spec import FitJob, FitResult
from emclean.types import Predictions

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
