"""What each part of training on graded labels is worth: AP50 on pictures held out of the training part.

    EMCLEAN_DATA=DIR python -m benchmarks.ablations --cache workspace/ablations --sets emps,bccd --seeds 0,1,2

Of the pool of each set a quarter, whole groups at a time, is held out with its truth and only reports; no
test picture is read. Of the rest, ``--known`` images drawn at random have an expert's labels; models that
judge the others are trained and cross-fitted as in the noise grid (``--steps`` each). Compared are ways to
train the model that is measured (``--final-steps``, from the shipped weights; nothing held out is looked at):

``crowd``              the labels of every image as they came (the floor)
``oa_mil``             the same with boxes refined by cross-fitted models; no expert either (a rival)
``paper``              the source paper's plain procedure with the known images (a rival)
``crowd, mixed``       the labels as they came, the known images with their truth
``expert only``        the known images alone
``graded``             as the main job does: the likelier version, weighted, with areas to ignore
``... weights``        every label counts fully
``... ignore``         no area is ignored
``... regress``        every box is learnt, however doubtful
``expert's corners``   boxes are learnt from the expert's images alone, the rest teaches what is an object
``corners from 0.8``   boxes are learnt where they are probably right to 0.8 (as graded: 0.5)
``... places``         nothing is told by what other pictures show at the same place
``... category``       what is ignored is ignored for every category
``ignored from 0.2``   also candidates of a probability of 0.2 to 0.5 are areas to ignore
``labels``             the likelier version without any of these
``graded, warm``       as graded, but from what a round before had learnt, with half of the known images
``graded, longer``     as graded, with twice the steps: as many as ``graded, warm`` has had
``+ all objects``      as graded, and the truth tells what no box shows (nothing is ignored)
``+ true corners``     as graded, and the truth tells the corners of what has an object
``- empty boxes``      as graded, and the truth tells which boxes show nothing
``truth``              the truth of every image (the ceiling)

What is trained is kept in the cache; a stopped run goes on. Printed: mean over seeds (standard deviation),
the mean of the differences to ``graded`` within a seed, and AP50 of each category.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import cases, oracles
from benchmarks.cases import spread
from benchmarks.sets import BCCD_TEST, json_of, parts
from emclean.loop.grid.boxes import methods
from emclean.loop.grid.boxes.bench import Bench, Case, Part, Recipe
from emclean.loop.grid.boxes.methods import METHODS, Taught
from emclean.loop.grid.cells import Cell
from emclean.models.spec import PRETRAINED, DetectorSpec, Schedule
from emclean.science.correction import Trust
from emclean.science.evaluation import detection, label_quality
from emclean.types import ImageRecord, Labels, Target

SCALES = {"emps": (0.5, 1.0), "bccd": (0.5,)}
HELD = 0.25
Targets = Mapping[str, Target]
Way = Callable[[Case, Taught], Targets]


def taught_by(method: str) -> Way:
    """What a method of the noise grid trains on."""
    return lambda case, graded: METHODS[method].teach(case).targets


def without(change: Callable[[Target], Target]) -> Way:
    """The graded targets with one part of those of noisy labels switched off."""
    return lambda case, graded: {
        i: target if i in case.expert else change(target) for i, target in graded.targets.items()
    }


def no_area(target: Target) -> Target:
    """The same without areas to ignore."""
    return replace(target, ignore=np.zeros((0, 4)), ignore_categories=np.zeros(0, np.int64))


def told(mend: Callable[[Target, Labels], Target]) -> Way:
    """The graded targets with one kind of mistake mended by the truth."""
    return lambda case, graded: {
        i: mend(target, case.bench.train.truth[i]) for i, target in graded.targets.items()
    }


WARM, LONGER = "graded, warm", "graded, longer"
WAYS: Mapping[str, Way] = {
    "crowd": taught_by("crowd"),
    "oa_mil": taught_by("oa_mil"),
    "paper": taught_by("paper"),
    "crowd, mixed": taught_by("crowd_mixed"),
    "expert only": taught_by("expert_only"),
    "graded": lambda case, graded: graded.targets,
    "graded without weights": without(lambda t: replace(t, weights=np.ones(len(t)))),
    "graded without ignore": without(no_area),
    "graded without regress": without(lambda t: replace(t, regress=np.ones(len(t), np.bool_))),
    "expert's corners": without(lambda t: replace(t, regress=np.zeros(len(t), np.bool_))),
    "corners from 0.8": lambda case, graded: methods.graded(case, Trust(regress=0.8)).targets,
    "graded without category": without(lambda t: replace(t, ignore_categories=np.full(len(t.ignore), -1))),
    "graded without places": lambda case, graded: methods.graded(case, places=False).targets,
    "ignored from 0.2": lambda case, graded: methods.graded(case, Trust(suspect=0.2)).targets,
    "labels": without(lambda t: Target(t.boxes, t.categories)),
    WARM: lambda case, graded: graded.targets,
    LONGER: lambda case, graded: graded.targets,
    "graded + all objects": told(oracles.with_all_objects),
    "graded + true corners": told(oracles.with_true_corners),
    "graded - empty boxes": told(oracles.without_empty),
    "truth": taught_by("truth"),
}


@dataclass(frozen=True)
class Sizes:
    """How many images are known, and how many steps each training takes."""

    known: int
    steps: int
    final_steps: int
    crop: int


def labelled(name: str, data: Path) -> cases.Part:
    """The pool of a set: its pictures with the crowd's labels and the truth."""
    if name == "emps":
        return cases.read(data / "emps", "train.crowd", "train.truth")
    bccd = cases.read(data / "bccd", "crowd", "truth")
    return bccd.only(parts(json_of(data / "bccd" / "truth.coco.json")["images"], BCCD_TEST, 0)[0])


