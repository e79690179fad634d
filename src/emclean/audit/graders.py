"""Who judges which image: rules without truth, else calibrators that have not seen the image's own truth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from emclean.audit.judging import pieces
from emclean.audit.settings import Settings
from emclean.audit.sources import Sources
from emclean.science.grading import Evidence
from emclean.science.grading.grade import Grader
from emclean.stores.formats.coco import Key
from emclean.types import Grade, Labels

FOLDS = 3
"""Images that calibrate are judged by one of so many further calibrators, fitted to the others' truth."""

ENOUGH = 10_000
"""Labels and objects with truth that calibrate; more would take long and teach little."""


@dataclass(frozen=True)
class Judge:
    """A grader (None: rules), and from which probability each kind of error may be corrected unasked."""

    grader: Grader | None = None
    limits: Mapping[Grade, float] = field(default_factory=dict)

    @property
    def calibrated(self) -> bool:
        """Whether its probabilities were fitted to a truth."""
        return self.grader is not None and self.grader.calibrated


@dataclass(frozen=True)
class Graders:
    """``whole`` judges the images that did not calibrate; ``folds`` those that did, by ``fold_of`` each."""

    whole: Judge = field(default_factory=Judge)
    folds: tuple[Judge, ...] = ()
    fold_of: Mapping[Key, int] = field(default_factory=dict)

    def of(self, image: Key) -> Judge:
        """Who judges an image."""
        return self.folds[self.fold_of[image]] if image in self.fold_of else self.whole


class _Lesson(NamedTuple):
    """One image (or piece of a crowded one) to calibrate with."""

    fold: int
    evidence: Evidence
    truth: Labels


def graders(sources: Sources, settings: Settings) -> Graders:
    """Fit the calibrators to the images that the truth file covers, or to a random part of them."""
    if not sources.truths:
        return Graders()
    rng = np.random.default_rng(settings.seed)
    keys = list(sources.truths)
    fold_of: dict[Key, int] = {}
    lessons: list[_Lesson] = []
    size = 0
    for i in rng.permutation(len(keys)):
        if size >= ENOUGH:
            break
        fold = len(fold_of) % FOLDS
        evidence, truth = sources.again(keys[i], settings.confident).evidence, sources.true_labels(keys[i])
        lessons += [_Lesson(fold, *piece) for piece in pieces(evidence, truth)]
        fold_of[keys[i]] = fold
        size += len(evidence.labels) + len(truth)
    whole = _judge(lessons, settings, rng)
    folds = [_judge([x for x in lessons if x.fold != k], settings, rng) for k in range(FOLDS)]
    return Graders(whole, tuple(folds), fold_of)


def _judge(lessons: Sequence[_Lesson], settings: Settings, rng: np.random.Generator) -> Judge:
    from emclean.science import calibration  # scikit-learn takes a second to come, and only a truth needs it

    evidences, truths = [x.evidence for x in lessons], [x.truth for x in lessons]
    calibrator = calibration.fit(evidences, truths, rng)
    return Judge(calibrator, calibration.thresholds(calibrator.observations, settings.precision))
