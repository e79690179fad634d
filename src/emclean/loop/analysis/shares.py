"""The population table: the left share of every sample and picture, as counted and corrected."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from emclean.loop.analysis.gathering import REASONS, Counted
from emclean.science.population import Confusion, Share, left_share

POPULATION = pa.schema(
    [
        *((name, pa.string()) for name in ("level", "sample", "image")),
        *((name, pa.int64()) for name in ("images", "particles", "left", *REASONS, "without_nm")),
        *((n, pa.float64()) for n in ("naive", "naive_low", "naive_high", "corrected", "low", "high")),
        *((n, pa.float64()) for n in ("design_effect", "true_left")),
        ("note", pa.string()),
    ]
)
"""The columns of ``population.parquet``: one row for each sample and each picture (``level``). ``particles``
are those not set aside, ``without_nm`` of them lie in pictures of unknown pixel size; shares are 0-1;
``true_left`` is known of simulated micrographs only; ``note`` is what must be known beside the figures, or
empty."""

UNTOLD = "No clean labels tell of mistakes in such pictures, so nothing is corrected."

NOTHING = Confusion((0, 0, 0), (0, 0, 0))
"""What is known where there are no clean labels."""


def population(
    counts: Sequence[Counted], confusion: Confusion | None, confidence: float, truth: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The rows of the population table: every sample, then every picture."""
    samples: dict[str, list[Counted]] = {}
    for one in counts:
        samples.setdefault(one.picture.sample, []).append(one)
    rows = [
        _row("sample", name, "", own, confusion, confidence, truth.get(name)) for name, own in samples.items()
    ]
    for one in counts:
        name = one.picture.name
        rows.append(_row("image", one.picture.sample, name, [one], confusion, confidence, truth.get(name)))
    return rows


def _row(
    level: str,
    sample: str,
    image: str,
    counts: Sequence[Counted],
    confusion: Confusion | None,
    confidence: float,
    true: float | None,
) -> dict[str, Any]:
    """The row of a sample or picture; what is not known is None."""
    outcomes = [(one.left, one.usable - one.left, one.set_aside["unusable"]) for one in counts]
    share = left_share(outcomes, confusion or NOTHING, confidence)
    row: dict[str, Any] = dict.fromkeys(POPULATION.names) | {"note": "No particle shows its hand."}
    row |= {"level": level, "sample": sample, "image": image, "images": len(counts), "true_left": true}
    row |= {"particles": sum(one.usable for one in counts), "left": sum(one.left for one in counts)}
    row["without_nm"] = sum(one.usable for one in counts if one.measured.nm is None)
    row |= {reason: sum(one.set_aside[reason] for one in counts) for reason in REASONS}
    if share is not None:
        row |= _figures(share)
        row |= {"note": UNTOLD} if confusion is None else {}
    return row


def _figures(share: Share) -> dict[str, Any]:
    names = ("naive", "naive_low", "naive_high", "corrected", "low", "high", "design_effect", "note")
    found = {name: getattr(share, name) for name in names}
    if share.corrected is None:  # then nothing is known of the bounds, either
        found |= {"low": None, "high": None}
    return found
