"""The served model's page in a browser: an analysis is shown with its shares, particles and overlay."""

import base64
import socket
import threading
import time

import analysis_toys
import pytest
import uvicorn

from serving.api import Settings, create_api
from serving.model import ModelHolder

pytestmark = pytest.mark.services

DROP = """
(() => {
  const bytes = Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0));
  const held = new DataTransfer();
  held.items.add(new File([bytes], "micrograph.tif"));
  document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: held }));
})()
"""


@pytest.fixture
def url(tmp_path):
    """An application with an analysis, on a free port."""
    weights, card = analysis_toys.analysis(tmp_path)
    holder = ModelHolder(lambda path: None, lambda model, pictures: iter(()))
    holder.take({"version": "1", "weights": str(weights), "card": card})
    assert holder.failure is None
    with socket.create_server(("127.0.0.1", 0)) as place:
        app = create_api(holder, Settings(require_token=False))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [place]})
        thread.start()
        until = time.monotonic() + 30
        while not server.started and time.monotonic() < until:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{place.getsockname()[1]}"
        server.should_exit = True
        thread.join()


def test_an_analysis_is_shown_with_its_shares_particles_and_overlay(url, tmp_path):
    from chromium import Browser

    browser = Browser(tmp_path / "profile", 1235, 900)
    try:
        browser.open(url)
        browser.wait("document.getElementById('model').textContent.includes('emclean-analysis')")
        assert browser.run("document.getElementById('least').hidden")
        assert not browser.run("document.getElementById('nm').hidden")
        browser.run(DROP % base64.b64encode(analysis_toys.micrograph()).decode())
        browser.wait("!document.getElementById('particles').hidden")
        rows = "document.querySelectorAll('#%s tbody tr').length"
        assert browser.run(rows % "share") == 2
        assert browser.run(rows % "particles") > 8
        assert browser.run("document.getElementById('canvas').width") == 260
        assert "show their hand" in browser.run("document.getElementById('message').textContent")
        lengths = "[...document.querySelectorAll('#particles tbody tr')].map(r => r.cells[4].textContent)"
        assert all(text.endswith(" px") for text in browser.run(lengths))
        size = "document.getElementById('size')"
        browser.run(f"{size}.value = 2; {size}.dispatchEvent(new Event('change'))")
        browser.wait(f"{lengths}.every(text => text.endsWith(' nm'))")
    finally:
        browser.close()
