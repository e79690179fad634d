"""Configuration at the door: a YAML file and ``key=value`` overrides become one frozen, checked value.

Components never take a configuration; the entry hands them plain arguments. Every fault (unknown key, wrong
type, missing file) is collected and raised as one :class:`~emclean.errors.ConfigError`.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from emclean.errors import ConfigError

NoisePreset = Literal["expert_raters", "una", "crowd"]
"""The presets of planted crowd errors."""

Family = Literal[
    "compact", "fcos_resnet18", "fcos_resnet34", "fcos_resnet50", "retinanet_resnet18", "retinanet_resnet34",
    "retinanet_resnet50", "ssdlite", "fasterrcnn_resnet18", "fasterrcnn_resnet50",
]  # fmt: skip
"""The detectors that can be built; the loop uses those that :func:`detector_faults` lets through."""

PRETRAINED = "pretrained"
"""The value of ``detector.init`` that means the shipped weights."""


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PoolData(Section):
    """The images to clean: a folder (or URI) and their crowd labels (COCO JSON or CSV)."""

    images: str | None = None
    crowd: str | None = None


class TestData(Section):
    """Held-out images with trusted labels: they only report."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    images: str | None = None
    truth: str | None = None


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
    ``minutes``, where given, takes its place. ``rounds`` counts the rounds after the seed (round 0).
    ``random_share`` of every round's minutes buys images at random, for unbiased estimates, and
    ``blind_share`` of the tasks show no suggestion.
    """

    share_of_full: float = Field(0.2, gt=0, le=1)
    minutes: float | None = Field(None, gt=0)
    rounds: int = Field(2, ge=0)
    seed_images: int = Field(6, ge=2)
    random_share: float = Field(0.15, ge=0, le=1)
    blind_share: float = Field(0.1, ge=0, le=1)
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
    ``scales`` are the magnifications at which pictures are searched, the first also that of training; empty
    means chosen from the size of the crowd's boxes. ``steps`` bounds every training within the loop,
    ``final_steps`` that of the model that is served, ``baseline_steps`` that of floor and ceiling; all end
    early after ``patience`` evaluations on the validation part without gain (0: never).
    """

    family: Family = "compact"
    init: str | None = PRETRAINED
    scales: tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...] = ()
    steps: int = Field(400, ge=1)
    final_steps: int = Field(800, ge=1)
    baseline_steps: int = Field(2000, ge=1)
    patience: int = Field(5, ge=0)
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
    and ``label_studio_documents`` (the server's document root for local files, as this machine sees it).
    """

    label_studio: str | None = None
    label_studio_token_file: str | None = None
    label_studio_documents: str | None = None
    mlflow: str | None = None
    serve_host: str = "127.0.0.1"
    serve_port: int = Field(8000, ge=0, le=65535)
    poll_s: float = Field(2.0, gt=0)
    timeout_s: float = Field(60.0, gt=0)


class ActiveClean(Section):
    """The configuration of ``pipelines/active_clean.py``; without any key it runs on simulated pictures."""

    workspace: str = "workspace"
    tables: str | None = None
    run: str | None = None
    task: Literal["boxes", "classes"] = "boxes"
    seed: int = Field(0, ge=0)
    data: Data = Data()
    expert: Expert = Expert()
    budget: Budget = Budget()
    cost: CostSeconds = CostSeconds()
    detector: Detector = Detector()
    strategy: Literal[
        "random", "uncertainty", "discrepancy", "objectlab", "clod", "loss", "cross_entropy", "paper", "gain"
    ] = "discrepancy"
    correction: Literal["graded", "none", "expert_only"] = "graded"
    corrections: Correction = Correction()
    baselines: bool = False
    serve: bool = True
    label_service: Literal["label_studio", "in_process"] = "label_studio"
    compute: Literal["ray", "inline"] = "ray"
    wait: Literal["poll", "exit"] = "poll"
    services: Services = Services()

    @field_validator("run")
    @classmethod
    def _plain(cls, name: str | None) -> str | None:
        """The run names folders, a project and an experiment: nothing that any of them reads as more."""
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", name):
            raise ValueError("not a plain name; use A-Z a-z 0-9 . _ -, at most 80, a letter or digit first")
        return name

    def run_name(self) -> str:
        """The run's name: the given one, or one derived from everything that decides the result."""
        if self.run:
            return self.run
        facts = self.model_dump(mode="json", exclude={"workspace", "run", *NEUTRAL})
        return "run-" + hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:10]

    def digest(self) -> str:
        """A digest of the settings that decide the result; the data have digests of their own."""
        values = self.model_dump(mode="json", exclude={"workspace", "run", "data", *NEUTRAL})
        values["expert"].pop("truth")
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


