"""What ``emclean audit`` says of the crowd's labels of ``emps``, and how far it can be trusted there.

    EMCLEAN_DATA=DIR python -m benchmarks.audit_session --cache workspace/error-finding

The results are those of the shipped detector, which never saw a label of the set. The command is run as a
user runs it: without any truth, with that of ``--images`` images drawn at random (once for each seed), and
with that of all of them. Printed: its session with the first draw; then for each of these runs, over the
images whose truth it did not see (over all for the first and the last), the average precision of finding what
is wrong or overlooked, the labels' F1 before and after the automatic corrections, and how many of the objects
added there are real. Mean over the seeds (standard deviation).
"""

import argparse
import csv
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks import cases
from benchmarks.cases import spread
from emclean.audit.checks import average_precision
from emclean.boxes import from_xywh, match, to_xywh
from emclean.science.evaluation import label_quality
from emclean.science.truth import true_grades
from emclean.types import Labels, Predictions

Pair = tuple[Labels, Labels]
SHOWN = 28
"""Lines of the session that are printed."""


@dataclass(frozen=True)
class Files:
    """The set's labels, truth and pictures, and the folder of what is made here."""

    home: Path
    out: Path

    @property
    def labels(self) -> Path:
        """The crowd's labels."""
        return self.home / "train.crowd.coco.json"

    @property
    def truth(self) -> Path:
        """The truth of every image."""
        return self.home / "train.truth.coco.json"

    @property
    def results(self) -> Path:
        """The detector's COCO results."""
        return self.out / "results.json"


def write_results(files: Files, names: Sequence[str], found: Sequence[Predictions]) -> None:
    """COCO results with the ids of the label file."""
    coco = json.loads(files.labels.read_text())
    ids = {image["file_name"]: image["id"] for image in coco["images"]}
    categories = [c["id"] for c in sorted(coco["categories"], key=lambda c: c["name"])]
    rows = [
        {"image_id": ids[name], "category_id": categories[c], "bbox": box, "score": s}
        for name, p in zip(names, found, strict=True)
        for box, c, s in zip(to_xywh(p.boxes).tolist(), p.categories, p.scores.tolist(), strict=True)
    ]
    files.results.write_text(json.dumps(rows))


def write_part(files: Files, known: Set[str], path: Path) -> None:
    """The truth of some images only."""
    coco = json.loads(files.truth.read_text())
    images = [image for image in coco["images"] if image["file_name"] in known]
    ids = {image["id"] for image in images}
    rows = [row for row in coco["annotations"] if row["image_id"] in ids]
    path.write_text(json.dumps({**coco, "images": images, "annotations": rows}))


