"""Every key of the configuration: its type, its range, its default."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidatorFunctionWrapHandler, field_validator

NoisePreset = Literal["expert_raters", "una", "crowd"]
"""The presets of planted crowd errors."""

Family = Literal[
    "compact", "fcos_resnet18", "fcos_resnet34", "fcos_resnet50", "retinanet_resnet18", "retinanet_resnet34",
    "retinanet_resnet50", "ssdlite", "fasterrcnn_resnet18", "fasterrcnn_resnet50",
]  # fmt: skip
"""The detectors that can be built; the loop uses those that weigh labels."""

PRETRAINED = "pretrained"
"""The value of ``detector.init`` that means the shipped weights."""


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys and numbers that are not finite.

    Nor are ``true`` and ``false`` numbers, though Python counts them as 1 and 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="wrap")
    @classmethod
    def _no_switch_as_number(cls, value: Any, checked: ValidatorFunctionWrapHandler) -> Any:
        found = checked(value)
        pairs = zip(value, found, strict=True) if isinstance(found, tuple) else [(value, found)]
        if any(isinstance(given, bool) and not isinstance(made, bool) for given, made in pairs):
            raise ValueError("true and false are no numbers")
        return found


def plain_name(name: str | None) -> str | None:
    """A run names folders, a project and an experiment: nothing that any of them reads as more."""
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
        raise ValueError("not a plain name; use A-Z a-z 0-9 . _ -, at most 80, a letter or digit first")
    return name


class PoolData(Section):
    """The images to clean: a folder (or URI), and one or several files of crowd labels (COCO JSON or CSV)."""

    images: str | None = None
    crowd: str | tuple[str, ...] | None = None
    labels: str | None = None

    @field_validator("crowd", mode="before")
    @classmethod
    def _files(cls, given: Any) -> Any:
        files = given if isinstance(given, list | tuple) else [given]
        if given is not None and not (files and all(isinstance(file, str) for file in files)):
            raise ValueError("expected the path of a label file, or a list of them")
        return given


class TestData(Section):
    """Held-out images with trusted labels: they only report."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    images: str | None = None
    truth: str | None = None
    labels: str | None = None


class SimulatedData(Section):
    """The simulated pictures used when ``data.pool.images`` is not set."""

    pool: int = Field(64, ge=4)
    test: int = Field(32, ge=1)
    size: int = Field(256, ge=64)
    noise: NoisePreset = "crowd"


class Data(Section):
    """Where pictures and labels come from."""

    pool: PoolData = PoolData()
    test: TestData = TestData()
    simulate: SimulatedData = SimulatedData()


class Expert(Section):
    """Who answers: people in Label Studio, or a simulated expert with a truth file and set slips.

    A task that people had open for more than ``longest_task_s`` seconds was left open in a pause: it counts
    as that much.
    """

    kind: Literal["label_studio", "simulated"] = "simulated"
    truth: str | None = None
    miss: float = Field(0.0, ge=0, le=1)
    jitter: float = Field(0.0, ge=0, le=1)
    rubber_stamp: float = Field(0.0, ge=0, le=1)
    pace: float = Field(0.0, ge=0)
    longest_task_s: float = Field(1800.0, gt=0)


class Budget(Section):
    """How much of the expert's time may be spent.

    ``share_of_full`` is a fraction of the minutes that labelling the whole pool from nothing would cost;
    ``minutes``, where given, takes its place. ``rounds`` counts the rounds after the seed (round 0), which is
    ``seed_images`` drawn at random; None means as many as an equal share of the minutes pays for.
    ``random_share`` of every round's minutes buys images at random, for unbiased estimates, and
    ``blind_share`` of the tasks show no suggestion. With ``reviews`` the strategy ``gain`` may ask about some
    instances of an image instead of the whole.
    """

    share_of_full: float = Field(0.2, gt=0, le=1)
    minutes: float | None = Field(None, gt=0)
    rounds: int = Field(2, ge=0)
    seed_images: int | None = Field(None, ge=2)
    random_share: float = Field(0.15, ge=0, le=1)
    blind_share: float = Field(0.1, ge=0, le=1)
    reviews: bool = True
    min_gain_per_minute: float = Field(0.0, ge=0)


class CostSeconds(Section):
    """The stated cost model of the simulated expert, in seconds."""

    open_s: float = Field(5.0, ge=0)
    draw_s: float = Field(14.0, ge=0)
    move_s: float = Field(6.0, ge=0)
    verify_s: float = Field(2.0, ge=0)


