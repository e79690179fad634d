"""The command line: it starts at once, every command has help, services are on record."""

import json
import os
import resource
import stat
import subprocess
import sys
import time

import pytest
import yaml

from emclean import cli, services
from emclean.distributed import jobs, local
from emclean.errors import ConfigError, DataError
from emclean.loop import submitting

COMMANDS = ("up", "down", "status", "submit", "resume", "logs", "stop", "report", "export", "expert", "audit")


def computing() -> float:
    """Seconds that the processors have spent on this process's children that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_the_help_comes_at_once():
    def seconds() -> float:
        before = computing()
        done = subprocess.run(
            [sys.executable, "-m", "emclean.cli", "--help"], capture_output=True, text=True, check=True
        )
        assert all(name in done.stdout for name in COMMANDS)
        return computing() - before

    seconds()  # the first call reads files that the next find in memory
    assert min(seconds() for _ in range(3)) < 0.5  # computing alone: other programs do not count


def test_starting_imports_nothing_heavy():
    heavy = "{'torch', 'ray', 'numpy', 'mlflow', 'yaml', 'pydantic'}"
    code = f"import sys, emclean.cli; print(*sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_its_options(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert len(capsys.readouterr().out.splitlines()) > 5


def service(pid: int, since: str, **facts: str) -> dict:
    return {"pid": pid, "born": since, "url": "http://127.0.0.1:1", "facts": facts}


@pytest.fixture
def workspace(tmp_path):
    """A workspace whose Ray lives (this process stands for it) and whose MLflow has ended."""
    me = os.getpid()
    record = {
        "ray": service(me, local.born(me), address="127.0.0.1:2", log="l", folder="f"),
        "mlflow": service(me, "another moment", log="l"),
    }
    (tmp_path / "services.json").write_text(json.dumps(record))
    return tmp_path


def test_addresses_are_those_of_living_processes_only(workspace):
    at = services.addresses(workspace)
    assert (at.ray, at.dashboard, at.mlflow) == ("127.0.0.1:2", "http://127.0.0.1:1", None)


def test_a_process_that_took_over_an_id_is_not_the_service():
    me = os.getpid()
    assert local.lives(me, local.born(me))
    assert not local.lives(me, "1")
    assert not local.lives(me, "")


def test_a_process_that_ended_does_not_live():
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    since = local.born(child.pid)
    time.sleep(0.3)
    assert not local.lives(child.pid, since)
    child.wait()


def test_status_tells_services_and_runs(workspace, capsys):
    run = workspace / "runs" / "first"
    run.mkdir(parents=True)
    (run / "state.json").write_text(json.dumps({"phase": "WAIT", "round": 1}))
    (run / "summary.json").write_text(json.dumps({"status": "waiting", "final": {"ap50": 0.5}}))
    assert cli.main(["status", "--workspace", str(workspace)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:2] == ["Ray", "running"]
    assert lines[3][:2] == ["MLflow", "ended"]
    assert ["first", "waiting", "wait", "1", "0.500"] in lines


def test_a_run_that_a_job_works_on_is_running(workspace, capsys):
    import fcntl

    run = workspace / "runs" / "first"
    run.mkdir(parents=True)
    with (run / "lock").open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        cli.main(["status", "--workspace", str(workspace)])
    assert "first  running" in capsys.readouterr().out


def test_the_record_is_for_its_owner_only(workspace):
    services.down(workspace, ["mlflow"])
    assert stat.S_IMODE((workspace / "services.json").stat().st_mode) == 0o600
    assert set(services.read(workspace)) == {"ray"}


def test_a_broken_record_is_named(tmp_path):
    (tmp_path / "services.json").write_text("{")
    with pytest.raises(ConfigError, match=r"services\.json"):
        services.addresses(tmp_path)


def test_an_unknown_service_is_a_configuration_fault(tmp_path, capsys):
    assert cli.main(["up", "redis", "--workspace", str(tmp_path)]) == 2
    assert "redis" in capsys.readouterr().err


def test_report_names_the_newest_run_or_says_what_there_is(workspace, capsys):
    assert cli.main(["report", "--workspace", str(workspace)]) == DataError.exit_code
    run = workspace / "runs" / "first"
    run.mkdir(parents=True)
    (run / "report.html").write_text("x")
    assert cli.main(["report", "--workspace", str(workspace)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    assert cli.main(["report", "none", "--workspace", str(workspace)]) == DataError.exit_code
    assert "Runs here: first" in capsys.readouterr().err


def accept(sent, dashboard, entrypoint, more, code):
    """What a cluster does that takes a job, which ends with this code."""
    sent.append((dashboard, entrypoint))
    more["taken"](f"job-{len(sent)}")
    return code


def test_submit_checks_the_configuration_before_anything_else(tmp_path, capsys):
    assert cli.main(["submit", "no.such.key=1", "--workspace", str(tmp_path)]) == 2
    assert "unknown key" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_submit_keeps_the_configuration_and_resume_sends_the_same_again(workspace, monkeypatch, capsys):
    sent = []
    monkeypatch.setattr(
        jobs, "run", lambda dashboard, entrypoint, **more: accept(sent, dashboard, entrypoint, more, 5)
    )
    monkeypatch.chdir(workspace)
    assert cli.main(["submit", "seed=3", "budget.rounds=1", "--workspace", str(workspace)]) == 5
    (run,) = (workspace / "runs").iterdir()
    kept = yaml.safe_load((run / submitting.SUBMITTED).read_text())["configuration"]
    assert (kept["seed"], kept["run"], kept["workspace"]) == (3, run.name, str(workspace))
    assert cli.main(["resume", run.name, "--workspace", str(workspace)]) == 5
    assert sent[0] == sent[1]
    assert sent[0][0] == "http://127.0.0.1:1"
    assert sent[0][1].startswith(f"cd {workspace} && exec ")
    assert cli.main(["resume", "other", "--workspace", str(workspace)]) == 2


def test_another_pipeline_is_checked_submitted_and_resumed_as_itself(workspace, sent, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    grid = ["submit", "--pipeline", "noise_grid", "--workspace", str(workspace), "run=g"]
    assert cli.main([*grid, "strategy=random"]) == 2
    assert "strategy: unknown key" in capsys.readouterr().err
    assert cli.main([*grid, "rates=[0.1]"]) == 0
    assert cli.main(["resume", "g", "--workspace", str(workspace)]) == 0
    assert sent[0] == sent[1]
    assert "noise_grid.py --config" in sent[0][1]
    kept = yaml.safe_load((workspace / "runs" / "g" / submitting.SUBMITTED).read_text())
    assert kept["configuration"]["rates"] == [0.1]


@pytest.fixture
def sent(monkeypatch):
    """What would have been submitted: pairs of dashboard and entrypoint."""
    lines = []
    monkeypatch.setattr(
        jobs, "run", lambda dashboard, entrypoint, **more: accept(lines, dashboard, entrypoint, more, 0)
    )
    return lines


@pytest.mark.parametrize("option", [[], ["--workspace", "other"], ["workspace=other"]])
def test_submit_works_in_the_workspace_of_the_file_unless_told_another(
    option, workspace, sent, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:9")
    (tmp_path / "job.yaml").write_text("workspace: mine\nrun: first\n")
    assert cli.main(["submit", "--config", "job.yaml", *option]) == 0
    folder = tmp_path / ("other" if option else "mine")
    kept = yaml.safe_load((folder / "runs" / "first" / submitting.SUBMITTED).read_text())["configuration"]
    assert kept["workspace"] == str(folder)
    assert str(folder / "runs" / "first" / "configuration.yaml") in sent[0][1]
    assert not (tmp_path / "workspace").exists()


def test_settings_may_stand_before_and_after_an_option(workspace, sent, monkeypatch):
    monkeypatch.chdir(workspace)
    (workspace / "job.yaml").write_text("seed: 2\nbudget: {rounds: 5}\n")
    line = ["submit", "seed=1", "--config", "job.yaml", "budget.rounds=1", "--no-wait", "run=r"]
    assert cli.main([*line, "--workspace", str(workspace)]) == 0
    kept = yaml.safe_load((workspace / "runs" / "r" / submitting.SUBMITTED).read_text())["configuration"]
    assert (kept["seed"], kept["budget"]["rounds"]) == (1, 1)


@pytest.mark.parametrize("line", [["submit", "seed=1", "--bogus", "seed=2"], ["status", "seed=1"]])
def test_words_that_no_command_knows_are_refused(line, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(line)
    assert ended.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_submit_without_ray_says_how_to_start_it(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    assert cli.main(["submit", "--workspace", str(tmp_path)]) == 4
    assert "emclean up" in capsys.readouterr().err
    assert list((tmp_path / "runs").iterdir()) == []  # what never reached a cluster is no run


def test_tokens_are_not_passed_to_jobs():
    given = {"EMCLEAN_DATA": "d", "EMCLEAN_SERVE_TOKEN": "secret", "HOME": "h"}
    assert submitting.passed_on(given) == {"EMCLEAN_DATA": "d"}


def test_words_with_blanks_reach_the_job_as_they_are(tmp_path):
    line = jobs.command(["printf", "%s|", "a b", "c'd"], tmp_path)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert done.stdout == "a b|c'd|"


def test_a_service_that_is_long_in_starting_says_so_ever_more_seldom():
    now, said = [0.0], []
    say = services.seldom(said.append, clock=lambda: now[0])
    for second in range(0, 300, 5):
        now[0] = float(second)
        say(f"starting, {second} s")
    assert said == [f"starting, {second} s" for second in (0, 15, 45, 105, 225)]
