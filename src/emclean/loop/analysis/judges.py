"""The two classifiers of an analysis, and what clean labels say of their mistakes.

One says whether a pose shows the hand; its mirror image is of the same class. The other says the hand; it is
mirror-equivariant, p(left | mirror image) = 1 - p(left), so that it errs for both hands alike. What is not
given is trained on one part of the clean labels and tested on another; no group of particles trains and
tests the same classifier. What trains nothing all tests.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from emclean.errors import ConfigError, DataError
from emclean.loop.analysis.looking import usable_probability
from emclean.loop.analysis.particles import CHOSEN, LEFT, RIGHT, UNUSABLE, Particles
from emclean.loop.classes.sets import split
from emclean.models import robust
from emclean.models.classifiers import engine
from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe, ClassTask
from emclean.models.hooks import LocalHooks
from emclean.science.population import Confusion
from emclean.types import Bools, Floats, Ints

TESTED, MOST_TESTED = 0.35, 0.5
"""The share of the clean labels that is kept to count mistakes, and of the random ones among them at most."""

LEAST = 10
"""Particles with a hand that training needs at least."""

Watch = Callable[[float, float], None]


@dataclass(frozen=True)
class Wanted:
    """How classifiers are trained, or where they are: see ``config_analysis.Handedness``."""

    weights: str | None = None
    usable_weights: str | None = None
    confusion: tuple[float, ...] | None = None
    spec: ClassifierSpec = field(default_factory=ClassifierSpec)
    recipe: ClassRecipe = field(default_factory=ClassRecipe)
    usable_from: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Judges:
    """Files of weights, the confusion that clean labels show (None: there are none), and what to tell of it.

    Without ``usable`` every particle counts as usable. ``facts`` are figures and words for the record.
    """

    hand: str
    usable: str | None
    confusion: Confusion | None
    facts: dict[str, Any]

    def digest(self) -> str:
        """What decides the judgement: the content of both files."""
        sha = hashlib.sha256()
        for file in (self.hand, self.usable):
            sha.update(b"none" if file is None else Path(file).read_bytes())
        return sha.hexdigest()[:16]


def judges(wanted: Wanted, clean: Particles | None, home: Path, watch: Watch) -> Judges:
    """The classifiers, trained where they are not given; ``clean`` is None where none is needed."""
    hand, usable = wanted.weights, wanted.usable_weights
    if clean is None:
        if hand is None:
            raise ConfigError(["classifier.weights: needed where there are no clean labels"])
        return Judges(hand, usable, _given(wanted, _symmetric(hand)), {"clean labels": "none"})
    train, test = _parts(clean, wanted)
    total = 2 * wanted.recipe.steps
    if hand is None:
        task = _hand_task(clean, train, wanted, home)
        hand = _trained(task, lambda done: watch(done, total))
    if usable is None and (clean.labels[train] == UNUSABLE).any():
        task = _usable_task(clean, train, wanted, home)
        usable = _trained(task, lambda done: watch(wanted.recipe.steps + done, total))
    return _tested(hand, usable, clean, test, wanted)


def _parts(clean: Particles, wanted: Wanted) -> tuple[Ints, Ints]:
    """Positions to train on and to test on; only a random sample tests.

    Where nothing is trained, all test. Where only hands are, unusable ones train nothing, and all of them
    test. Where only the filter is, those that train it cannot test: whether one passes decides what it is
    counted as.
    """
    hidden = clean.labels == UNUSABLE
    trains_hand, trains_filter = wanted.weights is None, wanted.usable_weights is None and bool(hidden.any())
    if not trains_hand and not trains_filter:
        return np.zeros(0, np.int64), clean.random
    handed = int((~hidden).sum())
    if trains_hand and handed < LEAST:
        what = f"{handed} particles have a hand, at least {LEAST} are needed to train."
        raise DataError(what, clean.source, "Label more, or give classifier.weights.")
    test = _test_part(clean, wanted.seed)
    train = np.flatnonzero(~np.isin(clean.groups, clean.groups[test]))
    if not trains_filter:
        test, train = np.union1d(test, clean.random[hidden[clean.random]]), train[~hidden[train]]
    return train, test


def _test_part(clean: Particles, seed: int) -> Ints:
    """Positions to test on, drawn by groups."""
    lots = clean.random
    if not len(lots):
        fix = f"Label cut-outs whose names do not begin with {CHOSEN}, too."
        raise DataError(
            "no labelled particle was drawn at random: mistakes cannot be counted.", clean.source, fix
        )
    share = min(TESTED * len(clean.labels) / len(lots), MOST_TESTED)
    return lots[split(clean.groups[lots], (share,), np.random.default_rng([seed, 5]))[0]]


def _array(clean: Particles, home: Path) -> str:
    """The pictures and, after them, their mirror images, as one file named by its content."""
    both = np.concatenate([clean.pictures, clean.pictures[:, :, ::-1]])
    file = home / "particles" / f"{hashlib.sha256(both.tobytes()).hexdigest()[:16]}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".part.npy")
        np.save(draft, both)
        draft.replace(file)
    return str(file)


def _hand_task(clean: Particles, train: Ints, wanted: Wanted, home: Path) -> ClassTask:
    """Left against right; every particle stands for its mirror image, too."""
    seen = train[clean.labels[train] != UNUSABLE]
    rows = np.concatenate([seen, seen + len(clean.labels)])
    labels = np.concatenate([clean.labels[seen], 1 - clean.labels[seen]])
    task = ClassTask(
        _array(clean, home),
        rows,
        labels,
        np.tile(seen, 2),
        spec=replace(wanted.spec, mirror=True),
        recipe=wanted.recipe,
        seed=wanted.seed,
        out=".",
    )
    return replace(task, out=str(home / "models" / task.digest()))


def _usable_task(clean: Particles, train: Ints, wanted: Wanted, home: Path) -> ClassTask:
    """Usable against unusable; a mirror image is of the same class."""
    labels = (clean.labels[train] != UNUSABLE).astype(np.int64)
    task = ClassTask(
        _array(clean, home),
        train,
        labels,
        train,
        spec=wanted.spec,
        recipe=replace(wanted.recipe, flip=True),
        seed=wanted.seed + 1,
        out=".",
    )
    return replace(task, out=str(home / "models" / task.digest()))


def _trained(task: ClassTask, watch: Callable[[float], None]) -> str:
    hooks = LocalHooks(task.out, watch=lambda at: watch(at.step))
    return robust.fit("cross_entropy", task, hooks).weights


def _tested(hand: str, usable: str | None, clean: Particles, test: Ints, wanted: Wanted) -> Judges:
    """Count the mistakes on clean labels that took no part in training."""
    pictures, labels = clean.pictures[test], clean.labels[test]
    p_usable = usable_probability(usable, pictures)
    p_left: Floats = engine.predict(hand, pictures)[:, 0]
    passed: Bools = np.asarray(p_usable >= wanted.usable_from)
    symmetric = _symmetric(hand)
    outcome = np.where(passed, np.where(p_left > 0.5, LEFT, RIGHT), UNUSABLE)
    counted = None if clean.foreign else Confusion.of(labels, outcome, symmetric)
    hands = labels != UNUSABLE
    right = (p_left > 0.5) == (labels == LEFT)
    facts = {
        "clean labels": clean.source,
        "tested on": len(test),
        "usable kept": _share(passed[hands]),
        "unusable set aside": _share(~passed[~hands]),
        "hand right": _share(right[hands & passed]),
        "one error rate for both hands": symmetric,
    }
    return Judges(hand, usable, _given(wanted, symmetric) or counted, facts)


def _given(wanted: Wanted, symmetric: bool) -> Confusion | None:
    """The user's own counts: nine of them by row, or the four of left and right that are not set aside."""
    if wanted.confusion is None:
        return None
    side = 3 if len(wanted.confusion) == 9 else 2
    table = np.array(wanted.confusion, dtype=np.float64).reshape(side, side)
    return Confusion.from_table(np.pad(table, (0, 3 - side)), symmetric)


def _symmetric(weights: str) -> bool:
    spec, _, _ = engine.read(weights)
    return spec.mirror


def check(weights: str | None, key: str) -> None:
    """Refuse a file of weights that does not answer for two classes."""
    if weights is None:
        return
    spec, _, _ = engine.read(weights)
    if spec.n_classes != 2 or spec.channels != 1:
        what = f"{spec.n_classes} classes, {spec.channels} channels"
        raise ConfigError([f"{key}: needs a classifier of two classes on grey pictures, got {what}"])


def _share(flags: NDArray[Any]) -> float | None:
    return float(flags.mean()) if len(flags) else None
