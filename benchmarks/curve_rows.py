"""A finished run of ``benchmarks.budget_curves`` as one row: rounds, floor, ceiling, and what was found."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import boxes
from benchmarks.curve_tables import packed
from emclean.models.engine import load
from emclean.models.predict import predict
from emclean.science import evaluation
from emclean.stores.tables import Tables


def row_of(workspace: Path, summary: Mapping[str, Any], truth: Path) -> dict[str, Any]:
    """What the tables need of the run of this summary; ``truth`` is the test set's file."""
    return {
        "rounds": [_round(row) for row in summary["rounds"]],
        "code_version": summary["code_version"],
        "floor": summary["floor"]["ap50"],
        "ceiling": summary["ceiling"]["ap50"],
        "crowd_f1": summary["crowd_labels"]["f1"],
        "percent_low": summary["final"]["percent_of_ceiling_low"],
        "found": _found(workspace, summary, truth),
    }


def _round(row: Mapping[str, Any]) -> dict[str, Any]:
    cost = row["cost"]
    return {
        "round": row["round"],
        "minutes": cost["minutes"],
        "cost_share": cost["share_of_full"],
        "images": cost["images"],
        "touched": sum(cost["boxes"].values()),
        "f1": row["labels"]["f1"],
        "f1_likelier": row["labels_likelier"]["f1"],
        "ap50": row["ap50"],
    }


def _found(workspace: Path, summary: Mapping[str, Any], truth: Path) -> dict[str, Any]:
    """How the last model and the ceiling do on the test set."""
    run = summary["run"]
    models = json.loads((workspace / "runs" / run / "state.json").read_text())["models"]
    tables = Tables(str(workspace / "tables"))
    images = tables.read("images", where={"run": run, "part": "test"}).to_pylist()
    names = {row["image_id"]: row["name"] for row in images}
    categories = tables.read("runs", where={"run": run}).to_pylist()[0]["categories"]
    labels, ids = boxes(truth, categories), sorted(names)
    pixels = [workspace / "pixels" / f"{i}.npy" for i in ids]
    roles = {"final": f"final-{summary['rounds'][-1]['round']}", "ceiling": "ceiling"}
    return {
        role: packed(_detection(models[name]["weights"], pixels, [labels[names[i]] for i in ids], categories))
        for role, name in roles.items()
    }


def _detection(
    weights: str, pixels: Sequence[Path], truths: Sequence[Any], categories: Sequence[str]
) -> evaluation.Detection:
    found = predict(load(weights), (np.load(file) for file in pixels))
    return evaluation.detection(truths, list(found), len(categories))
