"""What an analysis is cut into: pictures, and their windows, each known by what decides its outcome."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from emclean.imaging.segmentation import Levels
from emclean.imaging.windows import Window, plan

RECIPE = 3
"""Goes up when the same window would come out differently, so that results on file are not used again."""


@dataclass(frozen=True)
class Micrograph:
    """One picture: its name below the folder, its address, the digest of its content, and its sample."""

    name: str
    uri: str
    image_id: str
    sample: str


@dataclass(frozen=True)
class Measured:
    """What was measured of a picture: its size in px, the side of a pixel in nm, and its levels."""

    shape: tuple[int, int]
    nm: float | None
    levels: Levels


@dataclass(frozen=True)
class Piece:
    """One window of a picture, and by what it is known again; it passes between processes as text."""

    image_id: str
    uri: str
    shape: tuple[int, int]
    window: Window
    levels: Levels
    key: str

    @property
    def pixels(self) -> int:
        """The size of its core."""
        rows, cols = self.window.core
        return int((rows.stop - rows.start) * (cols.stop - cols.start))

    def text(self) -> str:
        """The piece as JSON."""
        return json.dumps(
            {
                "image_id": self.image_id,
                "uri": self.uri,
                "shape": self.shape,
                "number": self.window.number,
                "core": _ends(self.window.core),
                "outer": _ends(self.window.outer),
                "levels": asdict(self.levels),
                "key": self.key,
            }
        )

    @staticmethod
    def of(text: str) -> "Piece":
        """The piece that ``text`` wrote."""
        given = json.loads(text)
        window = Window(given["number"], _slices(given["core"]), _slices(given["outer"]))
        shape = given["shape"][0], given["shape"][1]
        return Piece(given["image_id"], given["uri"], shape, window, Levels(**given["levels"]), given["key"])


def _ends(parts: tuple[slice, slice]) -> list[int]:
    return [end for part in parts for end in (part.start, part.stop)]


def _slices(ends: list[int]) -> tuple[slice, slice]:
    return slice(ends[0], ends[1]), slice(ends[2], ends[3])


def pieces_of(picture: Micrograph, measured: Measured, core: int, given: Mapping[str, Any]) -> list[Piece]:
    """The windows of a picture; ``given`` is all else that decides what comes out."""
    made = []
    for window in plan(measured.shape, core, measured.levels.margin):
        facts = {
            "image": picture.image_id,
            "window": [_ends(window.core), _ends(window.outer)],
            "levels": asdict(measured.levels),
            "given": dict(given),
            "recipe": RECIPE,
        }
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
        made.append(Piece(picture.image_id, picture.uri, measured.shape, window, measured.levels, key))
    return made
