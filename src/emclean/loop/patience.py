"""Waiting out a label service that gives no answer for a while, as a restart of it or of a network does."""

import time
from collections.abc import Callable
from typing import TypeVar

from emclean.loop.console import duration
from emclean.loop.job import Job
from emclean.stores.label_studio.client import PATIENCE_S, Unanswered

Found = TypeVar("Found")


def stays(job: Job) -> bool:
    """Whether the job waits until every task is dealt with, rather than end and be submitted again."""
    return job.settings.wait == "poll" or job.settings.expert.kind == "simulated"


def patiently(job: Job, look: Callable[[], Found], longest_s: float = PATIENCE_S) -> Found:
    """What ``look`` brings; while the label service gives no answer it is asked again, for ``longest_s``.

    A job that does not stay for its experts' answers does not stay for their server either.
    """
    since = time.monotonic()
    while True:
        try:
            return look()
        except Unanswered as error:
            if not stays(job) or time.monotonic() - since >= longest_s:
                raise
            job.parts.console.patiently(f"asking again for up to {duration(longest_s)}: {error}")
            time.sleep(job.settings.services.poll_s)
