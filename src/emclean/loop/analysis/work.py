"""The work on one picture or window, in whatever process: what came out is kept by its content."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from emclean.errors import ImageError
from emclean.imaging import windows
from emclean.imaging.segmentation import Settings
from emclean.loop.analysis.looking import SCHEMA, Eyes, look, maps_of, measured
from emclean.loop.analysis.pieces import Piece, decoded_in
from emclean.loop.states import write_atomically


@dataclass(frozen=True)
class Measuring:
    """Measures pictures; what came out goes to ``levels`` in ``home`` under the picture's and the settings'
    digest.

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
            out |= self._measured(asked["uri"], asked["image_id"])
        except ImageError as error:
            return json.dumps(out | {"reason": error.what})
        write_atomically(Path(self.home) / "levels" / f"{asked['key']}.json", json.dumps(out))
        return json.dumps(out)

    def _measured(self, uri: str, image_id: str) -> dict[str, Any]:
        with windows.opened(uri, decoded_in(Path(self.home), image_id)) as source:
            found = measured(source, self.settings, self.length_nm, self.nm, maps_of(self.segmenter))
            return asdict(found)


@dataclass(frozen=True)
class Search:
    """Finds and classifies the particles of windows; a window's file goes to ``windows`` in ``home``, named
    by its key.

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
        eyes = Eyes.of(self.hand, self.usable, self.segmenter)
        with windows.opened(piece.uri, decoded_in(Path(self.home), piece.image_id)) as source:
            return look(source, piece, self.settings, eyes, self.usable_from)

    def _keep(self, piece: Piece, columns: dict[str, Any]) -> None:
        table = pa.table(columns, SCHEMA)
        home = Path(self.home) / "windows"
        home.mkdir(parents=True, exist_ok=True)
        draft = home / f".{piece.key}.{os.getpid()}"
        pq.write_table(table, draft)
        draft.replace(home / f"{piece.key}.parquet")
