"""Between emclean's values and Label Studio's JSON.

Label Studio keeps boxes in percent of the picture (``x, y`` of the top left corner, ``width``,
``height``) with a clockwise ``rotation`` in degrees about that corner; ours are corners in pixels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import cos, isfinite, radians, sin
from typing import Any

from emclean.errors import LabelServiceError
from emclean.stores.label_studio.page import BOXES, PICTURE, is_suggestion, note, suggestion_label
from emclean.types import GRADES, Answer, AnsweredBox, Suggestion, TaskSpec

Box = tuple[float, float, float, float]

MODEL_VERSION = "emclean"
"""What Label Studio shows as the origin of suggestions."""

_DIGITS = 6
"""Pixels are rounded to a millionth: the way to percent and back costs about 1e-12."""


def to_percent(box: Box, width: float, height: float) -> dict[str, float]:
    """``x, y, width, height`` in percent of the picture, from corners in pixels."""
    x1, y1, x2, y2 = box
    return {
        "x": 100.0 * x1 / width,
        "y": 100.0 * y1 / height,
        "width": 100.0 * (x2 - x1) / width,
        "height": 100.0 * (y2 - y1) / height,
        "rotation": 0.0,
    }


def to_pixels(value: Mapping[str, Any], width: float, height: float) -> Box:
    """Corners in pixels from Label Studio's percent; a turned rectangle gives the box that encloses it."""
    x, w = (float(value[name]) * width / 100.0 for name in ("x", "width"))
    y, h = (float(value[name]) * height / 100.0 for name in ("y", "height"))
    angle = radians(float(value.get("rotation") or 0.0))
    across, down = (w * cos(angle), w * sin(angle)), (-h * sin(angle), h * cos(angle))
    xs = (x, x + across[0], x + down[0], x + across[0] + down[0])
    ys = (y, y + across[1], y + down[1], y + across[1] + down[1])
    x1, y1, x2, y2 = min(xs), min(ys), max(xs), max(ys)
    return round(x1, _DIGITS), round(y1, _DIGITS), round(x2, _DIGITS), round(y2, _DIGITS)


def _cut(box: Box, width: float, height: float) -> Box:
    x1, y1, x2, y2 = box
    return max(x1, 0.0), max(y1, 0.0), min(x2, width), min(y2, height)


def region_id(suggestion_id: str) -> str:
    """The region id of a suggestion: the page cuts ids at ``#``, so that sign is escaped."""
    return suggestion_id.replace("%", "%25").replace("#", "%23")


def suggestion_of(region: str) -> str:
    """The suggestion id of a region id (the reverse of ``region_id``)."""
    return region.replace("%23", "#").replace("%25", "%")


def _reason(suggestion: Suggestion) -> str:
    grade = f"{suggestion.grade}: " if suggestion.grade else ""
    return f"{grade}{suggestion.reason} (score {suggestion.score:.2f})".strip()


def region(suggestion: Suggestion, width: int, height: int) -> dict[str, Any]:
    """A suggestion as a region of a prediction, cut at the picture's border."""
    box = _cut(suggestion.box, width, height)
    label = suggestion_label(suggestion.category, suggestion.grade)
    return {
        "id": region_id(suggestion.suggestion_id),
        "from_name": BOXES,
        "to_name": PICTURE,
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "score": suggestion.score,
        "meta": {"text": [_reason(suggestion)]},
        "value": {**to_percent(box, width, height), "rectanglelabels": [label]},
    }


def prediction(task: TaskSpec) -> dict[str, Any] | None:
    """The suggestions of a task as one prediction; None for a blind task or one without suggestions."""
    if task.blind or not task.suggestions:
        return None
    regions = [region(s, task.image.width, task.image.height) for s in task.suggestions]
    lowest = min(s.score for s in task.suggestions)
    return {"model_version": MODEL_VERSION, "score": lowest, "result": regions}


def task_data(task: TaskSpec, url: str, note: str) -> dict[str, Any]:
    """What a task of any page holds: its picture at ``url``, the line above it, and by what it is known."""
    return {
        "image": url,
        "key": task.key,
        "value": task.value,
        "note": note,
        "name": task.image.name,
        "image_id": task.image.image_id,
        "width": task.image.width,
        "height": task.image.height,
        "kind": task.kind,
        "blind": task.blind,
    }


def task_body(task: TaskSpec, url: str) -> dict[str, Any]:
    """What is sent to create a task whose picture the browser finds at ``url``."""
    shown = prediction(task)
    return {"data": task_data(task, url, note(task)), "predictions": [shown] if shown else []}


