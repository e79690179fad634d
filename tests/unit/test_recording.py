"""What a round writes into the tables, in parts of a bounded size."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from loop_jobs import BOX, small_job

from emclean.errors import DataError
from emclean.loop import asking, recording
from emclean.loop.cleaning import Judged, standing_labels
from emclean.loop.controller import opened
from emclean.loop.states import RunState
from emclean.science.correction import Change, Corrected
from emclean.stores.tables import Tables
from emclean.types import GRADES, Labels, Predictions, SetAside, Target, Verdicts

IDS = ("a", "b", "c", "d", "e")
UNSAID = np.zeros(0, np.bool_)  # which verdicts were acted on, where nobody asks


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job over five images, of which two are written at a time."""
    monkeypatch.setattr(recording, "IMAGES_AT_ONCE", 2)
    return small_job(tmp_path, IDS)


@pytest.fixture
def sizes(monkeypatch):
    """How many rows each append brought."""
    seen = []
    real = Tables.append

    def append(self, name, rows, key=None):
        seen.append(len(rows))
        return real(self, name, rows, key)

    monkeypatch.setattr(Tables, "append", append)
    return seen


def said(*grades, parts=()):
    """Verdicts over one label and, after it, candidates for missed objects."""
    n = len(grades)
    return Verdicts(
        np.array([0, *[-1] * (n - 1)]),
        np.zeros(n),
        np.array([GRADES.index(g) for g in grades]),
        np.array([0.9, 0.8, 0.3][:n]),
        np.tile(BOX, (n, 1)),
        np.array([1, 0, 0][:n]),
        tuple(f"why {k}" for k in range(n)),
        parts=np.array(parts).reshape(-1, 4),
        part_of=np.zeros(len(parts)),
    )


def judged(job, verdicts):
    evidence = {i: SimpleNamespace(labels=job.data.pool.labels[i]) for i in verdicts}
    return Judged(evidence, verdicts, {"spurious": 0.7}, None)


def test_the_digest_of_a_part_tells_labels_groups_and_the_meaning_of_categories(job):
    pool = job.data.pool
    first = pool.records[0]
    others = [
        replace(pool, categories=pool.categories[::-1]),
        replace(pool, records=(replace(first, group="case 1"), *pool.records[1:])),
        replace(pool, records=pool.records[1:]),
        replace(pool, labels={**pool.labels, "a": Labels.empty()}),
    ]
    assert len({recording.part_digest(part) for part in (pool, *others)}) == 5
    again = replace(pool, records=pool.records[::-1], labels=dict(reversed(pool.labels.items())))
    assert recording.part_digest(again) == recording.part_digest(pool)


def test_a_run_is_not_gone_on_with_where_categories_have_changed_places(job):
    state = opened(job, RunState("run"))
    pool = job.data.pool
    swapped = replace(job.data, pool=replace(pool, categories=pool.categories[::-1]))
    with pytest.raises(DataError, match="changed since it began: pool"):
        opened(replace(job, data=swapped), state)


def test_inputs_are_written_in_parts_and_once(job, sizes):
    aside = [SetAside("label", f"row {k}", "no area") for k in range(3)]
    for _ in range(2):
        recording.record_inputs(job, aside)
    tables = job.parts.tables
    assert [tables.read(name).num_rows for name in ("images", "labels", "set_aside")] == [5, 5, 3]
    assert max(sizes) == 2
    assert set(standing_labels(job)) == set(IDS)


def test_predictions_come_back_as_they_were(job, sizes):
    found = {
        "b": Predictions([BOX, (1, 2, 3, 4)], [0, 1], [0.5, 0.25]),
        "a": Predictions([(5, 6, 7, 8)], [1], [1.0]),
        "c": Predictions.empty(),
    }
    for _ in range(2):
        recording.record_predictions(job, 3, "cleaning", found)
    rows = {row["image_id"]: row for row in job.parts.tables.read("predictions").to_pylist()}
    assert len(rows) == job.parts.tables.read("predictions").num_rows == 3
    assert max(sizes) == 2
    assert rows["b"] == {
        "run": "run", "round": 3, "model": "cleaning", "image_id": "b",
        "x1": [10.0, 1.0], "y1": [10.0, 2.0], "x2": [30.0, 3.0], "y2": [30.0, 4.0],
        "category": ["deposit", "vesicle"], "score": [0.5, 0.25],
    }  # fmt: skip
    assert (rows["a"]["x1"], rows["a"]["category"], rows["c"]["score"]) == ([5.0], ["vesicle"], [])


