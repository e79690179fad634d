"""What people are told while answers are out."""

import io
import json
from dataclasses import replace

import pytest
from loop_jobs import small_job

from emclean.loop import asking, steps, waiting
from emclean.loop.console import Console
from emclean.loop.publishing import round_row
from emclean.loop.spending import skipped_until, spent_until
from emclean.loop.states import WAITING, Phase, RunState


@pytest.fixture
def said():
    """What the job says."""
    return io.StringIO()


@pytest.fixture
def job(tmp_path, said):
    """A job that waits for people about two of its images."""
    made = small_job(tmp_path, console=Console(said))
    people = made.settings.expert.model_copy(update={"kind": "label_studio"})
    made = replace(made, settings=made.settings.model_copy(update={"expert": people, "wait": "exit"}))
    made.folder.mkdir(parents=True)
    asked = [asking.make_question(made, i, 0, [], at_random=True, blind=False, value=1.0) for i in ("a", "b")]
    asking.save_plan(made, 0, asked)
    return made


def waited(job, state):
    return steps.wait(job, state)


def test_the_job_says_where_to_answer(job, said):
    state = steps.push(job, RunState("run", Phase.PUSH))
    assert state.phase is Phase.WAIT
    assert "2 tasks wait for answers at memory://emclean run" in said.getvalue()


def test_a_skip_is_told_and_counts_as_no_answer(job, said):
    state = steps.push(job, RunState("run", Phase.PUSH))
    job.parts.service.skip("run/b/0")
    assert waited(job, state).phase is Phase.WAIT
    kept = json.loads((job.folder / WAITING).read_text())
    assert (kept["asked"], kept["answered"], kept["skipped"], kept["round"]) == (2, 0, 1, 0)
    assert kept["project"] == "memory://emclean run"
    job.parts.service.answer("run/a/0", [])
    assert waited(job, state).phase is Phase.CLEAN
    assert "no task is open any more: 1 of 2 answered, 1 skipped" in said.getvalue()
    assert (spent_until(job, 0).images, skipped_until(job, 0)) == (1, 1)


def test_the_summary_tells_the_skipped_tasks_of_a_round(job, tmp_path):
    state = steps.push(job, RunState("run", Phase.PUSH))
    job.parts.service.skip("run/b/0")
    job.parts.service.answer("run/a/0", [])
    waited(job, state)
    row = round_row(job, 0, str(tmp_path / "weights"))
    assert (row["skipped"], row["cost"]["images"]) == (1, 1)


def test_an_image_that_one_skipped_and_another_answered_is_answered(job):
    state = steps.push(job, RunState("run", Phase.PUSH))
    job.parts.service.answer("run/a/0", [])
    job.parts.service.skip("run/a/0")
    job.parts.service.answer("run/b/0", [])
    waited(job, state)
    assert (spent_until(job, 0).images, skipped_until(job, 0)) == (2, 0)


def test_a_simulated_expert_needs_no_address(job):
    simulated = small_job(job.workspace / "other")
    words = waiting.invitation(simulated, RunState("run"), 1)
    assert words == "1 task is with the label service, for the simulated expert"
