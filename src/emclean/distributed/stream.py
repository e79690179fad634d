"""Many small independent pieces of work streamed through Ray Data: each is a task, results come as they end.

Only the texts that describe the pieces and their outcomes pass through Ray, so that the driver's memory does
not grow with what the pieces read. Whatever a piece achieves it writes down itself.
"""

import logging
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch

from emclean.errors import ComputeError, EmcleanError

Work = Callable[[str], str]
"""Does the piece that a text describes, and describes its outcome."""

AT_A_TIME = 2000
"""Pieces that a stream is given at a time: the driver knows no more of them."""

_TEXT, _ERROR = "text", "error"


def run_all(
    work: Work, pieces: Iterable[str], ended: Callable[[str], None], *, at_once: int | None = None
) -> None:
    """Do every piece on the cluster that the process has joined; ``ended`` gets each outcome, in any order.

    A piece takes one core. One whose process dies is done again elsewhere. What ``work`` raises ends all.
    """
    import ray

    waiting = iter(pieces)
    try:
        while some := list(islice(waiting, AT_A_TIME)):
            for row in _stream(ray, work, some, at_once):
                if row[_ERROR]:
                    raise pickle.loads(row[_ERROR])
                ended(row[_TEXT])
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if "Error" in line]
        reason = (lines or [type(error).__name__])[-1][:300]
        raise ComputeError(f"a piece of work broke off ({reason}).", "ray") from error


def _stream(ray: Any, work: Work, pieces: Sequence[str], at_once: int | None) -> Iterator[dict[str, Any]]:
    """What came out of these pieces, as they end."""
    cores = max(int(ray.cluster_resources().get("CPU", 1)), 1)
    data = _quiet(ray)
    size = min(at_once or cores, cores, len(pieces))
    stream = data.from_items([{_TEXT: piece} for piece in pieces], override_num_blocks=len(pieces)).map(
        _done, fn_kwargs={"work": work}, num_cpus=1, compute=data.TaskPoolStrategy(size)
    )
    rows: Iterator[dict[str, Any]] = stream.iter_rows()
    return iter(rows)


def _quiet(ray: Any) -> Any:
    """Ray Data without its bars and reports on standard error: the job tells its own progress."""
    from ray import data

    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised, too
    return data


def _done(row: dict[str, str], work: Work) -> dict[str, str | bytes]:
    """What every task runs."""
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # one core is what was asked for
    try:
        return {_TEXT: work(row[_TEXT]), _ERROR: b""}
    except EmcleanError as error:  # Ray would hand on its text alone
        return {_TEXT: "", _ERROR: pickle.dumps(error)}
