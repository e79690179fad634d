"""Opening a grid: what the data must offer, and which of their facts decide a cell."""

import json

import pytest

from emclean.config import load_grid
from emclean.errors import ConfigError, DataError
from emclean.imaging import simulate
from emclean.loop.console import Console
from emclean.loop.grid.opening import opened


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six training and two test pictures, as settings."""
    found = simulate.write_dataset(tmp_path_factory.mktemp("data"), 6, 2, 64)
    return {
        "data.train.images": found.pool_images,
        "data.train.truth": found.pool_truth,
        "data.test.images": found.test_images,
        "data.test.truth": found.test_truth,
    }


def opening(folder, settings, *more):
    words = [f"{key}={value}" for key, value in settings.items()]
    fixed = [f"workspace={folder}", "compute=inline", "expert_images=2"]
    with opened(load_grid(None, [*fixed, *words, *more]), Console()) as grid:
        return grid


def rewritten(folder, settings, key, change):
    """The settings with a changed copy of the truth file under ``key``."""
    content = json.loads(settings[key].read_text())
    change(content)
    file = folder / "changed.json"
    file.write_text(json.dumps(content))
    return {**settings, key: file}


def test_simulated_pictures_are_made_once_and_cells_are_the_same_each_time(tmp_path):
    small = {"data.simulate": "{train: 5, test: 2, size: 64}"}
    first, again = (opening(tmp_path, small) for _ in range(2))
    assert list(first.cells) == list(again.cells)
    assert (len(first.experiment.bench.train.records), len(first.experiment.bench.test.records)) == (5, 2)
    assert first.runner.slots == 1


def test_labels_groups_and_test_pictures_decide_every_cell(tmp_path, data):
    cells = set(opening(tmp_path, data).cells)
    changes = [
        ("data.train.truth", lambda content: content["annotations"].pop()),
        ("data.train.truth", lambda content: content["images"][0].update(group="another")),
        ("data.test.truth", lambda content: content["images"].pop()),
    ]
    for key, change in changes:
        assert not cells & set(opening(tmp_path, rewritten(tmp_path, data, key, change)).cells)


def test_no_test_picture_is_trained_on(tmp_path, data):
    both = {**data, "data.test.images": data["data.train.images"]}
    both = rewritten(tmp_path, {**both, "data.test.truth": data["data.train.truth"]}, "data.test.truth",
                     lambda content: content["images"].__delitem__(slice(1, None)))  # fmt: skip
    grid = opening(tmp_path, both)
    assert not set(grid.experiment.bench.train.ids()) & set(grid.experiment.bench.test.ids())
    assert any("the same picture is in the test set" in item.reason for item in grid.set_aside)


def test_too_few_pictures_are_said(tmp_path, data):
    with pytest.raises(DataError, match="6 training pictures can be used, at least 7 are needed"):
        opening(tmp_path, data, "expert_images=6")


def test_a_truth_without_a_label_is_refused(tmp_path, data):
    names = [image["file_name"] for image in json.loads(data["data.train.truth"].read_text())["images"]]
    empty = tmp_path / "empty.csv"
    empty.write_text("image,x1,y1,x2,y2,category\n" + "".join(f"{name},,,,,\n" for name in names))
    with pytest.raises(DataError, match="no label of these pictures names a category"):
        opening(tmp_path, {**data, "data.train.truth": empty})


def test_one_category_cannot_be_mislabelled(tmp_path, data):
    with pytest.raises(ConfigError, match="'mislabelled' needs several categories"):
        opening(tmp_path, data, "noise=[mislabelled]")
