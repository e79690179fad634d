"""A Ray of one's own on this machine: its own ports, token and folder; stopped by its process id.

    python -m emclean.distributed.local start [WORKSPACE]
    python -m emclean.distributed.local stop [WORKSPACE]

``ray stop`` would end every Ray of this machine; this ends only the one it started.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx

from emclean.distributed.session import (
    LOOPBACK,
    code_root,
    dashboard_headers,
    environment,
    own_environment,
)
from emclean.errors import ComputeError

_WAIT_S = 120.0
_children: list["subprocess.Popen[bytes]"] = []  # kept: a forgotten one would be complained of while it runs


@dataclass(frozen=True)
class Head:
    """A running head node: its process (id and moment of birth), address, dashboard, log and folder."""

    pid: int
    born: str
    address: str
    dashboard: str
    log: str
    folder: str


def start(
    home: Path,
    num_cpus: int | None = None,
    dashboard_port: int = 0,
    progress: Callable[[str], None] = lambda line: None,
) -> Head:
    """Start a head node and wait until it takes jobs; ``home`` keeps its token, log and record.

    Jobs and served models find the interpreter that runs this and the code beside it, wherever they start.
    """
    home = home.absolute()
    home.mkdir(parents=True, exist_ok=True)
    ports = [_free_port(), _free_port(dashboard_port), _free_port(), _free_port()]
    values = own_environment(home)
    values["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    inherited = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    log = home / "ray.log"
    # A short path: Ray puts sockets below it, whose paths may have 107 characters.
    folder = tempfile.mkdtemp(prefix="emc", dir="/tmp")
    with log.open("ab") as out:
        child = subprocess.Popen(
            _command(folder, ports, num_cpus),
            cwd=code_root(),
            env={**inherited, **values},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children.append(child)
    dashboard = f"http://{LOOPBACK}:{ports[1]}"
    head = Head(child.pid, born(child.pid), f"{LOOPBACK}:{ports[0]}", dashboard, str(log), folder)
    try:
        with environment(values):
            _wait(child, head, progress)
    except BaseException:
        stop(head)
        raise
    return head


def _command(folder: str, ports: Sequence[int], num_cpus: int | None) -> list[str]:
    """``--block`` keeps one process above all others: when it ends, the kernel ends them too."""
    options = {
        "node-ip-address": LOOPBACK,
        "port": ports[0],
        "dashboard-host": LOOPBACK,
        "dashboard-port": ports[1],
        "ray-client-server-port": ports[2],
        "dashboard-agent-listen-port": ports[3],
        "temp-dir": folder,
    }
    if num_cpus is not None:
        options["num-cpus"] = num_cpus
    line = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
    ]
    return line + [f"--{name}={value}" for name, value in options.items()]


def _wait(child: "subprocess.Popen[bytes]", head: Head, progress: Callable[[str], None]) -> None:
    begun = said = time.monotonic()
    while not answers(head.dashboard):
        now = time.monotonic()
        if child.poll() is not None or now - begun > _WAIT_S:
            lines = Path(head.log).read_text(errors="replace").strip().splitlines()
            what = f"Ray did not start ({(lines or ['it said nothing'])[-1][:300]})."
            raise ComputeError(what, head.address, f"Its log is {head.log}.")
        if now - said >= 5:
            said = now
            progress(f"Ray is starting, {now - begun:.0f} s")
        time.sleep(0.3)


def answers(dashboard: str) -> bool:
    """Whether a dashboard answers there and knows our token."""
    try:
        headers = dashboard_headers()
        return httpx.get(f"{dashboard}/api/jobs/", headers=headers, timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def stop(head: Head, patience_s: float = 6.0) -> None:
    """End the head node and wait until every process of its own is gone; one that has ended is no fault.

    An idle Ray ends within two seconds; one that serves a model would wait half a minute for replicas that
    nobody asks any more, so the head is killed after ``patience_s``. The kernel ends most processes with it,
    but Ray's agents notice only after a while: those of the head's own session that are left after half of
    ``patience_s`` are killed by their ids.
    """
    own = _session(head)
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if not lives(head.pid, head.born):
            break
        with contextlib.suppress(ProcessLookupError):
            os.kill(head.pid, kind)
        until = time.monotonic() + patience_s
        while lives(head.pid, head.born) and time.monotonic() < until:
            time.sleep(0.1)
    _outlived(own, patience_s / 2)
    for child in _children:
        child.poll()  # takes note of its end
    shutil.rmtree(head.folder, ignore_errors=True)


def _session(head: Head) -> dict[int, str]:
    """The processes of the head's session but itself, by id, with the moment each began; Linux only."""
    if not lives(head.pid, head.born):
        return {}  # its id may be another's by now
    found: dict[int, str] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == head.pid and int(stat.parent.name) != head.pid:
                found[int(stat.parent.name)] = fields[19]
    return found


def _outlived(processes: Mapping[int, str], patience_s: float) -> None:
    """Wait until these processes have ended; kill those that have not in time."""
    until = time.monotonic() + patience_s
    while (left := [pid for pid, since in processes.items() if lives(pid, since)]) and (
        time.monotonic() < until
    ):
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + patience_s
    while any(lives(pid, processes[pid]) for pid in left) and time.monotonic() < until:
        time.sleep(0.1)


def born(pid: int) -> str:
    """When the process with this id began, in some unit; empty when there is none (or it has ended)."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # a dead child stays in the table until it is asked for
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():  # not Linux
        found = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
        )
        return found.stdout.strip()
    try:
        fields = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]


def lives(pid: int, since: str) -> bool:
    """Whether this very process still runs: ids are used again, so the moment it began must agree."""
    return bool(since) and born(pid) == since


def _free_port(wanted: int = 0) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted))
        except OSError as error:
            what = f"the port cannot be used ({error.strerror})."
            raise ComputeError(what, f"{LOOPBACK}:{wanted}", "Name another one, or 0 for any.") from error
        return int(probe.getsockname()[1])


def main(arguments: Sequence[str]) -> int:
    """``start`` or ``stop`` the Ray of a workspace."""
    verb = arguments[0] if arguments else ""
    home = Path(arguments[1] if len(arguments) > 1 else "workspace") / ".emclean"
    record = home / "ray.json"
    if verb == "start":
        head = start(home, progress=print)
        record.write_text(json.dumps(asdict(head)))
        print(f"RAY_ADDRESS={head.address}  dashboard {head.dashboard}")
        print(f"RAY_AUTH_MODE=token  RAY_AUTH_TOKEN_PATH={home.absolute() / 'ray_token'}")
        return 0
    if verb == "stop" and record.exists():
        stop(Head(**json.loads(record.read_text())))
        record.unlink()
        return 0
    print(__doc__ if verb != "stop" else f"no Ray is on record in {record}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
