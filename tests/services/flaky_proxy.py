"""A proxy in front of a server that loses, delays or spoils chosen answers."""

import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class FlakyProxy:
    """Forwards to ``upstream``; each entry of ``faults`` spoils one call whose ``METHOD path`` contains it.

    ``lose``: carried out, but the connection ends without an answer. ``refuse``: not carried out, the
    connection ends. ``late``: carried out only after ``delay`` seconds, when the caller is gone.
    ``spoil``: answered with a page that is no JSON. ``fail``: carried out, answered with status 502.
    """

    def __init__(self, upstream: str, delay: float = 1.5):
        self.faults: list[tuple[str, str]] = []
        self.seen: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.seen.append(f"{self.command} {self.path}")
                fault = proxy.take(proxy.seen[-1])
                if fault == "late":
                    time.sleep(delay)
                if fault != "refuse":
                    answer = proxy.forward(upstream, self.command, self.path, dict(self.headers), body)
                if fault in ("lose", "refuse", "late"):
                    self.close_connection = True
                    return
                spoiled = {"fail": (502, b"bad gateway"), "spoil": (200, b"<html>hello")}
                code, content = spoiled.get(fault, (answer.status_code, answer.content))
                self.send_response(code)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any

            def log_message(self, *parts: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def take(self, call: str) -> str:
        """The fault for this call, used up by it."""
        for fault in self.faults:
            if fault[0] in call:
                self.faults.remove(fault)
                return fault[1]
        return ""

    @staticmethod
    def forward(upstream: str, method: str, path: str, headers: Mapping[str, str], body: bytes):
        """Send a call on and return the answer."""
        kept = {k: v for k, v in headers.items() if k.lower() in ("authorization", "content-type")}
        return httpx.request(method, upstream + path, headers=kept, content=body, timeout=60, trust_env=False)

    def close(self) -> None:
        """End the proxy."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
