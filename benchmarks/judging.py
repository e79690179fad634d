"""Cases of several benchmarks judged by a grader that an expert's answers taught: what is measured.

Every figure is of images that the expert never saw. What is true of them says ``Case.faults``: the ledger of
what was planted, or a trusted labelling.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import Cache, Case, digest_of, digest_of_arrays, science_digest
from emclean.science import calibration
from emclean.science.correction import LIKELY, acted, correct
from emclean.science.evaluation import label_quality
from emclean.science.expert import Slips, answer
from emclean.science.finding import Faults
from emclean.science.grading import grade, with_habits
from emclean.science.truth import TrueGrades, missed_right, right_fixes, true_grades
from emclean.types import GRADES, Bools, Floats, Ints, Labels, Verdicts

LEFT_OUT = 20
"""So many images are left out of the measurement wherever at most that many teach."""
CODE = (science_digest(), digest_of(Path(__file__)))
"""Of the code as it was loaded."""
ASKED = ("0.95", "0.9")
BINS = 10
MISSED = GRADES.index("missed")


@dataclass(frozen=True)
class Teaching:
    """What teaches the grader: the expert's answers for ``images``, given with ``slips``.

    With ``shown`` the expert starts from the crowd's labels, else from the bare picture. Without ``planted``
    no errors are planted into the expert's images. ``outside`` images are left out of the measurement.
    """

    images: int
    slips: Slips = field(default_factory=Slips)
    shown: bool = False
    planted: bool = True
    outside: int = LEFT_OUT


def taught(case: Case, way: Teaching) -> calibration.Calibrator:
    """The grader after the expert's answers; the rules without any."""
    rng, known = np.random.default_rng([case.seed, 5]), case.drawn(way.images)
    seen = [case.evidences[i] for i in known]
    answers = [
        answer(case.truths[i], e.labels if way.shown else None, way.slips, rng, e.width, e.height).labels
        for i, e in zip(known, seen, strict=True)
    ]
    planting: dict[str, int] = {} if way.planted else {"rows": 0}
    return calibration.fit(seen, answers, np.random.default_rng([case.seed, way.images]), **planting)


def overlooked(verdicts: Verdicts, truth: Labels, faults: Faults) -> Bools:
    """Of the candidates (in order), which are objects that the labels miss, each found once."""
    lost = (truth.boxes[:, None] == faults.missed[None]).all(axis=2).any(axis=1)
    none: Ints = np.zeros(0, np.int64)
    return missed_right(verdicts, truth, TrueGrades(none, none, np.flatnonzero(lost)))


@dataclass(frozen=True)
class Grades:
    """Grades against what is true, over images: ``said``, ``right`` and ``true`` count each kind.

    ``clean`` and ``missed`` hold the stated probability of each label (candidate) and whether it was so.
    """

    said: Mapping[str, int]
    right: Mapping[str, int]
    true: Mapping[str, int]
    clean: tuple[list[float], list[bool]]
    missed: tuple[list[float], list[bool]]


def graded(verdicts: Sequence[Verdicts], truths: Sequence[Labels], faults: Sequence[Faults]) -> Grades:
    """Compare the verdicts on some images with what is wrong with their labels."""
    said, right, true = Counter[str](), Counter[str](), Counter[str]()
    pairs: dict[str, tuple[list[float], list[bool]]] = {"clean": ([], []), "missed": ([], [])}
    for v, truth, fault in zip(verdicts, truths, faults, strict=True):
        n, kinds = len(fault.labels), fault.labels.copy()
        kinds[:, 0] = ~kinds.any(axis=1)
        chance, found = v.posterior[n:, MISSED], overlooked(v, truth, fault)
        likely = chance >= 0.5
        hits = kinds[np.arange(n), v.grade[:n]]
        said.update([GRADES[k] for k in v.grade[:n]] + ["missed"] * int(likely.sum()))
        right.update([GRADES[k] for k in v.grade[:n][hits]] + ["missed"] * int((likely & found).sum()))
        true.update(dict(zip(GRADES, kinds.sum(axis=0).tolist(), strict=True)))
        true["missed"] += len(fault.missed)
        for kind, chances, so in (("clean", v.posterior[:n, 0], kinds[:, 0]), ("missed", chance, found)):
            pairs[kind][0].extend(chances.round(4).tolist())
            pairs[kind][1].extend(so.tolist())
    return Grades(dict(said), dict(right), dict(true), **pairs)


