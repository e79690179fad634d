"""What came out of an audit, in memory and as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from emclean.audit.checks import Check
from emclean.audit.findings import Finding
from emclean.audit.sources import Aside
from emclean.stores.formats.coco import Key


class ImageRow(NamedTuple):
    """One image in the ranking. ``expected`` number of errors, ``likely`` instances that are probably wrong,
    ``share`` expected errors per instance, ``kind`` the most frequent likely one."""

    expected: float
    share: float
    likely: int
    image: str
    key: Key
    labels: int
    predictions: int
    kind: str
    judged: bool


@dataclass(frozen=True, eq=False)
class Summary:
    """What came out: counts, what is expected per kind, the ranking, and the check where there is a truth.

    ``corrections`` counts automatic corrections by kind, None where no truth allows any; ``limits`` holds
    the probability from which each kind is corrected (infinity: never); ``worst`` the likely errors of each
    kind that may be drawn.
    """

    folder: Path
    categories: tuple[str, ...]
    calibrated: bool
    images: int
    labels: int
    predictions: int
    instances: int
    likely: dict[str, int]
    expected: dict[str, float]
    ranking: list[ImageRow]
    top: list[Finding]
    worst: dict[str, list[Finding]]
    set_aside: Aside
    unpredicted: int
    truths: int
    check: Check | None
    limits: dict[str, float]
    corrections: dict[str, int] | None
    files: tuple[str, ...]
    notes: tuple[str, ...]


def write_summary(path: Path, summary: Summary) -> None:
    """The figures as JSON; what is not known is null."""
    check = asdict(summary.check) if summary.check is not None else None
    content = {
        "calibrated": summary.calibrated,
        "images": summary.images,
        "labels": summary.labels,
        "predictions": summary.predictions,
        "instances": summary.instances,
        "set_aside": dict(summary.set_aside.counts),
        "images_without_prediction": summary.unpredicted,
        "images_with_truth": summary.truths,
        "likely_errors": summary.likely,
        "expected_errors": {kind: round(value, 3) for kind, value in summary.expected.items()},
        "correct_from": {k: v if np.isfinite(v) else None for k, v in summary.limits.items()},
        "corrections": summary.corrections,
        "check": check,
        "notes": summary.notes,
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
