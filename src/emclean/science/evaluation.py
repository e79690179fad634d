"""How good detections and labels are: COCO AP, label precision and recall, and paired bootstrap intervals.

Up to 1000 detections count in each image (COCO's 100 would cut crowded micrographs short).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emclean.boxes import iou, match, to_xywh
from emclean.types import Bools, Floats, Ints, LabelQuality, Labels, Predictions

MAX_DETECTIONS = 1000
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True, eq=False)
class Matches:
    """The detections of one category over all images, best score first, as matched at IoU 0.5.

    ``score [D]``, ``hit [D]`` whether it found an object, ``image [D]`` index of its image, ``objects [n]``
    number of true objects in each of the n images.
    """

    score: Floats
    hit: Bools
    image: Ints
    objects: Ints


@dataclass(frozen=True, eq=False)
class Detection:
    """COCO AP at IoU 0.5 and 0.5:0.95, AP50 per category (NaN without objects), and the matches behind it."""

    ap50: float
    ap: float
    per_category: tuple[float, ...]
    matches: tuple[Matches, ...]
    n_images: int


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """How a challenger's AP50 compares with a champion's on the same images: difference and ratio."""

    difference: Interval
    ratio: Interval


def _coco(truths: Sequence[Labels], n_categories: int) -> dict[str, Any]:
    annotations = [
        {"image_id": i + 1, "category_id": int(c) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, labels in enumerate(truths)
        for c, box in zip(labels.categories, to_xywh(labels.boxes).tolist(), strict=True)
    ]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number + 1
    return {
        "info": {},
        "images": [{"id": i + 1} for i in range(len(truths))],
        "categories": [{"id": c + 1, "name": str(c)} for c in range(n_categories)],
        "annotations": annotations,
    }


def _results(predictions: Sequence[Predictions]) -> list[dict[str, Any]]:
    return [
        {"image_id": i + 1, "category_id": int(c) + 1, "bbox": box, "score": float(s)}
        for i, p in enumerate(predictions)
        for c, box, s in zip(p.categories, to_xywh(p.boxes).tolist(), p.scores, strict=True)
    ]


def _coco_ap(truths: Sequence[Labels], predictions: Sequence[Predictions], n_categories: int) -> Floats:
    """AP ``[10, n_categories]`` at IoU 0.50 to 0.95 by faster-coco-eval, NaN where no object is."""
    from faster_coco_eval import COCO, COCOeval_faster

    results = _results(predictions)
    n_objects = sum(len(t) for t in truths)
    if not results or not n_objects:
        present = np.isin(
            np.arange(n_categories), np.concatenate([np.zeros(0, np.int64), *(t.categories for t in truths)])
        )
        return np.where(present, 0.0, np.nan) * np.ones((10, 1))
    truth = COCO(_coco(truths, n_categories))
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", print_function=lambda *_: None)
    evaluation.params.maxDets = [1, 100, MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, -1]  # [10 IoUs, 101 recalls, categories]
    found: Floats = precision.mean(axis=1)
    return np.where(found < 0, np.nan, found)


def _hits(truth: Floats, boxes: Floats) -> Bools:
    """Which ``boxes`` (best score first) find an object: each takes the free one of largest IoU >= 0.5."""
    overlap = iou(boxes, truth)
    free = np.ones(len(truth), dtype=np.bool_)
    hit = np.zeros(len(boxes), dtype=np.bool_)
    for d in np.flatnonzero((overlap >= 0.5).any(axis=1)):  # greedy by definition of COCO
        candidate = np.where(free, overlap[d], -1.0)
        best = len(candidate) - 1 - int(np.argmax(candidate[::-1]))  # among equals COCO takes the last
        if candidate[best] >= 0.5:
            free[best], hit[d] = False, True
    return hit


def _match_category(truths: Sequence[Labels], predictions: Sequence[Predictions], category: int) -> Matches:
    scores, hits, images, objects = [], [], [], []
    for i, (truth, prediction) in enumerate(zip(truths, predictions, strict=True)):
        mine = prediction.take(prediction.categories == category)
        mine = mine.take(np.argsort(-mine.scores, kind="stable")[:MAX_DETECTIONS])
        boxes = truth.boxes[truth.categories == category]
        scores.append(mine.scores)
        hits.append(_hits(boxes, mine.boxes))
        images.append(np.full(len(mine), i, dtype=np.int64))
        objects.append(len(boxes))
    score = np.concatenate([*scores, np.zeros(0)])
    order = np.argsort(-score, kind="stable")
    hit = np.concatenate([*hits, np.zeros(0, np.bool_)])[order]
    image = np.concatenate([*images, np.zeros(0, np.int64)])[order]
    return Matches(score[order], hit, image, np.array(objects, dtype=np.int64))


def detection(truths: Sequence[Labels], predictions: Sequence[Predictions], n_categories: int) -> Detection:
    """Score predictions against the truth of the same images, in the same order."""
    if len(truths) != len(predictions):
        raise ValueError(f"predictions: expected {len(truths)} images, got {len(predictions)}")
    table = _coco_ap(truths, predictions, n_categories)
    matches = tuple(_match_category(truths, predictions, c) for c in range(n_categories))
    per_category = tuple(float(v) for v in table[0])
    return Detection(_mean(table[:1]), _mean(table), per_category, matches, len(truths))


def _mean(values: Floats) -> float:
    """The mean of what is known, NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _ap_rows(matches: Matches, weights: Floats) -> Floats:
    """AP50 ``[B]`` of one category when image i counts ``weights[b, i]`` times (101-point interpolation)."""
    counted = weights[:, matches.image]  # [B,D]
    hits = np.cumsum(counted * matches.hit, axis=1)
    seen = np.cumsum(counted, axis=1)
    objects = weights @ matches.objects  # [B]
    recall = hits / np.maximum(objects, 1e-12)[:, None]
    precision = hits / np.maximum(seen, 1e-12)
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([envelope, np.zeros((len(weights), 1))], axis=1)
    at = np.stack([np.searchsorted(row, _RECALLS, side="left") for row in recall]).reshape(-1, len(_RECALLS))
    ap = np.take_along_axis(padded, at, axis=1).mean(axis=1)
    return np.where(objects > 0, ap, np.nan)


