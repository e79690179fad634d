"""Run, label, run again: what labels of a sample's own particles make of its left share.

    python -m benchmarks.labelling --folder workspace/labelling

Six micrographs (two samples of 1,024 px pictures) are simulated into the folder and analysed as a user's own:
first with classifiers of simulated particles, then with the labels that their truth gives to the cut-outs
which the first run wrote. Labels are filled in once; what is on file is not done again.
"""

import argparse
import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from emclean.config import load_analysis
from emclean.imaging import simulate
from emclean.loop.analysis.labelling import LABELS, PICTURES
from emclean.loop.analysis.opening import opened
from emclean.loop.analysis.running import run
from emclean.loop.console import Console

LEFTS, IMAGES, SIZE, SEED = (0.02, 0.3), 3, 1024, 7
NEAR = 20.0
"""Px within which a particle of the truth lies where one was found; else it is dirt."""


def main() -> None:
    """Parse, simulate, run, label, run again, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True)
    folder = parser.parse_args().folder
    simulated = simulate.write_micrographs(folder / "sim", IMAGES, SIZE, SEED, lefts=LEFTS)
    truth = _rows(simulated.truth)
    given = [f"workspace={folder / 'workspace'}", f"data.images={simulated.images}", "compute=inline"]
    first = _run([*given, "run=first"])
    made = Path(first["labelling"]["folder"])
    counts = _fill(made / LABELS, made.parent / "particles.parquet", truth)
    theirs = [f"data.particles={made / PICTURES}", f"data.labels={made / LABELS}"]
    second = _run([*given, "run=second", *theirs])
    told = ", ".join(f"{count} {label}" for label, count in sorted(counts.items()))
    print(f"labels: {told}; {second['classifier']['tested on']} of them count mistakes")
    for name, found in (("first", first), ("second", second)):
        for row in found["samples"]:
            print(_line(name, row, truth))


def _run(settings: Sequence[str]) -> dict[str, Any]:
    with opened(load_analysis(None, settings), Console()) as analysis:
        return dict(json.loads(run(analysis).summary.read_text(encoding="utf-8")))


def _fill(file: Path, particles: Path, truth: Sequence[Mapping[str, str]]) -> Counter[str]:
    """Give every cut-out the label of what lies there; the number of each label."""
    rows = _rows(file)
    table = pq.read_table(particles, columns=["image", "particle", "x", "y"]).to_pylist()
    place = {(row["image"], row["particle"]): (row["x"], row["y"]) for row in table}
    for row in rows:
        x, y = place[row["micrograph"], int(row["particle"])]
        own = [one for one in truth if one["image"] == row["micrograph"]]
        away = [np.hypot(float(one["x"]) - x, float(one["y"]) - y) for one in own]
        there = own[int(np.argmin(away))]
        row["label"] = there["hand"] if there["usable"] == "1" and min(away) < NEAR else "unusable"
    with file.open("w", newline="", encoding="utf-8") as stream:
        out = csv.DictWriter(stream, list(rows[0]))
        out.writeheader()
        out.writerows(rows)
    return Counter(row["label"] for row in rows)


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def _line(name: str, row: Mapping[str, Any], truth: Sequence[Mapping[str, str]]) -> str:
    """The shares of a sample, in percent."""
    hands = [t["hand"] == "left" for t in truth if t["sample"] == row["sample"] and t["usable"] == "1"]
    counted, corrected, low, high = (row[key] for key in ("naive", "corrected", "low", "high"))
    words = f"{name:6}  {row['sample']}  true {100 * np.mean(hands):4.1f} %  counted {100 * counted:4.1f} %"
    if corrected is None:
        return f"{words}  not corrected"
    return f"{words}  corrected {100 * corrected:4.1f} % ({100 * low:.1f} to {100 * high:.1f})"


if __name__ == "__main__":
    main()
