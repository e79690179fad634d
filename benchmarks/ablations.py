"""What each part of training on graded labels is worth: AP50 on pictures held out of the training part.

    EMCLEAN_DATA=DIR python -m benchmarks.ablations --cache workspace/ablations --sets emps,bccd --seeds 0,1,2

Of the pool of each set a quarter, whole groups at a time, is held out with its truth and only reports; no
test picture is read. Of the rest, the truth of ``--known`` images drawn at random teaches the grader and is
trained on as it is; every other image is trained on in the ways that are compared:

``crowd``              the labels of every image as they came (the floor)
``oa_mil``             the same with boxes refined by the predictions; no expert either (a rival)
``crowd, mixed``       the labels as they came, the known images with their truth
``truth``              the truth of every image (the ceiling)
``expert only``        the known images alone
``graded``             as the main job does: the likelier version, weighted, with areas to ignore
``graded, warm``       the same, from the weights trained when half of the images were known
``... weights``        every label counts fully
``... ignore``         no area is ignored
``... regress``        every box is learnt, however doubtful
``... category``       what is ignored is ignored for every category
``labels``             the likelier version without any of these
``recorded``           only the corrections that are safe enough to be recorded, with all of these

Labels and predictions come as in ``benchmarks.error_finding``. Every model starts from the shipped weights
and takes ``--steps`` steps without looking at anything that is held out. What is trained is kept in the
cache; a stopped run goes on. Printed: mean over seeds (standard deviation), and the mean of the differences
to ``graded`` within a seed.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cases import Cache, Case, Part, bccd_pool, emps_pool, grey
from emclean.models.engine import DetectorSpec, FitJob, LocalHooks, Schedule, fit, load
from emclean.models.predict import predict
from emclean.models.spec import PRETRAINED
from emclean.science import calibration
from emclean.science.correction import LIKELY, correct
from emclean.science.evaluation import detection
from emclean.science.grading import grade
from emclean.science.rivals import oa_mil
from emclean.types import Floats, Grade, Labels, Target, Verdicts

SCALES = {"emps": (0.5, 1.0), "bccd": (0.5,)}
HELD = 0.25


@dataclass(frozen=True)
class Bench:
    """One set and seed: which images are held out, which are known, and what is judged of the others."""

    name: str
    part: Part
    case: Case
    held: tuple[int, ...]
    known: tuple[int, ...]
    rest: tuple[int, ...]
    verdicts: Mapping[int, Verdicts]
    limits: Mapping[Grade, float]

    @property
    def n_categories(self) -> int:
        """How many categories the set has."""
        return 1 + max(int(truth.categories.max(initial=0)) for truth in self.part.truths)


def prepare(name: str, part: Part, case: Case, known: int) -> Bench:
    """Hold out, draw the known images, and judge the others."""
    rng = np.random.default_rng([case.seed, 41])
    groups = sorted(set(part.groups))
    out = set(np.array(groups)[rng.permutation(len(groups))[: round(HELD * len(groups))]])
    inside = rng.permutation([i for i, group in enumerate(part.groups) if group not in out]).tolist()
    taught, rest = inside[:known], sorted(inside[known:])
    fitted = calibration.fit(
        [case.evidences[i] for i in taught],
        [case.truths[i] for i in taught],
        np.random.default_rng([case.seed, known]),
    )
    verdicts = {i: grade(case.evidences[i], fitted) for i in rest}
    limits = calibration.thresholds(fitted.observations, 0.95)
    held = tuple(i for i, group in enumerate(part.groups) if group in out)
    return Bench(name, part, case, held, tuple(taught), tuple(rest), verdicts, limits)


Way = Callable[[Bench, int], Target | None]


def corrected(bench: Bench, i: int, limits: Mapping[Grade, float] = LIKELY) -> Target:
    """The target of image ``i`` as the main job makes it."""
    return correct(bench.case.evidences[i].labels, bench.verdicts[i], limits).target


def recorded(bench: Bench, i: int) -> Target:
    """With the corrections that are safe enough to be recorded, and no others."""
    return corrected(bench, i, bench.limits)


def without(field: str, value: Callable[[Target], Any]) -> Way:
    """The main job's target with one part switched off."""

    def way(bench: Bench, i: int) -> Target:
        target = corrected(bench, i)
        return replace(target, **{field: value(target)})

    return way


