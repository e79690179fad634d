"""The served model on a real Ray Serve: swaps under load, broken versions, uploads that are refused."""

import hashlib
import io
import os
import socket
import struct
import threading
import time
import zlib
from dataclasses import replace

import analysis_toys
import grpc
import httpx
import numpy as np
import pytest
from listeners import reachable
from PIL import Image

from emclean.distributed.serve import Endpoint, deploy, probe
from emclean.distributed.session import dashboard_headers
from emclean.errors import ServingError
from serving.figures import EVERY_S

pytestmark = pytest.mark.ray

CARD = {"categories": ["deposit"], "label_revision": 4}


def png(side: int = 128) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (side, side)).astype(np.uint8)).save(
        buffer, "PNG"
    )
    return buffer.getvalue()


def bomb(side: int = 60_000) -> bytes:
    """A PNG of a few kilobytes that claims to hold ``side`` squared pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    content = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", content) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return tmp_path_factory.mktemp("ws")


@pytest.fixture
def served(cluster, workspace, make_weights):
    endpoint = Endpoint(cluster.dashboard, workspace, port=0)
    return endpoint, deploy(endpoint, "1", make_weights(1), CARD)


class Clients:
    """Four callers that ask again as soon as they are answered."""

    def __init__(self, url: str) -> None:
        self.answers: list[tuple[int, str, float]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call, args=(url,)) for _ in range(4)]

    def _call(self, url: str) -> None:
        body = png()
        with httpx.Client(timeout=60, trust_env=False) as client:
            while not self._stop.is_set():
                since = time.monotonic()
                response = client.post(f"{url}/v1/detect", content=body)
                version = response.json().get("model_version", "")
                self.answers.append((response.status_code, version, time.monotonic() - since))

    def __enter__(self) -> "Clients":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_swap_under_load_drops_no_request(served, make_weights):
    endpoint, url = served
    with Clients(url) as clients:
        time.sleep(1.5)
        deploy(endpoint, "2", make_weights(2), CARD)
        at_swap = len(clients.answers)
        time.sleep(1.0)
    assert {status for status, _, _ in clients.answers} == {200}
    assert {version for _, version, _ in clients.answers} == {"1", "2"}
    assert {version for _, version, _ in clients.answers[at_swap + 8 :]} == {"2"}
    assert max(seconds for _, _, seconds in clients.answers) < 10
    model = httpx.get(f"{url}/v1/model").json()
    assert (model["model_version"], model["label_revision"]) == ("2", "4")
    deploy(endpoint, "1", make_weights(1), CARD)  # back, as the registry's "previous" would


def test_another_model_with_the_same_number_is_a_swap_too(served, make_weights):
    endpoint, url = served
    weights = make_weights(5)
    assert deploy(endpoint, "1", weights, {"categories": ["vesicle"], "name": "emclean-vesicle"}) == url
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    for path in ["/healthz", "/v1/model"] * 6:  # of both replicas
        told = httpx.get(f"{url}{path}").json()
        assert (told["name"], told["model_version"], told["sha256"]) == ("emclean-vesicle", "1", digest)
    assert httpx.get(f"{url}/v1/model").json()["categories"] == ["vesicle"]
    deploy(endpoint, "1", make_weights(1), CARD)
    assert httpx.get(f"{url}/v1/model").json()["name"] is None


def test_a_classifier_and_an_analysis_are_served_by_the_same_way(served, make_weights, tmp_path):
    endpoint, url = served
    weights = analysis_toys.classifier(tmp_path, "hand", mirror=True)
    card = {"task": "classes", "categories": ["left", "right"], "sides": [32, 32], "name": "emclean-classes"}
    assert deploy(endpoint, "1", weights, card) == url
    for _ in range(4):  # of both replicas
        found = httpx.post(f"{url}/v1/classify", content=png(), timeout=60).json()
        assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert deploy(endpoint, "1", *analysis_toys.analysis(tmp_path)) == url
    refused = httpx.post(f"{url}/v1/classify", content=png(), timeout=60)
    assert (refused.status_code, refused.json()["code"]) == (404, "no_classifier")
    body = analysis_toys.micrograph()
    where = f"{url}/v1/analyze?overlay=true"
    first, *others = (httpx.post(where, content=body, timeout=60).json() for _ in range(4))
    for found in others:
        assert (found["particles"], found["left_share"]) == (first["particles"], first["left_share"])
    assert first["overlay"].startswith("data:image/png;base64,")
    assert first["counts"]["particles"] > 5
    assert first["left_share"]["corrected"] is not None
    assert httpx.get(f"{url}/v1/model").json()["task"] == "analysis"
    deploy(endpoint, "1", make_weights(1), CARD)


def test_our_own_serve_may_have_the_port(served):
    endpoint, url = served
    probe(replace(endpoint, port=int(url.rsplit(":", 1)[1])))


def test_a_broken_version_leaves_the_old_one_serving_and_is_reported(served, tmp_path, make_weights):
    endpoint, url = served
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not weights")
    with Clients(url) as clients, pytest.raises(ServingError, match="not usable as detector weights"):
        deploy(endpoint, "9", broken, CARD)
    assert {(status, version) for status, version, _ in clients.answers} == {(200, "1")}
    healths = [httpx.get(f"{url}/healthz").json() for _ in range(12)]
    assert {health["status"] for health in healths} >= {"degraded"}
    assert {health["model_version"] for health in healths} == {"1"}
    deploy(endpoint, "9", make_weights(9), CARD)  # the same version, mended
    assert httpx.get(f"{url}/v1/model").json()["model_version"] == "9"
    deploy(endpoint, "1", make_weights(1), CARD)


def test_uploads_that_cannot_be_used(served):
    _, url = served
    for body, status in [(png()[:200], 422), (bomb(), 422), (b"hello", 422)]:
        response = httpx.post(f"{url}/v1/detect", content=body, timeout=60)
        assert response.status_code == status
        assert response.json()["message"]
    assert httpx.get(f"{url}/v1/model").status_code == 200


def test_an_oversized_upload_is_refused_before_it_is_sent(served):
    _, url = served
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:
        line.sendall(b"POST /v1/detect HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n")
        assert b" 413 " in line.recv(1000).splitlines()[0]


def test_sixteen_bits_and_forms_work(served):
    _, url = served
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 65535, (64, 96)).astype(np.uint16)
    Image.fromarray(pixels).save(buffer, "TIFF")
    files = {"image": ("a.tif", buffer.getvalue(), "image/tiff")}
    answer = httpx.post(f"{url}/v1/detect", files=files, timeout=60).json()
    assert (answer["image"]["bit_depth"], answer["image"]["width"]) == (16, 96)
    assert "emclean_requests_total" in httpx.get(f"{url}/metrics").text


def test_the_figures_are_those_of_all_replicas(served):
    _, url = served

    def told(name: str) -> int:
        lines = httpx.get(f"{url}/metrics", timeout=60).text.splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith(name))

    asked = 'emclean_requests_total{path="/v1/model",status="200"}'
    time.sleep(3 * EVERY_S)  # what other tests have asked is told by now
    before = told(asked)
    replicas = {httpx.get(f"{url}/v1/model").json()["replica"] for _ in range(24)}
    assert len(replicas) == 2
    until = time.monotonic() + 30
    while (seen := {told(asked) for _ in range(8)}) != {before + 24} and time.monotonic() < until:
        time.sleep(0.5)
    assert seen == {before + 24}
    assert (told("emclean_replicas"), told("emclean_model_loaded")) == (2, 2)


def test_beyond_loopback_only_the_replicas_listen_behind_the_token(served):
    found = reachable(os.getpid())  # of the cluster, whose processes are this one's
    assert all(name.startswith("ray::ServeReplica:emclean:Detector") for name in found.values()), found
    assert len(found) == 2
    for _, port in found:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/ray.serve.ASGIService/HandleRequest")(b"", timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_no_answer_from_the_dashboard_is_said(workspace, make_weights):
    with pytest.raises(ServingError, match="does not answer"):
        deploy(Endpoint("http://127.0.0.1:9", workspace), "1", make_weights(1), CARD)


def end_serve(dashboard: str) -> None:
    """Over HTTP: a Serve that this process imported would bring its warnings."""
    address, headers = f"{dashboard}/api/serve/applications/", dashboard_headers()
    httpx.delete(address, headers=headers, timeout=120).raise_for_status()


def test_beyond_loopback_a_token_is_asked_for(cluster, tmp_path, make_weights):
    end_serve(cluster.dashboard)  # Serve cannot move while it runs
    endpoint = Endpoint(cluster.dashboard, tmp_path, host="0.0.0.0", port=0, replicas=1)
    try:
        url = deploy(endpoint, "1", make_weights(1), CARD)
        token = {"Authorization": f"Bearer {endpoint.token_file.read_text()}"}
        assert httpx.get(f"{url}/v1/model").status_code == 401
        assert httpx.post(f"{url}/v1/detect", content=png()).status_code == 401
        assert httpx.get(f"{url}/v1/model", headers={"Authorization": "Bearer wrong"}).status_code == 401
        assert httpx.get(f"{url}/v1/model", headers=token).json()["model_version"] == "1"
        assert httpx.post(f"{url}/v1/detect", headers=token, content=png(), timeout=60).status_code == 200
        assert httpx.get(f"{url}/healthz").json()["status"] == "ok"
        assert int(url.rsplit(":", 1)[1]) in {port for _, port in reachable(os.getpid())}
    finally:
        end_serve(cluster.dashboard)
