"""Training crops: boxes follow the pixels, draws repeat, nothing leaves its range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.models.augment import Cropper, Window, cut, flip, follow, resize, turn, vary
from emclean.models.spec import Augmentation
from emclean.types import Target

GEOMETRY = Augmentation(jitter=(0.7, 1.4), gain=0, offset=0, gamma=0, noise=0, blur=0)


def scene(rng, height, width):
    """A dark picture with one bright rectangle of whole pixels, and its box."""
    w, h = rng.integers(12, 40), rng.integers(12, 40)
    x, y = rng.integers(0, width - w + 1), rng.integers(0, height - h + 1)
    pixels = np.zeros((height, width), np.uint8)
    pixels[y : y + h, x : x + w] = 255
    return pixels, Target([[x, y, x + w, y + h]], [0])


def bright(pixels):
    """The box around what is brighter than half."""
    rows, columns = np.nonzero(pixels > 0.5)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(100, 200), st.integers(100, 200))
def test_box_stays_on_its_pixels(seed, height, width):
    rng = np.random.default_rng(seed)
    picture, target = scene(rng, height, width)
    pixels, moved = Cropper(128, (1.0, 0.5), GEOMETRY)(picture, target, rng)
    assert pixels.shape == (128, 128)
    assert pixels.dtype == np.float32
    if len(moved):
        np.testing.assert_allclose(moved.boxes[0], bright(pixels), atol=1.01)
    else:
        assert len(moved.ignore) or not (pixels > 0.99).any()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_without_scaling_the_fit_is_exact(seed):
    rng = np.random.default_rng(seed)
    picture, target = scene(rng, 90, 150)
    pixels, moved = Cropper(
        96, (1.0,), Augmentation(jitter=(1, 1), gain=0, offset=0, gamma=0, noise=0, blur=0)
    )(picture, target, rng)
    if len(moved):
        np.testing.assert_array_equal(moved.boxes[0], bright(pixels))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_turns_and_flips_come_back(seed):
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 40, (5, 2))
    target = Target(np.concatenate([low, low + rng.uniform(1, 20, (5, 2))], axis=1), np.arange(5))
    np.testing.assert_allclose(flip(flip(target, 64), 64).boxes, target.boxes)
    np.testing.assert_allclose(turn(turn(target, 64, 3), 64, 1).boxes, target.boxes)


def test_same_generator_same_crop_and_another_differs():
    picture, target = scene(np.random.default_rng(1), 120, 120)
    cropper = Cropper(64, (1.0,), Augmentation())
    first, again, other = (cropper(picture, target, np.random.default_rng(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1].boxes, again[1].boxes)
    assert not np.array_equal(first[0], other[0])


def test_focus_shows_the_only_object():
    picture = np.zeros((900, 900), np.uint8)
    target = Target([[850, 20, 870, 40]], [0])
    cropper = Cropper(64, (1.0,), Augmentation(focus=1.0))
    for seed in range(20):
        window = cropper.window(picture.shape, target, np.random.default_rng(seed))
        assert window.x <= 860 < window.x + window.side
        assert window.y <= 30 < window.y + window.side


def test_small_picture_is_padded_with_its_mean():
    pixels = cut(np.full((20, 30), 102, np.uint8), Window(-10, -10, 64, 64))
    np.testing.assert_allclose(pixels, 0.4, atol=1e-6)


def test_objects_hardly_in_view_are_ignored_and_hidden_ones_dropped():
    target = Target([[-90, 0, 10, 20], [0, 0, 50, 20], [200, 200, 220, 220]], [0, 1, 0], [0.5, 0.7, 1.0])
    seen = follow(target, Window(0, 0, 64, 64))
    np.testing.assert_array_equal(seen.boxes, [[0, 0, 50, 20]])
    np.testing.assert_array_equal(seen.ignore, [[0, 0, 10, 20]])
    assert seen.ignore_categories.tolist() == [0]
    assert seen.categories.tolist() == [1]
    assert seen.weights.tolist() == [0.7]


def test_ignore_areas_move_along():
    areas = [[500, 500, 600, 600], [10, 20, 30, 40]]
    seen = follow(
        Target(np.zeros((0, 4)), [], ignore=areas, ignore_categories=[0, 1]), Window(10, 10, 64, 128)
    )
    np.testing.assert_array_equal(seen.ignore, [[0, 20, 40, 60]])
    assert flip(seen, 128).ignore_categories.tolist() == [1]
    assert turn(seen, 128, 1).ignore_categories.tolist() == [1]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_grey_levels_stay_in_range(seed):
    rng = np.random.default_rng(seed)
    recipe = Augmentation(gain=1, offset=1, gamma=1, noise=0.5, blur=2, invert=0.5)
    varied = vary(rng.random((32, 32), dtype=np.float32), recipe, rng)
    assert varied.dtype == np.float32
    assert varied.min() >= 0
    assert varied.max() <= 1


def test_resize_keeps_areas_in_place():
    pixels = np.zeros((40, 40), np.float32)
    pixels[:20] = 1
    half = resize(pixels, 20, 20)
    assert half[:9].min() == pytest.approx(1, abs=1e-4)
    assert half[11:].max() == pytest.approx(0, abs=1e-4)
