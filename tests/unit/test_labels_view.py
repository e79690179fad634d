"""Label events: the current view equals a naive replay, and an expert's answer is reproduced exactly."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.errors import LabelError
from emclean.stores import label_view
from emclean.stores import labels as events
from emclean.stores.schemas import LABELS
from emclean.stores.tables import Tables, conform
from emclean.types import Answer, AnsweredBox, Labels

AT = datetime(2026, 1, 2, tzinfo=UTC)
NAMES = ("deposit", "vesicle", "organelle")
Row = dict[str, object]


def table_of(rows: list[Row], start: int = 0) -> pa.Table:
    return conform(LABELS, [{**row, "seq": start + i} for i, row in enumerate(rows)])


def applied(table: pa.Table, rows: list[Row]) -> pa.Table:
    """The table after an append, as ``Tables`` would do it: events of a known id are left out."""
    known = set(table["event_id"].to_pylist())
    return pa.concat_tables(
        [table, table_of([r for r in rows if r["event_id"] not in known], table.num_rows)]
    )


def labels(*boxes: tuple[float, float, float, float], category: int = 0, mark: str = "c") -> Labels:
    ids = tuple(f"{mark}{i}" for i in range(len(boxes)))
    return Labels(np.array(boxes).reshape(-1, 4), np.full(len(boxes), category), ids, ("ann",) * len(boxes))


def answer(
    *boxes: tuple[object, ...], number: int = 7, at: str = "2026-02-01T00:00:00Z", **more: object
) -> Answer:
    said = tuple(AnsweredBox(*box) for box in boxes)
    return Answer("run/img/1", 3, number, at, "expert", said, **more)


def ask(now: Labels, said: Answer, shown: dict[str, str] | None = None) -> list[Row]:
    return events.expert_events(
        "img", now, said, instances=shown or {}, categories=NAMES, round_=1, run="run"
    )


def kinds(rows: list[Row]) -> dict[str, str]:
    return {row["instance_id"]: row["event"] for row in rows if row["instance_id"]}


def as_set(view: Labels) -> list[tuple[object, ...]]:
    return sorted((*map(float, box), NAMES[c]) for box, c in zip(view.boxes, view.categories, strict=True))


def start(view: Labels) -> pa.Table:
    return events.crowd_events({"img": view}, NAMES, "run", AT)


def test_crowd_labels_stand_as_they_came(tmp_path: Path) -> None:
    crowd = {
        "a": labels((0, 0, 1, 1), (2, 2, 5, 4), category=1),
        "b": Labels.empty(),
        "c": labels((1, 1, 2, 2)),
    }
    tables = Tables(tmp_path)
    for _ in range(2):
        tables.append("labels", events.crowd_events(crowd, NAMES, "run", AT))
    view = label_view.current(tables.read("labels"), NAMES)
    assert sorted(view) == ["a", "c"]
    assert view["a"].ids == ("c0", "c1")
    assert view["a"].annotators == ("ann", "ann")
    np.testing.assert_array_equal(view["a"].boxes, crowd["a"].boxes)
    assert view["a"].categories.tolist() == [1, 1]
    assert events.crowd_events({}, NAMES, "run", AT).num_rows == 0
    assert label_view.current(LABELS.schema.empty_table(), NAMES) == {}


def test_as_many_boxes_are_called_drawn_as_were_drawn() -> None:
    now = labels((0, 0, 10, 10), (20, 20, 30, 30), (40, 40, 50, 50))
    drawn = [((1, 0, 10, 10), "deposit"), ((21, 20, 30, 30), "vesicle"), ((70, 70, 80, 80), "deposit")]
    rows = ask(now, answer(*drawn, ((41, 40, 50, 50), "deposit", "s1")), {"s1": "c2"})
    assert kinds(rows)["c0"] == "moved"  # the label goes on, in another place
    reasons = [row["reason"] for row in rows]
    assert len([reason for reason in reasons if reason.startswith("drawn by the expert")]) == 3
    assert [row["instance_id"] for row in rows if row["reason"] == "moved by the expert"] == ["c2"]


BOX = st.tuples(*[st.integers(0, 30)] * 2, *[st.integers(1, 20)] * 2).map(
    lambda v: (float(v[0]), float(v[1]), float(v[0] + v[2]), float(v[1] + v[3]))
)
EVENT = st.tuples(
    st.sampled_from(["p", "q", "r"]),
    st.sampled_from(["1", "2", "3", "4"]),
    BOX,
    st.sampled_from(NAMES),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(EVENT, max_size=30), st.randoms(use_true_random=False))
def test_the_view_equals_a_naive_replay(history: list[tuple], shuffle: object) -> None:
    rows, naive = [], {}
    for i, (image, instance, box, category, gone) in enumerate(history):
        at_image = naive.setdefault(image, {})
        at_image.pop(instance, None) if gone else at_image.__setitem__(instance, (*box, category))
        row = {
            "event_id": str(i),
            "image_id": image,
            "instance_id": instance,
            "source": "auto",
            "annotator": "",
        }
        row |= dict(zip(events.CORNERS, box, strict=True)) | {
            "category": category,
            "reason": "",
            "run": "run",
        }
        rows.append({**row, "event": "deleted" if gone else "moved", "at": AT, "round": 0, "seq": i})
    shuffle.shuffle(rows)  # stored order means nothing, seq does
    view = label_view.current(conform(LABELS, rows), NAMES)
    assert {k: sorted(v.values()) for k, v in naive.items()} == {k: as_set(v) for k, v in view.items()}
    assert {k: set(v) for k, v in naive.items()} == {k: set(v.ids) for k, v in view.items()}


SAID = st.lists(
    st.tuples(BOX, st.sampled_from(NAMES), st.sampled_from(["", "s0", "s1", "s2", "new"])), max_size=5
)


@settings(max_examples=30, deadline=None)
@given(st.lists(BOX, max_size=4), SAID, SAID)
def test_the_view_becomes_exactly_the_answer_and_repeating_changes_nothing(
    crowd: list[tuple], first: list[tuple], second: list[tuple]
) -> None:
    shown = {"s0": "c0", "s1": "c1", "s2": "c1"}
    table = start(labels(*crowd))
    for said in (answer(*first), answer(*second, at="2026-02-01T00:00:09Z")):
        for _ in range(2):
            now = label_view.current(table, NAMES).get("img", Labels.empty())
            before = table.num_rows
            table = applied(table, ask(now, said, shown))
            view = label_view.current(table, NAMES)["img"]
            expected = sorted((*box.box, box.category) for box in said.boxes)
            assert as_set(view) == expected
        assert table.num_rows == before
    assert label_view.expert_images(table) == {"img"}


def test_each_kind_of_change_is_named() -> None:
    now = labels((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (60, 0, 70, 10))
    said = answer(
        ((0, 0, 10, 10.01), "deposit", "s0"),
        ((21, 0, 31, 10), "deposit", "s1"),
        ((40, 0, 50, 10), "vesicle", ""),
        ((80, 0, 90, 10), "deposit", ""),
    )
    rows = ask(now, said, {"s0": "c0", "s1": "c1"})
    new = next(name for name in kinds(rows) if name.startswith("expert-7-"))
    assert kinds(rows) == {"c0": "verified", "c1": "moved", "c2": "relabelled", "c3": "deleted", new: "added"}
    assert {row["annotation_id"] for row in rows} == {7}
    assert rows[0]["y2"] == 10.01, "a confirmed box is kept as the expert's page holds it"


def test_a_split_box_names_its_parent() -> None:
    now = labels((0, 0, 20, 10))
    rows = ask(
        now, answer(((0, 0, 9, 10), "deposit", "a"), ((9, 0, 20, 10), "deposit", "b")), {"a": "c0", "b": "c0"}
    )
    by_event = {row["event"]: row for row in rows if row["instance_id"]}
    assert by_event["moved"]["instance_id"] == "c0"
    assert by_event["moved"]["x1"] == 9, "the part that covers more of it goes on as the instance"
    assert by_event["added"]["parent_id"] == "c0"
    table = applied(start(now), rows)
    born = by_event["added"]["instance_id"]
    assert [row["event"] for row in label_view.lineage(table, born, "img")] == ["added", "added", "moved"]
    assert label_view.lineage(table, "nobody") == []


def test_skipped_says_nothing_and_empty_says_no_objects() -> None:
    now = labels((0, 0, 10, 10))
    assert ask(now, answer(skipped=True)) == []
    table = applied(start(now), ask(now, answer()))
    assert len(label_view.current(table, NAMES)["img"]) == 0
    bare = table_of(ask(Labels.empty(), answer()))
    assert label_view.expert_images(bare) == {"img"}
    assert len(label_view.current(bare, NAMES)["img"]) == 0


def test_an_answer_with_an_unknown_category_is_refused() -> None:
    with pytest.raises(LabelError, match=r"'odd'.*deposit") as caught:
        ask(Labels.empty(), answer(((0, 0, 1, 1), "odd")))
    assert "annotation 7" in str(caught.value)
    with pytest.raises(LabelError, match="unknown category 'vesicle'"):
        label_view.current(
            events.crowd_events({"i": labels((0, 0, 1, 1), category=1)}, NAMES, "r", AT), ("deposit",)
        )
    with pytest.raises(LabelError, match="category 3"):
        events.crowd_events({"i": labels((0, 0, 1, 1), category=3)}, NAMES, "r", AT)


def test_the_later_of_two_annotators_wins_and_a_skip_does_not_erase() -> None:
    early = answer(number=9, at="2026-02-01T01:00:00+02:00")
    late = answer(number=8, at="2026-02-01T00:00:00.5Z")
    skip = answer(number=10, at="2027-01-01T00:00:00Z", skipped=True)
    assert events.newest([late, skip, early])["run/img/1"] is late, "times are compared, not texts"
    assert events.newest([skip])["run/img/1"] is skip


def test_only_answers_newer_than_the_labels_are_taken_in() -> None:
    first, edited = answer(number=7), answer(number=7, at="2026-02-02T00:00:00Z")
    other_task = replace(answer(number=9, at="2026-02-03T00:00:00Z"), key="run/img/2")
    table = start(labels((0, 0, 9, 9)))
    assert events.untaken(table, [first]) == {"img": first}
    table = applied(table, ask(Labels.empty(), first))
    assert events.untaken(table, [first]) == {}
    assert events.untaken(table, [first, edited]) == {"img": edited}
    assert events.untaken(table, [other_task, edited]) == {"img": other_task}
    table = applied(table, ask(Labels.empty(), other_task))
    assert events.untaken(table, [first, edited, replace(edited, skipped=True)]) == {}


def corrected(view: Labels, wanted: Labels, round_: int = 2) -> list[dict[str, object]]:
    changes = {"c0": ("spurious", ""), "c1": ("shifted", ""), "c1/0": ("merged", "c1")}
    why = changes if round_ == 2 else {}
    return events.auto_events("img", view, wanted, why, categories=NAMES, round_=round_, run="run", at=AT)


def test_automatic_corrections_become_events() -> None:
    crowd = labels((0, 0, 9, 9), (1, 1, 3, 4))
    boxes = np.array([[1, 2, 3, 4.5], [5, 5, 6, 6]])
    wanted = Labels(boxes, np.array([0, 1]), ("c1", "c1/0"))
    rows = corrected(crowd, wanted)
    assert [(r["instance_id"], r["event"], r["reason"], r["parent_id"]) for r in rows] == [
        ("c0", "deleted", "spurious", None),
        ("c1", "moved", "shifted", None),
        ("c1/0", "added", "merged", "c1"),
    ]
    table = applied(start(crowd), rows)
    view = label_view.current(table, NAMES)["img"]
    assert as_set(view) == [(1.0, 2.0, 3.0, 4.5, "deposit"), (5.0, 5.0, 6.0, 6.0, "vesicle")]
    assert corrected(view, wanted) == []
    assert label_view.expert_images(table) == set()
    assert [row["instance_id"] for row in label_view.lineage(table, "c1/0")] == ["c1", "c1", "c1/0"]


def test_a_correction_that_is_not_wanted_any_more_is_taken_back() -> None:
    crowd = labels((0, 0, 9, 9), (1, 1, 3, 4))
    table = applied(start(crowd), corrected(crowd, crowd.take([0])))
    view = label_view.current(table, NAMES)["img"]
    assert view.ids == ("c0",)
    (back,) = rows = corrected(view, crowd, round_=3)
    assert (back["event"], back["reason"]) == ("added", "an earlier correction is no longer safe")
    assert as_set(label_view.current(applied(table, rows), NAMES)["img"]) == as_set(crowd)
