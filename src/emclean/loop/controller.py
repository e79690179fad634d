"""The controller: load the state, take one step, save; may be killed at any moment and started again."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emclean.errors import ConfigError, DataError
from emclean.loop import logbook, states
from emclean.loop.asking import look_once_more
from emclean.loop.code import code_version
from emclean.loop.finishing import write_report, write_summary
from emclean.loop.job import Job
from emclean.loop.recording import digests
from emclean.loop.states import Phase, RunState
from emclean.loop.steps import STEPS, serve_champion


@dataclass(frozen=True)
class Outcome:
    """How a submission ended: ``finished`` or ``waiting`` for experts, and where its summary is."""

    status: str
    summary: Path
    state: RunState


def state_file(job: Job) -> Path:
    """Where the run's state is kept."""
    return job.folder / "state.json"


def run(job: Job) -> Outcome:
    """Go on with a run from where it stands until it is finished or waits for experts."""
    with states.locked(job.folder):
        state = opened(job, states.load(state_file(job), job.run))
        if state.phase is Phase.DONE:
            return _done(job, state)
        if state.phase is not Phase.INGEST:
            job.parts.console.say(f"going on with {job.run} at: {state.phase.value}, round {state.round}")
        with logbook.followed(job, state) as state:
            return _go_on(job, state)


def _done(job: Job, state: RunState) -> Outcome:
    """A finished run takes in late answers, and is served once more: its services may have been restarted."""
    job.parts.console.say(f"{job.run} is finished")
    look_once_more(job, state)
    state = serve_champion(job, state)
    states.save(state, state_file(job))
    return Outcome("finished", write_summary(job, state, "finished"), state)


def _go_on(job: Job, state: RunState) -> Outcome:
    states.save(state, state_file(job))
    while state.phase is not Phase.DONE:
        before = state
        if state.phase is Phase.WAIT and job.settings.expert.kind == "label_studio":
            write_report(job, state, "waiting")  # people may want it while they answer, for days
        state = step(job, state)
        states.save(state, state_file(job))
        if state.phase is before.phase and state.phase is Phase.WAIT:
            return Outcome("waiting", write_summary(job, state, "waiting"), state)
    return Outcome("finished", write_summary(job, state, "finished"), state)


def opened(job: Job, state: RunState) -> RunState:
    """The state with the digests of its inputs on record; refuses to go on with other inputs."""
    now, settings = digests(job), job.settings.deciding()
    kept = state.facts.get("digests")
    if kept is None:
        state = replace(state, started_at=job.parts.now().isoformat(timespec="seconds"))
        return state.knowing(digests=now, settings=settings, code_version=code_version())
    _same_settings(job, state.facts["settings"], settings)
    changed = ", ".join(sorted(name for name in now if name != "settings" and now[name] != kept.get(name)))
    if changed:
        fix = "Put the files back, or start a new run with run=NAME."
        raise DataError(
            f"what this run is made from changed since it began: {changed}.", str(job.folder), fix
        )
    return state


def _same_settings(job: Job, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings; a key that did not exist then may have any value."""
    faults = [
        f"{key}: {now.get(key)!r}, but {before[key]!r} when the run began"
        for key in sorted(before)
        if before[key] != now.get(key)
    ]
    if faults:
        where = f"run {job.run} in {job.folder} (go on with its settings, or start a new one with run=NAME)"
        raise ConfigError(faults, where)


def step(job: Job, state: RunState) -> RunState:
    """Take one step and add its time to the record."""
    since = time.monotonic()
    after = STEPS[state.phase](job, state)
    if state.phase is Phase.PUBLISH:  # repeated with the step when the job dies in between
        logbook.close_round(job, after, state.round)
        job.parts.tables.tidy(job.run)
    return after.spent(state.phase.value, time.monotonic() - since)
