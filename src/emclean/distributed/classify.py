"""Classifiers over a cluster: each training is one Ray task on one worker, pictures are predicted in parts.

These networks are small: one core trains one in a minute, so that trainings run side by side and none is
spread. A worker that dies is replaced, and its training goes on from the checkpoint in its own folder.
"""

import json
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from emclean.errors import ComputeError, EmcleanError
from emclean.models import robust
from emclean.models.classifiers import engine
from emclean.models.classifiers.fits import ClassFit
from emclean.models.classifiers.spec import ClassResult
from emclean.models.hooks import LocalHooks, Progress
from emclean.science.classes import ConfidentJudge
from emclean.types import Floats, Ints

Watch = Callable[[float, float], None]

RETRIES = 3
"""How often the work of a worker that died is given to another one."""

CHUNK = 2048
"""Pictures that one task predicts."""

_PROGRESS = "progress.json"


def fit_all(fits: Sequence[ClassFit], use_gpu: bool, progress: Watch) -> list[ClassResult]:
    """Train side by side and return the results in order; the process must have joined a Ray cluster.

    The tasks' folders must be reached by every node. A task whose folder holds its result is not repeated.
    """
    import ray

    train = ray.remote(num_cpus=1, num_gpus=int(use_gpu), max_retries=RETRIES)(_fit)
    references = [train.remote(fit) for fit in fits]
    pending, total = list(references), sum(fit.steps for fit in fits)
    while pending:
        _, pending = ray.wait(pending, num_returns=len(pending), timeout=1.0)
        left = set(pending)
        steps = [
            steps_done(fit) if reference in left else fit.steps
            for fit, reference in zip(fits, references, strict=True)
        ]
        progress(sum(steps), total)
    return [_got(ray, reference, fit.task.out) for reference, fit in zip(references, fits, strict=True)]


def predict(weights: str, pictures: str, rows: Ints, progress: Watch) -> Floats:
    """Probabilities ``[n,K]`` of ``rows`` of the array in the file ``pictures``, in order."""
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_predict)
    parts = [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]
    references = [task.remote(weights, pictures, part) for part in parts]
    found: list[Floats] = []
    for reference in references:
        found.append(_got(ray, reference, pictures))
        progress(min(len(found) * CHUNK, len(rows)), len(rows))
    return np.concatenate(found) if found else engine.predict(weights, _opened(pictures), rows)


def steps_done(fit: ClassFit) -> int:
    """The steps that a running training last noted in its folder."""
    try:
        return int(json.loads((Path(fit.task.out) / _PROGRESS).read_text(encoding="utf-8"))["step"])
    except (OSError, ValueError, KeyError):
        return 0


def _got(ray: Any, reference: Any, where: str) -> Any:
    """What a task returned; an error of ours as itself, any other as one that says what Ray said."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, EmcleanError):
            raise cause from None
        reason = (str(cause or error).strip().splitlines() or [type(error).__name__])[-1][:300]
        raise ComputeError(f"a classifier could not be trained or used ({reason}).", where) from error


def _fit(fit: ClassFit) -> ClassResult:
    """What a worker does."""
    _one_core()
    hooks = LocalHooks(fit.task.out, watch=lambda at: _note(Path(fit.task.out), at))
    return robust.fit(fit.method, fit.task, hooks, ConfidentJudge())


def _note(out: Path, at: Progress) -> None:
    draft = out / f".{_PROGRESS}.{os.getpid()}"
    out.mkdir(parents=True, exist_ok=True)
    draft.write_text(json.dumps({"step": at.step, "total": at.total, "pid": os.getpid()}), encoding="utf-8")
    draft.replace(out / _PROGRESS)


def _predict(weights: str, pictures: str, rows: Ints) -> Floats:
    _one_core()
    return engine.predict(_model(weights, os.stat(weights).st_mtime_ns), _opened(pictures), rows)


def _opened(pictures: str) -> Any:
    return np.load(pictures, mmap_mode="r", allow_pickle=False)


@lru_cache(maxsize=2)
def _model(weights: str, changed: int) -> engine.Ensemble:
    """The classifier, kept by the worker for its next part; ``changed`` tells a file written anew."""
    return engine.load(weights)


def _one_core() -> None:
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # one core a task is what was asked for
