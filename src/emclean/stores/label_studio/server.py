"""A Label Studio server on this machine: started on loopback, nothing sent out, stopped by its process id."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx

from emclean.errors import LabelServiceError

Progress = Callable[[str], None]

_HOST = "127.0.0.1"
_WAIT_S = 300.0
_EMAIL = "expert@emclean.local"
_INSTALL = "Set it up with `make setup-services`, or name the executable in EMCLEAN_LABEL_STUDIO."
_COMMAND = Path(".venv-label-studio/bin/label-studio")
_ROOT = Path(__file__).resolve().parents[4]
"""The folder that emclean was set up in; elsewhere after an installation without its sources."""


_children: dict[int, "subprocess.Popen[bytes]"] = {}
"""Servers that this process started: they outlive their handles, and are asked here whether they ended."""


@dataclass(frozen=True)
class ServerProcess:
    """A running server: ``pid``, ``url``, the folder it serves pictures from, and where its account is kept.

    ``credentials`` is a JSON file (readable by its owner only) with ``email``, ``password`` and ``token``.
    """

    pid: int
    url: str
    document_root: Path
    credentials: Path
    log: Path

    def token(self) -> str:
        """The personal access token of the server's account."""
        return _load(self.credentials)["token"]


def find_executable() -> Path:
    """Label Studio's command: from EMCLEAN_LABEL_STUDIO, ``.venv-label-studio`` here or where emclean lies,
    or the search path."""
    named = os.environ.get("EMCLEAN_LABEL_STUDIO")
    beside = (str(folder / _COMMAND) for folder in (Path.cwd(), _ROOT) if (folder / _COMMAND).exists())
    found = named or next(beside, None) or shutil.which("label-studio")
    if not found or not Path(found).exists():
        raise LabelServiceError("Label Studio's command was not found", found or "label-studio", _INSTALL)
    return Path(found)


def start(
    folder: Path,
    document_root: Path | None = None,
    port: int = 0,
    executable: Path | None = None,
    progress: Progress = lambda line: None,
) -> ServerProcess:
    """Start a server that keeps everything in ``folder``, or find the one that runs there; wait for it.

    ``port`` 0 takes a free one. The first start sets up the database and takes about a minute.
    """
    folder = folder.absolute()
    document_root = (document_root or folder / "served").absolute()
    running = _running(folder)
    if running:
        progress(f"Label Studio runs already at {running.url}")
        return running
    command = (executable or find_executable()).absolute()
    document_root.mkdir(parents=True, exist_ok=True)
    account = _account(folder)
    server = _launch(folder, command, document_root, _usable_port(port))
    try:
        _wait(server, progress)
        _keep_token(server, account)
    except BaseException:
        stop(server.pid)
        raise
    state = {"pid": server.pid, "url": server.url, "document_root": str(document_root)}
    _write(folder / "server.json", state)
    progress(f"Label Studio is ready at {server.url}")
    return server


def stop(pid: int, wait_s: float = 15.0) -> None:
    """End the server with this process id; one that has ended already is no fault."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if not _is_server(pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, kind)
        until = time.monotonic() + wait_s
        while _is_server(pid) and time.monotonic() < until:
            time.sleep(0.1)


def _is_server(pid: int) -> bool:
    """Whether this process lives and is a Label Studio (process ids are used again)."""
    child = _children.get(pid)
    if (
        child is not None and child.poll() is not None
    ):  # a dead child stays in the table until it is asked for
        del _children[pid]
        return False
    try:
        os.kill(pid, 0)
        return b"label-studio" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return not Path("/proc").exists()
    except OSError:
        return False


def _running(folder: Path) -> ServerProcess | None:
    try:
        state = _load(folder / "server.json")
        pid, url = int(state["pid"]), state["url"]
    except (LabelServiceError, KeyError, ValueError):
        return None
    if not (_is_server(pid) and _healthy(url)):
        return None
    return _process(pid, url, folder, Path(state["document_root"]))


def _process(pid: int, url: str, folder: Path, document_root: Path) -> ServerProcess:
    return ServerProcess(pid, url, document_root, folder / "credentials.json", folder / "label-studio.log")


def _usable_port(port: int) -> int:
    """The port itself if it is free: Label Studio would silently take the next one."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            what, fix = (
                f"the port cannot be used ({error.strerror})",
                "Name another, or end what listens there.",
            )
            raise LabelServiceError(what, f"{_HOST}:{port}", fix) from error
        return int(probe.getsockname()[1])


