"""Finding wrong labels: our grading against other methods, on the same labels and predictions.

    EMCLEAN_DATA=DIR python -m benchmarks.error_finding --cache workspace/error-finding

Sets: ``emps`` train truth with planted noise (one table for each of ``--noise``), with the predictions of
the shipped detector, which never saw a label of it; ``bccd`` with its real errors, against the re-annotation,
with two detectors trained on the original labels of one half each and asked about the other (``--steps``).

Methods: our grading without an expert (``ours, rules``) and calibrated on 5 and 20 images whose truth is
known; ObjectLab with the library's thresholds and (``objectlab``) with lower ones, since these detectors are
seldom sure; the CLOD-style clusters; loss inspection; cross-entropy; the paper's count. The 20 images are
left out of the evaluation of every method. Printed: average precision / precision among the first k, mean
over seeds, spread (standard deviation) of the first in brackets; every kind of label error is ranked among
the clean labels. Then whether kinds are told apart, and the time for an image with 10, 50 and 200 boxes.

Everything computed is kept in ``--cache`` under a digest of what it was computed from: a stopped run goes on.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import emclean.science
from emclean.boxes import from_xywh
from emclean.models.engine import DetectorSpec, FitJob, LocalHooks, Schedule, fit, load
from emclean.models.predict import predict
from emclean.models.spec import SHIPPED
from emclean.science import calibration
from emclean.science.finding import Faults, Found, evaluate, planted_faults, true_faults
from emclean.science.grading import Evidence, grade
from emclean.science.noise import PRESETS, NoiseRates, plant
from emclean.science.rivals import RIVALS, ObjectLab, Rival, Suspicion
from emclean.science.rivals.objectlab import to_cleanlab
from emclean.types import GRADES, Labels, Predictions, Target, Verdicts

EXPERT = (5, 20)
NOISE = {
    **PRESETS,
    "mixed": NoiseRates(missed=0.2, shifted=0.25, shift_sigma=0.25, merged=0.2, spurious=0.15, duplicate=0.1),
}
KINDS = ("any", "touching", "missed", *GRADES[2:])


@dataclass(frozen=True)
class Part:
    """Pictures of one set with the labels to be judged (or to be spoilt), and the truth."""

    name: str
    pictures: tuple[Path, ...]
    sizes: tuple[tuple[int, int], ...]
    labels: tuple[Labels, ...]
    truths: tuple[Labels, ...]


def read(home: Path, labels: str, truth: str) -> Part:
    """A COCO file of labels and one of the truth of the same pictures, matched by file name."""
    of = {name: boxes(home / f"{name}.coco.json") for name in (labels, truth)}
    images = json.loads((home / f"{truth}.coco.json").read_text())["images"]
    names = [image["file_name"] for image in images]
    return Part(
        home.name,
        tuple(home / "images" / name for name in names),
        tuple((image["width"], image["height"]) for image in images),
        tuple(of[labels].get(name, Labels.empty()) for name in names),
        tuple(of[truth].get(name, Labels.empty()) for name in names),
    )


def boxes(path: Path) -> dict[str, Labels]:
    """The labels of every picture of a COCO file, by file name."""
    coco = json.loads(path.read_text())
    order = {c["id"]: i for i, c in enumerate(sorted(coco["categories"], key=lambda c: c["name"]))}
    rows: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in coco["images"]}
    for row in coco["annotations"]:
        rows[row["image_id"]].append(row)
    return {
        image["file_name"]: Labels(
            from_xywh([r["bbox"] for r in rows[image["id"]]]),
            np.array([order[r["category_id"]] for r in rows[image["id"]]], dtype=np.int64),
        )
        for image in coco["images"]
    }


@dataclass(frozen=True)
class Cache:
    """Results as JSON files named by a digest of everything they follow from."""

    folder: Path

    def get(self, key: object, make: Callable[[], Any]) -> Any:
        """What is stored under ``key``, or what ``make`` makes of it now."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:24]
        path = self.folder / f"{digest}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(make()))
            draft.replace(path)
        return json.loads(path.read_text())


def digest_of(*paths: Path) -> str:
    """A digest of the contents of files."""
    sha = hashlib.sha256()
    for path in paths:
        sha.update(path.read_bytes())
    return sha.hexdigest()[:24]


def science_digest() -> str:
    """A digest of the code that every result depends on."""
    package = Path(emclean.science.__file__).parent
    return digest_of(*sorted(package.rglob("*.py")), package.parent / "boxes.py")


