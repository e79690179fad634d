"""Compressed pictures that cannot be read by part: each is decoded once, into a file that can.

A PNG of 8 bits, or of grey in 16, is decoded strip by strip, so that memory does not grow with the picture.
Other PNGs and all JPEGs are decoded as a whole, within the limits of ``readers``, but once and no more.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from emclean.errors import ImageError
from emclean.imaging import readers

STRIP_BYTES = 8_000_000
"""Samples that are decoded at a time."""

SMALL = 4_000_000
"""Pixels up to which a picture is decoded for each window: that is as quick as reading it by part."""

MOST = 1 << 32
"""Pixels of the largest picture that is decoded by strips: 65,536 x 65,536."""

_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by PNG's colour type
_GREY, _CHUNK = 0, 1 << 20

Strips = Iterator[NDArray[Any]]


@dataclass(frozen=True)
class _Header:
    """What a PNG's first chunks say; ``more`` are palette and transparency as they lie in the file."""

    width: int
    height: int
    depth: int
    colour: int
    interlaced: bool
    more: bytes = b""

    @property
    def row_bytes(self) -> int:
        return (self.width * self.depth * _CHANNELS.get(self.colour, 1) + 7) // 8

    @property
    def by_strips(self) -> bool:
        """Whether a decoded row tells its samples, which the rows below need."""
        whole_bytes = self.depth == 8 or (self.depth == 16 and self.colour == _GREY)
        return whole_bytes and not self.interlaced and self.colour in _CHANNELS


class Decoded:
    """A picture that lies uncompressed in an ``.npy`` file, of which only the needed rows are read."""

    pixel_size_nm: float | None = None

    def __init__(self, file: Path) -> None:
        self._file = file.open("rb")
        np.lib.format.read_magic(self._file)  # type: ignore[no-untyped-call]
        shape, _, self._dtype = np.lib.format.read_array_header_1_0(self._file)  # type: ignore[no-untyped-call]
        self._start = self._file.tell()
        self.shape: tuple[int, int] = (int(shape[0]), int(shape[1]))

    def read(self, rows: slice, cols: slice) -> NDArray[Any]:
        """The grey pixels of a part."""
        size, width = self._dtype.itemsize, cols.stop - cols.start
        out = np.empty((rows.stop - rows.start, width), self._dtype)
        for i, y in enumerate(range(rows.start, rows.stop)):
            self._file.seek(self._start + (y * self.shape[1] + cols.start) * size)
            out[i] = np.frombuffer(self._file.read(width * size), self._dtype)
        return out

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def decoded(uri: str, file: Path) -> Decoded:
    """The picture from ``file``, decoded into it first where it is not there; one process does that."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                _decode(uri, file)
    return Decoded(file)


def pixels_of(uri: str) -> int | None:
    """How many pixels a PNG or JPEG says that it has, before anything is decoded; None of what is neither."""
    with fsspec.open(uri, "rb") as stream:
        first = stream.read(8)
        stream.seek(0)
        kind = PngImageFile if first.startswith(readers.PNG) else JpegImageFile
        try:
            image = kind(stream)
        except (SyntaxError, OSError, ValueError, struct.error):
            return None
        return int(image.width) * int(image.height)


def _decode(uri: str, file: Path) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with fsspec.open(uri, "rb") as stream:
            header = _header(stream) if stream.read(8).startswith(readers.PNG) else None
            if header is not None and header.by_strips:
                _check(header, uri)
                _write(draft, (header.height, header.width), _strips(stream, header, uri))
            else:
                pixels = readers.read(uri).pixels
                _write(draft, (pixels.shape[0], pixels.shape[1]), iter([pixels]))
        draft.replace(file)
    except ImageError:
        raise
    except Exception as cause:  # damaged files raise anything, from struct.error to zlib.error
        raise ImageError(f"damaged ({cause}).", uri, "Export it again.") from cause
    finally:
        draft.unlink(missing_ok=True)


def _check(header: _Header, name: str) -> None:
    if not 0 < header.width * header.height <= MOST:
        what = f"{header.width} x {header.height} pixels are none, or more than the limit of {MOST:,}."
        raise ImageError(what, name, "Crop it.")


def _write(file: Path, shape: tuple[int, int], strips: Strips) -> None:
    """The strips one below the other, as an ``.npy`` file."""
    with file.open("wb") as out:
        for number, strip in enumerate(strips):
            if not number:
                facts = {"descr": strip.dtype.str, "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_1_0(out, facts)  # type: ignore[no-untyped-call]
            out.write(np.ascontiguousarray(strip).tobytes())


def _header(stream: Any) -> _Header | None:
    """The header of a PNG whose signature has been read; the stream then stands at the first pixels."""
    found, more = None, b""
    while True:
        length, kind = struct.unpack(">I4s", stream.read(8))
        if kind == b"IDAT":
            stream.seek(-8, os.SEEK_CUR)
            return None if found is None else _Header(*found, more)
        content = stream.read(length + 4)  # with its checksum
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[:13])
            found = (width, height, depth, colour, bool(interlaced))
        elif kind in (b"PLTE", b"tRNS"):
            more += struct.pack(">I4s", length, kind) + content


def _strips(stream: Any, header: _Header, name: str) -> Strips:
    """Grey pixels ``[h,W]`` of strip after strip.

    A strip is decoded as a small PNG of its own: the filtered rows as they are, below the row above them,
    which the filters refer to.
    """
    rows = max(STRIP_BYTES // (header.row_bytes + 1), 1)
    take = _inflated(stream, name)
    above = bytes(header.row_bytes)
    for top in range(0, header.height, rows):
        n = min(rows, header.height - top)
        image = _small(header, b"\x00" + above + take(n * (header.row_bytes + 1)), n + 1)
        last = image.crop((0, n, header.width, n + 1)).tobytes()
        above = np.frombuffer(last, "<u2").astype(">u2").tobytes() if header.depth == 16 else last
        yield readers.grey_of(image)[1:]


def _small(header: _Header, rows: bytes, height: int) -> PngImageFile:
    """A picture of these filtered rows."""
    facts = struct.pack(">IIBBBBB", header.width, height, header.depth, header.colour, 0, 0, 0)
    parts = [
        _chunk(b"IHDR", facts),
        header.more,
        _chunk(b"IDAT", zlib.compress(rows, 0)),
        _chunk(b"IEND", b""),
    ]
    image = PngImageFile(BytesIO(readers.PNG + b"".join(parts)))
    image.load()
    return image


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _inflated(stream: Any, name: str) -> Callable[[int], bytes]:
    """What gives the next so many bytes of the decompressed rows."""
    engine, packed = zlib.decompressobj(), _packed(stream)

    def take(n: int) -> bytes:
        parts: list[bytes] = []
        while n:
            waiting = engine.unconsumed_tail or next(packed, b"")
            if not waiting:
                raise ImageError("truncated: rows of its pixels are missing.", name, "Export it again.")
            parts.append(engine.decompress(waiting, n))
            n -= len(parts[-1])
        return b"".join(parts)

    return take


def _packed(stream: Any) -> Iterator[bytes]:
    """The compressed rows, a piece at a time."""
    while True:
        head = stream.read(8)
        if len(head) < 8:
            return
        length, kind = struct.unpack(">I4s", head)
        if kind != b"IDAT":
            return
        while length:
            piece = stream.read(min(length, _CHUNK))
            if not piece:
                return
            length -= len(piece)
            yield piece
        stream.read(4)  # the checksum; zlib has one of its own
