"""The controller: load the state, take one step, save; may be killed at any moment and started again."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from emclean.errors import DataError
from emclean.loop import logbook, states
from emclean.loop.code import code_version
from emclean.loop.finishing import write_summary
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
    """A finished run is served once more: its services may have been restarted since."""
    job.parts.console.say(f"{job.run} is finished")
    state = serve_champion(job, state)
    states.save(state, state_file(job))
    return Outcome("finished", write_summary(job, state, "finished"), state)


def _go_on(job: Job, state: RunState) -> Outcome:
    states.save(state, state_file(job))
    while state.phase is not Phase.DONE:
        before = state
        state = step(job, state)
        states.save(state, state_file(job))
        if state.phase is before.phase and state.phase is Phase.WAIT:
            return Outcome("waiting", write_summary(job, state, "waiting"), state)
    return Outcome("finished", write_summary(job, state, "finished"), state)


def opened(job: Job, state: RunState) -> RunState:
    """The state with the digests of its inputs on record; refuses to go on with other inputs."""
    now = digests(job)
    kept = state.facts.get("digests")
    if kept is not None and kept != now:
        changed = ", ".join(sorted(name for name in now if now[name] != kept.get(name)))
        fix = "Put the files back, or start a new run with run=NAME."
        raise DataError(f"what this run is made from changed since it began: {changed}", str(job.folder), fix)
    if kept is None:
        state = replace(state, started_at=job.parts.now().isoformat(timespec="seconds")).knowing(
            digests=now, code_version=code_version()
        )
    return state


def step(job: Job, state: RunState) -> RunState:
    """Take one step and add its time to the record."""
    since = time.monotonic()
    after = STEPS[state.phase](job, state)
    if state.phase is Phase.PUBLISH:  # repeated with the step when the job dies in between
        logbook.close_round(job, after, state.round)
        job.parts.tables.tidy(job.run)
    return after.spent(state.phase.value, time.monotonic() - since)
