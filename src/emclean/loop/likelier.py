"""The labels in their likelier version: what a round's model was trained on, written down and read back.

What is recorded as corrected needs the asked precision; of everything else the likelier version (probability
from 0.5) is right more often than the label as it came (``docs/decisions/0003-thresholds.md``).
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from emclean.loop.job import Job
from emclean.loop.recording import record_predictions
from emclean.stores.columns import CORNERS
from emclean.stores.tables import Tables
from emclean.types import Predictions, Target

MODEL = "likelier"
"""The name by which the table ``predictions`` keeps them; the scores are the weights in training."""


def record(job: Job, round_: int, targets: Mapping[str, Target]) -> None:
    """Keep the likelier labels of the images that no expert has answered, by image id."""
    found = {i: Predictions(t.boxes, t.categories, t.weights) for i, t in targets.items()}
    record_predictions(job, round_, MODEL, found)


def read(
    tables: Tables, run: str, categories: Sequence[str], answered: Set[str]
) -> dict[str, Predictions] | None:
    """The likelier labels by image id, as the newest round has them; None before the first.

    Without the ``answered`` images, for which the expert's labels stand.
    """
    own = {"run": run, "model": MODEL}
    rounds = tables.read("predictions", columns=["round"], where=own)["round"].to_pylist()
    if not rounds:
        return None
    rows = tables.read("predictions", where={**own, "round": max(rounds)}).to_pylist()
    index = {name: place for place, name in enumerate(categories)}
    return {row["image_id"]: _labels(row, index) for row in rows if row["image_id"] not in answered}


def _labels(row: Mapping[str, Any], index: Mapping[str, int]) -> Predictions:
    boxes = np.array([row[corner] for corner in CORNERS], dtype=np.float64).reshape(4, -1).T
    called = np.array([index[name] for name in row["category"]], dtype=np.int64)
    return Predictions(boxes, called, np.array(row["score"], dtype=np.float64))
