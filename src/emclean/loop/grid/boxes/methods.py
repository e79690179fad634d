"""The methods of a grid: what each makes of noisy labels. A further one is an entry of ``METHODS``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from emclean.loop.grid.boxes.bench import FOLDS, Case, Recipe
from emclean.science import calibration, consensus, correction
from emclean.science.grading import Evidence, grade, with_habits, with_places
from emclean.science.rivals import oa_mil, paper
from emclean.types import Labels, Predictions, Target


@dataclass(frozen=True, eq=False)
class Taught:
    """What a model is trained on: targets by image, and the labels behind them."""

    targets: Mapping[str, Target]
    labels: Mapping[str, Labels]


@dataclass(frozen=True)
class Method:
    """One method: what it makes of a case, how many models it trains for that, whether it asks an expert.

    ``version`` goes up when it makes something else of the same case, so that its results on file are not
    used again.
    """

    teach: Callable[[Case], Taught]
    models: int = 0
    asks: bool = False
    version: int = 1

    def steps(self, recipe: Recipe) -> int:
        """The training steps of a cell, if no other cell has done any of them."""
        return self.models * recipe.steps + recipe.final_steps


def plainly(labels: Mapping[str, Labels]) -> Taught:
    """Labels taken as they are."""
    return Taught({i: Target.of(found) for i, found in labels.items()}, labels)


def graded(case: Case, trust: correction.Trust | None = None, places: bool = True) -> Taught:
    """Every noisy label graded by cross-fitted models, in its likelier version, weighted by its probability.

    The expert's images calibrate the grades and are trained on as they are. Where they are too few to teach
    the grader, only what rules hold for safe is changed. ``trust`` says how probabilities become targets;
    without ``places`` nothing is told by what other pictures show at the same place.
    """
    evidence = _evidence(case)
    if not places:
        evidence = {i: replace(one, places=None) for i, one in evidence.items()}
    known = sorted(case.expert)
    calibrator = calibration.fit(
        [evidence[i] for i in known], [case.expert[i] for i in known], case.rng("calibration")
    )
    limits = correction.LIKELY if calibrator.calibrated else calibration.thresholds(calibrator.observations)
    fixed = {
        i: correction.correct(e.labels, grade(e, calibrator), limits, trust)
        for i, e in evidence.items()
        if i not in case.expert
    }
    expert = plainly(case.expert)
    return Taught(
        {**expert.targets, **{i: found.target for i, found in fixed.items()}},
        {**expert.labels, **{i: found.labels for i, found in fixed.items()}},
    )


def _evidence(case: Case) -> dict[str, Evidence]:
    """The noisy labels of every image beside what three models say that have not seen its labels."""
    ids = case.bench.train.ids()
    halves = case.folds("crowd folds", ids)
    crowd = case.cross_fit({i: Target.of(case.noisy[i]) for i in ids}, halves, "crowd")
    cleaning = _cleaning(case, ids)
    targets = {i: consensus.agreement_target(case.noisy[i], cleaning[i]) for i in ids}
    agreed = case.cross_fit({**targets, **plainly(case.expert).targets}, halves, "consensus")
    sizes = {record.image_id: (record.width, record.height) for record in case.bench.train.records}
    evidence = with_places(
        {
            i: Evidence(
                case.noisy[i],
                cleaning[i],
                agreed[i],
                crowd[i],
                *sizes[i],
                picture=partial(case.bench.train.picture, i),
            )
            for i in ids
        }
    )
    return with_habits(evidence, len(case.expert))


def _cleaning(case: Case, ids: list[str]) -> dict[str, Predictions]:
    """What models that know the expert's images alone find; each of those is searched by the other half's."""
    expert = sorted(case.expert)
    rest = [i for i in ids if i not in case.expert]
    halves = {**case.folds("other folds", rest), **_halves(expert, case.rng("expert folds"))}
    return case.cross_fit({i: Target.of(case.expert[i]) for i in expert}, halves, "cleaning")


def _halves(ids: list[str], rng: np.random.Generator) -> dict[str, int]:
    """A fold for each of a few images; whole groups could leave a model without any."""
    return {ids[k]: place % FOLDS for place, k in enumerate(rng.permutation(len(ids)).tolist())}


def refined(case: Case) -> Taught:
    """Noisy boxes moved to where cross-fitted models see the object, without any expert."""
    ids = case.bench.train.ids()
    found = case.cross_fit(
        {i: Target.of(case.noisy[i]) for i in ids}, case.folds("crowd folds", ids), "crowd"
    )
    return plainly({i: oa_mil.refine(case.noisy[i], found[i]) for i in ids})


def as_published(case: Case) -> Taught:
    """Our reconstruction of the source paper's plain procedure (arXiv 2602.05250), without our additions.

    It has the two models that the source states: the cleaning model, trained on the expert's images, and the
    consensus model, trained on the labels that the cleaning model confirms and on the expert's images; the
    grading of each label by its discrepancy from them; the automatic corrections, merged boxes split; and the
    expert's images as they are. Cross-fitting is ours, but every method of the grid has it, as they all have
    one detector and one way to search. The source's ranking of images has nothing to do here, for the
    expert's images are given. Left out are our calibrated probabilities, crowd-trained models, looks of
    instances, weights and areas to ignore.
    """
    ids = case.bench.train.ids()
    cleaning = _cleaning(case, ids)
    agreed = {i: consensus.agreed(case.noisy[i], cleaning[i]) for i in ids}
    halves = case.folds("crowd folds", ids)
    second = case.cross_fit(plainly({**agreed, **case.expert}).targets, halves, "plain consensus")
    fixed = {i: paper.correct(case.noisy[i], cleaning[i], second[i]) for i in ids}
    return plainly({**fixed, **case.expert})


METHODS: Mapping[str, Method] = {
    "crowd": Method(lambda case: plainly(case.noisy)),
    "oa_mil": Method(refined, models=FOLDS),
    "expert_only": Method(lambda case: plainly(case.expert), asks=True),
    "crowd_mixed": Method(lambda case: plainly({**case.noisy, **case.expert}), asks=True),
    "paper": Method(as_published, models=2 * FOLDS, asks=True, version=2),
    "graded": Method(graded, models=3 * FOLDS, asks=True, version=4),
    "truth": Method(lambda case: plainly(case.bench.train.truth)),
}
"""``crowd``: the noisy labels as they are. ``oa_mil``: their boxes refined without an expert.
``expert_only``: the expert's images alone. ``crowd_mixed``: both, as they are. ``paper``: our
reconstruction of the source paper's plain procedure. ``graded``: ours. ``truth``: the ceiling, whatever the
noise."""
