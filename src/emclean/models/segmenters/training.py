"""Training of a segmenter: ``fit``.

Every step's batch is derived from seed and step number alone, so that a run that was stopped goes on from its
checkpoint as if it had not been. Averaged weights (EMA) are kept.
"""

import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from emclean.errors import TrainingError
from emclean.models.files import whole
from emclean.models.hooks import Hooks, LocalHooks, Progress
from emclean.models.segmenters import engine
from emclean.models.segmenters.spec import SegmentJob, SegmentResult
from emclean.models.segmenters.unet import UNet

DEEP = 8.0
"""Px from the outline from which on a px lies fully in the middle: what is deeper is alike to the network."""

_WEIGHTS, _RESULT = "weights.safetensors", "result.json"


def fit(job: SegmentJob, hooks: Hooks | None = None) -> SegmentResult:
    """Train the job's segmenter, or return the result that its folder already holds for the same digest.

    All ranks return the same result; rank 0 writes the files.
    """
    hooks = hooks or LocalHooks(job.out)
    digest = hooks.broadcast(job.digest())
    known = hooks.broadcast(finished(job.out, digest))
    if known is not None:
        return known
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.seed)
        result = _Training(job, hooks, digest).run()
    return hooks.broadcast(result)


def finished(out: str | Path, digest: str) -> SegmentResult | None:
    """The result in ``out`` if it is that of the job with this digest."""
    try:
        stored = json.loads((Path(out) / _RESULT).read_text())
    except (OSError, ValueError):
        return None
    path = Path(out) / _WEIGHTS
    if stored.get("digest") != digest or not path.exists():
        return None
    history = tuple((int(step), float(loss)) for step, loss in stored["history"])
    return SegmentResult(str(path), history, stored["seconds"])


