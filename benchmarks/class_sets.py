"""Label files for a run over classes on real photographs of right hands, with an exact share of them wrong.

    EMCLEAN_DATA=DIR python -m benchmarks.class_sets OUT --pool 700 --test 400 --error 0.25 --seed 5

Writes ``crowd.csv`` (the pool's labels, some of them ``left``), ``truth.csv`` and ``test.csv``, each with the
columns ``row,label`` for the sheet ``right_hands/sheet.jpg`` (tiles of 100 px), and prints the settings of
``pipelines/active_clean.py`` that go with them. With ``mirror=true`` every mirror image is a left hand.
"""

import argparse
import csv
from pathlib import Path

import numpy as np

from benchmarks import cases


def write(out: Path, n_photographs: int, pool: int, test: int, error: float, seed: int) -> None:
    """Write the three files; the same seed draws the same photographs and errors."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(n_photographs)
    asked = sorted(order[:pool].tolist())
    wrong = set(rng.permutation(pool)[: round(error * pool)].tolist())
    out.mkdir(parents=True, exist_ok=True)
    parts = {
        "crowd": [(row, "left" if k in wrong else "right") for k, row in enumerate(asked)],
        "truth": [(row, "right") for row in asked],
        "test": [(row, "right") for row in sorted(order[pool : pool + test].tolist())],
    }
    for name, rows in parts.items():
        with (out / f"{name}.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("row", "label"), *rows])


def settings(out: Path, sheet: Path) -> str:
    """What to give to the job."""
    given = [f"data.{part}.images={sheet} data.{part}.tile=100" for part in ("pool", "test")]
    files = f"data.pool.labels={out}/crowd.csv data.test.labels={out}/test.csv expert.truth={out}/truth.csv"
    return (
        f"task=classes {' '.join(given)} {files} 'data.pool.classes=[left, right]' mirror=true baselines=true"
    )


def main() -> None:
    """Write the files and say how to use them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--pool", type=int, default=700)
    parser.add_argument("--test", type=int, default=400)
    parser.add_argument("--error", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    home = cases.data_folder() / "right_hands"
    count = sum(1 for _ in (home / "index.csv").open()) - 1
    write(given.out, count, given.pool, given.test, given.error, given.seed)
    print(settings(given.out, home / "sheet.jpg"))


if __name__ == "__main__":
    main()
