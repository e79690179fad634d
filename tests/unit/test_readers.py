"""Pictures are read by content, damaged ones refused in words."""

import pickle
import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emclean.errors import ImageError
from emclean.imaging import readers

RAMP = (np.arange(48 * 64) % 251).reshape(48, 64).astype(np.uint8)


def encoded(image, kind, **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff_bytes(pixels, **options):
    buffer = BytesIO()
    tifffile.imwrite(buffer, pixels, **options)
    return buffer.getvalue()


PNG = encoded(Image.fromarray(RAMP), "PNG")


def test_png_by_content_not_by_name(tmp_path):
    path = tmp_path / "liar.tif"
    path.write_bytes(PNG)
    picture = readers.read(str(path))
    np.testing.assert_array_equal(picture.pixels, RAMP)
    assert (picture.bit_depth, picture.pixel_size_nm) == (8, None)


def test_file_uri(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    np.testing.assert_array_equal(readers.read(path.as_uri()).pixels, RAMP)


def test_sixteen_bit_png_keeps_its_depth():
    deep = RAMP.astype(np.uint16) * 257
    picture = readers.read(encoded(Image.fromarray(deep), "PNG"))
    assert picture.bit_depth == 16
    np.testing.assert_array_equal(picture.pixels, deep)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P"])
def test_colours_become_luminance(mode):
    picture = readers.read(encoded(Image.fromarray(RAMP).convert(mode), "PNG"))
    assert picture.pixels.dtype == np.uint8
    assert np.abs(picture.pixels.astype(int) - RAMP).max() <= 1


def test_jpeg_dpi_is_no_pixel_size():
    picture = readers.read(encoded(Image.fromarray(RAMP), "JPEG", dpi=(300, 300)))
    assert picture.pixels.shape == RAMP.shape
    assert picture.pixel_size_nm is None


@pytest.mark.parametrize(
    ("pixels", "options", "depth"),
    [
        (RAMP, {"compression": "zlib"}, 8),
        (RAMP.astype(np.uint16) * 200, {"compression": "lzw"}, 16),
        (RAMP.astype(np.uint16), {"byteorder": ">"}, 16),
        (RAMP.astype(np.float32) / 7, {}, 32),
        (RAMP.astype(np.int16) - 100, {}, 32),
        (RAMP, {"bigtiff": True}, 8),
    ],
)
def test_tiff_of_every_depth(pixels, options, depth):
    picture = readers.read(tiff_bytes(pixels, **options))
    assert picture.bit_depth == depth
    np.testing.assert_allclose(picture.pixels, pixels)


def test_tiff_white_is_zero_is_turned_round():
    picture = readers.read(tiff_bytes(RAMP, photometric="miniswhite"))
    np.testing.assert_array_equal(picture.pixels, 255 - RAMP)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_colour_becomes_luminance(planar):
    colour = np.stack([RAMP] * 3, axis=-1 if planar == "contig" else 0)
    picture = readers.read(tiff_bytes(colour, photometric="rgb", planarconfig=planar))
    np.testing.assert_array_equal(picture.pixels, RAMP)


def test_tiff_palette_becomes_luminance():
    colormap = np.tile(np.arange(256, dtype=np.uint16) * 257, (3, 1))
    picture = readers.read(tiff_bytes(RAMP, photometric="palette", colormap=colormap))
    np.testing.assert_array_equal(picture.pixels, RAMP)


def test_tiff_of_one_bit():
    picture = readers.read(tiff_bytes(RAMP > 100, photometric="minisblack"))
    np.testing.assert_array_equal(picture.pixels, np.where(RAMP > 100, 255, 0))


@pytest.mark.parametrize("imagej", [True, False])
def test_first_page_only_and_says_so(imagej):
    picture = readers.read(
        tiff_bytes(np.stack([RAMP, RAMP // 2, RAMP // 3]), imagej=imagej, photometric="minisblack")
    )
    np.testing.assert_array_equal(picture.pixels, RAMP)
    assert picture.notes == ("only the first of 3 pages is used",)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"resolution": (1e7 / 4.6, 1e7 / 4.6), "resolutionunit": "CENTIMETER"}, 4.6),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (500, 500), "resolutionunit": "NONE"}, None),
        ({"imagej": True, "resolution": (500, 500), "metadata": {"unit": "um"}}, 2.0),
        ({"imagej": True, "resolution": (0.25, 0.25), "metadata": {"unit": "nm"}}, 4.0),
        ({"imagej": True, "resolution": (500, 500), "metadata": {"unit": "pixel"}}, None),
        ({"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.0031, "PhysicalSizeXUnit": "µm"}}, 3.1),
    ],
)
def test_pixel_size_only_where_it_is_true(options, expected):
    size = readers.read(tiff_bytes(RAMP, **options)).pixel_size_nm
    assert size == (None if expected is None else pytest.approx(expected, rel=1e-4))


def test_zeiss_and_fei_pixel_sizes():
    zeiss = b"\r\nAP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = 2.5 nm\r\n\0"
    fei = b"[Scan]\r\nPixelWidth=3e-09\r\n\0"
    assert readers.read(
        tiff_bytes(RAMP, extratags=[(34118, 2, 0, zeiss, True)])
    ).pixel_size_nm == pytest.approx(2.5)
    assert readers.read(
        tiff_bytes(RAMP, extratags=[(34682, 2, 0, fei, True)])
    ).pixel_size_nm == pytest.approx(3.0)


def bomb():
    """A PNG of 60,000 x 60,000 pixels in a few bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = (
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, body, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, I am no picture", "not a PNG, JPEG or TIFF"),
        (PNG[: len(PNG) // 2], "truncated or damaged"),
        (encoded(Image.fromarray(RAMP), "JPEG")[:500], "truncated or damaged"),
        (tiff_bytes(RAMP)[:-500], "truncated"),
        (tiff_bytes(RAMP, compression="zlib")[:-100], "truncated"),
        (b"II*\x00" + b"\xff" * 40, "truncated or damaged"),
        (bomb(), "more than the limit of 400,000,000"),
        (tiff_bytes(RAMP.astype(np.complex64)), "complex64"),
    ],
)
def test_what_cannot_be_read_is_an_image_error_with_its_name(data, words):
    with pytest.raises(ImageError, match=words) as caught:
        readers.read(data, "field-7.png")
    assert "field-7.png" in str(caught.value)
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_limits_are_arguments(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(PNG)
    with pytest.raises(ImageError, match="limit of 100 bytes"):
        readers.read(str(path), max_bytes=100)
    with pytest.raises(ImageError, match="limit of 100\\."):
        readers.read(PNG, max_pixels=100)


FIELD = np.zeros((200, 200, 1), np.uint8)


@pytest.mark.parametrize(
    ("pixels", "options"),
    [
        (FIELD.repeat(2000, axis=2), {"photometric": "minisblack", "planarconfig": "contig"}),
        (FIELD.repeat(5, axis=2).T, {"photometric": "minisblack", "planarconfig": "separate"}),
        (FIELD[..., 0], {"tile": (2000, 2000)}),
    ],
)
def test_a_tiff_may_not_hide_its_size_in_samples_or_tiles(pixels, options, monkeypatch):
    data = tiff_bytes(pixels, compression="zlib", **options)
    monkeypatch.setattr(tifffile.TiffPage, "asarray", None)  # refused before anything is decompressed
    with pytest.raises(ImageError, match="samples to decode are more than 4 for each pixel"):
        readers.read(data, max_pixels=40_000)


@pytest.mark.parametrize("channels", [3, 4])
def test_colour_and_alpha_count_as_one_pixel(channels):
    data = tiff_bytes(FIELD.repeat(channels, axis=2), photometric="rgb", tile=(64, 64))
    assert readers.read(data, max_pixels=40_000).pixels.shape == (200, 200)


@pytest.mark.parametrize("uri", ["/nowhere/at/all.png", "nosuchscheme://x/y.png"])
def test_a_missing_file_is_an_image_error(uri):
    with pytest.raises(ImageError, match="cannot be opened"):
        readers.read(uri)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_damaged_files_never_raise_anything_else(seed):
    rng = np.random.default_rng(seed)
    start = [PNG, tiff_bytes(RAMP, compression="zlib"), encoded(Image.fromarray(RAMP), "JPEG")][seed % 3]
    data = bytearray(start)
    for place in rng.integers(4, len(data), 6):
        data[place] = int(rng.integers(256))
    try:
        readers.read(bytes(data[: rng.integers(10, len(data) + 1)]))
    except ImageError:
        pass


def test_image_id_is_the_content_address():
    assert readers.image_id(b"abc") == "ba7816bf8f01cfea"


def test_eight_bits_stay_as_they_are():
    np.testing.assert_array_equal(readers.to_grey8(RAMP), RAMP)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_pixels_are_stretched_robustly(dtype):
    rng = np.random.default_rng(0)
    deep = rng.uniform(1000, 2000, (200, 200)).astype(dtype)
    deep[0, 0] = 60_000
    grey = readers.to_grey8(deep)
    assert grey.dtype == np.uint8
    assert grey[0, 0] == 255
    assert np.percentile(grey, 5) < 20
    assert np.percentile(grey, 95) > 235


def test_not_a_number_becomes_black():
    deep = np.linspace(1, 2, 10_000, dtype=np.float32).reshape(100, 100)
    deep[3, 3], deep[4, 4] = np.nan, np.inf
    grey = readers.to_grey8(deep)
    assert grey[3, 3] == grey[4, 4] == 0
    assert grey[99, 99] == 255
    assert (readers.to_grey8(np.full((4, 4), np.nan, np.float32)) == 0).all()
    assert (readers.to_grey8(np.full((4, 4), 7, np.uint16)) == 128).all()
