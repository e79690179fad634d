"""A small grid without training, for tests: models that see whatever is true."""

import numpy as np

from emclean.config import load_grid
from emclean.loop.console import Console
from emclean.loop.grid.boxes.bench import Bench, Case, Part, Recipe
from emclean.loop.grid.boxes.opening import experiment
from emclean.loop.grid.opening import Grid, InlineRunner, by_digest
from emclean.models.spec import DetectorSpec, Schedule
from emclean.stores.fakes import InMemoryTracker
from emclean.types import ImageRecord, Labels, Predictions

DIGESTS = {"train": "t", "test": "u"}


def part(folder, n, first=0, objects=12, categories=1):
    """Pictures of 200 x 200 pixels with objects of 16 pixels on a lattice, that do not touch."""
    rng = np.random.default_rng(first)
    folder.mkdir(parents=True, exist_ok=True)
    records, truth = [], {}
    for k in range(first, first + n):
        places = rng.permutation(36)[:objects]
        low = np.stack([places % 6, places // 6], axis=1) * 32.0 + 4
        name = f"{k:016x}"
        records.append(ImageRecord(name, f"/{k}.png", f"{k}.png", 200, 200, group=f"g{k // 2}"))
        np.save(folder / f"{name}.npy", np.full((200, 200), 128, np.uint8))
        truth[name] = Labels(np.concatenate([low, low + 16], axis=1), places % categories)
    return Part(tuple(records), truth, str(folder))


def bench(folder, expert_images=4):
    """Twelve pictures to learn from, three to test on."""
    recipe = Recipe(DetectorSpec(), Schedule(), 10, 20, None, "from scratch")
    parts = part(folder / "pixels", 12), part(folder / "pixels", 3, 100)
    return Bench(*parts, recipe, expert_images, str(folder / "models"))


class SeeingCase(Case):
    """A cell whose models find every true object, and nothing else, without any training.

    ``trained`` has the images that each model learnt from, ``searched`` what each then looked at, and whether
    mirrored, too.
    """

    def __post_init__(self):
        super().__post_init__()
        self.trained, self.searched = {}, []

    def fit(self, targets, steps, purpose):
        self.done += steps
        self.watch(self.done)
        self.trained[purpose] = set(targets)
        return purpose

    def predict(self, weights, part, ids, flips=False):
        self.searched.append((weights, set(ids), flips))
        truth = {i: part.truth[i] for i in ids}
        return {i: Predictions(t.boxes, t.categories, np.full(len(t), 0.9)) for i, t in truth.items()}


def grid(folder, *overrides, runner=None, tracker=None):
    """A grid over the small bench, with neighbours in memory."""
    config = load_grid(None, [f"workspace={folder}", "compute=inline", "run=g", *overrides])
    trial = experiment(config, bench(folder), DIGESTS)
    return Grid(
        config,
        folder,
        trial,
        by_digest(trial),
        runner or InlineRunner(),
        tracker or InMemoryTracker(),
        Console(),
        DIGESTS,
        (),
        {"MLflow": None},
    )
