"""The labels of a run as a file: what is read back is what stands, and every label says where it is from."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from emclean import cli
from emclean.errors import DataError
from emclean.loop import likelier, submitting
from emclean.loop.export import export_run, write_coco
from emclean.stores import columns, label_view
from emclean.stores import labels as label_events
from emclean.stores.formats import read_labels
from emclean.stores.tables import Tables
from emclean.types import Answer, AnsweredBox, ImageRecord, Labels, Predictions

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BOX, OTHER, DRAWN = (10.0, 10.0, 30.5, 30.0), (40.0, 20.0, 70.0, 60.0), (12.0, 50.0, 22.0, 70.25)
CATEGORIES = ("deposit", "vesicle")
RECORDS = [ImageRecord(i, f"/{i}.png", f"{i}.png", 100, 80, group="case 1") for i in ("b", "a", "c")]


@pytest.fixture
def tables(tmp_path):
    """Two images with crowd labels, one without; an expert split a box of the first and deleted another."""
    store = Tables(str(tmp_path / "tables"))
    crowd = {
        "a": Labels(np.array([BOX, OTHER]), np.array([0, 0]), ("x", "y"), ("ann", "ann")),
        "b": Labels(np.array([BOX]), np.array([1]), ("x",)),
        "c": Labels.empty(),
    }
    about = {"run": "run", "categories": list(CATEGORIES), "settings": "{}", "at": NOW}
    store.append("runs", [about])
    store.append("images", [{**vars(r), "run": "run", "part": "pool", "at": NOW} for r in RECORDS])
    store.append("labels", label_events.crowd_events(crowd, CATEGORIES, run="run", at=NOW))
    said = Answer(
        "run/a/0",
        1,
        5,
        "2026-01-02T00:00:00+00:00",
        "eve",
        (AnsweredBox(BOX, "deposit", "x"), AnsweredBox(DRAWN, "vesicle", "x.1")),
    )
    events = label_events.expert_events(
        "a", crowd["a"], said, instances={"x": "x", "x.1": "x"}, categories=CATEGORIES, round_=0, run="run"
    )
    store.append("labels", events)
    return store


def annotations(file):
    content = json.loads(file.read_text())
    names = {row["id"]: row["file_name"] for row in content["images"]}
    return {(names[row["image_id"]], row["label_id"]): row for row in content["annotations"]}


def test_what_is_read_back_is_what_stands(tables, tmp_path):
    file = write_coco(tables, "run", RECORDS, CATEGORIES, tmp_path / "new" / "labels.json")
    back = read_labels(str(file))
    standing = label_view.current(tables.read("labels", where={"run": "run"}), CATEGORIES)
    assert back.categories == CATEGORIES
    assert back.set_aside == ()
    assert set(back.labels) == {"a.png", "b.png", "c.png"}
    for image, labels in standing.items():
        np.testing.assert_allclose(back.labels[f"{image}.png"].boxes, labels.boxes)
        np.testing.assert_array_equal(back.labels[f"{image}.png"].categories, labels.categories)
    np.testing.assert_allclose(back.labels["a.png"].boxes, [BOX, DRAWN])


def test_categories_keep_the_runs_order_also_those_without_a_label(tmp_path):
    store, names = Tables(str(tmp_path / "tables")), ["empty", "vesicle", "deposit"]
    crowd = {"a": Labels(np.array([BOX, OTHER]), np.array([2, 1]), ("x", "y"))}
    store.append("runs", [{"run": "run", "categories": names, "settings": "{}", "at": NOW}])
    store.append("images", [{**vars(RECORDS[1]), "run": "run", "part": "pool", "at": NOW}])
    store.append("labels", label_events.crowd_events(crowd, names, run="run", at=NOW))
    content = json.loads(export_run(store, "run", tmp_path / "labels.json").read_text())
    assert [row["name"] for row in content["categories"]] == names
    ids = {row["name"]: row["id"] for row in content["categories"]}
    found = sorted(row["category_id"] for row in content["annotations"])
    assert found == sorted([ids["deposit"], ids["vesicle"]])


def test_every_label_says_where_it_comes_from(tables, tmp_path):
    found = annotations(write_coco(tables, "run", RECORDS, CATEGORIES, tmp_path / "labels.json"))
    kept, crowd = found["a.png", "a/x"], found["b.png", "b/x"]
    (drawn,) = (row for (_, label), row in found.items() if label.startswith("expert-"))
    assert len(found) == 3
    assert (kept["source"], kept["annotator"], kept["reason"]) == ("expert", "eve", "confirmed by the expert")
    assert kept["at"] == "2026-01-02T00:00:00+00:00"
    assert (drawn["source"], drawn["reason"], drawn["parent"]) == ("expert", "from a suggestion", "a/x")
    assert (crowd["source"], crowd["reason"], crowd["parent"]) == ("crowd", "crowd label", "")


def test_the_revision_is_the_version_that_was_read(tables, tmp_path):
    first = export_run(tables, "run", tmp_path / "1.json")
    version = json.loads(first.read_text())["info"]["label_revision"]
    assert version == str(tables.version("labels"))


def test_the_command_writes_the_file_and_names_it(tables, tmp_path, capsys):
    out = tmp_path / "labels.json"
    assert cli.main(["export", "run", "--out", str(out), "--workspace", str(tmp_path)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert len(read_labels(str(out)).labels["a.png"]) == 2
    assert json.loads(out.read_text())["images"][0]["group"] == "case 1"


def test_the_command_looks_where_the_run_was_submitted_to_keep_its_tables(tables, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    kept = elsewhere / "runs" / "run" / submitting.SUBMITTED
    kept.parent.mkdir(parents=True)
    kept.write_text(f"configuration: {{tables: '{tables.root}'}}")
    out = tmp_path / "labels.json"
    assert cli.main(["export", "run", "--out", str(out), "--workspace", str(elsewhere)]) == 0
    assert out.exists()


def test_relative_tables_count_from_where_the_run_was_submitted(tables, tmp_path):
    kept = tmp_path / "elsewhere" / "runs" / "run" / submitting.SUBMITTED
    kept.parent.mkdir(parents=True)
    folder, name = Path(tables.root).parent, Path(tables.root).name
    kept.write_text(f"{{folder: '{folder}', configuration: {{tables: '{name}'}}}}")
    out = tmp_path / "labels.json"
    assert cli.main(["export", "run", "--out", str(out), "--workspace", str(tmp_path / "elsewhere")]) == 0
    assert out.exists()


def test_an_unknown_run_is_named(tables, tmp_path, capsys):
    line = ["export", "other", "--out", str(tmp_path / "x.json"), "--workspace", str(tmp_path)]
    assert cli.main(line) == DataError.exit_code
    assert "'other'" in capsys.readouterr().err
    assert not (tmp_path / "x.json").exists()


def test_a_place_that_cannot_be_written_is_named(tables, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_coco(tables, "run", RECORDS, CATEGORIES, tmp_path / "file" / "labels.json")


def keep_likelier(store, round_, **found):
    rows = {
        i: Predictions(np.array([box]), np.array([category]), np.array([0.75]))
        for i, (box, category) in found.items()
    }
    same = {"run": "run", "round": round_, "model": likelier.MODEL}
    store.append("predictions", columns.predictions(rows, CATEGORIES, same))


def test_likelier_labels_stand_in_for_what_no_expert_answered(tables, tmp_path):
    keep_likelier(tables, 0, b=(BOX, 0), c=(BOX, 0))
    keep_likelier(tables, 1, a=(OTHER, 0), b=(DRAWN, 1))  # "a" is the expert's
    found = annotations(export_run(tables, "run", tmp_path / "labels.json", likely=True))
    assert {image for image, _ in found} == {"a.png", "b.png"}  # "c" was in an older round only
    assert ("a.png", "a/x") in found
    label = found["b.png", "b/likelier-0"]
    assert (label["source"], label["reason"]) == ("auto", "likelier version, weight 0.75")
    back = read_labels(str(tmp_path / "labels.json")).labels["b.png"]
    np.testing.assert_allclose(back.boxes, [DRAWN])
    assert back.categories.tolist() == [1]


def test_without_likelier_labels_it_says_so(tables, tmp_path):
    with pytest.raises(DataError, match="no likelier labels"):
        export_run(tables, "run", tmp_path / "labels.json", likely=True)
