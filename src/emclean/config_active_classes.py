"""Every key of ``pipelines/active_clean.py`` for classes: type, range, default; what cannot work together."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from emclean.config_classes import (
    NEED_TRUSTED,
    Classifier,
    ClassMethod,
    ClassTestData,
    ClassTrainData,
)
from emclean.config_faults import service_faults
from emclean.config_keys import ActiveKeys, Budget, Expert, Section


class ActiveSimulated(Section):
    """The simulated particles used without ``data.pool.images``; a share ``error`` of the labels is wrong."""

    pool: int = Field(200, ge=20)
    test: int = Field(100, ge=1)
    size: int = Field(64, ge=32)
    population: Literal["ideal", "practical"] = "ideal"
    error: float = Field(0.25, ge=0, le=1)


class ActiveClassData(Section):
    """Where pictures and labels come from, and what all pictures become."""

    pool: ClassTrainData = ClassTrainData()
    test: ClassTestData = ClassTestData()
    simulate: ActiveSimulated = ActiveSimulated()
    side: int | None = Field(None, ge=16)
    colour: bool = False


class ClassExpert(Expert):
    """Who answers. The simulated expert names a wrong class in a share ``miss`` of the pictures.

    ``count`` experts share the work; ``misses`` are the simulated ones' own shares of wrong answers, in place
    of ``miss``. ``truth`` is a label file of the same pictures, ``truth_column`` its column.
    """

    count: int = Field(1, ge=1, le=20)
    misses: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    truth_column: str = "label"

    @property
    def slips(self) -> tuple[float, ...]:
        """How often each of the simulated experts names a wrong class."""
        return self.misses or (self.miss,) * self.count


NO_SHARE = 100.0
"""The share of the full cost that never binds: what a budget in labels alone has."""


class ClassBudget(Budget):
    """As for boxes; a picture's class is told in seconds, so that round 0 has more of them.

    ``labels`` is the most answers that may be asked for, each expert's counted. Of all that is set the
    strictest binds; with ``labels`` alone the share does not. ``second_looks``: whether ``activelab`` may ask
    another expert about an answered picture.
    """

    seed_images: int = Field(20, ge=2)
    share_of_full: float = Field(0.2, gt=0, le=NO_SHARE)
    labels: int | None = Field(None, ge=2)
    second_looks: bool = True

    @model_validator(mode="before")
    @classmethod
    def _labels_alone(cls, given: Any) -> Any:
        """Labels without share and minutes are the whole budget; the share that then stands is recorded."""
        if isinstance(given, Mapping) and given.get("labels") is not None:
            if given.get("minutes") is None and "share_of_full" not in given:
                return {**given, "share_of_full": NO_SHARE}
        return given


class ActiveClassifier(Classifier):
    """The network and its training.

    ``method`` says how it learns from labels of which some are wrong. ``steps`` are those of the two models
    that judge each other's pictures, ``final_steps`` those of the model that is served, of floor and ceiling.
    """

    method: ClassMethod = "elr"
    final_steps: int = Field(600, ge=1)
    trusted_share: float = Field(0.25, ge=0, lt=1)
    use_gpu: bool = False


class ActiveClasses(ActiveKeys):
    """The configuration of the active loop over classes; without any further key it runs on simulated
    particles.

    ``mirror``: the mirror image of every picture is of the other class.
    """

    task: Literal["classes"] = "classes"
    data: ActiveClassData = ActiveClassData()
    mirror: bool | None = None
    expert: ClassExpert = ClassExpert()
    budget: ClassBudget = ClassBudget()
    classifier: ActiveClassifier = ActiveClassifier()
    strategy: Literal["random", "uncertainty", "cross_entropy", "activelab"] = "cross_entropy"

    @property
    def is_mirrored(self) -> bool:
        """Whether pictures are mirrored: simulated ones are, unless told otherwise."""
        return self.data.pool.images is None if self.mirror is None else self.mirror

    @property
    def labellers(self) -> tuple[str, ...]:
        """The columns of all who labelled the pool: the first one, then the others."""
        return tuple(dict.fromkeys((self.data.pool.label_column, *self.data.pool.crowd)))


ACTIVE_CLASS_PATHS = (
    "data.pool.images",
    "data.pool.labels",
    "data.test.images",
    "data.test.labels",
    "expert.truth",
)
"""What must be there; a URI is asked only when it is read."""

Faults = tuple[tuple[object, str], ...]


def active_class_faults(config: ActiveClasses) -> list[str]:
    """Combinations of keys that cannot work together, and what can be named but is not there yet."""
    groups = (_data_faults, _expert_faults, _budget_faults, _classifier_faults)
    table = [row for faults in groups for row in faults(config)]
    return [fault for broken, fault in table if broken] + service_faults(config)


def _data_faults(config: ActiveClasses) -> Faults:
    pool, test, mirror = config.data.pool, config.data.test, config.is_mirrored
    own = bool(pool.images)
    return (
        (own and not pool.labels, "data.pool.labels: needed with data.pool.images (CSV: image,label)"),
        (pool.labels and not own, "data.pool.images: needed with data.pool.labels"),
        (
            test.images and not test.labels,
            "data.test.labels: needed with data.test.images (CSV: image,label)",
        ),
        (test.labels and not test.images, "data.test.images: needed with data.test.labels"),
        (
            test.images and test.labels and not own,
            "data.test.images: simulated particles bring their own test set; leave data.test out, or give "
            "data.pool.images",
        ),
        (len(pool.classes) == 1, "data.pool.classes: give two or more, or none for all"),
        (mirror and len(pool.classes) > 2, "data.pool.classes: with mirror there are two classes"),
        (len(set(pool.classes)) < len(pool.classes), "data.pool.classes: a value stands there twice"),
        (not own and pool.classes, "data.pool.classes: only with data.pool.images"),
        (not own and pool.crowd, "data.pool.crowd: only with data.pool.images"),
    )


def _expert_faults(config: ActiveClasses) -> Faults:
    own, expert = bool(config.data.pool.images), config.expert
    people = expert.kind == "label_studio"
    untold = own and not expert.truth
    return (
        (
            untold and not people,
            "expert.truth: the simulated expert needs a label file (CSV: image,label) for your own pictures; "
            "for people who answer in Label Studio give expert.kind=label_studio",
        ),
        (
            expert.truth and not own,
            "expert.truth: simulated particles bring their own truth; leave it out, or give data.pool.images",
        ),
        (expert.jitter, "expert.jitter: for boxes; a class has no place. expert.miss names a wrong class"),
        (config.baselines and untold and people, "baselines: the full-expert ceiling needs expert.truth"),
        (
            people and config.label_service == "in_process",
            "label_service: people answer in Label Studio; use label_service=label_studio",
        ),
    )


def _budget_faults(config: ActiveClasses) -> Faults:
    budget, expert = config.budget, config.expert
    return (
        (
            expert.misses and expert.kind == "label_studio",
            "expert.misses: for simulated experts; people's accuracy is estimated",
        ),
        (
            expert.misses and len(expert.misses) != expert.count,
            f"expert.misses: {len(expert.misses)} shares for expert.count={expert.count}; give one for each",
        ),
        (
            budget.share_of_full > 1 and expert.count == 1 and budget.labels is None,
            "budget.share_of_full: more than 1 needs several experts (expert.count)",
        ),
    )


def _classifier_faults(config: ActiveClasses) -> Faults:
    wanted, mirror = config.classifier, config.is_mirrored
    return (
        (
            wanted.mirror_head and not mirror,
            "classifier.mirror_head: only where the mirror image is the other class (mirror=true)",
        ),
        (wanted.flip and mirror, "classifier.flip: a mirrored picture is of the other class (mirror=true)"),
        (wanted.zoom[0] > wanted.zoom[1], "classifier.zoom: the first must not be above the second"),
        (
            wanted.method in NEED_TRUSTED,
            f"classifier.method: {wanted.method!r} needs trusted labels, and round 0 begins without any",
        ),
    )
