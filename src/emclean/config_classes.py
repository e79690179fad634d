"""Every key of ``pipelines/noise_grid.py`` for classes: type, range, default; what cannot work together."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from emclean.config_faults import mlflow_faults
from emclean.config_grid import GridKeys, Rate, list_faults
from emclean.config_keys import Section

ClassMethod = Literal[
    "cross_entropy", "early_stopping", "label_smoothing", "gce", "sce", "forward", "elr", "two_step",
    "co_teaching", "co_teaching_plus", "jocor", "confident", "dividemix", "sam",
]  # fmt: skip
"""The methods of learning classes from noisy labels; each is an entry of ``models.robust.METHODS``."""

Contestant = Literal[ClassMethod, "low_rate", "no_average"]
"""What a grid compares: the methods, and the controls of a fair grid."""

NEED_TRUSTED: tuple[ClassMethod, ...] = ("two_step",)
"""The methods that begin with trusted labels."""

ClassNoise = Literal["pair", "independent", "crowd"]
"""The noises of a grid over classes: particles wrong as a whole, pictures one by one, real labellers."""

CROWD: ClassNoise = "crowd"

Name = Annotated[str, BeforeValidator(lambda given: str(given) if type(given) is int else given)]
"""A class or column, which YAML may take for a number."""


class ClassTestData(Section):
    """Pictures of classes: a folder (or URI), or one sheet of tiles of ``tile`` px; and their label file.

    ``label_column`` and ``group_column`` name the columns of the file.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    images: str | None = None
    labels: str | None = None
    tile: int | None = Field(None, ge=8)
    label_column: str = "label"
    group_column: str = "group"


class ClassTrainData(ClassTestData):
    """Pictures to learn from; ``crowd`` names the columns of further labellers, ``classes`` those to take."""

    crowd: tuple[Name, ...] = ()
    classes: tuple[Name, ...] = ()


class ClassSimulated(Section):
    """The simulated particles used when ``data.train.images`` is not set."""

    particles: int = Field(400, ge=20)
    size: int = Field(64, ge=32)
    seed: int = Field(0, ge=0)
    population: Literal["ideal", "practical"] = "ideal"


class ClassData(Section):
    """Where pictures and labels come from, and what all pictures become."""

    train: ClassTrainData = ClassTrainData()
    test: ClassTestData = ClassTestData()
    simulate: ClassSimulated = ClassSimulated()
    side: int | None = Field(None, ge=16)
    colour: bool = False


class Classifier(Section):
    """A network, its training, and how pictures are varied in it."""

    family: Literal["compact", "basic", "pooled"] = "compact"
    size: int = Field(64, ge=16, multiple_of=16)
    steps: int = Field(400, ge=1)
    batch: int = Field(64, ge=1)
    lr: float = Field(2e-3, gt=0)
    eval_every: int = Field(50, ge=1)
    mirror_head: bool = False
    rotate: float = Field(5.0, ge=0, le=180)
    zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (0.7, 1.3)
    shift: float = Field(0.0, ge=0, le=0.5)
    half_turns: bool = True
    flip: bool = False


class GridClassifier(Section):
    """What every cell has in place of what its preset says; none: the preset's."""

    family: Literal["compact", "basic", "pooled"] | None = None
    size: int | None = Field(None, ge=16, multiple_of=16)
    steps: int | None = Field(None, ge=1)
    batch: int | None = Field(None, ge=1)
    lr: float | None = Field(None, gt=0)
    eval_every: int | None = Field(None, ge=1)
    trusted_share: float | None = Field(None, ge=0, lt=1)
    mirror_head: bool = False
    rotate: float | None = Field(None, ge=0, le=180)
    zoom: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    shift: float | None = Field(None, ge=0, le=0.5)
    half_turns: bool | None = None
    flip: bool | None = None


class ClassGrid(GridKeys):
    """The configuration of a grid over classes; without any further key it runs on simulated particles.

    ``mirror``: the mirror image of every picture is of the other class. ``trusted_pairs`` particles have
    labels from an expert, for the methods that need such (``trusted_to_all``: for every method). ``own_rate``
    is the share of wrong labels that you expect in your own, for the recommendation.
    """

    task: Literal["classes"] = "classes"
    data: ClassData = ClassData()
    mirror: bool | None = None
    methods: tuple[Contestant, ...] = ("cross_entropy", "two_step", "co_teaching")
    noise: tuple[ClassNoise, ...] = ("pair",)
    rates: tuple[Rate, ...] = (0.0, 0.1, 0.2, 0.3, 0.4, 0.46)
    trusted_pairs: int = Field(20, ge=0)
    trusted_to_all: bool = False
    own_rate: float | None = Field(None, ge=0, le=1)
    classifier: GridClassifier = GridClassifier()

    @property
    def is_mirrored(self) -> bool:
        """Whether pictures are mirrored: simulated ones are, unless told otherwise."""
        return self.data.train.images is None if self.mirror is None else self.mirror


