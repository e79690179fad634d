"""The steps of a run, one function per phase: ``(job, state) -> state``, each safe to repeat."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from emclean.errors import DataError
from emclean.loop import asking, policies, serving, simulating, waiting
from emclean.loop.cleaning import crowd_labels, expert_labels
from emclean.loop.finishing import finish
from emclean.loop.job import Job
from emclean.loop.logbook import log_round
from emclean.loop.patience import patiently, stays
from emclean.loop.publishing import card, metrics_of, model_key, round_row
from emclean.loop.recording import record_inputs
from emclean.loop.states import Phase, RunState

Step = Callable[[Job, RunState], RunState]


def ingest(job: Job, state: RunState) -> RunState:
    """Open the experts' project and write images, crowd labels and what was set aside into the tables.

    A label service that is away or refuses the job is noticed here, not after the first trainings.
    """
    state = asking.open_project(job, state)
    data = job.data
    aside = data.pool.set_aside + (data.test.set_aside if data.test else ())
    record_inputs(job, aside)
    job.parts.console.say(
        f"{len(data.pool.records)} pool images with {sum(map(len, data.pool.labels.values()))} crowd labels, "
        f"{len(data.test.records) if data.test else 0} test images; {len(aside)} items set aside"
    )
    for item in aside[:10]:
        job.parts.console.say(f"  set aside: {item.item}: {item.reason}")
    return state.knowing(set_aside=len(aside), crowd=job.kind.label_quality(job, crowd_labels(job))).at(
        Phase.CROWD
    )


def crowd(job: Job, state: RunState) -> RunState:
    """Train the crowd models that judge each image without having seen its labels."""
    return job.kind.crowd(job, state).at(Phase.PLAN, 0)


def plan(job: Job, state: RunState) -> RunState:
    """Choose the round's questions and keep them; or stop asking."""
    questions, reason = job.kind.choose(job, state)
    if not questions:
        job.parts.console.say(f"no more questions: {reason}")
        after = Phase.BASELINES if job.settings.baselines else Phase.FINISH
        return replace(state, stop_reason=reason).at(after)
    asking.save_plan(job, state.round, questions)
    job.parts.console.say(
        f"round {state.round}: asking about {len(questions)} images, "
        f"{sum(q.at_random for q in questions)} of them drawn at random, "
        f"{sum(q.task.blind for q in questions)} without suggestions"
    )
    entry = {"round": state.round, "questions": len(questions)}
    plans = tuple(p for p in state.plans if p["round"] != state.round)
    return replace(state, plans=(*plans, entry)).at(Phase.PUSH)


def push(job: Job, state: RunState) -> RunState:
    """Send the questions, each exactly once."""
    state = asking.open_project(job, state)
    count = asking.push(job, state.round)
    job.parts.console.say(waiting.invitation(job, state, count))
    return state.at(Phase.WAIT)


def wait(job: Job, state: RunState) -> RunState:
    """Take in answers until none is open; the same phase again means that experts are still at work."""
    mine = {q.task.key for q in asking.load_plan(job, state.round)}
    if job.settings.wait == "exit" and job.settings.expert.kind == "simulated":
        job.parts.console.say("wait=exit is for people: the simulated expert answers while the job waits")
    state = patiently(job, lambda: asking.open_project(job, state))
    with simulating.answering(job, state.round) as check:
        while True:
            check()
            brought = patiently(job, lambda: asking.pull(job, state.round))
            now = waiting.standing(mine, brought)
            waiting.tell(job, state, now)
            if not mine.intersection(brought.open):
                job.parts.console.say(waiting.ended(now))
                patiently(job, lambda: asking.pull_edits(job, state.round))
                asking.close(job, state.round, brought)
                _somebody_answered(job)
                return state.at(Phase.CLEAN)
            if not stays(job):
                return state
            time.sleep(job.settings.services.poll_s)


def _somebody_answered(job: Job) -> None:
    if expert_labels(job):
        return
    fix = "Answer at least one of them in Label Studio, then submit the job again."
    raise DataError("every task so far was skipped or deleted", f"run {job.run}", fix)


def clean(job: Job, state: RunState) -> RunState:
    """Refit the models that judge labels, and correct what is safe."""
    return job.kind.clean(job, state).at(Phase.TRAIN)


def train(job: Job, state: RunState) -> RunState:
    """Train the round's model."""
    version = job.parts.tables.version("labels")
    entry = {"weights": job.kind.train(job, state), "label_version": version}
    return state.with_model(f"final-{state.round}", **entry).at(Phase.EVALUATE)


