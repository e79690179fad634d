"""Many small independent pieces of work under Ray Tune: each is one trial that works in its own process.

A trial takes one core and starts nothing else, so that no trial ever waits for another's resources. Ray Tune
keeps nothing here that is needed later: whatever a piece of work achieves it writes down itself.
"""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from emclean.distributed.session import environment
from emclean.errors import ComputeError

Watch = Callable[[float], None]
Out = dict[str, Any]
Work = Callable[[str, Watch], Out]
"""Does the piece of this name, tells how far it is, and returns what came out; it raises nothing."""

_STEPS, _OUT = "emclean_steps", "emclean_out"  # Tune has results of its own: one called done ends a trial
_QUIET = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune would end the experiment and return as if all were well
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Need:
    """What a piece takes: a core and ``gpus`` (a fraction up to 1); at most ``at_once`` side by side.

    ``retries`` is how often a piece is begun again whose process died.
    """

    gpus: float = 0.0
    at_once: int | None = None
    retries: int = 2

    def slots(self, cpus: float, gpus: float) -> int:
        """How many pieces run side by side."""
        fit = int(cpus) if not self.gpus else min(int(cpus), int(gpus) * int(1 / self.gpus + 1e-9))
        if not fit:
            what = f"a cell takes 1 core and {self.gpus:g} GPUs, the cluster offers {cpus:g} and {gpus:g}."
            raise ComputeError(what, "gpu_per_cell", "Ask for less, or start more nodes first.")
        return min(fit, self.at_once or fit)


def run_all(
    work: Work,
    names: Sequence[str],
    need: Need,
    *,
    storage: Path,
    told: Callable[[str, float], None] = lambda name, done: None,
    ended: Callable[[str, Out | None], None] = lambda name, out: None,
) -> dict[str, Out | ComputeError]:
    """Do every piece and return what came out by name; the process must have joined a Ray cluster.

    A piece whose process died too often has a :class:`ComputeError` there. ``storage`` is an absolute folder
    that every node reaches, of this call alone; it is gone at the end. ``told`` and ``ended`` must not raise.
    """
    import ray
    from ray import tune

    offered = ray.cluster_resources()
    slots = need.slots(offered.get("CPU", 0), offered.get("GPU", 0))
    shutil.rmtree(storage, ignore_errors=True)
    listener, found, errors = _listener(told, ended)
    trainable = tune.with_resources(
        tune.with_parameters(_trial, work=work), {"CPU": 1, **({"GPU": need.gpus} if need.gpus else {})}
    )
    tuner = tune.Tuner(
        trainable,
        param_space={"name": tune.grid_search(list(names))},
        tune_config=tune.TuneConfig(max_concurrent_trials=slots, reuse_actors=True),
        run_config=tune.RunConfig(
            name=storage.name,
            storage_path=str(storage.parent),
            failure_config=tune.FailureConfig(max_failures=need.retries),
            callbacks=[listener],
            verbose=0,
        ),
    )
    with environment({name: value for name, value in _QUIET.items() if name not in os.environ}):
        try:
            tuner.fit()
        except (ray.exceptions.RayError, tune.TuneError) as error:
            raise ComputeError(f"Ray Tune broke off ({_last_line(error)}).", str(storage)) from error
    shutil.rmtree(storage, ignore_errors=True)
    return {name: found[name] if name in found else _lost(errors.get(name)) for name in names}


def _lost(error: BaseException | None) -> ComputeError:
    """Why a piece has nothing to show."""
    return ComputeError(f"its process did not come to an end ({_last_line(error)}).", "ray")


def _last_line(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines() if error else []
    return (lines or ["no reason was given"])[-1].strip()[:300]


def _trial(config: Mapping[str, Any], work: Work) -> None:
    """What every trial runs."""
    from ray import tune

    torch.set_num_threads(1)  # one core is what was asked for
    out = work(config["name"], lambda done: tune.report({_STEPS: done}))
    tune.report({_OUT: out})


def _listener(
    told: Callable[[str, float], None], ended: Callable[[str, Out | None], None]
) -> tuple[Any, dict[str, Out], dict[str, BaseException | None]]:
    """A Tune callback that hands on progress, what came out so far, and the errors of what is lost."""
    from ray.tune import Callback

    found: dict[str, Out] = {}
    errors: dict[str, BaseException | None] = {}

    class Listener(Callback):  # type: ignore[misc]
        def __reduce__(self) -> tuple[Any, ...]:  # Tune saves it for a restore that never comes
            return Callback, ()

        def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
            name = trial.config["name"]
            if _OUT in result:
                found[name] = result[_OUT]
            elif _STEPS in result:
                told(name, result[_STEPS])

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ended(trial.config["name"], found.get(trial.config["name"]))

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            errors[trial.config["name"]] = trial.get_error()
            ended(trial.config["name"], found.get(trial.config["name"]))

    return Listener(), found, errors
