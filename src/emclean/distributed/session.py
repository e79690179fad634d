"""Joining a Ray cluster, or starting one on this machine for the length of a ``with`` block."""

import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import emclean
from emclean.errors import ComputeError

TOKEN_NAME = "ray_token"

LOOPBACK = "127.0.0.1"

_STAY_ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""Without this Ray takes 127.0.0.1 for the machine's outer address, where it starts and where it joins."""


@dataclass(frozen=True)
class Session:
    """A joined cluster: its address, its dashboard (``http://host:port``, or empty) and what it offers.

    ``started`` says whether it was started for this session and ends with it.
    """

    address: str
    dashboard: str
    cpus: int
    gpus: int
    started: bool


def code_root() -> Path:
    """The folder from which ``serving`` can be imported: the root of the repository."""
    root = Path(emclean.__file__).resolve().parents[2]
    return root if (root / "serving" / "app.py").exists() else Path.cwd()


def token_file(home: Path) -> Path:
    """The file of the cluster's token in ``home``, made with a fresh token (mode 0600) if there is none."""
    file = home / TOKEN_NAME
    home.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return file
    with os.fdopen(handle, "w") as stream:
        stream.write(secrets.token_hex(32))
    return file


def own_environment(home: Path | None) -> dict[str, str]:
    """What the processes of a cluster that we start must know: the token, the code, quiet third parties."""
    paths = [str(code_root()), os.environ.get("PYTHONPATH", "")]
    auth = joining_environment(None) if home is None else token_environment(token_file(home))
    return {
        **auth,
        **_proxy_environment(),
        **_STAY_ON_LOOPBACK,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _proxy_environment() -> dict[str, str]:
    """Bound uploads at Serve's proxy, which would otherwise take in a whole body before we see it."""
    if not (code_root() / "serving" / "limits.py").exists():
        return {}
    return {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "serving.limits:proxy_middlewares"}


def joining_environment(home: Path | None) -> dict[str, str]:
    """How to prove ourselves to a running cluster: as the environment says, else by a token we know."""
    if "RAY_AUTH_MODE" in os.environ:
        return {}
    known = [home / TOKEN_NAME] if home else []
    known += [Path(os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")).expanduser()]
    for file in known:
        if file.exists():
            return token_environment(file)
    return {"RAY_AUTH_MODE": "token" if "RAY_AUTH_TOKEN" in os.environ else "disabled"}


def token_environment(file: Path) -> dict[str, str]:
    """How to prove ourselves with the token in a file."""
    return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(file.resolve())}


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the length of the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def connect(
    address: str | None = None, num_cpus: int | None = None, *, home: Path | None = None
) -> Iterator[Session]:
    """Join the Ray at ``address`` (or ``RAY_ADDRESS``), or start one here and end it with the block.

    ``home`` is the folder that keeps the token (``<workspace>/.emclean``); ``num_cpus`` counts only for a
    cluster that is started. A process that has joined already stays joined.
    """
    known = sys.modules.get("ray")
    if known is not None and known.is_initialized():  # with its own token, which must stay
        yield _describe(known, started=False)
        return
    address = address or os.environ.get("RAY_ADDRESS")
    joining = {**joining_environment(home), **_STAY_ON_LOOPBACK}
    with environment(joining if address else own_environment(home)):
        import ray

        read_environment_again()
        if address:
            _reachable(address)
        _init(ray, address, num_cpus)
        try:
            yield _describe(ray, started=address is None)
        finally:
            ray.shutdown()


def read_environment_again() -> None:
    """Ray reads its settings once, at import; a process that imported it earlier must read them anew."""
    from ray._private import ray_constants
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    name = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
    beyond = ray_constants.env_bool(name, not ray_constants.IS_WINDOWS_OR_OSX)
    ray_constants.ENABLE_RAY_CLUSTER = beyond


def _reachable(address: str) -> None:
    """Fail at once where nobody listens: Ray itself would wait for minutes."""
    place = urlsplit(address if "://" in address else f"ray://{address}")
    if place.port is None:
        return
    try:
        socket.create_connection((place.hostname or "", place.port), timeout=10).close()
    except OSError as error:
        fix = "Start it (emclean up), or unset RAY_ADDRESS to start one for this run only."
        raise ComputeError(f"no Ray answers there ({error.strerror or error}).", address, fix) from error


def _init(ray: Any, address: str | None, num_cpus: int | None) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # "local" forces a new cluster, even where another one runs on this machine. The dashboard is
        # needed: Train's cleaner and the serving API live there.
        options |= {"num_cpus": num_cpus, "include_dashboard": True, "dashboard_host": LOOPBACK}
        options["_node_ip_address"] = LOOPBACK  # decides where Ray's processes listen
    try:
        ray.init(address or "local", **options)
    except (ray.exceptions.RayError, RuntimeError, ValueError, OSError) as error:
        fix = (
            "Check the address and the token (RAY_AUTH_MODE, RAY_AUTH_TOKEN_PATH), or start one: emclean up."
        )
        raise ComputeError(
            f"could not join or start Ray ({_first_line(error)}).", address or "", fix
        ) from error


def _describe(ray: Any, started: bool) -> Session:
    context = ray.get_runtime_context()
    offered = ray.cluster_resources()
    host = ray._private.worker.get_dashboard_url() or ""  # the only place that also knows joined clusters
    return Session(
        address=context.gcs_address,
        dashboard=f"http://{host}" if host else "",
        cpus=int(offered.get("CPU", 0)),
        gpus=int(offered.get("GPU", 0)),
        started=started,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def dashboard_headers() -> dict[str, str]:
    """The header that proves us to the dashboard, from the same places as Ray's own (never logged)."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token":
        return {}
    token = os.environ.get("RAY_AUTH_TOKEN", "")
    if not token:
        default = Path.home() / ".ray" / "auth_token"
        file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", str(default)))
        token = file.read_text().strip() if file.exists() else ""
    return {"Authorization": f"Bearer {token}"} if token else {}
