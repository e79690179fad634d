"""What MLflow is told of a run: settings at its start, figures and pictures of each round, its end."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emclean.errors import TrackingError
from emclean.loop.job import Job
from emclean.loop.publishing import metrics_of
from emclean.loop.states import RunState, write_atomically
from emclean.report import plots
from emclean.report.data import RoundRow
from emclean.stores.tracking import public


@contextmanager
def followed(job: Job, state: RunState) -> Iterator[RunState]:
    """Open the run in MLflow, or open it again, and close it there when the job breaks off.

    After an error it is ``FAILED``, when the job was stopped ``KILLED``; one that waits for experts stays
    ``RUNNING``. Yields the state, which names MLflow's run.
    """
    state = begin(job, state)
    try:
        yield state
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        _tell(job, state, "KILLED" if stopped else "FAILED")
        raise


def begin(job: Job, state: RunState) -> RunState:
    """Log settings and digests; what was begun on one MLflow is never gone on with on another."""
    tracker, known = job.parts.tracker, state.facts.get("tracked") or {}
    job.parts.console.say(f"MLflow at {job.parts.addresses.get('MLflow')}")
    run_id = known.get("run_id") or parent_run(job, state)
    if not tracker.resume(run_id):
        raise TrackingError(
            f"the run was begun on {known.get('address')} as {run_id}, which is not here",
            str(job.parts.addresses.get("MLflow")),
            "Let services.mlflow name that server, or start a new run with run=NAME.",
        )
    config = job.folder / "config.json"
    record = settings_record(job)
    write_atomically(config, json.dumps(record, indent=1))
    given = {**_flat(record), **_flat(state.facts.get("digests", {}), "digest.")}
    tracker.log(run_id, params={name: str(value) for name, value in given.items()}, artifacts=[config])
    return state.knowing(tracked={"run_id": run_id, "address": job.parts.addresses.get("MLflow")})


def _tell(job: Job, state: RunState, status: str) -> None:
    """Tell MLflow how the run ended; what goes wrong here must not hide why it ended."""
    try:
        job.parts.tracker.finish(state.facts["tracked"]["run_id"], status)
    except Exception as error:
        job.parts.console.say(f"MLflow could not be told that the run is {status}: {error}")


def parent_run(job: Job, state: RunState) -> str:
    """The MLflow run of the whole job."""
    tags = {"emclean.run": job.run, **{f"digest.{k}": v for k, v in state.facts.get("digests", {}).items()}}
    return job.parts.tracker.run(job.run, job.run, tags=tags)


def _child_run(job: Job, state: RunState, round_: int) -> str:
    parent = parent_run(job, state)
    return job.parts.tracker.run(f"{job.run}/{round_}", f"{job.run} round {round_}", parent=parent)


def log_round(job: Job, state: RunState, row: Mapping[str, Any]) -> str:
    """Log a round's figures to its own MLflow run, a child of the job's; return its id."""
    child = _child_run(job, state, state.round)
    version = state.models[f"final-{state.round}"]["label_version"]  # what the model was trained on
    params = {"round": str(state.round), "label_version": str(version)}
    job.parts.tracker.log(child, metrics=metrics_of(row), params=params, step=state.round)
    job.parts.tracker.log(parent_run(job, state), metrics=metrics_of(row), step=state.round)
    return child


def close_round(job: Job, state: RunState, round_: int) -> None:
    """Show the curve so far and the round's pictures in the job's run, and close the round's own."""
    pictures = sorted((job.folder / "overlays").glob(f"round-{round_}-*.png"))
    files = [draw_curve(job, state), *pictures]
    job.parts.tracker.log(parent_run(job, state), artifacts=files, step=round_)
    job.parts.tracker.finish(_child_run(job, state, round_), "FINISHED")


def draw_curve(job: Job, state: RunState) -> Path:
    """The score against cost over the rounds so far, as a picture in the run's folder."""
    rows = [RoundRow.of(row) for row in state.rounds]
    known = state.facts.get("baselines", {})
    file = job.folder / "budget_curve.png"
    file.write_bytes(
        plots.budget_curve(
            [plots.curve_of(rows)], known.get("floor"), known.get("ceiling"), task=job.settings.task
        )
    )
    return file


def settings_record(job: Job) -> dict[str, Any]:
    """The settings as they may be shown: addresses without passwords."""
    values = job.settings.model_dump(mode="json")
    if values["services"]["mlflow"]:
        values["services"]["mlflow"] = public(values["services"]["mlflow"])
    return values


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
