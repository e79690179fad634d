"""What a cell over classes works with: its parts of the pictures, noisy and trusted labels, and training.

Everything here is plain and picklable, so that a cell runs in any process; nothing imports ray.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from emclean.config_classes import CROWD
from emclean.loop.classes.sets import ClassSet, split
from emclean.loop.grid.cells import Cell
from emclean.loop.grid.experiment import Watch
from emclean.loop.grid.models import alone
from emclean.models import robust
from emclean.models.classifiers import engine
from emclean.models.classifiers.spec import ClassRecipe, ClassResult, ClassTask
from emclean.models.hooks import LocalHooks
from emclean.models.robust.presets import Preset
from emclean.science.classes import ConfidentJudge, consensus, plant
from emclean.science.classes.votes import ABSENT
from emclean.types import Floats, Ints

TEST_SHARE, VALIDATION_SHARE = 0.1, 0.1


@dataclass(frozen=True, eq=False)
class Bench:
    """What all cells of a grid share.

    Without a ``test`` set every seed holds out a part of ``train``. ``courses`` say how each method of the
    grid is trained. ``models`` is the folder of trained models, named by their content.
    """

    train: ClassSet
    test: ClassSet | None
    courses: Mapping[str, Preset]
    trusted_pairs: int
    trusted_to_all: bool
    models: str

    @property
    def n_classes(self) -> int:
        """How many classes there are."""
        return len(self.train.classes)

    def trusts(self, method: str) -> int:
        """How many particles with trusted labels a method is given."""
        given = self.trusted_to_all or self.chosen(method).needs_trusted
        return self.trusted_pairs if given else 0

    def chosen(self, method: str) -> robust.Method:
        """What does the training for a method of the grid."""
        return robust.METHODS[self.courses[method].method]

    def judges(self, method: str) -> bool:
        """Whether a method has to judge the labels by out-of-sample predictions."""
        chosen = self.chosen(method)
        return chosen.needs_suspects or (chosen.needs_rate and not self.courses[method].true_rate)

    def parted_by(self, method: str) -> str | None:
        """What the folds of a method's cross-fit keep together beside particles, if there is anything."""
        grouped = len(np.unique(self.train.groups)) < len(np.unique(self.train.pairs))
        return "groups" if grouped and self.judges(method) else None

    def steps(self, method: str) -> int:
        """The training steps of a cell, with those of the cross-fit by which labels are judged."""
        course = self.courses[method]
        first = crossfit_steps(course.recipe) if self.judges(method) else 0
        return first + robust.steps(course.method, course.recipe, course.options)

    def crowd_rate(self) -> float:
        """The share of the further labellers' usable consensus that is wrong, over the whole set."""
        usable = has_vote(self.train)
        said = consensus(self.train.votes[usable], self.n_classes, np.random.default_rng(0))
        return round(float((said != self.train.labels[usable]).mean()), 4)


def has_vote(found: ClassSet) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mask ``[n]`` of the pictures of which a further labeller named a class of the set."""
    return np.asarray((found.votes != ABSENT).any(axis=1))


@dataclass(frozen=True, eq=False)
class Parts:
    """Training and validation part of a cell, as sets, with their noisy labels ``[n]``; and the test part."""

    train: ClassSet
    train_labels: Ints
    validation: ClassSet
    validation_labels: Ints
    test: ClassSet

    def true_rate(self) -> float:
        """The share of wrong labels in the training part."""
        return float((self.train_labels != self.train.labels).mean())


def parts_of(bench: Bench, cell: Cell) -> Parts:
    """The parts of a cell, the same for every method; the seed draws them, the noise and the errors."""
    shares = (VALIDATION_SHARE,) if bench.test else (VALIDATION_SHARE, TEST_SHARE)
    places = split(bench.train.groups, shares, _rng(cell, "split"))
    test = bench.test or bench.train.take(places[1])
    train, validation = (_usable(bench.train.take(p), cell) for p in (places[-1], places[0]))
    labels = [noisy(part, cell, k, bench.n_classes) for k, part in enumerate((train, validation))]
    return Parts(train, labels[0], validation, labels[1], test)


def _usable(part: ClassSet, cell: Cell) -> ClassSet:
    return part.take(has_vote(part)) if cell.noise == CROWD else part


def noisy(part: ClassSet, cell: Cell, number: int, n_classes: int) -> Ints:
    """The labels of a part with the cell's errors: planted, an exact share; or what the crowd says."""
    rng = np.random.default_rng([cell.seed, zlib.crc32(cell.noise.encode()), round(cell.rate * 1e9), number])
    if cell.noise == CROWD:
        return consensus(part.votes, n_classes, rng)
    return plant(part.labels, part.pairs, cell.rate, rng, n_classes, coherent=cell.noise == "pair")


