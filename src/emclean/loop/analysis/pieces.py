"""What an analysis is cut into: pictures, and their windows, each known by what decides its outcome."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from emclean.imaging.segmentation import Levels
from emclean.imaging.windows import Window, each

RECIPE = 3
"""Goes up when the same window would come out differently, so that results on file are not used again."""


@dataclass(frozen=True)
class Micrograph:
    """One picture: its name below the folder, its address, the digest of its content, and its sample."""

    name: str
    uri: str
    image_id: str
    sample: str

    def decoded_in(self, home: Path) -> Path:
        """Where the pixels of a large PNG or JPEG lie while it is analysed."""
        return decoded_in(home, self.image_id)


def decoded_in(home: Path, image_id: str) -> Path:
    """The file of the decoded pixels of a picture in an analysis' folder."""
    return home / "decoded" / f"{image_id}.npy"


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


@dataclass(frozen=True, eq=False)
class Pieces:
    """The windows of a picture, row by row, each made when it is asked for: there may be very many.

    ``given`` is all that decides what comes out beside picture, window and levels.
    """

    picture: Micrograph
    measured: Measured
    core: int
    given: Mapping[str, Any]

    def __iter__(self) -> Iterator[Piece]:
        picture, measured = self.picture, self.measured
        levels = asdict(measured.levels)
        for window in each(measured.shape, self.core, measured.levels.margin):
            facts = {
                "image": picture.image_id,
                "window": [_ends(window.core), _ends(window.outer)],
                "levels": levels,
                "given": dict(self.given),
                "recipe": RECIPE,
            }
            key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]
            yield Piece(picture.image_id, picture.uri, measured.shape, window, measured.levels, key)


def pieces_of(picture: Micrograph, measured: Measured, core: int, given: Mapping[str, Any]) -> list[Piece]:
    """All windows of a picture at once."""
    return list(Pieces(picture, measured, core, given))
