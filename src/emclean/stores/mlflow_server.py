"""Start and stop an MLflow server of one's own: SQLite and local files, on loopback."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from emclean.errors import TrackingError

DATABASE, ARTIFACTS, LOG, MADE_BY = "mlflow.db", "artifacts", "server.log", "mlflow.version"

_children: dict[int, "subprocess.Popen[bytes]"] = {}
"""Servers that this process started, so that it can take notice of their end."""


@dataclass(frozen=True)
class ServerProcess:
    """A server that was started: its process id (also that of its group), address and log file."""

    pid: int
    url: str
    log: Path


def start(
    folder: Path,
    port: int | None = None,
    host: str = "127.0.0.1",
    progress: Callable[[str], None] = lambda text: None,
    patience_s: float = 120.0,
) -> ServerProcess:
    """Start MLflow on a database in ``folder`` and wait until it answers; ``port`` None takes a free one."""
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port(host)
    if (folder / DATABASE).exists() and _made_by(folder) != version("mlflow"):
        progress("MLflow: bringing its database up to date")
        _upgrade(folder)
    progress(f"MLflow: starting on port {port}")
    server = _launch(folder, host, port)
    started = ServerProcess(server.pid, f"http://{host}:{port}", folder / LOG)
    end = time.monotonic() + patience_s
    while not healthy(started.url):
        if server.poll() is not None or time.monotonic() > end:
            stop(server.pid)
            raise TrackingError(
                f"MLflow did not start: {_tail(folder / LOG)}",
                started.url,
                f"See {folder / LOG}; is the port taken?",
            )
        time.sleep(0.2)
    (folder / MADE_BY).write_text(version("mlflow"), encoding="utf-8")
    progress(f"MLflow: ready at {started.url}")
    return started


def stop(pid: int, patience_s: float = 15.0) -> None:
    """End a server that ``start`` made, with the processes it made; one that is gone already is no error."""
    child = _children.pop(pid, None)
    if child is None and not _is_ours(pid):
        return
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGTERM)
    end = time.monotonic() + patience_s
    while _runs(pid) and time.monotonic() < end:
        time.sleep(0.05)
    with suppress(ProcessLookupError):  # the rest of its group, if any; the database survives it
        os.killpg(pid, signal.SIGKILL)
    if child is not None:
        child.wait(patience_s)


def healthy(url: str) -> bool:
    """Whether an MLflow server answers there."""
    try:
        with urlopen(f"{url}/health", timeout=5) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def database(folder: Path) -> str:
    """The address of the database in ``folder``, as trackers and registries take it without a server."""
    return f"sqlite:///{Path(folder).absolute() / DATABASE}"


def _launch(folder: Path, host: str, port: int) -> "subprocess.Popen[bytes]":
    names = sorted({host, "localhost", "127.0.0.1"})
    allowed = ",".join(f"{name}:{port}" for name in names)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database(folder)]
    command += ["--artifacts-destination", (folder / ARTIFACTS).as_uri(), "--host", host, "--port", str(port)]
    command += ["--workers", "1", "--allowed-hosts", allowed]
    with (folder / LOG).open("ab") as log:
        server = subprocess.Popen(
            command, cwd=folder, env=_environment(), stdout=log, stderr=log, start_new_session=True
        )
    _children[server.pid] = server
    return server


def _upgrade(folder: Path) -> None:
    command = [sys.executable, "-m", "mlflow", "db", "upgrade", database(folder)]
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise TrackingError(
            f"MLflow's database cannot be brought up to date: {done.stderr.strip()[-400:]}",
            str(folder / DATABASE),
            "Was it made by a newer MLflow?",
        )


def _made_by(folder: Path) -> str:
    """The version of MLflow that used the database last."""
    note = folder / MADE_BY
    return note.read_text(encoding="utf-8") if note.exists() else ""


def _environment() -> dict[str, str]:
    # without the first, MLflow runs seven more processes for jobs that nobody here submits
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {**os.environ, **own}


def _tail(log: Path) -> str:
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    return " | ".join(text.strip().splitlines()[-3:])


def _is_ours(pid: int) -> bool:
    """Whether the process leads its own group and is an MLflow server: a number may have been reused."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return pid > 1 and os.getpgid(pid) == pid and b"mlflow" in command


def _runs(pid: int) -> bool:
    """Whether the process still runs; a dead one may wait for its parent to take notice."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
