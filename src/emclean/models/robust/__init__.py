"""Learning classes from noisy labels: one file a method, behind ``fit``.

``fit(method, task, hooks, judge)`` trains; ``steps`` says how many steps that takes; ``crossfit`` gives
out-of-sample probabilities of the training pictures, which several methods can share.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

import torch

from emclean.models.classifiers.spec import ClassRecipe, ClassResult, ClassTask, require
from emclean.models.hooks import Hooks, LocalHooks
from emclean.models.robust.base import Judge, Method, Options, Stage
from emclean.models.robust.co_teaching import CoTeaching
from emclean.models.robust.co_teaching_plus import CoTeachingPlus
from emclean.models.robust.confident import Confident
from emclean.models.robust.cross_entropy import CrossEntropy
from emclean.models.robust.crossfit import CrossFit
from emclean.models.robust.dividemix import DivideMix
from emclean.models.robust.early_stopping import EarlyStopping
from emclean.models.robust.elr import EarlyLearning
from emclean.models.robust.forward import ForwardCorrection
from emclean.models.robust.gce import GeneralisedCrossEntropy
from emclean.models.robust.jocor import JoCoR
from emclean.models.robust.label_smoothing import LabelSmoothing
from emclean.models.robust.loop import Training
from emclean.models.robust.sam import SharpnessAware
from emclean.models.robust.sce import SymmetricCrossEntropy
from emclean.models.robust.storage import finished
from emclean.models.robust.two_step import TwoStep

__all__ = ["METHODS", "Judge", "Method", "crossfit", "fit", "steps"]

_ALL: tuple[Method, ...] = (
    CrossEntropy(),
    EarlyStopping(),
    LabelSmoothing(),
    GeneralisedCrossEntropy(),
    SymmetricCrossEntropy(),
    ForwardCorrection(),
    EarlyLearning(),
    SharpnessAware(),
    TwoStep(),
    Confident(),
    CoTeaching(),
    CoTeachingPlus(),
    JoCoR(),
    DivideMix(),
)

METHODS: Mapping[str, Method] = MappingProxyType({method.name: method for method in _ALL})
"""The methods by name, each as its file is called."""


def fit(method: str, task: ClassTask, hooks: Hooks | None = None, judge: Judge | None = None) -> ClassResult:
    """Train by this method, or return the result that the task's folder already holds for the same task.

    ``judge`` is asked by methods that need the error rate or suspect labels and were not given them. Raises
    ``ValueError`` where a method lacks what it needs, ``TrainingError`` when the loss is no longer finite.
    """
    require(method in METHODS, "method", f"one of {', '.join(sorted(METHODS))}", method)
    return _fit(METHODS[method], task, hooks, judge)


def crossfit(task: ClassTask, hooks: Hooks | None = None) -> ClassResult:
    """Train one network per fold of particles; the result's ``probabilities`` are out-of-sample.

    As ``ClassTask.probabilities`` they serve every method that would otherwise make its own. The weights
    are those of the last fold.
    """
    return _fit(CrossFit(), replace(task, probabilities=None, options={}), hooks, None)


def steps(
    method: str, recipe: ClassRecipe, options: Options | None = None, cross_fitted: bool = False
) -> int:
    """How many steps a fit takes at most; ``cross_fitted``: with a cross-fit of its own before."""
    chosen = METHODS[method]
    return sum(stage.steps for _, stage in _plan(chosen, recipe, options or {}, cross_fitted))


def _fit(method: Method, task: ClassTask, hooks: Hooks | None, judge: Judge | None) -> ClassResult:
    hooks = hooks or LocalHooks(task.out)
    require(
        hooks.world_size == 1, "world_size", "1, for a classifier trains in one process", hooks.world_size
    )
    asks = method.needs_suspects or (method.needs_rate and task.noise_rate is None)
    _check(method, task, asks, judge)
    digest = _digest(method, task, judge if asks else None)
    known = finished(task.out, digest)
    if known is not None:
        return known
    plan = _plan(method, task.recipe, task.options, asks and task.probabilities is None)
    devices = [hooks.device.index or 0] if hooks.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        return Training(plan, task, hooks, judge, digest).run()


def _check(method: Method, task: ClassTask, asks: bool, judge: Judge | None) -> None:
    unknown = sorted(set(task.options) - set(method.options))
    known = ", ".join(method.options) or "none"
    require(not unknown, f"options of {method.name}", known, unknown)
    if asks and judge is None:
        raise ValueError(f"judge: {method.name} needs one to judge the labels; give it, or noise_rate")
    if method.needs_trusted and not len(task.trusted_rows):
        raise ValueError(f"trusted_rows: {method.name} begins with trusted labels, and there are none")


def _plan(
    method: Method, recipe: ClassRecipe, options: Options, cross_fitted: bool
) -> list[tuple[Method, Stage]]:
    first: list[tuple[Method, Stage]] = []
    if cross_fitted:
        cross = CrossFit()
        first = [(cross, stage) for stage in cross.stages(recipe, {})]
    return first + [(method, stage) for stage in method.stages(recipe, {**method.options, **options})]


def _digest(method: Method, task: ClassTask, judge: Judge | None) -> str:
    text = f"{method.name}\n{task.digest()}\n{judge!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
