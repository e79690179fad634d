"""Ingest: whatever is wrong with a picture or a label is set aside and counted, and the rest goes on."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from emclean.errors import DataError, LabelError
from emclean.imaging import readers
from emclean.loop import ingest as module
from emclean.loop.ingest import ingest, pixels_path


def picture(path, seed, size=(40, 60)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)).save(path)


def coco(path, names, rows=(), size=(60, 40)):
    content = {
        "images": [
            {"id": i, "file_name": name, "width": size[0], "height": size[1], "group": f"g{i}"}
            for i, name in enumerate(names)
        ],
        "categories": [{"id": 1, "name": "deposit"}],
        "annotations": [{"id": k, "category_id": 1, **row} for k, row in enumerate(rows)],
    }
    path.write_text(json.dumps(content))
    return str(path)


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(["a.png", "b.png", "deep/c.png"]):
        picture(tmp_path / "images" / name, i)
    return tmp_path


def run(folder, labels=(), **more):
    return ingest(str(folder / "images"), labels, folder / "cache", **more)


def reasons(found):
    return {aside.item: aside.reason for aside in found.set_aside}


def test_a_plain_pool(folder):
    seen = []
    labels = coco(
        folder / "l.json", ["a.png", "b.png", "deep/c.png"], [{"image_id": 2, "bbox": [1, 2, 3, 4]}]
    )
    found = run(folder, labels, progress=lambda done, total: seen.append((done, total)))
    assert [record.name for record in found.records] == ["a.png", "b.png", "deep/c.png"]
    assert [record.group for record in found.records] == ["g0", "g1", "g2"]
    assert found.categories == ("deposit",)
    assert found.set_aside == ()
    assert found.unlabelled == ()
    assert seen == [(1, 3), (2, 3), (3, 3)]
    first, last = found.records[0], found.records[2]
    assert first.image_id == readers.image_id((folder / "images/a.png").read_bytes())
    assert (first.width, first.height, first.bit_depth) == (60, 40, 8)
    assert first.uri == str(folder / "images/a.png")
    np.testing.assert_array_equal(found.labels[last.image_id].boxes, [[1, 2, 4, 6]])
    grey = np.load(pixels_path(folder / "cache", first.image_id), mmap_mode="r")
    np.testing.assert_array_equal(grey, np.asarray(Image.open(folder / "images/a.png")))


def test_what_is_wrong_is_set_aside_and_counted(folder):
    images = folder / "images"
    whole = (images / "a.png").read_bytes()
    (images / "truncated.png").write_bytes(whole[: len(whole) // 2])
    (images / "empty.tif").write_bytes(b"")
    (images / "notes.txt").write_text("not a picture, and no trouble")
    (images / "copy of a.png").write_bytes(whole)
    picture(images / "other size.png", 9, (30, 30))
    names = [
        "a.png",
        "b.png",
        "deep/c.png",
        "truncated.png",
        "empty.tif",
        "absent.png",
        "copy of a.png",
        "other size.png",
    ]
    rows = [
        {"image_id": 0, "bbox": [1, 1, 5, 5]},
        {"image_id": 0, "bbox": [300, 1, 5, 5]},
        {"image_id": 0, "bbox": [float("nan"), 1, 5, 5]},
        {"image_id": 3, "bbox": [1, 1, 5, 5]},
        {"image_id": 5, "bbox": [1, 1, 5, 5]},
    ]
    found = run(folder, coco(folder / "l.json", names, rows))
    assert [record.name for record in found.records] == ["a.png", "b.png", "deep/c.png"]
    why = reasons(found)
    assert "truncated or damaged" in why["truncated.png"]
    assert "its 1 labels are not used" in why["truncated.png"]
    assert why["empty.tif"] == "the file is empty"
    assert "does not hold it (1 labels not used)" in why["absent.png"]
    assert why["copy of a.png"] == "duplicate: same content as a.png"
    assert why["other size.png"] == "the label file says 60 x 40 px, the picture has 30 x 30"
    assert "lies outside" in why["a.png: label 1"]
    assert "bbox is nan" in why["annotations[2] (id 2)"]
    assert len(found.set_aside) == 7
    assert len(found.labels[found.records[0].image_id]) == 1


def test_sixteen_bit_tiff_keeps_pixel_size_and_depth(folder):
    deep = np.random.default_rng(0).integers(0, 60_000, (40, 60), dtype=np.uint16)
    path = folder / "images/deep.tif"
    tifffile.imwrite(path, deep, resolution=(0.25, 0.25), imagej=True, metadata={"unit": "nm"})
    (record,) = [one for one in run(folder).records if one.name == "deep.tif"]
    assert (record.bit_depth, record.pixel_size_nm) == (16, 4.0)
    assert np.load(pixels_path(folder / "cache", record.image_id)).dtype == np.uint8


def test_a_stack_counts_as_set_aside_in_part(folder):
    tifffile.imwrite(folder / "images/stack.tif", np.zeros((3, 40, 60), np.uint8), photometric="minisblack")
    assert reasons(run(folder))["stack.tif (in part)"] == "only the first of 3 pages is used"


def test_pictures_that_a_coco_list_leaves_out_are_not_read(folder):
    found = run(folder, coco(folder / "l.json", ["a.png"]))
    assert [record.name for record in found.records] == ["a.png"]
    assert found.unlisted == ("b.png", "deep/c.png")


def test_unlabelled_pictures_are_kept_without_labels(folder):
    (folder / "l.csv").write_text(
        "image,x1,y1,x2,y2,category\na.png,1,2,3,4,deposit\nc.png,50,30,99,99,vesicle\n"
    )
    found = run(folder, str(folder / "l.csv"))
    a, b, c = (record.image_id for record in found.records)
    assert found.unlabelled == (b,)
    assert len(found.labels[b]) == 0
    assert len(found.labels[a]) == 1
    np.testing.assert_array_equal(found.labels[c].boxes, [[50, 30, 60, 40]])
    assert found.categories == ("deposit", "vesicle")


def test_given_categories_fix_the_order_and_others_are_set_aside(folder):
    (folder / "l.csv").write_text("image,x1,y1,x2,y2,category\na.png,1,2,3,4,deposit\na.png,1,2,9,9,odd\n")
    found = run(folder, str(folder / "l.csv"), categories=("vesicle", "deposit"))
    np.testing.assert_array_equal(found.labels[found.records[0].image_id].categories, [1])
    assert reasons(found) == {"a.png: label line-3": "unknown category 'odd'"}


def test_several_label_files_add_up_by_annotator(folder):
    one = coco(folder / "ann.json", ["a.png"], [{"image_id": 0, "bbox": [1, 1, 5, 5]}])
    two = coco(folder / "ben.json", ["a.png"], [{"image_id": 0, "bbox": [2, 1, 5, 5]}])
    found = run(folder, [one, two])
    (labels,) = found.labels.values()
    assert labels.ids == ("ann/0", "ben/0")
    assert labels.annotators == ("ann", "ben")


def test_the_second_ingest_reads_no_unchanged_file(folder, monkeypatch):
    first = run(folder)
    picture(folder / "images/new.png", 77)
    read = []
    real = readers.read
    monkeypatch.setattr(module.readers, "read", lambda data, name: read.append(name) or real(data, name))
    second = run(folder)
    assert read == ["new.png"]
    assert second.records[:3] == first.records
    assert not list((folder / "cache").glob("*.part"))


def test_a_damaged_index_only_costs_time(folder):
    first = run(folder)
    (folder / "cache" / module.INDEX).write_text('{"x": 3, "y": [1')
    assert run(folder).records == first.records


def test_an_empty_pool_is_a_data_error(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="the folder holds no pictures"):
        run(tmp_path)


def test_a_pool_of_bad_pictures_says_why(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of 1 files can be used.*x\.png: not a PNG"):
        run(tmp_path)


def test_a_missing_folder_and_a_missing_label_file_are_named(folder):
    with pytest.raises(DataError, match="no such folder"):
        ingest(str(folder / "nowhere"), (), folder / "cache")
    with pytest.raises(LabelError, match=r"no\.json"):
        run(folder, str(folder / "no.json"))


def test_pictures_come_from_any_file_system(tmp_path):
    import fsspec

    picture(tmp_path / "a.png", 1)
    with fsspec.open("memory://pool-of-one/a.png", "wb") as file:
        file.write((tmp_path / "a.png").read_bytes())
    found = ingest("memory://pool-of-one", (), tmp_path / "cache")
    assert [record.uri for record in found.records] == ["memory:///pool-of-one/a.png"]
    assert readers.read(found.records[0].uri).pixels.shape == (40, 60)