CLASS_PATHS = tuple(f"data.{part}.{name}" for part in ("train", "test") for name in ("images", "labels"))
"""What must be there; a URI is asked only when it is read."""

OF_FAITHFUL = frozenset({"steps", "batch", "size", "eval_every"})
"""The keys of ``classifier`` by which a faithful grid may be made smaller."""

FAITHFUL: tuple[ClassMethod, ...] = ("cross_entropy", "two_step", "co_teaching")
"""The source's methods."""


def class_faults(config: ClassGrid) -> list[str]:
    """Combinations of keys that cannot work together."""
    table = (*_data_faults(config), *_noise_faults(config), *_method_faults(config))
    return [
        *(fault for broken, fault in table if broken),
        *list_faults(config.methods, config.noise, config.rates, config.seeds),
        *mlflow_faults(config.services.mlflow),
    ]


Faults = tuple[tuple[object, str], ...]


def _data_faults(config: ClassGrid) -> Faults:
    train, test, mirror = config.data.train, config.data.test, config.is_mirrored
    own = bool(train.images)
    return (
        (own and not train.labels, "data.train.labels: needed with data.train.images (CSV: image,label)"),
        (train.labels and not own, "data.train.images: needed with data.train.labels"),
        (
            test.images and not test.labels,
            "data.test.labels: needed with data.test.images (CSV: image,label)",
        ),
        (test.labels and not test.images, "data.test.images: needed with data.test.labels"),
        (
            test.images and test.labels and not (own or train.labels),
            "data.test.images: simulated particles bring their own test set; leave data.test out, or give "
            "data.train.images",
        ),
        (len(train.classes) == 1, "data.train.classes: give two or more, or none for all"),
        (mirror and len(train.classes) > 2, "data.train.classes: with mirror there are two classes"),
        (len(set(train.classes)) < len(train.classes), "data.train.classes: a value stands there twice"),
        (not own and train.classes, "data.train.classes: only with data.train.images"),
    )


def _noise_faults(config: ClassGrid) -> Faults:
    noises, train, mirror = config.noise, config.data.train, config.is_mirrored
    planted = [noise for noise in noises if noise != CROWD]
    return (
        (
            CROWD in noises and not train.crowd,
            "data.train.crowd: needed with noise 'crowd': columns of votes",
        ),
        (train.crowd and CROWD not in noises, "data.train.crowd: only with 'crowd' among noise"),
        (
            not mirror and {"pair", "independent"} <= set(noises),
            "noise: 'pair' and 'independent' differ only with mirror=true; give one of them",
        ),
        (
            noises and not planted and "rates" in config.model_fields_set,
            "rates: have no meaning with noise 'crowd' alone, whose rate is what it is",
        ),
    )


def _method_faults(config: ClassGrid) -> Faults:
    wanted, methods, mirror = config.classifier, config.methods, config.is_mirrored
    needing = [method for method in methods if method in NEED_TRUSTED]
    return (
        *(_faithful_faults(config) if config.preset == "faithful" else ()),
        (
            needing and not config.trusted_pairs,
            f"trusted_pairs: {', '.join(needing)} needs trusted labels; give at least 1",
        ),
        (config.trusted_to_all and not config.trusted_pairs, "trusted_to_all: there are no trusted_pairs"),
        (
            wanted.mirror_head and not mirror,
            "classifier.mirror_head: only where the mirror image is the other class (mirror=true)",
        ),
        (wanted.flip and mirror, "classifier.flip: a mirrored picture is of the other class (mirror=true)"),
        (
            wanted.zoom and wanted.zoom[0] > wanted.zoom[1],
            "classifier.zoom: the first must not be above the second",
        ),
    )


def _faithful_faults(config: ClassGrid) -> Faults:
    others = [method for method in config.methods if method not in FAITHFUL]
    own = sorted(config.classifier.model_fields_set - OF_FAITHFUL)
    return (
        *((True, f"classifier.{name}: the preset 'faithful' has its own; leave it out") for name in own),
        (others, f"methods: {', '.join(others)}: the preset 'faithful' has only {', '.join(FAITHFUL)}"),
    )
