"""The engine's AP50 against faster_coco_eval, and by hand."""

import contextlib
import io

import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster

from emclean.boxes import to_xywh
from emclean.models.ap import ap50
from emclean.types import Labels, Predictions


def random_case(rng, n_categories):
    low = rng.uniform(0, 80, (rng.integers(0, 12), 2))
    truth = np.concatenate([low, low + rng.uniform(5, 40, low.shape)], axis=1)
    kinds = rng.integers(0, n_categories, len(truth))
    moved = np.repeat(truth, 2, axis=0) + rng.normal(0, 3, (2 * len(truth), 4))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    found = np.concatenate([moved, [[0, 0, 9, 9], [70, 70, 90, 99]]])
    guesses = np.append(np.repeat(kinds, 2), [0, 0])
    return Labels(truth, kinds), Predictions(found, guesses, rng.uniform(0, 1, len(found)).round(1))


def rows(values, image):
    boxes, areas = to_xywh(values.boxes), np.prod(values.boxes[:, 2:] - values.boxes[:, :2], axis=1)
    return [
        {
            "image_id": image,
            "category_id": int(kind) + 1,
            "bbox": box.tolist(),
            "area": float(area),
            "iscrowd": 0,
        }
        for box, kind, area in zip(boxes, values.categories, areas, strict=True)
    ]


def reference(truths, predictions, n_categories):
    annotations = [row for i, truth in enumerate(truths) for row in rows(truth, i)]
    answers = [
        {**row, "score": float(score)}
        for i, found in enumerate(predictions)
        for row, score in zip(rows(found, i), found.scores, strict=True)
    ]
    truth = COCO(
        {
            "images": [{"id": i, "width": 200, "height": 200} for i in range(len(truths))],
            "annotations": [{**row, "id": i + 1} for i, row in enumerate(annotations)],
            "categories": [{"id": c + 1, "name": str(c)} for c in range(n_categories)],
        }
    )
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval_faster(truth, truth.loadRes(answers), "bbox")
        evaluation.params.maxDets = [1, 10, 1000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][0, :, :, 0, -1]
    return float(precision[precision > -1].mean())


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_categories", [1, 3])
def test_agrees_with_coco(seed, n_categories):
    rng = np.random.default_rng(seed)
    truths, predictions = zip(*(random_case(rng, n_categories) for _ in range(5)), strict=True)
    expected = reference(truths, predictions, n_categories)
    assert ap50(truths, predictions, n_categories) == pytest.approx(expected, abs=1e-9)


def test_by_hand():
    truth = Labels([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 0])
    both = Predictions([[0, 0, 10, 10], [50, 50, 60, 60], [20, 20, 30, 30]], [0, 0, 0], [0.9, 0.8, 0.7])
    assert ap50([truth], [both]) == pytest.approx((51 * 1.0 + 50 * 2 / 3) / 101)
    assert ap50([truth], [Predictions.empty()]) == 0.0
    assert ap50([Labels.empty()], [both]) == 0.0
