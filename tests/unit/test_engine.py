"""Training: it learns, repeats, goes on exactly after a stop, stores what it did, and predicts."""

import dataclasses
import json
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from emclean.errors import DataError, TrainingError
from emclean.models import engine, weights
from emclean.models.detectors import Detector, build
from emclean.models.engine import DetectorSpec, FitJob, LocalHooks, Schedule, fit, load
from emclean.models.predict import fuse, plan, predict
from emclean.types import Labels, Predictions, Target

SPEC = DetectorSpec("compact", 1, width=8)
SHORT = Schedule(max_steps=6, batch=2, crop=64, warmup=1, eval_every=2, lr=3e-3)


def picture(rng, size=96):
    """Grey ground with two dark squares, and their labels."""
    pixels = rng.integers(150, 200, (size, size)).astype(np.uint8)
    corners = rng.integers(0, size - 24, (2, 2))
    for x, y in corners:
        pixels[y : y + 20, x : x + 20] = 40
    return pixels, Labels(np.concatenate([corners, corners + 20], axis=1), [0, 0])


@pytest.fixture
def job(tmp_path):
    rng = np.random.default_rng(0)
    made = []
    for i in range(6):
        pixels, labels = picture(rng)
        np.save(tmp_path / f"{i}.npy", pixels)
        made.append((str(tmp_path / f"{i}.npy"), labels))
    paths, labels = zip(*made, strict=True)
    targets = tuple(Target.of(value) for value in labels[:4])
    return FitJob(SPEC, paths[:4], targets, paths[4:], labels[4:], SHORT, 7, str(tmp_path / "fit"), None)


def state_of(path):
    return weights.read(path)[1]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name, value in a.items():
        assert torch.equal(value, b[name]), name


class Killed(Exception):
    pass


def kill_at(step):
    def watch(progress):
        if progress.step == step:
            raise Killed

    return watch


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(job, tmp_path):
    whole = fit(job)
    other = dataclasses.replace(job, out=str(tmp_path / "killed"))
    for step in (2, 4):
        with pytest.raises(Killed):
            fit(other, LocalHooks(other.out, checkpoint_every=1, watch=kill_at(step)))
    seen = []
    resumed = fit(other, LocalHooks(other.out, checkpoint_every=1, watch=lambda p: seen.append(p.step)))
    assert seen == [6]
    assert resumed.history == whole.history
    assert_same(state_of(resumed.weights), state_of(whole.weights))
    assert not (tmp_path / "killed" / "state.pt").exists()


def test_finished_job_is_not_done_again(job):
    first = fit(job)

    def watch(progress):
        raise AssertionError("trained again")

    assert fit(job, LocalHooks(job.out, watch=watch)) == first
    with pytest.raises(AssertionError, match="trained again"):
        fit(dataclasses.replace(job, seed=8), LocalHooks(job.out, watch=watch))


def test_checkpoint_of_another_job_is_not_used(job, tmp_path):
    with pytest.raises(Killed):
        fit(job, LocalHooks(job.out, checkpoint_every=1, watch=kill_at(4)))
    other = dataclasses.replace(job, seed=8)
    assert [row.step for row in fit(other).history] == [2, 4, 6]


def test_digest_follows_content_and_nothing_else(job, tmp_path):
    assert job.digest() == dataclasses.replace(job, out=str(tmp_path / "elsewhere")).digest()
    assert job.digest() == pickle.loads(pickle.dumps(job)).digest()
    weighed = (Target(job.targets[0].boxes, [0, 0], [1, 0.5]), *job.targets[1:])
    variants = (
        {"seed": 8},
        {"schedule": dataclasses.replace(SHORT, lr=1e-3)},
        {"targets": weighed},
        {"spec": dataclasses.replace(SPEC, scales=(0.5,))},
    )
    digests = {dataclasses.replace(job, **variant).digest() for variant in variants}
    assert len(digests | {job.digest()}) == len(variants) + 1
    before = job.digest()
    np.save(job.pictures[0], np.zeros((96, 96), np.uint8))
    assert job.digest() != before


def test_it_learns(job):
    longer = dataclasses.replace(SHORT, max_steps=40, batch=4, eval_every=20, ema=0.9)
    result = fit(dataclasses.replace(job, schedule=longer))
    assert result.history[-1].loss < 0.8 * result.history[0].loss
    assert result.ap50 == max(row.ap50 for row in result.history)


