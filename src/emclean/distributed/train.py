"""Training under Ray Train: several jobs side by side, each on one or more workers, each resumable.

A job's run is named after its content and keeps its checkpoints under ``storage``. A killed worker starts
again from the last one; a killed driver finds them when the same job is given again. A finished job is not
trained again: its result lies in its own folder.
"""

import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from emclean.distributed.session import environment
from emclean.errors import ComputeError, EmcleanError
from emclean.models import engine
from emclean.models.hooks import Progress, Save
from emclean.models.segmenters import training as segmenting
from emclean.models.segmenters.spec import SegmentJob, SegmentResult
from emclean.models.spec import FitJob, FitResult

T = TypeVar("T")
Watch = Callable[[float, float], None]
Job = FitJob | SegmentJob
Result = FitResult | SegmentResult

CHECKPOINT_EVERY = 100
"""Steps between two checkpoints, at least; they are made where the engine reports."""

_STATE, _PROGRESS, _SNAPSHOT = "state.pt", "progress.json", "checkpoint_manager_snapshot.json"
_TIMEOUTS = {
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "600",  # Ray's own default is to wait for ever
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
}


@dataclass(frozen=True)
class Resources:
    """What one job gets: its workers, whether each has a GPU, how often a dead worker is replaced."""

    workers: int = 1
    use_gpu: bool = False
    retries: int = 3

    def side_by_side(self, cpus: float, gpus: float) -> int:
        """How many jobs fit at once; Ray's controllers take no core, so nothing waits for itself."""
        offered, kind = (gpus, "GPUs") if self.use_gpu else (cpus, "CPUs")
        if self.workers > offered:
            what = f"{self.workers} workers are asked for, the cluster offers {offered:g} {kind}."
            raise ComputeError(what, "detector.workers", "Ask for fewer workers, or start more nodes first.")
        return int(offered // self.workers)


def fit_all(
    jobs: Sequence[FitJob],
    resources: Resources | None = None,
    *,
    storage: str | Path,
    concurrency: int | None = None,
    progress: Watch = lambda done, total: None,
) -> list[FitResult]:
    """Train every job and return the results in order; the process must have joined a Ray cluster.

    ``storage`` is an absolute folder that every node reaches. ``progress`` is called with the steps done and
    to do, over all jobs. The first job that fails for good raises its own error once the others have ended.
    """
    import ray

    resources = resources or Resources()
    offered = ray.cluster_resources()
    most = resources.side_by_side(offered.get("CPU", 0), offered.get("GPU", 0))
    runs = {(job.digest(), job.out): job for job in jobs}
    with (
        environment({k: v for k, v in _TIMEOUTS.items() if k not in os.environ}),
        ThreadPoolExecutor(min(concurrency or most, most), "fit") as pool,
    ):
        futures = {
            key: pool.submit(_Run(job, key[0], resources, Path(storage)).result) for key, job in runs.items()
        }
        _follow(list(runs.values()), list(futures.values()), progress)
    return [futures[job.digest(), job.out].result() for job in jobs]


def fit_segmenter(
    job: SegmentJob,
    resources: Resources | None = None,
    *,
    storage: str | Path,
    progress: Watch = lambda done, total: None,
) -> SegmentResult:
    """Train a segmenter, as :func:`fit_all` does detectors."""
    import ray

    resources = resources or Resources()
    offered = ray.cluster_resources()
    resources.side_by_side(offered.get("CPU", 0), offered.get("GPU", 0))
    with (
        environment({k: v for k, v in _TIMEOUTS.items() if k not in os.environ}),
        ThreadPoolExecutor(1, "fit") as pool,
    ):
        future = pool.submit(_Run(job, job.digest(), resources, Path(storage)).result)
        _follow([job], [future], progress)
        result = future.result()
    if not isinstance(result, SegmentResult):
        raise TypeError(f"expected a segmenter's result, got {type(result).__name__}")
    return result


def _trainer(job: Job) -> Any:
    """The module that trains such a job: its ``fit`` and ``finished``."""
    return segmenting if isinstance(job, SegmentJob) else engine


def _follow(jobs: Sequence[Job], futures: Sequence[Future[Any]], progress: Watch) -> None:
    total = sum(job.schedule.max_steps for job in jobs)
    pending: set[Future[Any]] = set(futures)
    while pending:
        pending = wait(pending, timeout=1.0).not_done
        steps = [
            job.schedule.max_steps if future.done() else steps_done(job)
            for job, future in zip(jobs, futures, strict=True)
        ]
        progress(sum(steps), total)


def steps_done(job: Job) -> int:
    """The steps that a running job last noted in its folder."""
    try:
        return int(json.loads((Path(job.out) / _PROGRESS).read_text())["step"])
    except (OSError, ValueError, KeyError):
        return 0


@dataclass(frozen=True)
class _Run:
    """One job under one trainer."""

    job: Job
    digest: str
    resources: Resources
    storage: Path

    @property
    def name(self) -> str:
        place = hashlib.sha256(str(Path(self.job.out).absolute()).encode()).hexdigest()[:6]
        return f"fit-{self.digest}-{place}"

    @property
    def folder(self) -> Path:
        return self.storage / self.name

    def result(self) -> Any:
        """The job's result, from its folder or from training."""
        known = _trainer(self.job).finished(self.job.out, self.digest)
        if known is not None:
            return known
        if not sound(self.folder):
            quarantine(self.folder)
        try:
            result = self._train()
        except ComputeError:
            if not (self.folder / _SNAPSHOT).exists():
                raise
            # Checkpoints that cannot be gone on from must not block the job for ever.
            quarantine(self.folder)
            result = self._train()
        shutil.rmtree(self.folder, ignore_errors=True)  # its result is kept, its checkpoints are of no use
        return result

    def _train(self) -> Result:
        import ray.train
        from ray.train.torch import TorchConfig, TorchTrainer

        need = self.resources
        trainer = TorchTrainer(
            _work,
            train_loop_config={"job": self.job},
            scaling_config=ray.train.ScalingConfig(
                num_workers=need.workers,
                use_gpu=need.use_gpu,
                resources_per_worker={"CPU": 1, **({"GPU": 1} if need.use_gpu else {})},
            ),
            torch_config=TorchConfig(backend="nccl" if need.use_gpu else "gloo", timeout_s=600),
            run_config=ray.train.RunConfig(
                name=self.name,
                storage_path=str(self.storage.absolute()),
                failure_config=ray.train.FailureConfig(max_failures=need.retries, controller_failure_limit=3),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            ),
        )
        try:
            outcome: Result | None = trainer.fit().return_value
        except ray.train.TrainingFailedError as error:
            raise own_error(error, self.name) from error
        outcome = outcome or _trainer(self.job).finished(self.job.out, self.digest)
        if outcome is None:
            fix = "Check that every node sees the workspace at the same path."
            raise ComputeError("training ended without leaving a result.", self.job.out, fix)
        return outcome


def sound(folder: Path) -> bool:
    """Whether a run's folder can be gone on from: none, or a whole record of checkpoints that exist."""
    snapshot = folder / _SNAPSHOT
    if not snapshot.exists():
        return True
    try:
        record = json.loads(snapshot.read_text())
        entries = [*record["checkpoint_results"], *filter(None, [record["latest_checkpoint_result"]])]
        return all((folder / entry["checkpoint_dir_name"]).is_dir() for entry in entries)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def quarantine(folder: Path) -> Path:
    """Move a broken run's folder aside, so that its name is free; return where it lies now."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.broken-{number}")).exists():
        number += 1
    folder.rename(aside)
    return aside


def own_error(error: BaseException, name: str) -> EmcleanError:
    """The error of ours within one of Ray's, or a :class:`ComputeError` that says what Ray said."""
    for inner in _causes(error):
        if isinstance(inner, EmcleanError):
            return inner
    last = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    return ComputeError(f"training failed ({last[-1].strip()[:300]}).", name, "See the Ray job's log.")


def _causes(error: BaseException | None, depth: int = 6) -> list[BaseException]:
    if error is None or depth == 0:
        return []
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", None) or {}
    inner = [
        error.__cause__,
        getattr(error, "_base_exc", None),
        getattr(error, "cause", None),
        *failures.values(),
    ]
    return [
        error,
        *(found for one in inner if isinstance(one, BaseException) for found in _causes(one, depth - 1)),
    ]


def _work(config: Mapping[str, Any]) -> Result:
    """What every worker runs."""
    import ray.train

    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # one core a worker is what was asked for
    context = ray.train.get_context()
    job: Job = config["job"]
    hooks = RayHooks(job.out, context.get_world_rank(), context.get_world_size())
    trained: Result = _trainer(job).fit(job, hooks)
    return trained


class RayHooks:
    """How the engine meets Ray Train: checkpoints go to the run's storage, progress to the job's folder."""

    def __init__(self, out: str, rank: int, world_size: int) -> None:
        import ray.train.torch

        self.rank, self.world_size = rank, world_size
        self.device: torch.device = ray.train.torch.get_device()
        self._out = Path(out)
        self._kept = 0

    def prepare(self, model: nn.Module) -> nn.Module:
        """The model in DistributedDataParallel where there are several workers."""
        if self.world_size == 1:
            return model
        from ray.train.torch import prepare_model

        wrapped: nn.Module = prepare_model(model)
        return wrapped

    def report(self, progress: Progress, save: Save | None) -> None:
        """Note progress; keep a checkpoint when it is time. Every worker calls this equally often."""
        due = progress.step - self._kept >= CHECKPOINT_EVERY and progress.step < progress.total
        if save is not None:
            self._note(progress)
        if not due:
            return
        self._kept = progress.step
        self._checkpoint({"step": progress.step, "ap50": _finite(progress.ap50)}, save)

    def _checkpoint(self, metrics: dict[str, Any], save: Save | None) -> None:
        import ray.train

        if save is None:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="emclean-") as folder:
            save(Path(folder) / _STATE)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _note(self, progress: Progress) -> None:
        self._out.mkdir(parents=True, exist_ok=True)
        draft = self._out / f".{_PROGRESS}.{os.getpid()}"
        facts = {"step": progress.step, "total": progress.total, "ap50": _finite(progress.ap50)}
        draft.write_text(json.dumps({**facts, "at": time.time()}))
        draft.replace(self._out / _PROGRESS)

    def resume(self) -> Path | None:
        """The newest checkpoint of this run, copied here."""
        import ray.train

        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        self._copy = tempfile.TemporaryDirectory(prefix="emclean-")  # goes with these hooks
        return Path(checkpoint.to_directory(self._copy.name)) / _STATE

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.world_size == 1:
            return value
        box: list[Any] = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=self.device)
        shared: T = box[0]
        return shared


def _finite(value: float | None) -> float | None:
    """Metrics end up in JSON, which knows no NaN."""
    return value if value is not None and math.isfinite(value) else None
