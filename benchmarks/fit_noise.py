"""Fit the noise preset ``expert_raters`` to ten pathology experts who labelled from scratch.

Reads ``$EMCLEAN_DATA/expert_box_raters/annotations.csv.gz`` (Marzahl et al. 2020, repository
ChristianMarzahl/EIPH_WSI), compares each expert's boxes of the first round (nothing proposed) with the
ground truth of the same image, and prints the rates, per task and over the tasks. The last line is the
preset as it stands in ``emclean.science.noise``.

    EMCLEAN_DATA=../shared/data python benchmarks/fit_noise.py
"""

import csv
import gzip
import os
import sys
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import numpy as np

from emclean.boxes import iou
from emclean.science.noise import NoiseRates
from emclean.science.truth import true_grades
from emclean.types import GRADES, Floats, Ints, Labels

Rows = dict[tuple[str, str, str], list[dict[str, str]]]


def read(path: Path) -> Rows:
    """Rows of the first round by (task, image, source), deleted and degenerate boxes left out."""
    rows: Rows = defaultdict(list)
    with gzip.open(path, "rt", newline="") as lines:
        for row in csv.DictReader(lines):
            sized = float(row["x1"]) < float(row["x2"]) and float(row["y1"]) < float(row["y2"])
            if row["round"] == "1" and row["deleted"] == "False" and sized:
                rows[row["task"], row["image"], row["source"]].append(row)
    return rows


def as_labels(rows: list[dict[str, str]], categories: list[str]) -> Labels:
    """One expert's boxes of one image."""
    boxes = [[float(row[c]) for c in ("x1", "y1", "x2", "y2")] for row in rows]
    return Labels(np.array(boxes).reshape(-1, 4), np.array([categories.index(r["label"]) for r in rows]))


def pairs(rows: Rows, task: str) -> list[tuple[Labels, Labels]]:
    """(truth, one expert's labels) of every image of a task and every expert.

    An image on which no expert drew anything was not shown in this round and is left out; one without true
    objects stays, since boxes there are errors.
    """
    mine = {key: value for key, value in rows.items() if key[0] == task}
    categories = sorted({row["label"] for value in mine.values() for row in value})
    drawn = {key for key in mine if key[2][:1] == "P" and key[2][1:].isdigit()}
    experts, images = sorted({key[2] for key in drawn}), sorted({key[1] for key in drawn})

    def of(image: str, source: str) -> Labels:
        return as_labels(mine.get((task, image, source), []), categories)

    return [(of(image, "ground truth"), of(image, expert)) for expert in experts for image in images]


def residuals(truth: Labels, labels: Labels, owner: Ints) -> tuple[Floats, Floats]:
    """Side residuals ``[P,4]`` in units of the true side, and IoU ``[P]``, of labels with their object."""
    rows = np.flatnonzero(owner >= 0)
    at = owner[rows]
    sides = np.tile(truth.boxes[at, 2:] - truth.boxes[at, :2], (1, 2))
    overlap = iou(labels.boxes, truth.boxes)[rows, at]
    return (labels.boxes[rows] - truth.boxes[at]) / sides, overlap


def rates(compared: list[tuple[Labels, Labels]]) -> tuple[NoiseRates, dict[str, float]]:
    """The rates that would plant what these experts did, and the figures behind them."""
    counts, objects, given = np.zeros(len(GRADES)), 0, 0
    sides: list[Floats] = [np.zeros((0, 4))]
    overlaps: list[Floats] = [np.zeros(0)]
    for truth, labels in compared:
        known = true_grades(labels, truth)
        counts += np.bincount(known.grade, minlength=len(GRADES))
        counts[GRADES.index("missed")] += len(known.missed)
        objects, given = objects + len(truth), given + len(labels)
        residual, overlap = residuals(truth, labels, known.truth)
        sides.append(residual)
        overlaps.append(overlap)
    residual, overlap = np.concatenate(sides), np.concatenate(overlaps)
    found = float((overlap >= 0.5).sum())
    sigma = float(
        1.4826 * np.median(np.abs(residual - np.median(residual, axis=0)))
    )  # robust, for normal noise
    share = dict(zip(GRADES, (counts / objects).tolist(), strict=True))
    fitted = NoiseRates(
        missed=share["missed"],
        shifted=1.0,
        shift_sigma=sigma,
        merged=2 * share["merged"],
        spurious=share["spurious"],
        mislabelled=share["mislabelled"],
        duplicate=share["duplicate"],
    )
    figures = {"objects": objects, "recall": found / objects, "precision": found / given}
    return fitted, {
        **figures,
        "iou": float(np.median(overlap)),
        "bias": float(np.abs(residual.mean(axis=0)).max()),
    }


def show(name: str, fitted: NoiseRates, figures: dict[str, float]) -> None:
    """One line of the table."""
    values = " ".join(f"{f.name}={getattr(fitted, f.name):.3f}" for f in fields(fitted) if f.name != "redraw")
    print(f"{name:8s} {' '.join(f'{k}={v:.3g}' for k, v in figures.items())} | {values}")


def main() -> int:
    """Print the fit per task, and the mean over tasks that the preset holds."""
    folder = os.environ.get("EMCLEAN_DATA")
    if not folder:
        print("EMCLEAN_DATA is not set: name the folder with expert_box_raters", file=sys.stderr)
        return 3
    rows = read(Path(folder) / "expert_box_raters" / "annotations.csv.gz")
    tasks = sorted({key[0] for key in rows})
    fits = []
    for task in tasks:
        fitted, figures = rates(pairs(rows, task))
        fits.append(fitted)
        show(task, fitted, figures)
    names = [f.name for f in fields(NoiseRates) if f.name != "redraw"]
    multi = [fit for fit in fits if fit.mislabelled > 0]  # a task with one category cannot show confusion
    mean = {n: np.mean([getattr(f, n) for f in (multi if n == "mislabelled" else fits)]) for n in names}
    print("NoiseRates(" + ", ".join(f"{n}={mean[n]:.3f}" for n in names) + ")")
    return 0


if __name__ == "__main__":
    sys.exit(main())