def depth_of(ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """How deep each px lies in its particle: 0 at the outline to 255 from :data:`DEEP` px on.

    Of a particle that is thinner 255 is where it is thickest, so that every particle has a middle.
    """
    inner = ids > 0
    for axis in (0, 1):
        apart = np.diff(ids.astype(np.int64), axis=axis) != 0
        ahead, behind = [slice(None)] * 2, [slice(None)] * 2
        ahead[axis], behind[axis] = slice(1, None), slice(None, -1)
        inner[tuple(ahead)] &= ~apart
        inner[tuple(behind)] &= ~apart
    distance = ndimage.distance_transform_edt(np.pad(inner, 1))[1:-1, 1:-1]
    n = int(ids.max())
    if not n:
        return np.zeros(ids.shape, np.uint8)
    deepest = np.concatenate([[1.0], ndimage.maximum(distance, ids, np.arange(1, n + 1))])
    full = np.clip(deepest, 1.0, DEEP)[ids]
    return np.asarray(255 * np.minimum(distance / full, 1.0), dtype=np.uint8)


class _Batches:
    """Crops ``[b,1,C,C]`` and targets ``[b,2,C,C]`` of a step, this worker's share of the batch."""

    def __init__(self, job: SegmentJob, rank: int, world_size: int) -> None:
        self.job, self.rank, self.world_size = job, rank, world_size
        self.pictures = [np.load(path, mmap_mode="r", allow_pickle=False) for path in job.pictures]
        self.ids = [np.load(path, mmap_mode="r", allow_pickle=False) for path in job.maps]
        self.depths = [depth_of(np.asarray(ids)) for ids in self.ids]

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """The crops of a step."""
        mine = range(self.rank, max(self.job.schedule.batch, self.world_size), self.world_size)
        crops = [self._crop(np.random.default_rng([self.job.seed, step, k])) for k in mine]
        stack = torch.stack(crops)
        return stack[:, :1], stack[:, 1:]

    def _crop(self, rng: np.random.Generator) -> Tensor:
        """One crop ``[3,C,C]``: grey, in a particle or not, depth; turned, mirrored, of varied contrast."""
        side, which = self.job.schedule.crop, int(rng.integers(len(self.pictures)))
        ends = np.log(self.job.schedule.zoom)
        taken = max(int(side / np.exp(rng.uniform(*ends))), 8)
        height, width = self.pictures[which].shape
        y = int(rng.integers(max(height - taken, 0) + 1))
        x = int(rng.integers(max(width - taken, 0) + 1))
        view = slice(y, y + taken), slice(x, x + taken)
        layers = [self.pictures[which][view] / 255, self.ids[which][view] > 0, self.depths[which][view] / 255]
        stack = np.stack([np.asarray(layer, dtype=np.float32) for layer in layers])
        missing = ((0, 0), (0, taken - stack.shape[1]), (0, taken - stack.shape[2]))
        stack = np.rot90(np.pad(stack, missing, mode="edge"), int(rng.integers(4)), axes=(1, 2))
        stack = stack[:, :, ::-1] if rng.random() < 0.5 else stack
        crop = torch.from_numpy(np.ascontiguousarray(stack))[None]
        crop = functional.interpolate(crop, (side, side), mode="bilinear", align_corners=False)[0]
        grey = (crop[0] - 0.5) * float(rng.uniform(0.7, 1.3)) + 0.5 + float(rng.uniform(-0.15, 0.15))
        crop[0] = grey + float(rng.uniform(0, 0.04)) * torch.from_numpy(
            rng.standard_normal((side, side), dtype=np.float32)
        )
        return crop


@dataclass
class _State:
    """What a checkpoint holds beside model, average and optimiser."""

    step: int = 0
    history: list[tuple[int, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0


class _Training:
    def __init__(self, job: SegmentJob, hooks: Hooks, digest: str) -> None:
        self.job, self.hooks, self.digest = job, hooks, digest
        self.network = UNet(job.spec).to(hooks.device)
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(self.network.parameters(), job.schedule.lr, weight_decay=0.01)
        self.batches = _Batches(job, hooks.rank, hooks.world_size)
        self.state = _State()
        self._resume()
        self.model = hooks.prepare(self.network)
        self.began = time.perf_counter() - self.state.seconds

    def run(self) -> SegmentResult:
        """Train to the end of the schedule, then write the result."""
        schedule, state = self.job.schedule, self.state
        while state.step < schedule.max_steps:
            self._step()
            if state.step % schedule.eval_every == 0 or state.step == schedule.max_steps:
                state.history.append((state.step, sum(state.losses) / len(state.losses)))
                state.losses.clear()
                self.hooks.report(self._progress(), self._save if self.hooks.rank == 0 else None)
        return self._finish()

    def _step(self) -> None:
        schedule, state = self.job.schedule, self.state
        images, targets = (part.to(self.hooks.device) for part in self.batches(state.step))
        rate = schedule.lr * (0.05 + 0.475 * (1 + math.cos(math.pi * state.step / schedule.max_steps)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min((state.step + 1) / 20, 1.0)
        self.model.train()
        loss = functional.binary_cross_entropy_with_logits(self.model(images), targets)
        value = float(loss.detach())
        if not math.isfinite(value):
            advice = "Lower its learning rate, or look for broken pictures."
            raise TrainingError("the loss is no longer finite", f"step {state.step}", advice)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimiser.step()
        state.step += 1
        state.losses.append(value)
        decay = min(schedule.ema, state.step / (state.step + 10.0))
        with torch.no_grad():
            for name, tensor in self.network.state_dict().items():
                self.average[name].lerp_(tensor, 1.0 - decay)

    def _progress(self) -> Progress:
        state, total = self.state, self.job.schedule.max_steps
        state.seconds = time.perf_counter() - self.began
        left = state.seconds / state.step * (total - state.step)
        return Progress(state.step, total, state.history[-1][1], None, left)

    def _save(self, path: Path) -> None:
        """Write everything that the rest of the training depends on; the file appears when it is whole."""
        state = self.state
        content = {
            "digest": self.digest,
            "model": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "state": json.dumps([state.step, state.history, state.losses, state.seconds]),
        }
        with whole(path) as draft:
            torch.save(content, draft)

    def _resume(self) -> None:
        """Go on from the checkpoint of the same job, if there is one."""
        path = self.hooks.resume()
        if path is None:
            return
        kept = torch.load(path, map_location=self.hooks.device, weights_only=True)
        if kept.get("digest") != self.digest:
            return
        self.network.load_state_dict(kept["model"])
        self.average = kept["average"]
        self.optimiser.load_state_dict(kept["optimiser"])
        step, history, losses, seconds = json.loads(kept["state"])
        self.state = _State(step, [(int(at), float(loss)) for at, loss in history], losses, seconds)

    def _finish(self) -> SegmentResult:
        seconds = time.perf_counter() - self.began
        out = Path(self.job.out)
        result = SegmentResult(str(out / _WEIGHTS), tuple(self.state.history), seconds)
        if self.hooks.rank == 0:
            engine.save(out / _WEIGHTS, self.job.spec, self.average)
            text = json.dumps({"digest": self.digest, "history": result.history, "seconds": seconds})
            draft = out / f".{_RESULT}.{os.getpid()}"
            draft.write_text(text)
            draft.replace(out / _RESULT)
            (out / "state.pt").unlink(missing_ok=True)
        return result
