"""Counts of one replica in Prometheus' text form (version 0.0.4)."""

import threading
from bisect import bisect_left
from collections import Counter
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of the latency histogram."""


class Metrics:
    """Requests by path and status, their latency, and what was found; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._detections = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        with self._lock:
            self._requests[path, status] += 1
            self._buckets[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def found(self, n: int) -> None:
        """Count ``n`` boxes given out."""
        with self._lock:
            self._detections += n

    def text(self, labels: dict[str, str], gauges: dict[str, float]) -> str:
        """All counts, each with ``labels`` (replica, version), and the given gauges."""
        common = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
        with self._lock:
            lines = ["# TYPE emclean_requests_total counter"]
            for (path, status), count in sorted(self._requests.items()):
                place = f'path="{_escape(path)}",status="{status}"'
                lines.append(f"emclean_requests_total{{{common},{place}}} {count}")
            lines += self._histogram(common)
            lines.append("# TYPE emclean_detections_total counter")
            lines.append(f"emclean_detections_total{{{common}}} {self._detections}")
        for name, value in gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name}{{{common}}} {value:g}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, common: str) -> list[str]:
        name, running = "emclean_request_seconds", 0
        lines = [f"# TYPE {name} histogram"]
        for bound, count in zip((*BUCKETS, "+Inf"), self._buckets, strict=True):
            running += count
            lines.append(f'{name}_bucket{{{common},le="{bound}"}} {running}')
        return [*lines, f"{name}_sum{{{common}}} {self._seconds:.6f}", f"{name}_count{{{common}}} {running}"]


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


class Measured:
    """Counts every request; a path that no route knows is counted as ``other``, so that names stay few."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, since = 500, perf_counter()

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            route = scope.get("route")
            path = getattr(route, "path", "other") if status != 404 else "other"
            self._metrics.request(path, status, perf_counter() - since)
