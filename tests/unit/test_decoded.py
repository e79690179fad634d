"""Compressed pictures are decoded once, strip by strip, to the pixels that reading the whole gives."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from emclean.errors import ImageError
from emclean.imaging import decoded, readers, windows

SHAPE = (61, 47)


@pytest.fixture(autouse=True)
def _strips_of_few_rows(monkeypatch):
    monkeypatch.setattr(decoded, "STRIP_BYTES", 500)
    monkeypatch.setattr(decoded, "SMALL", 0)


def _picture(mode):
    """Smooth colours, so that a PNG uses its filters, with some noise."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rng = np.random.default_rng(0)
    if mode == "I;16":
        return Image.fromarray((700 * y + 333 * x + rng.integers(0, 99, SHAPE)).astype(np.uint16))
    bands = [(3 * y + k * x + rng.integers(0, 9, SHAPE)) % 256 for k in range(1, 4)]
    image = Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))
    return image.convert(mode)


def _png(mode, **options):
    out = io.BytesIO()
    _picture(mode).save(out, "PNG", **options)
    return out.getvalue()


FILES = {
    **{mode: _png(mode) for mode in ("L", "I;16", "RGB", "RGBA", "LA", "P", "1")},
    "transparent grey": _png("L", transparency=7),
    "four grey levels": _png("P", bits=2),
    "best": _png("RGB", optimize=True),
}


@pytest.mark.parametrize("name", FILES)
def test_strips_are_the_same_pixels_as_in_the_whole(tmp_path, name):
    (tmp_path / "a.png").write_bytes(FILES[name])
    whole = readers.read(FILES[name]).pixels
    with windows.opened(str(tmp_path / "a.png"), tmp_path / "d" / "a.npy") as source:
        assert source.shape == SHAPE
        assert source.pixel_size_nm is None
        for rows, cols in (
            (slice(0, 61), slice(0, 47)),
            (slice(9, 33), slice(5, 46)),
            (slice(60, 61), slice(0, 1)),
        ):
            part = source.read(rows, cols)
            assert part.dtype == whole.dtype
            assert np.array_equal(part, whole[rows, cols])
    assert [file.suffix for file in (tmp_path / "d").glob("a*")].count(".npy") == 1


def test_a_jpeg_is_decoded_once_for_all_that_read_it(tmp_path, monkeypatch):
    file, kept = tmp_path / "a.jpg", tmp_path / "a.npy"
    _picture("L").save(file, quality=95)
    whole, calls = readers.read(str(file)).pixels, []
    read = readers.read
    monkeypatch.setattr(readers, "read", lambda uri: calls.append(uri) or read(uri))
    for _ in range(3):
        with windows.opened(str(file), kept) as source:
            assert np.array_equal(source.read(slice(3, 50), slice(0, 40)), whole[3:50, :40])
    assert calls == [str(file)]
    with windows.opened(str(file)) as source:  # no place for it
        assert np.array_equal(source.read(slice(0, 61), slice(0, 47)), whole)
    assert len(calls) == 2


def test_a_small_picture_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "SMALL", 61 * 47)
    (tmp_path / "a.png").write_bytes(FILES["L"])
    with windows.opened(str(tmp_path / "a.png"), tmp_path / "a.npy") as source:
        assert source.shape == SHAPE
    assert not (tmp_path / "a.npy").exists()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:60] + b"x" * 900])
def test_a_damaged_png_is_an_image_error_and_leaves_nothing(tmp_path, damage):
    (tmp_path / "a.png").write_bytes(damage(FILES["RGB"]))
    with (
        pytest.raises(ImageError, match=r"a\.png"),
        windows.opened(str(tmp_path / "a.png"), tmp_path / "a.npy"),
    ):
        pass
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.lock", "a.png"]


def test_a_picture_of_absurd_size_is_refused_before_it_is_decoded(tmp_path):
    head = struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000)))]
    data = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    (tmp_path / "a.png").write_bytes(readers.PNG + data)
    with (
        pytest.raises(ImageError, match="more than the limit"),
        windows.opened(str(tmp_path / "a.png"), tmp_path / "a.npy"),
    ):
        pass


def test_memory_does_not_grow_with_the_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(decoded, "STRIP_BYTES", 200_000)
    peaks = []
    for n in (1, 4):
        file = tmp_path / f"{n}.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (n * 1000, 1000)).astype(np.uint8)).save(
            file
        )
        tracemalloc.start()
        decoded.decoded(str(file), tmp_path / f"{n}.npy").close()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 4_000_000