def test_early_stop_keeps_the_best(job, monkeypatch):
    scores = iter([0.2, 0.5, 0.4, 0.3, 0.9])
    states = []

    def score(self, state, device):
        states.append({name: value.clone() for name, value in state.items()})
        return next(scores)

    monkeypatch.setattr(engine._Validator, "__call__", score)
    patient = dataclasses.replace(SHORT, max_steps=20, patience=2)
    result = fit(dataclasses.replace(job, schedule=patient))
    assert (result.steps, result.ap50) == (8, 0.5)
    assert_same(state_of(result.weights), states[1])


def test_a_validation_part_too_small_to_choose_by_only_tells(job, monkeypatch):
    scores = iter([0.2, 0.5, 0.4])
    states = []

    def score(self, state, device):
        states.append({name: value.clone() for name, value in state.items()})
        return next(scores)

    monkeypatch.setattr(engine._Validator, "__call__", score)
    result = fit(dataclasses.replace(job, schedule=dataclasses.replace(SHORT, keep_best=False)))
    assert (result.ap50, len(states)) == (0.4, 3)
    assert_same(state_of(result.weights), states[2])


def test_without_validation_the_last_average_is_kept(job):
    result = fit(dataclasses.replace(job, validation_pictures=(), validation_labels=()))
    assert result.ap50 is None
    assert [row.ap50 for row in result.history] == [None] * 3


def test_loss_that_is_not_finite_is_an_error(job, monkeypatch):
    monkeypatch.setattr(
        Detector, "forward", lambda self, images, targets: {"box": torch.tensor(float("nan"))}
    )
    with pytest.raises(TrainingError, match=r"step 0: the loss is no longer finite \(box nan\)"):
        fit(job)


def test_training_leaves_global_randomness_alone(job):
    torch.manual_seed(11)
    expected = torch.rand(1)
    torch.manual_seed(11)
    fit(job)
    assert torch.equal(torch.rand(1), expected)


def test_workers_share_one_batch(job):
    images, targets = engine._Batches(job, 0, 1)(3)
    parts = [engine._Batches(job, rank, 2)(3) for rank in (0, 1)]
    assert torch.equal(images, torch.cat([part[0] for part in parts]))
    np.testing.assert_array_equal(targets[1].boxes, parts[1][1][0].boxes)


class TwoWorkers(LocalHooks):
    """Rank 1 of two, told what rank 0 decided; counts its reports."""

    rank, world_size = 1, 2

    def __init__(self, out, decisions):
        super().__init__(out)
        self.decisions, self.reports = iter(decisions), []

    def broadcast(self, value):
        return next(self.decisions)

    def report(self, progress, save):
        self.reports.append((progress.step, save))


def test_other_ranks_follow_rank_0_and_write_nothing(job, tmp_path):
    decisions = [job.digest(), None, 0.5, False, 0.4, True, "the result of rank 0"]
    hooks = TwoWorkers(job.out, decisions)
    assert fit(job, hooks) == "the result of rank 0"
    assert hooks.reports == [(2, None), (4, None)]
    assert not (tmp_path / "fit").exists()


def test_weights_come_back(tmp_path):
    detector = build(SPEC)
    weights.save(tmp_path / "a.safetensors", SPEC, detector.state_dict(), {"note": "x"})
    again = load(tmp_path / "a.safetensors")
    assert again.spec == SPEC
    assert not again.training
    assert_same(dict(detector.state_dict()), dict(again.state_dict()))
    assert json.loads(weights.read(tmp_path / "a.safetensors")[2]["spec"])["width"] == 8


def test_one_category_passes_its_head_to_many(tmp_path):
    one, three = build(SPEC), build(dataclasses.replace(SPEC, n_categories=3))
    weights.save(tmp_path / "one.safetensors", SPEC, one.state_dict())
    weights.start(three, str(tmp_path / "one.safetensors"))
    assert torch.equal(three.heat.weight[2], one.heat.weight[0])
    assert torch.equal(three.head[0].weight, one.head[0].weight)


