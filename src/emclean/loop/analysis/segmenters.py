"""The U-Net of an analysis: given, or trained on simulated micrographs."""

import hashlib
from pathlib import Path

import numpy as np

from emclean.imaging import simulate
from emclean.loop.analysis.opening import Analysis
from emclean.models.segmenters import engine
from emclean.models.segmenters.spec import SegmentJob, SegmentSchedule

SCENES, FIELD = 8, 768
"""Simulated micrographs that it is trained on, and their side in px."""


def segmenter(analysis: Analysis) -> str | None:
    """The file of weights; None where a threshold finds particles."""
    keys = analysis.settings.segmentation
    if keys.method != "unet":
        return None
    if keys.weights is not None:
        engine.load(keys.weights)  # a file that is none is told now, not by every window
        return str(Path(keys.weights).absolute())
    home = analysis.home / "segmenters"
    pictures, maps = _simulated(home, analysis.settings.seed)
    schedule = SegmentSchedule(max_steps=keys.steps)
    job = SegmentJob(pictures, maps, ".", schedule=schedule, seed=analysis.settings.seed)
    out = str(home / job.digest())
    job = SegmentJob(pictures, maps, out, schedule=schedule, seed=analysis.settings.seed)
    with analysis.console.stage("training a U-Net on simulated micrographs") as progress:
        return analysis.runner.fit(job, progress).weights


def _simulated(home: Path, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The paths of simulated micrographs and of their instance maps, written once."""
    folder = home / f"simulated-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [(folder / f"{i}.npy", folder / f"{i}.ids.npy") for i in range(SCENES)]
    for i, (picture, ids) in enumerate(paths):
        if ids.exists():
            continue
        recipe = simulate.Recipe(touching=0.4, left=0.5)
        made = simulate.scene((seed, 88, i), (FIELD, FIELD), recipe).whole()
        np.save(picture, made[0])
        draft = folder / f".{i}.npy"
        np.save(draft, made[1])
        draft.replace(ids)
    return tuple(str(p) for p, _ in paths), tuple(str(ids) for _, ids in paths)


def digest_of(weights: str | None) -> str:
    """What decides where particles are found: the content of the weights."""
    return "" if weights is None else hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16]
