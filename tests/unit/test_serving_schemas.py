"""The served model's HTTP interface over a fake detector: answers, refusals, swaps, guards."""

import asyncio
import hashlib
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image

from emclean.errors import DataError, LabelError
from emclean.models.knots import calibrate, knots_of
from emclean.stores.label_studio.page import BOXES, PICTURE, configuration
from emclean.types import Predictions
from serving.api import Settings, create_api
from serving.labelling import find_picture, names_of, prediction
from serving.limits import given_token, read_token
from serving.model import ModelHolder

FOUND = Predictions(np.array([[1.0, 2, 11, 12], [20, 20, 40, 50]]), np.array([0, 1]), np.array([0.4, 0.8]))
CARD = {"categories": ["deposit", "vesicle"], "label_revision": 7, "score_calibration": [[0, 0], [1, 0.5]]}


@dataclass
class FakeDetector:
    spec: SimpleNamespace


def load(weights: str) -> FakeDetector:
    text = Path(weights).read_text()
    if text == "broken":
        raise ValueError("not weights")
    return FakeDetector(SimpleNamespace(n_categories=int(text), family="fake"))


def predict(detector, pictures):
    for _ in pictures:
        yield FOUND


@pytest.fixture
def config(tmp_path):
    (tmp_path / "w").write_text("2")
    return {"version": "3", "weights": str(tmp_path / "w"), "card": CARD}


@pytest.fixture
def holder(config):
    held = ModelHolder(load, predict)
    held.take(config)
    return held


class Client:
    """Calls the application in this process, without a socket."""

    def __init__(self, app) -> None:
        self._transport = httpx.ASGITransport(app)

    def request(self, method: str, path: str, **options) -> httpx.Response:
        async def call() -> httpx.Response:
            async with httpx.AsyncClient(transport=self._transport, base_url="http://localhost") as caller:
                return await caller.request(method, path, **options)

        return asyncio.run(call())

    def get(self, path: str, **options) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options) -> httpx.Response:
        return self.request("POST", path, **options)


async def stream(chunk: bytes, times: int):
    for _ in range(times):
        yield chunk


def client(holder: ModelHolder, **settings) -> Client:
    return Client(create_api(holder, Settings(**{"require_token": False, **settings})))


def picture(kind: str = "PNG", dtype=np.uint8) -> bytes:
    pixels = (np.arange(60 * 80).reshape(60, 80) % 200).astype(dtype)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def test_detect_answers_boxes_with_calibrated_scores_and_lineage(holder):
    answer = client(holder).post("/v1/detect", content=picture(), params={"min_score": 0}).json()
    assert [d["category"] for d in answer["detections"]] == ["vesicle", "deposit"]
    assert [d["score"] for d in answer["detections"]] == pytest.approx([0.4, 0.2])
    assert answer["detections"][0]["box"] == [20, 20, 40, 50]
    assert (answer["model_version"], answer["label_revision"], answer["calibrated"]) == ("3", "7", True)
    assert answer["image"]["width"] == 80
    assert answer["image"]["bit_depth"] == 8


def test_detect_takes_a_form_and_sixteen_bits_and_gives_a_preview(holder):
    files = {"image": ("a.tif", picture("TIFF", np.uint16), "image/tiff")}
    answer = client(holder).post("/v1/detect", files=files, params={"preview": True}).json()
    assert answer["image"]["bit_depth"] == 16
    assert answer["preview"].startswith("data:image/png;base64,")


