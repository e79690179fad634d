"""Simulated pictures: exact boxes, the promised variety, the same again from the same seed."""

import json

import numpy as np
import pytest
from PIL import Image

from emclean.imaging import simulate
from emclean.imaging.simulate import canvas

FIELDS = [simulate.field(np.random.default_rng([5, i])) for i in range(24)]


@pytest.mark.parametrize("make", [simulate.field, simulate.mixed_field, simulate.particles])
def test_same_seed_same_picture(make):
    one, again = (make(np.random.default_rng(11), (96, 128)) for _ in range(2))
    np.testing.assert_array_equal(one.pixels, again.pixels)
    np.testing.assert_array_equal(one.labels.boxes, again.labels.boxes)
    assert one.pixels.shape == (96, 128)
    assert one.pixels.dtype == np.uint8


def test_fields_hold_0_to_12_deposits_about_4_on_average():
    counts = [len(made.labels) for made in FIELDS]
    assert max(counts) <= 12
    assert 0 in counts
    assert 2.5 < np.mean(counts) < 5.5


@pytest.mark.parametrize("make", [simulate.field, simulate.mixed_field])
def test_boxes_lie_within_the_picture_and_have_a_size_to_be_found(make):
    for i in range(8):
        made = make(np.random.default_rng([2, i]))
        boxes = made.labels.boxes
        assert (boxes >= 0).all()
        assert (boxes <= 256).all()
        assert ((boxes[:, 2:] - boxes[:, :2]) >= 5).all()
        assert (made.labels.categories == 0).all()


def test_deposits_are_dark_where_the_boxes_are():
    """The middle of a box is darker than the picture, by far most often."""
    darker = []
    for made in FIELDS:
        typical = np.median(made.pixels)
        for x1, y1, x2, y2 in made.labels.boxes.astype(int):
            middle = made.pixels[
                (3 * y1 + y2) // 4 : (y1 + 3 * y2) // 4 + 1, (3 * x1 + x2) // 4 : (x1 + 3 * x2) // 4 + 1
            ]
            darker.append(middle.mean() < typical)
    assert np.mean(darker) > 0.8


def test_the_box_is_that_of_the_mask_at_half_density():
    piece = canvas.stamp(np.random.default_rng(0), (100, 100), canvas.Shape(50.0, 40.0, 20.0, 10.0))
    np.testing.assert_allclose(canvas.box_of(piece), [30, 30, 70, 50], atol=1)
    drawn = np.zeros((100, 100), np.float32)
    canvas.paint(drawn, piece, 1.0)
    rows, cols = np.nonzero(drawn >= 0.5)
    np.testing.assert_array_equal(
        canvas.box_of(piece), [cols.min(), rows.min(), cols.max() + 1, rows.max() + 1]
    )


def test_a_shape_outside_is_no_stamp():
    assert canvas.stamp(np.random.default_rng(0), (50, 50), canvas.Shape(500.0, 40.0, 20.0, 10.0)) is None


def test_noise_is_standard_and_smooth():
    noise = canvas.smooth(np.random.default_rng(0), (300, 200), 4.0)
    assert abs(noise.mean()) < 0.2
    assert noise.std() == pytest.approx(1.0, abs=0.15)
    assert np.abs(np.diff(noise, axis=0)).mean() < 0.4


@pytest.mark.slow
def test_particles_vary_in_number_and_size():
    made = [simulate.particles(np.random.default_rng([9, i])).labels.boxes for i in range(32)]
    counts = np.array([len(boxes) for boxes in made])
    sides = np.concatenate([boxes[:, 2] - boxes[:, 0] for boxes in made])
    assert counts.max() > 30
    assert (counts <= 120).all()
    assert (counts < 5).any()
    assert sides.min() < 12
    assert sides.max() > 70


def test_dataset_is_png_and_coco_and_repeats(tmp_path):
    written = simulate.write_dataset(tmp_path / "a", n_pool=3, n_test=2, size=64, seed=4)
    again = simulate.write_dataset(tmp_path / "b", n_pool=3, n_test=2, size=64, seed=4)
    truth = json.loads(written.pool_truth.read_text())
    assert written.pool_truth.read_bytes() == again.pool_truth.read_bytes()
    assert [entry["file_name"] for entry in truth["images"]] == [
        "pool-0000.png",
        "pool-0001.png",
        "pool-0002.png",
    ]
    assert all(entry["group"] for entry in truth["images"])
    assert truth["categories"] == [{"id": 1, "name": "deposit"}]
    for name in ("pool-0000.png", "pool-0002.png"):
        assert (written.pool_images / name).read_bytes() == (again.pool_images / name).read_bytes()
    assert Image.open(written.test_images / "test-0001.png").size == (64, 64)
