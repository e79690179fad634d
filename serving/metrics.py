"""What one replica counts: requests, latencies, boxes."""

import threading
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds in seconds of the latency histogram."""


@dataclass(frozen=True)
class Counts:
    """Counts that can be summed: requests by ``"path status"``, latencies by bucket, boxes, swaps."""

    requests: dict[str, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    detections: int = 0
    swaps: int = 0
    swap_failures: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(
            dict(Counter(self.requests) + Counter(other.requests)),
            [one + two for one, two in zip(self.buckets, other.buckets, strict=True)],
            self.seconds + other.seconds,
            self.detections + other.detections,
            self.swaps + other.swaps,
            self.swap_failures + other.swap_failures,
        )


class Metrics:
    """Requests by path and status, their latency, and what was found; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[str] = Counter()
        self._buckets = [0] * (len(BUCKETS) + 1)
        self._seconds = 0.0
        self._detections = 0

    def request(self, path: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        with self._lock:
            self._requests[f"{path} {status}"] += 1
            self._buckets[bisect_left(BUCKETS, seconds)] += 1
            self._seconds += seconds

    def found(self, n: int) -> None:
        """Count ``n`` boxes given out."""
        with self._lock:
            self._detections += n

    def counts(self, swaps: int, swap_failures: int) -> Counts:
        """The counts so far, with those of the model's swaps, which are counted elsewhere."""
        with self._lock:
            return Counts(
                dict(self._requests),
                list(self._buckets),
                self._seconds,
                self._detections,
                swaps,
                swap_failures,
            )


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
