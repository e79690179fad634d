"""Predictions and verdicts of many images as the columns of their tables, without a Python object per row."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from emclean.stores.schemas import PREDICTIONS, REALS, TEXTS, VERDICTS, TableSpec
from emclean.types import GRADES, Ints, Predictions, Verdicts

CORNERS = ("x1", "y1", "x2", "y2")


def predictions(
    found: Mapping[str, Predictions], categories: Sequence[str], same: Mapping[str, Any]
) -> pa.Table:
    """Rows of the table ``predictions`` by image id; ``same`` holds ``run``, ``round`` and ``model``."""
    items = list(found.values())
    ends = np.cumsum([0, *map(len, items)])  # [images + 1]
    boxes = _stacked((p.boxes for p in items), np.zeros((0, 4)))
    category = _stacked((p.categories for p in items), np.zeros(0, np.int64))
    own = {
        "image_id": list(found),
        **{name: _lists(ends, boxes[:, k], REALS) for k, name in enumerate(CORNERS)},
        "category": _lists(ends, _names(category, categories), TEXTS),
        "score": _lists(ends, _stacked((p.scores for p in items), np.zeros(0)), REALS),
    }
    return _table(PREDICTIONS, own, same, len(items))


def verdicts(
    judged: Mapping[str, tuple[Verdicts, Sequence[str]]], categories: Sequence[str], same: Mapping[str, Any]
) -> pa.Table:
    """Rows of the table ``verdicts``, by image id the verdicts and the ids of the judged labels.

    ``same`` holds ``run`` and ``round``.
    """
    items = [said for said, _ in judged.values()]
    counts = [len(said) for said in items]
    boxes = _stacked((v.box for v in items), np.zeros((0, 4)))
    whole = np.zeros(0, np.int64)
    own = {
        "image_id": pa.array(list(judged), pa.string()).take(pa.array(np.repeat(range(len(items)), counts))),
        "item": _stacked((np.arange(n) for n in counts), whole),
        "instance_id": [name for said, ids in judged.values() for name in _instances(said, ids)],
        "grade": _names(_stacked((v.grade for v in items), whole), GRADES),
        "probability": _stacked((v.probability for v in items), np.zeros(0)),
        "calibrated": np.repeat([v.calibrated for v in items], counts),
        **{name: boxes[:, k] for k, name in enumerate(CORNERS)},
        "category": _names(_stacked((v.category for v in items), whole), categories),
        "parts": _parts(items),
        "reason": [reason for said in items for reason in said.reason],
    }
    return _table(VERDICTS, own, same, sum(counts))


def _instances(said: Verdicts, ids: Sequence[str]) -> list[str | None]:
    return [ids[label] if label >= 0 else None for label in said.label.tolist()]


def _parts(items: Sequence[Verdicts]) -> pa.ListArray:
    """The corners of each instance's parts, four numbers a part."""
    counts = _stacked((np.bincount(v.part_of, minlength=len(v)) for v in items), np.zeros(0, np.int64))
    sorted_parts = (v.parts[np.argsort(v.part_of, kind="stable")] for v in items)
    corners = _stacked(sorted_parts, np.zeros((0, 4))).reshape(-1)
    return _lists(4 * np.cumsum([0, *counts]), corners, REALS)


def _stacked(arrays: Iterable[Any], empty: Any) -> Any:
    return np.concatenate([empty, *arrays])


def _lists(ends: Ints, values: Any, kind: Any) -> pa.ListArray:
    """One list per row; row ``k`` has the values from ``ends[k]`` to ``ends[k + 1]``."""
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values), type=kind)


def _names(indices: Ints, names: Sequence[str]) -> pa.Array:
    return pa.array(list(names), pa.string()).take(pa.array(indices, pa.int64()))


def _table(spec: TableSpec, own: Mapping[str, Any], same: Mapping[str, Any], rows: int) -> pa.Table:
    """The table's columns in their order: each row's own, and those that all rows share."""
    repeated = {n: pa.repeat(pa.scalar(value, spec.schema.field(n).type), rows) for n, value in same.items()}
    given = {**own, **repeated}
    return pa.table(
        [pa.array(given[f.name], f.type) if f.name in own else given[f.name] for f in spec.schema],
        schema=spec.schema,
    )