def suggestions(task: Mapping[str, Any], categories: Sequence[str]) -> tuple[Suggestion, ...]:
    """What a task, as Label Studio gives it, shows to the expert; for a program that answers."""
    names = {suggestion_label(c, grade): (c, grade) for c in categories for grade in ("", *GRADES)}
    width, height = float(task["data"]["width"]), float(task["data"]["height"])
    found = []
    for item in (item for shown in task.get("predictions") or [] for item in shown["result"]):
        label = item["value"]["rectanglelabels"][0]
        if label not in names:
            raise LabelServiceError(
                f"a suggestion has the unknown label {label!r}", f"task {task['data']['key']}"
            )
        category, grade = names[label]
        box = to_pixels(item["value"], width, height)
        found.append(Suggestion(suggestion_of(item["id"]), box, category, float(item["score"]), grade))
    return tuple(found)


def annotation_body(boxes: Sequence[AnsweredBox], width: float, height: float) -> dict[str, Any]:
    """An answer as Label Studio's page would send it."""
    result = [
        {
            "id": region_id(box.suggestion_id) or f"drawn-{i}",
            "from_name": BOXES,
            "to_name": PICTURE,
            "type": "rectanglelabels",
            "original_width": int(width),
            "original_height": int(height),
            "image_rotation": 0,
            "origin": "prediction-changed" if box.suggestion_id else "manual",
            "value": {**to_percent(box.box, width, height), "rectanglelabels": [box.category]},
        }
        for i, box in enumerate(boxes)
    ]
    return {"result": result, "was_cancelled": False}


@dataclass(frozen=True)
class Reading:
    """One annotation read: the answer, and in words what in it could not be used."""

    answer: Answer
    faults: tuple[str, ...] = ()


def _category(names: Sequence[str], categories: Sequence[str]) -> tuple[str, str]:
    """The category among a rectangle's labels, and a fault in words (either may be empty)."""
    known = [name for name in names if name in categories]
    if not known and any(is_suggestion(name) for name in names):
        return "", "a suggestion was left undecided; it counts as not accepted"
    if not known:
        return "", f"a box has no known category (labels: {', '.join(names) or 'none'}); it was left out"
    if len(known) > 1:
        return known[0], f"a box carries several categories ({', '.join(known)}); the first was taken"
    return known[0], ""


def _box(value: Mapping[str, Any], width: float, height: float) -> Box | None:
    try:
        box = _cut(to_pixels(value, width, height), width, height)
    except (KeyError, TypeError, ValueError):
        return None
    sound = all(isfinite(side) for side in box) and box[0] < box[2] and box[1] < box[3]
    return box if sound else None


def _answered(
    item: Mapping[str, Any], size: tuple[float, float], categories: Sequence[str]
) -> tuple[AnsweredBox | None, str]:
    value = item.get("value") or {}
    category, fault = _category([str(name) for name in value.get("rectanglelabels") or []], categories)
    if not category:
        return None, fault
    box = _box(value, *size)
    if box is None:
        return None, "a box has no area inside the picture; it was left out"
    return AnsweredBox(box, category, suggestion_of(str(item.get("id") or ""))), fault


def _boxes(
    result: Sequence[Mapping[str, Any]], size: tuple[float, float], categories: Sequence[str]
) -> tuple[list[AnsweredBox], list[str]]:
    pairs = [_answered(item, size, categories) for item in result if item.get("type") == "rectanglelabels"]
    return [box for box, _ in pairs if box is not None], [fault for _, fault in pairs if fault]


def shown_ids(task: Mapping[str, Any]) -> frozenset[str]:
    """The suggestion ids that a task, as Label Studio gives it, was shown with."""
    results = [item for shown in task.get("predictions") or [] for item in shown.get("result") or []]
    return frozenset(suggestion_of(str(item.get("id") or "")) for item in results)


def _only_shown(box: AnsweredBox, shown: frozenset[str]) -> AnsweredBox:
    return box if box.suggestion_id in shown else AnsweredBox(box.box, box.category)


def read(
    task: Mapping[str, Any], annotation: Mapping[str, Any], categories: Sequence[str], annotator: str
) -> Reading:
    """One annotation of a task as an answer; raises KeyError, TypeError or ValueError on foreign JSON."""
    data = task["data"]
    skipped = bool(annotation.get("was_cancelled"))
    result = [] if skipped else annotation.get("result") or []
    boxes, faults = _boxes(result, (float(data["width"]), float(data["height"])), categories)
    shown = shown_ids(task)
    lead = annotation.get("lead_time")
    answer = Answer(
        key=str(data["key"]),
        task_id=int(task["id"]),
        annotation_id=int(annotation["id"]),
        updated_at=str(annotation["updated_at"]),
        annotator=annotator,
        boxes=tuple(_only_shown(box, shown) for box in boxes),
        skipped=skipped,
        lead_time_s=None if lead is None else float(lead),
    )
    return Reading(answer, tuple(faults))
