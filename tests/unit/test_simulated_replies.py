import json
import threading

import numpy as np
import pytest

from emclean.errors import LabelServiceError
from emclean.science.expert import Slips
from emclean.simulated_expert import Expert, Options, Truth, reply
from emclean.stores.label_studio.convert import task_body
from emclean.stores.label_studio.page import configuration
from emclean.types import ImageRecord, Labels, Suggestion, TaskSpec

CATEGORIES = ("deposit", "vesicle")
TRUTH = Truth(
    {"sub/a.png": Labels(np.array([[10.0, 10, 60, 50], [100, 100, 160, 150]]), np.array([0, 1]))}, CATEGORIES
)


def served(key="run/aa/1", blind=False, name="a.png"):
    shown = (
        Suggestion("s1", (10, 10, 60, 50), "deposit", 0.9),
        Suggestion("s2", (300, 300, 340, 340), "vesicle", 0.3),
    )
    task = TaskSpec(key, ImageRecord("aa", "/a.png", name, 400, 400), shown, blind=blind)
    return {"id": 5, **task_body(task, "u")}


def labels(given):
    return [region["value"]["rectanglelabels"][0] for region in given.body["result"]]


def test_without_slips_the_answer_is_the_truth():
    given = reply(served(), TRUTH, Options())
    assert [region["id"] for region in given.body["result"]] == ["s1", "drawn-1"]
    assert labels(given) == ["deposit", "vesicle"]
    assert given.made._asdict() == {"added": 1, "moved": 0, "deleted": 1, "verified": 1}
    assert given.body["lead_time"] == given.seconds == 5 + 14 + 2 + 2


def test_blind_task_is_drawn_from_nothing():
    given = reply(served(blind=True), TRUTH, Options())
    assert given.made._asdict() == {"added": 2, "moved": 0, "deleted": 0, "verified": 0}


def test_rubber_stamp_leaves_what_is_wrong():
    given = reply(served(), TRUTH, Options(slips=Slips(miss=1.0, rubber_stamp=1.0)))
    assert {region["id"] for region in given.body["result"]} == {"s1", "s2"}


def test_answer_depends_on_seed_and_key_alone():
    options = Options(slips=Slips(miss=0.3, jitter=0.1), seed=3)
    first = reply(served(), TRUTH, options).body
    reply(served("run/bb/1"), TRUTH, options)
    assert reply(served(), TRUTH, options).body == first
    assert reply(served("run/bb/1"), TRUTH, options).body["result"] != first["result"]


def test_truth_follows_the_projects_order_of_categories():
    turned = TRUTH.in_order(("vesicle", "other", "deposit"), "project p")
    assert turned.of("a.png").categories.tolist() == [2, 0]


def test_boxes_of_a_category_that_the_project_lacks_are_left_out():
    fewer = TRUTH.in_order(("vesicle",), "project p").of("a.png")
    assert fewer.boxes.tolist() == [[100, 100, 160, 150]]
    assert fewer.categories.tolist() == [0]
    assert TRUTH.left_out(("vesicle",)) == {"deposit": 1}


def test_a_category_without_boxes_changes_nothing():
    more = Truth(TRUTH.labels, (*CATEGORIES, "artefact"))
    assert more.left_out(CATEGORIES) == {}
    same = more.in_order(CATEGORIES, "project p").of("a.png")
    assert same.categories.tolist() == TRUTH.of("a.png").categories.tolist()


def test_a_truth_without_any_of_the_projects_categories_is_refused():
    with pytest.raises(LabelServiceError, match=r"project p: the project has none .*deposit, vesicle"):
        TRUTH.in_order(("deposits",), "project p")


class OneProject:
    """Stands for a server with one project of the category deposit and no open task."""

    def get(self, path, **query):
        return {"results": [{"id": 1, "title": "emclean p", "label_config": configuration(["deposit"])}]}

    def tasks(self, project, filters, fields):
        return iter(())


def test_what_is_left_out_is_said_once():
    said = []
    expert = Expert(OneProject(), TRUTH, Options(), threading.Event(), said.append)
    expert.run()
    expert.run()
    assert said == ["project emclean p: left out 1 boxes of unknown category 'vesicle' in the truth"]


def test_unknown_picture_is_refused():
    assert TRUTH.of("b.png") is None
    with pytest.raises(LabelServiceError, match=r"b\.png"):
        reply(served(name="b.png"), TRUTH, Options())


def test_truth_is_read_from_coco(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "x.png", "width": 50, "height": 50}],
        "categories": [{"id": 1, "name": "deposit"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 10, 20]}],
    }
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    assert Truth.load(path).of("x.png").boxes.tolist() == [[1, 2, 11, 22]]
