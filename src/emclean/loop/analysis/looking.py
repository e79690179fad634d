"""What is found in one window of a picture: segmented, turned upright, judged.

No file but weights is read here, so that a job, the served model and a registered one do the same.
"""

import io
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from emclean.imaging import pose, segmentation
from emclean.imaging.segmentation import Instance, Settings
from emclean.imaging.windows import Windows
from emclean.loop.analysis.pieces import Measured, Piece
from emclean.models.classifiers import engine
from emclean.models.segmenters import engine as segmenters
from emclean.models.segmenters.unet import UNet
from emclean.types import Bools, Floats

SHOWN = 3
"""Cut-outs of each sort that a window keeps for the gallery: surest left and right, least sure, unusable."""

BYTES = ("mask", "picture")

SCHEMA = pa.schema(
    [
        *((name, pa.float64()) for name in ("y", "x")),
        *((name, pa.int32()) for name in ("y1", "x1", "y2", "x2", "area")),
        *((name, pa.float64()) for name in ("length", "width", "turn", "solidity", "grey")),
        ("reason", pa.string()),
        ("owned", pa.bool_()),
        *((name, pa.float64()) for name in ("p_usable", "p_left")),
        *((name, pa.binary()) for name in BYTES),
    ]
)
"""The columns of a window: lengths in px, the turn in radians; ``mask`` is that of a whole particle within
its box (:func:`masked` reads it), ``picture`` a PNG, of few rows."""


@dataclass(frozen=True, eq=False)
class Eyes:
    """Loaded models: of hands (left is class 0), of usable poses (usable is class 1; None: all are usable),
    and what finds particles in grey pixels in place of a threshold, if anything."""

    hand: engine.Ensemble
    usable: engine.Ensemble | None
    maps_of: segmenters.Finder | None = None

    @staticmethod
    def of(hand: str, usable: str | None, segmenter: str | None) -> "Eyes":
        """The models in these files of weights, kept by the process for its next window."""
        return Eyes(_model(hand), None if usable is None else _model(usable), maps_of(segmenter))


def measured(
    source: Windows,
    settings: Settings,
    length_nm: float | None,
    nm: float | None,
    maps: segmentation.MapsOf | None = None,
) -> Measured:
    """Measure a picture; ``nm`` is the side of its pixel where its file does not tell it."""
    nm = source.pixel_size_nm or nm
    return Measured(source.shape, nm, segmentation.measure(source, scaled(settings, length_nm, nm), maps))


def scaled(settings: Settings, length_nm: float | None, nm: float | None) -> Settings:
    """The settings with the usual length in px, where both are known."""
    length = None if length_nm is None or nm is None else length_nm / nm
    return Settings(**{**asdict(settings), "length": length})


def look(source: Windows, piece: Piece, settings: Settings, eyes: Eyes, usable_from: float) -> dict[str, Any]:
    """The columns of a window's table (:data:`SCHEMA`)."""

    def read(rows: slice, cols: slice) -> NDArray[np.uint8]:
        return segmentation.stretched(source.read(rows, cols), piece.levels, settings.bright)

    def maps_of(grey: NDArray[np.uint8]) -> tuple[segmentation.Plane, segmentation.Plane]:
        assert eyes.maps_of is not None
        return eyes.maps_of.part(read, *piece.window.outer, piece.shape)

    grey, maps = read(*piece.window.outer), maps_of if eyes.maps_of else None
    found = segmentation.segment(grey, piece.levels, settings, piece.window, piece.shape, maps)
    whole = np.array([not one.reason for one in found], np.bool_)
    cutouts = [_cutout(grey, one, piece) for one in found if not one.reason]
    p_usable, p_left = np.full((2, len(found)), np.nan)
    if cutouts:
        p_usable[whole], p_left[whole] = judged(eyes, np.stack(cutouts))
    columns = _columns(found)
    columns |= {"p_usable": p_usable, "p_left": p_left}
    columns["mask"] = [None if one.reason else _packed(one.mask) for one in found]
    columns["picture"] = _pictures(whole, cutouts, shown(p_usable, p_left, usable_from))
    return columns


