"""Prediction over a cluster: pictures in chunks, one Ray task each, answers in order."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from emclean.errors import ComputeError, EmcleanError
from emclean.models import engine
from emclean.types import Predictions

CHUNK = 8
"""Pictures in one task: enough to pay for starting it, few enough to spread and to repeat."""

RETRIES = 3
"""How often the chunk of a worker that died is given to another one."""


def predict_all(
    weights: str,
    pictures: Sequence[str],
    *,
    chunk: int = CHUNK,
    flips: bool = False,
    progress: Callable[[float, float], None] = lambda done, total: None,
) -> list[Predictions]:
    """Predictions for grey ``.npy`` pictures, in their order; the process must have joined a Ray cluster.

    Weights and pictures are paths that every node reaches. At most two chunks a core wait at a time.
    """
    import ray

    task = ray.remote(num_cpus=1, max_retries=RETRIES)(_predict_chunk)
    starts = list(range(0, len(pictures), chunk))
    at_once = 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
    found: dict[int, list[Predictions]] = {}
    running: dict[Any, int] = {}
    waiting = iter(starts)
    while len(found) < len(starts):
        for start in waiting:
            running[task.remote(weights, tuple(pictures[start : start + chunk]), flips)] = start
            if len(running) >= at_once:
                break
        (ready,), _ = ray.wait(list(running))
        start = running.pop(ready)
        found[start] = _get(ray, ready, pictures[start])
        progress(sum(len(part) for part in found.values()), len(pictures))
    return [one for start in starts for one in found[start]]


def _get(ray: Any, reference: Any, first: str) -> list[Predictions]:
    try:
        answer: list[Predictions] = ray.get(reference)
        return answer
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, EmcleanError):
            raise cause from None
        reason = (str(cause or error).strip().splitlines() or [type(error).__name__])[-1][:300]
        raise ComputeError(f"searching pictures failed ({reason}).", f"{first} and after") from error


def _predict_chunk(weights: str, pictures: tuple[str, ...], flips: bool) -> list[Predictions]:
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # one core a task is what was asked for
    detector = _detector(weights, os.stat(weights).st_mtime_ns)
    loaded = (np.load(path, mmap_mode="r", allow_pickle=False) for path in pictures)
    return list(engine.predict(detector, loaded, flips=flips))


@lru_cache(maxsize=2)
def _detector(weights: str, changed: int) -> Any:
    """The detector, kept by the worker for its next chunk; ``changed`` tells a file written anew."""
    return engine.load(weights)
