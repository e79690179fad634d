"""A run as a job: submitted once, followed again, stopped, and what its folder says of it afterwards."""

import fcntl
import json
import os
import stat
from types import SimpleNamespace

import pytest

from emclean import cli
from emclean.distributed import jobs, local
from emclean.errors import ComputeError, DataError, ServiceError
from emclean.loop import overview, states


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A workspace whose Ray lives, and a cluster that does what it is told to."""
    me = os.getpid()
    facts = {"address": "127.0.0.1:2", "log": "l", "folder": "f"}
    record = {"ray": {"pid": me, "born": local.born(me), "url": "http://127.0.0.1:1", "facts": facts}}
    (tmp_path / "services.json").write_text(json.dumps(record))
    monkeypatch.chdir(tmp_path)
    seen = SimpleNamespace(folder=tmp_path / "runs" / "r", said=[], ends=lambda: 0, takes=lambda: None)

    def run(dashboard, entrypoint, **more):
        seen.takes()
        more["taken"]("job-1")
        seen.said.append(more["go_on"])
        return seen.ends()

    def follow(dashboard, submission, **more):
        seen.said.append(("follow", submission))
        return seen.ends()

    def stop(dashboard, submission, **more):
        seen.said.append(("stop", submission))
        return True

    for name, function in (("run", run), ("follow", follow), ("stop", stop)):
        monkeypatch.setattr(jobs, name, function)
    return seen


def refuse():
    raise ComputeError("the job was not taken.", "http://127.0.0.1:1")


def interrupt():
    raise KeyboardInterrupt


def emclean(*line):
    return cli.main([*line, "--workspace", "."])


def test_a_job_that_no_cluster_took_leaves_no_run(place):
    place.takes = refuse
    assert emclean("submit", "run=r") == 4
    assert not place.folder.exists()


def test_a_run_that_was_there_before_outlives_a_job_that_was_not_taken(place):
    assert emclean("submit", "run=r") == 0
    place.takes = refuse
    assert emclean("submit", "run=r") == 4
    assert emclean("resume", "r") == 4
    assert (place.folder / "submitted.yaml").exists()


def test_settings_that_may_hold_a_password_are_for_their_owner_alone(place):
    place.folder.mkdir(parents=True)
    kept = [place.folder / name for name in ("submitted.yaml", "configuration.yaml")]
    for file in kept:
        file.write_text("{}")
        file.chmod(0o644)
    assert emclean("submit", "run=r", "services.mlflow=http://me:hidden@host") == 0
    for file in kept:
        assert "hidden" in file.read_text()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in place.folder.iterdir()) == [
        "configuration.yaml", "job.json", "submitted.yaml",
    ]  # fmt: skip


def test_a_killed_job_is_gone_on_with_by_name(place):
    emclean("submit", "run=r")
    workspace = place.folder.parent.parent
    assert place.said == [f"Go on with: emclean resume r --workspace {workspace}"]


def test_ctrl_c_leaves_the_job_and_says_how_to_come_back(place, capsys):
    place.ends = interrupt
    assert emclean("submit", "run=r") == 130
    said = capsys.readouterr().err
    assert "the job goes on. Its log: emclean logs r --workspace" in said
    assert "Stop it: emclean stop r" in said


def test_ctrl_c_before_the_job_is_taken_promises_nothing(place, capsys):
    emclean("submit", "run=r")
    place.takes = interrupt
    capsys.readouterr()
    assert emclean("submit", "run=r") == 130
    assert capsys.readouterr().err.strip() == "stopped"


def test_the_log_is_followed_again_and_the_job_stopped_by_the_runs_name(place, capsys):
    emclean("submit", "run=r")
    place.said.clear()
    place.ends = lambda: 3
    assert emclean("logs", "r") == 3
    assert emclean("stop", "r") == 0
    assert place.said == [("follow", "job-1"), ("stop", "job-1")]
    assert "stopped. Go on with: emclean resume r" in capsys.readouterr().out


@pytest.mark.parametrize("verb", ["logs", "stop"])
def test_a_run_without_a_job_is_named(place, verb, capsys):
    assert emclean(verb, "other") == 2
    assert "no job of a run 'other' was submitted" in capsys.readouterr().err


def test_a_run_that_a_job_works_on_is_not_submitted_again(place, capsys):
    emclean("submit", "run=r")
    place.said.clear()
    with (place.folder / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert [emclean("submit", "run=r"), emclean("resume", "r")] == [4, 4]
    assert place.said == []
    said = capsys.readouterr().err
    assert "r: a job works on this run already. Its log: emclean logs r" in said


def test_a_run_that_failed_tells_its_reason_until_it_is_tried_again(place, capsys):
    place.folder.mkdir(parents=True)
    with pytest.raises(DataError), states.failure_kept(place.folder):
        raise DataError("no picture can be read.", "images", "Look.")
    emclean("status")
    said = capsys.readouterr().out
    assert "r    failed" in said
    assert "r failed: images: no picture can be read. Look." in said
    with states.failure_kept(place.folder):
        assert overview.standing(place.folder) == "stopped"


def test_being_stopped_is_no_failure(tmp_path):
    with pytest.raises(KeyboardInterrupt), states.failure_kept(tmp_path / "r"):
        raise KeyboardInterrupt
    assert overview.standing(tmp_path / "r") == "stopped"


def test_a_job_that_was_refused_does_not_fail_the_run_of_the_other(tmp_path):
    with states.locked(tmp_path / "r"):
        with (
            pytest.raises(
                ServiceError, match=r"another job is working on this run\. Its log: emclean logs r\."
            ),
            states.failure_kept(tmp_path / "r"),
            states.locked(tmp_path / "r"),
        ):
            pass
        assert overview.standing(tmp_path / "r") == "running"
    assert overview.standing(tmp_path / "r") == "stopped"


def waiting_run(folder, asked_in=1):
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps({"phase": "WAIT", "round": 1}))
    kept = {"round": asked_in, "project": "http://ls/projects/1", "words": "3 of 4 answered, 1 skipped"}
    (folder / "waiting.json").write_text(json.dumps(kept))


def test_status_says_where_answers_are_waited_for_and_how_many_are_in(place, capsys):
    waiting_run(place.folder)
    with states.locked(place.folder):
        emclean("status")
    words = "r waits for answers at http://ls/projects/1: 3 of 4 answered, 1 skipped"
    assert capsys.readouterr().out.splitlines()[-1] == words
    emclean("status")
    looked = f"{words} when the job last looked (emclean resume r looks again)"
    assert capsys.readouterr().out.splitlines()[-1] == looked


def test_what_an_earlier_round_waited_for_is_not_told(tmp_path):
    waiting_run(tmp_path / "r", asked_in=0)
    assert overview.remarks(tmp_path / "r") == ["r waits for answers"]


def test_status_shows_the_served_model_and_an_estimate_as_such(place, capsys, monkeypatch):
    place.folder.mkdir(parents=True)
    served = {"url": "http://127.0.0.1:9", "model_version": "2"}
    (place.folder / "state.json").write_text(json.dumps({"phase": "DONE", "facts": {"served": served}}))
    rounds = [{"estimate": {"ap50": {"value": 0.7}}}]
    summary = {"status": "finished", "final": {"ap50": None}, "rounds": rounds}
    (place.folder / "summary.json").write_text(json.dumps(summary))
    monkeypatch.setattr(overview, "answers", lambda url: True)
    emclean("status")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["Model", "2", "running", "http://127.0.0.1:9"] in lines
    assert ["r", "finished", "done", "≈0.70"] in lines
    monkeypatch.undo()
    assert not overview.answers("http://127.0.0.1:9")


def test_an_analysis_tells_in_its_summary_what_is_served(tmp_path):
    (tmp_path / "runs" / "a").mkdir(parents=True)
    served = {"url": "http://127.0.0.1:9", "model_version": "2"}
    (tmp_path / "runs" / "a" / "summary.json").write_text(json.dumps({"served": served}))
    assert overview.served(tmp_path) == served
