"""Sets of labelled pictures: what is read, what is set aside, what is mirrored, and how they are split."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emclean.errors import DataError, ImageError, LabelError
from emclean.imaging.readers import read_rgb8
from emclean.imaging.sheets import Sheet, fitted
from emclean.loop.classes.sets import Form, Source, load, split, without_test
from emclean.stores.formats.classes import Columns, parse

PLAIN, MIRROR = Form(), Form(mirror=True)


def picture(folder, name, seed, size=(12, 16), colour=False):
    shape = (*size, 3) if colour else size
    pixels = np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return pixels


def made(folder, rows, header="image,label,group"):
    """A folder of pictures and the label file that names them; the settings of the set."""
    for k, row in enumerate(rows):
        picture(folder / "images", row.split(",")[0], k)
    (folder / "labels.csv").write_text("\n".join([header, *rows]))
    return Source(str(folder / "images"), str(folder / "labels.csv"))


def test_labels_become_indices_of_sorted_names_and_pictures_keep_their_order(tmp_path):
    found = load(made(tmp_path, ["b.png,right,g1", "a.png,left,g1", "c.png,right,"]), Form(), tmp_path / "c")
    assert found.classes == ("left", "right")
    assert found.labels.tolist() == [1, 0, 1]
    assert found.groups.tolist() == [0, 0, 1]
    assert len(set(found.pairs.tolist())) == 3
    assert np.array_equal(found.open()[1], np.asarray(Image.open(tmp_path / "images" / "a.png")))
    assert found.set_aside == ()


def test_the_same_pictures_are_kept_once_under_their_content(tmp_path):
    source = made(tmp_path, ["a.png,x,", "b.png,y,"])
    first, again = (load(source, Form(), tmp_path / "c") for _ in range(2))
    assert (first.pictures, first.facts()) == (again.pictures, again.facts())
    assert first.facts() != load(source, Form(colour=True), tmp_path / "c").facts()
    assert len(list((tmp_path / "c").iterdir())) == 2  # nothing is left half written


def test_a_mirrored_set_has_every_picture_flipped_with_the_other_class(tmp_path):
    found = load(made(tmp_path, ["a.png,left,g", "b.png,right,h", "c.png,left,h"]), MIRROR, tmp_path / "c")
    assert found.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert found.pairs.tolist() == [0, 1, 2] * 2
    assert found.groups.tolist() == [0, 1, 1] * 2
    assert np.array_equal(found.open()[3:], found.open()[:3, :, ::-1])


@pytest.mark.parametrize(
    ("header", "rows", "classes"),
    [
        ("image,label", ["a.png,right", "b.png,right"], ("right", "mirrored right")),
        ("image,person", ["a.png,1", "b.png,2"], ("as given", "mirrored")),
    ],
)
def test_a_one_handed_set_names_its_mirror_image(tmp_path, header, rows, classes):
    source = made(tmp_path, rows, header)
    columns = Columns(needs_label=False)
    found = load(Source(source.images, source.labels, columns=columns), MIRROR, tmp_path / "c")
    assert found.classes == classes
    assert found.labels.tolist() == [0, 0, 1, 1]


def test_both_hands_can_be_named_for_a_one_handed_set(tmp_path):
    source = made(tmp_path, ["a.png,right", "b.png,right"], "image,label")
    both = Source(source.images, source.labels, only=("right", "left"))
    found = load(both, MIRROR, tmp_path / "c")
    assert (found.classes, found.labels.tolist()) == (("left", "right"), [1, 1, 0, 0])


def test_the_tiles_of_a_sheet_are_numbered_row_by_row(tmp_path):
    sheet = np.arange(6, dtype=np.uint8).repeat(64).reshape(2, 3, 8, 8).transpose(0, 2, 1, 3).reshape(16, 24)
    Image.fromarray(sheet).save(tmp_path / "sheet.png")
    (tmp_path / "labels.csv").write_text("row,label\n4,x\n0,y\n6,y\nfirst,y\n")
    source = Source(str(tmp_path / "sheet.png"), str(tmp_path / "labels.csv"), tile=8)
    found = load(source, Form(), tmp_path / "c")
    assert [int(tile[0, 0]) for tile in found.open()] == [4, 0]
    reasons = [item.reason for item in found.set_aside]
    assert reasons == [
        "6: no tile has the number '6'; there are 0 to 5",
        "first: no tile has the number 'first'; there are 0 to 5",
    ]
    assert found.set_aside[0].item == f"{source.labels} line 4"
    with pytest.raises(DataError, match=r"is a file\. For a sheet give the side of its tiles"):
        load(replace(source, tile=None), Form(), tmp_path / "c")
    with pytest.raises(ImageError, match="24 x 16 pixels are not whole tiles of 7 x 7"):
        Sheet(sheet, 7, "sheet")


def test_bad_rows_and_pictures_are_set_aside_with_line_and_field(tmp_path):
    source = made(tmp_path, [f"{k}.png,{'xy'[k % 2]},g{k}" for k in range(4)])
    (tmp_path / "images" / "4.png").write_bytes(b"no picture")
    more = "\n4.png,x,g\n5.png,x,g\n,x,g\n0.png,y,g\n2.png\n7.png,x,g,too,many"
    picture(tmp_path / "images", "copy.png", 0)
    with open(source.labels, "a") as file:
        file.write(more + "\ncopy.png,x,g\n")
    found = load(source, Form(), tmp_path / "c")
    assert len(found) == 4
    told = {item.item.rpartition("line ")[2]: item.reason for item in found.set_aside}
    assert told["6"] == "4.png: not a PNG, JPEG or TIFF file, by its content"
    assert told["7"].startswith("5.png: cannot be opened")
    assert told["8"] == "image: empty"
    assert told["9"] == "image: '0.png' stands in line 2 already"
    assert told["10"] == "image: '2.png' stands in line 4 already"
    assert told["11"].startswith("more cells than the 3 columns")
    assert told["12"] == "copy.png: the same picture as '0.png' in line 2"


def test_rows_of_other_classes_are_dropped_and_counted(tmp_path):
    source = made(tmp_path, ["a.png,3", "b.png,5", "c.png,7", "d.png,7", "e.png,8"], "image,label")
    found = load(Source(source.images, source.labels, only=("3", "5")), Form(), tmp_path / "c")
    assert (found.classes, len(found)) == (("3", "5"), 2)
    (dropped,) = found.set_aside
    assert dropped.reason == "3 rows whose label is not among 3, 5: '7' (2), '8' (1)"
    test = load(source, Form(), tmp_path / "c", classes=found.classes)
    assert test.classes == found.classes
    assert test.labels.tolist() == [0, 1]


def test_votes_are_those_of_the_named_columns_for_classes_of_the_set(tmp_path):
    rows = ["a.png,3,3,5,5", "b.png,5,5,9,3", "c.png,3,9,9,", "d.png,5,5,5,5"]
    source = made(tmp_path, rows, "image,label,one,two,three")

    def votes(*names, form=PLAIN):
        columns = Columns(votes=names)
        return load(Source(source.images, source.labels, columns=columns), form, tmp_path / "c")

    assert votes("one").votes.T.tolist() == [[0, 1, -1, 1]]
    many = votes("one", "two", "three")
    assert many.votes.tolist() == [[0, 1, 1], [1, -1, 0], [-1, -1, -1], [1, 1, 1]]
    assert many.set_aside[0].reason.startswith("1 rows whose votes (one, two, three) name no class")
    assert votes("one", form=MIRROR).votes.T.tolist() == [[0, 1, -1, 1, 1, 0, -1, 0]]
    assert votes().votes.shape == (4, 0)
    assert votes("one").facts() == many.facts()
    assert votes("one").said() != votes("two").said()


@pytest.mark.parametrize(
    ("text", "columns", "fault"),
    [
        ("picture,label\na,b\n", Columns(), "lacks the column(s) image or row; it has picture, label"),
        ("image\na\n", Columns(), "lacks the column(s) label"),
        ("image,label\na,b\n", Columns(label="clean"), "lacks the column(s) clean"),
        ("image,label\na,b\n", Columns(group="person"), "lacks the column(s) person"),
        ("image,label\na,b\n", Columns(votes=("v1", "v2")), "lacks the column(s) v1, v2"),
        (
            "image,label\n,b\na,\n",
            Columns(),
            "holds no usable row. First of 2 set aside: line 2: image: empty",
        ),
        ("", Columns(), "lacks the column(s) image or row, label"),
    ],
)
def test_a_label_file_that_cannot_be_used_says_why(text, columns, fault):
    with pytest.raises(LabelError) as error:
        parse(text, "labels.csv", columns)
    assert fault in str(error.value)


def test_one_class_or_three_to_mirror_are_refused(tmp_path):
    with pytest.raises(DataError, match="Give two or more, or mirror"):
        load(made(tmp_path / "1", ["a.png,x,", "b.png,x,"]), Form(), tmp_path)
    with pytest.raises(DataError, match="With mirror choose one or two"):
        load(made(tmp_path / "2", ["a.png,x,", "b.png,y,", "c.png,z,"]), MIRROR, tmp_path)
    source = made(tmp_path / "3", ["a.png,x,", "b.png,y,"])
    with pytest.raises(DataError, match="no picture of these labels can be used"):
        load(Source(str(tmp_path), source.labels), Form(), tmp_path / "c")


def test_pictures_of_another_size_are_fitted_whole():
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 20:] = 200
    found = fitted(wide, 20, 20)
    assert found.shape == (20, 20)
    assert found[10, 2] == 0
    assert found[10, 17] == 200
    assert fitted(wide, 10, 40) is wide
    assert fitted(np.zeros((4, 4, 3), np.uint8), 8, 6).shape == (8, 6, 3)


def test_all_pictures_take_the_given_sides_or_the_first_ones(tmp_path):
    source = made(tmp_path, ["a.png,x,", "b.png,y,"])
    picture(tmp_path / "images", "b.png", 9, (30, 20))
    assert load(source, Form(), tmp_path / "c").open().shape == (2, 12, 16)
    assert load(source, Form((24, 20)), tmp_path / "c").open().shape == (2, 24, 20)


@pytest.mark.parametrize(("name", "exact"), [("c.png", True), ("g.png", True), ("c.tif", False)])
def test_colours_are_read_as_they_are(tmp_path, name, exact):
    pixels = picture(tmp_path, name, 3, colour=name.startswith("c"))
    found = read_rgb8((tmp_path / name).read_bytes())
    assert found.shape == (12, 16, 3)
    assert np.array_equal(found, pixels if pixels.ndim == 3 else pixels[..., None] * [1, 1, 1]) == exact


def test_a_particle_that_is_tested_on_is_not_trained_on(tmp_path):
    train = load(made(tmp_path, ["a.png,x,", "b.png,y,", "c.png,x,"]), MIRROR, tmp_path / "c")
    test = train.take(np.array([4]))  # b, mirrored
    left = without_test(train, test)
    assert sorted(left.pairs.tolist()) == [0, 0, 2, 2]
    assert left.set_aside[0].reason == "2 pictures that the test set holds, too"


def flipped(source, name, to):
    """Save the mirror image of a picture."""
    with Image.open(f"{source.images}/{name}") as found:
        Image.fromarray(np.asarray(found)[:, ::-1]).save(f"{to}/{name}")


def test_a_picture_whose_mirror_image_is_there_is_set_aside(tmp_path):
    source = made(tmp_path, ["a.png,left,", "b.png,right,", "c.png,right,"])
    (tmp_path / "other").mkdir()
    flipped(source, "a.png", tmp_path / "other")
    (tmp_path / "other" / "a.png").replace(tmp_path / "images" / "c.png")
    found = load(source, MIRROR, tmp_path / "c")
    assert found.pairs.tolist() == [0, 1] * 2
    assert "or the mirror image of, 'a.png'" in found.set_aside[0].reason
    assert len(load(source, PLAIN, tmp_path / "c").labels) == 3


def test_a_particle_is_known_again_by_its_mirror_image(tmp_path):
    train = made(tmp_path / "train", ["a.png,x,", "b.png,y,", "c.png,x,"])
    test = made(tmp_path / "test", ["c.png,x,", "d.png,y,"])
    flipped(train, "c.png", test.images)
    sets = [load(source, MIRROR, tmp_path / "c") for source in (train, test)]
    assert sorted(set(without_test(*sets).names)) == ["a.png"]


@given(st.lists(st.integers(0, 30), min_size=40, max_size=120), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_no_group_straddles_a_split_and_parts_have_about_their_share(groups, seed):
    groups = np.array(groups)
    if len(np.unique(groups)) < 3:
        return
    parts = split(groups, (0.1, 0.1), np.random.default_rng(seed))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    assert all(len(part) for part in parts)
    sets = [set(groups[part].tolist()) for part in parts]
    assert not sets[0] & sets[1]
    assert not (sets[0] | sets[1]) & sets[2]
    largest = np.unique(groups, return_counts=True)[1].max()
    assert all(len(part) <= 0.1 * len(groups) + largest for part in parts[:2])


def test_a_mirror_pair_never_straddles_a_split(tmp_path):
    rows = [f"{k}.png,x,{'' if k % 3 else 'g'}" for k in range(20)]
    found = load(made(tmp_path, rows), MIRROR, tmp_path / "c")
    for part in split(found.groups, (0.1, 0.1), np.random.default_rng(1)):
        pairs, counts = np.unique(found.pairs[part], return_counts=True)
        assert (counts == 2).all(), pairs


def test_too_few_groups_are_said():
    with pytest.raises(DataError, match="2 groups of pictures cannot be split into 3 parts"):
        split(np.array([0, 0, 1]), (0.1, 0.1), np.random.default_rng(0))
