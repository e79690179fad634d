"""The figures of all replicas, each in a file of its own, so that any of them can tell the sum."""

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from serving.metrics import BUCKETS, Counts

LOG = logging.getLogger(__name__)
EVERY_S = 1.0
"""Seconds from one writing to the next: how old the figures of the other replicas can be."""
ALIVE_S = 30.0
"""A replica that has not written for so many seconds counts as ended; what it has counted stays."""
KEPT_S = 7 * 86400.0
"""Figures of an earlier Ray are removed after so many seconds."""


@dataclass(frozen=True)
class Told:
    """What one replica tells: its counts, the version that it holds (or nothing), whether it goes on."""

    counts: Counts
    version: str
    alive: bool = True


class Figures:
    """One replica's file among those of the others in ``folder``; without a folder there are no others.

    A folder belongs to one start of Ray: counts begin at zero with it.
    """

    def __init__(self, folder: Path | None, replica: str) -> None:
        self._folder = folder
        self._name = re.sub(r"[^A-Za-z0-9_-]", "-", replica) + ".json"
        if folder is not None:
            _forget(folder)

    @property
    def shared(self) -> bool:
        """Whether there can be others."""
        return self._folder is not None

    def write(self, told: Told) -> None:
        """Let the others know; a folder that cannot be written is said in the log, and tried again later."""
        if self._folder is None:
            return
        draft = self._folder / f".{self._name}.{os.getpid()}"
        content = {"version": told.version, "alive": told.alive, "counts": asdict(told.counts)}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            draft.write_text(json.dumps(content), encoding="utf-8")
            draft.replace(self._folder / self._name)
        except OSError as error:
            LOG.warning("the figures of this replica cannot be written: %s", error)

    def others(self) -> Iterator[Told]:
        """What the other replicas have written."""
        if self._folder is None:
            return
        for file in sorted(self._folder.glob("*.json")):
            if file.name != self._name:
                yield _read(file)


def _read(file: Path) -> Told:
    content = json.loads(file.read_text(encoding="utf-8"))
    alive = content["alive"] and time.time() - file.stat().st_mtime < ALIVE_S
    return Told(Counts(**content["counts"]), content["version"], alive)


def _forget(folder: Path) -> None:
    """Remove what replicas of an earlier Ray have left beside our folder."""
    for file in folder.parent.glob("*/*.json"):
        with contextlib.suppress(OSError):  # another replica may do the same at the same time
            if file.parent != folder and time.time() - file.stat().st_mtime > KEPT_S:
                file.unlink()
                file.parent.rmdir()  # with the last of them


def text(told: list[Told]) -> str:
    """The sum in Prometheus' text form (version 0.0.4); ended replicas keep their counts, not their model."""
    total = sum((one.counts for one in told), Counts())
    living = [one for one in told if one.alive]
    lines = ["# TYPE emclean_requests_total counter"]
    for place, count in sorted(total.requests.items()):
        path, _, status = place.rpartition(" ")
        lines.append(f'emclean_requests_total{{path="{_escape(path)}",status="{status}"}} {count}')
    lines += _histogram(total)
    simple = {
        "emclean_detections_total": total.detections,
        "emclean_swaps_total": total.swaps,
        "emclean_swap_failures_total": total.swap_failures,
    }
    for name, value in simple.items():
        lines += [f"# TYPE {name} counter", f"{name} {value}"]
    lines += ["# TYPE emclean_replicas gauge", f"emclean_replicas {len(living)}"]
    lines.append("# TYPE emclean_model_loaded gauge")
    for version in sorted({one.version for one in living if one.version}):
        holders = sum(one.version == version for one in living)
        lines.append(f'emclean_model_loaded{{model_version="{_escape(version)}"}} {holders}')
    return "\n".join(lines) + "\n"


def _histogram(total: Counts) -> list[str]:
    name, running = "emclean_request_seconds", 0
    lines = [f"# TYPE {name} histogram"]
    for bound, count in zip((*BUCKETS, "+Inf"), total.buckets, strict=True):
        running += count
        lines.append(f'{name}_bucket{{le="{bound}"}} {running}')
    return [*lines, f"{name}_sum {total.seconds:.6f}", f"{name}_count {running}"]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
