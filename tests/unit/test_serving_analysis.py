"""An analysis behind the service: the job's findings in one answer; what it refuses; the registered model."""

import base64
import hashlib
import io
import json
import warnings
from types import SimpleNamespace

import analysis_toys
import numpy as np
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
from PIL import Image
from test_serving_schemas import client, load, predict

from emclean.config import load_analysis
from emclean.imaging import simulate
from emclean.loop.analysis import opening, publishing, results, running
from emclean.loop.console import Console
from emclean.models.classifiers import engine
from emclean.models.classifiers.nets import build
from emclean.models.classifiers.spec import ClassifierSpec
from emclean.models.parts import pack, unpack
from emclean.stores.fakes import FolderRegistry, InMemoryTracker
from serving.model import ModelHolder

pytestmark = pytest.mark.slow  # pictures are searched

ALIKE = ("x", "y", "length_px", "width_px", "turn_deg", "length_nm", "width_nm", "p_usable", "p_left")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """An analysis of two micrographs by untrained classifiers; its folder, summary, registry, pictures."""
    folder = tmp_path_factory.mktemp("job")
    recipe = simulate.Recipe(zoom=0.35, density=24)
    written = simulate.write_micrographs(folder, 2, 260, 3, recipe, (0.3,))
    given = [f"workspace={folder / 'w'}", "run=a", "compute=inline", f"data.images={written.images}"]
    given += ["classifier.usable_from=0.1", "classifier.confusion=[40, 2, 3, 45]", "segmentation.window=130"]
    for key, mirror in (("weights", True), ("usable_weights", False)):
        torch.manual_seed(1)
        spec = ClassifierSpec("compact", size=16, mirror=mirror, width=4)
        engine.save(folder / f"{key}.safetensors", spec, [build(spec).state_dict()])
        given.append(f"classifier.{key}={folder / key}.safetensors")
    registry = FolderRegistry(folder / "registry")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(opening, "MlflowTracker", lambda *_: InMemoryTracker())
        patched.setattr(opening, "MlflowRegistry", lambda *_: registry)
        patched.setattr(results.analysis_page, "render", lambda data: "")
        with opening.opened(load_analysis(None, given), Console()) as analysis:
            summary = json.loads(running.run(analysis).summary.read_text())
    return SimpleNamespace(folder=folder, summary=summary, registry=registry, images=written.images)


@pytest.fixture(scope="module")
def config(job):
    """The registered analysis, as it is deployed."""
    weights = job.registry.fetch("1", job.folder / "fetched")
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    return {"version": "1", "weights": str(weights), "card": dict(job.registry.card("1")), "sha256": sha256}


@pytest.fixture(scope="module")
def holder(config):
    held = ModelHolder(load, predict)
    held.take(config)
    assert held.failure is None
    return held


@pytest.fixture(scope="module")
def picture(job):
    """The first micrograph: its name in the tables, and its bytes."""
    file = sorted(job.images.rglob("*.tif"))[0]
    return str(file.relative_to(job.images)), file.read_bytes()


def ask(holder, body, **params):
    return client(holder).post("/v1/analyze", content=body, params=params)


def test_the_answer_is_what_the_job_says_of_the_same_picture(job, holder, picture):
    answer = ask(holder, picture[1]).json()
    table = pq.read_table(job.folder / "w/runs/a/particles.parquet").to_pylist()
    rows = [row for row in table if row["image"] == picture[0]]
    assert len(answer["particles"]) == len(rows) > 10
    for one, row in zip(answer["particles"], rows, strict=True):
        assert [one[name] for name in ALIKE] == pytest.approx([row[name] for name in ALIKE])
        assert (one["hand"] or "", one["set_aside"] or "") == (row["hand"], row["set_aside"])
        x1, y1, x2, y2 = one["box"]
        assert x1 < one["x"] < x2
        assert y1 < one["y"] < y2
    (row,) = [row for row in job.summary["images"] if row["image"] == picture[0]]
    assert answer["left_share"] == pytest.approx({name: row[name] for name in answer["left_share"]})
    assert (
        answer["counts"]["particles"]
        == row["particles"]
        == answer["counts"]["left"] + answer["counts"]["right"]
    )
    assert [answer["counts"][name] for name in ("left", "border", "unusable")] == [
        row[name] for name in ("left", "border", "unusable")
    ]
    assert (answer["model_version"], answer["confidence"], answer["overlay"]) == ("1", 0.95, None)
    assert answer["image"]["pixel_size_nm"] == 2


def test_a_pixel_size_may_be_told_with_a_picture_that_does_not_tell_it(holder, picture):
    buffer = io.BytesIO()
    Image.fromarray(tifffile.imread(io.BytesIO(picture[1]))).save(buffer, "PNG")
    bare, told = (ask(holder, buffer.getvalue(), **more).json() for more in ({}, {"pixel_size_nm": 3}))
    assert (bare["image"]["pixel_size_nm"], told["image"]["pixel_size_nm"]) == (None, 3)
    assert {one["length_nm"] for one in bare["particles"]} == {None}
    for one in told["particles"]:
        assert one["length_nm"] == pytest.approx(3 * one["length_px"])
    assert ask(holder, picture[1], pixel_size_nm=3).json()["image"]["pixel_size_nm"] == 2
    assert ask(holder, picture[1], pixel_size_nm=0).status_code == 422


