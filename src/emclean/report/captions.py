"""A small picture, enlarged, with a line of words under it."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

SIDE = 256
_LINE = 18
_INK, _PAPER = (20, 20, 20), (245, 245, 245)


def enlarged(pixels: NDArray[np.uint8], side: int = SIDE) -> Image.Image:
    """A picture of at least ``side`` pixels: whole pixels become squares, nothing is made up."""
    times = max(1, -(-side // max(pixels.shape[:2])))
    picture = Image.fromarray(pixels)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def captioned(pixels: NDArray[np.uint8], words: str) -> bytes:
    """PNG of uint8 pixels ``[H,W]`` or ``[H,W,3]`` above the words."""
    picture = enlarged(pixels).convert("RGB")
    page = Image.new("RGB", (picture.width, picture.height + _LINE), _PAPER)
    page.paste(picture)
    ImageDraw.Draw(page).text((4, picture.height + 3), words, fill=_INK)
    out = io.BytesIO()
    page.save(out, "PNG")
    return out.getvalue()
