"""The cells of a grid over classes: train by a method on noisy labels, and measure on clean ones."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from emclean.config_classes import CROWD
from emclean.loop.console import duration
from emclean.loop.grid.cells import Cell
from emclean.loop.grid.classes.bench import Bench, Case
from emclean.loop.grid.experiment import Row, Watch
from emclean.models.classifiers.spec import RECIPE as TRAINING

RECIPE = 1
"""Goes up when the same cell would come out differently, so that results on file are not used again."""


@dataclass(frozen=True, eq=False)
class ClassExperiment:
    """A grid over classes; ``given`` are the facts that all cells share."""

    bench: Bench
    cells: tuple[Cell, ...]
    given: Mapping[str, Any]
    own_rate: float | None = None

    figures: ClassVar[tuple[str, ...]] = ("accuracy", "balanced_accuracy", "true_rate", "estimated_rate")
    counts: ClassVar[tuple[str, ...]] = ("images", "trusted", "tested")

    def facts(self, cell: Cell) -> dict[str, Any]:
        """Data, network and training, the method's settings, votes and trusted labels where the cell has any,
        and the code's recipes."""
        course = self.bench.courses[cell.method]
        options = {**self.bench.chosen(cell.method).options, **course.options}
        given = {
            **self.given,
            "course": {**asdict(course), "options": options},
            "votes": self.bench.train.said() if cell.noise == CROWD else None,
            "trusted": self.bench.trusts(cell.method),
        }
        parted = self.bench.parted_by(cell.method)
        folds = {"folds": parted} if parted else {}
        return {"given": given, "recipe": RECIPE, "training": TRAINING, **folds}

    def steps(self, cell: Cell) -> int:
        """Those of the method, and of the cross-fit by which it judges labels."""
        return self.bench.steps(cell.method)

    def measured(self, cell: Cell, watch: Watch, device: str | None) -> Row:
        """Train, predict the test pictures, and measure."""
        return measured(Case(self.bench, cell, watch, device))

    def words(self, row: Row) -> str:
        """The accuracy, the estimated error rate if any, and the time."""
        rate = row["estimated_rate"]
        guess = "" if rate is None else f", estimated error rate {100 * rate:.1f} %"
        return f"accuracy {100 * row['accuracy']:.1f} %{guess}, {duration(row['seconds'])}"


def measured(case: Case) -> Row:
    """The figures of a case; ``seconds`` without those spent waiting.

    ``trusted`` and ``tested`` count particles: a picture and its mirror image are one.
    """
    since, parts = time.monotonic(), case.parts
    result = case.fit()
    right = np.argmax(case.predict(result.weights), axis=1) == parts.test.labels
    recalls = [float(right[parts.test.labels == k].mean()) for k in np.unique(parts.test.labels)]
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "true_rate": parts.true_rate(),
        "estimated_rate": None if case.course.true_rate else result.noise_rate,
        "images": len(parts.train),
        "trusted": case.bench.trusts(case.cell.method),
        "tested": len(np.unique(parts.test.pairs)),
        "seconds": time.monotonic() - since - case.waited_s,
        "train_seconds": case.trained_s,
    }