def audit(files: Files, truth: Path | None, out: Path) -> str:
    """Run the command; its printed lines."""
    given = ["audit", str(files.labels), str(files.results), "--images", str(files.home / "images")]
    given += [] if truth is None else ["--truth", str(truth)]
    command = [sys.executable, "-m", "emclean.cli", *given, "--out", str(out)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


@dataclass(frozen=True)
class Judged:
    """One audit, measured: average precision and that of a random order, F1 before and after, additions."""

    precision: float
    chance: float
    before: float
    after: float | None
    added: int
    real: int


def measure(files: Files, out: Path, names: Sequence[str], held_out: bool) -> Judged:
    """Compare what an audit says of the ``names`` with the truth; ``held_out``: it has not seen theirs."""
    crowd, truth = cases.boxes(files.labels), cases.boxes(files.truth)
    pairs = {name: (crowd[name], truth[name]) for name in names}
    place = places(files.labels)
    precision, chance = found_wrong(out, pairs, place)
    truths = [truth[name] for name in names]
    before = label_quality(truths, [crowd[name] for name in names]).f1
    corrected = out / "corrected.coco.json"
    if not held_out or not corrected.exists():  # where the truth is known it takes the labels' place
        return Judged(precision, chance, before, None, 0, 0)
    after = cases.boxes(corrected)
    f1 = label_quality(truths, [after[name] for name in names]).f1
    return Judged(precision, chance, before, f1, *additions(corrected, pairs, set(place)))


def found_wrong(out: Path, pairs: Mapping[str, Pair], place: Mapping[str, int]) -> tuple[float, float]:
    """Average precision of the ranking in ``instances.csv`` over some images, and that of a random order."""
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in pairs}
    with (out / "instances.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["image"] in rows:
                rows[row["image"]].append(row)
    errors, wrong, overlooked = [], [], 0
    for name, (crowd, truth) in pairs.items():
        known = true_grades(crowd, truth)
        mine = [row for row in rows[name] if row["label_id"]]
        errors += [float(row["error"]) for row in mine]
        wrong += [known.grade[place[row["label_id"]]] > 0 for row in mine]
        proposed = [row for row in rows[name] if not row["label_id"]]
        corners = np.array([[float(row[k]) for k in ("x1", "y1", "x2", "y2")] for row in proposed])
        hits, _ = match(corners.reshape(-1, 4), truth.boxes[known.missed], 0.5)
        errors += [float(row["error"]) for row in proposed]
        wrong += np.isin(np.arange(len(proposed)), hits).tolist()
        overlooked += len(known.missed) - len(hits)
    seen = np.array(wrong, dtype=np.bool_)
    positives = int(seen.sum()) + overlooked
    return average_precision(np.array(errors), seen, positives), float(seen.mean())


def places(labels: Path) -> dict[str, int]:
    """Where each annotation stands among those of its image, by its id."""
    place: dict[str, int] = {}
    counts: dict[int, int] = {}
    for row in json.loads(labels.read_text())["annotations"]:
        counts[row["image_id"]] = counts.get(row["image_id"], -1) + 1
        place[str(row["id"])] = counts[row["image_id"]]
    return place


def additions(corrected: Path, pairs: Mapping[str, Pair], old: Set[str]) -> tuple[int, int]:
    """Objects that were added in some images, and how many are objects without a label (IoU >= 0.5)."""
    coco = json.loads(corrected.read_text())
    name_of = {image["id"]: image["file_name"] for image in coco["images"]}
    added: dict[str, list[list[float]]] = {name: [] for name in pairs}
    for row in coco["annotations"]:
        name = name_of[row["image_id"]]
        if name in added and str(row["id"]) not in old and "parent" not in row:
            added[name].append(row["bbox"])
    hits = 0
    for name, (crowd, truth) in pairs.items():
        missed = truth.boxes[true_grades(crowd, truth).missed]
        hits += len(match(from_xywh(added[name]), missed, 0.5)[0])
    return sum(map(len, added.values())), hits


def line(what: str, runs: Sequence[Judged]) -> str:
    """One row of the table: means over the runs, with the standard deviation where there are several."""
    f1 = [run.after for run in runs if run.after is not None]
    added, real = sum(run.added for run in runs), sum(run.real for run in runs)
    columns = (
        spread([run.precision for run in runs]),
        spread([run.chance for run in runs]),
        f"{spread([run.before for run in runs])} -> {spread(f1)}" if f1 else "–",
        f"{real} of {added} ({real / added:.2f})" if added else "–",
    )
    return f"| {what} | " + " | ".join(columns) + " |"


def main() -> int:
    """Predict once, audit, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of what is computed already")
    parser.add_argument("--images", type=int, default=20, help="images whose truth is known (%(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="of the draws of these images (%(default)s)")
    given = parser.parse_args()
    files = Files(cases.data_folder() / "emps", given.cache.absolute() / "audit")
    files.out.mkdir(parents=True, exist_ok=True)
    part, found = cases.emps_seen(cases.data_folder(), cases.Cache(given.cache.absolute()))
    names = [path.name for path in part.pictures]
    write_results(files, names, found)
    sessions, runs = [], []
    for seed in map(int, given.seeds.split(",")):
        order = np.random.default_rng(seed).permutation(len(names))
        known = {names[i] for i in order[: given.images]}
        truth, out = files.out / f"truth{given.images}-{seed}.json", files.out / f"some-{seed}"
        write_part(files, known, truth)
        sessions.append(audit(files, truth, out))
        runs.append(measure(files, out, [name for name in names if name not in known], True))
    audit(files, None, files.out / "none")
    audit(files, files.truth, files.out / "all")
    print("\n".join(sessions[0].splitlines()[:SHOWN]))
    columns = ("truth", "average precision", "random order", "label F1", "additions that are objects")
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    print(line("of no image", [measure(files, files.out / "none", names, False)]))
    print(line(f"of {given.images} images", runs))
    print(line("of all images", [measure(files, files.out / "all", names, False)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
