"""Where short words beside boxes go, so that they neither cover one another nor leave the picture."""

from collections.abc import Sequence
from dataclasses import dataclass

from emclean.types import Floats

POINTS = 10.0
"""Size of the letters, in points."""

_WIDE, _HIGH = 0.62, 1.3
"""Width of a letter and height of a line, in sizes of the letters."""

_COVERED = 0.15
"""Share of a word that may lie over others before it is left out."""


@dataclass(frozen=True, eq=False)
class Word:
    """A word that belongs to ``box [4]``, in any unit that the caller's picture has."""

    box: Floats
    text: str
    colour: str


Place = tuple[float, float, float, float]


def placed(words: Sequence[Word], view: Place, unit: float) -> list[tuple[Word, float, float]]:
    """The words that find room, each with its upper left corner; what does not is left out.

    ``view`` ``x1, y1, x2, y2`` is what is shown, with y growing downwards, and ``unit`` the size of a point
    in it. A box that is not shown has no word. A word goes above its box, else below, else inside, flush
    left or right.
    """
    taken: list[Place] = []
    found = []
    for word in words:
        width, height = len(word.text) * _WIDE * POINTS * unit, _HIGH * POINTS * unit
        if width > view[2] - view[0] or not _overlap(_place(word.box), view):
            continue
        corners = _candidates(word.box, width, height)
        spots = [_inside(x, y, width, height, view) for x, y in corners]
        best = min(spots, key=lambda spot: sum(_overlap(spot, other) for other in taken))
        if sum(_overlap(best, other) for other in taken) <= _COVERED * width * height:
            taken.append(best)
            found.append((word, best[0], best[1]))
    return found


def _place(box: Floats) -> Place:
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])


def _candidates(box: Floats, width: float, height: float) -> list[tuple[float, float]]:
    x1, y1, x2, y2 = _place(box)
    return [(x, y) for y in (y1 - height, y2, y1) for x in (x1, x2 - width)]


def _inside(x: float, y: float, width: float, height: float, view: Place) -> Place:
    """The word's place, moved into what is shown."""
    x = min(max(x, view[0]), view[2] - width)
    y = min(max(y, view[1]), view[3] - height)
    return x, y, x + width, y + height


def _overlap(one: Place, other: Place) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
