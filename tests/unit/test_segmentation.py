"""Segmentation and pose: touching particles parted, reasons given, joined over windows exactly once."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.imaging import pose, simulate
from emclean.imaging import segmentation as seg
from emclean.imaging.simulate import chiral, sem
from emclean.imaging.windows import plan


@dataclass(frozen=True, eq=False)
class Array:
    """A picture in memory."""

    pixels: np.ndarray
    pixel_size_nm: float | None = None

    @property
    def shape(self):
        return self.pixels.shape

    def read(self, rows, cols):
        return self.pixels[rows, cols]


def _ellipse(shape, y, x, a, b, turn=0.0):
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    dy, dx = rows - y, cols - x
    along, across = dy * np.cos(turn) - dx * np.sin(turn), dy * np.sin(turn) + dx * np.cos(turn)
    return (along / a) ** 2 + (across / b) ** 2 <= 1


USUAL = seg.Settings()


def _run(pixels, core=10_000, options=USUAL):
    source = Array(pixels)
    levels = seg.measure(source, options)
    found, numbers = [], []
    for window in plan(source.shape, core, levels.margin):
        grey = seg.stretched(source.read(*window.outer), levels, options.bright)
        here = seg.segment(grey, levels, options, window, source.shape)
        found, numbers = found + here, numbers + [window.number] * len(here)
    boxes = np.array([one.box for one in found]).reshape(-1, 4)
    centres = np.array([(one.form.y, one.form.x) for one in found]).reshape(-1, 2)
    kept = seg.once(boxes, centres, np.array([one.owned for one in found], bool), np.array(numbers, int))
    return [found[k] for k in kept]


SCENE = simulate.scene(1, (500, 460), simulate.Recipe(zoom=0.5, density=24))
PIXELS, IDS = SCENE.whole()


def _matched(found, ids):
    """The truth's id of each object, 0 where none covers half of both."""
    names = []
    for one in found:
        y1, x1, y2, x2 = one.box
        counts = np.bincount(ids[y1:y2, x1:x2][one.mask], minlength=2)
        best = int(counts[1:].argmax()) + 1
        union = one.area + (ids == best).sum() - counts[best]
        names.append(best if counts[best] > 0.5 * union else 0)
    return names


@pytest.mark.parametrize("method", ["otsu", "laplacian"])
def test_simulated_particles_are_found_one_for_one(method):
    found = [one for one in _run(PIXELS, options=seg.Settings(method=method)) if one.reason != "debris"]
    names = _matched(found, IDS)
    there = [i for i in np.unique(IDS) if i and (IDS == i).sum() > 150]
    assert len(there) > 15
    assert len(set(names) & set(there)) >= 0.9 * len(there)
    assert len(names) == len(set(names))


def test_windows_give_the_same_objects_as_the_whole_each_once():
    whole = {one.box: one.reason for one in _run(PIXELS)}
    for core in (120, 210):
        parts = _run(PIXELS, core)
        assert len({one.box for one in parts}) == len(parts)
        assert {one.box: one.reason for one in parts} == whole


def test_touching_particles_are_parted_and_a_long_one_is_not():
    mask = _ellipse((120, 200), 60, 60, 26, 40) | _ellipse((120, 200), 60, 133, 26, 40)
    labels = seg.split(mask, 0.75, 80)
    assert labels.max() == 2
    assert labels[60, 60] != labels[60, 133]
    assert (labels > 0).sum() == mask.sum()
    assert seg.split(_ellipse((60, 160), 30, 80, 20, 70), 0.75, 60).max() == 1


def test_reasons_name_border_debris_and_cluster():
    pixels = np.full((400, 400), 30, np.uint8)
    for y, x in ((80, 80), (80, 200), (200, 80), (300, 330), (5, 300)):
        pixels[_ellipse(pixels.shape, y, x, 40, 22)] = 150
    pixels[_ellipse(pixels.shape, 200, 160, 5, 5)] = 150
    pixels[250:380, 30:150] = 150
    noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
    found = _run(np.clip(pixels + noise, 0, 255).astype(np.uint8), options=seg.Settings(length=80))
    reasons = sorted(one.reason for one in found)
    assert reasons == ["", "", "", "", "border", "cluster", "debris"]


def test_dark_particles_and_deep_pixels():
    dark = 255 - PIXELS
    deep = 300 + 20 * PIXELS.astype(np.uint16)
    n = sum(one.reason == "" for one in _run(PIXELS))
    assert sum(one.reason == "" for one in _run(dark, options=seg.Settings(bright=False))) == n
    assert abs(sum(one.reason == "" for one in _run(deep)) - n) <= 2