def evaluate(job: Job, state: RunState) -> RunState:
    """Measure the round's model and labels."""
    weights = state.models[f"final-{state.round}"]["weights"]
    row = {**round_row(job, state.round, weights), "estimate": job.kind.estimate(job, state, weights)}
    rounds = (*(r for r in state.rounds if r["round"] != state.round), {**row, "model_version": None})
    said, kind = row["estimate"], job.kind
    figure = _figure(row[kind.figure], said[kind.figure])
    quality = _figure(row["labels"][kind.quality], said["labels"])
    job.parts.console.say(
        f"round {state.round}: {kind.figure_words} {figure}, {kind.quality_words} {quality}, "
        f"{row['cost']['minutes']:.1f} expert minutes so far"
    )
    return replace(state, rounds=rounds).at(Phase.PUBLISH)


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _figure(measured: float | None, estimate: Mapping[str, Any]) -> str:
    """A figure as measured; else as estimated from the expert's random images, marked as such."""
    found = estimate["value"]
    return f"≈{found:.2f} (estimated)" if measured is None and found is not None else _number(measured)


def publish(job: Job, state: RunState) -> RunState:
    """Register the model, let it pass the gate, serve it, and log the round."""
    weights = state.models[f"final-{state.round}"]["weights"]
    row = dict(state.rounds[-1])
    run_id = log_round(job, state, row)
    facts = {**card(job, state, row), "trained_on": job.kind.trained_on(job, state)}
    version = job.parts.registry.register(model_key(job, state.round, weights), Path(weights), facts, run_id)
    if job.parts.registry.champion() != version:
        promoted, why = job.kind.gate(job, state, weights)
        job.parts.console.say(f"version {version} {'promoted' if promoted else 'not promoted'}: {why}")
        if promoted:
            job.parts.registry.promote(version)
    row.update(model_version=version, promoted=job.parts.registry.champion() == version)
    state = serve_champion(job, state)
    job.kind.overlays(job, state, run_id)
    rounds = (*state.rounds[:-1], row)
    state = replace(state, rounds=rounds)
    job.parts.tables.append("rounds", [_table_row(job, state, row)])
    last = state.round >= job.settings.budget.rounds
    if last:
        state = replace(state, stop_reason="all rounds are done")
        return state.at(policies.after(Phase.PUBLISH, job.settings.baselines))
    return state.at(Phase.PLAN, state.round + 1)


def serve_champion(job: Job, state: RunState) -> RunState:
    """Serve the champion, whoever trained it; nothing changes where it is served already."""
    if job.parts.swap is None:
        return state
    parts, name = job.parts, job.kind.registered_name(job.data.categories)
    served = serving.serve_champion(parts.registry, job.parts.swap, job.workspace, name, parts.console)
    return state if served is None else state.knowing(served=served)


def _table_row(job: Job, state: RunState, row: Mapping[str, Any]) -> dict[str, Any]:
    cost, labels = row["cost"], row["labels"]
    return {
        "run": job.run,
        "round": row["round"],
        "images": cost["images"],
        **cost["boxes"],
        "minutes": cost["minutes"],
        "share_of_full": cost["share_of_full"],
        **{name: labels.get(name) for name in ("precision", "recall", "f1", "mean_iou")},
        "ap50": row["ap50"],
        "ap": row["ap"],
        "model_version": row["model_version"],
        "label_version": state.models[f"final-{state.round}"]["label_version"],
        "record": json.dumps({"metrics": metrics_of(row), "grades": state.facts.get("grades", {})}),
        "at": job.parts.now(),
    }


def baselines(job: Job, state: RunState) -> RunState:
    """Train the floor (the crowd's labels) and the ceiling (the expert's for everything), to convergence."""
    state = job.kind.baselines(job, state)
    for name, value in state.facts["baselines"].items():
        job.parts.console.say(f"{name}: {job.kind.figure_words} {_number(value)}")
    return state.at(Phase.FINISH)


STEPS: Mapping[Phase, Step] = {
    Phase.INGEST: ingest,
    Phase.CROWD: crowd,
    Phase.PLAN: plan,
    Phase.PUSH: push,
    Phase.WAIT: wait,
    Phase.CLEAN: clean,
    Phase.TRAIN: train,
    Phase.EVALUATE: evaluate,
    Phase.PUBLISH: publish,
    Phase.BASELINES: baselines,
    Phase.FINISH: finish,
}