def no_area(bench: Bench, i: int) -> Target:
    """The main job's target without areas to ignore."""
    return replace(corrected(bench, i), ignore=np.zeros((0, 4)), ignore_categories=np.zeros(0, np.int64))


def labels_alone(bench: Bench, i: int) -> Target:
    """The likelier labels, trusted fully."""
    target = corrected(bench, i)
    return Target(target.boxes, target.categories)


def as_they_came(bench: Bench, i: int) -> Target:
    """The crowd's labels, trusted fully."""
    return Target.of(bench.case.evidences[i].labels)


def refined(bench: Bench, i: int) -> Target:
    """The crowd's boxes moved to where the predictions see the object."""
    return Target.of(oa_mil.refine(bench.case.evidences[i].labels, bench.case.evidences[i].reference))


WAYS: Mapping[str, Way] = {
    "crowd": as_they_came,
    "oa_mil": refined,
    "crowd, mixed": as_they_came,
    "expert only": lambda bench, i: None,
    "graded": corrected,
    "graded without weights": without("weights", lambda t: np.ones(len(t))),
    "graded without ignore": no_area,
    "graded without regress": without("regress", lambda t: np.ones(len(t), bool)),
    "graded without category": without("ignore_categories", lambda t: np.full(len(t.ignore), -1)),
    "labels": labels_alone,
    "recorded": recorded,
    "truth": lambda bench, i: Target.of(bench.case.truths[i]),
}
NO_EXPERT = ("crowd", "oa_mil")
WARM = "graded, warm"