def digest_of_arrays(*values: Any) -> str:
    """A digest of labels or predictions."""
    sha = hashlib.sha256()
    for value in values:
        for name in ("boxes", "categories", "scores"):
            sha.update(np.ascontiguousarray(getattr(value, name, np.zeros(0))).tobytes())
        sha.update(b"|")
    return sha.hexdigest()[:24]


def grey(path: Path) -> Any:
    """A picture as grey levels."""
    return np.asarray(Image.open(path).convert("L"))


def to_rows(found: Predictions) -> list[Any]:
    """Predictions as lists."""
    return [found.boxes.tolist(), found.categories.tolist(), found.scores.tolist()]


def from_rows(rows: Sequence[Any]) -> Predictions:
    """Predictions from lists."""
    return Predictions(np.array(rows[0]).reshape(-1, 4), np.array(rows[1], np.int64), np.array(rows[2]))


def shipped(part: Part, scales: tuple[float, ...]) -> list[Any]:
    """What the shipped detector finds in each picture."""
    return [to_rows(p) for p in predict(load("pretrained"), map(grey, part.pictures), scales)]


def crossfit(part: Part, steps: int, scale: float, folder: Path) -> list[Any]:
    """What two detectors find, each trained on the labels of half the pictures and asked about the other."""
    fold = np.random.default_rng(0).permutation(np.arange(len(part.pictures)) % 2)
    arrays = [folder / f"{part.name}-{path.stem}.npy" for path in part.pictures]
    for path, array in zip(part.pictures, arrays, strict=True):
        np.save(array, grey(path))
    n = 1 + max(int(x.categories.max(initial=0)) for x in part.labels)
    found: dict[int, list[Any]] = {}
    for k in (0, 1):
        train, rest = np.flatnonzero(fold != k), np.flatnonzero(fold == k)
        out = folder / f"{part.name}-fold-{k}"
        job = FitJob(
            DetectorSpec("compact", n, scales=(scale,)),
            tuple(str(arrays[i]) for i in train),
            tuple(Target.of(part.labels[i]) for i in train),
            schedule=Schedule(steps, crop=128, eval_every=steps),
            seed=k,
            out=str(out),
        )
        detector = load(fit(job, LocalHooks(out)).weights)
        answers = predict(detector, (grey(part.pictures[i]) for i in rest))
        found.update(zip(rest.tolist(), map(to_rows, answers), strict=True))
    return [found[i] for i in range(len(part.pictures))]


def ours(evidences: Sequence[Evidence], calibrator: calibration.Calibrator | None = None) -> list[Suspicion]:
    """Our grading as one of the methods: the error of a label is the probability that it is not clean."""
    return [_suspicion(evidence, grade(evidence, calibrator)) for evidence in evidences]


def _suspicion(evidence: Evidence, verdicts: Verdicts) -> Suspicion:
    n = len(evidence.labels)
    posterior, missed = verdicts.posterior[:n], verdicts.posterior[n:, GRADES.index("missed")]
    candidates = evidence.reference.take(verdicts.prediction[n:])
    kinds = {kind: posterior[:, GRADES.index(kind)] for kind in GRADES[2:]}
    errors = 1 - posterior[:, 0]
    return Suspicion(float(errors.sum() + missed.sum()), errors, candidates, missed, kinds)


