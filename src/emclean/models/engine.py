"""Training and prediction: ``fit``, ``load``, ``predict``.

Every step's batch is derived from seed and step number alone, so a run that was stopped goes on from its
checkpoint exactly as if it had not been: same weights at the end. The averaged weights (EMA) are validated,
and those of the best evaluation are kept.
"""

import json
import math
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from emclean.errors import TrainingError
from emclean.models import weights as storage
from emclean.models.ap import ap50
from emclean.models.augment import Cropper
from emclean.models.detectors import Detector, build
from emclean.models.files import whole
from emclean.models.hooks import Hooks, LocalHooks, Progress
from emclean.models.predict import predict
from emclean.models.spec import DetectorSpec, Evaluation, FitJob, FitResult, Schedule
from emclean.models.weights import load
from emclean.types import Target

__all__ = [
    "DetectorSpec",
    "FitJob",
    "FitResult",
    "Hooks",
    "LocalHooks",
    "Progress",
    "Schedule",
    "fit",
    "load",
    "predict",
]

_WEIGHTS, _RESULT = "weights.safetensors", "result.json"
_BF16 = ("amx_bf16", "avx512_bf16")
_FLAT = 0.05  # the share of the learning rate that is left at the end of the cosine


def fit(job: FitJob, hooks: Hooks | None = None) -> FitResult:
    """Train the job's detector, or return the result that its folder already holds for the same digest.

    All ranks return the same result; rank 0 writes the files. Raises ``TrainingError`` when the loss is no
    longer finite.
    """
    hooks = hooks or LocalHooks(job.out)
    digest = hooks.broadcast(job.digest())
    known = hooks.broadcast(finished(job.out, digest))
    if known is not None:
        return known
    with torch.random.fork_rng(devices=_generators(hooks.device)):
        result = _Training(job, hooks, digest).run()
    return hooks.broadcast(result)


def finished(out: str | Path, digest: str) -> FitResult | None:
    """The result in ``out`` if it is that of the job with this digest."""
    try:
        stored = json.loads((Path(out) / _RESULT).read_text())
    except (OSError, ValueError):
        return None
    path = Path(out) / _WEIGHTS
    if stored.get("digest") != digest or not path.exists():
        return None
    history = tuple(Evaluation(**row) for row in stored["history"])
    return FitResult(str(path), history, stored["ap50"], stored["steps"], stored["seconds"])


@dataclass
class _State:
    """What a checkpoint holds beside model, average and optimiser."""

    step: int = 0
    history: list[Evaluation] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    best: float | None = None
    stale: int = 0
    seconds: float = 0.0


