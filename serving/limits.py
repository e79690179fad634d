"""What is let in: a bound on the bytes of a request, and a bearer token where one is required.

All three are plain ASGI wrappers, so that a request is refused before anything reads it.
"""

import base64
import binascii
import hmac
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BYTES = 64 * 1024 * 1024
"""Default bound on a request's body; the environment variable ``EMCLEAN_SERVE_MAX_BYTES`` sets another."""

PUBLIC = frozenset({"/", "/healthz", "/health"})
"""Paths that answer without a token: they tell nothing but whether a model is there."""


def max_bytes() -> int:
    """The bound on a request's body in bytes."""
    return int(os.environ.get("EMCLEAN_SERVE_MAX_BYTES", MAX_BYTES))


async def refuse(send: Send, status: int, code: str, message: str, fix: str = "") -> None:
    """Answer with an error in the form that every error of this service has."""
    body = json.dumps({"code": code, "message": message, "fix": fix}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="emclean"'))
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _TooLargeError(Exception):
    """The body went over the bound while it was read."""


class _Watch:
    """Counts one request's body; once it is too large, nothing that the application says goes out."""

    def __init__(self, receive: Receive, send: Send, limit: int) -> None:
        self._receive, self._send, self._limit = receive, send, limit
        self._seen = 0
        self.started = False
        self.too_large = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._seen += len(message.get("body", b""))
        if self._seen > self._limit:
            self.too_large = True
            raise _TooLargeError
        return message

    async def send(self, message: Message) -> None:
        if self.too_large and not self.started:
            return  # the framework's own answer to our exception
        self.started = True
        await self._send(message)


class BodyLimit:
    """Refuses bodies over a bound, by their announced length and by what really arrives."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdigit() or int(announced) > self._limit:
            await self._refuse(send)
            return
        watch = _Watch(receive, send, self._limit)
        try:
            await self._app(scope, watch.receive, watch.send)
        except Exception:
            if not watch.too_large:
                raise
        if watch.too_large and not watch.started:
            await self._refuse(send)

    async def _refuse(self, send: Send) -> None:
        message = f"The upload is larger than {self._limit} bytes."
        await refuse(send, 413, "too_large", message, "Send a smaller picture, or cut it into parts.")


class TokenGuard:
    """Asks for ``Authorization: Bearer TOKEN`` (or Basic with the token as password, as Label Studio sends).

    ``token`` is called on every request, so that a new token file counts at once. With no token to compare
    with, nothing is let in.
    """

    def __init__(self, app: ASGIApp, token: Callable[[], str], public: Iterable[str] = PUBLIC) -> None:
        self._app = app
        self._token = token
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        open_path = scope["type"] == "lifespan" or scope.get("path", "") in self._public
        if open_path or scope.get("path", "").startswith("/page/") or self.authorised(scope):
            await self._app(scope, receive, send)
            return
        fix = "Send 'Authorization: Bearer TOKEN' with the token of EMCLEAN_SERVE_TOKEN or of the token file."
        await refuse(send, 401, "unauthorised", "This service needs a token.", fix)

    def authorised(self, scope: Scope) -> bool:
        """Whether the request carries the token; the comparison takes the same time for every guess."""
        expected = self._token()
        given = given_token(Headers(scope=scope).get("authorization", ""))
        return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def given_token(header: str) -> str:
    """The token in an ``Authorization`` header, empty when there is none."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return ""
    return ""


def read_token(file: str | None) -> str:
    """The token of ``EMCLEAN_SERVE_TOKEN``, else of ``file``; empty when there is none."""
    given = os.environ.get("EMCLEAN_SERVE_TOKEN", "")
    if given or not file:
        return given
    path = Path(file)
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def proxy_middlewares() -> list[Any]:
    """The same bound at Ray Serve's proxy, which would otherwise hold a whole upload in memory first."""
    return [Middleware(BodyLimit, limit=max_bytes())]
