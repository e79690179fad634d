"""Trained models are kept by their content, and one process at a time trains each."""

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone(file: Path) -> Iterator[float]:
    """Let one process at a time train a model; yields the seconds waited. Ends with the process."""
    since = time.monotonic()
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield time.monotonic() - since
