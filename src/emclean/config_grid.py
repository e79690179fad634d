"""Every key of ``pipelines/noise_grid.py`` for boxes: type, range, default; what cannot work together."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from emclean.config_faults import detector_faults, mlflow_faults
from emclean.config_keys import Detector, JobKeys, Section

GridMethod = Literal["crowd", "oa_mil", "expert_only", "crowd_mixed", "paper", "graded", "truth"]
"""What a grid over boxes compares; each is an entry of ``loop.grid.boxes.methods.METHODS``."""

GridNoise = Literal[
    "missed", "shifted", "merged", "spurious", "mislabelled", "duplicate", "mixed", "una"
]  # fmt: skip
"""The noises of a grid: each kind alone, all kinds alike, or Universal Noise Annotation."""

Rate = Annotated[float, Field(ge=0, le=1)]

MOST_UNA = 0.5
"""The largest ratio of the recipe ``una``."""


class TrainData(Section):
    """The pictures to learn from: with their truth (boxes), or with their labels (classes)."""

    images: str | None = None
    truth: str | None = None
    labels: str | None = None


class GridTestData(TrainData):
    """Held-out pictures: they only report."""


class GridSimulated(Section):
    """The simulated pictures used when ``data.train.images`` is not set."""

    train: int = Field(48, ge=4)
    test: int = Field(24, ge=1)
    size: int = Field(256, ge=64)
    seed: int = Field(0, ge=0)


class GridData(Section):
    """Where pictures and labels come from."""

    train: TrainData = TrainData()
    test: GridTestData = GridTestData()
    simulate: GridSimulated = GridSimulated()


class GridServices(Section):
    """Addresses of the neighbours; what is not given is taken from ``emclean up`` in the workspace."""

    mlflow: str | None = None


class GridKeys(JobKeys):
    """The keys of every grid: a cell is one method, noise, rate and seed.

    ``concurrent`` bounds the cells at work at once, ``gpu_per_cell`` is the share of a GPU that each takes.
    """

    prefix = "grid"
    neutral = ("services", "compute", "concurrent", "gpu_per_cell")

    seeds: tuple[Annotated[int, Field(ge=0)], ...] = (0,)
    preset: Literal["fair", "faithful"] = "fair"
    compute: Literal["ray", "inline"] = "ray"
    concurrent: int | None = Field(None, ge=1)
    gpu_per_cell: float = Field(0.0, ge=0, le=1)
    services: GridServices = GridServices()


class NoiseGrid(GridKeys):
    """The configuration of a grid over boxes; without any key it runs on simulated pictures.

    ``expert_images`` trusted pictures are known to the methods that ask an expert.
    """

    data: GridData = GridData()
    mirror: bool | None = None
    methods: tuple[GridMethod, ...] = ("crowd", "expert_only", "graded")
    noise: tuple[GridNoise, ...] = ("mixed",)
    rates: tuple[Rate, ...] = (0.2, 0.4)
    expert_images: int = Field(5, ge=2)
    detector: Detector = Detector()


GRID_PATHS = tuple(
    f"data.{part}.{name}" for part in ("train", "test") for name in ("images", "truth", "labels")
)
"""What must be there; a URI is asked only when it is read."""

NOT_OF_A_GRID = ("baseline_steps", "patience", "workers", "use_gpu")
"""Keys of ``detector`` that a cell has no use for."""


def grid_faults(config: NoiseGrid) -> list[str]:
    """Combinations of keys that cannot work together, and what can be named but is not there yet."""
    return [
        *_box_faults(config),
        *list_faults(config.methods, config.noise, config.rates, config.seeds),
        *_una_faults(config),
        *_detector_faults(config.detector),
        *mlflow_faults(config.services.mlflow),
    ]


def _box_faults(config: NoiseGrid) -> list[str]:
    train, test = config.data.train, config.data.test
    table = (
        (train.labels, "data.train.labels: for task=classes; boxes take data.train.truth (COCO JSON)"),
        (test.labels, "data.test.labels: for task=classes; boxes take data.test.truth (COCO JSON)"),
        (config.mirror is not None, "mirror: for task=classes; leave it out"),
        (config.preset == "faithful", "preset: 'faithful' is for task=classes; use 'fair'"),
        (train.images and not train.truth, "data.train.truth: needed with data.train.images (COCO JSON)"),
        (train.truth and not train.images, "data.train.images: needed with data.train.truth"),
        (train.images and not test.images, "data.test.images: needed with data.train.images"),
        (test.images and not test.truth, "data.test.truth: needed with data.test.images (COCO JSON)"),
        (test.truth and not test.images, "data.test.images: needed with data.test.truth"),
        (
            test.images and test.truth and not train.images,
            "data.test.images: simulated pictures bring their own test set; leave data.test out, or give "
            "data.train.images",
        ),
    )
    return [fault for broken, fault in table if broken]


def list_faults(*given: Collection[object]) -> list[str]:
    """Lists of methods, noises, rates and seeds that are empty or name something twice."""
    axes = dict(zip(("methods", "noise", "rates", "seeds"), given, strict=True))
    none = [f"{name}: empty; give at least one" for name, values in axes.items() if not values]
    twice = [f"{name}: a value stands there twice" for name, v in axes.items() if len(set(v)) < len(v)]
    return none + twice


def _una_faults(config: NoiseGrid) -> list[str]:
    high = [rate for rate in dict.fromkeys(config.rates) if rate > MOST_UNA and "una" in config.noise]
    return [f"rates: 'una' takes at most {MOST_UNA}, got {rate:g}" for rate in high]


def _detector_faults(detector: Detector) -> list[str]:
    given = [name for name in NOT_OF_A_GRID if name in detector.model_fields_set]
    return detector_faults(detector) + [f"detector.{name}: has no meaning in a grid" for name in given]
