"""Serving a model version with Ray Serve: the first deployment, and swaps without a dropped request.

Everything goes through the dashboard's REST interface. A new ``user_config`` reaches running replicas,
which load the next model beside the current one; Serve's own ``serve.run`` would restart them instead.
"""

import errno
import hashlib
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx

from emclean.distributed.session import code_root, dashboard_headers
from emclean.errors import ServingError

APPLICATION, DEPLOYMENT = "emclean", "Detector"
_PATH = "/api/serve/applications/"

Identity = tuple[str, str, str]
"""What makes a served model: its registered name (or nothing), its version, the SHA-256 of its weights."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how a model is served: the cluster's dashboard, the workspace, the address, the replicas.

    ``port`` 0 takes a free one. Off loopback a bearer token is required: that of ``EMCLEAN_SERVE_TOKEN``,
    else one kept in ``<workspace>/.emclean/serve_token`` (mode 0600).
    """

    dashboard: str
    workspace: Path
    host: str = "127.0.0.1"
    port: int = 8000
    replicas: int = 2

    @property
    def open_to_others(self) -> bool:
        """Whether the address can be reached from other machines."""
        if self.host == "localhost":
            return False
        try:
            return not ip_address(self.host).is_loopback
        except ValueError:
            return True

    @property
    def token_file(self) -> Path:
        """Where the bearer token is kept."""
        return self.workspace.absolute() / ".emclean" / "serve_token"


def probe(endpoint: Endpoint) -> str:
    """Raise :class:`ServingError` where the service could not listen: another program has its port.

    Where our Ray's Serve listens already, it stays there: the remark returned says so when that is not the
    wanted address, and is empty otherwise. Nothing is started or changed.
    """
    details = _get(endpoint)
    host, port = _address(endpoint, details)
    if host == endpoint.host and endpoint.port in (0, port):
        return ""
    return (
        f"the model is served on {host} port {port}, where Serve listens already, not on {endpoint.host} "
        f"port {endpoint.port}; to change it, restart Ray (emclean down, emclean up)"
    )


def deploy(
    endpoint: Endpoint,
    version: str,
    weights: Path,
    card: Mapping[str, Any],
    timeout_s: float = 240.0,
) -> str:
    """Serve this version, wait until every replica answers with it, and return the service's address.

    Where the version cannot be used, the one before goes on, is put back into the configuration, and
    :class:`ServingError` says why.
    """
    details = _get(endpoint)
    host, port = _address(endpoint, details)
    token = _token(endpoint)
    url = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    before = _user_config(details)
    attempt = secrets.token_hex(4)
    wanted = {
        "version": version,
        "weights": str(weights.absolute()),
        "card": dict(card),
        "sha256": _sha256(weights),
        "attempt": attempt,
    }
    _put(endpoint, _config(endpoint, (host, port), wanted, details))
    try:
        _wait(endpoint, url, token, wanted, timeout_s)
    except ServingError:
        if before is not None and _identity(before) != _identity(wanted):
            _put(endpoint, _config(endpoint, (host, port), before, _get(endpoint)))
        raise
    return url


def _config(
    endpoint: Endpoint, address: tuple[str, int], user_config: Mapping[str, Any], details: Mapping[str, Any]
) -> dict[str, Any]:
    """Our application and those of others as they stand: Serve removes what is not named."""
    others = [
        app["deployed_app_config"]
        for name, app in details.get("applications", {}).items()
        if name != APPLICATION and app.get("deployed_app_config")
    ]
    arguments = {
        "workspace": str(endpoint.workspace.absolute()),
        "require_token": endpoint.open_to_others,
        "token_file": str(endpoint.token_file) if endpoint.open_to_others else None,
    }
    ours = {
        "name": APPLICATION,
        "route_prefix": "/",
        "import_path": "serving.app:build",
        "runtime_env": {"env_vars": {"PYTHONPATH": str(code_root())}},
        "args": arguments,
        "deployments": [_deployment(endpoint, user_config)],
    }
    return {
        "proxy_location": "HeadOnly",
        "http_options": {"host": address[0], "port": address[1], "request_timeout_s": 120},
        "applications": [*others, ours],
    }


def _deployment(endpoint: Endpoint, user_config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": DEPLOYMENT,
        "num_replicas": endpoint.replicas,
        "max_ongoing_requests": 8,
        "max_queued_requests": 64,
        "max_surge_percent": 100,
        "graceful_shutdown_timeout_s": 30,
        "ray_actor_options": {"num_cpus": 0},
        "user_config": dict(user_config),
    }


def _wait(endpoint: Endpoint, url: str, token: str, wanted: Mapping[str, Any], timeout_s: float) -> None:
    """Until the application runs and every replica of it has answered with the wanted model."""
    until = time.monotonic() + timeout_s
    answered: dict[str, Identity] = {}
    said = "no answer yet"
    while time.monotonic() < until:
        app = _get(endpoint).get("applications", {}).get(APPLICATION, {})
        said = f"{app.get('status', 'not there')}: {app.get('message', '')}".strip(": ")
        if app.get("status") == "DEPLOY_FAILED":
            raise ServingError(f"the service could not be started ({said[:500]}).", url, "See Serve's log.")
        replicas = _replicas(app)
        for _ in range(2 * len(replicas)):
            _ask(url, token, wanted, answered)
        ready = {replica for replica, model in answered.items() if model == _identity(wanted)}
        if app.get("status") == "RUNNING" and len(replicas) >= endpoint.replicas and replicas <= ready:
            return
        time.sleep(0.3)
    _address(endpoint, _get(endpoint))  # the likelier reason: another program took the port meanwhile
    fix = "Look at its log, or swap again."
    raise ServingError(
        f"not every replica took version {wanted['version']} in time ({said[:300]}).", url, fix
    )


