"""Reads micrographs (PNG, JPEG and TIFF, told apart by content) as grey pixels.

Positions are those of the stored pixels: an orientation noted in EXIF is not applied, as labels refer to
the stored picture too.
"""

import hashlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from emclean.errors import ImageError
from emclean.imaging import tiff

Pixels = NDArray[np.uint8] | NDArray[np.uint16] | NDArray[np.float32]

MAX_BYTES = 1 << 30
"""Default limit on a file's size: 1 GiB."""

MAX_PIXELS = 400_000_000
"""Default limit on a picture's pixels, checked before anything is decompressed: 20,000 x 20,000."""

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
"""What files of these kinds begin with."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A micrograph: ``pixels [H,W]`` uint8, uint16 or float32, grey; ``bit_depth`` 8, 16 or 32.

    ``pixel_size_nm`` is None where the file does not truly tell it; ``notes`` say what was left out.
    """

    pixels: Pixels
    bit_depth: int
    pixel_size_nm: float | None = None
    notes: tuple[str, ...] = ()


def image_id(data: bytes) -> str:
    """The content address: the first 16 hex digits of the SHA-256 of the file's bytes."""
    return hashlib.sha256(data).hexdigest()[:16]


def read_bytes(uri: str, max_bytes: int = MAX_BYTES) -> bytes:
    """The bytes of a local path or fsspec URI; refuse a file that is missing, empty or over the limit."""
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read(max_bytes + 1)
    except (OSError, ValueError, ImportError) as cause:
        raise ImageError(f"cannot be opened: {cause}.", uri, "Check the path and the rights.") from cause
    return _checked(data, uri, max_bytes)


def read(
    source: str | bytes, name: str = "", max_bytes: int = MAX_BYTES, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Read a picture from a path, a URI or its bytes; ``name`` stands for it in messages."""
    name = name or (source if isinstance(source, str) else "picture")
    data = read_bytes(source, max_bytes) if isinstance(source, str) else _checked(source, name, max_bytes)
    try:
        return _decode(data, name, max_pixels)
    except ImageError:
        raise
    except Exception as cause:  # decoders of damaged files raise anything, from struct.error to IndexError
        raise ImageError(f"truncated or damaged ({_words(cause)}).", name, "Export it again.") from cause


def of_array(pixels: NDArray[Any]) -> NDArray[Any]:
    """The grey pixels ``[H,W]`` as which a file of ``pixels`` (``[H,W]``, or colours ``[H,W,C]``) is read."""
    if pixels.ndim == 2:
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[-1] >= 3:  # Pillow rounds in its own way
        return np.asarray(Image.fromarray(pixels[..., :3]).convert("L"), dtype=np.uint8)
    grey = tiff.luminance(pixels)
    return np.asarray(np.round(grey) if pixels.dtype.kind in "ui" else grey, dtype=pixels.dtype)


def to_grey8(pixels: NDArray[Any], low: float = 0.2, high: float = 99.8) -> NDArray[np.uint8]:
    """Grey of 8 bits ``[H,W]``: 8-bit pixels as they are, deeper ones stretched between two percentiles.

    Pixels that are NaN or infinite become black; a picture of one value becomes mid-grey.
    """
    if pixels.dtype == np.uint8:
        return np.asarray(pixels, dtype=np.uint8)
    step = max(1, int(np.sqrt(pixels.size / 1e6)))  # a million pixels tell the percentiles well enough
    sample = pixels[::step, ::step]
    sample = sample[np.isfinite(sample)]
    if not sample.size:
        return np.zeros(pixels.shape, np.uint8)
    bottom, top = (float(edge) for edge in np.percentile(sample, (low, high)))
    if top <= bottom:
        bottom, top = float(sample.min()), float(sample.max())
    if top <= bottom:
        return np.full(pixels.shape, 128, np.uint8)
    scaled = (pixels.astype(np.float32) - bottom) * (255.0 / (top - bottom))
    scaled = np.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0)
    return np.asarray(np.clip(scaled + 0.5, 0, 255), dtype=np.uint8)


def _words(cause: Exception) -> str:
    return str(cause).strip().rstrip(".") or type(cause).__name__


def _checked(data: bytes, name: str, max_bytes: int) -> bytes:
    if not data:
        raise ImageError("the file is empty.", name, "Export it again.")
    if len(data) > max_bytes:
        raise ImageError(
            f"larger than the limit of {max_bytes:,} bytes.", name, "Crop it, or raise the limit."
        )
    return data


def _decode(data: bytes, name: str, max_pixels: int) -> Picture:
    if data.startswith(tiff.SIGNATURES):
        return _from_tiff(data, name, max_pixels)
    # The file classes themselves, since Image.open would judge the size by a limit global to the process.
    if data.startswith(PNG):
        return _from_pillow(PngImageFile(BytesIO(data)), name, max_pixels)
    if data.startswith(JPEG):
        return _from_pillow(JpegImageFile(BytesIO(data)), name, max_pixels)
    raise ImageError("not a PNG, JPEG or TIFF file, by its content.", name, "Convert it to one of these.")


def _check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"the picture has no pixels ({width} x {height}).", name, "Export it again.")
    if width * height > max_pixels:
        what = f"{width} x {height} pixels are more than the limit of {max_pixels:,}."
        raise ImageError(what, name, "Crop it, or raise the limit.")


def _from_pillow(image: Image.Image, name: str, max_pixels: int) -> Picture:
    """PNG or JPEG. Their dots per inch are a wish for printing, so no pixel size is taken from them."""
    _check_pixels(image.width, image.height, name, max_pixels)
    pixels = grey_of(image)
    return Picture(pixels, 8 * pixels.dtype.itemsize)


def grey_of(image: Image.Image) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The grey pixels ``[H,W]`` of a picture that Pillow has opened, of 8 bits or, where it has them, 16."""
    if image.mode.startswith("I"):
        return np.array(image).astype(np.uint16)
    if image.mode == "P":
        image = image.convert("RGB")
    return np.array(image.convert("L"), dtype=np.uint8)


def _from_tiff(data: bytes, name: str, max_pixels: int) -> Picture:
    with tiff.opened(data) as file:
        page = file.pages[0]
        _check_pixels(page.imagewidth, page.imagelength * page.imagedepth, name, max_pixels)
        tiff.check_samples(page, max_pixels, name)
        tiff.check_complete(page, len(data), name)
        pixels = tiff.grey(page, name)
        pages = tiff.page_count(file)
        notes = (f"only the first of {pages} pages is used",) if pages > 1 else ()
        depth = 8 * pixels.dtype.itemsize
        return Picture(pixels, depth, tiff.pixel_size_nm(file), notes)


def read_rgb8(data: bytes, name: str = "picture") -> NDArray[np.uint8]:
    """The colours ``[H,W,3]`` of a PNG or JPEG in 8 bits; of any other picture its grey, three times."""
    grey = to_grey8(read(data, name).pixels)  # which also judges size and damage
    kind = PngImageFile if data.startswith(PNG) else JpegImageFile if data.startswith(JPEG) else None
    image = kind(BytesIO(data)) if kind else None
    if image is None or image.mode not in ("P", "RGB", "RGBA", "CMYK"):
        return np.repeat(grey[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"), dtype=np.uint8)