def case_of(pool: cases.Part, seed: int, sizes: Sizes, cache: Path) -> Case:
    """Hold out a quarter, and draw the known images of the rest."""
    groups = sorted(set(pool.groups))
    order = np.random.default_rng([seed, 41]).permutation(len(groups))
    held = {groups[k] for k in order[: round(HELD * len(groups))]}
    inside, outside = (
        [i for i, g in enumerate(pool.groups) if (g in held) is flag] for flag in (False, True)
    )
    n = 1 + max(int(truth.categories.max(initial=0)) for truth in pool.truths)
    recipe = Recipe(
        DetectorSpec("compact", n, scales=SCALES[pool.name]),
        Schedule(crop=sizes.crop, eval_every=40, keep_best=False),
        sizes.steps,
        sizes.final_steps,
        PRETRAINED,
        cases.digest_of(cases.SHIPPED),
    )
    learnt, measured = (part_of(pool, rows, cache / pool.name) for rows in (inside, outside))
    case = Case(
        Bench(learnt, measured, recipe, sizes.known, str(cache / "models")), Cell("", "una", 0.0, seed)
    )
    case.noisy = {name_of(i): pool.labels[i] for i in inside}  # the set's own noise in place of planted one
    return case


def name_of(row: int) -> str:
    """An image's id within its set."""
    return f"{row:016x}"


