"""The U-Net: its targets, its two maps, training that goes on where it was, instances from its maps."""

import numpy as np
import pytest
import torch

from emclean.errors import DataError
from emclean.imaging import parting, segmentation
from emclean.imaging.windows import plan
from emclean.models.hooks import LocalHooks
from emclean.models.segmenters import engine, training
from emclean.models.segmenters.spec import SegmenterSpec, SegmentJob, SegmentSchedule
from emclean.models.segmenters.unet import UNet

SMALL = SegmenterSpec(width=8, levels=2)


def _picture(seed, size=64):
    """Bright discs on dark ground, two of them touching, with their ids."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[:size, :size]
    ids = np.zeros((size, size), np.int64)
    for number, (cy, cx) in enumerate(((20, 16), (20, 36), (48, 44)), start=1):
        ids[(y - cy) ** 2 + (x - cx) ** 2 <= 100] = number
    pixels = np.where(ids > 0, 170, 60) + rng.normal(0, 6, ids.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), ids


@pytest.fixture
def job(tmp_path):
    """A job over two small pictures."""
    pictures, maps = [], []
    for seed in range(2):
        pixels, ids = _picture(seed)
        for array, kind, into in ((pixels, "p", pictures), (ids, "i", maps)):
            into.append(str(tmp_path / f"{kind}{seed}.npy"))
            np.save(into[-1], array)
    schedule = SegmentSchedule(max_steps=6, batch=2, crop=32, eval_every=2)
    return SegmentJob(tuple(pictures), tuple(maps), str(tmp_path / "out"), SMALL, schedule, seed=3)


def test_depth_is_0_at_every_outline_and_full_in_the_middle_of_each():
    ids = np.zeros((20, 30), np.int64)
    ids[4:15, 2:13], ids[4:15, 13:24] = 1, 2  # they touch
    depth = training.depth_of(ids)
    assert depth[ids == 0].max() == 0
    assert depth[9, 12] == depth[9, 13] == 0
    assert depth[9, 7] == depth[9, 18] == 255
    assert training.depth_of(np.zeros((4, 4), np.int64)).max() == 0


def test_touching_particles_come_apart_by_their_depth():
    _, ids = _picture(0)
    labels = parting.mapped((ids > 0).astype(np.float32), training.depth_of(ids).astype(np.float32) / 255)
    assert labels.max() == 3
    assert [len(np.unique(labels[ids == k])) for k in (1, 2, 3)] == [1, 1, 1]


def test_prediction_has_the_pictures_size():
    torch.manual_seed(0)
    network = UNet(SMALL).eval()
    pixels = np.random.default_rng(0).integers(0, 255, (90, 101)).astype(np.uint8)
    whole = engine.Finder(network)(pixels)
    assert [part.shape for part in whole] == [(90, 101)] * 2
    assert all(0 <= part.min() <= part.max() <= 1 for part in whole)


def test_a_part_comes_out_as_in_the_whole_picture(monkeypatch):
    """Norms over what a window happens to hold would move every outline a little."""
    monkeypatch.setattr(engine, "TILE", 96)
    monkeypatch.setattr(engine, "MARGIN", 24)
    torch.manual_seed(1)
    finder = engine.Finder(UNet(SMALL).eval())
    pixels = np.random.default_rng(3).integers(0, 255, (200, 170)).astype(np.uint8)
    pixels[:90, :80] //= 3  # parts that differ in contrast
    whole = finder(pixels)
    for rows, cols in ((slice(0, 120), slice(0, 100)), (slice(61, 200), slice(33, 150))):
        part = finder.part(lambda y, x: pixels[y, x], rows, cols, pixels.shape)
        assert all(np.array_equal(a, b[rows, cols]) for a, b in zip(part, whole, strict=True))
    alone = finder(pixels[61:, 33:])
    assert not np.array_equal(alone[0], whole[0][61:, 33:])  # the guard above can fail


class Normed(torch.nn.Module):
    """A network whose answer depends on all that it sees at once, as norms over a tile make it."""

    spec = SMALL

    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.tensor(4.0))

    def forward(self, images):
        z = (images - images.mean()) / images.std()
        deep = torch.nn.functional.avg_pool2d(z, 7, 1, 3)
        return torch.cat([self.gain * (z - 0.6), self.gain * (deep - 0.9)], dim=1)


def test_an_outline_does_not_depend_on_the_window_that_saw_it(monkeypatch):
    monkeypatch.setattr(engine, "TILE", 160)
    monkeypatch.setattr(engine, "MARGIN", 32)
    rng = np.random.default_rng(0)
    y, x = np.ogrid[:400, :400]
    discs = [((y - cy) ** 2 + (x - cx) ** 2) <= 100 for cy, cx in rng.uniform(12, 388, (60, 2))]
    light = 80 + 60 * (x / 400)  # brighter to the right, so that the mean of what is seen differs
    pixels = (
        (light + 60 * np.any(discs, axis=0) + rng.normal(0, 12, (400, 400))).clip(0, 255).astype(np.uint8)
    )
    finder, levels = engine.Finder(Normed()), segmentation.Levels(0, 255, 0, 21, 314)
    seen: dict[tuple[float, float], list[segmentation.Instance]] = {}
    for window in plan(pixels.shape, 90, levels.margin):

        def maps_of(grey, window=window):
            return finder.part(lambda r, c: pixels[r, c], *window.outer, pixels.shape)

        grey, settings = pixels[window.outer], segmentation.Settings()
        for one in segmentation.segment(grey, levels, settings, window, pixels.shape, maps_of):
            if not one.reason:
                seen.setdefault((round(one.form.y), round(one.form.x)), []).append(one)
    twice = [found for found in seen.values() if len(found) > 1]
    assert len(twice) > 5
    assert all(np.array_equal(a.mask, b.mask) and a.box == b.box for a, *rest in twice for b in rest)


def test_training_learns_and_goes_on_from_a_checkpoint_to_the_same_weights(job, tmp_path):
    whole = training.fit(job)
    assert [step for step, _ in whole.history] == [2, 4, 6]
    again = training.fit(job)
    assert again.history == whole.history  # from its folder

    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.step == 4:
            raise Stopped

    second = SegmentJob(job.pictures, job.maps, str(tmp_path / "second"), job.spec, job.schedule, job.seed)
    assert second.digest() == job.digest()
    with pytest.raises(Stopped):
        training.fit(second, LocalHooks(second.out, checkpoint_every=1, watch=stop))
    resumed = training.fit(second, LocalHooks(second.out, checkpoint_every=1))
    assert [step for step, _ in resumed.history] == [2, 4, 6]
    for a, b in zip(
        engine.load(whole.weights).parameters(), engine.load(resumed.weights).parameters(), strict=True
    ):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.slow
def test_a_trained_network_finds_the_discs(tmp_path, job):
    schedule = SegmentSchedule(
        max_steps=60, batch=4, crop=64, lr=1e-2, zoom=(1.0, 1.0), eval_every=30, ema=0.9
    )
    trained = training.fit(SegmentJob(job.pictures, job.maps, str(tmp_path / "t"), SMALL, schedule))
    assert trained.history[-1][1] < 0.8 * trained.history[0][1]
    network = engine.load(trained.weights)
    pixels, ids = _picture(7)
    foreground, _ = engine.Finder(network)(pixels)
    assert ((foreground > 0.5) == (ids > 0)).mean() > 0.88  # 0.77 is ground


def test_segmentation_takes_a_networks_maps_in_place_of_a_threshold():
    pixels, ids = _picture(0)

    def maps_of(grey):
        return (ids > 0).astype(np.float32), training.depth_of(ids).astype(np.float32) / 255

    class Source:
        shape, pixel_size_nm = pixels.shape, None
        read = staticmethod(lambda rows, cols: pixels[rows, cols])

    settings = segmentation.Settings()
    levels = segmentation.measure(Source, settings, maps_of)
    assert levels.length == pytest.approx(21, abs=1.5)
    window = plan(pixels.shape, 64, levels.margin)[0]
    found = segmentation.segment(pixels, levels, settings, window, pixels.shape, maps_of)
    assert [one.reason for one in found] == ["", "", ""]
    assert sum(one.area for one in found) == (ids > 0).sum()


def test_what_is_no_segmenter_is_refused(tmp_path):
    with pytest.raises(DataError, match="not usable as segmenter weights"):
        engine.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="width"):
        SegmenterSpec(width=3)
    with pytest.raises(ValueError, match="maps"):
        SegmentJob(("a",), (), "out")
