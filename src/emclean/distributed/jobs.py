"""Submitting a job to a Ray cluster, following its log, stopping it, and telling how its driver ended."""

import asyncio
import logging
import re
import shlex
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from emclean.distributed.session import (
    TOKEN_NAME,
    environment,
    joining_environment,
    read_environment_again,
    token_environment,
)
from emclean.errors import ComputeError

STOP_WAIT_S = 60
"""Seconds that a stopped job has to save its state; Ray's own default is 3."""


STOPPED = 130
"""The exit code of a job that was asked to end."""

_NOISE = re.compile(
    r"^.*(?:INFO job_manager\.py:\d+ -- |PYTHON worker processes have been started on node).*\n", re.MULTILINE
)
"""Lines of Ray's own that say nothing to people: our controllers take no core, so there are many of them."""

GO_ON = "Submit it again to go on."


def command(words: Sequence[str], folder: Path | None = None) -> str:
    """The shell line that runs ``words``, in ``folder`` where one is given."""
    line = shlex.join(words)
    return line if folder is None else f"cd {shlex.quote(str(folder))} && exec {line}"


def run(
    dashboard: str,
    entrypoint: str,
    *,
    home: Path | None,
    variables: Mapping[str, str] | None = None,
    wait: bool = True,
    write: Callable[[str], None] = lambda text: None,
    taken: Callable[[str], None] = lambda submission: None,
    go_on: str = GO_ON,
) -> int:
    """Submit, hand the job's log to ``write`` as it comes, and return the driver's exit code.

    ``home`` keeps the token of a cluster that we started; without it the environment says how to join.
    ``taken`` hears Ray's name of the job before its log begins; ``go_on`` is advice after a kill.
    With ``wait`` off it returns 0 as soon as the job is taken.
    """
    with environment(_joining(home)):
        client = _client(dashboard)
        told = {"PYTHONUNBUFFERED": "1", "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S), **(variables or {})}
        submission = _submit(client, entrypoint, {"env_vars": told})
        taken(submission)
        write(f"job {submission} submitted\n")
        return _followed(client, submission, write, go_on) if wait else 0


def follow(
    dashboard: str,
    submission: str,
    *,
    home: Path | None,
    write: Callable[[str], None],
    go_on: str = GO_ON,
) -> int:
    """The log of a job that was submitted before, from its beginning; returns its driver's exit code."""
    with environment(_joining(home)):
        client = _client(dashboard)
        _details(client, submission)
        return _followed(client, submission, write, go_on)


def stop(dashboard: str, submission: str, *, home: Path | None) -> bool:
    """Ask a job to end and wait until it has, :data:`STOP_WAIT_S` s and some more; False: it had ended."""
    with environment(_joining(home)):
        client = _client(dashboard)
        if _details(client, submission).status.is_terminal():
            return False
        client.stop_job(submission)
        until = time.monotonic() + STOP_WAIT_S + 30
        while not _details(client, submission).status.is_terminal():
            if time.monotonic() > until:
                raise ComputeError("the job does not end.", submission, f"Look at {dashboard}.")
            time.sleep(0.5)
        return True


def _details(client: Any, submission: str) -> Any:
    try:
        return client.get_job_info(submission)
    except (RuntimeError, ConnectionError, OSError) as error:
        reason = (str(error).strip().splitlines() or ["no answer"])[0][:200]
        fix = "Was Ray started anew since? Then submit the run again: emclean resume RUN."
        raise ComputeError(f"Ray tells nothing of this job ({reason}).", submission, fix) from error


def _followed(client: Any, submission: str, write: Callable[[str], None], go_on: str) -> int:
    asyncio.run(_follow(client, submission, write))
    return _ending(client, submission, go_on)


def _joining(home: Path | None) -> dict[str, str]:
    """The token of our own cluster goes before what the environment says of another one."""
    file = home / TOKEN_NAME if home else None
    return token_environment(file) if file and file.exists() else joining_environment(None)


def _client(dashboard: str) -> Any:
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    read_environment_again()
    logging.getLogger("ray.dashboard.modules.job.sdk").setLevel(logging.WARNING)
    try:
        return JobSubmissionClient(dashboard)
    except (ConnectionError, RuntimeError, RayError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        fix = "Start it (emclean up), or check RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH."
        raise ComputeError(f"Ray's dashboard does not take us ({reason}).", dashboard, fix) from error


def _submit(client: Any, entrypoint: str, runtime_env: Mapping[str, Any], patience_s: float = 60.0) -> str:
    """Submit; a cluster that has only just started refuses for a moment, although its dashboard answers."""
    until = time.monotonic() + patience_s
    while True:
        try:
            taken: str = client.submit_job(entrypoint=entrypoint, runtime_env=dict(runtime_env))
            return taken
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > until:
                reason = str(error).strip().splitlines()[0][:300]
                raise ComputeError(f"the job was not taken ({reason}).", entrypoint) from error
        time.sleep(1.0)


async def _follow(client: Any, submission: str, write: Callable[[str], None]) -> None:
    import aiohttp

    try:
        async for text in client.tail_job_logs(submission):
            write(_NOISE.sub("", text))
    except (
        RuntimeError,
        aiohttp.ClientError,
    ) as error:  # the log's connection broke: the job's state is asked for below
        write(f"(the log cannot be followed any more: {error})\n")


def _ending(client: Any, submission: str, go_on: str = GO_ON) -> int:
    """The exit code of a job that ends by itself or was stopped; an error where it was killed."""
    details = _details(client, submission)
    while not details.status.is_terminal():
        time.sleep(0.5)
        details = _details(client, submission)
    code = details.driver_exit_code
    if str(details.status) == "STOPPED":
        return STOPPED
    if code is not None and (number := _signal(int(code))):
        raise ComputeError(f"the job was killed ({_signal_words(number)}).", submission, go_on)
    if code is not None:
        return int(code)
    if str(details.status) == "SUCCEEDED":
        return 0
    reason = (details.message or str(details.status)).strip().splitlines()[-1][:300]
    raise ComputeError(f"the job ended without an exit code ({reason}).", submission, go_on)


def _signal(code: int) -> int:
    """The signal that ended a process with this exit code, as Python or as a shell tells it; 0 for none."""
    if code < 0:
        return -code
    return code - 128 if code > 128 and code != STOPPED else 0


def _signal_words(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    return f"{name}, perhaps because memory ran out" if number == signal.SIGKILL else name
