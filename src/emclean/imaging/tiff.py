"""What is particular to TIFF: many sample types, and pixel sizes told in many ways."""

import re
import xml.etree.ElementTree as ElementTree
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from emclean.errors import ImageError

SIGNATURES = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
"""What a TIFF or BigTIFF file begins with."""

NANOMETRES = {
    "pm": 1e-3, "a": 0.1, "å": 0.1, "angstrom": 0.1, "nm": 1.0, "nanometer": 1.0, "um": 1e3, "µm": 1e3,
    "μm": 1e3, "micron": 1e3, "microns": 1e3, "mm": 1e6, "cm": 1e7, "m": 1e9, "inch": 2.54e7,
}  # fmt: skip
"""Length units met in image files, in nanometres."""

LARGEST_NM = 1000.0
"""A resolution tag with coarser pixels than this is meant for printing (300 dpi are 85 µm), not measured."""

CHANNELS = 4
"""Samples that each of the pixels within a limit may have on average: red, green, blue and an alpha."""

_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
_MIN_IS_WHITE, _PALETTE = 0, 3
_CONTIGUOUS = 1  # planar configuration: the samples of a pixel lie together


def opened(data: bytes) -> AbstractContextManager[Any]:
    """The open file; a context manager."""
    file: AbstractContextManager[Any] = tifffile.TiffFile(BytesIO(data))
    return file


def page_count(file: Any) -> int:
    """How many pictures the file holds; ImageJ writes many into one page."""
    stack = (file.imagej_metadata or {}).get("images", 1)
    return max(len(file.pages), int(stack))


def check_samples(page: Any, max_pixels: int, name: str) -> None:
    """Refuse a page that would decode to more than :data:`CHANNELS` samples for each of ``max_pixels``.

    A pixel may have thousands of samples, and a tile may be far larger than its picture.
    """
    tile = page.tilewidth * page.tilelength * page.tiledepth
    if page.planarconfig == _CONTIGUOUS:
        tile *= page.samplesperpixel
    most = max(page.size, tile if page.is_tiled else 0)
    if most > CHANNELS * max_pixels:
        limit = f"{CHANNELS} for each pixel of the limit of {max_pixels:,}"
        raise ImageError(f"{most:,} samples to decode are more than {limit}.", name, "Export it as grey.")


def check_complete(page: Any, n_bytes: int, name: str) -> None:
    """Refuse a page whose pixels lie beyond the end of the file; the decoder would fill them with black."""
    ends = [
        start + length for start, length in zip(page.dataoffsets, page.databytecounts, strict=False) if length
    ]
    if not ends or max(ends) > n_bytes:
        missing = max(ends) - n_bytes if ends else 0
        what = f"truncated: {missing:,} bytes of its pixels are missing." if ends else "holds no pixels."
        raise ImageError(what, name, "Copy or export it again.")


def grey(page: Any, name: str) -> NDArray[Any]:
    """The page's pixels ``[H,W]`` as uint8, uint16 or float32 grey."""
    return grey_of(np.asarray(page.asarray()), page, page.axes, name)


def grey_of(samples: NDArray[Any], page: Any, axes: str, name: str) -> NDArray[Any]:
    """Grey ``[H,W]`` of samples that were read from a page, or from a part of it, with these axes."""
    if samples.dtype.kind not in "buif":
        raise ImageError(f"its pixels are of type {samples.dtype}, not grey or colour.", name, "Convert it.")
    if page.photometric == _PALETTE and page.colormap is not None:
        palette = _LUMA @ page.colormap.astype(np.float32) / 257  # 16-bit colours, [entries]
        return _depth(palette[_plane(samples, axes)], 8)
    plane = _plane(samples, axes)
    bits = int(page.bitspersample)
    if samples.dtype.kind in "bu" and bits < 8:
        plane, bits = plane.astype(np.float32) * (255.0 / (2**bits - 1)), 8
    if page.photometric == _MIN_IS_WHITE and samples.dtype.kind in "bu":
        plane = (2 ** (8 * samples.dtype.itemsize) - 1) - plane
    return _depth(plane, bits if samples.dtype.kind in "bu" else 32)


def luminance(colours: NDArray[Any]) -> NDArray[Any]:
    """Grey ``[...]`` of colours ``[..., C]`` (ITU-R BT.601); of one or two channels the first is grey."""
    return colours[..., :3] @ _LUMA if colours.shape[-1] >= 3 else colours[..., 0]


def _plane(samples: NDArray[Any], axes: str) -> NDArray[Any]:
    """One grey plane of a page with axes such as YX, YXS, SYX or ZYX."""
    if "S" in axes:
        samples = luminance(np.moveaxis(samples, axes.index("S"), -1))
    while samples.ndim > 2:
        samples = samples[0]
    return samples


def _depth(plane: NDArray[Any], bits: int) -> NDArray[Any]:
    if bits > 16:
        return plane.astype(np.float32)
    rounded = np.round(plane) if plane.dtype.kind == "f" else plane
    return rounded.astype(np.uint8 if bits <= 8 else np.uint16)


def pixel_size_nm(file: Any) -> float | None:
    """The side of a pixel in nm, from the first of these that tells a sensible one, else None.

    OME-XML, FEI, Zeiss and Olympus SIS metadata, ImageJ's unit, the plain resolution tags.
    """
    for source in (_from_ome, _from_fei, _from_zeiss, _from_sis, _from_imagej, _from_tags):
        try:
            size = source(file)
        except (KeyError, ValueError, TypeError, IndexError, ZeroDivisionError, ElementTree.ParseError):
            continue  # metadata that cannot be understood tells nothing; the next source may
        if size is not None and np.isfinite(size) and size > 0:
            return float(size)
    return None


def _nm(value: float, unit: str) -> float | None:
    factor = NANOMETRES.get(unit.strip().lower())
    return None if factor is None else value * factor


def _from_ome(file: Any) -> float | None:
    text = file.ome_metadata
    if not text or "<!ENTITY" in text:
        return None
    for element in ElementTree.fromstring(text).iter():
        if element.tag.endswith("Pixels") and "PhysicalSizeX" in element.attrib:
            return _nm(float(element.attrib["PhysicalSizeX"]), element.attrib.get("PhysicalSizeXUnit", "µm"))
    return None


def _from_fei(file: Any) -> float | None:
    metadata = file.fei_metadata
    return float(metadata["Scan"]["PixelWidth"]) * 1e9 if metadata else None


def _from_zeiss(file: Any) -> float | None:
    metadata = file.sem_metadata or {}
    for key in ("ap_image_pixel_size", "ap_pixel_size"):
        if key in metadata:
            _, value, unit = metadata[key]
            return _nm(float(value), unit)
    return None


def _from_sis(file: Any) -> float | None:
    metadata = file.sis_metadata
    return float(metadata["pixelsizex"]) * 1e9 if metadata else None


def _from_imagej(file: Any) -> float | None:
    """ImageJ gives its unit in the description, and pixels per unit in the resolution tag."""
    unit = (file.imagej_metadata or {}).get("unit", "")
    unit = re.sub(r"\\u00b5", "µ", str(unit), flags=re.IGNORECASE)
    return _nm(1 / _per_unit(file), unit)


def _from_tags(file: Any) -> float | None:
    if file.is_imagej:
        return None
    unit = int(file.pages[0].tags["ResolutionUnit"].value)
    size = _nm(1 / _per_unit(file), {2: "inch", 3: "cm"}.get(unit, ""))
    return size if size is not None and size < LARGEST_NM else None


def _per_unit(file: Any) -> float:
    above, below = file.pages[0].tags["XResolution"].value
    return float(above) / float(below)