class Detector(Section):
    """The detector and how long it trains.

    ``init`` is ``pretrained`` (the shipped weights), null (from scratch) or a local safetensors file.
    ``scales`` are the magnifications at which pictures are searched and trained on; empty means chosen from
    the size of the crowd's boxes. ``steps`` bounds every training within the loop, ``final_steps`` that of
    the model that is served, ``baseline_steps`` that of floor and ceiling; all end early after ``patience``
    evaluations on the validation part without gain. By default (0) none does: the learning rate falls over
    the whole schedule, and what is ended before its end has not converged.
    """

    family: Family = "compact"
    init: str | None = PRETRAINED
    scales: tuple[Annotated[float, Field(gt=0)], ...] = ()
    steps: int = Field(400, ge=1)
    final_steps: int = Field(800, ge=1)
    baseline_steps: int = Field(2000, ge=1)
    patience: int = Field(0, ge=0)
    eval_every: int = Field(100, ge=1)
    batch: int = Field(8, ge=1)
    crop: int = Field(256, ge=64, multiple_of=32)
    lr: float = Field(2e-3, gt=0)
    workers: int = Field(1, ge=1)
    use_gpu: bool = False


class Correction(Section):
    """When a label is corrected without asking."""

    precision: float = Field(0.95, gt=0, lt=1)


class Services(Section):
    """Addresses of the neighbours; what is not given is taken from ``emclean up`` in the workspace.

    With ``label_studio`` go ``label_studio_token_file`` (a personal access token, plain or as JSON ``token``)
    and ``label_studio_documents`` (the server's document root for local files, as this machine sees it;
    ``label_studio_documents_there``, where a server in a container sees it elsewhere).
    """

    label_studio: str | None = None
    label_studio_token_file: str | None = None
    label_studio_documents: str | None = None
    label_studio_documents_there: str | None = None
    mlflow: str | None = None
    serve_host: str = "127.0.0.1"
    serve_port: int = Field(8000, ge=0, le=65535)
    poll_s: float = Field(2.0, gt=0)
    timeout_s: float = Field(60.0, gt=0)


class JobKeys(Section):
    """What every job has: where it works, its name, and what is labelled.

    ``prefix`` begins a derived name; ``neutral`` are the settings that say where and how a run works, not
    what comes out.
    """

    prefix: ClassVar[str]
    neutral: ClassVar[tuple[str, ...]]

    workspace: str = "workspace"
    run: str | None = None
    task: Literal["boxes", "classes"] = "boxes"

    @field_validator("run")
    @classmethod
    def _plain(cls, name: str | None) -> str | None:
        return plain_name(name)

    def run_name(self) -> str:
        """The run's name: the given one, or one derived from everything that decides the result."""
        if self.run:
            return self.run
        facts = self.model_dump(mode="json", exclude={"workspace", "run", *self.neutral})
        return f"{self.prefix}-{hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]}"


class ActiveKeys(JobKeys):
    """The keys of ``pipelines/active_clean.py`` whatever is labelled."""

    prefix = "run"
    neutral = ("services", "wait", "compute", "serve", "tables")

    tables: str | None = None
    seed: int = Field(0, ge=0)
    expert: Expert = Expert()
    budget: Budget = Budget()
    cost: CostSeconds = CostSeconds()
    strategy: str
    correction: Literal["graded", "none", "expert_only"] = "graded"
    corrections: Correction = Correction()
    baselines: bool = False
    serve: bool = True
    label_service: Literal["label_studio", "in_process"] = "label_studio"
    compute: Literal["ray", "inline"] = "ray"
    wait: Literal["poll", "exit"] = "poll"
    services: Services = Services()

    def deciding(self) -> dict[str, Any]:
        """The settings that decide the result, by their full key; the data have digests of their own."""
        values = self.model_dump(mode="json", exclude={"workspace", "run", "data", *self.neutral})
        values["expert"].pop("truth")
        return dict(_flat(values))

    def digest(self) -> str:
        """A digest of the settings that decide the result."""
        return hashlib.sha256(json.dumps(self.deciding(), sort_keys=True).encode()).hexdigest()[:16]


class ActiveClean(ActiveKeys):
    """The configuration of the active loop over boxes; without any key it runs on simulated pictures."""

    data: Data = Data()
    detector: Detector = Detector()
    strategy: Literal[
        "random", "uncertainty", "discrepancy", "objectlab", "clod", "loss", "cross_entropy", "paper", "gain"
    ] = "discrepancy"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