def test_what_curl_sends_without_a_type_is_told_by_its_content(holder):
    headers = {"content-type": "application/x-www-form-urlencoded"}
    served = client(holder)
    assert served.post("/v1/detect", content=picture(), headers=headers).status_code == 200
    refused = served.post("/v1/detect", content=b"a=1&b=2", headers=headers)
    assert (refused.status_code, refused.json()["code"]) == (422, "unusable_input")


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "image/png", 422, "empty"),
        (picture()[:100], "image/png", 422, "unusable_input"),
        (b"hello", "application/octet-stream", 422, "unusable_input"),
        (b"{}", "application/json", 415, "unsupported_media_type"),
        (b"x" * 5000, "image/png", 413, "too_large"),
    ],
)
def test_refusals_say_what_is_wrong(holder, body, kind, status, code):
    served = client(holder, max_bytes=4000)
    response = served.post("/v1/detect", content=body, headers={"content-type": kind})
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.json()["message"]


def test_an_upload_of_unknown_length_is_cut_off_at_the_bound(holder):
    chunks = stream(b"x" * 1000, 10)
    response = client(holder, max_bytes=4000).post("/v1/detect", content=chunks)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


def test_an_oversized_form_is_refused_too(holder):
    part = b"--b\r\nContent-Disposition: form-data; name=a; filename=b\r\n\r\n" + b"x" * 900
    chunks = stream(part, 9)
    headers = {"content-type": "multipart/form-data; boundary=b"}
    assert (
        client(holder, max_bytes=4000).post("/v1/detect", content=chunks, headers=headers).status_code == 413
    )


def test_a_small_file_with_too_many_pixels_is_refused(holder):
    response = client(holder, max_pixels=1000).post("/v1/detect", content=picture())
    assert response.status_code == 422
    assert "limit" in response.json()["message"]


def test_a_broken_version_leaves_the_old_one_and_shows_in_health(holder, tmp_path):
    (tmp_path / "bad").write_text("broken")
    holder.take({"version": "4", "weights": str(tmp_path / "bad"), "card": CARD})
    served = client(holder)
    assert served.get("/v1/model").json()["model_version"] == "3"
    health = served.get("/healthz").json()
    assert health["status"] == "degraded"
    assert health["last_failure"]["model_version"] == "4"
    assert "not weights" in health["last_failure"]["error"]
    told = served.get("/metrics").text
    assert "\nemclean_swap_failures_total 1\n" in told
    assert '\nemclean_model_loaded{model_version="3"} 1\n' in told


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weights": ""}, "weights is missing"),
        ({"weights": "/nowhere"}, "does not exist"),
        ({"sha256": "0" * 64}, "has changed"),
        ({"card": {"categories": ["one"]}}, "2 categories"),
        ({"card": {**CARD, "score_calibration": [[0, 1], [1, 0]]}}, "must rise"),
    ],
)
def test_what_a_version_must_fulfil(holder, config, change, words):
    holder.take({**config, "version": "5", **change})
    assert holder.current.version == "3"
    assert words in holder.failure["error"]


def version_of(file: Path, text: str = "2", **card) -> dict:
    file.write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"version": "3", "weights": str(file), "card": {**CARD, **card}, "sha256": digest}


@pytest.mark.parametrize(("text", "card"), [("02", {}), ("2", {"name": "emclean-vesicle"})])
def test_another_model_of_the_same_number_is_taken(holder, tmp_path, text, card):
    holder.take(version_of(tmp_path / "other", text, **card))
    assert (holder.swaps, holder.failure) == (2, None)
    assert holder.current.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert holder.current.name == card.get("name")


def test_the_same_model_is_not_loaded_again(holder, config, tmp_path):
    before = holder.current
    holder.take(config)
    known = version_of(tmp_path / "copy")
    (tmp_path / "copy").unlink()  # its digest says that nothing needs to be read
    holder.take(known)
    assert holder.current is before
    assert (holder.swaps, holder.failures) == (1, 0)


def test_a_number_kept_with_a_file_that_changed_is_another_model(holder, config):
    Path(config["weights"]).write_text("02")
    holder.take(config)
    assert (holder.swaps, holder.current.sha256) == (2, hashlib.sha256(b"02").hexdigest())


