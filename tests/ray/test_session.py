"""Joining and starting Ray: its own token, an end with the block, and clear words where nobody answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from listeners import listeners, reachable

from emclean.distributed import jobs, local
from emclean.distributed.session import connect, joining_environment, own_environment, token_file

pytestmark = pytest.mark.ray

ALONE = """
import json, os, sys
from pathlib import Path
import httpx
from emclean.distributed.session import connect, dashboard_headers
sys.path.append(sys.argv[2])
from listeners import listeners, reachable
with connect(num_cpus=1, home=Path(sys.argv[1])) as session:
    import ray
    jobs = session.dashboard + "/api/jobs/"
    facts = {
        "started": session.started,
        "cpus": session.cpus,
        "worker": ray.get(ray.remote(num_cpus=0)(lambda: os.environ["RAY_AUTH_MODE"]).remote()),
        "stranger": httpx.get(jobs).status_code,
        "we": httpx.get(jobs, headers=dashboard_headers()).status_code,
        "dashboard": session.dashboard,
        "ports": len(listeners(os.getpid())),
        "reachable": list(reachable(os.getpid()).items()),
    }
print(json.dumps({**facts, "joined": ray.is_initialized(), "mode": os.environ.get("RAY_AUTH_MODE")}))
"""


NOBODY = """
import sys
from pathlib import Path
from emclean.distributed.session import connect
from emclean.errors import ComputeError
try:
    connect("127.0.0.1:9", home=Path(sys.argv[1])).__enter__()
except ComputeError as error:
    print(error)
"""


def in_a_fresh_process(script: str, *arguments: str) -> str:
    """The last line that a script prints in a process that has joined no Ray and knows of none."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    line = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(line, env=clean, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_ray_of_its_own_asks_for_the_token_and_ends_with_the_block(tmp_path):
    facts = json.loads(in_a_fresh_process(ALONE, str(tmp_path), str(Path(__file__).parent)))
    assert (facts["started"], facts["cpus"], facts["worker"]) == (True, 1, "token")
    assert (facts["stranger"], facts["we"]) == (401, 200)
    assert facts["ports"] >= 3  # Ray's store of facts, its node manager, its dashboard
    assert facts["reachable"] == []
    assert (facts["joined"], facts["mode"]) == (False, None)
    with pytest.raises(httpx.ConnectError):
        httpx.get(facts["dashboard"])


def test_nobody_there_is_said_at_once(tmp_path):
    said = in_a_fresh_process(NOBODY, str(tmp_path))
    assert "127.0.0.1:9" in said
    assert "emclean up" in said


def test_a_process_that_has_joined_stays_joined(cluster):
    import ray

    with connect() as again:
        assert not again.started
        assert again.address == cluster.address
    assert ray.is_initialized()


def test_the_token_is_made_once_and_for_its_owner_only(tmp_path):
    file = token_file(tmp_path / "new")
    token = file.read_text()
    assert len(token) == 64
    assert file.stat().st_mode & 0o777 == 0o600
    assert token_file(tmp_path / "new").read_text() == token
    assert token not in json.dumps(own_environment(tmp_path / "new"))


def test_the_mode_is_always_set(tmp_path, monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert joining_environment(tmp_path)["RAY_AUTH_MODE"] == "disabled"
    token_file(tmp_path)
    assert joining_environment(tmp_path)["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert joining_environment(tmp_path) == {}


SUBMIT = """
import sys
from pathlib import Path
from emclean.distributed import jobs
sys.exit(jobs.run(sys.argv[1], sys.argv[2], home=Path(sys.argv[3]), write=sys.stdout.write))
"""


JOB = """
import sys, serving.app, emclean
from emclean.distributed.session import connect
with connect() as session:
    print("in", sys.executable, "started" if session.started else "joined", session.address)
sys.exit(7)
"""


JOIN = """
import sys
from pathlib import Path
from emclean.distributed.session import connect
with connect(sys.argv[1], home=Path(sys.argv[2])) as session:
    import ray
    one = ray.get(ray.remote(num_cpus=0)(lambda: 1).remote(), timeout=60)
    print(session.address, one)
"""


@pytest.mark.slow
def test_a_head_of_its_own_takes_jobs_and_is_stopped_by_its_id(tmp_path):
    head = local.start(tmp_path, num_cpus=1)
    try:
        entrypoint = jobs.command(["python", "-c", JOB], tmp_path)
        line = [sys.executable, "-c", SUBMIT, head.dashboard, entrypoint, str(tmp_path)]
        done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=180)
        assert done.returncode == 7, done.stderr
        assert f"in {sys.executable} joined {head.address}" in done.stdout
        assert (tmp_path / "ray_token").read_text() not in done.stdout + done.stderr
        assert httpx.get(f"{head.dashboard}/api/jobs/").status_code == 401
        assert len(listeners(head.pid)) >= 7  # and the agents, which take the job, and the proxy of clients
        assert reachable(head.pid) == {}
        joined = in_a_fresh_process(JOIN, head.address, str(tmp_path))
        assert joined == f"{head.address} 1"
    finally:
        local.stop(head)
    assert not local.lives(head.pid, head.born)
    assert not Path(head.folder).exists()
    with pytest.raises(httpx.ConnectError):
        httpx.get(head.dashboard)
