"""A classifier behind the same service: its answers, what it refuses, the registered model alike."""

import hashlib
import io
import json
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from class_toys import SPEC, strokes
from PIL import Image
from test_serving_schemas import client, load, predict

from emclean.models.classifiers import engine
from emclean.models.classifiers.nets import build
from emclean.stores.label_studio import choices
from serving.model import ModelHolder

NAMES = ("left", "right")
CARD = {
    "task": "classes", "categories": list(NAMES), "sides": [16, 16], "mirror": True, "temperature": 2.0,
    "label_revision": 4, "accuracy": 0.9,
}  # fmt: skip


def config(folder, **card):
    """A classifier with random weights, as it is deployed."""
    torch.manual_seed(0)
    engine.save(folder / "w.safetensors", SPEC, [build(SPEC).state_dict()])
    sha256 = hashlib.sha256((folder / "w.safetensors").read_bytes()).hexdigest()
    given = {**CARD, **card}
    return {"version": "5", "weights": str(folder / "w.safetensors"), "card": given, "sha256": sha256}


@pytest.fixture
def holder(tmp_path):
    held = ModelHolder(load, predict)
    held.take(config(tmp_path))
    assert held.failure is None
    return held


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = strokes(1)[0]


def test_the_class_comes_with_the_probability_of_every_class_and_lineage(holder):
    answer = client(holder).post("/v1/classify", content=png(PICTURE)).json()
    assert set(answer["probabilities"]) == set(NAMES)
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["probability"] == max(answer["probabilities"].values())
    assert answer["probabilities"][answer["category"]] == answer["probability"]
    assert (answer["model_version"], answer["label_revision"], answer["calibrated"]) == ("5", "4", True)
    assert (answer["image"]["width"], answer["preview"]) == (16, None)


def test_the_mirror_image_has_the_other_class(holder):
    ways = [png(PICTURE), png(np.ascontiguousarray(PICTURE[:, ::-1]))]
    one, other = (client(holder).post("/v1/classify", content=w).json()["probabilities"] for w in ways)
    assert one["left"] == pytest.approx(other["right"], abs=1e-6)


def test_probabilities_are_those_of_the_weights_at_the_cards_temperature(holder, tmp_path):
    both = np.stack([PICTURE, PICTURE[:, ::-1]])
    raw = engine.predict(tmp_path / "w.safetensors", both)
    mean = (raw[0] + raw[1, ::-1]) / 2
    expected = np.sqrt(mean) / np.sqrt(mean).sum()  # T = 2
    found = client(holder).post("/v1/classify", content=png(PICTURE)).json()["probabilities"]
    assert [found[n] for n in NAMES] == pytest.approx(expected.tolist(), abs=1e-6)


def test_pictures_of_any_size_and_as_a_form(holder):
    large = np.kron(PICTURE, np.ones((3, 3))).astype(np.uint16) * 200
    buffer = io.BytesIO()
    Image.fromarray(large).save(buffer, "TIFF")
    files = {"image": ("a.tif", buffer.getvalue(), "image/tiff")}
    answer = client(holder).post("/v1/classify", files=files, params={"preview": True}).json()
    assert (answer["image"]["width"], answer["image"]["bit_depth"]) == (48, 16)
    assert answer["preview"].startswith("data:image/png;base64,")


def test_bad_uploads_are_refused(holder):
    assert client(holder).post("/v1/classify", content=b"nothing of a picture").status_code == 422
    assert client(holder).post("/v1/classify", content=b"").json()["code"] == "empty"
    guarded = client(holder, require_token=True)
    assert guarded.post("/v1/classify", content=png(PICTURE)).status_code == 401


def test_each_kind_of_model_refuses_the_others_questions(holder):
    response = client(holder).post("/v1/detect", content=png(PICTURE))
    assert (response.status_code, response.json()["code"]) == (404, "no_detector")
    assert "/v1/classify" in response.json()["fix"]
    assert client(holder).get("/v1/model").json()["task"] == "classes"
    assert client(holder).get("/v1/model").json()["metrics"] == {"accuracy": 0.9}


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"sides": None}, "sides or temperature cannot be used"),
        ({"sides": [0, 16]}, "sides must be above 0"),
        ({"temperature": -1}, "temperature"),
        ({"categories": ["left"]}, "2 categories, but the card names 1"),
    ],
)
def test_a_card_that_does_not_fit_leaves_the_model_before(holder, tmp_path, card, words):
    holder.take({**config(tmp_path, **card), "version": "6"})
    assert words in holder.failure["error"]
    assert holder.current.version == "5"


def test_label_studio_gets_choices_where_classes_are_labelled(holder, tmp_path):
    (tmp_path / "pixels").mkdir()
    np.save(tmp_path / "pixels" / f"{1:016x}.npy", PICTURE)
    page = choices.configuration(NAMES)
    body = {"tasks": [{"id": 1, "data": {"image_id": f"{1:016x}"}}], "label_config": page}
    (found,) = client(holder, workspace=str(tmp_path)).post("/predict", json=body).json()["results"]
    (item,) = found["result"]
    assert (item["type"], item["from_name"], item["to_name"]) == ("choices", "class", "picture")
    assert item["value"]["choices"][0] in NAMES
    assert 0.5 <= item["score"] == found["score"]
    body["label_config"] = choices.configuration(("up", "down"))
    (other,) = client(holder, workspace=str(tmp_path)).post("/predict", json=body).json()["results"]
    assert other["result"] == []
    body["label_config"] = "<View/>"
    refused = client(holder, workspace=str(tmp_path)).post("/predict", json=body)
    assert (refused.status_code, "Choices" in refused.json()["message"]) == (422, True)


def test_the_registered_model_answers_as_the_served_one(holder, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow advises about type hints
        from emclean.stores.served_model import DetectorModel

        model = DetectorModel()
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    files = {"weights": str(tmp_path / "w.safetensors"), "card": str(tmp_path / "card.json")}
    model.load_context(SimpleNamespace(artifacts=files))
    (tmp_path / "p.png").write_bytes(png(PICTURE))
    found = model.predict(None, [str(tmp_path / "p.png"), PICTURE])
    told = client(holder).post("/v1/classify", content=png(PICTURE)).json()
    for one in found:
        assert one["category"] == told["category"]
        assert one["probabilities"] == pytest.approx(told["probabilities"], abs=1e-6)
