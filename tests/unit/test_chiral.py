"""Chiral particles: exact mirror images, no other cue of the hand, exact truth of whole micrographs."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.linear_model import LogisticRegression

from emclean.imaging import readers, simulate
from emclean.imaging.simulate import chiral, micrographs, sem
from emclean.imaging.simulate.micrograph_files import write_scene


def _cutouts(n, seed=0, **options):
    return [chiral.cutout(np.random.default_rng([seed, i]), **options) for i in range(n)]


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from(["ideal", "practical"]),
    st.sampled_from(["front", "plain", "side", "end"]),
)
def test_the_left_hand_is_the_exact_mirror_image_of_the_right(seed, population, pose):
    options = {"population": population, "pose": pose, "size": 64}
    right = chiral.cutout(np.random.default_rng(seed), "right", **options)
    left = chiral.cutout(np.random.default_rng(seed), "left", **options)
    assert np.array_equal(left.pixels, right.pixels[:, ::-1])
    assert (left.hand, right.hand) == ("left", "right")


def test_a_body_painted_left_handed_is_the_mirror_of_the_right_handed_one():
    rng = np.random.default_rng(3)
    shape, scope = chiral.body(rng), sem.Microscope.draw(rng, "ideal")
    scope = chiral.replace(scope, light=0.7)
    mirrored = chiral.replace(scope, light=np.pi - 0.7)
    right, left = (
        chiral.paint(
            np.random.default_rng(0), shape, chiral.Place(64, 60, turn, 1.0, hand), light, (128, 128)
        )
        for turn, hand, light in ((0.3, "right", scope), (-0.3, "left", mirrored))
    )
    assert np.allclose(right.inside, left.inside[:, ::-1], atol=1e-3)
    apart = np.abs(right.grey - left.grey[:, ::-1])[right.inside > 0]
    assert np.median(apart) < 0.03  # the texture is drawn in the picture's frame; the shape is the same


@pytest.mark.slow
def test_nothing_but_the_body_tells_the_hand():
    """A linear reader sees the hand in front poses, and cannot tell hidden ones from their mirror images."""

    def accuracy(pose):
        pictures = np.stack(
            [_blocks(c.pixels) for c in _cutouts(160, population="ideal", size=64, pose=pose)]
        )
        both = np.concatenate([pictures, pictures[:, :, ::-1]]).reshape(320, -1)
        hands = np.repeat([0, 1], 160)
        train = np.tile(np.arange(160) < 110, 2)
        reader = LogisticRegression(C=1e-3, max_iter=300).fit(both[train], hands[train])
        return float((reader.predict(both[~train]) == hands[~train]).mean())

    assert accuracy("front") > 0.85
    assert abs(accuracy("plain") - 0.5) < 0.17


def _blocks(pixels):
    return pixels.reshape(16, 4, 16, 4).mean(axis=(1, 3)) / 50


def test_light_lines_and_ground_are_their_own_mirror_images():
    options = {"masked": False, "population": "practical", "pose": "end", "size": 64}
    empty = _cutouts(120, 9, **options)
    lean = np.array([c.pixels[:, :32].mean() - c.pixels[:, 32:].mean() for c in empty])
    assert abs(lean.mean()) < 4 * lean.std() / np.sqrt(len(lean))


def test_the_look_of_an_ideal_particle():
    made = _cutouts(30)
    for cut in made:
        rows, cols = (np.flatnonzero((cut.pixels > 0).any(axis=axis)) for axis in (1, 0))
        assert 88 <= np.ptp(rows) + 1 <= 124
        assert 52 <= np.ptp(cols) + 1 <= 86
        assert cut.pixels.dtype == np.uint8
        assert cut.usable
    assert 0.15 < np.mean([(cut.pixels > 0).mean() for cut in made]) < 0.4


def test_practical_particles_vary_more_than_ideal_ones():
    areas = {
        kind: np.array([(cut.pixels > 0).sum() for cut in _cutouts(40, population=kind, size=64)])
        for kind in ("ideal", "practical")
    }
    assert areas["practical"].std() > 1.5 * areas["ideal"].std()


def test_a_particle_set_has_exact_counts_and_is_the_same_again(tmp_path):
    a = simulate.write_particle_set(tmp_path / "a", 20, 64, seed=1, left=0.25, unusable=0.2)
    b = simulate.write_particle_set(tmp_path / "b", 20, 64, seed=1, left=0.25, unusable=0.2)
    rows = list(csv.DictReader(a.labels.open()))
    labels = [row["label"] for row in rows]
    assert (labels.count("left"), labels.count("right"), labels.count("unusable")) == (4, 12, 4)
    assert len({row["group"] for row in rows}) == 20
    for row in rows:
        assert (a.images / row["image"]).read_bytes() == (b.images / row["image"]).read_bytes()
    assert np.asarray(Image.open(a.images / rows[0]["image"])).shape == (64, 64)


def test_a_one_handed_set_has_no_other_hand(tmp_path):
    written = simulate.write_particle_set(tmp_path, 6, 32, left=0.0)
    assert {row["label"] for row in csv.DictReader(written.labels.open())} == {"right"}


RECIPE = micrographs.Recipe(zoom=0.3, density=25, left=0.4)


def test_a_scene_is_drawn_the_same_in_strips_and_its_truth_is_exact(tmp_path, monkeypatch):
    made = simulate.scene(4, (300, 200), RECIPE)
    pixels, ids = made.whole()
    assert pixels.shape == ids.shape == (300, 200)
    rows = write_scene(made, tmp_path / "p.tif", tmp_path / "ids.tif")
    read = readers.read(str(tmp_path / "p.tif"))
    assert read.pixel_size_nm == pytest.approx(2.0)
    assert np.array_equal(read.pixels, pixels)
    assert np.array_equal(readers.read(str(tmp_path / "ids.tif")).pixels, ids)
    assert [row["id"] for row in rows] == list(range(1, len(made.particles) + 1))
    monkeypatch.setattr(micrographs, "STRIP", 64)
    assert np.array_equal(made.whole()[1], ids)  # where particles lie does not hang on the strips


def test_particles_stand_out_lie_where_the_truth_says_and_hardly_overlap():
    made = simulate.scene(5, (400, 400), RECIPE)
    pixels, ids = made.whole()
    assert pixels[ids > 0].mean() > 1.8 * pixels[ids == 0].mean()
    counts = np.bincount(ids.ravel(), minlength=len(made.particles) + 1)
    rows = micrographs.truth_rows(made, counts)
    inner = [r for r in rows if 30 < r["x"] < 370 and 30 < r["y"] < 370]
    assert len(inner) >= 10
    for row in inner:
        y, x = np.nonzero(ids == row["id"])
        assert np.hypot(y.mean() - row["y"], x.mean() - row["x"]) < 5
        assert row["visible"] > 0.8
    lefts = [particle.place.hand == "left" for particle in simulate.scene(6, (900, 900), RECIPE).particles]
    assert 0.25 < np.mean(lefts) < 0.55


def test_micrographs_are_written_by_sample(tmp_path):
    recipe = micrographs.Recipe(zoom=0.25, density=30)
    written = simulate.write_micrographs(tmp_path, 2, 128, 7, recipe, lefts=(0.0, 1.0))
    rows = list(csv.DictReader(written.truth.open()))
    hands = {
        sample: {r["hand"] for r in rows if r["sample"] == sample} for sample in ("sample-00", "sample-01")
    }
    assert hands == {"sample-00": {"right"}, "sample-01": {"left"}}
    assert sorted(p.name for p in written.images.rglob("*.tif")) == [
        f"sample-{s:02d}-{i:03d}.tif" for s in range(2) for i in range(2)
    ]
    assert (written.maps / rows[0]["image"]).exists()
