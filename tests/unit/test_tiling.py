"""Tiles cover the picture, and merging leaves neither seams nor doubles."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.imaging import tiling
from emclean.types import Predictions

quick = settings(max_examples=60, deadline=None)


def seen(tile, objects, categories=None, scores=None):
    """A perfect detector's answer in one tile: every object cut at the border, in tile coordinates."""
    low, high = tile[:2], tile[2:]
    cut = np.concatenate([np.maximum(objects[:, :2], low), np.minimum(objects[:, 2:], high)], axis=1)
    here = ((cut[:, 2:] - cut[:, :2]) >= 3).all(axis=1)
    n = int(here.sum())
    return Predictions(
        cut[here] - np.tile(low, 2),
        np.zeros(n) if categories is None else categories[here],
        np.full(n, 0.9) if scores is None else scores[here],
    )


def merged(objects, width, height, size, overlap, **more):
    tiles = tiling.plan(width, height, size, overlap)
    return tiling.merge(tiles, [seen(tile, objects, **more) for tile in tiles], width, height)


@quick
@given(st.integers(1, 700), st.integers(1, 700), st.integers(8, 256), st.integers(0, 200))
def test_tiles_cover_everything_and_stay_inside(width, height, size, overlap):
    overlap = min(overlap, size - 1, 3 * size // 4)
    tiles = tiling.plan(width, height, size, overlap)
    covered = np.zeros((height, width), np.bool_)
    for x1, y1, x2, y2 in tiles:
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert ((tiles[:, 2:] - tiles[:, :2]) == np.minimum(size, [width, height])).all()


def test_neighbours_share_at_least_the_overlap():
    lefts = np.unique(tiling.plan(1000, 100, 256, 48)[:, 0])
    assert (np.diff(lefts) <= 256 - 48).all()


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (64, 64), (64, -1)])
def test_a_plan_that_cannot_be_is_refused(size, overlap):
    with pytest.raises(ValueError, match="overlap"):
        tiling.plan(100, 100, size, overlap)


@quick
@given(st.integers(0, 2**32 - 1))
def test_objects_up_to_the_overlap_come_back_whole_and_once(seed):
    rng = np.random.default_rng(seed)
    # one object a cell of 70 px, so that objects stay apart
    corners = np.stack(np.meshgrid(np.arange(6), np.arange(5)), -1).reshape(-1, 2) * 70 + rng.uniform(
        0, 20, (30, 2)
    )
    objects = np.concatenate([corners, corners + rng.uniform(6, 48, (30, 2))], axis=1)
    objects = objects[rng.random(30) < 0.7]
    found = merged(objects, 420, 350, 128, 56)
    assert len(found) == len(objects)
    order = np.lexsort(found.boxes.T), np.lexsort(objects.T)
    np.testing.assert_allclose(found.boxes[order[0]], objects[order[1]])


@pytest.mark.parametrize("overlap", [0, 24, 60])
def test_an_object_larger_than_the_overlap_is_joined(overlap):
    objects = np.array([[50.0, 40.0, 310.0, 330.0]])
    found = merged(objects, 400, 400, 128, overlap)
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], objects[0])


def test_wobbling_boxes_of_one_object_become_one():
    rng = np.random.default_rng(3)
    tiles = tiling.plan(300, 128, 128, 64)
    objects = np.array([[90.0, 40.0, 130.0, 80.0], [170.0, 20.0, 200.0, 60.0]])
    answers = []
    for tile in tiles:
        exact = seen(tile, objects)
        wobble = exact.boxes + rng.uniform(-2, 2, exact.boxes.shape)
        answers.append(Predictions(wobble, exact.categories, exact.scores))
    assert len(tiling.merge(tiles, answers, 300, 128)) == 2


def test_overlapping_boxes_of_one_tile_are_left_to_the_detector():
    twice = Predictions([[10, 10, 40, 40], [12, 10, 42, 40]], [0, 0], [0.9, 0.8])
    tiles = tiling.plan(100, 100, 128, 32)
    assert len(tiling.merge(tiles, [twice], 100, 100)) == 2


def test_categories_do_not_mix():
    objects = np.array([[90.0, 40.0, 130.0, 80.0], [90.0, 40.0, 130.0, 80.0]])
    found = merged(objects, 300, 128, 128, 64, categories=np.array([0, 1]))
    assert sorted(found.categories) == [0, 1]


def test_best_score_first_and_kept():
    objects = np.array([[90.0, 40.0, 110.0, 80.0], [10.0, 10.0, 30.0, 30.0]])
    found = merged(objects, 300, 128, 128, 64, scores=np.array([0.4, 0.7]))
    np.testing.assert_allclose(found.scores, [0.7, 0.4])


def test_nothing_found_is_nothing():
    tiles = tiling.plan(300, 300, 128, 32)
    assert len(tiling.merge(tiles, [Predictions.empty()] * len(tiles), 300, 300)) == 0


def test_one_answer_a_tile_is_asked_for():
    with pytest.raises(ValueError, match="tiles"):
        tiling.merge(tiling.plan(300, 300, 128, 32), [], 300, 300)
