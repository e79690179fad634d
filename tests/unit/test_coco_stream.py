"""COCO files read picture by picture say the same as when they are read whole, and hold next to nothing."""

import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.errors import LabelError
from emclean.stores.formats import coco, json_stream
from emclean.stores.formats.coco_stream import LabelStream, ResultStream
from emclean.stores.formats.json_stream import JsonStream

NAN = float("nan")


def base(annotations=(), **more):
    return {
        "info": {"nested": [1, {"annotations": [7]}]},
        "images": [
            {"id": 1, "file_name": "a.png", "width": 100, "height": 80},
            {"id": "two", "file_name": "b\u00e9.png", "width": 50, "height": 50},
            {"id": 3, "file_name": "unsized.png"},
        ],
        "categories": [{"id": 7, "name": "deposit"}, {"id": 3, "name": "vesicle"}],
        "annotations": list(annotations),
        **more,
    }


def row(**changes):
    return {"id": 1, "image_id": 1, "category_id": 7, "bbox": [10, 20, 30, 40], **changes}


def elements(text: str | bytes) -> list[tuple]:
    data = text.encode() if isinstance(text, str) else text
    return list(JsonStream(io.BytesIO(data), "file").elements())


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(st.text(max_size=4), st.lists(VALUES, max_size=4) | st.integers(), max_size=4),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([None, 1]),
)
@settings(max_examples=50, deadline=None)
def test_any_object_is_read_through_a_window_of_any_size(content, window, ascii_, indent):
    text = json.dumps(content, ensure_ascii=ascii_, indent=indent).encode()
    wanted = [(key, value) for key, rows in content.items() if isinstance(rows, list) for value in rows]
    before, json_stream.WINDOW = json_stream.WINDOW, window
    try:
        stream = JsonStream(io.BytesIO(text), "file")
        found = list(stream.elements())
    finally:
        json_stream.WINDOW = before
    assert [(key, value) for key, value, _, _ in found] == wanted
    assert [json.loads(text[start:end]) for _, _, start, end in found] == [value for _, value in wanted]
    assert {key: json.loads(text[a:b]) for key, (a, b) in stream.sections.items()} == content


@pytest.mark.parametrize(
    "text",
    ["", "7", "{", "[", '{"a": [1, 2', '{"a": [1 2]}', '{"a": [1,]}', '{"a" 1}', "[1] x", '{1: 2}',
     '{"a": 1,}', '["' + "[" * 3, "[" + "[" * 100_000, b'["\xff"]', "\ufeff"],
)  # fmt: skip
def test_what_is_not_json_is_told_with_its_place(text):
    with pytest.raises(LabelError, match="file"):
        elements(text)


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (",\n  ", ": ")])
def test_nearly_all_elements_are_read_the_quick_way(monkeypatch, separators):
    slow = []
    careful = JsonStream._value
    monkeypatch.setattr(json_stream, "WINDOW", 4096)
    monkeypatch.setattr(JsonStream, "_value", lambda self, key: slow.append(key) or careful(self, key))
    rows = [{"id": i, "bbox": [i, i, 1, 1]} for i in range(2000)]
    text = json.dumps({"annotations": rows}, separators=separators)
    assert [value for _, value, _, _ in elements(text)] == rows
    assert len(slow) < 3 * (len(text) / 4096 + 2)


def test_a_byte_order_mark_and_nan_are_taken():
    (found,) = elements("\ufeff[NaN]")
    assert np.isnan(found[1])


def stream(tmp_path, content, told=None):
    path = tmp_path / "labels.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return LabelStream(str(path), [].append if told is None else told.append)


BAD = st.sampled_from(
    [{}, {"bbox": [1, 2, 3]}, {"bbox": [NAN, 1, 2, 3]}, {"bbox": [0, 0, 0, 5]}, {"bbox": [500, 0, 9, 9]},
     {"bbox": [1, 1, "4", 5]}, {"bbox": None}, {"category_id": 99}, {"category_id": [7]}, {"iscrowd": 1},
     {"image_id": 55}, {"image_id": None}, {"image_id": "two"}, {"image_id": 3}, {"id": None}, {"id": 4.0},
     {"id": True}, {"annotator": "Ann"}, {"bbox": [-5, -5, 20, 20]}, {"bbox": [1e308, 0, 1e308, 1]}]
)  # fmt: skip


