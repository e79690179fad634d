"""A proxy in front of Label Studio that kills a process around a chosen call."""

import os
import signal
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


class KillingProxy:
    """Forwards everything; ``arm`` makes it SIGKILL a process around the next call that matches.

    ``before``: the call is never carried out. ``after``: it is, but its caller is dead before the answer.
    """

    def __init__(self, upstream: str) -> None:
        self._armed: tuple[str, str, int, Callable[[], bool]] | None = None
        self._one_at_a_time = threading.Lock()  # a job and its expert call at the same time
        self.kills: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                call = f"{self.command} {self.path}"
                if proxy.kill(call, "before"):
                    self.close_connection = True
                    return
                kept = {
                    k: v for k, v in self.headers.items() if k.lower() in ("authorization", "content-type")
                }
                answer = httpx.request(
                    self.command, upstream + self.path, headers=kept, content=body, timeout=60
                )
                if proxy.kill(call, "after"):
                    self.close_connection = True
                    return
                try:
                    self.pass_on(answer)
                except ConnectionError:  # the caller was killed meanwhile
                    self.close_connection = True

            def pass_on(self, answer: httpx.Response) -> None:
                self.send_response(answer.status_code)
                self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
                self.send_header("Content-Length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_PATCH = do_DELETE = handle_any

            def log_message(self, *parts: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def arm(self, call: str, when: str, pid: int, only_if: Callable[[], bool] = lambda: True) -> None:
        """Kill the process around the next call whose ``METHOD path`` holds ``call``, while ``only_if``."""
        with self._one_at_a_time:
            self._armed = (call, when, pid, only_if)

    def kill(self, call: str, when: str) -> bool:
        """Kill if this is the call and the moment."""
        with self._one_at_a_time:
            if self._armed is None or self._armed[1] != when:
                return False
            wanted, _, pid, only_if = self._armed
            if wanted not in call or not only_if():
                return False
            os.kill(pid, signal.SIGKILL)
            self.kills.append(f"{when} {call.partition('?')[0]}")
            self._armed = None
            return True

    def close(self) -> None:
        """End the proxy."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
