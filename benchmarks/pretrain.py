"""Remake the shipped weights of the compact detector from simulated pictures.

    python benchmarks/pretrain.py

Simulates pictures of many kinds of objects (one category), trains the compact detector on them from scratch
and writes src/emclean/models/weights/compact.safetensors in half precision. About 15 minutes of one core with
the defaults; --pictures and --steps make it shorter for a trial.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from emclean.imaging import simulate
from emclean.models import weights
from emclean.models.engine import DetectorSpec, FitJob, LocalHooks, Progress, Schedule, fit
from emclean.models.spec import SHIPPED, Augmentation
from emclean.types import Labels, Target

SIZE = (384, 384)
N_VALIDATION = 60


def main() -> None:
    """Parse, simulate, train, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=800, help="simulated pictures to train on")
    parser.add_argument("--steps", type=int, default=3500, help="training steps of 8 crops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="file to write")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        job = prepare(Path(folder), options.pictures, options.steps, options.seed)
        result = fit(job, LocalHooks(job.out, watch=show))
        spec, state, facts = weights.read(result.weights)
        half = {name: value.half() for name, value in state.items()}
        weights.save(options.out, spec, half, {**facts, "trained_on": "simulated pictures"})
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {result.seconds / 60:.1f} minutes")
    print(f"AP50 on {N_VALIDATION} simulated pictures: {result.ap50:.3f}")


def prepare(folder: Path, n_pictures: int, steps: int, seed: int) -> FitJob:
    """Simulate the training and validation parts into ``folder`` and describe the training."""
    rng = np.random.default_rng(seed)
    made = [one(folder / f"{i}.npy", rng) for i in range(n_pictures + N_VALIDATION)]
    pictures, labels = zip(*made, strict=True)
    schedule = Schedule(
        max_steps=steps,
        lr=2e-3,
        eval_every=max(1, steps // 10),
        ema=0.998,
        augment=Augmentation(jitter=(0.5, 1.4)),
    )
    return FitJob(
        spec=DetectorSpec("compact", 1),
        pictures=pictures[:n_pictures],
        targets=tuple(Target.of(value) for value in labels[:n_pictures]),
        validation_pictures=pictures[n_pictures:],
        validation_labels=labels[n_pictures:],
        schedule=schedule,
        seed=seed,
        out=str(folder / "fit"),
        init=None,
    )


def one(path: Path, rng: np.random.Generator) -> tuple[str, Labels]:
    """Simulate one picture; return its file and labels."""
    field = simulate.mixed_field(rng, SIZE)
    np.save(path, field.pixels)
    return str(path), field.labels


def show(progress: Progress) -> None:
    """One line per evaluation."""
    print(
        f"step {progress.step}/{progress.total}  loss {progress.loss:.3f}  AP50 {progress.ap50:.3f}  "
        f"{progress.seconds_left / 60:.1f} minutes left",
        flush=True,
    )


if __name__ == "__main__":
    main()
