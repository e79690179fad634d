"""The controller's record of a run: what MLflow and the tables are told, however the job ends."""

import io
from dataclasses import replace

import pytest
from loop_jobs import small_job

from emclean.config import load
from emclean.errors import ConfigError, DataError, TrackingError
from emclean.loop import controller, logbook
from emclean.loop.console import Console
from emclean.loop.states import Phase, RunState
from emclean.stores.fakes import InMemoryTracker

ROW = {"round": 0, "cost": {"minutes": 2.0, "share_of_full": 0.1}, "labels": {}, "ap50": 0.5}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A small job whose report takes no time."""
    monkeypatch.setattr(controller, "write_summary", lambda job, state, status: job.folder / "summary.json")
    return small_job(tmp_path)


def use(monkeypatch, step, phase=Phase.INGEST):
    """Let the phase do this and the others nothing; whatever it returns, the run is done then."""

    def then_done(job, state):
        return (step(job, state) or state).at(Phase.DONE)

    monkeypatch.setattr(controller, "STEPS", {Phase.INGEST: lambda job, state: state.at(phase)})
    monkeypatch.setitem(controller.STEPS, phase, then_done)


def parent(job):
    return next(run for run in job.parts.tracker.runs.values() if run.key == "run")


def child(job):
    return next(run for run in job.parts.tracker.runs.values() if run.key == "run/0")


def breaking(error):
    """A step that opens the round's run and then breaks off."""

    def step(job, state):
        logbook.log_round(job, state.with_model("final-0", label_version=4), ROW)
        raise error

    return step


def test_settings_and_digests_are_logged_before_the_first_step(job, monkeypatch):
    def step(job, state):
        params = parent(job).params
        assert params["seed"] == "0"
        assert params["digest.pool"] == state.facts["digests"]["pool"]
        assert "config.json" in parent(job).artifacts
        assert parent(job).status == "RUNNING"

    use(monkeypatch, step)
    assert controller.run(job).status == "finished"


@pytest.mark.parametrize(
    ("error", "status"),
    [(DataError("no"), "FAILED"), (RuntimeError("no"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_job_that_breaks_off_says_so_and_goes_on_later(job, monkeypatch, error, status):
    use(monkeypatch, breaking(error))
    with pytest.raises(type(error)):
        controller.run(job)
    assert (parent(job).status, child(job).status) == (status, status)
    seen = []
    use(monkeypatch, lambda job, state: seen.append(parent(job).status))
    controller.run(job)
    assert seen == ["RUNNING"]


def test_mlflow_going_down_does_not_hide_the_error(job, monkeypatch):
    said = io.StringIO()
    job = replace(job, parts=replace(job.parts, console=Console(said)))

    def step(job, state):
        job.parts.tracker.down = True
        raise DataError("every image is unusable")

    use(monkeypatch, step)
    with pytest.raises(DataError, match="every image"):
        controller.run(job)
    assert "MLflow could not be told that the run is FAILED" in said.getvalue()


def test_a_run_that_waits_goes_on_running(job, monkeypatch):
    monkeypatch.setattr(
        controller, "STEPS", {Phase.INGEST: lambda j, s: s.at(Phase.WAIT), Phase.WAIT: lambda j, s: s}
    )
    assert controller.run(job).status == "waiting"
    assert parent(job).status == "RUNNING"


def test_another_mlflow_is_refused_and_stays_empty(job, monkeypatch):
    use(monkeypatch, breaking(DataError("no")))
    with pytest.raises(DataError):
        controller.run(job)
    other = InMemoryTracker()
    moved = replace(job, parts=replace(job.parts, tracker=other, addresses={"MLflow": "http://other"}))
    with pytest.raises(TrackingError, match=r"http://other: the run was begun on http://mlflow"):
        controller.run(moved)
    assert other.runs == {}


def test_after_each_round_the_curve_and_the_pictures_are_in_the_jobs_run(job, monkeypatch):
    joined = []
    monkeypatch.setattr(type(job.parts.tables), "tidy", lambda self, run: joined.append(run))
    picture = job.folder / "overlays" / "round-0-asked-a.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"picture")

    def publish(job, state):
        logbook.log_round(job, state.with_model("final-0", label_version=4), ROW)
        assert child(job).status == "RUNNING"
        return replace(state, rounds=(ROW,))

    use(monkeypatch, publish, Phase.PUBLISH)
    controller.run(job)
    assert {"budget_curve.png", picture.name} <= set(parent(job).artifacts)
    assert child(job).status == "FINISHED"
    assert child(job).params["label_version"] == "4"  # what the model was trained on, not what there is now
    assert joined == ["run"]


def test_a_finished_run_is_served_once_more(job, monkeypatch, tmp_path):
    use(monkeypatch, lambda job, state: None)
    controller.run(job)
    weights = tmp_path / "weights"
    weights.write_bytes(b"weights")
    registry = job.parts.registry
    registry.promote(registry.register("run/0", weights, {"name": "x"}, None))
    served = []

    def swap(version, file, card):
        served.append((version, file.read_bytes(), card))
        return "http://served"

    state = controller.run(replace(job, parts=replace(job.parts, swap=swap))).state
    assert served == [("1", b"weights", {"name": "x"})]
    assert state.facts["served"] == {"url": "http://served", "model_version": "1"}


def test_other_settings_are_named_and_refused_but_new_keys_are_not(job):
    state = controller.opened(job, RunState("run"))
    assert controller.opened(job, state).facts == state.facts
    older = state.knowing(settings={k: v for k, v in state.facts["settings"].items() if k != "seed"})
    controller.opened(job, older)
    other = replace(job, settings=load(overrides=["seed=5", "budget.rounds=7"]))
    with pytest.raises(ConfigError) as caught:
        controller.opened(other, state)
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["budget.rounds", "seed"]
    assert "run=NAME" in str(caught.value)


@pytest.mark.parametrize(("kind", "written"), [("label_studio", ["waiting"]), ("simulated", [])])
def test_a_report_is_there_as_soon_as_people_are_waited_for(job, monkeypatch, kind, written):
    seen = []
    monkeypatch.setattr(controller, "write_report", lambda job, state, status: seen.append(status))
    expert = job.settings.expert.model_copy(update={"kind": kind})
    job = replace(job, settings=job.settings.model_copy(update={"expert": expert}))
    before = []
    use(monkeypatch, lambda job, state: before.extend(seen), Phase.WAIT)
    controller.run(job)
    assert (before, seen) == (written, written)
