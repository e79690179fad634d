"""One picture from pixels to its left share, in memory: what the served model and a registered one do.

Every step is the function that ``analyze_micrographs`` calls for the same step.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from emclean.errors import ServingError
from emclean.imaging import pose
from emclean.imaging.segmentation import Settings
from emclean.imaging.windows import Windows
from emclean.loop.analysis.bands import merged
from emclean.loop.analysis.gathering import REASONS, counted, described
from emclean.loop.analysis.looking import SCHEMA, Eyes, judged, look, measured
from emclean.loop.analysis.pieces import Measured, Micrograph, pieces_of
from emclean.loop.analysis.shares import population
from emclean.models.classifiers import engine
from emclean.models.parts import TASK, unpack
from emclean.models.segmenters import engine as segmenters
from emclean.science.population import Confusion

HANDS = ("left", "right")
"""The categories of an analysis, in the order of the classifier's classes."""

SHARES = ("naive", "naive_low", "naive_high", "corrected", "low", "high", "note")


@dataclass(frozen=True)
class Way:
    """All that decides what comes out of a picture but the models: how particles are found (``length_nm``,
    ``nm``: as for ``looking.measured``), from which probability on one is usable, the side in px of what is
    worked on at a time, the classifiers' mistakes (None: not known), and the confidence of intervals."""

    settings: Settings
    usable_from: float
    window: int
    length_nm: float | None
    nm: float | None
    confusion: Confusion | None
    confidence: float

    def card(self) -> dict[str, Any]:
        """What the model card says of it."""
        return {"task": TASK, "categories": list(HANDS), "way": asdict(self)}

    @staticmethod
    def of(card: Mapping[str, Any]) -> "Way":
        """The way in a model card; :class:`ServingError` names what is wrong with it."""
        try:
            given = dict(card["way"])
            given["settings"] = Settings(**given["settings"])
            given["confusion"] = None if given["confusion"] is None else Confusion(**given["confusion"])
            return Way(**given)
        except (KeyError, TypeError, ValueError) as error:
            fix = "Run the analysis again."
            raise ServingError(f"its settings cannot be used ({error}).", "model card", fix) from error


@dataclass(frozen=True, eq=False)
class Analyst:
    """An analysis at work: its models and its way."""

    eyes: Eyes
    way: Way

    @staticmethod
    def load(weights: str | Path, card: Mapping[str, Any]) -> "Analyst":
        """The analysis in one file of weights and its card, tried on a cut-out."""
        way = Way.of(card)
        with TemporaryDirectory() as folder:
            files = unpack(weights, Path(folder))
            if "hand" not in files:
                raise ServingError("holds no classifier of hands.", str(weights), "Run the analysis again.")
            usable = engine.load(files["usable"]) if "usable" in files else None
            maps = None
            if "segmenter" in files:
                maps = segmenters.Finder(segmenters.load(files["segmenter"]))
            eyes = Eyes(engine.load(files["hand"]), usable, maps)
        judged(eyes, np.zeros((1, pose.SIDE, pose.SIDE), np.uint8))
        return Analyst(eyes, way)


@dataclass(frozen=True, eq=False)
class Found:
    """What a picture holds: ``columns`` of its objects as in ``particles.parquet``, their ``boxes [N,4]``
    (x1, y1, x2, y2 in px), and its ``row`` of the population table."""

    measured: Measured
    columns: Mapping[str, Any]
    boxes: NDArray[np.float64]
    row: Mapping[str, Any]


def analysed(source: Windows, analyst: Analyst, nm: float | None = None) -> Found:
    """Work through a picture; ``nm`` is the side of its pixel where it does not tell it, in place of that of
    the analysis."""
    way, eyes = analyst.way, analyst.eyes
    levels = measured(source, way.settings, way.length_nm, nm or way.nm, eyes.maps_of)
    picture = Micrograph("", "", "", "")
    pieces = pieces_of(picture, levels, way.window, {})
    parts = [pa.table(look(source, p, way.settings, eyes, way.usable_from), SCHEMA) for p in pieces]
    objects = merged(parts, pieces)
    columns = described(picture, levels, objects, way.usable_from)
    counts = counted(picture, levels, columns)[0]
    boxes = np.stack([objects[name] for name in ("x1", "y1", "x2", "y2")], axis=1).astype(np.float64)
    return Found(levels, columns, boxes, population([counts], way.confusion, way.confidence, {})[-1])


def told(found: Found, way: Way) -> dict[str, Any]:
    """The answer as plain values: what cannot be known is None."""
    row = found.row
    counts = {"particles": row["particles"], "left": row["left"], "right": row["particles"] - row["left"]}
    return {
        "particles": _particles(found),
        "counts": counts | {reason: row[reason] for reason in REASONS},
        "left_share": {name: row[name] for name in SHARES},
        "confidence": way.confidence,
    }


def _particles(found: Found) -> list[dict[str, Any]]:
    """One entry for each object, in the order of ``particles.parquet``."""
    words = ("set_aside", "hand")
    figures = ("particle", "x", "y", "length_px", "width_px", "turn_deg")
    unsure = ("length_nm", "width_nm", "p_usable", "p_left")
    columns = {name: np.asarray(found.columns[name]).tolist() for name in figures}
    columns |= {name: list(found.columns[name]) for name in unsure}
    columns |= {name: [value or None for value in found.columns[name]] for name in words}
    columns["box"] = found.boxes.tolist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
