"""Calls to Label Studio's HTTP API with a personal access token.

Reading is retried a few times. Writing never is: whether a lost call was carried out is for the caller to
find out, so it raises ``Unanswered``.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

from emclean.errors import LabelServiceError

_ACCESS_SECONDS = 240.0
"""Access tokens live 300 s on the server."""

PATIENCE_S = 600.0
"""How long those who wait for answers put up with a server that gives none."""

_READ_ATTEMPTS = 3
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_START = "Check that Label Studio runs and that the address is right."
_TOKEN = "Make a personal access token in Label Studio (Account & Settings) and give it to emclean."

Filter = Mapping[str, Any]


class Unanswered(LabelServiceError):
    """Label Studio gave no usable answer, so a change may or may not have been carried out."""


class AlreadyThere(LabelServiceError):
    """Label Studio has it already (status 409): a repeated call, not a failure."""


def read_token(path: Path) -> str:
    """A personal access token from a file: the token alone, or JSON with a field ``token``."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        what = f"the token file cannot be read ({error.strerror})"
        raise LabelServiceError(what, str(path), _TOKEN) from error
    if not text.startswith("{"):
        return text
    try:
        return str(json.loads(text)["token"])
    except (ValueError, KeyError) as error:
        raise LabelServiceError("the token file holds JSON without a `token`", str(path), _TOKEN) from error


def task_filter(column: str, operator: str, kind: str, value: object) -> Filter:
    """One filter of Label Studio's data manager, for instance ``("id", "greater", "Number", 7)``."""
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


class LabelStudioClient:
    """A session with one Label Studio server. Not picklable and for one thread; close it or use ``with``."""

    def __init__(
        self,
        url: str,
        token: str,
        timeout: float = 60.0,
        pause: Callable[[float], None] = time.sleep,
        transport: httpx.BaseTransport | None = None,
    ):
        self.url = url.rstrip("/")
        self.pause = pause
        self._refresh, self._access, self._access_until = token, "", 0.0
        try:
            local = urlsplit(self.url).hostname in _LOOPBACK
            self._http = httpx.Client(
                base_url=self.url, timeout=timeout, trust_env=not local, transport=transport
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise LabelServiceError(f"this is not an address ({error})", self.url, _START) from error

    def __repr__(self) -> str:
        return f"LabelStudioClient({self.url!r})"

    def __enter__(self) -> "LabelStudioClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session."""
        self._http.close()

    def get(self, path: str, **query: object) -> Any:
        """Read JSON; repeated a few times while the server gives no answer."""
        return self._json(self._read(path, query), path)

    def picture(self, path: str) -> bytes:
        """The bytes that a browser gets from a relative address such as a task's picture."""
        return self._read(path, {}).content

    def post(self, path: str, body: object, **query: object) -> Any:
        """Create something, with one attempt only."""
        return self._json(self._call("POST", path, body, query), path)

    def patch(self, path: str, body: object) -> Any:
        """Change something, with one attempt only."""
        return self._json(self._call("PATCH", path, body, {}), path)

    def delete(self, path: str) -> None:
        """Delete something, with one attempt only; what is gone already is no fault."""
        self._call("DELETE", path, None, {}, allowed=(404,))

    def tasks(
        self, project: int, filters: Sequence[Filter], include: Sequence[str], page_size: int = 100
    ) -> Iterator[dict[str, Any]]:
        """Tasks that pass all filters, by ascending id; pages are keyed by it, so changes skip nothing."""
        last = 0
        while True:
            after = task_filter("id", "greater", "Number", last)
            page = self._task_page(project, [*filters, after], include, page_size)
            yield from page
            if len(page) < page_size:
                return
            last = int(page[-1]["id"])

    def _task_page(
        self, project: int, filters: Sequence[Filter], include: Sequence[str], page_size: int
    ) -> list[dict[str, Any]]:
        query = {"filters": {"conjunction": "and", "items": list(filters)}, "ordering": ["tasks:id"]}
        found = self.get(
            "/api/tasks",
            project=project,
            fields="all",
            include=",".join(include),
            page_size=page_size,
            query=json.dumps(query),
        )
        if not isinstance(found, dict) or not isinstance(found.get("tasks"), list):
            raise self._unexpected("/api/tasks", "a page without a list of tasks")
        return list(found["tasks"])

    def _read(self, path: str, query: Mapping[str, object]) -> httpx.Response:
        for attempt in range(1, _READ_ATTEMPTS):
            try:
                return self._call("GET", path, None, query)
            except Unanswered:
                self.pause(0.5 * attempt)
        return self._call("GET", path, None, query)

    def _call(
        self, method: str, path: str, body: object, query: Mapping[str, object], allowed: Sequence[int] = ()
    ) -> httpx.Response:
        response = self._send(method, path, body, query)
        if response.status_code == 401:  # the access token ran out early, or the server was restarted
            self._access = ""
            response = self._send(method, path, body, query)
        if response.is_success or response.status_code in allowed:
            return response
        raise self._refused(response, path)

    def _send(self, method: str, path: str, body: object, query: Mapping[str, object]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self._access_token()}"}
        content = None if body is None else json.dumps(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        return self._transport(method, path, content=content, params=dict(query) or None, headers=headers)

    def _transport(self, method: str, path: str, **details: Any) -> httpx.Response:
        try:
            return self._http.request(method, path, **details)
        except httpx.TimeoutException as error:
            raise Unanswered("Label Studio did not answer in time", self._at(path), _START) from error
        except httpx.TransportError as error:
            raise Unanswered(f"Label Studio cannot be reached ({error})", self._at(path), _START) from error

    def _access_token(self) -> str:
        if not self._access or time.monotonic() > self._access_until:
            path = "/api/token/refresh"
            response = self._transport("POST", path, json={"refresh": self._refresh})
            if not response.is_success:
                raise self._refused(response, path)
            self._access = str(self._json(response, path).get("access"))
            self._access_until = time.monotonic() + _ACCESS_SECONDS
        return self._access

    def _refused(self, response: httpx.Response, path: str) -> LabelServiceError:
        code, at = response.status_code, self._at(path)
        if code >= 500:
            return Unanswered(f"Label Studio failed with status {code}", at, "Look into Label Studio's log.")
        if code in (401, 403):
            return LabelServiceError(f"Label Studio refused the token (status {code})", at, _TOKEN)
        if code == 409:
            return AlreadyThere("Label Studio has this already", at)
        return LabelServiceError(f"Label Studio refused the call (status {code}: {_detail(response)})", at)

    def _json(self, response: httpx.Response, path: str) -> Any:
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise self._unexpected(path, "something other than JSON") from error

    def _unexpected(self, path: str, what: str) -> LabelServiceError:
        fix = "Check that the address is Label Studio's and that its version is supported."
        return LabelServiceError(f"Label Studio answered with {what}", self._at(path), fix)

    def _at(self, path: str) -> str:
        return f"{self.url}{path.partition('?')[0]}"


def _detail(response: httpx.Response) -> str:
    """What the server says about a refused call, kept short."""
    try:
        told = response.json()
    except ValueError:
        return response.text[:200]
    detail = told.get("validation_errors") or told.get("detail") or told if isinstance(told, dict) else told
    return str(detail)[:400]
