"""``emclean predict``: what the audit reads is what the detector finds, under the label file's own ids."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emclean.boxes import from_xywh
from emclean.cli import main
from emclean.loop import states
from emclean.loop.predicting import weights_of
from emclean.models import engine
from emclean.models.spec import PRETRAINED


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """A label file of two pictures, one of which is not there, with ids of its own choice."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(150, 200, (96, 128)).astype(np.uint8)
    pixels[20:50, 30:62] = 40
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    images = [{"id": 31, "file_name": "a.png", "width": 128, "height": 96}, {"id": 7, "file_name": "b.png"}]
    content = {"images": images, "categories": [{"id": 5, "name": "particle"}], "annotations": []}
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(content))
    return file


def words(labels: Path, *more: str) -> list[str]:
    folder = labels.parent
    given = ["--images", str(folder / "images"), "--out", str(folder / "out" / "results.json")]
    return ["predict", str(labels), *given, "--workspace", str(folder / "w"), *more]


def test_results_are_what_the_detector_finds(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(labels)) == 0
    rows = json.loads((labels.parent / "out" / "results.json").read_text())
    pixels = np.asarray(Image.open(labels.parent / "images" / "a.png"))
    found = next(engine.predict(engine.load(PRETRAINED), [pixels], flips=True))
    assert len(found)
    assert {(row["image_id"], row["category_id"]) for row in rows} == {(31, 5)}
    np.testing.assert_allclose(from_xywh([row["bbox"] for row in rows]), found.boxes, atol=0.011)
    np.testing.assert_allclose([row["score"] for row in rows], found.scores, atol=1e-5)
    told = capsys.readouterr()
    assert "set aside: b.png" in told.err
    assert f"{len(found)} objects in 1 picture:" in told.out


def test_nothing_is_written_where_the_detector_does_not_fit(labels: Path) -> None:
    content = json.loads(labels.read_text())
    content["categories"].append({"id": 9, "name": "other"})
    labels.write_text(json.dumps(content))
    assert main(words(labels)) == 3
    assert not (labels.parent / "out").exists()


def test_a_run_stands_for_its_newest_model(tmp_path: Path) -> None:
    files = {k: tmp_path / f"{k}.safetensors" for k in (2, 10)}
    state = states.RunState("r").with_model("crowd-0", weights="other").with_model("ceiling", weights="other")
    for k, file in files.items():
        file.write_text("weights")
        state = state.with_model(f"final-{k}", weights=str(file))
    states.save(state, tmp_path / "runs" / "r" / "state.json")
    assert weights_of("r", tmp_path) == str(files[10])
    assert weights_of(str(files[2]), tmp_path) == str(files[2])


def test_what_is_no_model_is_refused(labels: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words(labels, "--model", "nobody")) == 3
    assert "nobody" in capsys.readouterr().err
