"""How instances look: contrast and texture of boxes, against sums over their pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.science.grading import Evidence, features
from emclean.science.grading.appearance import Sums, appearance, looks
from emclean.science.grading.features import CANDIDATE_FEATURES, LABEL_FEATURES
from emclean.types import Labels, Predictions

DARK = np.array([[20.0, 20, 40, 40]])


def field(seed: int = 0) -> np.ndarray:
    """A grey field with noise, one dark and one bright square."""
    picture = np.random.default_rng(seed).normal(128, 10, (96, 128))
    picture[20:40, 20:40] -= 60
    picture[60:80, 90:110] += 60
    return picture.clip(0, 255).astype(np.uint8)


def test_dark_is_negative_bright_is_positive_and_nothing_is_near_zero():
    boxes = np.concatenate([DARK, [[90, 60, 110, 80], [60, 10, 80, 30]]])
    dark, bright, nothing = appearance(Sums(field()), boxes)[:, 0]
    assert dark < -4
    assert bright > 4
    assert abs(nothing) < 0.5


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(0, 120), st.integers(0, 90), st.integers(1, 60), st.integers(1, 60))
def test_sums_are_those_of_the_pixels(seed, x, y, width, height):
    picture = field(seed)
    boxes = np.array([[x, y, x + width, y + height]], float)
    sums = Sums(picture)
    pixels = picture[y : min(y + height, 96), x : min(x + width, 128)].astype(np.int64)
    if pixels.size:
        expected = [pixels.size, pixels.sum(), (pixels**2).sum()]
        assert sums.moments(sums.whole(boxes))[:, 0].tolist() == expected
    assert np.isfinite(appearance(sums, boxes)).all()


def test_a_large_picture_is_looked_at_in_steps():
    small = field()
    large = np.kron(small, np.ones((20, 20), np.uint8))
    assert Sums(large).step > 1
    np.testing.assert_allclose(
        appearance(Sums(large), 20 * DARK), appearance(Sums(small), DARK), rtol=0.05, atol=0.02
    )


@pytest.mark.parametrize("level", [0, 200])
def test_a_flat_picture_says_nothing(level):
    np.testing.assert_allclose(appearance(Sums(np.full((50, 50), level, np.uint8)), DARK), 0)


def test_a_label_gains_contrast_where_the_models_place_it():
    given_, other = looks(field(), DARK + np.array([12, 0, 12, 0]), DARK, DARK)
    assert given_[0, -1] > 1
    assert other[0, -1] > 1  # unlike the label, which shows half of it
    assert [len(columns) for columns in looks(None, DARK, DARK, np.zeros((0, 4)))] == [1, 0]


def test_features_hold_the_looks_of_labels_and_candidates():
    found = Predictions(np.array([[20.0, 20, 40, 40], [90, 60, 110, 80]]), [0, 0], [0.9, 0.8])
    seen, blind = (
        features(Evidence(Labels(DARK, [0]), None, None, found, 128, 96, picture=picture))
        for picture in (field, None)
    )
    at, of = LABEL_FEATURES.index("contrast"), CANDIDATE_FEATURES.index("contrast")
    assert seen.labels[0, at] < -4
    assert seen.candidates[0, of] > 4
    assert not blind.labels[:, at:].any()
    np.testing.assert_array_equal(seen.labels[:, :at], blind.labels[:, :at])
