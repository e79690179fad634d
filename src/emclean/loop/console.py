"""Progress for a person: lines for the job log, one moving line at a terminal, both with an estimate."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

FIRST_PAUSE_S, LONGEST_PAUSE_S = 60.0, 3600.0
"""Seconds until what has not changed is said again, at first and at most."""


def duration(seconds: float) -> str:
    """Seconds in words: ``42 s``, ``3 min 10 s``, ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _far(done: float, total: float, seconds: float, share: float) -> str:
    """How far something is; before its first step its workers are still being started."""
    if share <= 0:
        return "starting the workers"
    return f"{done:g} of {total:g}, about {duration(seconds * (1 - share) / share)} left"


class Console:
    """Writes progress to ``stream`` (standard output), at most one log line per ``every`` seconds."""

    def __init__(
        self,
        stream: TextIO | None = None,
        every: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stdout
        self._every = every
        self._clock = clock
        self._start = clock()
        self._last_line = -1e9
        self._moving = False
        self._waits_for, self._told_at, self._pause = "", -1e9, FIRST_PAUSE_S

    def say(self, text: str) -> None:
        """One line that stays, with the time since the start in front."""
        self._end_moving_line()
        elapsed = int(self._clock() - self._start)
        print(f"[{elapsed // 60:3d}:{elapsed % 60:02d}] {text}", file=self._stream, flush=True)

    def progress(self, text: str, done: float, total: float, since: float) -> None:
        """How much of ``total`` is done; ``since`` is the clock's reading at its start, for the estimate."""
        now = self._clock()
        share = min(done / total, 1.0) if total else 1.0
        message = f"{text}: {_far(done, total, now - since, share)}"
        if self._stream.isatty():
            print(f"\r\x1b[2K        {message}", end="", file=self._stream, flush=True)
            self._moving = True
        elif now - self._last_line >= self._every:
            self._last_line = now
            self.say(f"  {message}")

    def patiently(self, text: str) -> None:
        """What only people bring on: a line when it changes, and again at growing intervals, no estimate."""
        now = self._clock()
        changed = text != self._waits_for
        if not changed and now - self._told_at < self._pause:
            return
        self._pause = FIRST_PAUSE_S if changed else min(2 * self._pause, LONGEST_PAUSE_S)
        self._waits_for, self._told_at = text, now
        self.say(f"  {text}")

    @contextmanager
    def stage(self, name: str) -> Iterator[Callable[[float, float], None]]:
        """Announce a stage, hand out its progress callback ``(done, total)``, and say how long it took."""
        self.say(f"{name} …")
        since = self._clock()
        yield lambda done, total: self.progress(name, done, total, since)
        self.say(f"{name}: done in {duration(self._clock() - since)}")

    def _end_moving_line(self) -> None:
        if self._moving:
            print(file=self._stream)
            self._moving = False
