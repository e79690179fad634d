"""The error tree.

    EmcleanError                what was wrong, where, and what to do about it
    ├── ConfigError             exit 2: every configuration fault in one report
    ├── DataError               exit 3: images, labels or tables
    │   ├── ImageError          one picture cannot be read (set aside by ingest, never fatal)
    │   └── LabelError          one label row or file cannot be used
    ├── ServiceError            exit 4: a neighbour did not answer as promised
    │   ├── LabelServiceError   Label Studio
    │   ├── TrackingError       MLflow
    │   ├── ComputeError        Ray
    │   └── ServingError        the served model
    └── TrainingError           exit 1: training cannot go on (for instance a loss that is not finite)

Every error names what was wrong, where, and what to do. All of them survive pickle, so that a
worker's error reaches the driver as what it was.
"""

import re
from collections.abc import Sequence


class EmcleanError(Exception):
    """Root of every error that emclean raises on purpose.

    ``what`` is one sentence; ``where`` names the file, field, row or address; ``fix`` says what to do.
    """

    exit_code = 1

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(self._text())

    def _text(self) -> str:
        place = f"{self.where}: " if self.where else ""
        if not self.fix:
            return f"{place}{self.what}"
        stop = "" if self.what.endswith((".", "!", "?", ":", "…")) else "."
        return f"{place}{self.what}{stop} {self.fix}"

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.what, self.where, self.fix)


def without_secrets(text: str) -> str:
    """The text with ``***`` in place of the user name and password of every address in it."""
    return re.sub(r"(?<=://)\S*@|[^\s'\"/@:]+:[^\s/@]+@", "***@", text)


class ConfigError(EmcleanError):
    """The configuration cannot be used; lists every fault at once, none with a password in it."""

    exit_code = 2

    def __init__(self, faults: Sequence[str], where: str = "configuration") -> None:
        self.faults = tuple(without_secrets(fault) for fault in faults)
        lines = "".join(f"\n  - {fault}" for fault in self.faults)
        super().__init__(f"{len(self.faults)} fault(s) found:{lines}", where)

    def __reduce__(self) -> tuple[type, tuple[object, ...]]:
        return type(self), (self.faults, self.where)


class DataError(EmcleanError):
    """Images, labels or tables cannot be used as they are."""

    exit_code = 3


class ImageError(DataError):
    """One picture cannot be read."""


class LabelError(DataError):
    """One label row or label file cannot be used."""


class ServiceError(EmcleanError):
    """A neighbouring service is away or did not answer as promised."""

    exit_code = 4


class LabelServiceError(ServiceError):
    """The label service (Label Studio) is away or refused a call."""


class TrackingError(ServiceError):
    """The experiment tracker or model registry (MLflow) is away or refused a call."""


class ComputeError(ServiceError):
    """The compute cluster (Ray) is away or a job on it failed."""


class ServingError(ServiceError):
    """The served model is away or could not take a new version."""


class TrainingError(EmcleanError):
    """Training cannot go on, for instance because the loss is no longer finite."""
