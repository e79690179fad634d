"""The work on one picture or window, in whatever process: what came out is kept by its content."""

import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from emclean.errors import ImageError
from emclean.imaging import pose, segmentation, windows
from emclean.imaging.segmentation import Instance, Settings
from emclean.loop.analysis.pieces import Piece
from emclean.loop.states import write_atomically
from emclean.models.classifiers import engine
from emclean.models.segmenters import engine as segmenters
from emclean.models.segmenters.unet import UNet
from emclean.types import Bools, Floats

SHOWN = 3
"""Cut-outs of each sort that a window keeps for the gallery: surest left and right, least sure, unusable."""

SCHEMA = pa.schema(
    [
        *((name, pa.float64()) for name in ("y", "x")),
        *((name, pa.int32()) for name in ("y1", "x1", "y2", "x2", "area")),
        *((name, pa.float64()) for name in ("length", "width", "turn", "solidity", "grey")),
        ("reason", pa.string()),
        ("owned", pa.bool_()),
        *((name, pa.float64()) for name in ("p_usable", "p_left")),
        ("picture", pa.binary()),
    ]
)
"""The columns of a window's file: lengths in px, the turn in radians; ``picture`` is a PNG, of few rows."""


@dataclass(frozen=True)
class Measuring:
    """Measures pictures; what came out goes to ``home`` under the picture's and the settings' digest.

    ``length_nm`` is a particle's usual length, ``nm`` the side of a pixel where a file does not tell it;
    ``segmenter`` is a U-Net's file of weights, None where a threshold finds particles.
    """

    settings: Settings
    length_nm: float | None
    nm: float | None
    home: str
    segmenter: str | None = None

    def __call__(self, text: str) -> str:
        """Measure the picture at ``uri``, to be kept as ``key``."""
        asked = json.loads(text)
        out: dict[str, Any] = {"key": asked["key"], "uri": asked["uri"], "reason": None}
        try:
            out |= self._measured(asked["uri"])
        except ImageError as error:
            return json.dumps(out | {"reason": error.what})
        write_atomically(Path(self.home) / f"{asked['key']}.json", json.dumps(out))
        return json.dumps(out)

    def _measured(self, uri: str) -> dict[str, Any]:
        with windows.opened(uri) as source:
            nm = source.pixel_size_nm or self.nm
            known = scaled(self.settings, self.length_nm, nm)
            levels = segmentation.measure(source, known, maps_of(self.segmenter))
            return {"shape": source.shape, "nm": nm, "levels": asdict(levels)}


def scaled(settings: Settings, length_nm: float | None, nm: float | None) -> Settings:
    """The settings with the usual length in px, where both are known."""
    length = None if length_nm is None or nm is None else length_nm / nm
    return Settings(**{**asdict(settings), "length": length})


@dataclass(frozen=True)
class Search:
    """Finds and classifies the particles of windows; a window's file goes to ``home`` under its key.

    ``hand`` and ``usable`` are files of weights (left is class 0; usable is class 1; None: all are usable),
    ``segmenter`` that of a U-Net, None where a threshold finds particles.
    """

    settings: Settings
    hand: str
    usable: str | None
    usable_from: float
    home: str
    segmenter: str | None = None

    def __call__(self, text: str) -> str:
        """Work through a window; a fault of its picture becomes an outcome that says so, and is not kept."""
        piece = Piece.of(text)
        out = {"key": piece.key, "image_id": piece.image_id, "pixels": piece.pixels, "reason": None}
        try:
            self._keep(piece, self.rows(piece))
        except ImageError as error:
            return json.dumps(out | {"reason": error.what})
        return json.dumps(out)

    def rows(self, piece: Piece) -> dict[str, Any]:
        """The columns of a window's table."""
        with windows.opened(piece.uri) as source:
            grey = segmentation.stretched(
                source.read(*piece.window.outer), piece.levels, self.settings.bright
            )
        maps = maps_of(self.segmenter)
        found = segmentation.segment(grey, piece.levels, self.settings, piece.window, piece.shape, maps)
        whole = np.array([not one.reason for one in found], np.bool_)
        cutouts = [_cutout(grey, one, piece) for one in found if not one.reason]
        p_usable, p_left = np.full((2, len(found)), np.nan)
        if cutouts:
            p_usable[whole], p_left[whole] = self._judged(np.stack(cutouts))
        columns = _columns(found)
        columns |= {"p_usable": p_usable, "p_left": p_left}
        columns["picture"] = self._pictures(whole, cutouts, p_usable, p_left)
        return columns

    def _judged(self, cutouts: NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """Probabilities ``[n]`` of being usable (the same for the mirror image) and of being left-handed."""
        p_left = engine.predict(_model(self.hand), cutouts)[:, 0]
        return usable_probability(self.usable, cutouts), p_left

    def _pictures(
        self, whole: Bools, cutouts: Sequence[NDArray[np.uint8]], p_usable: Floats, p_left: Floats
    ) -> list[bytes | None]:
        """The cut-outs that are kept to be shown, as PNG; None for all others."""
        kept: list[bytes | None] = [None] * len(whole)
        place = dict(zip(np.flatnonzero(whole).tolist(), cutouts, strict=True))
        for i in shown(p_usable, p_left, self.usable_from):
            buffer = io.BytesIO()
            Image.fromarray(place[i]).save(buffer, "PNG")
            kept[i] = buffer.getvalue()
        return kept

    def _keep(self, piece: Piece, columns: dict[str, Any]) -> None:
        table = pa.table(columns, SCHEMA)
        home = Path(self.home)
        home.mkdir(parents=True, exist_ok=True)
        draft = home / f".{piece.key}.{os.getpid()}"
        pq.write_table(table, draft)
        draft.replace(home / f"{piece.key}.parquet")


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


def usable_probability(weights: str | None, cutouts: NDArray[np.uint8]) -> Floats:
    """Probability ``[n]`` that the pose shows the hand, the same for a particle and its mirror image."""
    if weights is None:
        return np.ones(len(cutouts))
    mirrored = np.ascontiguousarray(cutouts[:, :, ::-1])
    one, other = (engine.predict(_model(weights), some)[:, 1] for some in (cutouts, mirrored))
    return np.asarray((one + other) / 2)


def maps_of(weights: str | None) -> segmentation.MapsOf | None:
    """What finds particles in grey pixels in place of a threshold, if anything."""
    if weights is None:
        return None
    return partial(segmenters.predict, _segmenter(weights, os.stat(weights).st_mtime_ns))


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
