"""From a configuration to a job: joins or starts the neighbours, reads the data, hands out plain parts."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from emclean.config import ActiveClasses, ActiveClean, ActiveKeys
from emclean.errors import LabelServiceError
from emclean.loop import sources
from emclean.loop.box_kind import BoxKind
from emclean.loop.classes import opening
from emclean.loop.compute import Compute, InlineCompute, RayCompute
from emclean.loop.console import Console
from emclean.loop.job import Job, Parts, RunData
from emclean.loop.kind import Kind
from emclean.loop.neighbours import Neighbours, find
from emclean.loop.serving import Swap, swap_on
from emclean.report.captions import enlarged
from emclean.seams import LabelService
from emclean.stores.fakes import InMemoryLabelService
from emclean.stores.label_studio import LabelStudioService, LocalPictures, read_token
from emclean.stores.registry import MlflowRegistry
from emclean.stores.tables import Tables
from emclean.stores.tracking import MlflowTracker, public
from emclean.types import ImageRecord

EXPERIMENT = "emclean"
BOXES = BoxKind()
RESTARTS = 3
"""How often a simulated expert that died is started again."""

ExpertProgram = Callable[[], AbstractContextManager[Callable[[], None]]]


@contextmanager
def opened(config: ActiveKeys, console: Console) -> Iterator[Job]:
    """A job ready to run; whatever was started for it ends with the block."""
    workspace = Path(config.workspace).absolute()
    workspace.mkdir(parents=True, exist_ok=True)
    name = config.run_name()
    config = _simulated(config, workspace / "simulated", console)
    with ExitStack() as stack:
        near = stack.enter_context(find(config, workspace, console))
        data, kind = _data(config, workspace, console)
        service, program = _label_service(config, workspace, name, near, kind)
        compute, swap = _compute(config, workspace, near.ray, stack, console)
        parts = Parts(
            tables=Tables(config.tables or str(workspace / "tables")),
            service=service,
            tracker=MlflowTracker(near.mlflow, EXPERIMENT),
            registry=MlflowRegistry(near.mlflow, kind.registered_name(data.categories)),
            compute=compute,
            console=console,
            swap=swap,
            expert_program=program,
            addresses={"Label Studio": near.label_studio, "MLflow": public(near.mlflow)},
            now=lambda: datetime.now(UTC),
        )
        yield Job(config, name, workspace, parts, data, kind)


def _simulated(config: ActiveKeys, folder: Path, console: Console) -> ActiveKeys:
    """The configuration, with simulated pictures where it names none."""
    if isinstance(config, ActiveClasses):
        return opening.simulated(config, folder, console)
    return sources.simulated(_boxes(config), folder, console)


def _data(config: ActiveKeys, workspace: Path, console: Console) -> tuple[RunData, Kind]:
    """Pictures and labels, and what kind of labels they are: chosen here, and nowhere else."""
    if isinstance(config, ActiveClasses):
        return opening.opened(config, workspace, console)
    return sources.load(_boxes(config), workspace, console), BOXES


def _boxes(config: ActiveKeys) -> ActiveClean:
    assert isinstance(config, ActiveClean)
    return config


def _label_service(
    config: ActiveKeys, workspace: Path, run: str, near: Neighbours, kind: Kind = BOXES
) -> tuple[LabelService, ExpertProgram | None]:
    if config.label_service == "in_process":
        return InMemoryLabelService(), None
    if near.label_studio is None or near.token_file is None or near.document_root is None:
        raise LabelServiceError("Label Studio is not running", "label_service", "Start it: emclean up.")
    pictures = LocalPictures(
        near.document_root,
        render=lambda record: _as_png(workspace, record, kind.least_side),
        server_root=near.documents_there,
    )
    token = read_token(near.token_file)
    service = LabelStudioService(near.label_studio, token, pictures, config.services.timeout_s, kind.form)
    if config.expert.kind == "label_studio":
        return service, None
    return service, lambda: expert_program(config, run, near, workspace / "runs" / run, kind)


def _as_png(workspace: Path, record: ImageRecord, least_side: int = 0) -> bytes:
    """The pixels that ingest prepared, as a picture that any browser shows."""
    import io

    import numpy as np

    out = io.BytesIO()
    pixels = np.load(workspace / "pixels" / f"{record.image_id}.npy")
    enlarged(pixels, least_side).save(out, "PNG")
    return out.getvalue()


@contextmanager
def expert_program(
    config: ActiveKeys, run: str, near: Neighbours, folder: Path, kind: Kind = BOXES
) -> Iterator[Callable[[], None]]:
    """The simulated expert as a program beside the job; the check starts it again when it has died."""
    expert = config.expert
    options = {
        "url": near.label_studio,
        "token-file": near.token_file,
        "truth": expert.truth,
        "project": f"emclean {run}",
        "miss": expert.miss,
        "jitter": expert.jitter,
        "rubber-stamp": expert.rubber_stamp,
        "pace": expert.pace,
        "seed": config.seed,
        "log": folder / "expert.jsonl",
        "with-parent": os.getpid(),  # a job that is killed cannot end it
        **{name.replace("_", "-"): value for name, value in config.cost.model_dump().items()},
        **kind.expert_options(),
    }
    line = [sys.executable, "-m", "emclean.simulated_expert", "--watch"]
    line += [f"--{name}={value}" for name, value in options.items()]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "expert.log").open("ab") as log:
        keeper = _Keeper(line, log)
        try:
            yield keeper.check
        finally:
            keeper.end()


class _Keeper:
    """Keeps one child process alive."""

    def __init__(self, line: list[str], log: Any) -> None:
        self._line, self._log, self._starts = line, log, 0
        self._child = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._starts += 1
        return subprocess.Popen(
            self._line, stdin=subprocess.DEVNULL, stdout=self._log, stderr=subprocess.STDOUT
        )

    def check(self) -> None:
        """Start the child again if it has ended; give up after some times."""
        code = self._child.poll()
        if code is None:
            return
        if self._starts > RESTARTS:
            fix = "See expert.log in the run's folder."
            raise LabelServiceError(f"the simulated expert ended with exit code {code}", "expert", fix)
        self._child = self._start()

    def end(self) -> None:
        """End the child."""
        self._child.terminate()
        try:
            self._child.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def _compute(
    config: ActiveKeys, workspace: Path, ray: str | None, stack: ExitStack, console: Console
) -> tuple[Compute, Swap | None]:
    """The computers, and how a model is served; nothing is served from a Ray that ends with the job."""
    if config.compute == "inline":
        return InlineCompute(), None
    from emclean.distributed import session

    address = os.environ.get("RAY_ADDRESS") or ray
    joined = stack.enter_context(session.connect(address, home=workspace / ".emclean"))
    console.say(f"Ray with {joined.cpus} cores{_gpus(joined.gpus)} at {joined.address}")
    compute = _on_ray(config, workspace / "train")
    if not config.serve:
        return compute, None
    at = config.services
    return compute, swap_on(joined, workspace, at.serve_host, at.serve_port, console)


def _on_ray(config: ActiveKeys, storage: Path) -> RayCompute:
    if isinstance(config, ActiveClasses):
        return RayCompute(storage, use_gpu=config.classifier.use_gpu)
    wanted = _boxes(config).detector
    return RayCompute(storage, wanted.workers, wanted.use_gpu)


def _gpus(count: int) -> str:
    return f" and {count} GPUs" if count else ""