NEUTRAL = ("services", "wait", "compute", "serve", "tables")
"""Settings that say where and how a run works, not what comes out."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; :class:`ConfigError` when there is none."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError([f"cannot read the file: {error.strerror}"], str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([f"not valid YAML: {error}"], str(path)) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError([f"expected keys and values, got {type(content).__name__}"], str(path))
    return content


def override(values: Mapping[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """``values`` with ``a.b=value`` overrides (values in YAML form), and the faults found on the way."""
    merged: dict[str, Any] = json.loads(json.dumps(values, default=str))
    faults = []
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            faults.append(f"{item!r}: expected key=value")
            continue
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError:
            faults.append(f"{key}: {text!r} is not valid YAML")
            continue
        if not _place(merged, key.strip().split("."), value):
            faults.append(f"{key}: a part of this key holds a value, not a section")
    return merged, faults


def _place(tree: dict[str, Any], path: Sequence[str], value: Any) -> bool:
    for name in path[:-1]:
        branch = tree.setdefault(name, {})
        if not isinstance(branch, dict):
            return False
        tree = branch
    tree[path[-1]] = value
    return True


def load(file: str | Path | None = None, overrides: Sequence[str] = ()) -> ActiveClean:
    """Read, merge and check the configuration of ``active_clean``; every fault in one report."""
    values, faults = override(read_yaml(file) if file else {}, overrides)
    config, wrong = _checked(values)
    faults += list(wrong.values())
    faults += path_faults(values, Path.cwd())
    faults += [fault for fault in consistency_faults(config) if not wrong.keys() & _keys_named(fault)]
    if faults:
        raise ConfigError(faults, str(file or "configuration"))
    return config


def _checked(values: Mapping[str, Any]) -> tuple[ActiveClean, dict[str, str]]:
    """The configuration, and the faults by key; a key at fault takes its default, so that checks go on."""
    try:
        return ActiveClean.model_validate(values), {}
    except ValidationError as error:
        entries = error.errors()
    wrong = {".".join(str(part) for part in entry["loc"]): _fault(entry) for entry in entries}
    sound = deepcopy(dict(values))
    for entry in entries:
        _drop(sound, entry["loc"])
    return ActiveClean.model_validate(sound), wrong


def _drop(tree: dict[Any, Any], path: Sequence[int | str]) -> None:
    """Remove what ``path`` leads to (an item of a list takes the list along), and keys that are no text."""
    if path[1:] and isinstance(tree.get(path[0]), dict):
        return _drop(tree[path[0]], path[1:])
    for key in [key for key in tree if key == path[0] or not isinstance(key, str)]:
        del tree[key]


def _fault(entry: Any) -> str:
    key = ".".join(str(part) for part in entry["loc"])
    if entry["type"] == "extra_forbidden":
        return f"{key}: unknown key"
    return f"{key}: {entry['msg'].removeprefix('Value error, ')} (got {entry['input']!r})"


def _keys_named(fault: str) -> set[str]:
    return set(re.findall(r"\w+(?:\.\w+)*", fault))


def consistency_faults(config: ActiveClean) -> list[str]:
    """Combinations of keys that cannot work together, and what can be named but is not there yet."""
    pool, test, expert = config.data.pool, config.data.test, config.expert
    people, own = expert.kind == "label_studio", bool(pool.images)
    untold = own and not expert.truth
    table = (
        (own and not pool.crowd, "data.pool.crowd: needed with data.pool.images (COCO JSON or CSV)"),
        (pool.crowd and not own, "data.pool.images: needed with data.pool.crowd"),
        (test.images and not test.truth, "data.test.truth: needed with data.test.images"),
        (test.truth and not test.images, "data.test.images: needed with data.test.truth"),
        (
            untold and not people,
            "expert.truth: the simulated expert needs a truth file (COCO JSON) for your own images",
        ),
        (
            expert.truth and not own,
            "expert.truth: simulated pictures bring their own truth; leave it out, or give data.pool.images",
        ),
        (config.baselines and untold and people, "baselines: the full-expert ceiling needs expert.truth"),
        (
            people and config.label_service == "in_process",
            "label_service: people answer in Label Studio; use label_service=label_studio",
        ),
        (config.task == "classes", "task: 'classes' is not available in this version; use 'boxes'"),
        (
            config.strategy == "gain",
            f"strategy: {config.strategy!r} is not available in this version",
        ),
        (
            config.strategy == "objectlab" and find_spec("cleanlab") is None,
            "strategy: 'objectlab' needs cleanlab; install it with: pip install 'emclean[rivals]'",
        ),
    )
    return [fault for broken, fault in table if broken] + detector_faults(config.detector)


def detector_faults(detector: Detector) -> list[str]:
    """Settings of the detector with which no training of the loop could start."""
    family, batch, workers = detector.family, detector.batch, detector.workers
    compact = family == "compact"
    table = (
        (
            not compact and not family.startswith(("fcos_", "retinanet_")),
            f"detector.family: {family!r} cannot weigh labels or ignore areas, which the loop needs; "
            "use compact, fcos_* or retinanet_*",
        ),
        (
            not compact and detector.init == PRETRAINED,
            "detector.init: the shipped weights are the compact detector's; "
            f"with {family!r} use detector.init=null or a local file",
        ),
        (
            batch < workers,
            f"detector.batch: {batch} crops are too few for {workers} workers; give at least one to each",
        ),
    )
    return [fault for broken, fault in table if broken]


PATH_KEYS = ("data.pool.images", "data.pool.crowd", "data.test.images", "data.test.truth", "expert.truth")


def path_faults(values: Mapping[str, Any], here: Path) -> list[str]:
    """Paths that do not exist, or that are relative where the job's folder is a temporary copy."""
    workspace, init = values.get("workspace") or "workspace", _look_up(values, "detector.init")
    faults = [_workspace_fault(workspace, here), _init_fault(init, here)]
    faults += [_path_fault(key, _look_up(values, key), here) for key in PATH_KEYS]
    return [fault for fault in faults if fault is not None]