def resampled_ap50(found: Detection, weights: Floats) -> Floats:
    """AP50 ``[B]`` with image i counted ``weights[b, i]`` times; ones give the full sample's AP50."""
    table = np.stack([_ap_rows(m, weights) for m in found.matches])  # [categories,B]
    known = ~np.isnan(table)
    total = np.where(known, table, 0.0).sum(axis=0)
    counts = known.sum(axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def _draws(n_images: int, resamples: int, rng: np.random.Generator) -> Floats:
    """Bootstrap weights ``[B, n]``: how often each image is drawn."""
    if not n_images:
        return np.zeros((resamples, 0))
    return rng.multinomial(n_images, np.full(n_images, 1.0 / n_images), size=resamples).astype(np.float64)


def _interval(value: float, draws: Floats, confidence: float) -> Interval:
    known = draws[np.isfinite(draws)]
    if not len(known):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, float(low), float(high))


def interval(
    found: Detection, rng: np.random.Generator, resamples: int = 1000, confidence: float = 0.95
) -> Interval:
    """AP50 with its bootstrap interval over images."""
    draws = resampled_ap50(found, _draws(found.n_images, resamples, rng))
    return _interval(found.ap50, draws, confidence)


def bootstrap(
    champion: Detection,
    challenger: Detection,
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Paired:
    """Paired bootstrap over images of the challenger's AP50 minus, and divided by, the champion's."""
    if champion.n_images != challenger.n_images:
        raise ValueError(f"challenger: expected {champion.n_images} images, got {challenger.n_images}")
    weights = _draws(champion.n_images, resamples, rng)
    old, new = resampled_ap50(champion, weights), resampled_ap50(challenger, weights)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = new / old
        whole = float(np.divide(challenger.ap50, champion.ap50))
    return Paired(
        _interval(challenger.ap50 - champion.ap50, new - old, confidence),
        _interval(whole, ratio, confidence),
    )


def not_worse(difference: Interval) -> bool:
    """Whether a challenger may take the champion's place, by its paired difference in AP50.

    It is turned down only when it is worse beyond noise: when the whole interval lies below zero. False
    also where nothing was shown, because the images hold no object.
    """
    return bool(difference.high >= 0)


def label_quality(truths: Sequence[Labels], labels: Sequence[Labels], threshold: float = 0.5) -> LabelQuality:
    """Precision, recall and F1 of labels over all images together, matched one to one within each category.

    Without labels the precision is 1, without true objects the recall is 1; ``mean_iou`` of the matches is
    0 without any.
    """
    if len(truths) != len(labels):
        raise ValueError(f"labels: expected {len(truths)} images, got {len(labels)}")
    ious = [_matched_ious(t, g, threshold) for t, g in zip(truths, labels, strict=True)]
    found = np.concatenate([*ious, np.zeros(0)])
    given, true = sum(len(g) for g in labels), sum(len(t) for t in truths)
    precision = len(found) / given if given else 1.0
    recall = len(found) / true if true else 1.0
    f1 = 2 * len(found) / (given + true) if given + true else 1.0
    return LabelQuality(precision, recall, f1, float(found.mean()) if len(found) else 0.0)


def label_f1(
    truths: Sequence[Labels],
    labels: Sequence[Labels],
    rng: np.random.Generator,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Interval:
    """F1 of labels with its bootstrap interval over images; NaN ends without any image."""
    value = label_quality(truths, labels).f1
    pairs = list(zip(truths, labels, strict=True))
    counts = np.array([(len(_matched_ious(t, g, 0.5)), len(t) + len(g)) for t, g in pairs]).reshape(-1, 2)
    if not len(counts):
        return Interval(value, float("nan"), float("nan"))
    found, total = (_draws(len(counts), resamples, rng) @ counts).T
    with np.errstate(divide="ignore", invalid="ignore"):
        return _interval(value, 2 * found / total, confidence)


def _matched_ious(truth: Labels, labels: Labels, threshold: float) -> Floats:
    same = truth.categories[:, None] == labels.categories[None, :]
    rows, cols = match(truth.boxes, labels.boxes, threshold, same)
    return iou(truth.boxes, labels.boxes)[rows, cols]