@pytest.mark.parametrize("value", [0, 77])
def test_an_empty_picture_has_no_particle(value):
    assert _run(np.full((64, 80), value, np.uint8)) == []
    noise = np.random.default_rng(1).normal(value + 20, 3, (300, 300)).astype(np.uint8)
    assert [one for one in _run(noise) if not one.reason and one.area > 200] == []


class Bare:
    """A huge picture of bare ground, which notes the most pixels held at once."""

    shape, pixel_size_nm, held = (50_000, 50_000), None, 0

    def read(self, rows, cols):
        part = np.broadcast_to(np.uint8(90), (rows.stop - rows.start, cols.stop - cols.start))
        self.held += part.size
        return part


def test_a_huge_bare_picture_is_never_measured_whole(monkeypatch):
    bare = Bare()
    monkeypatch.setattr(seg, "MOST_MEASURED", 1_000_000)
    monkeypatch.setattr(seg, "SAMPLES", 1)
    seg.measure(bare, USUAL)
    assert bare.held < 2_000_000


def test_the_owners_word_counts_and_what_nobody_owns_counts_once():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60], [50, 50, 60, 60], [0, 90, 9, 99]])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    owned = np.array([False, True, False, False, True])
    windows = np.array([0, 1, 0, 1, 1])
    assert seg.once(boxes, centres, owned, windows).tolist() == [1, 2, 4]
    assert seg.once(boxes[:0], centres[:0], owned[:0], windows[:0]).tolist() == []


def test_two_particles_of_one_window_are_never_taken_for_one():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 10]])
    both = np.array([True, True])
    assert seg.once(boxes, np.full((2, 2), 5.0), both, np.zeros(2, int)).tolist() == [0, 1]


@settings(max_examples=25, deadline=None)
@given(st.floats(-1.5, 1.5), st.floats(20, 40), st.floats(8, 15))
def test_the_form_of_an_ellipse(turn, a, b):
    form = pose.form_of(_ellipse((121, 121), 60, 61, a, b, turn))
    assert abs(form.y - 60) < 0.5
    assert abs(form.x - 61) < 0.5
    assert abs(form.length - 2 * a) < 1.5
    assert abs(form.width - 2 * b) < 1.5
    assert abs(np.sin(form.turn - turn)) < 0.05


def _pictured(turn, hand="right"):
    """A particle at a turn, in a picture of its own, with its mask."""
    rng = np.random.default_rng(5)
    shape, scope = chiral.body(rng), replace(sem.Microscope.draw(rng, "ideal"), shading=0.0)
    place = chiral.Place(100, 96, turn, 1.0, hand)
    painted = chiral.paint(np.random.default_rng(0), shape, place, scope, (200, 200))
    return np.clip(painted.grey * 255, 0, 255).astype(np.uint8), painted.inside > 0


@pytest.mark.parametrize("turn", [0.4, 1.3, 2.9])
def test_a_pose_is_the_same_at_every_turn_and_keeps_the_hand(turn):
    base, turned = pose.cutout(*_pictured(0.0)), pose.cutout(*_pictured(turn))
    other = pose.cutout(*_pictured(turn, "left"))

    def alike(a, b):
        return max(
            np.corrcoef(a.ravel(), c.ravel())[0, 1] for c in (b.astype(float), b[::-1, ::-1].astype(float))
        )

    assert base.shape == (128, 128)
    assert base.dtype == np.uint8
    assert alike(base, turned) > 0.95
    assert alike(base, other) < alike(base, turned) - 0.02
    assert alike(base, other[:, ::-1]) > 0.95


def test_a_cutout_is_upright_fills_its_share_and_is_black_outside():
    pixels = np.full((90, 150), 200, np.uint8)
    mask = _ellipse(pixels.shape, 45, 75, 60, 20, 1.1)
    made = pose.cutout(pixels, mask, side=64)
    rows, cols = np.flatnonzero(made.any(axis=1)), np.flatnonzero(made.any(axis=0))
    assert abs(np.ptp(rows) + 1 - 0.82 * 64) <= 2
    assert np.ptp(cols) < 0.5 * np.ptp(rows)
    assert made[0].max() == 0
    assert set(np.unique(made)) == {0, 200}
    native = pose.cutout(pixels, mask, side=128, fill=None)
    assert abs((native > 0).sum() - mask.sum()) < 0.02 * mask.sum()
