import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from science_scenes import model, objects

from emclean.science.evaluation import (
    Detection,
    _coco,
    _results,
    bootstrap,
    detection,
    interval,
    label_f1,
    label_quality,
    not_worse,
    resampled_ap50,
)
from emclean.types import Labels, Predictions


def images(
    seed: int, n: int, n_categories: int = 2, **faults: float
) -> tuple[list[Labels], list[Predictions]]:
    rng = np.random.default_rng(seed)
    truths = [objects(rng, int(rng.integers(0, 25)), n_categories) for _ in range(n)]
    return truths, [model(rng, t, n_categories=n_categories, **faults) for t in truths]


def scored(seed: int, n: int = 25, **faults: float) -> Detection:
    truths = images(seed=99, n=n)[0]
    rng = np.random.default_rng(seed)
    return detection(truths, [model(rng, t, n_categories=2, **faults) for t in truths], 2)


def pycocotools_ap(truths: list[Labels], predictions: list[Predictions], n_categories: int) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = _coco(truths, n_categories)
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(_results(predictions)), "bbox")
        evaluation.params.maxDets = [1, 100, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    return np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1].mean(axis=1)


def test_ap_is_that_of_pycocotools() -> None:
    truths, predictions = images(0, 12, 3)
    found, reference = detection(truths, predictions, 3), pycocotools_ap(truths, predictions, 3)
    assert 0.3 < found.ap50 < 1
    assert found.ap50 == pytest.approx(reference[0].mean(), abs=1e-9)
    assert found.ap == pytest.approx(reference.mean(), abs=1e-9)
    assert found.per_category == pytest.approx(reference[0], abs=1e-9)


@given(st.integers(0, 500), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_the_matches_for_the_bootstrap_give_the_same_ap50(seed: int, n_categories: int) -> None:
    found = detection(*images(seed, 6, n_categories), n_categories)
    whole = resampled_ap50(found, np.ones((1, 6)))[0]
    assert whole == pytest.approx(found.ap50, abs=1e-9, nan_ok=True)


def test_a_resample_equals_scoring_the_images_drawn() -> None:
    truths, predictions = images(7, 8)
    found = detection(truths, predictions, 2)
    drawn = [0, 3, 3, 5, 6, 6, 6, 7]
    again = detection([truths[i] for i in drawn], [predictions[i] for i in drawn], 2)
    weights = np.bincount(drawn, minlength=8)[None].astype(float)
    assert resampled_ap50(found, weights)[0] == pytest.approx(
        again.ap50, abs=0.005
    )  # order among equal scores


def test_more_than_a_hundred_detections_count() -> None:
    corners = np.stack(np.meshgrid(np.arange(15.0), np.arange(15.0)), axis=-1).reshape(-1, 2) * 20
    truth = Labels(np.concatenate([corners, corners + 10], axis=1), np.zeros(225, int))
    perfect = Predictions(truth.boxes, truth.categories, np.linspace(0.5, 0.9, len(truth)))
    assert detection([truth], [perfect], 1).ap50 == pytest.approx(1.0)


def test_a_hand_worked_case() -> None:
    truth = Labels(np.array([[0, 0, 10, 10], [20, 0, 30, 10.0]]), np.array([0, 0]))
    said = Predictions(
        np.array([[0, 0, 10, 10], [50, 50, 60, 60], [20, 0, 30, 10.0]]),
        np.zeros(3, int),
        np.array([0.9, 0.8, 0.7]),
    )
    found = detection([truth], [said], 1)
    assert found.ap50 == pytest.approx((51 * 1.0 + 50 * 2 / 3) / 101)  # recall .5 at precision 1, then 2/3
    assert found.matches[0].hit.tolist() == [True, False, True]


def test_nothing_predicted_and_nothing_to_find() -> None:
    truth, none = objects(np.random.default_rng(0), 5), Predictions.empty()
    assert detection([truth], [none], 2).ap50 == 0.0
    assert np.isnan(detection([Labels.empty()], [none], 1).ap50)
    assert np.isnan(detection([], [], 1).ap50)
    assert detection([truth, Labels.empty()], [none, none], 1).n_images == 2


def test_images_must_be_paired() -> None:
    with pytest.raises(ValueError, match="predictions"):
        detection([Labels.empty()], [], 1)


def test_the_interval_holds_the_estimate_and_narrows_with_images() -> None:
    wide, narrow = (interval(scored(1, n), np.random.default_rng(0)) for n in (8, 60))
    assert wide.low < wide.value < wide.high
    assert narrow.high - narrow.low < wide.high - wide.low


def test_the_paired_bootstrap_sees_a_small_difference_on_the_same_images() -> None:
    good, bad = scored(1, 40, miss=0.1), scored(1, 40, miss=0.3)
    paired = bootstrap(bad, good, np.random.default_rng(0))
    assert paired.difference.value == pytest.approx(good.ap50 - bad.ap50)
    assert 0 < paired.difference.low < paired.difference.value < paired.difference.high
    assert paired.ratio.low > 1
    same = bootstrap(good, good, np.random.default_rng(0))
    assert same.difference.low == same.difference.high == 0.0
    assert same.ratio.low == same.ratio.high == 1.0


def test_the_gate_lets_better_and_equal_pass_but_not_worse() -> None:
    good, bad = scored(1, 40, miss=0.1), scored(1, 40, miss=0.4)
    rng = np.random.default_rng(0)
    assert not_worse(bootstrap(bad, good, rng).difference)
    assert not_worse(bootstrap(good, good, rng).difference)
    assert not not_worse(bootstrap(good, bad, rng).difference)
    nothing = detection([Labels.empty()], [Predictions.empty()], 1)
    assert not not_worse(bootstrap(nothing, nothing, rng).difference)


def test_label_quality_of_a_hand_worked_case() -> None:
    truth = Labels(np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]]), np.array([0, 0, 1]))
    given_ = Labels(
        np.array([[0, 0, 10, 10], [22, 0, 32, 10], [40, 0, 50, 10.0], [70, 70, 80, 80]]), np.zeros(4, int)
    )
    quality = label_quality([truth, Labels.empty()], [given_, Labels.empty()])
    assert (quality.precision, quality.recall) == (2 / 4, 2 / 3)
    assert quality.f1 == pytest.approx(4 / 7)
    assert quality.mean_iou == pytest.approx((1 + 8 / 12) / 2)


def test_label_quality_of_nothing() -> None:
    assert label_quality([], []).f1 == 1.0
    truth = objects(np.random.default_rng(0), 4)
    assert label_quality([truth], [Labels.empty()]).recall == 0.0
    assert label_quality([Labels.empty()], [truth]).precision == 0.0


def test_the_interval_of_the_labels_f1_is_over_images() -> None:
    rng = np.random.default_rng(0)
    one = objects(rng, 6)
    truths, labels = [one] * 20, [one] * 14 + [Labels.empty()] * 6
    found = label_f1(truths, labels, np.random.default_rng(1))
    assert found.value == label_quality(truths, labels).f1
    assert 0.65 < found.low < found.value < found.high < 1
    same = label_f1(truths, truths, np.random.default_rng(1))
    assert (same.low, same.high) == (1.0, 1.0)
    assert np.isnan(label_f1([], [], rng).low)
