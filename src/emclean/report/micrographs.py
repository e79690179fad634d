"""Parts of micrographs with the particles that were found, and sheets of single particles."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

COLOURS = {
    "left": (230, 159, 0),
    "right": (86, 180, 233),
    "unusable": (204, 121, 167),
    "aside": (150, 150, 150),
}
"""By what a particle is (Okabe and Ito's colours, for the colour-blind)."""

GREYS = 64
"""Levels of grey of an overlay, which keeps its file small; the colours follow them in its palette."""

PALETTE = [
    *(level for grey in range(GREYS) for level in [grey * 255 // (GREYS - 1)] * 3),
    *(level for colour in COLOURS.values() for level in colour),
]

WORDS = (
    "Orange: left. Blue: right. Pink, dashed: pose shows no hand. Grey, dashed: border, debris or cluster."
)
POINTS = 48
"""Corners of a drawn outline."""

PER_ROW, CELL, LETTERS = 6, 112, 14
"""A sheet's cut-outs in a row, their side in px, and the height of what is written below."""

Columns = Mapping[str, NDArray[Any]]


def view(shape: tuple[int, int], y: NDArray[Any], x: NDArray[Any], side: int) -> tuple[slice, slice]:
    """The part of a picture to show: all of a small one, else ``side`` px where most particles lie."""
    height, width = shape
    if max(shape) <= 1.5 * side:
        return slice(0, height), slice(0, width)
    h, w = min(side, height), min(side, width)
    if not len(y):
        return slice(0, h), slice(0, w)
    rows, cols = (np.asarray(v) // side for v in (y, x))
    cells, counts = np.unique(np.stack([rows, cols], axis=1), axis=0, return_counts=True)
    row, col = cells[counts.argmax()]
    top, left = min(int(row * side), height - h), min(int(col * side), width - w)
    return slice(top, top + h), slice(left, left + w)


def overlay(pixels: NDArray[np.uint8], corner: tuple[int, int], columns: Columns) -> bytes:
    """PNG of grey ``pixels [H,W]`` that begin at ``corner`` (row, column), every particle outlined.

    ``columns``: ``x, y, length_px, width_px, turn_deg, set_aside, hand``, all ``[N]``; places are those in
    the whole picture.
    """
    canvas = Image.fromarray(pixels // np.uint8(256 // GREYS))
    canvas.putpalette(PALETTE)
    pen = ImageDraw.Draw(canvas)
    inside = (columns["y"] >= corner[0]) & (columns["y"] < corner[0] + pixels.shape[0])
    inside &= (columns["x"] >= corner[1]) & (columns["x"] < corner[1] + pixels.shape[1])
    for i in np.flatnonzero(inside).tolist():
        kind = _kind(str(columns["set_aside"][i]), str(columns["hand"][i]))
        outline = _outline(columns, i) - np.array([corner[1], corner[0]])
        _draw(pen, outline, GREYS + list(COLOURS).index(kind), dashed=kind in ("unusable", "aside"))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _kind(set_aside: str, hand: str) -> str:
    if set_aside in ("", "unusable"):
        return set_aside or hand
    return "aside"


def _outline(columns: Columns, i: int) -> NDArray[np.float64]:
    """The ellipse of a particle ``[POINTS,2]`` as x, y, a little larger than it."""
    turn, at = np.radians(float(columns["turn_deg"][i])), np.linspace(0, 2 * np.pi, POINTS)
    along = (float(columns["length_px"][i]) / 2 + 3) * np.cos(at)
    across = (float(columns["width_px"][i]) / 2 + 3) * np.sin(at)
    x = across * np.cos(turn) - along * np.sin(turn)
    y = across * np.sin(turn) + along * np.cos(turn)
    return np.stack([x + float(columns["x"][i]), y + float(columns["y"][i])], axis=1)


def _draw(pen: Any, points: NDArray[np.float64], colour: int, dashed: bool) -> None:
    """An outline in a colour of the palette."""
    for k in range(0, len(points) - 1, 2 if dashed else 1):
        pen.line([tuple(points[k]), tuple(points[k + 1])], fill=colour, width=2)


def sheet(entries: Sequence[tuple[float, bytes]]) -> bytes:
    """PNG of cut-outs (probability, PNG each), the probability written below each."""
    rows = -(-len(entries) // PER_ROW)
    canvas = Image.new("L", (PER_ROW * CELL, rows * (CELL + LETTERS)), 24)
    pen = ImageDraw.Draw(canvas)
    for k, (value, png) in enumerate(entries):
        x, y = (k % PER_ROW) * CELL, (k // PER_ROW) * (CELL + LETTERS)
        with Image.open(io.BytesIO(png)) as picture:
            canvas.paste(picture.convert("L").resize((CELL, CELL)), (x, y))
        pen.text((x + 4, y + CELL), f"{value:.3f}", fill=220)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