def part_of(pool: cases.Part, rows: Sequence[int], folder: Path) -> Part:
    """Some pictures of the pool, their grey levels as files in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for i in rows:
        file = folder / f"{name_of(i)}.npy"
        if not file.exists():
            draft = file.with_suffix(f".{os.getpid()}.npy")
            np.save(draft, cases.grey(pool.pictures[i]))
            draft.replace(file)
        picture, (width, height) = pool.pictures[i], pool.sizes[i]
        record = ImageRecord(name_of(i), str(picture), picture.name, width, height, group=pool.groups[i])
        records.append(record)
    return Part(tuple(records), {name_of(i): pool.truths[i] for i in rows}, str(folder))


def scores(case: Case, weights: str) -> list[float]:
    """AP50 on the held pictures: of all categories, then of each."""
    part, n = case.bench.test, case.bench.n_categories
    ids = part.ids()
    found, truths = case.predict(weights, part, ids), [part.truth[i] for i in ids]
    answers = [found[i] for i in ids]
    values = [detection(truths, answers, n).ap50]
    for category in range(n):
        mine = [t.take(t.categories == category) for t in truths]
        theirs = [p.take(p.categories == category) for p in answers]
        values.append(detection(mine, theirs, n).ap50 if any(map(len, mine)) else np.nan)
    return values


def run(pool: cases.Part, seed: int, ways: Sequence[str], sizes: Sizes, cache: Path) -> dict[str, Any]:
    """Every way on one set and seed: AP50, and the F1 of the graded labels."""
    torch.set_num_threads(1)
    case, found = case_of(pool, seed, sizes, cache), {}
    graded = METHODS["graded"].teach(case)
    for way in ways:
        teacher = begun(case, sizes) if way == WARM else case
        steps = (1 + (way == LONGER)) * sizes.final_steps
        found[way] = scores(case, teacher.fit(WAYS[way](case, graded), steps, "final"))
        print(f"  {pool.name} seed {seed}, {way}: {found[way][0]:.3f}", file=sys.stderr, flush=True)
    return {"scores": found, "f1": {"crowd": f1(case, case.noisy), "graded": f1(case, graded.labels)}}


def begun(case: Case, sizes: Sizes) -> Case:
    """The same case, its models begun from what a round before had learnt, with half of the known images."""
    before = again(case, replace(case.bench, expert_images=sizes.known // 2))
    weights = before.fit(METHODS["graded"].teach(before).targets, sizes.final_steps, "final")
    return again(case, replace(case.bench, recipe=replace(case.bench.recipe, init=weights)))


def again(case: Case, bench: Bench) -> Case:
    """The same labels on another bench."""
    other = Case(bench, case.cell)
    other.noisy = case.noisy
    return other


def f1(case: Case, labels: Mapping[str, Labels]) -> float:
    """F1 of labels against the truth."""
    ids = sorted(labels)
    return label_quality([case.bench.train.truth[i] for i in ids], [labels[i] for i in ids]).f1


def table(name: str, ways: Sequence[str], runs: Sequence[dict[str, Any]]) -> Iterator[str]:
    """One row for each way; columns for all categories together, the difference, and each category."""
    found = np.array([[run["scores"][way] for run in runs] for way in ways])  # [ways, seeds, 1 + categories]
    quality = " -> ".join(f"{np.mean([run['f1'][kind] for run in runs]):.3f}" for kind in ("crowd", "graded"))
    n = found.shape[2] - 1
    single = [f"category {c}" for c in range(n)] if n > 1 else []
    yield f"\n`{name}` (label F1 {quality}):\n"
    yield "| " + " | ".join(["trained on", "AP50", "less graded", *single]) + " |"
    yield "|---" * (3 + len(single)) + "|"
    base = found[list(ways).index("graded"), :, 0] if "graded" in ways else None
    for way, values in zip(ways, found, strict=True):
        columns = [spread(values[:, 0]), "" if base is None else f"{(values[:, 0] - base).mean():+.3f}"]
        columns += [spread(values[:, 1 + c]) for c in range(len(single))]
        yield "| " + " | ".join([way, *columns]) + " |"


def main() -> int:
    """Prepare, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of what is computed already")
    parser.add_argument("--sets", default="emps,bccd", help="(%(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="(%(default)s)")
    parser.add_argument("--ways", default=";".join(WAYS), help="with ; between them (%(default)s)")
    parser.add_argument("--known", type=int, default=10, help="images with an expert's labels (%(default)s)")
    parser.add_argument("--steps", type=int, default=240, help="of models that judge (%(default)s)")
    parser.add_argument("--final-steps", type=int, default=800, help="of the measured model (%(default)s)")
    parser.add_argument("--crop", type=int, default=256, help="pixels of a side (%(default)s)")
    parser.add_argument("--slots", type=int, default=2, help="seeds side by side (%(default)s)")
    given = parser.parse_args()
    data = cases.data_folder()
    sizes = Sizes(given.known, given.steps, given.final_steps, given.crop)
    ways, cache = given.ways.split(";"), given.cache.absolute()
    pools = {name: labelled(name, data) for name in given.sets.split(",")}
    with ProcessPoolExecutor(given.slots, get_context("spawn")) as workers:
        started = {
            workers.submit(run, pools[name], int(seed), ways, sizes, cache): name
            for seed in given.seeds.split(",")
            for name in pools
        }
        done: dict[str, list[dict[str, Any]]] = {name: [] for name in pools}
        for future in as_completed(started):
            done[started[future]].append(future.result())
    for name, runs in done.items():
        print("\n".join(table(name, ways, runs)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
