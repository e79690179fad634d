"""Small pictures of one size: those of a folder brought to it, or the tiles of one sheet."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from emclean.errors import ImageError
from emclean.imaging import readers

Pixels8 = NDArray[np.uint8]
"""``[H,W]`` grey or ``[H,W,3]`` colours."""


def read8(data: bytes, name: str, colour: bool = False) -> Pixels8:
    """A picture in 8 bits: its grey, or its colours."""
    return readers.read_rgb8(data, name) if colour else readers.to_grey8(readers.read(data, name).pixels)


class Sheet:
    """A picture made of square tiles of ``side`` pixels, numbered from 0, row by row."""

    def __init__(self, pixels: Pixels8, side: int, name: str) -> None:
        height, width = pixels.shape[:2]
        if height % side or width % side:
            what = f"{width} x {height} pixels are not whole tiles of {side} x {side}."
            raise ImageError(what, name, "Give the side of its tiles.")
        self._pixels, self._side = pixels, side
        self._rows, self._columns = height // side, width // side

    def __len__(self) -> int:
        return self._rows * self._columns

    def tile(self, number: str) -> Pixels8:
        """The tile of this number, as it stands in a label file."""
        if not number.isdecimal() or int(number) >= len(self):
            raise ImageError(f"no tile has the number {number!r}; there are 0 to {len(self) - 1}.")
        row, column = divmod(int(number), self._columns)
        top, left = row * self._side, column * self._side
        return self._pixels[top : top + self._side, left : left + self._side]


def fitted(pixels: Pixels8, height: int, width: int) -> Pixels8:
    """The picture in ``height`` x ``width`` pixels: scaled as a whole, its sides' ratio kept, and centred.

    What is left at two sides is filled with the median of the picture's border.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    scale = min(height / pixels.shape[0], width / pixels.shape[1])
    h, w = (max(1, round(side * scale)) for side in pixels.shape[:2])
    small = np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling.BILINEAR), dtype=np.uint8)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    out = np.empty((height, width, *pixels.shape[2:]), np.uint8)
    out[:] = np.median(border, axis=0).astype(np.uint8)
    top, left = (height - h) // 2, (width - w) // 2
    out[top : top + h, left : left + w] = small
    return out
