"""Fit the noise preset ``expert_raters`` to ten pathology experts who labelled from scratch.

Reads ``$EMCLEAN_DATA/expert_box_raters/annotations.csv.gz`` (Marzahl et al. 2020, repository
ChristianMarzahl/EIPH_WSI), compares each expert's boxes of the first round (nothing proposed) with the
ground truth of the same image, and prints the rates, per task and over the tasks. The last line is the
preset as it stands in ``emclean.science.noise``.

    EMCLEAN_DATA=DIR python benchmarks/fit_noise.py
"""

import csv
import gzip
import os
import sys
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import numpy as np

from emclean.science.noise import NoiseRates
from emclean.science.rates import estimate, residuals
from emclean.science.truth import true_grades
from emclean.types import Floats, Labels

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


def figures(compared: list[tuple[Labels, Labels]]) -> dict[str, float]:
    """Objects, recall and precision at IoU 0.5 whatever the category, median IoU and largest mean offset."""
    sides: list[Floats] = [np.zeros((0, 4))]
    overlaps: list[Floats] = [np.zeros(0)]
    for truth, labels in compared:
        residual, overlap = residuals(truth, labels, true_grades(labels, truth).truth)
        sides.append(residual)
        overlaps.append(overlap)
    overlap = np.concatenate(overlaps)
    objects, given = (sum(len(pair[k]) for pair in compared) for k in (0, 1))
    found = float((overlap >= 0.5).sum())
    bias = float(np.abs(np.concatenate(sides).mean(axis=0)).max())
    shares = {"recall": found / objects, "precision": found / given}
    return {"objects": objects, **shares, "iou": float(np.median(overlap)), "bias": bias}


def show(name: str, fitted: NoiseRates, seen: dict[str, float]) -> None:
    """One line of the table."""
    values = " ".join(f"{f.name}={getattr(fitted, f.name):.3f}" for f in fields(fitted) if f.name != "redraw")
    print(f"{name:8s} {' '.join(f'{k}={v:.3g}' for k, v in seen.items())} | {values}")


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
        compared = pairs(rows, task)
        fits.append(estimate([truth for truth, _ in compared], [labels for _, labels in compared]))
        show(task, fits[-1], figures(compared))
    names = [f.name for f in fields(NoiseRates) if f.name != "redraw"]
    multi = [fit for fit in fits if fit.mislabelled > 0]  # a task with one category cannot show confusion
    mean = {n: np.mean([getattr(f, n) for f in (multi if n == "mislabelled" else fits)]) for n in names}
    print("NoiseRates(" + ", ".join(f"{n}={mean[n]:.3f}" for n in names) + ")")
    return 0


if __name__ == "__main__":
    sys.exit(main())