def test_the_service_tells_which_model_it_is(holder, tmp_path):
    served = client(holder)
    digest = hashlib.sha256(b"2").hexdigest()
    for path in ("/healthz", "/v1/model"):
        told = served.get(path).json()
        assert (told["name"], told["model_version"], told["sha256"]) == (None, "3", digest)
    holder.take(version_of(tmp_path / "other", "02", name="emclean-vesicle"))
    for path in ("/healthz", "/v1/model"):
        told = served.get(path).json()
        assert (told["name"], told["sha256"]) == ("emclean-vesicle", hashlib.sha256(b"02").hexdigest())


def test_strangers_learn_neither_name_nor_digest(tmp_path, monkeypatch):
    monkeypatch.setenv("EMCLEAN_SERVE_TOKEN", "secret")
    held = ModelHolder(load, predict)
    config = version_of(tmp_path / "w", name="emclean-vesicle")
    held.take(config)
    served = client(held, require_token=True)
    told = served.get("/healthz").json()
    assert (told["status"], told["name"], told["sha256"]) == ("ok", None, None)
    told = served.get("/healthz", headers={"authorization": "Bearer secret"}).json()
    assert (told["name"], told["sha256"]) == ("emclean-vesicle", config["sha256"])


def test_without_a_model_nothing_is_answered_but_health(tmp_path):
    served = client(ModelHolder(load, predict))
    assert served.post("/v1/detect", content=picture()).status_code == 503
    assert served.get("/v1/model").json()["code"] == "no_model"
    assert served.get("/healthz").status_code == 503


def test_classify_is_told_from_a_missing_page(holder):
    response = client(holder).post("/v1/classify", content=picture())
    assert (response.status_code, response.json()["code"]) == (404, "no_classifier")


def test_a_token_is_asked_for_off_loopback(holder, tmp_path, monkeypatch):
    monkeypatch.delenv("EMCLEAN_SERVE_TOKEN", raising=False)
    file = tmp_path / "token"
    served = client(holder, require_token=True, token_file=str(file))
    assert (
        served.get("/v1/model", headers={"authorization": "Bearer "}).status_code == 401
    )  # no token: nobody
    file.write_text("secret\n")
    assert served.get("/v1/model").status_code == 401
    assert served.get("/v1/model", headers={"authorization": "Bearer secret"}).status_code == 200
    assert served.get("/v1/model", auth=("label-studio", "secret")).status_code == 200
    assert served.get("/openapi.json").status_code == 401
    assert served.get("/healthz").status_code == 200
    assert served.get("/").status_code == 200


def test_why_a_swap_failed_is_told_only_with_the_token(holder, tmp_path, monkeypatch):
    monkeypatch.setenv("EMCLEAN_SERVE_TOKEN", "secret")
    holder.take({"version": "4", "weights": "/secret/place"})
    served = client(holder, require_token=True)
    assert "/secret/place" not in served.get("/healthz").text
    assert "/secret/place" in served.get("/healthz", headers={"authorization": "Bearer secret"}).text


def test_on_loopback_another_host_name_is_refused(holder):
    assert client(holder).get("/v1/model", headers={"host": "evil.example"}).status_code == 400


@pytest.mark.parametrize("header", ["", "Bearer", "Basic !!", "Basic /w==", "Digest x"])
def test_headers_without_a_token(header):
    assert given_token(header) == ""


def test_the_environment_goes_before_the_token_file(tmp_path, monkeypatch):
    (tmp_path / "t").write_text("file")
    monkeypatch.setenv("EMCLEAN_SERVE_TOKEN", "variable")
    assert read_token(str(tmp_path / "t")) == "variable"
    monkeypatch.delenv("EMCLEAN_SERVE_TOKEN")
    assert read_token(str(tmp_path / "t")) == "file"
    assert read_token(str(tmp_path / "none")) == ""


