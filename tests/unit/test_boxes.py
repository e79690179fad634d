import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from emclean import boxes
from emclean.types import as_boxes

fast = settings(max_examples=40, deadline=None)


@st.composite
def some_boxes(draw, least=0, most=7):
    """Boxes on a coarse grid, so that equal, touching and nested ones are common."""
    rows = draw(
        st.lists(
            st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 8)] * 2), min_size=least, max_size=most
        )
    )
    return as_boxes([[x, y, x + w, y + h] for x, y, w, h in rows])


A = as_boxes([[0, 0, 4, 4], [10, 10, 12, 12]])
B = as_boxes([[2, 0, 6, 4], [0, 0, 4, 4]])


def test_a_case_worked_by_hand():
    # 8 of 24 pixels shared; identical; apart
    np.testing.assert_allclose(boxes.iou(A, B), [[8 / 24, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(boxes.area(A), [16, 4])
    np.testing.assert_allclose(boxes.centre(A), [[2, 2], [11, 11]])
    np.testing.assert_allclose(boxes.coverage(as_boxes([[1, 1, 3, 3]]), A[:1]), [[1.0]])
    np.testing.assert_allclose(boxes.enclosing(A), [0, 0, 12, 12])


@fast
@given(some_boxes(), some_boxes())
def test_iou_is_symmetric_and_bounded(a, b):
    overlap = boxes.iou(a, b)
    np.testing.assert_allclose(overlap, boxes.iou(b, a).T)
    assert overlap.shape == (len(a), len(b))
    assert ((overlap >= 0) & (overlap <= 1)).all()


@fast
@given(some_boxes(least=1))
def test_a_box_overlaps_itself_wholly(a):
    np.testing.assert_allclose(np.diag(boxes.iou(a, a)), 1.0)


@fast
@given(some_boxes(), some_boxes())
def test_many_at_once_equal_one_by_one(a, b):
    overlap = boxes.iou(a, b)
    for i in range(len(a)):
        for j in range(len(b)):
            assert overlap[i, j] == boxes.iou(a[i : i + 1], b[j : j + 1])[0, 0]


@fast
@given(some_boxes())
def test_xywh_and_back(a):
    np.testing.assert_array_equal(boxes.from_xywh(boxes.to_xywh(a)), a)


@fast
@given(some_boxes(), some_boxes(), st.sampled_from([0.1, 0.5, 0.9]))
def test_a_match_is_one_to_one_and_good_enough(a, b, threshold):
    rows, cols = boxes.match(a, b, threshold)
    assert len(set(rows)) == len(rows) == len(set(cols)) == len(cols)
    assert (boxes.iou(a, b)[rows, cols] >= threshold).all()
    assert (np.diff(rows) > 0).all()


@fast
@given(some_boxes())
def test_boxes_match_themselves(a):
    rows, _ = boxes.match(a, a)
    assert len(rows) == len(a)


def test_matching_takes_the_largest_total_not_the_first():
    a = as_boxes([[0, 0, 10, 10], [0, 0, 10, 8]])
    b = as_boxes([[0, 0, 10, 9], [0, 0, 10, 5]])
    rows, cols = boxes.match(a, b, 0.5)
    assert list(zip(rows, cols, strict=True)) == [(0, 0), (1, 1)]


def test_forbidden_pairs_are_not_matched():
    rows, _ = boxes.match(A, B, 0.3, allowed=np.array([[True, False], [True, True]]))
    assert rows.tolist() == [0]


def test_a_threshold_of_zero_never_matches_what_does_not_touch():
    rows, _ = boxes.match(A[1:], B, threshold=0.0)
    assert len(rows) == 0


@fast
@given(some_boxes(), st.sampled_from([0.2, 0.5]), st.randoms(use_true_random=False))
def test_suppression_is_idempotent_and_leaves_no_overlap(a, threshold, random):
    scores = np.array([random.random() for _ in range(len(a))])
    kept = boxes.nms(a, scores, threshold)
    again = boxes.nms(a[kept], scores[kept], threshold)
    np.testing.assert_array_equal(again, np.arange(len(kept)))
    overlap = boxes.iou(a[kept], a[kept]) - np.eye(len(kept))
    assert (overlap <= threshold).all()
    assert (np.diff(scores[kept]) <= 0).all()


def test_categories_do_not_suppress_one_another():
    same = as_boxes([[0, 0, 4, 4]] * 2)
    scores = np.array([0.5, 0.9])
    assert boxes.nms(same, scores, 0.5).tolist() == [1]
    assert boxes.nms(same, scores, 0.5, np.array([0, 1])).tolist() == [1, 0]


@fast
@given(some_boxes())
def test_clipped_boxes_lie_within_the_image(a):
    cut = boxes.clip(a, 9, 7)
    assert (cut >= 0).all()
    assert (cut[:, [0, 2]] <= 9).all()
    assert (cut[:, [1, 3]] <= 7).all()
    np.testing.assert_array_equal(boxes.clip(cut, 9, 7), cut)


@fast
@given(some_boxes(), some_boxes())
def test_coverage_is_the_shared_part_of_the_inner_box(a, b):
    share = boxes.coverage(a, b)
    np.testing.assert_allclose(share * boxes.area(a)[:, None], boxes.intersection(a, b))
    assert (share <= 1 + 1e-12).all()


def test_paired_iou_is_the_diagonal_of_iou() -> None:
    rng = np.random.default_rng(0)
    low = rng.random((30, 2)) * 20
    a = np.concatenate([low, low + 1 + rng.random((30, 2)) * 20], axis=1)
    b = np.roll(a, 1, axis=0)
    np.testing.assert_allclose(boxes.paired_iou(a, b), np.diag(boxes.iou(a, b)))