class _Training:
    def __init__(self, job: FitJob, hooks: Hooks, digest: str) -> None:
        self.job, self.hooks, self.digest = job, hooks, digest
        schedule = job.schedule
        if schedule.batch < hooks.world_size:
            raise ValueError(
                f"batch: expected at least one crop per worker, got {schedule.batch} for {hooks.world_size}"
            )
        torch.manual_seed(job.seed)
        self.detector = build(job.spec)
        storage.start(self.detector, job.init)
        self.detector.to(hooks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {name: value.detach().clone() for name, value in self.detector.state_dict().items()}
        self.best = self.average
        self.state = _State()
        self.optimiser = _optimiser(self.detector, schedule)
        self.batches = _Batches(job, hooks.rank, hooks.world_size)
        self.validator = _Validator(job) if hooks.rank == 0 else None
        self._resume()
        self.model = hooks.prepare(self.detector)
        self.began = time.perf_counter() - self.state.seconds

    def run(self) -> FitResult:
        """Train to the end of the schedule or until it no longer pays, then write the result."""
        schedule, state = self.job.schedule, self.state
        going = not self._ended()
        while going:
            self._step()
            if state.step % schedule.eval_every == 0 or state.step == schedule.max_steps:
                self._evaluate()
                going = not self.hooks.broadcast(self._ended())
                self.hooks.report(self._progress(), self._save if self.hooks.rank == 0 else None)
        return self._finish()

    def _ended(self) -> bool:
        schedule = self.job.schedule
        tired = 0 < schedule.patience <= self.state.stale
        return tired or self.state.step >= schedule.max_steps

    def _step(self) -> None:
        state, schedule = self.state, self.job.schedule
        # Some families draw samples in their loss: a resumed run must draw the same.
        torch.manual_seed(self.job.seed * 1_000_003 + state.step)
        images, targets = self.batches(state.step)
        for group in self.optimiser.param_groups:
            group["lr"] = schedule.lr * pace(state.step, schedule)
        self.model.train()
        with _autocast(self.hooks.device, self.job.spec.family == "compact" or schedule.crop >= 256):
            losses = self.model(images.to(self.hooks.device, memory_format=torch.channels_last), targets)
        loss: Tensor = torch.stack([value.float() for value in losses.values()]).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            self._diverged(losses)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.detector.parameters(), schedule.clip)
        self.optimiser.step()
        state.step += 1
        state.losses.append(value)
        self._follow()

    def _diverged(self, losses: Mapping[str, Tensor]) -> None:
        terms = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
        advice = "Lower detector.schedule.lr, or look for broken pictures."
        raise TrainingError(f"the loss is no longer finite ({terms})", f"step {self.state.step}", advice)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the averaged weights a little towards the current ones; early on, faster."""
        decay = min(self.job.schedule.ema, self.state.step / (self.state.step + 10.0))
        if self.best is self.average:
            self.average = {name: value.clone() for name, value in self.average.items()}
        for name, value in self.detector.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1.0 - decay)
            else:
                self.average[name].copy_(value)

    def _evaluate(self) -> None:
        state = self.state
        loss = sum(state.losses) / len(state.losses)
        score = self.validator(self.average, self.hooks.device) if self.validator else None
        score = self.hooks.broadcast(score)
        state.losses.clear()
        state.history.append(Evaluation(state.step, loss, score))
        better = score is None or state.best is None or score > state.best
        state.stale = 0 if better else state.stale + 1
        if better or score == state.best or not self.job.schedule.keep_best:  # of equals the longer trained
            state.best, self.best = score, self.average

    def _progress(self) -> Progress:
        state, total = self.state, self.job.schedule.max_steps
        state.seconds = time.perf_counter() - self.began
        last = state.history[-1]
        left = 0.0 if self._ended() else state.seconds / state.step * (total - state.step)
        return Progress(state.step, total, last.loss, last.ap50, left)

    def _save(self, path: Path) -> None:
        """Write everything that the rest of the training depends on; the file appears when it is whole."""
        content = {
            "digest": self.digest,
            "model": self.detector.state_dict(),
            "average": self.average,
            "best": self.best,
            "optimiser": self.optimiser.state_dict(),
            "state": json.dumps(asdict(self.state)),
        }
        with whole(path) as draft:
            torch.save(content, draft)

    def _resume(self) -> None:
        path = self.hooks.resume()
        if path is None:
            return
        content: dict[str, Any] = torch.load(path, map_location=self.hooks.device, weights_only=True)
        if content["digest"] != self.digest:  # left by another job: start anew
            return
        self.detector.load_state_dict(content["model"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.average, self.best = content["average"], content["best"]
        stored = json.loads(content["state"])
        stored["history"] = [Evaluation(**row) for row in stored["history"]]
        self.state = _State(**stored)

    def _finish(self) -> FitResult:
        state, out = self.state, Path(self.job.out)
        state.seconds = time.perf_counter() - self.began
        history = tuple(state.history)
        result = FitResult(str(out / _WEIGHTS), history, state.best, state.step, state.seconds)
        if self.hooks.rank == 0:
            facts = {"digest": self.digest, "ap50": json.dumps(state.best), "steps": str(state.step)}
            storage.save(out / _WEIGHTS, self.job.spec, self.best, facts)
            _write(out / _RESULT, json.dumps({"digest": self.digest, **asdict(result)}, indent=1))
            (out / "state.pt").unlink(missing_ok=True)
        return result


class _Batches:
    """Batches of crops, each a function of seed and step; with several workers each makes its share."""

    def __init__(self, job: FitJob, rank: int, world_size: int) -> None:
        self.seed, self.batch, self.rank, self.world_size = job.seed, job.schedule.batch, rank, world_size
        self.pictures = [np.load(path, mmap_mode="r") for path in job.pictures]
        self.targets = job.targets
        schedule = job.schedule
        self.crop = Cropper(schedule.crop, schedule.scales or job.spec.scales, schedule.augment)
        self.partial = job.spec.weighs_targets

    def __call__(self, step: int) -> tuple[Tensor, list[Target]]:
        """Images ``[b, 1, crop, crop]`` and targets of this worker's share of the step."""
        first = step * self.batch
        crops = [self._sample(first + i) for i in range(self.rank, self.batch, self.world_size)]
        images = torch.from_numpy(np.stack([pixels for pixels, _ in crops]))
        return images[:, None], [target for _, target in crops]

    def _sample(self, number: int) -> tuple[np.ndarray[Any, np.dtype[np.float32]], Target]:
        """Crop ``number`` of the training: every picture once in random order, then again in another."""
        turn, place = divmod(number, len(self.pictures))
        index = np.random.default_rng([self.seed, 0, turn]).permutation(len(self.pictures))[place]
        pixels, target = self.crop(
            self.pictures[index], self.targets[index], np.random.default_rng([self.seed, 1, number])
        )
        if not self.partial:  # such a family takes what is hardly in view as background
            target = Target(target.boxes, target.categories)
        return pixels, target


