"""Many annotators: reliability estimated without truth against reliability counted with it.

    EMCLEAN_DATA=DIR python -m benchmarks.annotators
    EMCLEAN_DATA=DIR python -m benchmarks.annotators --truths 0,5 --seeds 0,1,2

Reads ``$EMCLEAN_DATA/expert_box_raters/annotations.csv.gz`` (Marzahl et al. 2020, repository
ChristianMarzahl/EIPH_WSI): ten pathology experts, three tasks, first round (nothing proposed). For each task,
``emclean.science.annotators`` estimates every expert's miss, spurious and shift figures and the consensus
from their overlapping boxes; with ``--truths`` n it is told the ground truth of n images, drawn anew for each
seed. Printed: correlation (Pearson) and mean absolute error against what the ground truth of all images
counts, F1 of the consensus and of the experts, agreement, seconds.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.fit_noise import Rows, as_labels, read
from emclean.science.annotators import Annotator, Estimate, agreement, estimate, measured
from emclean.science.evaluation import label_quality
from emclean.types import Floats, Labels

FIGURES = ("miss", "spurious", "bias", "sigma")


@dataclass(frozen=True)
class Task:
    """One task of the data set: all experts' boxes by image, the truths, and who was shown which image."""

    name: str
    labels: tuple[Labels, ...]
    truths: tuple[Labels, ...]
    seen: tuple[tuple[str, ...], ...]
    n_categories: int

    def of(self, expert: str) -> list[Labels]:
        """One expert's boxes of every image."""
        return [x.take([i for i, a in enumerate(x.annotators) if a == expert]) for x in self.labels]


def task(rows: Rows, name: str) -> Task:
    """Bring one task's rows together; every expert was shown every image on which any expert drew."""
    mine = {key[1:]: value for key, value in rows.items() if key[0] == name}
    experts = sorted({source for _, source in mine if source[:1] == "P" and source[1:].isdigit()})
    images = sorted({image for image, source in mine if source in experts})
    categories = sorted({row["label"] for value in mine.values() for row in value})

    def joined(image: str) -> Labels:
        parts = [as_labels(mine.get((image, expert), []), categories) for expert in experts]
        names = [expert for expert, part in zip(experts, parts, strict=True) for _ in range(len(part))]
        boxes = np.concatenate([part.boxes for part in parts])
        called = np.concatenate([part.categories for part in parts])
        return Labels(boxes, called, annotators=tuple(names))

    truths = tuple(as_labels(mine.get((image, "ground truth"), []), categories) for image in images)
    seen = (tuple(experts),) * len(images)
    return Task(name, tuple(joined(i) for i in images), truths, seen, len(categories))


def figure(annotators: Sequence[Annotator], name: str) -> Floats:
    """One figure of every annotator: a share, or the four offsets of place."""
    return np.array([np.atleast_1d(getattr(a, name)) for a in annotators])


def compared(found: Sequence[Annotator], known: Sequence[Annotator]) -> list[str]:
    """Correlation over annotators (mean over columns) and mean absolute error of each figure."""
    cells = []
    for name in FIGURES:
        one, other = figure(found, name), figure(known, name)
        pairs = [(a, b) for a, b in zip(one.T, other.T, strict=True) if min(a.std(), b.std()) > 1e-6]
        along = [np.corrcoef(a, b)[0, 1] for a, b in pairs]  # columns that are alike for all tell nothing
        cells.append(f"{np.mean(along):.2f} / {np.abs(one - other).mean():.3f}")
    return cells


def consensus_f1(given: Task, found: Estimate, told: set[int]) -> tuple[float, float, float]:
    """F1 on the images whose truth was not told: of the consensus, of the mean and of the best expert."""
    rest = [i for i in range(len(given.labels)) if i not in told]
    truths, fused = [given.truths[i] for i in rest], found.labels()
    own = label_quality(truths, [fused[i] for i in rest]).f1
    each = []
    for annotator in found.annotators:
        mine = given.of(annotator.name)
        each.append(label_quality(truths, [mine[i] for i in rest]).f1)
    return own, float(np.mean(each)), max(each)


def row(given: Task, n_truths: int, seed: int) -> str:
    """One line of the table."""
    rng = np.random.default_rng(seed)
    told = {int(i) for i in rng.permutation(len(given.labels))[:n_truths]}
    began = time.process_time()
    found = estimate(given.labels, given.n_categories, given.seen, {i: given.truths[i] for i in told})
    seconds = time.process_time() - began
    known = measured(given.labels, given.truths, given.n_categories, given.seen)
    f1 = " | ".join(f"{value:.3f}" for value in consensus_f1(given, found, told))
    cells = " | ".join(compared(found.annotators, known))
    return f"| {given.name} | {n_truths} | {seed} | {cells} | {f1} | {seconds:.1f} |"


def each_expert(given: Task) -> None:
    """Every expert of a task: estimated without truth, and counted with it."""
    found = estimate(given.labels, given.n_categories, given.seen)
    known = measured(given.labels, given.truths, given.n_categories, given.seen)
    print(f"\n| {given.name} | boxes | miss | counted | spurious | counted | spread of centre | counted |")
    print("|---|---|---|---|---|---|---|---|")
    for a, b in zip(found.annotators, known, strict=True):
        centre = f"{a.sigma[:2].mean():.3f} | {b.sigma[:2].mean():.3f}"
        shares = f"{a.miss:.3f} | {b.miss:.3f} | {a.spurious:.3f} | {b.spurious:.3f}"
        print(f"| {a.name} | {a.boxes} | {shares} | {centre} |")


def main() -> int:
    """Print the comparison, the experts one by one, and their agreement."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--truths", default="0,5", help="numbers of images whose truth is told")
    parser.add_argument("--seeds", default="0,1,2", help="which images these are")
    options = parser.parse_args()
    folder = os.environ.get("EMCLEAN_DATA")
    if not folder:
        print("EMCLEAN_DATA is not set: name the folder with expert_box_raters", file=sys.stderr)
        return 3
    rows = read(Path(folder) / "expert_box_raters" / "annotations.csv.gz")
    tasks = [task(rows, name) for name in sorted({key[0] for key in rows})]
    names = " | ".join(f"{name} r / error" for name in FIGURES)
    print(f"| task | truths | seed | {names} | F1 consensus | F1 mean expert | F1 best expert | seconds |")
    print("|---" * 11 + "|")
    for given in tasks:
        for n in (int(text) for text in options.truths.split(",")):
            seeds = options.seeds.split(",") if n else options.seeds.split(",")[:1]  # nothing is drawn
            for seed in seeds:
                print(row(given, n, int(seed)), flush=True)
    for given in tasks:
        each_expert(given)
    print("\n| task | pairwise F1 | pairwise mean IoU | alpha | alpha of categories |\n|---|---|---|---|---|")
    for given in tasks:
        a = agreement(given.labels, given.n_categories, given.seen)
        pair = np.triu_indices(len(a.names), 1)
        means = f"{np.nanmean(a.f1[pair]):.3f} | {np.nanmean(a.mean_iou[pair]):.3f}"
        print(f"| {given.name} | {means} | {a.alpha:.3f} | {a.alpha_category:.3f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
