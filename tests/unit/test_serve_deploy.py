"""Deploying to Serve through its REST interface, against a stand-in: which model counts, which port."""

import hashlib
import socket

import httpx
import pytest

from emclean.distributed import serve
from emclean.distributed.serve import Endpoint, deploy, probe
from emclean.errors import ServingError

CARD = {"categories": ["deposit"]}


class StandIn:
    """Serve with one replica, which takes a new configuration after ``slow`` questions, or never."""

    def __init__(self) -> None:
        self.details: dict = {}
        self.told: dict = {}
        self.slow: int | None = 0
        self.asked = 0
        self.stray: object = None

    def put(self, address: str, json: dict, **_) -> httpx.Response:
        (app,) = json["applications"]
        running = {"status": "HEALTHY", "replicas": [{"replica_id": "r", "state": "RUNNING"}]}
        state = {"status": "RUNNING", "deployed_app_config": app, "deployments": {serve.DEPLOYMENT: running}}
        self.details = {
            "http_options": json["http_options"],
            "proxies": {"node": {"status": "HEALTHY"}},
            "applications": {serve.APPLICATION: state},
        }
        self.asked = 0
        return httpx.Response(200)

    def get(self, address: str, **_) -> httpx.Response:
        if not address.endswith("/healthz"):
            return httpx.Response(200, json=self.details)
        if self.stray is not None:
            return httpx.Response(200, json=self.stray)
        self.asked += 1
        if self.slow is not None and self.asked > self.slow:
            wanted = self.wanted()
            names = {"name": wanted["card"].get("name"), "model_version": wanted["version"]}
            self.told = {"replica": "r", **names, "sha256": wanted["sha256"]}
        return httpx.Response(200, json=self.told)

    def wanted(self) -> dict:
        """The ``user_config`` that stands."""
        app = self.details["applications"][serve.APPLICATION]["deployed_app_config"]
        return app["deployments"][0]["user_config"]


@pytest.fixture
def ray(monkeypatch):
    made = StandIn()
    monkeypatch.setattr(serve.httpx, "get", made.get)
    monkeypatch.setattr(serve.httpx, "put", made.put)
    monkeypatch.setattr(serve.time, "sleep", lambda _: None)
    return made


@pytest.fixture
def endpoint(tmp_path):
    return Endpoint("http://dashboard", tmp_path, port=0, replicas=1)


@pytest.fixture
def weights(tmp_path):
    def make(text: str):
        file = tmp_path / text
        file.write_text(text)
        return file

    return make


@pytest.fixture
def busy():
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def listening(port: int) -> dict:
    """What Serve tells of itself when its proxy listens on loopback."""
    options = {"host": "127.0.0.1", "port": port}
    return {"http_options": options, "proxies": {"node": {"status": "HEALTHY"}}}


@pytest.mark.parametrize(("text", "card"), [("b", CARD), ("a", {**CARD, "name": "emclean-vesicle"})])
def test_the_same_number_of_another_model_is_waited_for(ray, endpoint, weights, text, card):
    deploy(endpoint, "1", weights("a"), CARD)
    ray.slow = 5
    deploy(endpoint, "1", weights(text), card)
    assert ray.asked > 5
    assert ray.told["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert ray.told["name"] == card.get("name")


def test_a_model_not_taken_is_replaced_by_the_one_before_even_of_the_same_number(ray, endpoint, weights):
    deploy(endpoint, "1", weights("a"), CARD)
    before = ray.wanted()
    ray.slow = None
    with pytest.raises(ServingError, match="not every replica took version 1"):
        deploy(endpoint, "1", weights("b"), CARD, timeout_s=0.05)
    assert ray.wanted() == before


@pytest.mark.parametrize("answer", [[], "hello", {"status": "fine"}])
def test_answers_of_another_program_do_not_count(ray, endpoint, weights, answer):
    ray.stray = answer
    with pytest.raises(ServingError, match="not every replica"):
        deploy(endpoint, "1", weights("a"), CARD, timeout_s=0.05)


def test_a_taken_port_is_named_with_the_setting_to_change(ray, tmp_path, weights, busy):
    taken = Endpoint("http://dashboard", tmp_path, port=busy)
    words = rf"port {busy} of 127.0.0.1 is taken by another program.*services.serve_port.*\(0 takes any"
    with pytest.raises(ServingError, match=words):
        probe(taken)
    with pytest.raises(ServingError, match=words):
        deploy(taken, "1", weights("a"), CARD)
    assert ray.details == {}


def test_a_host_that_is_not_ours_is_told_from_a_taken_port(ray, tmp_path):
    with pytest.raises(ServingError, match=r"port 0 of 192\.0\.2\.1 cannot be used .*services\.serve_host"):
        probe(Endpoint("http://dashboard", tmp_path, host="192.0.2.1", port=0))


def test_a_free_port_and_our_own_serve_pass(ray, tmp_path, busy):
    assert probe(Endpoint("http://dashboard", tmp_path, port=0)) == ""
    ray.details = listening(busy)
    assert probe(Endpoint("http://dashboard", tmp_path, port=busy)) == ""
    assert probe(Endpoint("http://dashboard", tmp_path, port=0)) == ""


@pytest.mark.parametrize("wanted", [{"port": 8000}, {"host": "0.0.0.0", "port": 0}])
def test_a_serve_that_listens_elsewhere_is_told(ray, tmp_path, busy, wanted):
    ray.details = listening(busy)
    remark = probe(Endpoint("http://dashboard", tmp_path, **wanted))
    asked = f"not on {wanted.get('host', '127.0.0.1')} port {wanted['port']}"
    assert f"served on 127.0.0.1 port {busy}, where Serve listens already, {asked}" in remark


def test_a_port_that_serve_lost_is_found(ray, tmp_path, busy):
    ray.details = {
        "http_options": {"host": "127.0.0.1", "port": busy},
        "proxies": {"node": {"status": "UNHEALTHY"}},
    }
    with pytest.raises(ServingError, match=rf"port {busy} of 127.0.0.1 is taken.*emclean down"):
        probe(Endpoint("http://dashboard", tmp_path, port=8000))