@dataclass(frozen=True)
class Corrections:
    """Automatic corrections of images: how many of each kind were ``made`` and ``right``; F1 after them."""

    made: Mapping[str, int]
    right: Mapping[str, int]
    f1: float

    def share(self) -> float:
        """The share that was right of all kinds together, NaN without any."""
        return sum(self.right.values()) / made if (made := sum(self.made.values())) else float("nan")


def corrected(case: Case, verdicts: Mapping[int, Verdicts], limits: Mapping[Any, float]) -> Corrections:
    """Act on the verdicts of some images, and count what was right as the main job does."""
    made, right, after = Counter[str](), Counter[str](), []
    for i, v in verdicts.items():
        labels, truth = case.evidences[i].labels, case.truths[i]
        done, good = acted(labels, v, limits), right_fixes(labels, v, truth, true_grades(labels, truth))
        made.update(GRADES[k] for k in v.grade[done])
        right.update(GRADES[k] for k in v.grade[done & good])
        after.append(correct(labels, v, limits).labels)
    return Corrections(dict(made), dict(right), label_quality([case.truths[i] for i in verdicts], after).f1)


@dataclass(frozen=True)
class Measured:
    """One case judged by one grader: grades, corrections by limits, and the F1 of the labels as they came.

    ``corrected`` has the precisions asked for, and ``likely`` for the likelier version of every label.
    """

    grades: Grades
    corrected: Mapping[str, Corrections]
    before: float

    @staticmethod
    def of(data: Mapping[str, Any]) -> "Measured":
        """Back from JSON."""
        rows = {name: Corrections(**row) for name, row in data["corrected"].items()}
        return Measured(Grades(**data["grades"]), rows, data["before"])


def measure(case: Case, way: Teaching) -> dict[str, Any]:
    """Teach, grade and correct; as JSON."""
    told = with_habits(dict(enumerate(case.evidences)), way.images)
    case = replace(case, evidences=tuple(told.values()))
    grader = taught(case, way)
    rest = sorted(set(range(len(case.truths))) - set(case.drawn(way.outside)))
    verdicts = {i: grade(case.evidences[i], grader) for i in rest}
    truths = [case.truths[i] for i in rest]
    limits = {p: calibration.thresholds(grader.observations, float(p)) for p in ASKED} | {"likely": LIKELY}
    return asdict(
        Measured(
            graded(list(verdicts.values()), truths, [case.faults[i] for i in rest]),
            {name: corrected(case, verdicts, limit) for name, limit in limits.items()},
            label_quality(truths, [case.evidences[i].labels for i in rest]).f1,
        )
    )


def measured(cases: Sequence[Case], way: Teaching, cache: Cache) -> list[Measured]:
    """Every case judged by a grader taught this way, each found in the cache or computed now."""
    rows = []
    for case in cases:
        content = digest_of_arrays(*(e.labels for e in case.evidences), *case.truths)
        seen = digest_of_arrays(*(e.reference for e in case.evidences))
        told_apart = sorted({name for e in case.evidences for name in e.labels.annotators})
        key = ["grades", asdict(way), content, seen, told_apart, case.seed, *CODE]
        rows.append(Measured.of(cache.get(key, partial(measure, case, way))))
    return rows


def bins(stated: Floats, so: Bools) -> Floats:
    """Bins ``[B,3]`` of equal count by rising probability: mean stated one, share observed, count."""
    parts = [p for p in np.array_split(np.argsort(stated, kind="stable"), BINS) if len(p)]
    return np.array([(stated[p].mean(), so[p].mean(), len(p)) for p in parts]).reshape(-1, 3)


def calibration_error(stated: Floats, so: Bools) -> float:
    """Expected calibration error: the mean gap of stated and observed over the bins."""
    said, seen, count = bins(stated, so).T
    return float((np.abs(said - seen) * count).sum() / max(count.sum(), 1))


def chances(found: Measured, kind: str) -> tuple[Floats, Bools]:
    """Stated probability and whether it was so, of ``clean`` labels or ``missed`` candidates."""
    stated, so = getattr(found.grades, kind)
    return np.array(stated, dtype=np.float64), np.array(so, dtype=np.bool_)


def by_chance(found: Measured, kind: str) -> float:
    """The calibration error that counts like these show when every probability is exact; mean of 20 draws."""
    stated, _ = chances(found, kind)
    rng = np.random.default_rng(0)
    return float(np.mean([calibration_error(stated, rng.random(len(stated)) < stated) for _ in range(20)]))
