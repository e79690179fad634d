"""Large pictures by window: every layout of TIFF gives the pixels that reading the whole gives."""

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emclean.errors import ImageError
from emclean.imaging import readers, windows

LAYOUTS = {
    "plain": {},
    "tiled": {"tile": (32, 48)},
    "packed tiles": {"tile": (32, 32), "compression": "zlib"},
    "strips": {"rowsperstrip": 7, "compression": "lzw", "predictor": True},
    "big-endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True, "tile": (64, 64)},
}


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_parts_are_the_same_pixels_as_in_the_whole(tmp_path, layout, dtype):
    options = dict(LAYOUTS[layout])
    if dtype is np.float32:
        options.pop("predictor", None)
    pixels = (np.random.default_rng(0).random((101, 87)) * 200).astype(dtype)
    file = str(tmp_path / "a.tif")
    tifffile.imwrite(file, pixels, photometric="minisblack", **options)
    whole = readers.read(file).pixels
    with windows.opened(file) as source:
        assert source.shape == (101, 87)
        for rows, cols in (
            (slice(0, 101), slice(0, 87)),
            (slice(30, 65), slice(47, 87)),
            (slice(7, 8), slice(0, 1)),
        ):
            part = source.read(rows, cols)
            assert part.dtype == whole.dtype
            assert np.array_equal(part, whole[rows, cols])


@pytest.mark.parametrize("options", [{}, {"tile": (32, 32)}, {"planarconfig": "separate"}])
def test_colours_become_the_same_grey(tmp_path, options):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    file = str(tmp_path / "a.tif")
    stored = np.moveaxis(pixels, -1, 0) if "planarconfig" in options else pixels
    tifffile.imwrite(file, stored, photometric="rgb", **options)
    with windows.opened(file) as source:
        assert np.array_equal(source.read(slice(5, 39), slice(0, 33)), readers.read(file).pixels[5:39, :33])


def test_a_png_is_read_as_a_whole_and_a_pixel_size_is_known(tmp_path):
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with windows.opened(str(tmp_path / "a.png")) as source:
        assert np.array_equal(source.read(slice(2, 4), slice(1, 8)), pixels[2:4, 1:8])
    tifffile.imwrite(tmp_path / "a.tif", pixels, resolution=(5e6, 5e6), resolutionunit="CENTIMETER")
    with windows.opened(str(tmp_path / "a.tif")) as source:
        assert source.pixel_size_nm == pytest.approx(2.0)


def test_what_cannot_be_read_is_an_image_error(tmp_path):
    whole = tmp_path / "a.tif"
    tifffile.imwrite(whole, np.zeros((64, 64), np.uint8), tile=(16, 16))
    (tmp_path / "cut.tif").write_bytes(whole.read_bytes()[:2000])
    (tmp_path / "text.tif").write_text("no picture")
    for name in ("cut.tif", "text.tif", "missing.tif"):
        with pytest.raises(ImageError, match=name), windows.opened(str(tmp_path / name)) as source:
            source.read(slice(0, 64), slice(0, 64))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(16, 200), st.integers(0, 60))
def test_cores_tile_the_picture_and_margins_stay_within_it(height, width, core, margin):
    seen = np.zeros((height, width), int)
    for number, window in enumerate(windows.plan((height, width), core, margin)):
        assert window.number == number
        seen[window.core] += 1
        rows, cols = window.outer
        assert 0 <= rows.start <= window.core[0].start
        assert cols.stop <= width
        assert window.holds(window.core[0].start, window.core[1].start)
    assert (seen == 1).all()
