"""The registered model and the served one answer alike: same grey, same search, same calibration."""

import asyncio
import hashlib
import io
import json
import warnings
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from PIL import Image

from emclean.errors import ServingError
from emclean.models import engine
from emclean.models.spec import SHIPPED
from serving.api import Settings, create_api
from serving.model import ModelHolder

CARD = {"categories": ["deposit"], "score_calibration": [[0.0, 0.1], [1.0, 0.6]]}


def coloured_spots():
    """Three blue discs on a noisy yellow field ``[160, 128, 3]``: their mean is no luminance."""
    y, x = np.mgrid[:160, :128]
    field = np.random.default_rng(0).normal((190, 170, 60), 8, (160, 128, 3))
    for row, column, radius in ((40, 40, 9), (90, 90, 12), (130, 40, 8)):
        field[(y - row) ** 2 + (x - column) ** 2 < radius**2] = (20, 30, 160)
    return np.clip(field, 0, 255).astype(np.uint8)


def registered(folder, card):
    """The registered model, loaded as MLflow loads it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow advises about type hints
        from emclean.stores.served_model import DetectorModel

        model = DetectorModel()
    (folder / "card.json").write_text(json.dumps(card))
    files = {"weights": str(SHIPPED), "card": str(folder / "card.json")}
    model.load_context(SimpleNamespace(artifacts=files))
    return model


def served(card):
    """What ``POST /v1/detect`` answers, for a picture's bytes."""
    holder = ModelHolder(engine.load, engine.predict)
    sha256 = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    holder.take({"version": "1", "weights": str(SHIPPED), "card": card, "sha256": sha256})
    transport = httpx.ASGITransport(create_api(holder, Settings(require_token=False)))

    async def call(data):
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as caller:
            kind = {"content-type": "image/png"}
            return await caller.post("/v1/detect", params={"min_score": 0}, content=data, headers=kind)

    return lambda data: asyncio.run(call(data)).json()["detections"]


@pytest.mark.slow
def test_a_colour_picture_gets_the_same_answer_from_both(tmp_path):
    colour = coloured_spots()
    file = tmp_path / "spots.png"
    Image.fromarray(colour).save(file)
    expected = served(CARD)(file.read_bytes())
    answers = registered(tmp_path, CARD).predict(None, [colour, str(file)])
    assert len(expected) >= 3
    for answer in answers:
        assert answer["boxes"] == [found["box"] for found in expected]
        assert answer["scores"] == [found["score"] for found in expected]
        assert answer["categories"] == [found["category"] for found in expected]
    scores = answers[0]["scores"]
    assert scores == sorted(scores, reverse=True)
    assert 0.1 <= scores[-1] <= scores[0] <= 0.6  # between the knots


def test_scores_without_a_calibration_are_the_detectors_own(tmp_path):
    plain, calibrated = (
        registered(tmp_path, card).predict(None, coloured_spots())[0]["scores"]
        for card in ({"categories": ["deposit"]}, CARD)
    )
    np.testing.assert_allclose(calibrated, 0.1 + 0.5 * np.array(plain))


def test_a_calibration_that_falls_is_refused_as_the_service_refuses_it(tmp_path):
    with pytest.raises(ServingError, match="must rise"):
        registered(tmp_path, {**CARD, "score_calibration": [[0, 1], [1, 0]]})


def test_deep_colours_become_what_a_file_of_them_is_read_as():
    import tifffile

    from emclean.imaging import readers

    deep = coloured_spots().astype(np.uint16) * 200
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, deep, photometric="rgb")
    grey = readers.of_array(deep)
    np.testing.assert_array_equal(grey, readers.read(buffer.getvalue()).pixels)
    assert grey.dtype == np.uint16
    np.testing.assert_array_equal(readers.of_array(grey), grey)
    np.testing.assert_array_equal(readers.of_array(grey[..., None]), grey)