def _account(folder: Path) -> dict[str, str]:
    """The server's account, made once per folder."""
    path = folder / "credentials.json"
    if path.exists():
        return _load(path)
    folder.mkdir(parents=True, exist_ok=True)
    account = {"email": _EMAIL, "password": secrets.token_urlsafe(18), "token": ""}
    _write(path, account)
    return account


def _load(path: Path) -> dict[str, str]:
    try:
        return {name: str(value) for name, value in json.loads(path.read_text(encoding="utf-8")).items()}
    except (OSError, ValueError, AttributeError) as error:
        what = "the file cannot be read as JSON"
        raise LabelServiceError(what, str(path), "Restore or remove it.") from error


def _write(path: Path, content: Mapping[str, object]) -> None:
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(content, stream, indent=1)
    os.replace(partial, path)


def _environment(folder: Path, document_root: Path) -> dict[str, str]:
    """What the server is told; secrets go this way because a command line is visible to everybody."""
    account = _load(folder / "credentials.json")
    settings = {
        "USERNAME": account["email"],
        "PASSWORD": account["password"],
        "BASE_DATA_DIR": str(folder / "data"),
        "ALLOWED_HOSTS": f"{_HOST},localhost",
        "LATEST_VERSION_CHECK": "false",
        "COLLECT_ANALYTICS": "false",
        "SENTRY_DSN": "",
        "FRONTEND_SENTRY_DSN": "",
        "DISABLE_SIGNUP_WITHOUT_LINK": "true",
        "LOCAL_FILES_SERVING_ENABLED": "true",
        "LOCAL_FILES_DOCUMENT_ROOT": str(document_root),
    }
    return {**os.environ, **{f"LABEL_STUDIO_{name}": value for name, value in settings.items()}}


def _launch(folder: Path, command: Path, document_root: Path, port: int) -> ServerProcess:
    data, log = folder / "data", folder / "label-studio.log"
    data.mkdir(parents=True, exist_ok=True)
    line = [str(command), "start", "--no-browser", "--data-dir", str(data)]
    line += ["--port", str(port), "--internal-host", _HOST]
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
        child = subprocess.Popen(
            line,
            env=_environment(folder, document_root),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return _process(child.pid, f"http://{_HOST}:{port}", folder, document_root)


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=5.0, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def _wait(server: ServerProcess, progress: Progress) -> None:
    begun = time.monotonic()
    said = 0.0
    while not _healthy(server.url):
        waited = time.monotonic() - begun
        if not _is_server(server.pid) or waited > _WAIT_S:
            what = f"Label Studio did not start ({_last_line(server.log)})"
            raise LabelServiceError(what, server.url, f"Its log is {server.log}.")
        if waited - said >= 5.0 or not said:
            said = max(waited, 0.1)
            progress(f"Label Studio is starting, {waited:.0f} s (the first start takes about a minute)")
        time.sleep(0.5)


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def _keep_token(server: ServerProcess, account: Mapping[str, str]) -> None:
    """Make sure that ``credentials.json`` holds a personal access token that works."""
    with httpx.Client(base_url=server.url, timeout=60.0, trust_env=False) as http:
        kept = account["token"]
        if kept and http.post("/api/token/refresh", json={"refresh": kept}).is_success:
            return
        headers = _sign_in(http, server, account)
        _write(server.credentials, {**account, "token": _new_token(http, headers, server)})


def _sign_in(http: httpx.Client, server: ServerProcess, account: Mapping[str, str]) -> dict[str, str]:
    """Sign in as a browser does; return the headers that further calls of this session need."""
    http.get("/user/login/")
    form = {"email": account["email"], "password": account["password"]}
    form["csrfmiddlewaretoken"] = http.cookies.get("csrftoken") or ""
    http.post("/user/login/", data=form, headers={"Referer": server.url})
    if "sessionid" not in http.cookies:
        fix = "Restore credentials.json, or start with another folder."
        raise LabelServiceError("Label Studio did not accept the kept account", server.url, fix)
    return {"X-CSRFToken": (http.cookies.get("csrftoken") or ""), "Referer": server.url}


def _new_token(http: httpx.Client, headers: Mapping[str, str], server: ServerProcess) -> str:
    """A new personal access token; one that was made before but is no longer known is withdrawn."""
    response = http.post("/api/token/", headers=dict(headers))
    if response.status_code == 409:
        for old in http.get("/api/token/").json():
            http.post("/api/token/blacklist/", json={"refresh": old["token"]}, headers=dict(headers))
        response = http.post("/api/token/", headers=dict(headers))
    if not response.is_success:
        raise LabelServiceError(f"no access token could be made (status {response.status_code})", server.url)
    return str(response.json()["token"])
