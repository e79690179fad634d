"""Large pictures read by window: a part of a TIFF is read without the rest, whatever its size.

Tiles, strips and plain uncompressed pixels are read where they lie in the file. A PNG or JPEG is decoded once
into a file that can be read by part, where there is a place for one (``imaging/decoded``); without, and for
TIFF with separate colour planes, it is read as a whole, within the usual limits.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Any, Protocol

import fsspec
import numpy as np
import tifffile
from numpy.typing import NDArray

from emclean.errors import ImageError
from emclean.imaging import decoded, readers, tiff

CACHE_BYTES = 96_000_000
"""Decoded tiles and strips that a reader keeps: neighbouring windows share them."""

Shape = tuple[int, int]


class Windows(Protocol):
    """A picture whose parts can be read; ``pixel_size_nm`` is None where the file does not tell it."""

    @property
    def shape(self) -> Shape:
        """Rows and columns."""

    @property
    def pixel_size_nm(self) -> float | None:
        """The side of a pixel in nm."""

    def read(self, rows: slice, cols: slice) -> NDArray[Any]:
        """The grey pixels of a part, uint8, uint16 or float32."""


@dataclass(frozen=True)
class Window:
    """A part of a picture: its ``core`` rows and columns, and the ``outer`` ones with a margin round them."""

    number: int
    core: tuple[slice, slice]
    outer: tuple[slice, slice]

    @property
    def corner(self) -> Shape:
        """Row and column at which the outer part begins."""
        return self.outer[0].start, self.outer[1].start

    def holds(self, y: float, x: float, beyond: float = 0.0) -> bool:
        """Whether a point of the picture lies in the core, or up to ``beyond`` px outside it."""
        rows, cols = self.core
        inside_rows = rows.start - beyond <= y < rows.stop + beyond
        return bool(inside_rows and cols.start - beyond <= x < cols.stop + beyond)


def plan(shape: Shape, core: int, margin: int) -> list[Window]:
    """Windows whose cores of about ``core`` px a side tile the picture, row by row."""
    return list(each(shape, core, margin))


def each(shape: Shape, core: int, margin: int) -> Iterator[Window]:
    """The windows of :func:`plan`, one at a time."""
    edges = [_edges(length, core) for length in shape]
    for number, ((y1, y2), (x1, x2)) in enumerate(product(*edges)):
        outer = (
            slice(max(y1 - margin, 0), min(y2 + margin, shape[0])),
            slice(max(x1 - margin, 0), min(x2 + margin, shape[1])),
        )
        yield Window(number, (slice(y1, y2), slice(x1, x2)), outer)


def _edges(length: int, core: int) -> list[tuple[int, int]]:
    n = max(round(length / core), 1)
    cuts = [length * i // n for i in range(n + 1)]
    return list(pairwise(cuts))


@contextmanager
def opened(uri: str, decoded_to: Path | None = None) -> Iterator[Windows]:
    """A picture (path or URI) of which parts can be read.

    ``decoded_to`` is the place of the decoded pixels of a large PNG or JPEG, shared by all that read it; the
    file there stays.
    """
    with ExitStack() as stack:
        file = _file(uri, stack)
        if not file.read(4).startswith(tiff.SIGNATURES):
            yield _unpacked(uri, decoded_to, stack)
            return
        file.seek(0)
        try:
            container = stack.enter_context(tifffile.TiffFile(file))
            page = container.pages[0]
            partly = page.planarconfig == 1 and page.imagedepth == 1 and page.ndim <= 3
        except Exception as cause:  # damaged files raise anything, from struct.error to IndexError
            raise ImageError(f"damaged ({cause}).", uri, "Export it again.") from cause
        yield _Parts(file, container, uri) if partly else Whole(readers.read(uri))


def _unpacked(uri: str, decoded_to: Path | None, stack: ExitStack) -> Windows:
    """A PNG or JPEG: from the file of its decoded pixels where it is large, else decoded here."""
    if decoded_to is None or (decoded.pixels_of(uri) or 0) <= decoded.SMALL:
        return Whole(readers.read(uri))
    return stack.enter_context(closing(decoded.decoded(uri, decoded_to)))


def _file(uri: str, stack: ExitStack) -> Any:
    try:
        return stack.enter_context(fsspec.open(uri, "rb"))
    except (OSError, ValueError, ImportError) as cause:
        raise ImageError(f"cannot be opened: {cause}.", uri, "Check the path and the rights.") from cause


class Whole:
    """A picture that is in memory as a whole."""

    def __init__(self, picture: readers.Picture) -> None:
        self._pixels = picture.pixels
        self.shape: Shape = (picture.pixels.shape[0], picture.pixels.shape[1])
        self.pixel_size_nm = picture.pixel_size_nm

    def read(self, rows: slice, cols: slice) -> NDArray[Any]:
        """The grey pixels of a part."""
        return np.asarray(self._pixels[rows, cols])


class _Parts:
    """The first page of a TIFF, of which only the needed tiles, strips or rows are read."""

    def __init__(self, file: Any, container: Any, name: str) -> None:
        self._file, self._page, self._name = file, container.pages[0], name
        page = self._page
        self.shape: Shape = (int(page.imagelength), int(page.imagewidth))
        if min(self.shape) < 1:
            raise ImageError("the picture has no pixels.", name, "Export it again.")
        self.pixel_size_nm = tiff.pixel_size_nm(container)
        size = file.seek(0, 2)
        tiff.check_complete(page, size, name)
        self._plain = bool(page.is_memmappable)
        self._depth = int(page.samplesperpixel)
        self._tile = (
            (page.tilelength, page.tilewidth) if page.is_tiled else (page.rowsperstrip, self.shape[1])
        )
        largest = self._tile[0] * self._tile[1]
        if not self._plain and largest > readers.MAX_PIXELS:
            what = f"its pixels are packed in pieces of {largest:,}, which cannot be read by part."
            raise ImageError(what, name, "Save it as tiled TIFF.")
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()

    def read(self, rows: slice, cols: slice) -> NDArray[Any]:
        """The grey pixels of a part."""
        try:
            samples = self._rows(rows, cols) if self._plain else self._pieces(rows, cols)
            return tiff.grey_of(samples, self._page, "YXS" if self._depth > 1 else "YX", self._name)
        except ImageError:
            raise
        except Exception as cause:  # decoders of damaged files raise anything
            where = f"{self._name}, rows {rows.start}-{rows.stop}"
            raise ImageError(f"damaged ({cause}).", where, "Export it again.") from cause

    def _rows(self, rows: slice, cols: slice) -> NDArray[Any]:
        """Uncompressed pixels in one block: read row by row."""
        dtype = np.dtype(self._page.parent.byteorder + self._page.dtype.char)
        step = dtype.itemsize * self._depth
        width, start = cols.stop - cols.start, int(self._page.dataoffsets[0])
        out = np.empty((rows.stop - rows.start, width * self._depth), dtype)
        for i, y in enumerate(range(rows.start, rows.stop)):
            self._file.seek(start + (y * self.shape[1] + cols.start) * step)
            out[i] = np.frombuffer(self._file.read(width * step), dtype)
        native = out.astype(dtype.newbyteorder("="), copy=False)
        return native.reshape(len(out), width, self._depth) if self._depth > 1 else native

    def _pieces(self, rows: slice, cols: slice) -> NDArray[Any]:
        """Put together from tiles or strips."""
        height, width = self._tile
        across = -(-self.shape[1] // width)
        size = (rows.stop - rows.start, cols.stop - cols.start)
        out = np.zeros((*size, self._depth), self._page.dtype)
        for i in range(rows.start // height, (rows.stop - 1) // height + 1):
            for j in range(cols.start // width, (cols.stop - 1) // width + 1):
                piece = self._piece(i * across + j)
                top, left = i * height, j * width
                y1, y2 = max(top, rows.start), min(top + len(piece), rows.stop)
                x1, x2 = max(left, cols.start), min(left + piece.shape[1], cols.stop)
                part = piece[y1 - top : y2 - top, x1 - left : x2 - left]
                out[y1 - rows.start : y2 - rows.start, x1 - cols.start : x2 - cols.start] = part
        return out if self._depth > 1 else out[..., 0]

    def _piece(self, index: int) -> NDArray[Any]:
        """One decoded tile or strip ``[h,w,S]``; the newest are kept."""
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        page = self._page
        self._file.seek(page.dataoffsets[index])
        data = self._file.read(page.databytecounts[index])
        tables = page.jpegtables
        decoded, _, shape = page.decode(data, index, **({"jpegtables": tables} if tables else {}))
        piece = np.zeros(shape[1:], page.dtype) if decoded is None else np.asarray(decoded)[0]
        self._kept[index] = piece
        while sum(kept.nbytes for kept in self._kept.values()) > CACHE_BYTES and len(self._kept) > 1:
            self._kept.popitem(last=False)
        return piece
