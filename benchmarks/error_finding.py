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

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.cases import (
    EXPERT,
    Cache,
    Case,
    arguments,
    bccd_cases,
    data_folder,
    digest_of_arrays,
    emps_cases,
    science_digest,
)
from emclean.science import calibration
from emclean.science.finding import Found, evaluate
from emclean.science.grading import Evidence, grade
from emclean.science.rivals import RIVALS, ObjectLab, Rival, Suspicion
from emclean.science.rivals.objectlab import to_cleanlab
from emclean.types import GRADES, Labels, Predictions, Verdicts

KINDS = ("any", "touching", "missed", *GRADES[2:])


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
    parser = arguments(__doc__, "crowd,mixed", "0,1,2")
    parser.add_argument("--k", type=int, default=50, help="precision among the first k")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, cache = data_folder(), Cache(options.cache)
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
