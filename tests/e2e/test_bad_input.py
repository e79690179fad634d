"""What is wrong with the input is named and set aside; what is wrong with a service costs only time."""

import json
import re
import socket
import time

import numpy as np
import pytest
import tifffile
from conftest import SMALL, Program, at
from PIL import Image

from emclean.imaging import simulate
from emclean.stores.label_studio import server
from emclean.stores.tables import Tables

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ALONE = ("compute=inline", "serve=false", "label_service=in_process")


def pool(folder):
    """Simulated pictures with bad ones among them, and labels with bad ones among those."""
    written = simulate.write_dataset(folder, 8, 3, 128, 0)
    content = json.loads(written.pool_truth.read_text())
    images = written.pool_images
    first, second = content["images"][0], content["images"][1]
    whole = (images / first["file_name"]).read_bytes()
    (images / "truncated.png").write_bytes(whole[: len(whole) // 2])
    deep = np.asarray(Image.open(images / second["file_name"])).astype(np.uint16) * 200
    tifffile.imwrite(images / "deep.tif", deep)
    for number, name in enumerate(("truncated.png", "deep.tif"), start=101):
        content["images"].append({"id": number, "file_name": name, "width": 128, "height": 128})
    good = {"category_id": 1, "iscrowd": 0}
    boxes = {
        "outside": [400, 400, 20, 20],
        "not a number": [float("nan"), 1, 10, 10],
        "zero area": [5, 5, 0, 10],
        "unknown category": [5, 5, 10, 10],
        "duplicate id": [30, 30, 20, 20],
    }
    for number, (name, box) in enumerate(boxes.items(), start=9001):
        row = {**good, "id": number, "image_id": second["id"], "bbox": box}
        row |= {"category_id": 77} if name == "unknown category" else {}
        row |= {"id": content["annotations"][0]["id"]} if name == "duplicate id" else {}
        content["annotations"].append(row)
    content["annotations"].append({**good, "id": 9100, "image_id": 102, "bbox": [10, 10, 30, 30]})
    crowd = folder / "crowd.json"
    crowd.write_text(json.dumps(content))
    return images, crowd, truth_with(folder, written.pool_truth, "deep.tif", second["id"])


def truth_with(folder, pool_truth, name, twin):
    """The truth file with one more image, which shows the same as its twin."""
    content = json.loads(pool_truth.read_text())
    content["images"].append({"id": 102, "file_name": name, "width": 128, "height": 128})
    boxes = [row for row in content["annotations"] if row["image_id"] == twin]
    content["annotations"] += [{**row, "id": 9200 + n, "image_id": 102} for n, row in enumerate(boxes)]
    truth = folder / "truth.json"
    truth.write_text(json.dumps(content))
    return truth


def named(item):
    """What is set aside, without its place in the file."""
    return re.sub(r"annotations\[\d+\] \((id \d+)\)|pool-\d+\.png: (label \d+)", r"\1\2", item)


def test_bad_pictures_and_labels_are_set_aside_and_counted(tmp_path):
    images, crowd, truth = pool(tmp_path / "data")
    data = (f"data.pool.images={images}", f"data.pool.crowd={crowd}", f"expert.truth={truth}")
    job = Program(tmp_path / "w", *SMALL[1:], *ALONE, *data, "run=bad")
    assert job.run() == 0, job.said()
    tables = Tables(str(job.workspace / "tables"))
    reasons = {named(row["item"]): row["reason"] for row in tables.read("set_aside").to_pylist()}
    assert reasons == {
        "truncated.png": "truncated or damaged (image file is truncated)",
        "label 9001": "box (400, 400, 420, 420) lies outside the picture of 128 x 128 px",
        "id 9002": "bbox is nan, not a finite number",
        "id 9003": "box has no area (0 x 10)",
        "id 9004": "unknown category_id 77",
        "id 1": "duplicate id 1",
    }
    for reason in reasons.values():
        assert reason in job.said()
    assert job.summary("bad")["set_aside"] == 6
    assert "9 pool images" in job.said()  # eight good ones and the one of 16 bits
    used = tables.read("images", where={"part": "pool"}).to_pylist()
    assert {row["name"]: row["bit_depth"] for row in used}["deep.tif"] == 16
    report = (job.workspace / "runs" / "bad" / "report.html").read_text()
    assert "truncated.png" in report


def test_an_empty_pool_ends_with_a_clear_message(tmp_path):
    (tmp_path / "none").mkdir()
    crowd = tmp_path / "crowd.json"
    crowd.write_text(json.dumps({"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    data = (f"data.pool.images={tmp_path / 'none'}", f"data.pool.crowd={crowd}", f"expert.truth={crowd}")
    job = Program(tmp_path / "w", *ALONE, *data)
    assert job.run() == 3
    assert "holds no usable image" in job.said()
    assert "Traceback" not in job.said()


def test_a_wrong_key_is_a_fault_of_the_configuration(tmp_path):
    job = Program(tmp_path / "w", *ALONE, "detektor.steps=3", "budget.rounds=-1")
    assert job.run() == 2
    assert "detektor: unknown key" in job.said()
    assert "budget.rounds" in job.said()


def test_label_studio_down_at_the_start(tmp_path, label_studio):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    job = Program(
        tmp_path / "w", *SMALL, "compute=inline", "serve=false", *at(label_studio, nowhere), "run=down"
    )
    assert job.run() == 4
    assert nowhere in job.said()
    assert "Traceback" not in job.said()
    refused = tmp_path / "token"
    refused.write_text("no.such.token")
    assert job.run(*at(label_studio), f"services.label_studio_token_file={refused}") == 4
    assert "refused the token" in job.said()
    assert "training" not in job.said()  # both are told before hours of work, not after
    assert job.run(*at(label_studio)) == 0, job.said()


def test_label_studio_going_down_in_the_middle(tmp_path, label_studio):
    slow = ("expert.pace=0.02", "services.timeout_s=5")
    job = Program(
        tmp_path / "w", *SMALL, "compute=inline", "serve=false", *slow, *at(label_studio), "run=mid"
    )
    running = job.start()
    until = time.monotonic() + 240
    while "with the label service" not in (job.said() if job.log.exists() else ""):
        assert time.monotonic() < until, job.said()
        time.sleep(0.2)
    server.stop(label_studio.pid)
    port = int(label_studio.url.rsplit(":", 1)[1])
    try:
        while "asking again" not in job.said():
            assert running.poll() is None, job.said()
            assert time.monotonic() < until, job.said()
            time.sleep(0.2)
    finally:
        again = server.start(label_studio.log.parent, port=port)
        object.__setattr__(label_studio, "pid", again.pid)  # the fixture ends the one that runs
    assert running.wait(timeout=240) == 0, job.said()
    assert job.summary("mid")["status"] == "finished"