def test_the_overlay_marks_what_was_found_and_is_no_larger_than_a_preview(holder, picture, monkeypatch):
    for side, size in ((1600, 260), (130, 130)):
        monkeypatch.setattr("serving.uploads.PREVIEW_SIDE", side)
        uri = ask(holder, picture[1], overlay=True).json()["overlay"]
        kind, _, content = uri.partition(",")
        assert kind == "data:image/png;base64"
        marked = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")).astype(int)
        assert marked.shape == (size, size, 3)
        coloured = (np.ptp(marked, axis=2) > 30).mean()
        assert 0.01 < coloured < 0.5


def test_each_kind_of_model_refuses_the_others_questions(holder, picture):
    for path, code in (("/v1/detect", "no_detector"), ("/v1/classify", "no_classifier")):
        response = client(holder).post(path, content=picture[1])
        assert (response.status_code, response.json()["code"]) == (404, code)
        assert "/v1/analyze" in response.json()["fix"]
    asked = client(holder).post("/predict", json={"tasks": [{"data": {"image_id": "0123456789abcdef"}}]})
    assert (asked.status_code, asked.json()["code"]) == (404, "no_detector")


def test_bad_uploads_and_large_ones_are_refused(holder, picture):
    for body, code in ((b"", "empty"), (b"nothing of a picture", "unusable_input")):
        response = ask(holder, body)
        assert (response.status_code, response.json()["code"]) == (422, code)
    response = client(holder, max_analysed=10_000).post("/v1/analyze", content=picture[1])
    assert (response.status_code, "limit of 10,000" in response.json()["message"]) == (422, True)
    assert client(holder, max_bytes=100).post("/v1/analyze", content=picture[1]).status_code == 413
    assert client(holder, require_token=True).post("/v1/analyze", content=picture[1]).status_code == 401


def test_a_picture_without_a_particle_has_no_share(holder):
    buffer = io.BytesIO()
    Image.fromarray(np.full((90, 120), 70, np.uint8)).save(buffer, "PNG")
    answer = ask(holder, buffer.getvalue()).json()
    assert answer["left_share"].pop("note") == "No particle shows its hand."
    assert (answer["particles"], set(answer["left_share"].values())) == ([], {None})


def test_the_service_tells_that_it_holds_an_analysis_and_counts_the_request(holder, picture):
    served = client(holder)
    told = served.get("/v1/model").json()
    assert (told["task"], told["name"], told["categories"]) == (
        "analysis",
        "emclean-analysis",
        ["left", "right"],
    )
    assert told["label_revision"] is None
    served.post("/v1/analyze", content=picture[1])
    assert 'path="/v1/analyze",status="200"} 1' in served.get("/metrics").text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"way": None}, "its settings cannot be used"),
        ({"way": {"window": 3}}, "its settings cannot be used"),
        ({"categories": ["left"]}, "2 categories, but the card names 1"),
        ({"task": "boxes"}, "not weights"),
    ],
)
def test_a_card_that_does_not_fit_leaves_the_model_before(config, change, words):
    held = ModelHolder(load_nothing, predict)
    held.take(config)
    held.take({**config, "version": "6", "card": {**config["card"], **change}})
    assert words in held.failure["error"]
    assert held.current.version == "1"


def test_a_network_that_finds_the_particles_is_served_too(config, picture, tmp_path):
    parts = unpack(config["weights"], tmp_path)
    pack(tmp_path / "all.safetensors", {**parts, "segmenter": analysis_toys.unet(tmp_path)})
    held = ModelHolder(load, predict)
    held.take({"version": "2", "weights": str(tmp_path / "all.safetensors"), "card": config["card"]})
    assert held.failure is None
    assert ask(held, picture[1]).json()["particles"] == []
    pack(tmp_path / "none.safetensors", {"usable": parts["usable"]})
    held.take({"version": "3", "weights": str(tmp_path / "none.safetensors"), "card": config["card"]})
    assert "no classifier of hands" in held.failure["error"]


KNOWN = {"way": {"confusion": {}}, "simulated": False}
UNKNOWN = {"way": {"confusion": None}, "simulated": False}
SIMULATED = {"way": {"confusion": {}}, "simulated": True}


@pytest.mark.parametrize(
    ("new", "champion", "promoted"),
    [
        (SIMULATED, None, True),
        (SIMULATED, UNKNOWN, False),
        (UNKNOWN, SIMULATED, True),
        (UNKNOWN, KNOWN, False),
        (KNOWN, KNOWN, True),
    ],
)
def test_the_champion_is_never_one_of_which_less_is_known(new, champion, promoted):
    assert publishing.gate(new, champion)[0] is promoted


def load_nothing(weights):
    raise ValueError("not weights")


def test_the_registered_model_answers_as_the_served_one(job, config, holder, picture, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow advises about type hints
        from emclean.stores.served_model import DetectorModel

        model = DetectorModel()
    (tmp_path / "card.json").write_text(json.dumps(config["card"]))
    files = {"weights": config["weights"], "card": str(tmp_path / "card.json")}
    model.load_context(SimpleNamespace(artifacts=files))
    pixels = tifffile.imread(io.BytesIO(picture[1]))
    for given, nm in ((str(job.images / picture[0]), 2), (pixels, None)):
        (found,) = model.predict(None, [given])
        answer = ask(holder, picture[1]).json()
        assert [one["p_left"] for one in found["particles"]] == [one["p_left"] for one in answer["particles"]]
        assert found["counts"] == answer["counts"]
        assert found["left_share"] == answer["left_share"]
        assert (found["particles"][0]["length_nm"] is None) is (nm is None)
