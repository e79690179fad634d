"""The cells of a grid over boxes: teach, train a detector, search the test pictures, measure."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from emclean.loop.console import duration
from emclean.loop.grid.boxes.bench import Bench, Case
from emclean.loop.grid.boxes.methods import METHODS
from emclean.loop.grid.cells import Cell
from emclean.loop.grid.experiment import Row, Watch
from emclean.models.spec import RECIPE as TRAINING
from emclean.models.spec import SEARCH
from emclean.science import evaluation

RECIPE = 1
"""Goes up when the same cell would come out differently, so that results on file are not used again."""


@dataclass(frozen=True, eq=False)
class BoxExperiment:
    """A grid over boxes; ``given`` are the facts that all cells share."""

    bench: Bench
    cells: tuple[Cell, ...]
    given: Mapping[str, Any]

    figures: ClassVar[tuple[str, ...]] = ("ap50", "ap", "label_f1", "label_precision", "label_recall")
    counts: ClassVar[tuple[str, ...]] = ("images",)
    own_rate: ClassVar[None] = None

    def facts(self, cell: Cell) -> dict[str, Any]:
        """Data, preset, detector, what the method makes of them (its version), the expert where one is
        asked, and the code's recipes."""
        method = METHODS[cell.method]
        given = {
            **self.given,
            "method_version": method.version,
            "detector": self.bench.recipe.facts(),
            "expert_images": self.bench.expert_images if method.asks else None,
        }
        search = {"search": SEARCH} if SEARCH > 1 else {}  # the first search was kept without a number
        return {"given": given, "recipe": RECIPE, "training": TRAINING, **search}

    def steps(self, cell: Cell) -> int:
        """Those of every model that the method trains, and of the model that is measured."""
        return METHODS[cell.method].steps(self.bench.recipe)

    def measured(self, cell: Cell, watch: Watch, device: str | None) -> Row:
        """Teach, train, search the test pictures, and measure."""
        return measured(Case(self.bench, cell, watch, device))

    def words(self, row: Row) -> str:
        """AP50, F1 of the labels, and the time."""
        ap50 = "unknown" if row["ap50"] is None else f"{row['ap50']:.3f}"
        return f"AP50 {ap50}, label F1 {row['label_f1']:.3f}, {duration(row['seconds'])}"


def measured(case: Case) -> Row:
    """The figures of a case; ``seconds`` without those spent waiting."""
    since, bench = time.monotonic(), case.bench
    taught = METHODS[case.cell.method].teach(case)
    weights = case.fit(taught.targets, bench.recipe.final_steps, "final")
    tests, given = bench.test.ids(), sorted(taught.labels)
    found = case.predict(weights, bench.test, tests)
    score = evaluation.detection(
        [bench.test.truth[i] for i in tests], [found[i] for i in tests], bench.n_categories
    )
    labels = evaluation.label_quality(
        [bench.train.truth[i] for i in given], [taught.labels[i] for i in given]
    )
    return {
        "ap50": _known(score.ap50),
        "ap": _known(score.ap),
        "label_f1": labels.f1,
        "label_precision": labels.precision,
        "label_recall": labels.recall,
        "images": len(given),
        "seconds": time.monotonic() - since - case.waited_s,
        "train_seconds": case.trained_s,
    }


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
