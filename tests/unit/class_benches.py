"""A small grid over classes without training, for tests: models that see whatever is true."""

import numpy as np

from emclean.config import load_grid
from emclean.loop.classes.sets import ClassSet
from emclean.loop.console import Console
from emclean.loop.grid.classes.bench import Case
from emclean.loop.grid.classes.opening import bench_of, experiment
from emclean.loop.grid.opening import Grid, InlineRunner, by_digest
from emclean.models.classifiers.spec import ClassResult
from emclean.stores.fakes import InMemoryTracker


def class_set(folder, n=40, votes=0, seed=0):
    """``n`` particles and their mirror images; each further labeller errs in every fifth particle."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (n, 16, 16)).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"set-{seed}-{n}.npy"
    np.save(file, np.concatenate([pixels, pixels[..., ::-1]]))
    labels = np.repeat([0, 1], n)
    wrong = (np.arange(2 * n)[:, None] + np.arange(votes)) % 5 == 0
    pairs = np.tile(np.arange(n), 2)
    ids = tuple(f"{seed}-{k}" for k in range(2 * n))
    table = np.where(wrong, 1 - labels[:, None], labels[:, None])
    return ClassSet(
        str(file), f"{seed}", ("left", "right"), np.arange(2 * n), labels, pairs, pairs, table, ids, True
    )


def small(folder, *overrides):
    """The configuration of a small grid."""
    fixed = ["task=classes", f"workspace={folder}", "compute=inline", "run=g", "trusted_pairs=4"]
    size = ["classifier={size: 16, steps: 4, batch: 8, eval_every: 2}"]
    return load_grid(None, [*fixed, *size, "methods=[cross_entropy, two_step, gce]", *overrides])


def trial(folder, *overrides, train=None, test=None):
    """The experiment of such a grid."""
    config = small(folder, *overrides)
    return experiment(config, bench_of(config, folder, train or class_set(folder), test))


def grid(folder, *overrides, runner=None, tracker=None, train=None):
    """A grid over the small set, with neighbours in memory."""
    found = trial(folder, *overrides, train=train)
    cells = by_digest(found)
    neighbours = (runner or InlineRunner(), tracker or InMemoryTracker(), Console())
    return Grid(
        small(folder, *overrides), folder, found, cells, *neighbours, {"train": "t"}, (), {"MLflow": None}
    )


class SeeingCase(Case):
    """A cell whose model knows every class, without any training.

    ``ran`` names the trainings, ``places`` has the digest by which each is kept.
    """

    def __post_init__(self):
        super().__post_init__()
        self.ran, self.places = [], {}

    def _run(self, task, name, steps, train):
        self.ran.append(name)
        self.places[name] = task.digest()
        self.done += steps
        self.watch(self.done)
        seen = np.eye(2)[task.labels] if name == "crossfit" else None
        return ClassResult("weights", name, 0.25 if name == "forward" else None, (), 0.1, probabilities=seen)

    def predict(self, weights):
        return np.eye(2)[self.parts.test.labels]
