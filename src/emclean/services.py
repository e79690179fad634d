"""The neighbours on this machine: Ray, Label Studio, MLflow; started once, found again, stopped by id.

What runs is on record in ``<workspace>/services.json`` (mode 0600). A second ``up`` reuses what lives and
starts again what died.
"""

import fcntl
import json
import math
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from emclean.distributed import local
from emclean.errors import ConfigError
from emclean.stores import mlflow_server
from emclean.stores.label_studio import server as label_studio_server

FIRST_PAUSE_S = 15.0
"""Seconds from the first to the second word of a service that is starting."""

Say = Callable[[str], None]
NAMES = ("ray", "label_studio", "mlflow")
TITLES = {"ray": "Ray", "label_studio": "Label Studio", "mlflow": "MLflow"}


@dataclass(frozen=True)
class Service:
    """One neighbour: its process (id and moment of birth), its address for people, and further facts.

    Facts are addresses and names of files, never secrets.
    """

    pid: int
    born: str
    url: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return local.lives(self.pid, self.born)


@dataclass(frozen=True)
class Addresses:
    """Where the living neighbours of a workspace answer; None for one that does not run."""

    ray: str | None = None
    dashboard: str | None = None
    label_studio: str | None = None
    label_studio_token_file: Path | None = None
    label_studio_documents: Path | None = None
    mlflow: str | None = None


def home(workspace: Path) -> Path:
    """Where tokens, logs and databases of the neighbours lie."""
    return workspace.absolute() / ".emclean"


def up(
    workspace: Path,
    names: Sequence[str] = NAMES,
    *,
    num_cpus: int | None = None,
    say: Say = lambda line: None,
) -> dict[str, Service]:
    """Make sure that the named neighbours run; return all that do."""
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise ConfigError([f"{name}: not a service; there are {', '.join(NAMES)}" for name in unknown], "up")
    with _locked(workspace):
        services = read(workspace)
        for name in names:
            if name in services and services[name].alive:
                say(f"{TITLES[name]} runs already at {services[name].url}")
                continue
            if name in services:
                say(f"{TITLES[name]} has ended; starting it again")
            say(f"starting {TITLES[name]} …")
            services[name] = _start(name, workspace, services.get(name), num_cpus, seldom(say))
            _write(workspace, services)
            say(f"{TITLES[name]}: {services[name].url}")
        return {name: service for name, service in services.items() if service.alive}


def seldom(say: Say, clock: Callable[[], float] = time.monotonic) -> Say:
    """Pass a line on at once, the next after 15 s, then each after twice as long; drop those between."""
    since, pause = -math.inf, FIRST_PAUSE_S

    def pass_on(line: str) -> None:
        nonlocal since, pause
        now = clock()
        if now - since >= pause:
            pause = pause if since == -math.inf else 2 * pause
            since = now
            say(line)

    return pass_on


def down(workspace: Path, names: Sequence[str] = NAMES, say: Say = lambda line: None) -> None:
    """End the named neighbours of this workspace, and nothing else; those that ended already are no fault."""
    with _locked(workspace):
        services = read(workspace)
        for name in [name for name in names if name in services]:
            service = services.pop(name)
            if service.alive:
                say(f"stopping {TITLES[name]} …")
                _stop(name, service)
            _write(workspace, services)


def addresses(workspace: Path) -> Addresses:
    """Where the neighbours that ``up`` started answer now."""
    living = {name: service for name, service in read(workspace).items() if service.alive}
    ray, labels, mlflow = (living.get(name) for name in NAMES)
    return Addresses(
        ray=ray.facts["address"] if ray else None,
        dashboard=ray.url if ray else None,
        label_studio=labels.url if labels else None,
        label_studio_token_file=Path(labels.facts["credentials"]) if labels else None,
        label_studio_documents=Path(labels.facts["document_root"]) if labels else None,
        mlflow=mlflow.url if mlflow else None,
    )


def read(workspace: Path) -> dict[str, Service]:
    """Everything on record, alive or not."""
    try:
        content = json.loads(_record(workspace).read_text(encoding="utf-8"))
        return {name: Service(**entry) for name, entry in content.items() if name in NAMES}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError) as error:
        fault = f"cannot be read ({error}); end the services by hand, then remove it"
        raise ConfigError([fault], str(_record(workspace))) from error


def _record(workspace: Path) -> Path:
    return workspace.absolute() / "services.json"


def _write(workspace: Path, services: Mapping[str, Service]) -> None:
    file = _record(workspace)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        json.dump({name: asdict(service) for name, service in services.items()}, stream, indent=1)
    draft.replace(file)


@contextmanager
def _locked(workspace: Path) -> Iterator[None]:
    """One ``up`` or ``down`` at a time."""
    home(workspace).mkdir(parents=True, exist_ok=True)
    with (home(workspace) / "services.lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _start(name: str, workspace: Path, before: Service | None, num_cpus: int | None, say: Say) -> Service:
    port = _port_again(before)
    if name == "ray":
        head = local.start(home(workspace), num_cpus, port, say)
        return Service(
            head.pid,
            head.born,
            head.dashboard,
            {"address": head.address, "log": head.log, "folder": head.folder},
        )
    if name == "label_studio":
        server = label_studio_server.start(home(workspace) / "label_studio", port=port, progress=say)
        facts = {
            "credentials": str(server.credentials),
            "document_root": str(server.document_root),
            "log": str(server.log),
        }
        return Service(server.pid, local.born(server.pid), server.url, facts)
    tracker = mlflow_server.start(home(workspace) / "mlflow", port=port or None, progress=say)
    return Service(tracker.pid, local.born(tracker.pid), tracker.url, {"log": str(tracker.log)})


def _port_again(before: Service | None) -> int:
    """The port that the service had, so that open pages go on working; 0 (any) where it is taken."""
    port = urlsplit(before.url).port if before else None
    if port is None:
        return 0
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return 0
    return port


def _stop(name: str, service: Service) -> None:
    if name == "ray":
        facts = service.facts
        places = (facts["address"], service.url, facts["log"], facts["folder"])
        local.stop(local.Head(service.pid, service.born, *places))
    elif name == "label_studio":
        label_studio_server.stop(service.pid)
    else:
        mlflow_server.stop(service.pid)
