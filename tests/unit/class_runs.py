"""A small run over classes with neighbours in memory, for tests of the loop."""

import io
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from emclean.config import load_classes
from emclean.loop import asking, controller
from emclean.loop.classes import opening
from emclean.loop.classes.labels import classes_of
from emclean.loop.cleaning import standing_labels
from emclean.loop.console import Console
from emclean.loop.job import Job, Parts
from emclean.models.classifiers.spec import ClassEvaluation, ClassResult
from emclean.science.classes import plant
from emclean.stores.fakes import FolderRegistry, InMemoryLabelService, InMemoryTracker
from emclean.stores.tables import Tables

N, ERROR = 60, 0.25
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def write(folder, votes=0):
    """``N`` pictures whose brightest half tells the class, their noisy labels, and the truth."""
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 2, N)
    noisy = plant(truth, np.arange(N), ERROR, rng)
    (folder / "images").mkdir(parents=True)
    for i, side in enumerate(truth):
        pixels = rng.integers(0, 60, (16, 16))
        pixels[:, 8 * side : 8 * side + 8] += 120
        Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / f"{i:02d}.png")
    names, head = np.array(["left", "right"]), ",".join(f"v{k}" for k in range(votes))
    others = [np.where(rng.random(N) < 0.2, 1 - truth, truth) for _ in range(votes)]
    for file, said in (("crowd", noisy), ("truth", truth)):
        rows = [",".join([f"{i:02d}.png", names[said[i]], *(names[o[i]] for o in others)]) for i in range(N)]
        (folder / f"{file}.csv").write_text("\n".join([f"image,label{',' * bool(votes)}{head}", *rows]))


def config(folder, *more):
    """A configuration over such a set."""
    return load_classes(
        None,
        [
            "task=classes", f"workspace={folder / 'w'}", f"data.pool.images={folder / 'images'}",
            f"data.pool.labels={folder / 'crowd.csv'}", f"expert.truth={folder / 'truth.csv'}", "mirror=true",
            f"data.test.images={folder / 'test' / 'images'}",
            f"data.test.labels={folder / 'test' / 'truth.csv'}",
            "label_service=in_process", "compute=inline", "serve=false", "run=r", "budget.seed_images=12",
            "budget.share_of_full=0.4", "budget.rounds=1", "budget.blind_share=0.3", "baselines=true", *more,
        ],
    )  # fmt: skip


class SeeingCompute:
    """Models that tell the brighter half of a picture, sure of it but for noise; nothing is trained."""

    def __init__(self, sure=3.0):
        self.sure, self.fits = sure, []

    def fit_classes(self, fits, progress):
        results = []
        for fit in fits:
            self.fits.append(fit)
            out = f"{fit.task.out}.safetensors"
            with open(out, "w") as file:
                file.write(fit.task.out)
            history = (ClassEvaluation("train", fit.steps, 0.1, 0.8),)
            results.append(ClassResult(out, fit.method, None, history, 0.1))
        return results

    def predict_classes(self, weights, pictures, rows, progress):
        pixels = np.load(pictures, mmap_mode="r")[rows].astype(float)
        odds = self.sure * (pixels[:, :, 8:].mean((1, 2)) - pixels[:, :, :8].mean((1, 2))) / 120
        right = 1 / (1 + np.exp(-odds - np.random.default_rng(len(rows)).normal(0, 0.3, len(rows))))
        return np.stack([1 - right, right], axis=1)


def made(folder, settings, compute=None, console=None):
    workspace = folder / "w"
    (workspace / "models").mkdir(parents=True, exist_ok=True)
    console = console or Console(io.StringIO())
    data, kind = opening.opened(settings, workspace, console)
    parts = Parts(
        Tables(str(workspace / "tables")), InMemoryLabelService(), InMemoryTracker(),
        FolderRegistry(workspace / "registry"), compute or SeeingCompute(), console, None, None,
        {"MLflow": "memory"}, lambda: NOW,
    )  # fmt: skip
    return Job(settings, "r", workspace, parts, data, kind)


def dying(step):
    """A step that dies the first time after its work, before its state is saved."""
    died = []

    def once(job, state):
        after = step(job, state)
        if state.round not in died:
            died.append(state.round)
            raise KeyboardInterrupt
        return after

    return once


def dying_in(job, phases, born_again):
    """The job at its end, having died once in each phase of each round; ``born_again`` renews it."""
    steps = dict(controller.STEPS)
    with pytest.MonkeyPatch.context() as patch:
        for phase in set(phases) & set(steps):
            patch.setitem(controller.STEPS, phase, dying(steps[phase]))
        for _ in range(80):
            try:
                controller.run(job)
                return job
            except KeyboardInterrupt:
                job = born_again(job)
    pytest.fail("it never came to an end")


def assert_alike(straight, broken, rounds):
    """Both runs asked the same in every round and end with the same labels."""
    for r in range(rounds):
        first, second = (asking.plan_file(job, r).read_text() for job in (straight, broken))
        assert first == second
    assert classes_of(standing_labels(straight)) == classes_of(standing_labels(broken))