def test_verdicts_come_back_with_label_parts_and_reason(job):
    parts = [(10.0, 10.0, 20.0, 30.0), (20.0, 10.0, 30.0, 30.0)]
    verdicts = {
        "c": said("clean"), "a": said("merged", "missed", "missed", parts=parts), "b": said("spurious"),
    }  # fmt: skip
    recording.record_verdicts(job, 1, judged(job, verdicts))
    rows = {(r["image_id"], r["item"]): r for r in job.parts.tables.read("verdicts").to_pylist()}
    assert sorted(rows) == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0)]
    first = rows["a", 0]
    assert first["parts"] == [*parts[0], *parts[1]]
    assert (first["instance_id"], first["grade"], first["probability"]) == ("crowd-a", "merged", 0.9)
    assert (first["x1"], first["category"], first["calibrated"]) == (10.0, "vesicle", False)
    assert (rows["a", 1]["instance_id"], rows["a", 1]["reason"], rows["a", 1]["parts"]) == (None, "why 1", [])
    assert rows["b", 0]["instance_id"] == "crowd-b"


def test_nothing_found_writes_nothing(job):
    recording.record_predictions(job, 0, "cleaning", {})
    recording.record_verdicts(job, 0, judged(job, {}))
    assert job.parts.tables.version("predictions") == job.parts.tables.version("verdicts") == -1


def test_corrections_stand_and_are_counted_by_grade(job):
    recording.record_inputs(job, [])
    question = asking.make_question(job, "c", 0, [], at_random=True, blind=True, value=1.0)
    asking.save_plan(job, 0, [question])
    verdicts = {i: said("spurious", "missed", "missed") for i in ("a", "b", "c")}
    gone = Change("deleted", "crowd-a", BOX, 0, "nothing there")
    seen = Change("added", "added-0", BOX, 1, "seen by both")
    new = Labels([BOX, BOX], [0, 1], ("crowd-b", "added-0"))
    fixed = {
        "a": Corrected(Labels.empty(), (gone,), Target.of(Labels.empty()), UNSAID),
        "b": Corrected(new, (seen,), Target.of(new), UNSAID),
    }
    facts = recording.record_corrections(job, 0, judged(job, verdicts), fixed)
    standing = standing_labels(job)
    assert (standing["a"].ids, set(standing["b"].ids)) == ((), {"crowd-b", "added-0"})
    assert facts["counts"] == {"spurious": 3, "missed": 3}  # a candidate at 0.3 is no finding
    assert facts["corrected_by"] == {"spurious": 1, "missed": 1}
    assert facts["asked_by"] == {"spurious": 1, "missed": 1}
    assert (facts["corrected"], facts["limits"]["spurious"]) == (2, 0.7)


def test_only_what_was_corrected_counts_as_right(job):
    verdicts = {i: said("shifted") for i in ("a", "b")}  # well placed, but as it was
    found = replace(judged(job, verdicts), limits={"shifted": 0.7, "spurious": 0.7})
    unchanged = Corrected(job.data.pool.labels["a"], (), Target.of(Labels.empty()), UNSAID)
    assert recording.right_corrections(job, found, dict.fromkeys(verdicts, unchanged)) == {}
    found.verdicts["a"] = replace(found.verdicts["a"], box=np.array([BOX]) + 1)
    assert recording.right_corrections(job, found, dict.fromkeys(verdicts, unchanged)) == {"shifted": 1}


def test_the_word_beside_a_correction_is_the_kind_of_error_not_its_reason(job, monkeypatch):
    drawn = []
    monkeypatch.setattr(recording, "_draw", lambda job, round_, sort, i, layers: drawn.append(layers) or i)
    gone = Change("deleted", "crowd-a", BOX, 0, "no model sees an object here (0.98)")
    seen = Change("added", "added-0", BOX, 1, "seen by both")
    fixed = {"a": Corrected(Labels.empty(), (gone, seen), Target.of(Labels.empty()), UNSAID)}
    monkeypatch.setattr(recording, "correct", lambda job, judged: fixed)
    found = judged(job, {"a": said("spurious", "missed")})
    found.evidence["a"].reference = Predictions.empty()
    assert recording._corrected(job, SimpleNamespace(round=0), found) == ["a"]
    assert [change.grade for change in drawn[0].changes] == ["spurious", "missed"]
    assert len(drawn[0].crowd) == 0  # what was changed is drawn once, dashed
