"""COCO in and out: whole files round, bad rows set aside with their reason, nothing else ever raised."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.errors import LabelError
from emclean.stores.formats import coco, read_labels
from emclean.types import ImageRecord, Labels


def base(annotations=(), **more):
    return {
        "images": [
            {"id": 1, "file_name": "a.png", "width": 100, "height": 80, "group": "case 1"},
            {"id": 2, "file_name": "b.png", "width": 50, "height": 50},
        ],
        "categories": [{"id": 7, "name": "deposit"}, {"id": 3, "name": "vesicle"}],
        "annotations": list(annotations),
        **more,
    }


def row(**changes):
    return {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 40], **changes}


def parsed(*annotations):
    return coco.parse(json.dumps(base(annotations)), "labels.json")


def test_a_plain_file():
    file = parsed(row(annotator="ann"), row(id=2, category_id=3, bbox=[1, 2, 3, 4.5]))
    assert file.categories == ("deposit", "vesicle")
    assert [entry.group for entry in file.images] == ["case 1", ""]
    np.testing.assert_array_equal(file.labels["a.png"].boxes, [[10, 20, 40, 60], [1, 2, 4, 6.5]])
    np.testing.assert_array_equal(file.labels["a.png"].categories, [0, 1])
    assert file.labels["a.png"].ids == ("1", "2")
    assert file.labels["a.png"].annotators == ("ann", "")
    assert len(file.labels["b.png"]) == 0
    assert file.set_aside == ()


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(bbox=[200, 20, 30, 40]), "lies outside the picture of 100 x 80 px"),
        (row(bbox=[float("nan"), 20, 30, 40]), "bbox is nan"),
        (row(bbox=[10, float("inf"), 30, 40]), "bbox is inf"),
        (row(bbox=[10, 20, 0, 40]), "no area"),
        (row(bbox=[10, 20, -5, 40]), "negative side"),
        (row(bbox=[10, 20, 30]), "not a list of x, y, width, height"),
        (row(bbox=[10, 20, 30, "wide"]), "not a number: 'wide'"),
        (row(bbox=[10, 20, 30, True]), "not a number: True"),
        (row(bbox=[10, 20, 30, None]), "not a number: None"),
        (row(bbox=None), "not a list"),
        (row(category_id=99), "unknown category_id 99"),
        (row(category_id=None), "no usable category_id"),
        (row(image_id=99), "unknown image_id 99"),
        (row(image_id=[1]), "no usable image_id"),
        (row(id=5), "duplicate id 5"),
        (row(iscrowd=1), "crowd"),
        ("nonsense", "not an object"),
        (None, "not an object"),
    ],
)
def test_a_bad_row_is_set_aside_with_its_reason_and_the_others_stay(bad, reason):
    file = parsed(row(id=5), bad, row(id=6))
    assert len(file.labels["a.png"]) == 2
    (aside,) = file.set_aside
    assert aside.kind == "label"
    assert reason in aside.reason
    assert "[1]" in aside.item or "a.png" in aside.item


def test_a_box_over_the_border_is_clipped():
    file = parsed(row(bbox=[-10, 60, 30, 40]))
    np.testing.assert_array_equal(file.labels["a.png"].boxes, [[0, 60, 20, 80]])
    assert file.set_aside == ()


def test_rows_without_id_get_one_by_place():
    without = {key: value for key, value in row().items() if key != "id"}
    assert parsed(without, without).labels["a.png"].ids == ("row-0", "row-1")


def test_bad_images_and_categories_are_set_aside():
    content = base([row()])
    content["images"] += [{"id": 2, "file_name": "c.png"}, {"id": 9}, {"id": 10, "file_name": "a.png"}, 4]
    content["images"] += [{"id": 11, "file_name": "d.png", "width": -3, "height": 5}]
    content["categories"] += [{"id": 7, "name": "again"}, {"id": 8}]
    file = coco.parse(json.dumps(content), "labels.json")
    assert len(file.images) == 2
    assert [(aside.kind, aside.item) for aside in file.set_aside] == [
        ("image", "images[2]"),
        ("image", "images[3]"),
        ("image", "images[4]"),
        ("image", "images[5]"),
        ("image", "images[6]"),
        ("label", "categories[2]"),
        ("label", "categories[3]"),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{broken", "not JSON"),
        ("[1, 2]", "is an object"),
        ("{}", "images: is missing"),
        (json.dumps(base(images={})), "images: is not a list"),
        (json.dumps(base(images=[])), "holds no usable image"),
        (json.dumps(base(categories=[])), "holds no usable category"),
        (json.dumps(base()).replace('"annotations": []', '"annotations": 5'), "annotations: is not a list"),
    ],
)
def test_what_is_no_coco_file_is_a_label_error_naming_file_and_field(text, words):
    with pytest.raises(LabelError, match=words) as caught:
        coco.parse(text, "labels.json")
    assert str(caught.value).startswith("labels.json")


def test_a_missing_file_is_a_label_error(tmp_path):
    with pytest.raises(LabelError, match="cannot be opened"):
        read_labels(str(tmp_path / "no.json"))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    ["id", "image_id", "category_id", "bbox", "iscrowd", "annotator", "label_id", "score"]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(fields, junk) | junk, max_size=6), st.lists(junk, max_size=2))
def test_junk_is_never_raised_only_set_aside(rows, images):
    content = base([{**row(), **bad} if isinstance(bad, dict) else bad for bad in rows])
    content["images"] += images
    file = coco.parse(json.dumps(content), "labels.json")
    used = sum(len(labels) for labels in file.labels.values())
    assert used + sum(aside.kind == "label" for aside in file.set_aside) == len(rows)


corner = st.floats(0, 90, allow_nan=False).map(lambda value: round(value, 3))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(corner, corner, st.integers(0, 1)), max_size=8))
def test_labels_round_trip(tmp_path_factory, spots):
    path = tmp_path_factory.mktemp("coco") / "out.json"
    boxes = np.array([[x, y, x + 5.25, y + 9.5] for x, y, _ in spots]).reshape(-1, 4)
    ids = tuple(f"crowd/{i}" for i in range(len(spots)))
    labels = Labels(boxes, [kind for _, _, kind in spots], ids, tuple("ann" for _ in spots))
    record = ImageRecord("0123456789abcdef", "/x/a.png", "a.png", 100, 100, group="g")
    coco.write(path, coco.Export([record], {record.image_id: labels}, ("deposit", "vesicle")))
    file = coco.read(str(path))
    np.testing.assert_allclose(file.labels["a.png"].boxes, boxes, atol=1e-9)
    np.testing.assert_array_equal(file.labels["a.png"].categories, labels.categories)
    assert file.labels["a.png"].ids == ids
    assert file.labels["a.png"].annotators == labels.annotators
    assert file.set_aside == ()


def test_written_rows_carry_their_lineage(tmp_path):
    record = ImageRecord("0123456789abcdef", "/x/a.png", "a.png", 100, 100, pixel_size_nm=4.6)
    labels = Labels([[1, 2, 3, 4]], [0], ("l1",))
    lineage = {"l1": coco.Lineage("expert", "dr", "2026-01-01T00:00:00Z", "shifted", "l0")}
    export = coco.Export([record], {record.image_id: labels}, ("deposit",), lineage, "labels@7")
    coco.write(tmp_path / "out.json", export)
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["info"]["label_revision"] == "labels@7"
    assert content["images"][0]["pixel_size_nm"] == 4.6
    (written,) = content["annotations"]
    assert written["bbox"] == [1, 2, 2, 2]
    expected = {"source": "expert", "annotator": "dr", "reason": "shifted", "parent": "l0"}
    assert {key: written[key] for key in expected} == expected


def test_another_order_of_categories():
    file = parsed(row(), row(id=2, category_id=3)).with_categories(("vesicle", "fibre"))
    np.testing.assert_array_equal(file.labels["a.png"].categories, [0])
    assert file.labels["a.png"].ids == ("2",)
    assert file.set_aside[-1].reason == "unknown category 'deposit'"