@dataclass(frozen=True)
class Case:
    """One set with labels to judge: evidence, what is wrong, and the truth, of every image; the seed."""

    evidences: tuple[Evidence, ...]
    faults: tuple[Faults, ...]
    truths: tuple[Labels, ...]
    seed: int

    def expert(self) -> list[int]:
        """The images whose truth is known, at most 20 and at most a third."""
        most = min(max(EXPERT), len(self.truths) // 3)
        return np.random.default_rng([self.seed, 99]).permutation(len(self.truths))[:most].tolist()

    def judged(self) -> list[int]:
        """All others, by which every method is measured."""
        return sorted(set(range(len(self.truths))) - set(self.expert()))


def calibrated(case: Case, n: int) -> Rival:
    """Our grading, taught by the truth of ``n`` images."""
    known = case.expert()[:n]
    fitted = calibration.fit(
        [case.evidences[i] for i in known],
        [case.truths[i] for i in known],
        np.random.default_rng([case.seed, n]),
    )
    return partial(ours, calibrator=fitted)


METHODS: dict[str, Callable[[Case], Rival]] = {
    "ours, rules": lambda case: ours,
    **{f"ours, {n} images": partial(calibrated, n=n) for n in EXPERT},
    "objectlab, library's": lambda case: ObjectLab(),
    **{name: partial(lambda case, name: RIVALS[name], name=name) for name in RIVALS},
}


def measure(case: Case, method: str, k: int) -> dict[str, Any]:
    """One method on one case: found among the clean, and told apart."""
    rows = case.judged()
    suspicions = METHODS[method](case)([case.evidences[i] for i in rows])
    faults = [case.faults[i] for i in rows]
    tables = {"found": evaluate(suspicions, faults, k), "told": evaluate(suspicions, faults, k, own=True)}
    return {name: {kind: asdict(f) for kind, f in table.items()} for name, table in tables.items()}


def evidence_of(part: Part, found: Sequence[Predictions], labels: Sequence[Labels]) -> tuple[Evidence, ...]:
    """Labels and predictions of every picture; one model stands for all three."""
    rows = zip(labels, found, part.sizes, strict=True)
    return tuple(Evidence(x, None, None, p, width, height) for x, p, (width, height) in rows)


def spoilt(part: Part, found: Sequence[Predictions], rates: NoiseRates, seed: int) -> Case:
    """The truth with planted errors."""
    rng = np.random.default_rng(seed)
    sizes = zip(part.truths, part.sizes, strict=True)
    noisy = [plant(truth, width, height, rates, 1, rng) for truth, (width, height) in sizes]
    faults = tuple(planted_faults(n, t) for n, t in zip(noisy, part.truths, strict=True))
    return Case(evidence_of(part, found, [n.labels for n in noisy]), faults, part.truths, seed)


def real(part: Part, found: Sequence[Predictions], seed: int) -> Case:
    """The labels as they are; the seed draws the expert's images."""
    faults = tuple(true_faults(x, t) for x, t in zip(part.labels, part.truths, strict=True))
    return Case(evidence_of(part, found, part.labels), faults, part.truths, seed)


def emps_cases(data: Path, cache: Cache, noise: str, seeds: Sequence[int]) -> list[Case]:
    """The ``emps`` train part with errors planted, seen by the shipped detector."""
    emps = read(data / "emps", "train.truth", "train.truth")
    key = ["shipped", digest_of(SHIPPED, *emps.pictures)]
    found = [from_rows(r) for r in cache.get(key, partial(shipped, emps, (0.5, 1.0)))]
    return [spoilt(emps, found, NOISE[noise], seed) for seed in seeds]


def bccd_cases(data: Path, cache: Cache, steps: int, seeds: Sequence[int]) -> list[Case]:
    """All of ``bccd`` with its own errors, seen by detectors of ``steps`` training steps."""
    bccd = read(data / "bccd", "crowd", "truth")
    key = ["crossfit", digest_of(SHIPPED, *bccd.pictures), digest_of_arrays(*bccd.labels), steps]
    cache.folder.mkdir(parents=True, exist_ok=True)
    answers = [from_rows(r) for r in cache.get(key, partial(crossfit, bccd, steps, 0.25, cache.folder))]
    return [real(bccd, answers, seed) for seed in seeds]


Table = dict[str, list[dict[str, Any]]]


def run(cases: Sequence[Case], k: int, cache: Cache) -> Table:
    """Every method on every case, each found in the cache or computed now."""
    code = science_digest()
    table: Table = {}
    for method in METHODS:
        table[method] = []
        for case in cases:
            content = digest_of_arrays(*(e.labels for e in case.evidences), *case.truths)
            seen = digest_of_arrays(*(e.reference for e in case.evidences))
            key = ["cell", method, content, seen, case.seed, k, code]
            table[method].append(cache.get(key, partial(measure, case, method, k)))
    return table


def cell(found: Sequence[Found]) -> str:
    """Mean average precision with its spread, and mean precision at k."""
    ap = np.array([f.ap for f in found])
    if np.isnan(ap).all():
        return "-"
    precision = (
        np.nanmean([f.precision for f in found]) if any(f.precision == f.precision for f in found) else 0
    )
    return f"{np.nanmean(ap):.2f} ({np.nanstd(ap):.2f}) / {precision:.2f}"


def show(title: str, table: Table, which: str, kinds: Sequence[str]) -> None:
    """One table: methods by kinds."""
    rows = {m: [{k: Found(**v) for k, v in c[which].items()} for c in cells] for m, cells in table.items()}
    first = next(iter(rows.values()))
    shown = [k for k in kinds if np.mean([c[k].total for c in first if k in c] or [0]) >= 10]
    heads = [f"{k} ({np.mean([c[k].total for c in first]):.0f})" for k in shown]
    print(f"\n**{title}**\n\n| method | {' | '.join(heads)} |\n|{'---|' * (len(shown) + 1)}")
    for method, cells in rows.items():
        if any(k in cells[0] for k in shown):
            values = [cell([c[k] for c in cells]) if k in cells[0] else "-" for k in shown]
            print(f"| {method} | {' | '.join(values)} |")
    sys.stdout.flush()


def scene(n: int, rng: np.random.Generator) -> Evidence:
    """An image of n labels and 1.5 n predictions at random places, half of them on labels."""
    low = rng.random((2 * n, 2)) * 900
    places = np.concatenate([low, low + rng.uniform(20, 60, (2 * n, 2))], axis=1)
    found = np.concatenate([places[: n // 2] + rng.normal(0, 2, (n // 2, 4)), places[n:]])
    scores = rng.random(len(found))
    predictions = Predictions(found, np.zeros(len(found), np.int64), scores)
    return Evidence(Labels(places[:n], np.zeros(n, np.int64)), None, None, predictions, 1000, 1000)


def whole_library(evidences: Sequence[Evidence]) -> None:
    """What a user of cleanlab calls for an image's score and its instances' scores."""
    from cleanlab.object_detection import rank

    pairs = [to_cleanlab(e, 1) for e in evidences]
    labels, predictions = [p[0] for p in pairs], [p[1] for p in pairs]
    rank.get_label_quality_scores(labels, predictions, verbose=False)


def seconds(method: Callable[[Sequence[Evidence]], object], images: Sequence[Evidence]) -> float:
    """Processor seconds for each image, the better of two."""
    times = []
    for _ in range(2):
        began = time.process_time()
        method(images)
        times.append((time.process_time() - began) / len(images))
    return min(times)


def speed(case: Case) -> None:
    """Milliseconds for an image with 10, 50 and 200 boxes, and the ratio to ours."""
    rng = np.random.default_rng(0)
    images = {n: [scene(n, rng) for _ in range(max(2, 40 // n))] for n in (10, 50, 200)}
    timed: dict[str, Callable[[Sequence[Evidence]], object]] = {
        "ours, rules": ours,
        "ours, calibrated": calibrated(case, 20),
        "ObjectLab, cleanlab's own call": whole_library,
        "ObjectLab, with our matrices": RIVALS["objectlab"],
        **{name: RIVALS[name] for name in RIVALS if name != "objectlab"},
    }
    print("\n**Milliseconds an image (times ours, calibrated)**\n")
    print("| method | 10 | 50 | 200 |\n|---|---|---|---|")
    spent = {name: [1000 * seconds(method, images[n]) for n in images] for name, method in timed.items()}
    base = spent["ours, calibrated"]
    for name, row in spent.items():
        print(f"| {name} | {' | '.join(f'{a:.1f} ({a / b:.2f})' for a, b in zip(row, base, strict=True))} |")


def main() -> int:
    """Predict, judge, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="folder of what is computed already")
    parser.add_argument("--noise", default="crowd,mixed", help=f"comma-separated, of {', '.join(NOISE)}")
    parser.add_argument("--seeds", default="0,1,2", help="of the planted noise and the expert's images")
    parser.add_argument("--k", type=int, default=50, help="precision among the first k")
    parser.add_argument("--steps", type=int, default=300, help="training steps for bccd (0: leave it out)")
    options = parser.parse_args()
    folder = os.environ.get("EMCLEAN_DATA")
    if not folder:
        print("EMCLEAN_DATA is not set: name the folder with emps and bccd", file=sys.stderr)
        return 3
    torch.set_num_threads(1)
    data, cache = Path(folder), Cache(options.cache)
    seeds = [int(text) for text in options.seeds.split(",")]
    began = time.process_time()
    for name in options.noise.split(","):
        cases = emps_cases(data, cache, name, seeds)
        table = run(cases, options.k, cache)
        show(f"emps, planted: {name}", table, "found", KINDS)
        show(f"emps, planted: {name}; kinds told apart among all labels", table, "told", KINDS)
    if options.steps:
        table = run(bccd_cases(data, cache, options.steps, seeds), options.k, cache)
        show("bccd, real errors", table, "found", KINDS)
        show("bccd, real errors; kinds told apart among all labels", table, "told", KINDS)
    speed(cases[0])
    print(f"\nseeds {options.seeds}, k {options.k}, {time.process_time() - began:.0f} s of one core")
    return 0


if __name__ == "__main__":
    sys.exit(main())
