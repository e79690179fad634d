"""Ray's own command, as ``docs/running.md`` shows it: what it submits, what it prints, what it is told."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from emclean.distributed import local
from emclean.distributed.session import dashboard_headers, environment

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RAY = Path(sys.executable).with_name("ray")
TINY = (
    "data.simulate={pool: 8, test: 2, size: 128, noise: crowd}",
    "budget={rounds: 1, seed_images: 4, share_of_full: 0.7}",
    "detector={steps: 2, final_steps: 2, eval_every: 2, batch: 2, crop: 128, patience: 0}",
    "label_service=in_process",
    "serve=false",
    "compute=inline",
)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """The exports of the documentation, towards a Ray of its own."""
    home = tmp_path_factory.mktemp("command") / ".emclean"
    head = local.start(home, num_cpus=1)
    yield {
        "RAY_API_SERVER_ADDRESS": head.dashboard,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(home / "ray_token"),
    }
    local.stop(head)


def submit(told: dict[str, str], *settings: str) -> "subprocess.CompletedProcess[str]":
    """``ray job submit -- python pipelines/active_clean.py …``, from any folder."""
    line = [str(RAY), "job", "submit", "--", "python", "pipelines/active_clean.py", *settings]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        line, env={**clean, **told}, capture_output=True, text=True, check=False, timeout=240
    )


def listed(told: dict[str, str], said: str, more: str = "") -> dict[str, Any]:
    """What the dashboard tells of the job that was submitted."""
    (job,) = set(re.findall(r"raysubmit_\w+", said))
    with environment(told):
        headers = dashboard_headers()
    address = f"{told['RAY_API_SERVER_ADDRESS']}/api/jobs/{job}{more}"
    return dict(httpx.get(address, headers=headers, trust_env=False).json())


def test_a_wrong_key_is_one_for_the_command_and_two_for_the_job(told, tmp_path):
    done = submit(told, f"workspace={tmp_path}", "budgte.rounds=1")
    assert done.returncode == 1, done.stderr
    assert "budgte" in done.stdout + done.stderr
    assert listed(told, done.stdout)["driver_exit_code"] == 2


def test_the_job_runs_and_its_log_ends_with_the_summary(told, tmp_path):
    done = submit(told, f"workspace={tmp_path}", *TINY)
    assert done.returncode == 0, done.stdout + done.stderr
    last = listed(told, done.stdout, "/logs")["logs"].splitlines()[-1]
    assert last.startswith("summary: ")
    assert last in done.stdout.splitlines()
    summary = Path(last.removeprefix("summary: "))
    assert summary.is_relative_to(tmp_path)
    assert json.loads(summary.read_text())["status"] == "finished"
    assert listed(told, done.stdout)["driver_exit_code"] == 0
