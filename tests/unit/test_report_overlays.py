import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from emclean.report import overlays
from emclean.report.overlays import Change, Layers, overlay, view
from emclean.report.words import POINTS, Word, placed
from emclean.types import GRADES, Labels, Predictions, Verdicts

BOX = np.array([40.0, 30.0, 80.0, 70.0])
GREY = np.full((100, 160), 128, np.uint8)


def picture(*args, **kwargs):
    png = overlay(*args, **{"size": 320, **kwargs})
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def labels(*boxes):
    return Labels(np.array(boxes), np.zeros(len(boxes)))


def shows(image, who):
    """Whether a colour occurs over the picture itself, above the legend."""
    colour = [int(overlays.PENS[who].colour[i : i + 2], 16) for i in (1, 3, 5)]
    return bool((np.abs(image[: int(0.9 * len(image))] - colour).max(axis=2) < 24).any())


def test_each_party_has_its_own_colour():
    prediction = Predictions(BOX + 3, [0], [0.9])
    for layers, seen in (
        (Layers(crowd=labels(BOX)), {"crowd"}),
        (Layers(model=prediction), {"model"}),
        (Layers(expert=labels(BOX)), {"expert"}),
        (Layers(), set()),
        (Layers(labels(BOX), prediction, labels(BOX - 4)), {"crowd", "model", "expert"}),
    ):
        image = picture(GREY, layers)
        assert {who for who in ("crowd", "model", "expert") if shows(image, who)} == seen


def test_a_box_is_drawn_where_it_is():
    image = picture(GREY, Layers(expert=labels(BOX)), size=640)  # four pixels to one
    green = [int(overlays.PENS["expert"].colour[i : i + 2], 16) for i in (1, 3, 5)]
    rows, cols = np.nonzero(np.abs(image[:400] - green).max(axis=2) < 24)
    np.testing.assert_allclose([cols.min(), rows.min(), cols.max(), rows.max()], BOX * 4, atol=4)


def test_corrections_show_before_and_after():
    moved, deleted, added = Change(BOX, BOX + 10, "shifted"), Change(BOX, None, "spurious"), Change(None, BOX)
    for change, seen in ((moved, (True, True)), (deleted, (True, False)), (added, (False, True))):
        image = picture(GREY, Layers(changes=[change]))
        assert (shows(image, "crowd"), shows(image, "corrected")) == seen


def test_grades_are_written_beside_the_crowd_boxes():
    def judged(grade):
        return Verdicts([0], [-1], [GRADES.index(grade)], [0.9], [BOX], [0], ("",))

    plain = picture(GREY, Layers(labels(BOX)))
    assert (picture(GREY, Layers(labels(BOX), verdicts=judged("spurious"))) != plain).any()
    assert (picture(GREY, Layers(labels(BOX), verdicts=judged("clean"))) == plain).all()


@pytest.mark.parametrize("shape", [(100, 160), (1000, 700), (2444, 3744), (64, 64), (30, 900)])
def test_pictures_come_in_a_sensible_size(shape):
    image = picture(np.zeros(shape, np.uint8), Layers(crowd=labels([1, 1, 20, 20])), size=400)
    assert abs(image.shape[1] - 400 * min(1, shape[1] / max(shape))) <= 2 or max(shape) > 800
    assert max(image.shape) <= 440


def test_a_large_picture_is_cut_to_where_the_boxes_are():
    boxes = np.array([[2000, 1500, 2040, 1540], [2100, 1600, 2150, 1650], [10, 10, 30, 30]], float)
    x1, y1, x2, y2 = view((2444, 3744), boxes, 400)
    assert (x2 - x1, y2 - y1) == (400, 400)
    assert x1 <= 2000
    assert x2 >= 2150
    assert y1 <= 1500
    assert y2 >= 1650
    assert view((500, 700), boxes, 400) == (0, 0, 700, 500)
    assert view((1000, 1000), np.zeros((0, 4)), 400) == (300, 300, 700, 700)


def test_a_window_never_leaves_the_picture():
    assert view((2000, 2000), np.array([[1990.0, 1990, 2000, 2000]]), 400) == (1600, 1600, 2000, 2000)


def test_a_crop_is_taken_as_told():
    tall = picture(GREY, Layers(), size=400, crop=np.array([0, 0, 50, 100]))
    assert tall.shape[1] == 200


def test_the_same_input_gives_the_same_bytes():
    layers = Layers(labels(BOX), changes=[Change(BOX, BOX + 5, "shifted")])
    assert overlay(GREY, layers) == overlay(GREY, layers)


def test_colour_pictures_are_refused_with_their_shape():
    with pytest.raises(ValueError, match=r"pixels: expected .* got shape \(4, 4, 3\)"):
        overlay(np.zeros((4, 4, 3), np.uint8), Layers())


def apart(found, width, height):
    """Whether the words that were placed lie inside and none covers another by more than a little."""
    sizes = [(0.62 * POINTS * len(word.text), 1.3 * POINTS) for word, _, _ in found]
    spots = [(x, y, x + w, y + h) for (_, x, y), (w, h) in zip(found, sizes, strict=True)]
    assert all(x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height for x1, y1, x2, y2 in spots)
    for k, one in enumerate(spots):
        for other in spots[:k]:
            wide, high = (min(one[a + 2], other[a + 2]) - max(one[a], other[a]) for a in (0, 1))
            assert max(wide, 0) * max(high, 0) <= 0.16 * sizes[k][0] * sizes[k][1]
    return len(found)


@given(st.lists(st.tuples(st.floats(0, 280), st.floats(0, 180)), max_size=30))
@settings(max_examples=30, deadline=None)
def test_words_neither_cover_one_another_nor_leave_the_picture(corners):
    words = [Word(np.array([x, y, x + 20, y + 20]), "spurious", "#fff") for x, y in corners]
    shown = apart(placed(words, (0, 0, 300, 200), 1.0), 300, 200)
    assert shown >= min(len(words), 1)


def test_a_word_stands_beside_its_box_and_gives_way_to_another():
    box = np.array([100.0, 100, 120, 120])
    first, second = placed([Word(box, "missed", "#fff"), Word(box, "merged", "#fff")], (0, 0, 300, 200), 1.0)
    assert first[1:] == (100, 100 - 13)
    assert second[1:] != first[1:]
    assert placed([Word(box, "x" * 60, "#fff")], (0, 0, 300, 200), 1.0) == []  # wider than the picture
    assert placed([Word(box, "missed", "#fff")], (0, 0, 90, 90), 1.0) == []  # its box is not shown


def test_the_legend_of_a_narrow_picture_ends_before_it_does():
    image = picture(
        GREY,
        Layers(labels(BOX), changes=[Change(BOX, None, "spurious")]),
        size=260,
        crop=np.array([0, 0, 60, 60]),
    )
    ground = image[-1, -1]
    legend = np.abs(image[-30:] - ground).max(axis=2) > 60
    assert legend.any()
    assert not legend[:, -3:].any()
