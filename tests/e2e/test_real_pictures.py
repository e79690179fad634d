"""Real pictures, where ``EMCLEAN_DATA`` names them: read, used by a small job, searched tile by tile."""

import json
import time

import numpy as np
import pytest
from conftest import SMALL, Program

from emclean.imaging import readers
from emclean.loop.ingest import ingest
from emclean.models import engine
from emclean.models.spec import SHIPPED
from emclean.stores.tables import Tables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETS = {
    "emps, train, crowd": ("emps", "train.crowd", 111, 2580),
    "emps, train, truth": ("emps", "train.truth", 111, 3384),
    "emps, validation": ("emps", "val.truth", 30, 1225),
    "bccd, crowd": ("bccd", "crowd", 155, 1984),
    "bccd, truth": ("bccd", "truth", 155, 3919),
}
"""Folder, label file, and how many pictures and boxes it holds."""


@pytest.fixture(scope="module")
def pixels(tmp_path_factory):
    """The cache of grey copies: a second reading of a folder costs nothing."""
    return tmp_path_factory.mktemp("pixels")


@pytest.mark.parametrize("part", SETS)
def test_every_picture_and_box_is_read(emclean_data, pixels, part):
    folder, name, pictures, boxes = SETS[part]
    home = emclean_data / folder
    found = ingest(str(home / "images"), str(home / f"{name}.coco.json"), pixels)
    assert [item for item in found.set_aside if item.kind == "image"] == []
    assert len(found.records) == pictures
    assert sum(map(len, found.labels.values())) + len(found.set_aside) == boxes
    assert len(found.set_aside) <= 0.01 * boxes


def test_a_folder_without_labels_is_read(emclean_data, pixels):
    found = ingest(str(emclean_data / "glomerulus"), [], pixels)
    (record,) = found.records
    assert (record.name, record.width, record.height) == ("A1--0024.jpg", 3744, 2444)
    assert found.unlabelled == (record.image_id,)


def part_of(file, count, out):
    """The first pictures of a COCO file with their boxes, as a file of its own."""
    content = json.loads(file.read_text())
    content["images"] = content["images"][:count]
    known = {image["id"] for image in content["images"]}
    content["annotations"] = [row for row in content["annotations"] if row["image_id"] in known]
    out.write_text(json.dumps(content))
    return out


def test_a_small_job_on_real_pictures_ends_with_a_summary(emclean_data, tmp_path):
    home = emclean_data / "emps"
    parts = {"train.crowd": 8, "train.truth": 8, "val.truth": 2}
    labels = {
        name: part_of(home / f"{name}.coco.json", count, tmp_path / f"{name}.json")
        for name, count in parts.items()
    }
    data = (
        f"data.pool={{images: {home / 'images'}, crowd: {labels['train.crowd']}}}",
        f"data.test={{images: {home / 'images'}, truth: {labels['val.truth']}}}",
        f"expert.truth={labels['train.truth']}",
    )
    alone = ("compute=inline", "serve=false", "label_service=in_process")
    job = Program(tmp_path / "w", *SMALL[1:], *alone, *data, "run=real")
    assert job.run() == 0, job.said()
    found = job.summary("real")
    assert (found["status"], found["set_aside"]) == ("finished", 0)
    assert 0 < found["crowd_labels"]["f1"] < found["rounds"][-1]["labels"]["f1"] <= 1
    images = Tables(str(job.workspace / "tables")).read("images", where={"part": "pool"}).to_pylist()
    assert {row["uri"].rsplit("/", 1)[0] for row in images} == {str(home / "images")}


def test_the_shipped_detector_searches_a_large_picture_in_tiles(emclean_data):
    picture = readers.read(str(emclean_data / "glomerulus" / "A1--0024.jpg")).pixels
    began = time.process_time()
    (found,) = engine.predict(engine.load(SHIPPED), [readers.to_grey8(picture)])
    assert time.process_time() - began < 120
    assert len(found) > 0
    assert found.boxes.min() >= 0
    assert (found.boxes[:, 2:].max(axis=0) <= [3744, 2444]).all()
    spread = np.ptp(found.boxes[:, :2], axis=0)
    assert (spread > 1024).all()  # more than one tile gave boxes
