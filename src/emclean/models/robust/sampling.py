"""Which pictures a step trains on: everything is a function of seed, stage and step."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from emclean.models.classifiers.spec import ClassTask, Ints


@dataclass(frozen=True, eq=False)
class Samples:
    """All pictures of a training: the task's rows, then trusted rows that are not among them."""

    rows: Ints
    labels: Ints
    trusted: NDArray[np.bool_]

    @staticmethod
    def of(task: ClassTask) -> "Samples":
        """The task's pictures; a trusted label takes the place of the one that was given."""
        bought = dict(zip(task.trusted_rows.tolist(), task.trusted_labels.tolist(), strict=True))
        known = set(task.rows.tolist())
        extra = [row for row in bought if row not in known]
        rows = np.concatenate([task.rows, np.array(extra, np.int64)])
        trusted = np.isin(rows, task.trusted_rows)
        labels = np.concatenate([task.labels, np.zeros(len(extra), np.int64)])
        labels[trusted] = [bought[row] for row in rows[trusted].tolist()]
        return Samples(rows, labels, trusted)


class Order:
    """Places in random order: all once, then all again in another order, and so on."""

    def __init__(self, places: Ints, seed: tuple[int, ...]) -> None:
        if not len(places):
            raise ValueError("rows: expected at least one picture to train on, got none")
        self.places, self.seed = places, seed
        self.turns: dict[int, Ints] = {}

    def __len__(self) -> int:
        return len(self.places)

    def batch(self, step: int, size: int) -> Ints:
        """The places of step ``step``; a batch may end one turn and begin the next."""
        turns, places = np.divmod(np.arange(step * size, (step + 1) * size), len(self.places))
        wanted = np.unique(turns).tolist()
        self.turns = {t: self.turns[t] if t in self.turns else self._shuffled(t) for t in wanted}
        return np.concatenate([self.turns[turn][places[turns == turn]] for turn in wanted])

    def _shuffled(self, turn: int) -> Ints:
        return np.random.default_rng([*self.seed, turn]).permutation(self.places)


def folds(task: ClassTask, number: int) -> Ints:
    """A fold from 0 to ``number`` - 1 for every row; a group of the task is in one fold as a whole.

    Groups come in random order, each into the fold that has the fewest pictures so far. Fewer groups than
    folds are parted by particle.
    """
    units = task.pairs if task.groups is None else task.groups
    names, of, counts = np.unique(units, return_inverse=True, return_counts=True)
    if task.groups is not None and len(names) < number:
        return folds(replace(task, groups=None), number)
    ranks = np.random.default_rng([task.seed, 3]).permutation(len(names))
    taken, fold = np.zeros(number, np.int64), np.zeros(len(names), np.int64)
    for unit in np.argsort(ranks).tolist():
        fold[unit] = int(taken.argmin())
        taken[fold[unit]] += counts[unit]
    return fold[of]


def seeded(*parts: int) -> int:
    """One seed for torch out of several numbers."""
    return int(np.random.SeedSequence(list(parts)).generate_state(1, np.uint64)[0] >> np.uint64(1))
