"""Training classifiers in the loop: which pictures with which labels, and where results are kept."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from emclean.config import ActiveClasses
from emclean.errors import DataError
from emclean.loop.classes.sets import ClassSet
from emclean.loop.job import Job
from emclean.models import robust
from emclean.models.classifiers.fits import ClassFit
from emclean.models.classifiers.spec import ClassifierSpec, ClassRecipe, ClassResult, ClassTask
from emclean.models.robust.presets import preset
from emclean.report.text import plural
from emclean.types import Ints

VALIDATION_SHARE = 0.1
"""The share of the pictures whose labels, wrong ones and all, choose among a training's weights."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """The pictures of a run: a set, and where in it the rows of each image are (mirror images behind it)."""

    given: ClassSet

    @cached_property
    def _place(self) -> Mapping[str, int]:
        return {name: k for k, name in enumerate(self.given.ids)}

    def places(self, ids: Sequence[str]) -> Ints:
        """Where the pictures themselves stand in the set ``[n]``, without mirror images."""
        return np.array([self._place[i] for i in ids], np.int64)

    def mirrors(self, ids: Sequence[str]) -> Ints:
        """Where their mirror images stand; none where the set has none."""
        return self.places([f"{i}'" for i in ids]) if self.given.mirrored else np.zeros(0, np.int64)

    def labelled(self, labels: Mapping[str, int]) -> tuple[Ints, Ints]:
        """Where these pictures and their mirror images stand, and their labels: the other class for a mirror
        image."""
        ids = sorted(labels)
        own = np.array([labels[i] for i in ids], np.int64)
        places = np.concatenate([self.places(ids), self.mirrors(ids)])
        both = np.concatenate([own, 1 - own]) if self.given.mirrored else own
        return places, both


@dataclass(frozen=True)
class Training:
    """One training: a ``role`` for people, noisy ``labels`` by image, and those that an expert gave.

    A picture may be in both; the expert's word then counts.
    """

    role: str
    labels: Mapping[str, int]
    steps: int
    seed: int
    trusted: Mapping[str, int] = field(default_factory=dict)


def fit(
    job: Job, settings: ActiveClasses, given: ClassSet, trainings: Sequence[Training]
) -> list[ClassResult]:
    """Train side by side; what was trained before, by its content, is not trained again."""
    pictures = Pictures(given)
    fits = [_named(job, class_fit(job, settings, pictures, training)) for training in trainings]
    names = ", ".join(f"{t.role} ({plural(len({*t.labels, *t.trusted}), 'picture')})" for t in trainings)
    with job.parts.console.stage(f"training {names}") as progress:
        try:
            results = job.parts.compute.fit_classes(fits, progress)
        except ValueError as error:  # what a method cannot work with, for instance a class without a label
            where = f"classifier.method {settings.classifier.method}"
            fix = "Use another method, or ask about more pictures."
            raise DataError(f"these labels cannot be learnt from ({error})", where, fix) from error
    for training, result in zip(trainings, results, strict=True):
        job.parts.console.say(f"  {training.role}: {_outcome(result)}")
    return results


def class_fit(job: Job, settings: ActiveClasses, pictures: Pictures, training: Training) -> ClassFit:
    """The training as the methods want it."""
    wanted, known = settings.classifier, preset("fair", settings.classifier.method)
    held = _validation(job, training)
    use = {i: label for i, label in training.labels.items() if i not in held}
    use.update({i: label for i, label in training.trusted.items() if i not in use})
    given = pictures.given
    places, labels = pictures.labelled(use)
    checks, check_labels = pictures.labelled({i: training.labels[i] for i in held})
    trusted, trusted_labels = pictures.labelled(training.trusted)
    recipe = replace(
        known.recipe,
        steps=training.steps,
        batch=wanted.batch,
        lr=wanted.lr,
        rotate=wanted.rotate,
        zoom=wanted.zoom,
        half_turns=wanted.half_turns,
        flip=wanted.flip,
        shift=wanted.shift,
        eval_every=min(wanted.eval_every, training.steps),
        trusted_share=wanted.trusted_share,
    )
    task = ClassTask(
        given.pictures,
        given.rows[places],
        labels,
        given.pairs[places],
        given.rows[checks],
        check_labels,
        given.rows[trusted],
        trusted_labels,
        spec=spec_of(settings, len(given.classes)),
        recipe=recipe,
        seed=training.seed,
        out=str(job.workspace / "models" / "unnamed"),
        options=dict(known.options),
        groups=given.groups[places],
    )
    return ClassFit(wanted.method, task, most_steps(wanted.method, recipe))


def spec_of(settings: ActiveClasses, n_classes: int) -> ClassifierSpec:
    """The network that the settings ask for."""
    wanted = settings.classifier
    channels = 3 if settings.data.colour else 1
    return ClassifierSpec(wanted.family, n_classes, wanted.size, channels, wanted.mirror_head)


def most_steps(method: str, recipe: ClassRecipe) -> int:
    """The steps that a training takes at most, with those of the cross-fit by which it judges labels."""
    chosen = robust.METHODS[method]
    return robust.steps(method, recipe, cross_fitted=chosen.needs_rate or chosen.needs_suspects)


def _validation(job: Job, training: Training) -> set[str]:
    """Pictures that choose among the weights: whole groups, none whose label an expert gave.

    The draw is the same in every round, so that rounds differ by their labels alone.
    """
    members: dict[str, list[str]] = {}
    for i in job.data.ids():
        members.setdefault(job.data.record(i).group or i, []).append(i)
    names, held = sorted(members), set[str]()
    for place in job.rng("validation part").permutation(len(names)):
        mine = members[names[int(place)]]
        if len(held) >= VALIDATION_SHARE * len(training.labels):
            break
        if not training.trusted.keys() & mine:
            held.update(training.labels.keys() & mine)
    return held if len(held) < len(training.labels) else set()


def _named(job: Job, fit_: ClassFit) -> ClassFit:
    return fit_.at(str(job.workspace / "models" / f"class-{fit_.digest()}"))


def _outcome(result: ClassResult) -> str:
    last = result.history[-1]
    met = "" if last.accuracy is None else f", meets {100 * last.accuracy:.1f} % of held-out labels as given"
    rate = "" if result.noise_rate is None else f", {100 * result.noise_rate:.0f} % of labels thought wrong"
    return f"{last.step} steps{met}{rate}"


def without(labels: Mapping[str, int], held: Collection[str]) -> dict[str, int]:
    """The labels less those of some pictures."""
    return {i: label for i, label in labels.items() if i not in held}