def _workspace_fault(value: Any, here: Path) -> str | None:
    # one slash: what is left of a URI that went through a Path
    if isinstance(value, str) and re.match(r"[\w+.-]{2,}:/", value):
        return f"workspace: {value!r} is a URI; give a folder that every node reaches (tables may be a URI)"
    return _relative_fault("workspace", value, here)


def _init_fault(value: Any, here: Path) -> str | None:
    if not isinstance(value, str) or value == PRETRAINED:
        return None
    if fault := _relative_fault("detector.init", value, here):
        return fault
    if (here / value).is_file():
        return None
    fix = f"use {PRETRAINED}, null or a local safetensors file"
    return f"detector.init: {str(here / value)!r} is not a file; {fix}"


def _path_fault(key: str, value: Any, here: Path) -> str | None:
    if not isinstance(value, str) or "://" in value:
        return None
    if fault := _relative_fault(key, value, here):
        return fault
    return None if (here / value).exists() else f"{key}: {str(here / value)!r} does not exist"


def _relative_fault(key: str, value: Any, here: Path) -> str | None:
    uploaded = "working_dir_files" in here.parts
    if not uploaded or not isinstance(value, str) or Path(value).is_absolute():
        return None
    return f"{key}: {value!r} is relative inside an uploaded working directory; use an absolute path"


def _look_up(values: Any, key: str) -> Any:
    for name in key.split("."):
        values = values.get(name) if isinstance(values, Mapping) else None
    return values
