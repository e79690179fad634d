"""A label service that is away or refuses the job: noticed before training, waited out while people work."""

import io
from dataclasses import replace

import pytest
from loop_jobs import small_job

from emclean.errors import LabelServiceError
from emclean.loop import asking, patience, steps
from emclean.loop.console import Console
from emclean.loop.patience import patiently
from emclean.loop.states import Phase, RunState
from emclean.stores.fakes import InMemoryLabelService
from emclean.stores.label_studio import LabelStudioService, LocalPictures, Unanswered
from emclean.types import AnsweredBox

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def said():
    return io.StringIO()


@pytest.fixture
def job(tmp_path, said, monkeypatch):
    """A small job with a real label service's rules, its digests out of the way."""
    monkeypatch.setattr(steps, "record_inputs", lambda job, aside: None)
    return with_settings(small_job(tmp_path, console=Console(said)), label_service="label_studio")


def with_settings(job, **settings):
    return replace(job, settings=job.settings.model_copy(update=settings))


def people(job):
    return job.settings.expert.model_copy(update={"kind": "label_studio"})


def quick(job):
    return job.settings.services.model_copy(update={"poll_s": 0.01})


def away(job):
    job.parts.service.down = True
    return job


def test_the_first_step_opens_the_project_and_keeps_its_address(job):
    state = steps.ingest(job, RunState("run"))
    assert (state.phase, state.facts["label_project"]) == (Phase.CROWD, "memory://emclean run")
    assert list(job.parts.service.projects) == ["emclean run"]


def test_a_label_service_that_is_away_ends_the_first_step(job):
    with pytest.raises(LabelServiceError, match="down"):
        steps.ingest(away(job), RunState("run"))


@pytest.mark.parametrize("names", [(" ",), ("deposit · missed?",)])
def test_category_names_that_make_no_page_end_the_first_step(job, tmp_path, names):
    service = LabelStudioService(NOWHERE, "token", LocalPictures(tmp_path))
    data = replace(job.data, pool=replace(job.data.pool, categories=names))
    job = replace(job, data=data, parts=replace(job.parts, service=service))
    with pytest.raises(LabelServiceError, match="no labelling page can be made") as caught:
        steps.ingest(job, RunState("run"))
    assert repr(names[0]) in str(caught.value)


def test_a_project_that_never_held_a_task_may_be_made_again_elsewhere(job):
    state = steps.ingest(job, RunState("run"))
    moved = replace(job, parts=replace(job.parts, service=InMemoryLabelService()))
    assert asking.open_project(moved, state) == state
    assert list(moved.parts.service.projects) == ["emclean run"]


def test_one_that_holds_tasks_is_never_made_again_elsewhere(job):
    state = steps.ingest(job, RunState("run"))
    asking.save_plan(job, 0, [question(job)])
    asking.push(job, 0)
    moved = replace(job, parts=replace(job.parts, service=InMemoryLabelService()))
    with pytest.raises(LabelServiceError, match="not here any more"):
        asking.open_project(moved, state)
    assert moved.parts.service.projects == {}


def question(job):
    return asking.make_question(job, "a", 0, [], at_random=False, blind=False, value=1.0)


class Flaky(InMemoryLabelService):
    """One that gives no answer to some of its pulls."""

    lost = 0

    def pull(self, keys):
        self.lost -= 1
        if self.lost >= 0:
            raise Unanswered("Label Studio cannot be reached", NOWHERE)
        return super().pull(keys)


def waiting(job, lost, **settings):
    """A job whose people have answered, on a service that then loses some pulls."""
    service = Flaky()
    job = replace(job, parts=replace(job.parts, service=service))
    job = with_settings(job, expert=people(job), services=quick(job), **settings)
    state = asking.open_project(job, RunState("run"))
    asking.save_plan(job, 0, [question(job)])
    asking.push(job, 0)
    service.answer("run/a/0", [AnsweredBox((10.0, 10.0, 30.0, 30.0), "deposit")])
    service.lost = lost
    return job, state


def test_waiting_outlasts_an_outage_and_says_so(job, said):
    job, state = waiting(job, lost=5)
    assert steps.wait(job, state).phase is Phase.CLEAN
    assert f"asking again for up to 10 min 00 s: {NOWHERE}: Label Studio cannot" in said.getvalue()


def test_a_job_that_does_not_stay_for_people_ends_at_once(job):
    job, state = waiting(job, lost=1, wait="exit")
    with pytest.raises(Unanswered):
        steps.wait(job, state)


def test_patience_ends(job, monkeypatch):
    passed = iter(range(0, 1000, 200))
    monkeypatch.setattr(patience.time, "monotonic", lambda: next(passed))
    monkeypatch.setattr(patience.time, "sleep", lambda seconds: None)
    tries = []

    def look():
        tries.append(1)
        raise Unanswered("Label Studio cannot be reached", NOWHERE)

    with pytest.raises(Unanswered):
        patiently(replace(job, parts=replace(job.parts, console=SilentConsole())), look)
    assert len(tries) == 3  # after 200 s, 400 s, and the last at 600 s


class SilentConsole(Console):
    def patiently(self, text):
        """Says nothing, so that nobody else asks for the time."""


def test_a_refusal_is_not_waited_out(job, monkeypatch):
    slept = []
    monkeypatch.setattr(patience.time, "sleep", slept.append)

    def look():
        raise LabelServiceError("Label Studio refused the token", NOWHERE)

    with pytest.raises(LabelServiceError, match="refused"):
        patiently(job, look)
    assert slept == []