def chain(bench: Bench, way: str, given: argparse.Namespace) -> tuple[FitJob, ...]:
    """The trainings of one way, each starting from the weights of the one before."""
    if way != WARM:
        return (training(bench, way, given),)
    before = prepare(bench.name, bench.part, bench.case, given.known // 2)
    return training(before, "graded", given), training(bench, "graded", given)


def training(bench: Bench, way: str, given: argparse.Namespace) -> FitJob:
    """One training of one way."""
    known = {i: Target.of(bench.case.truths[i]) for i in bench.known if way not in NO_EXPERT}
    made = {i: WAYS[way](bench, i) for i in (*bench.known, *bench.rest) if i not in known}
    targets = known | {i: target for i, target in made.items() if target is not None}
    return FitJob(
        DetectorSpec("compact", bench.n_categories, scales=SCALES[bench.name]),
        tuple(pixels(bench.part, i, given.cache) for i in sorted(targets)),
        tuple(targets[i] for i in sorted(targets)),
        schedule=Schedule(given.steps, crop=given.crop, eval_every=min(100, given.steps)),
        seed=bench.case.seed,
        out=str(given.cache),
    )


def trained(jobs: Sequence[FitJob]) -> str:
    """The weights after the last of these trainings; each is kept in a folder named after its content."""
    weights = PRETRAINED
    for job in jobs:
        begun = replace(job, init=weights)
        out = Path(job.out) / begun.digest()
        weights = fit(replace(begun, out=str(out)), LocalHooks(out, checkpoint_every=100)).weights
    return weights


def pixels(part: Part, i: int, folder: Path) -> str:
    """The file of an image's grey levels."""
    file = folder / f"{part.name}-{part.pictures[i].stem}.npy"
    if not file.exists():
        draft = file.with_suffix(f".{os.getpid()}.npy")
        np.save(draft, grey(part.pictures[i]))
        draft.replace(file)
    return str(file)


def measured(
    jobs: Sequence[FitJob], pictures: Sequence[str], truths: Sequence[Labels], n: int
) -> list[float]:
    """Train (or find what was trained), and AP50 on the held pictures: of all, then of each category."""
    torch.set_num_threads(1)
    found = list(predict(load(trained(jobs)), (np.load(file) for file in pictures)))
    scores = [detection(truths, found, n).ap50]
    for category in range(n):
        mine = [t.take(t.categories == category) for t in truths]
        theirs = [p.take(p.categories == category) for p in found]
        scores.append(detection(mine, theirs, n).ap50 if any(map(len, mine)) else np.nan)
    return scores


def run(benches: Sequence[Bench], ways: Sequence[str], given: argparse.Namespace) -> Floats:
    """AP50 ``[ways, seeds, 1 + categories]``; tells of each training that is done."""
    n = max(bench.n_categories for bench in benches)
    found = np.full((len(ways), len(benches), 1 + n), np.nan)
    with ProcessPoolExecutor(given.slots, get_context("spawn")) as pool:
        started = {}
        for (w, way), (s, bench) in ((w, s) for w in enumerate(ways) for s in enumerate(benches)):
            jobs = chain(bench, way, given)
            held = [pixels(bench.part, i, given.cache) for i in bench.held]
            truths = [bench.part.truths[i] for i in bench.held]
            started[pool.submit(measured, jobs, held, truths, n)] = (w, s)
        for count, future in enumerate(as_completed(started), 1):
            w, s = started[future]
            found[w, s] = future.result()
            told = f"seed {benches[s].case.seed}, {ways[w]}: {found[w, s, 0]:.3f}"
            print(f"  {count} of {len(started)}: {benches[s].name}, {told}", file=sys.stderr, flush=True)
    return found


def table(name: str, benches: Sequence[Bench], ways: Sequence[str], found: Floats) -> Iterator[str]:
    """One row for each way; columns for all categories together, the difference, and each category."""
    n = found.shape[2] - 1
    single = [f"category {c}" for c in range(n)] if n > 1 else []
    sizes = f"{len(benches[0].known)} known, {len(benches[0].rest)} others, {len(benches[0].held)} held out"
    yield f"\n`{name}` ({sizes}):\n"
    yield "| " + " | ".join(["trained on", "AP50", "less graded", *single]) + " |"
    yield "|---" * (3 + len(single)) + "|"
    base = found[list(ways).index("graded"), :, 0] if "graded" in ways else None
    for way, scores in zip(ways, found, strict=True):
        columns = [spread(scores[:, 0]), "" if base is None else f"{(scores[:, 0] - base).mean():+.3f}"]
        columns += [spread(scores[:, 1 + c]) for c in range(len(single))]
        yield "| " + " | ".join([way, *columns]) + " |"


def spread(values: Floats) -> str:
    """Mean, and standard deviation where there is one."""
    deviation = f" ({values.std(ddof=1):.3f})" if len(values) > 1 else ""
    return f"{values.mean():.3f}{deviation}"


def main() -> int:
    """Prepare, train, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of what is computed already")
    parser.add_argument("--sets", default="emps,bccd", help="(%(default)s)")
    parser.add_argument("--seeds", default="0,1,2", help="(%(default)s)")
    parser.add_argument("--ways", default=";".join([*WAYS, WARM]), help="with ; between them (%(default)s)")
    parser.add_argument("--known", type=int, default=8, help="images whose truth is known (%(default)s)")
    parser.add_argument("--noise", default="crowd", help="planted into emps (%(default)s)")
    parser.add_argument("--steps", type=int, default=800, help="of training (%(default)s)")
    parser.add_argument("--crop", type=int, default=256, help="pixels of a side (%(default)s)")
    parser.add_argument("--slots", type=int, default=2, help="trainings side by side (%(default)s)")
    given = parser.parse_args()
    data = os.environ.get("EMCLEAN_DATA")
    if not data:
        print("EMCLEAN_DATA is not set: name the folder with emps and bccd", file=sys.stderr)
        return 3
    torch.set_num_threads(1)
    given.cache = given.cache.absolute()
    given.cache.mkdir(parents=True, exist_ok=True)
    seeds, ways = [int(s) for s in given.seeds.split(",")], given.ways.split(";")
    pools = {
        "emps": partial(emps_pool, Path(data), Cache(given.cache), given.noise, seeds),
        "bccd": partial(bccd_pool, Path(data), Cache(given.cache), 300, seeds),
    }
    for name in given.sets.split(","):
        part, cases = pools[name]()
        benches = [prepare(name, part, case, given.known) for case in cases]
        print("\n".join(table(name, benches, ways, run(benches, ways, given))), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
