"""The labels in their likelier version: what a round's model was trained on, written down and read back.

What is recorded as corrected needs the asked precision; of everything else the likelier version (probability
from 0.5) is right more often than the label as it came (``docs/decisions/0003-thresholds.md``).
"""

from collections.abc import Mapping, Sequence
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


def read(tables: Tables, run: str, categories: Sequence[str]) -> dict[str, Predictions]:
    """The likelier labels by image id, as the newest round has them; empty before the first.

    Images that an expert answered in that round or before are not among them.
    """
    rows = tables.read("predictions", where={"run": run, "model": MODEL}).to_pylist()
    newest = max((row["round"] for row in rows), default=0)
    return {row["image_id"]: _labels(row, categories) for row in rows if row["round"] == newest}


def _labels(row: Mapping[str, Any], categories: Sequence[str]) -> Predictions:
    boxes = np.array([row[corner] for corner in CORNERS], dtype=np.float64).reshape(4, -1).T
    index = {name: place for place, name in enumerate(categories)}
    called = np.array([index[name] for name in row["category"]], dtype=np.int64)
    return Predictions(boxes, called, np.array(row["score"], dtype=np.float64))
