"""Where a run's data come from: pool, test and expert's truth in one folder, and what no truth speaks of."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emclean.config import ActiveClean
from emclean.errors import DataError
from emclean.loop.console import Console
from emclean.loop.ingest import ingest_truth
from emclean.loop.sources import load
from emclean.simulated_expert import Truth

NAMES = tuple(f"p{k}.png" for k in range(9))
POOL, TEST = NAMES[:6], NAMES[6:]


def box(name):
    """One box for a picture, its place and width by the name, so that a mix-up shows."""
    k = sum(name.encode()) % 30
    return [float(k), 1.0, float(k + 9), 12.0]


def write_csv(path, names, empty=()):
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow("image x1 y1 x2 y2 category".split())
        out.writerows([name, *box(name), "deposit"] for name in names)
        out.writerows([name, "", "", "", "", ""] for name in empty)
    return str(path)


def write_coco(path, names, size=(48, 40)):
    images = [{"id": k, "file_name": n, "width": size[0], "height": size[1]} for k, n in enumerate(names)]
    rows = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [box(n)[0], 1.0, 9.0, 11.0]}
        for k, n in enumerate(names)
    ]
    path.write_text(
        json.dumps({"images": images, "categories": [{"id": 1, "name": "deposit"}], "annotations": rows})
    )
    return str(path)


def picture(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 48), dtype=np.uint8)).save(path)


@pytest.fixture
def home(tmp_path):
    for seed, name in enumerate(NAMES):
        picture(tmp_path / "images" / name, seed)
    return tmp_path


def loaded(home, crowd, truth, test=None):
    data = {"pool": {"images": str(home / "images"), "crowd": crowd}}
    if test:
        data["test"] = {"images": str(home / "images"), "truth": test}
    config = ActiveClean.model_validate({"data": data, "expert": {"truth": truth}})
    return load(config, home / "work", Console(io.StringIO()))


def names(part):
    return tuple(record.name for record in part.records)


def reasons(part):
    return {item.item: item.reason for item in part.set_aside}


@pytest.mark.parametrize("write", [write_csv, write_coco])
def test_pool_and_test_share_a_folder(home, write):
    crowd = write_csv(home / "crowd.csv", POOL[:4])
    data = loaded(home, crowd, write(home / "truth.x", POOL), write(home / "test.x", TEST))
    assert names(data.pool) == POOL
    assert names(data.test) == TEST
    assert [len(data.test.labels[record.image_id]) for record in data.test.records] == [1, 1, 1]
    assert reasons(data.pool) == dict.fromkeys(TEST, "the same picture is in the test set")
    ids = {record.name: record.image_id for record in data.pool.records}
    assert sorted(data.pool.unlabelled) == sorted([ids["p4.png"], ids["p5.png"]])
    assert set(data.truth) == set(ids.values())


def test_several_label_files_of_a_pool_add_up(home):
    files = [write_csv(home / "ann.csv", NAMES[:6]), write_coco(home / "ben.json", NAMES[3:])]
    data = loaded(home, files, write_csv(home / "truth.csv", NAMES))
    labels = {record.name: data.pool.labels[record.image_id] for record in data.pool.records}
    assert [len(labels[name]) for name in NAMES] == [1, 1, 1, 2, 2, 2, 1, 1, 1]
    assert labels["p3.png"].annotators == ("ann", "ben")
    assert [label_id.partition("/")[0] for label_id in labels["p3.png"].ids] == ["ann", "ben"]


def test_an_empty_row_is_a_picture_without_objects(home):
    truth = write_csv(home / "truth.csv", NAMES[:3], empty=NAMES[3:5])
    found = ingest_truth(str(home / "images"), truth, home / "cache")
    assert names(found) == NAMES[:5]
    assert [len(found.labels[record.image_id]) for record in found.records] == [1, 1, 1, 0, 0]
    assert found.unlisted == NAMES[5:]
    assert (found.unlabelled, found.set_aside) == ((), ())


@pytest.mark.parametrize("write", [write_csv, write_coco])
def test_a_picture_without_truth_is_set_aside(home, write):
    data = loaded(home, write_csv(home / "crowd.csv", NAMES), write(home / "truth.x", NAMES[2:]))
    assert names(data.pool) == NAMES[2:]
    assert reasons(data.pool) == dict.fromkeys(NAMES[:2], "the truth file does not list it")


def test_what_is_wrong_with_a_pictures_truth_is_its_reason(home):
    truth = home / "truth.json"
    write_coco(truth, NAMES)
    content = json.loads(truth.read_text())
    content["images"][3]["width"] = 50
    truth.write_text(json.dumps(content))
    data = loaded(home, write_csv(home / "crowd.csv", NAMES), str(truth))
    why = "the label file says 50 x 40 px, the picture has 48 x 40; its 1 labels are not used (truth)"
    assert reasons(data.pool) == {"p3.png": why}


def test_a_pool_that_is_too_small_says_why(home):
    crowd, truth = write_csv(home / "crowd.csv", NAMES), write_csv(home / "truth.csv", NAMES)
    test = write_csv(home / "test.csv", NAMES[1:])
    with pytest.raises(DataError) as caught:
        loaded(home, crowd, truth, test)
    same = "the same picture is in the test set"
    assert str(caught.value) == (
        f"{home / 'images'}: 1 pictures of the pool can be used, at least 4 are needed. "
        f"First of 8 set aside: p1.png: {same}; p2.png: {same}; p3.png: {same}. "
        "Add pictures, or mend what was set aside."
    )


def test_a_pool_of_which_no_label_names_a_category_is_refused(home):
    crowd = write_csv(home / "crowd.csv", [], empty=NAMES)
    config = ActiveClean.model_validate({"data": {"pool": {"images": str(home / "images"), "crowd": crowd}}})
    with pytest.raises(DataError, match="no label of these pictures names a category") as caught:
        load(config, home / "work", Console(io.StringIO()))
    assert caught.value.exit_code == 3


def test_a_truth_of_other_pictures_is_named(home):
    truth = write_csv(home / "truth.csv", ["other.png"])
    with pytest.raises(DataError) as caught:
        loaded(home, write_csv(home / "crowd.csv", NAMES), truth)
    what = str(caught.value)
    assert "none of 9 files is named in the label file. First of 1 set aside: other.png: " in what
    assert what.endswith(f"Check the folder and {truth}.")


def agree(home, crowd, truth):
    """Load, then ask the simulated expert for every picture of the pool by its name."""
    data = loaded(home, crowd, truth)
    expert = Truth.load(truth)
    for record in data.pool.records:
        answer = expert.of(record.name)
        assert answer is not None, record.name
        np.testing.assert_array_equal(answer.boxes, data.truth[record.image_id].boxes)
    return names(data.pool)


FOLDERS = ("", "x/", "y/", "./", "./x/", "y\\", "elsewhere/")


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """Five names, each alone or in two or three folders; one picture is there twice."""
    home = tmp_path_factory.mktemp("nested")
    files = ["a.png", "x/a.png", "y/a.png", "x/b.png", "y/b.png", "x/c.png", "d.png", "y/e.png"]
    for seed, name in enumerate(files):
        picture(home / "images" / name, seed)
    picture(home / "images" / "x/copy.png", 6)
    picture(home / "images" / "f.png", 99)
    write_csv(home / "crowd.csv", ["d.png"])
    return home


listed = st.lists(
    st.tuples(st.sampled_from(FOLDERS), st.sampled_from([*"abcdef", "copy"])).map("{0[0]}{0[1]}.png".format),
    min_size=8, max_size=30, unique=True,
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(truth=listed, write=st.sampled_from([write_csv, write_coco]))
def test_the_simulated_expert_knows_every_picture_of_the_pool(nested, truth, write):
    """No task can wait without end: what ingest lets in has the same answer in the program and in the job."""
    try:
        agree(nested, str(nested / "crowd.csv"), write(nested / "truth.x", truth))
    except DataError as cause:
        assert "can be used, at least 4 are needed. First of" in str(cause)  # noqa: PT017 - either is right


def test_same_names_in_folders_are_told_apart(nested):
    truth = [".\\x\\a.png", "./y/a.png", "a.png", "x\\b.png", "y/b.png", "elsewhere/c.png", "d.png"]
    found = agree(nested, str(nested / "crowd.csv"), write_csv(nested / "t.csv", truth))
    assert found == ("a.png", "d.png", "x/a.png", "x/b.png", "x/c.png", "y/a.png", "y/b.png")


def test_a_full_name_goes_before_one_that_fits_by_its_last_part(nested):
    truth = write_csv(nested / "full.csv", ["elsewhere/d.png", "d.png"])
    found = ingest_truth(str(nested / "images"), truth, nested / "cache")
    assert found.labels[found.records[0].image_id].boxes.tolist() == [box("d.png")]
    assert reasons(found) == {"elsewhere/d.png": "is d.png again (1 labels not used)"}