@given(st.lists(st.tuples(BAD, st.integers(1, 40)), max_size=12))
@settings(max_examples=40, deadline=None)
def test_picture_by_picture_says_what_the_whole_file_says(tmp_path_factory, changes):
    rows = [row(id=number) | change for change, number in changes]
    rows = rows if not rows else [*rows[:3], "no object", *rows[3:]]
    content = base(rows)
    whole, told = coco.parse(json.dumps(content), "labels.json"), []
    ids = {r.get("id") for r in rows if isinstance(r, dict)}
    with stream(tmp_path_factory.mktemp("s"), content, told) as found:
        for key, entry in found.listing.entries.items():
            given = found.read(key, told.append)
            wanted = whole.labels[entry.file_name]
            if len(ids) == len(rows) - 1:  # no id twice: a bad row's id counts as met only here
                assert given.labels.ids == wanted.ids
                assert np.array_equal(given.labels.boxes, wanted.boxes)
                assert np.array_equal(given.labels.categories, wanted.categories)
                assert given.labels.annotators == wanted.annotators
            assert len(given.rows) == len(given.labels)
    if len(ids) == len(rows) - 1:
        assert len(told) == len(whole.set_aside)


def test_an_id_that_is_there_twice_counts_once(tmp_path):
    told: list = []
    content = base([row(), row(id=2), row(id=1, image_id="two"), row(id="2")])
    with stream(tmp_path, content, told) as found:
        ids = [found.read(key, told.append).labels.ids for key in found.listing.entries]
    assert ids == [("1", "2"), (), ()]
    assert sorted(item.reason for item in told) == ["duplicate id 1", "duplicate id 2"]


def test_pictures_may_be_listed_last_and_rows_in_any_order(tmp_path):
    content = base([row(id=i, image_id=(1, "two", 3)[i % 3]) for i in range(30)])
    turned = dict(reversed(content.items()))
    with stream(tmp_path, turned) as found:
        counts = [len(found.read(key, [].append).labels) for key in found.listing.entries]
        assert counts == [10, 10, 10]
        assert json.loads(found.part("images")) == content["images"]


def test_rows_of_one_picture_side_by_side_are_one_note(tmp_path):
    rows = [row(id=i, image_id=1 if i < 500 else 3) for i in range(1000)]
    with stream(tmp_path, base(rows)) as found:
        assert len(list(found._places.runs(1))) == 1
        assert found.read(3, [].append).labels.ids[0] == "500"


def test_results_need_scores_and_known_pictures(tmp_path):
    told: list = []
    results = [
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5},
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4]},
        {"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 1.5},
        {"image_id": 9, "category_id": 7, "bbox": [1, 2, 3, 4], "score": 0.5},
    ]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with (
        stream(tmp_path, base()) as labels,
        ResultStream(str(tmp_path / "results.json"), labels.listing, told.append) as found,
    ):
        seen = found.read(1, told.append)
        assert seen.scores.tolist() == [0.5]
        assert len(found.read("two", told.append)) == 0
        assert not found.has_rows("two")
    assert [item.reason for item in told] == [
        "unknown image_id 9", "score is not a number: None", "score is 1.5, not from 0 to 1",
    ]  # fmt: skip


def test_files_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(LabelError, match="cannot be opened"):
        LabelStream(str(tmp_path / "absent.json"), [].append)
    for content, what in (
        ([], "images: is missing"),
        (base(images=[]), "no usable image"),
        (base(categories=[{}]), "no usable category"),
    ):
        with pytest.raises(LabelError, match=what):
            stream(tmp_path, content)
    (tmp_path / "results.json").write_text('{"images": []}')
    with stream(tmp_path, base()) as labels, pytest.raises(LabelError, match="list of detections"):
        ResultStream(str(tmp_path / "results.json"), labels.listing, [].append)