def _replicas(app: Mapping[str, Any]) -> set[str]:
    deployment = app.get("deployments", {}).get(DEPLOYMENT, {})
    if deployment.get("status") != "HEALTHY":
        return set()
    return {str(r["replica_id"]) for r in deployment.get("replicas", ()) if r.get("state") == "RUNNING"}


def _ask(url: str, token: str, wanted: Mapping[str, Any], answered: dict[str, Identity]) -> None:
    """Ask one replica (Serve chooses which) for its model; a failure to take the wanted one is raised."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        health = httpx.get(f"{url}/healthz", headers=headers, timeout=10, trust_env=False).json()
    except (httpx.HTTPError, ValueError):
        return  # it is still starting
    if not isinstance(health, dict):
        return  # another program answers
    failure = health.get("last_failure") or {}
    if failure.get("attempt") == wanted["attempt"]:
        fix = "The version before goes on."
        raise ServingError(f"version {wanted['version']} cannot be served ({failure['error']}).", url, fix)
    told = (health.get("name"), health.get("model_version"), health.get("sha256"))
    answered[str(health.get("replica"))] = _plain(*told)


def _identity(user_config: Mapping[str, Any]) -> Identity:
    """Which model a configuration means: version numbers alone begin at 1 under every registered name."""
    name = (user_config.get("card") or {}).get("name")
    return _plain(name, user_config.get("version"), user_config.get("sha256"))


def _plain(name: object, version: object, sha256: object) -> Identity:
    return str(name or ""), str(version or ""), str(sha256 or "")


def _get(endpoint: Endpoint) -> dict[str, Any]:
    details: dict[str, Any] = _call(
        endpoint, lambda address, headers: httpx.get(address, headers=headers, timeout=60, trust_env=False)
    ).json()
    return details


def _put(endpoint: Endpoint, config: Mapping[str, Any]) -> None:
    _call(
        endpoint,
        lambda address, headers: httpx.put(
            address, headers=headers, json=config, timeout=120, trust_env=False
        ),
    )


def _call(endpoint: Endpoint, send: Callable[[str, dict[str, str]], httpx.Response]) -> httpx.Response:
    address = endpoint.dashboard + _PATH
    fix = "Check that Ray's dashboard runs (emclean status)."
    try:
        response = send(address, dashboard_headers())
    except httpx.HTTPError as error:
        raise ServingError(f"Ray's dashboard does not answer ({error}).", address, fix) from error
    if not response.is_success:
        raise ServingError(
            f"Ray refused the call ({response.status_code} {response.text[:500]}).", address, fix
        )
    return response


def _user_config(details: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is deployed now."""
    app = details.get("applications", {}).get(APPLICATION, {})
    for deployment in (app.get("deployed_app_config") or {}).get("deployments", ()):
        if deployment.get("name") == DEPLOYMENT:
            kept: dict[str, Any] | None = deployment.get("user_config")
            return kept
    return None


def _address(endpoint: Endpoint, details: Mapping[str, Any]) -> tuple[str, int]:
    """Host and port: those that Serve listens on already (it cannot change them), else the wanted ones."""
    running = details.get("http_options") or {}
    if running.get("port"):
        host, port = str(running["host"]), int(running["port"])
        if host != endpoint.host and Endpoint(endpoint.dashboard, endpoint.workspace, host).open_to_others:
            fix = "Restart Ray (emclean down, emclean up), or ask for that host with a token."
            raise ServingError(
                f"Serve listens on {host} already, not on {endpoint.host}.", f"port {port}", fix
            )
        if not _listens(details):
            fix = (
                "End that program, or restart Ray (emclean down, emclean up) and set services.serve_port "
                "(0 takes any free port)."
            )
            _free_port(host, port, fix)
        return host, port
    fix = "Set services.serve_port to a free port (0 takes any), or end that program."
    return endpoint.host, _free_port(endpoint.host, endpoint.port, fix)


def _listens(details: Mapping[str, Any]) -> bool:
    """Whether Serve's own proxy has the port, or is about to."""
    return any(p.get("status") in ("HEALTHY", "STARTING") for p in details.get("proxies", {}).values())


def _free_port(host: str, port: int, fix: str) -> int:
    """The port, or any free one for 0; :class:`ServingError` where nothing can listen on it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            why = "is taken by another program" if taken else f"cannot be used ({error.strerror})"
            hint = fix if taken else "Set services.serve_host and services.serve_port to what can be used."
            raise ServingError(f"port {port} of {host} {why}.", "served model", hint) from error
        return int(trial.getsockname()[1])


def _token(endpoint: Endpoint) -> str:
    """The token that callers must send, kept in its file; none on loopback."""
    if not endpoint.open_to_others:
        return ""
    file = endpoint.token_file
    given = os.environ.get("EMCLEAN_SERVE_TOKEN", "")
    if file.exists() and not given:
        return file.read_text(encoding="utf-8").strip()
    token = given or secrets.token_urlsafe(32)
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
        stream.write(token)
    draft.replace(file)
    return token


def _sha256(weights: Path) -> str:
    try:
        with weights.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise ServingError(f"the weights cannot be read ({error.strerror}).", str(weights)) from error