class _Validator:
    """AP50 of a state on the validation part, or None where there is none."""

    def __init__(self, job: FitJob) -> None:
        self.labels = job.validation_labels
        self.pictures = [np.load(path, mmap_mode="r") for path in job.validation_pictures]
        self.detector = build(job.spec).eval()

    def __call__(self, state: Mapping[str, Tensor], device: torch.device) -> float | None:
        if not self.pictures:
            return None
        self.detector.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.detector.load_state_dict(state)
        found = list(predict(self.detector, self.pictures))
        return ap50(self.labels, found, self.detector.spec.n_categories)


def pace(step: int, schedule: Schedule) -> float:
    """The share of the learning rate at ``step``: a linear rise, then half a cosine down to 5 %."""
    if step < schedule.warmup:
        return (step + 1) / schedule.warmup
    done = (step - schedule.warmup) / max(1, schedule.max_steps - schedule.warmup)
    return _FLAT + (1 - _FLAT) * 0.5 * (1 + math.cos(math.pi * done))


def _optimiser(detector: Detector, schedule: Schedule) -> torch.optim.AdamW:
    """AdamW; norms and biases do not decay."""
    parameters = [p for p in detector.parameters() if p.requires_grad]
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=schedule.lr, fused=True)


def _autocast(device: torch.device, wide: bool) -> AbstractContextManager[Any]:
    """bfloat16 where the hardware gains from it: CUDA, and processors that multiply in it (AMX or AVX-512).

    Not on processors where the network's smallest maps are not ``wide``: of a convolution with stride on a
    map of one pixel, torch 2.14 takes the gradient in bfloat16 from memory that nobody has written.
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.autocast("cuda", torch.bfloat16)
    if device.type == "cpu" and wide and any(torch.cpu.get_capabilities().get(name) for name in _BF16):
        return torch.autocast("cpu", torch.bfloat16)
    return nullcontext()


def _generators(device: torch.device) -> list[int]:
    return [device.index or 0] if device.type == "cuda" else []


def _write(path: Path, text: str) -> None:
    with whole(path) as draft:
        draft.write_text(text)
