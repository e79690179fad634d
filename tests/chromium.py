"""A headless Chromium driven over a pipe (Chrome DevTools Protocol), by the standard library alone."""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PLUMBING = """
import fcntl, os, sys
high = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 20) for end in sys.argv[1:3]]
os.dup2(high[0], 3)
os.dup2(high[1], 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads commands from descriptor 3 and answers on 4."""

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str:
    """Chromium's command; where there is none, CI fails and other machines skip."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        advice = "no Chromium found; get it with: sudo apt-get install chromium"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(advice)
    return found


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, profile: Path, width: int = 1500, height: int = 950):
        to_browser, write_end = os.pipe()
        read_end, from_browser = os.pipe()
        line = [find_chromium(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        line += ["--no-first-run", f"--user-data-dir={profile}", f"--window-size={width},{height}"]
        line += ["--remote-debugging-pipe", "about:blank"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", PLUMBING, str(to_browser), str(from_browser), *line],
            pass_fds=(to_browser, from_browser),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._write, self._read = write_end, read_end
        self._buffer, self._number, self._session = b"", 0, None
        try:
            self._attach(width, height)
        except BaseException:
            self.close()
            raise

    def _attach(self, width: int, height: int) -> None:
        page = next(t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self._call("Page.enable")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", **size)

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def _message(self) -> Any:
        while b"\0" not in self._buffer:
            piece = os.read(self._read, 1 << 20)
            assert piece, "Chromium ended"
            self._buffer += piece
        text, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(text)

    def open(self, url: str) -> None:
        """Go to an address."""
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression on the page."""
        answer = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        return answer["result"].get("value")

    def wait(self, condition: str, seconds: float = 60.0) -> None:
        """Wait until a JavaScript expression is true."""
        until = time.monotonic() + seconds
        while not self.run(f"!!({condition})"):
            assert time.monotonic() < until, f"never true: {condition}\n{self.run('document.body.innerText')}"
            time.sleep(0.3)

    def click(self, x: float, y: float) -> None:
        """Click with the left button at a place of the window."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            count = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **count)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Press at one place, move, release at another."""
        self._call("Input.dispatchMouseEvent", type="mouseMoved", x=start[0], y=start[1])
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        self._call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], **held)
        for share in (0.3, 0.6, 1.0):
            x, y = (a + share * (b - a) for a, b in zip(start, end, strict=True))
            self._call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y, button="left", buttons=1)
        self._call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], **held)

    def press(self, key: str) -> None:
        """Press a key, for instance ``1`` or ``Backspace``."""
        code = {"Backspace": 8, "Escape": 27}.get(key, ord(key[0].upper()))
        typed = {"text": key} if len(key) == 1 else {}
        name = f"Digit{key}" if key.isdigit() else key
        event = {"key": key, "code": name, "windowsVirtualKeyCode": code}
        self._call("Input.dispatchKeyEvent", type="keyDown", **event, **typed)
        self._call("Input.dispatchKeyEvent", type="keyUp", **event)

    def screenshot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"])

    def close(self) -> None:
        """End this Chromium and the processes that it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=10)
        os.close(self._write)
        os.close(self._read)


def sign_in(browser: Browser, url: str, credentials: Path) -> None:
    """Open Label Studio with the account of its credentials file."""
    account = json.loads(credentials.read_text())
    browser.open(f"{url}/user/login/")
    browser.wait("document.querySelector('input[name=email]')")
    fill = "document.querySelector('input[name={}]').value={}"
    browser.run(fill.format("email", json.dumps(account["email"])))
    browser.run(fill.format("password", json.dumps(account["password"])))
    browser.run("document.querySelector('form').submit()")
    browser.wait("document.body && location.pathname != '/user/login/'")