def _rng(cell: Cell, purpose: str) -> np.random.Generator:
    """A generator for one purpose; method, noise and rate do not change it."""
    return np.random.default_rng([cell.seed, zlib.crc32(purpose.encode())])


Train = Callable[[ClassTask, LocalHooks], ClassResult]


@dataclass(eq=False)
class Case:
    """One cell at work.

    ``done`` counts the training steps behind it, ``trained_s`` the seconds that these took (also where
    another cell has trained the model), ``waited_s`` those in which another cell trained what this one needs.
    """

    bench: Bench
    cell: Cell
    watch: Watch = lambda done: None
    device: str | None = None
    parts: Parts = field(init=False)
    done: int = 0
    trained_s: float = 0.0
    waited_s: float = 0.0

    def __post_init__(self) -> None:
        self.parts = parts_of(self.bench, self.cell)

    def fit(self) -> ClassResult:
        """Train by the cell's method, or find what was trained before."""
        method, task = self.course.method, self.task()
        if self.bench.judges(self.cell.method):
            alike = replace(task, options={})  # of the method, which the cross-fit has no use for
            shared = self._run(alike, "crossfit", crossfit_steps(task.recipe), robust.crossfit)
            task = replace(task, probabilities=shared.probabilities)
        judge, steps = ConfidentJudge(), robust.steps(method, task.recipe, task.options)
        return self._run(task, method, steps, lambda task, hooks: robust.fit(method, task, hooks, judge))

    @property
    def course(self) -> Preset:
        """How the cell's method is trained."""
        return self.bench.courses[self.cell.method]

    def task(self) -> ClassTask:
        """Everything that decides the training."""
        parts, trusted = self.parts, self.trusted()
        return ClassTask(
            parts.train.pictures,
            parts.train.rows,
            parts.train_labels,
            parts.train.pairs,
            parts.validation.rows,
            parts.validation_labels,
            parts.train.rows[trusted],
            parts.train.labels[trusted],
            parts.true_rate() if self.course.true_rate else None,
            self.course.spec,
            self.course.recipe,
            int(_rng(self.cell, "training").integers(2**31)),
            self.bench.models,
            options=self.course.options,
            groups=parts.train.groups,
        )

    def trusted(self) -> Ints:
        """Positions in the training part of the pictures whose labels an expert has given."""
        pairs = np.unique(self.parts.train.pairs)
        drawn = _rng(self.cell, "trusted").permutation(pairs)[: self.bench.trusts(self.cell.method)]
        return np.flatnonzero(np.isin(self.parts.train.pairs, drawn))

    def predict(self, weights: str) -> Floats:
        """Probabilities ``[n,K]`` of the test pictures."""
        model = engine.load(weights)
        if self.device:
            model.to(self.device)
        test = self.parts.test
        return engine.predict(model, test.open(), test.rows)

    def _run(self, task: ClassTask, name: str, steps: int, train: Train) -> ClassResult:
        """Train, or find the result: while one process trains a model, the others wait for it."""
        out, before = Path(self.bench.models) / f"{name}-{task.digest()}", self.done
        out.mkdir(parents=True, exist_ok=True)
        with alone(out / "lock") as waited:
            self.waited_s += waited
            hooks = LocalHooks(out, watch=lambda at: self.watch(before + at.step), device=self.device)
            result = train(replace(task, out=str(out)), hooks)
        self.done, self.trained_s = before + steps, self.trained_s + result.seconds
        self.watch(self.done)
        return result


def crossfit_steps(recipe: ClassRecipe) -> int:
    """The training steps of a cross-fit."""
    some = next(iter(robust.METHODS))
    return robust.steps(some, recipe, cross_fitted=True) - robust.steps(some, recipe)