def judged(eyes: Eyes, cutouts: NDArray[np.uint8]) -> tuple[Floats, Floats]:
    """Probabilities ``[n]`` of being usable (the same for the mirror image) and of being left-handed."""
    return usable_probability(eyes.usable, cutouts), engine.predict(eyes.hand, cutouts)[:, 0]


def _pictures(whole: Bools, cutouts: Sequence[NDArray[np.uint8]], kept: Sequence[int]) -> list[bytes | None]:
    """The cut-outs that are kept to be shown, as PNG; None for all others."""
    pictures: list[bytes | None] = [None] * len(whole)
    place = dict(zip(np.flatnonzero(whole).tolist(), cutouts, strict=True))
    for i in kept:
        pictures[i] = png(place[i])
    return pictures


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _packed(mask: Bools) -> bytes:
    return zlib.compress(np.packbits(mask).tobytes())


def masked(mask: bytes, height: int, width: int) -> Bools:
    """The mask ``[height,width]`` that a window keeps of a particle."""
    bits = np.frombuffer(zlib.decompress(mask), np.uint8)
    return np.unpackbits(bits, count=height * width).reshape(height, width).astype(np.bool_)


def shown(p_usable: Floats, p_left: Floats, usable_from: float, n: int = SHOWN) -> list[int]:
    """Which particles a gallery shows: the surest of either hand, the least sure, and some unusable ones."""
    usable = np.flatnonzero(p_usable >= usable_from)
    other = np.flatnonzero(p_usable < usable_from)
    by_hand = usable[np.argsort(p_left[usable], kind="stable")]
    doubtful = usable[np.argsort(np.abs(p_left[usable] - 0.5), kind="stable")]
    worst = other[np.argsort(p_usable[other], kind="stable")]
    chosen = [*by_hand[:n], *by_hand[::-1][:n], *doubtful[:n], *worst[:n]]
    return sorted({int(i) for i in chosen})


def _cutout(grey: NDArray[np.uint8], one: Instance, piece: Piece) -> NDArray[np.uint8]:
    y, x = piece.window.corner
    y1, x1, y2, x2 = one.box
    return pose.cutout(grey[y1 - y : y2 - y, x1 - x : x2 - x], one.mask)


def _columns(found: Sequence[Instance]) -> dict[str, Any]:
    """What segmentation says of each object, by column."""
    boxes = zip(*(one.box for one in found), strict=True) if found else ([], [], [], [])
    return {
        "y": [one.form.y for one in found],
        "x": [one.form.x for one in found],
        **dict(zip(("y1", "x1", "y2", "x2"), (list(ends) for ends in boxes), strict=True)),
        "area": [one.area for one in found],
        "length": [one.form.length for one in found],
        "width": [one.form.width for one in found],
        "turn": [one.form.turn for one in found],
        "solidity": [one.solidity for one in found],
        "grey": [one.grey for one in found],
        "reason": [one.reason for one in found],
        "owned": [one.owned for one in found],
    }


def usable_probability(weights: str | engine.Ensemble | None, cutouts: NDArray[np.uint8]) -> Floats:
    """Probability ``[n]`` that the pose shows the hand, the same for a particle and its mirror image."""
    if weights is None:
        return np.ones(len(cutouts))
    mirrored = np.ascontiguousarray(cutouts[:, :, ::-1])
    one, other = (engine.predict(weights, some)[:, 1] for some in (cutouts, mirrored))
    return np.asarray((one + other) / 2)


def maps_of(weights: str | None) -> segmenters.Finder | None:
    """What finds particles in grey pixels in place of a threshold, if anything."""
    if weights is None:
        return None
    return segmenters.Finder(_segmenter(weights, os.stat(weights).st_mtime_ns))


@lru_cache(maxsize=2)
def _segmenter(weights: str, changed: int) -> UNet:
    """The U-Net, kept by the worker for its next window."""
    return segmenters.load(weights)


def _model(weights: str) -> engine.Ensemble:
    return _loaded(weights, os.stat(weights).st_mtime_ns)


@lru_cache(maxsize=4)
def _loaded(weights: str, changed: int) -> engine.Ensemble:
    """The classifier, kept by the worker for its next window; ``changed`` tells a file written anew."""
    return engine.load(weights)
