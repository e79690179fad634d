"""What depends on the hardware: bfloat16, channels-last memory, and (marker ``gpu``) a GPU."""

import numpy as np
import pytest
import torch

from emclean.models import engine, weights
from emclean.models.detectors import build
from emclean.models.engine import DetectorSpec, FitJob, LocalHooks, Schedule, fit, load, predict
from emclean.types import Labels, Target

LABELS = Labels(np.array([[12.0, 12, 36, 36], [52, 40, 76, 64]]), [0, 0])
STEPS = 20

FAMILIES = (
    "compact",
    *(
        pytest.param(name, marks=pytest.mark.slow)  # torchvision's import alone takes seconds
        for name in ("fcos_resnet18", "retinanet_resnet18", "ssdlite", "fasterrcnn_resnet18")
    ),
)


@pytest.fixture
def pixels():
    """Grey ground with two dark squares."""
    made = np.random.default_rng(0).integers(150, 200, (96, 96)).astype(np.uint8)
    for x1, y1, x2, y2 in LABELS.boxes.astype(int):
        made[y1:y2, x1:x2] = 40
    return made


@pytest.fixture
def make_job(pixels, tmp_path):
    np.save(tmp_path / "picture.npy", pixels)
    picture = str(tmp_path / "picture.npy")

    def make(name, steps):
        schedule = Schedule(max_steps=steps, batch=2, crop=64, warmup=1, eval_every=steps // 2, lr=3e-3)
        data = ((picture,) * 4, (Target.of(LABELS),) * 4, (picture,), (LABELS,))
        return FitJob(DetectorSpec("compact", 1, width=8), *data, schedule, 7, str(tmp_path / name), None)

    return make


def use_processor(monkeypatch, *able):
    """A processor that multiplies bfloat16 by these, which decides about its use; any can compute in it."""
    names = ("amx_bf16", "avx512_bf16")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {name: name in able for name in names})


@pytest.mark.parametrize("able", [(), ("amx_bf16",), ("avx512_bf16",)])
@pytest.mark.parametrize("wide", [True, False])
def test_bfloat16_is_used_where_the_processor_gains_from_it(monkeypatch, able, wide):
    use_processor(monkeypatch, *able)
    there = bool(able)
    with engine._autocast(torch.device("cpu"), wide):
        assert torch.is_autocast_enabled("cpu") is (there and wide)
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype is (torch.bfloat16 if there and wide else torch.float32)


def test_training_in_bfloat16_is_near_training_in_float32(make_job, monkeypatch):
    found = {}
    for there in (False, True):
        use_processor(monkeypatch, *(["avx512_bf16"] if there else []))
        job = make_job(f"bf16-{there}", 4)
        found[there] = fit(job, LocalHooks(job.out))
    exact, rounded = (found[there].history[-1].loss for there in (False, True))
    assert rounded != exact  # it was really computed otherwise
    assert rounded == pytest.approx(exact, rel=0.02)
    trained = load(found[True].weights)
    assert {p.dtype for p in trained.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_can_be_trained_in_bfloat16(family):
    """On crops of the default size: on a map of one pixel, torch 2.14 takes processors' gradients in bfloat16
    from memory that nobody has written."""
    torch.manual_seed(0)
    detector = build(DetectorSpec(family, 2, image_size=256, width=16)).train()
    images = torch.rand(2, 1, 256, 256, generator=torch.Generator().manual_seed(1))
    targets = [Target(np.array([[4.0, 6, 30, 34], [36, 30, 60, 62]]), [0, 1])] * 2
    torch.manual_seed(2)  # some families draw samples in their loss
    exact = sum(float(value.detach()) for value in detector(images, targets).values())
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(images.to(memory_format=torch.channels_last), targets)
    loss = torch.stack([value.float() for value in losses.values()]).sum()
    loss.backward()
    assert float(loss.detach()) == pytest.approx(exact, rel=0.05)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in detector.parameters())


def test_channels_last_memory_changes_no_answer(tmp_path, pixels):
    torch.manual_seed(0)
    plain = build(DetectorSpec("compact", 1, width=8, score=0.0, limit=20)).eval()
    weights.save(tmp_path / "w.safetensors", plain.spec, plain.state_dict())
    last = load(tmp_path / "w.safetensors")
    convolutions = [p for p in last.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert convolutions
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in convolutions)
    assert not all(
        p.is_contiguous(memory_format=torch.channels_last) for p in plain.parameters() if p.ndim == 4
    )
    (a,), (b,) = predict(plain, [pixels]), predict(last, [pixels])
    np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


@pytest.mark.gpu
def test_a_gpu_trains_as_a_processor_does(make_job):
    torch.cuda.reset_peak_memory_stats()
    on_gpu = fit(make_job("gpu", STEPS), LocalHooks(make_job("gpu", STEPS).out))
    assert torch.cuda.max_memory_allocated() > 0
    on_cpu = fit(make_job("cpu", STEPS), LocalHooks(make_job("cpu", STEPS).out, device="cpu"))
    assert (on_gpu.steps, len(on_gpu.history)) == (STEPS, 2)
    assert on_gpu.history[-1].loss == pytest.approx(on_cpu.history[-1].loss, rel=0.1)


@pytest.mark.gpu
def test_a_gpu_goes_on_where_it_was(make_job):
    class Killed(Exception):
        pass

    def die(progress):
        raise Killed

    whole, torn, seen = make_job("whole", STEPS), make_job("torn", STEPS), []
    with pytest.raises(Killed):
        fit(torn, LocalHooks(torn.out, checkpoint_every=1, watch=die, device="cuda"))
    went_on = fit(torn, LocalHooks(torn.out, watch=lambda p: seen.append(p.step), device="cuda"))
    assert seen == [STEPS]
    once = fit(whole, LocalHooks(whole.out, device="cuda"))
    assert went_on.history[-1].loss == pytest.approx(once.history[-1].loss, rel=0.02)


@pytest.mark.gpu
def test_a_gpu_finds_what_a_processor_finds(make_job, pixels):
    trained = fit(make_job("found", STEPS)).weights
    (a,), (b,) = predict(load(trained), [pixels]), predict(load(trained).to("cuda"), [pixels])
    np.testing.assert_allclose(a.boxes[:2], b.boxes[:2], atol=0.5)
    np.testing.assert_allclose(a.scores[:2], b.scores[:2], atol=0.02)
