"""CSV in and out, told from COCO by content, with the same tolerance."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean.errors import LabelError
from emclean.stores.formats import csv, read_labels
from emclean.types import Labels

HEAD = "image,x1,y1,x2,y2,category,annotator,id\n"


def test_a_plain_file():
    file = csv.parse(
        HEAD + "a.png,1,2,3,4.5,vesicle,ann,l1\na.png,5,6,8,9,deposit,,\nb.png,,,,,,,\n", "l.csv"
    )
    assert file.categories == ("deposit", "vesicle")
    np.testing.assert_array_equal(file.labels["a.png"].boxes, [[1, 2, 3, 4.5], [5, 6, 8, 9]])
    np.testing.assert_array_equal(file.labels["a.png"].categories, [1, 0])
    assert file.labels["a.png"].ids == ("l1", "line-3")
    assert file.labels["a.png"].annotators == ("ann", "")
    assert len(file.labels["b.png"]) == 0
    assert file.set_aside == ()


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_sides_other_separators_and_a_byte_order_mark(tmp_path, separator):
    text = "Image,X,Y,Width,Height,Category\na.png,10,20,30,40,deposit\n".replace(",", separator)
    (tmp_path / "l.csv").write_text(text, encoding="utf-8-sig")
    file = read_labels(str(tmp_path / "l.csv"))
    np.testing.assert_array_equal(file.labels["a.png"].boxes, [[10, 20, 40, 60]])


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("a.png,nan,2,3,4,deposit,,", "x1 is nan"),
        ("a.png,1,2,1,4,deposit,,", "no area"),
        ("a.png,5,2,1,4,deposit,,", "negative side"),
        ("a.png,one,2,3,4,deposit,,", "x1 is not a number: 'one'"),
        ("a.png,1,2", "x2 is not a number: ''"),
        ("a.png,1,2,3,4,,,", "no category"),
        (",1,2,3,4,deposit,,", "no image"),
        ("a.png,1,2,3,4,deposit,,first", "duplicate id first"),
        (
            "a.png,1,2,3,4,deposit,ann,second,extra",
            "more cells than the 8 columns of the first line: 'extra'",
        ),
    ],
)
def test_a_bad_row_is_set_aside_with_its_line(bad, reason):
    file = csv.parse(HEAD + f"a.png,1,2,3,4,deposit,,first\n{bad}\n", "l.csv")
    assert len(file.labels["a.png"]) == 1
    (aside,) = file.set_aside
    assert reason in aside.reason
    assert aside.item in ("line 3", "a.png: label first")


def test_a_bad_row_counts_once_and_names_no_picture():
    file = csv.parse(HEAD + "a.png,1,2,3,4,deposit,,\nmoved,a.png,1,2,3,4,,\nb.png,1,2,1,2,x,,\n", "l.csv")
    assert [entry.file_name for entry in file.images] == ["a.png"]
    assert [item.item for item in file.set_aside] == ["line 3", "line 4"]


def test_empty_cells_at_the_end_of_a_row_are_no_fault():
    file = csv.parse(HEAD + "a.png,1,2,3,4,deposit,ann,l1,,\n", "l.csv")
    assert (len(file.labels["a.png"]), file.set_aside) == (1, ())


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "image,x1,y1,x2\na,1,2,3\n"])
def test_a_file_without_the_columns_is_a_label_error(text):
    with pytest.raises(LabelError, match=r"l\.csv: .*lacks the column\(s\)"):
        csv.parse(text, "l.csv")


@pytest.mark.parametrize("separator", [";", "\t"])
def test_where_no_comma_separates_numbers_may_have_a_decimal_comma(separator):
    text = "image,x,y,width,height,category\np0.png,10~5,1e1,3.5,4,1~5\n"
    file = csv.parse(text.replace(",", separator).replace("~", ","), "l.csv")
    np.testing.assert_array_equal(file.labels["p0.png"].boxes, [[10.5, 10, 14, 14]])
    assert (file.categories, file.set_aside) == (("1,5",), ())


@pytest.mark.parametrize("cell", ["1.234,5", "1,234,5", "10,5x"])
def test_what_is_no_number_with_a_decimal_comma_either_is_shown_as_it_stands(cell):
    rows = f"a.png;1;2;3;4;deposit\nb.png;{cell};2;3000;4;deposit\n"
    (aside,) = csv.parse("image;x1;y1;x2;y2;category\n" + rows, "l.csv").set_aside
    assert aside.reason == f"x1 is not a number: {cell!r}"


def test_a_comma_in_quotes_is_no_decimal_comma_where_commas_separate():
    (aside,) = csv.parse(HEAD + 'a.png,1,2,3,4,x,,\nb.png,"1,234",2,3000,4,x,,\n', "l.csv").set_aside
    assert aside.reason == "x1 is not a number: '1,234'"


def test_a_file_without_one_usable_row_is_a_label_error_with_the_first_reasons():
    bad = "".join(f"p{k}.png,one,2,3,4,deposit,,\n" for k in range(5))
    with pytest.raises(LabelError) as caught:
        csv.parse(HEAD + "blank.png,,,,,,,\n" + bad, "l.csv")
    reasons = "; ".join(f"line {line}: x1 is not a number: 'one'" for line in (3, 4, 5))
    what = f"l.csv: holds no usable label. First of 5 set aside: {reasons}."
    assert str(caught.value).startswith(what)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("rows", ["", "a.png,,,,,,,\nb.png,,,,,,,\n"])
def test_a_file_that_says_there_is_nothing_is_no_fault(rows):
    file = csv.parse(HEAD + rows, "l.csv")
    assert (len(file.images), file.categories, file.set_aside) == (rows.count("\n"), (), ())


def test_a_picture_given_as_labels_is_a_label_error(tmp_path):
    (tmp_path / "l.csv").write_bytes(b"\x89PNG\r\n\x1a\n\xff\xfe")
    with pytest.raises(LabelError, match="not a text file"):
        read_labels(str(tmp_path / "l.csv"))


def test_content_decides_not_the_name(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a"}],
        "categories": [{"id": 1, "name": "x"}],
        "annotations": [],
    }
    (tmp_path / "coco.csv").write_text(json.dumps(content))
    assert read_labels(str(tmp_path / "coco.csv")).lists_images


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.text(max_size=5), max_size=9).map(",".join), max_size=6))
def test_junk_rows_never_raise(rows):
    text = HEAD + "\n".join(["good.png,1,2,3,4,deposit,,", *rows])
    file = csv.parse(text, "l.csv")
    assert all(labels.boxes.shape[1] == 4 for labels in file.labels.values())


def test_labels_round_trip(tmp_path):
    labels = {
        "a.png": Labels([[0.1, 0.2, 3.3, 4.4], [5, 6, 7, 8]], [1, 0], ("i", "j"), ("ann", "")),
        "b, c.png": Labels.empty(),
    }
    csv.write(tmp_path / "out.csv", labels, ("deposit", "vesicle"))
    file = read_labels(str(tmp_path / "out.csv"))
    np.testing.assert_array_equal(file.labels["a.png"].boxes, labels["a.png"].boxes)
    np.testing.assert_array_equal(file.labels["a.png"].categories, [1, 0])
    assert file.labels["a.png"].ids == ("i", "j")
    assert file.labels["a.png"].annotators == ("ann", "")
    assert len(file.labels["b, c.png"]) == 0