def test_calibration_interpolates_and_is_identity_without_knots():
    scores = np.array([0.0, 0.5, 1.0])
    assert calibrate(scores, knots_of({})).tolist() == [0, 0.5, 1]
    assert calibrate(scores, knots_of({"score_calibration": [[1, 0.8], [0, 0]]})).tolist() == [0, 0.4, 0.8]


def test_metrics_count_requests_by_route(holder):
    served = client(holder)
    served.get("/v1/model")
    served.get("/nowhere")
    text = served.get("/metrics").text
    assert 'path="/v1/model",status="200"} 1' in text
    assert 'path="other",status="404"} 1' in text
    assert "\nemclean_request_seconds_count 2\n" in text


def test_the_openapi_description_names_every_answer(holder):
    served = client(holder)
    paths = served.get("/openapi.json").json()["paths"]
    assert {"/v1/detect", "/v1/classify", "/v1/model", "/healthz", "/metrics", "/predict"} <= set(paths)
    assert "multipart/form-data" in json.dumps(paths["/v1/detect"])
    assert served.get("/docs").status_code == 404


def test_the_page_loads_nothing_from_elsewhere(holder):
    served = client(holder)
    page = served.get("/")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name in ("style.css", "page.js"):
        part = served.get(f"/page/{name}")
        assert part.status_code == 200
        assert "//" not in part.text.replace("</", "")
    assert "http" not in page.text


def test_label_studio_asks_for_boxes_by_image_id(holder, tmp_path):
    (tmp_path / "pixels").mkdir()
    np.save(tmp_path / "pixels" / "0123456789abcdef.npy", np.zeros((50, 100), np.uint8))
    served = client(holder, workspace=str(tmp_path), min_score=0.3)
    assert served.get("/health").json()["status"] == "UP"
    assert served.post("/setup", json={"project": "1.2", "access_token": "x"}).json() == {
        "model_version": "3"
    }
    task = {"id": 1, "data": {"image_id": "0123456789abcdef", "image": "http://127.0.0.1:1/never"}}
    (result,) = served.post("/predict", json={"tasks": [task], "project": "1.2"}).json()["results"]
    (box,) = result["result"]
    assert box["value"] == {
        "x": 20.0,
        "y": 40.0,
        "width": 20.0,
        "height": 60.0,
        "rotation": 0.0,
        "rectanglelabels": ["vesicle"],
    }
    assert (box["original_width"], box["original_height"]) == (100, 50)
    assert (box["from_name"], box["to_name"]) == (BOXES, PICTURE)
    for unknown in ("ffffffffffffffff", "../../etc/passwd", ""):
        response = served.post("/predict", json={"tasks": [{"data": {"image_id": unknown}}]})
        assert (response.status_code, response.json()["code"]) == (422, "unusable_input")


def test_without_a_page_the_names_are_those_of_our_own():
    ours = names_of(configuration(["deposit", "vesicle"]))
    assert ours == replace(names_of(None), offered=frozenset({"deposit", "vesicle"}))


def test_the_labelling_page_decides_names_and_categories():
    page = (
        '<View><Image name="pic" value="$image"/><RectangleLabels name="box" toName="pic">'
        '<Label value="deposit"/></RectangleLabels></View>'
    )
    answer = prediction(FOUND, (100, 100), ("deposit", "vesicle"), names_of(page), "1")
    assert [r["value"]["rectanglelabels"] for r in answer["result"]] == [["deposit"]]
    assert (answer["result"][0]["from_name"], answer["result"][0]["to_name"]) == ("box", "pic")


@pytest.mark.parametrize("page", ["<View/>", "<View", '<!DOCTYPE a [<!ENTITY b "c">]><View/>'])
def test_a_labelling_page_that_cannot_be_used(page):
    with pytest.raises(LabelError):
        names_of(page)


def test_a_picture_outside_the_workspace_is_never_opened(tmp_path):
    with pytest.raises(DataError, match="not in this workspace"):
        find_picture(tmp_path, {"image_id": "../secret"})