def test_weights_that_cannot_serve_are_named(tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    with pytest.raises(DataError, match=r"bad\.safetensors: not usable as detector weights"):
        load(tmp_path / "bad.safetensors")
    weights.save(tmp_path / "small.safetensors", SPEC, build(SPEC).state_dict())
    with pytest.raises(DataError, match="do not fit the detector"):
        weights.start(build(dataclasses.replace(SPEC, width=16)), str(tmp_path / "small.safetensors"))
    with pytest.raises(DataError, match="holds a compact detector, wanted ssdlite"):
        weights.start(build(DetectorSpec("ssdlite")), str(tmp_path / "small.safetensors"))


def test_bare_state_is_taken_where_it_fits(tmp_path):
    donor, taker = build(SPEC), build(SPEC)
    torch.save({"head.0.weight": donor.head[0].weight.detach(), "other": torch.zeros(1)}, tmp_path / "a.pth")
    weights.start(taker, str(tmp_path / "a.pth"))
    assert torch.equal(taker.head[0].weight, donor.head[0].weight)
    torch.save({"other": torch.zeros(1)}, tmp_path / "b.pth")
    with pytest.raises(DataError, match="no tensor in it fits"):
        weights.start(taker, str(tmp_path / "b.pth"))


class Dark(Detector):
    """Sees the dark pixels' bounding box, one per column half; a stand-in that is right by construction."""

    def __init__(self, spec=SPEC):
        super().__init__(spec)
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def detect(self, images):
        rows, columns = np.nonzero(images[0, 0].numpy() < 0.3)
        if not len(rows):
            return [Predictions.empty()]
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        return [Predictions([box], [0], [0.9])]


@pytest.mark.parametrize(
    "options", [{}, {"tile": 64, "overlap": 40}, {"scales": (0.5, 1.0)}, {"flips": True}]
)
def test_prediction_finds_the_object_however_it_looks(options):
    pixels = np.full((100, 150), 200, np.uint8)
    pixels[40:60, 60:90] = 10
    found = next(predict(Dark(), [pixels], **options))
    assert len(found) == 1
    np.testing.assert_allclose(found.boxes[0], [60, 40, 90, 60], atol=1.0)
    assert found.scores[0] == pytest.approx(0.9)


class LeftOnly(Dark):
    """As its base, but blind to what starts right of the middle."""

    def detect(self, images):
        found = super().detect(images)[0]
        return [found.take(found.boxes[:, 0] < images.shape[3] / 2)]


def test_what_only_one_of_two_mirrored_views_shows_counts_half():
    pixels = np.full((100, 150), 200, np.uint8)
    pixels[40:60, 10:30] = 10
    found = next(predict(LeftOnly(), [pixels], flips=True))
    np.testing.assert_allclose(found.boxes, [[10, 40, 30, 60]])
    assert found.scores == pytest.approx([0.45])


def test_prediction_streams_and_takes_floats():
    pixels = np.full((40, 50), 0.8)
    pixels[10:20, 10:30] = 0.0
    answers = predict(Dark(), (p for p in (pixels, np.full((64, 64), 255, np.uint8))))
    np.testing.assert_allclose(next(answers).boxes, [[10, 10, 30, 20]])
    assert len(next(answers)) == 0
    with pytest.raises(StopIteration):
        next(answers)


@pytest.mark.parametrize(
    "bad", [np.zeros((3, 4, 4), np.uint8), np.full((4, 4), 7.0), np.full((4, 4), np.nan)]
)
def test_prediction_refuses_other_pictures(bad):
    with pytest.raises(ValueError, match="picture: expected"):
        next(predict(Dark(), [bad]))


@pytest.mark.parametrize(("width", "height"), [(64, 64), (65, 300), (1000, 130)])
def test_tiles_cover_everything_and_overlap(width, height):
    seen = np.zeros((height, width), int)
    for tile in plan(width, height, 64, 16):
        assert tile.right - tile.left <= 64
        seen[tile.top : tile.bottom, tile.left : tile.right] += 1
    assert seen.min() >= 1
    columns = sorted({(t.left, t.right) for t in plan(width, height, 64, 16)})
    assert all(a[1] - b[0] >= 16 for a, b in pairwise(columns))


def test_views_fuse_by_score_and_categories_stay_apart():
    a = Predictions([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0], [0.8, 0.4])
    b = Predictions([[0, 0, 10, 12], [0, 0, 10, 10]], [0, 1], [0.4, 0.3])
    fused = fuse([a, b], 0.5)
    assert fused.categories.tolist() == [0, 0, 1]
    assert fused.scores.tolist() == [0.8, 0.4, 0.3]
    assert 10 < fused.boxes[0, 3] < 11
    np.testing.assert_allclose(fused.boxes[1], [50, 50, 60, 60])
