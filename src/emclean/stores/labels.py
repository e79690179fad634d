"""Labels as events: how crowd, automatic corrections and experts' answers are written.

An event holds the full state of its instance after it, so the last event of an instance, by ``seq``, is
how it stands. Event ids are made from what caused the event: the same cause twice is one event.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from emclean import boxes as geometry
from emclean.errors import LabelError
from emclean.stores.schemas import LABELS
from emclean.types import Answer, AnsweredBox, Ints, Labels

Row = dict[str, Any]
CORNERS = ("x1", "y1", "x2", "y2")
WHOLE_IMAGE = ""
"""The instance id of the event that says: an expert answered for this image."""

SOME_INSTANCES = "*"
"""The instance id of the event that says: an expert decided on some instances of this image."""

SAYINGS = pa.array([WHOLE_IMAGE, SOME_INSTANCES])
"""Instance ids of events that speak of no instance."""

SAME_OBJECT_IOU = 0.5
"""A drawn box that overlaps a standing one this much, and nothing better, is taken for the same object."""

SAME_PLACE_PX = 0.05
"""Sides may differ this much and count as not moved: the labelling page keeps them in percent."""


def crowd_events(
    labels: Mapping[str, Labels],
    categories: Sequence[str],
    run: str,
    at: datetime,
    reason: str = "crowd label",
) -> pa.Table:
    """``added`` events of round 0 for the crowd's labels, by image id."""
    counts = [len(of_image) for of_image in labels.values()]
    total = sum(counts)
    images = [image for image, n in zip(labels, counts, strict=True) for _ in range(n)]
    instances = [instance for of_image in labels.values() for instance in of_image.ids]
    boxes = np.concatenate([of_image.boxes for of_image in labels.values()] or [np.zeros((0, 4))])
    where = np.concatenate([of_image.categories for of_image in labels.values()] or [np.zeros(0, np.int64)])
    columns = {
        "event_id": [f"{run}/crowd/{a}/{b}" for a, b in zip(images, instances, strict=True)],
        "image_id": images,
        "instance_id": instances,
        "category": [_name(index, categories, "crowd label") for index in where],
        "annotator": [who for of_image in labels.values() for who in of_image.annotators],
        **{corner: boxes[:, k] for k, corner in enumerate(CORNERS)},
    }
    same = {"event": "added", "source": "crowd", "at": at, "round": 0, "reason": reason, "run": run, "seq": 0}
    columns |= {name: pa.repeat(_scalar(name, value), total) for name, value in same.items()}
    columns |= {name: pa.nulls(total) for name in ("parent_id", "task_key", "annotation_id")}
    arrays = [_typed(columns[field.name], field) for field in LABELS.schema]
    return pa.Table.from_arrays(arrays, schema=LABELS.schema)


def auto_events(
    image_id: str,
    labels: Labels,
    corrected: Labels,
    why: Mapping[str, tuple[str, str]],
    *,
    categories: Sequence[str],
    round_: int,
    run: str,
    at: datetime,
) -> list[Row]:
    """Events that turn the labels of an image as they stand into the automatically corrected ones.

    ``why`` maps instances to the reason of their change and the instance that they came from (or ""). What
    stands corrected and is not wanted any more is taken back: each round judges the crowd's labels anew.
    """
    before, after = _by_instance(labels), _by_instance(corrected)
    same = {"image_id": image_id, "source": "auto", "annotator": "emclean", "at": at}
    same |= {"round": round_, "run": run}
    rows = []
    for instance in sorted({*before, *after}):
        now, then = before.get(instance), after.get(instance)
        if now == then:
            continue
        box, category = before[instance] if then is None else then
        reason, parent = why.get(instance, ("an earlier correction is no longer safe", ""))
        state = _state(box, _name(category, categories, "corrected label"))
        row = _row(_changed(now, then), reason, state, parent or None)
        name = {"event_id": f"auto/{round_}/{image_id}/{instance}", "instance_id": instance}
        rows.append({**name, **row, **same})
    return rows


Placed = tuple[tuple[float, ...], int]


def _by_instance(labels: Labels) -> dict[str, Placed]:
    """Box and category of each instance."""
    columns = zip(labels.ids, labels.boxes.tolist(), labels.categories.tolist(), strict=True)
    return {name: (tuple(box), category) for name, box, category in columns}


def _changed(before: Placed | None, after: Placed | None) -> str:
    if before is None:
        return "added"
    if after is None:
        return "deleted"
    return "moved" if before[0] != after[0] else "relabelled"


def expert_events(
    image_id: str,
    labels: Labels,
    answer: Answer,
    *,
    instances: Mapping[str, str],
    categories: Sequence[str],
    round_: int,
    run: str,
    asked: Sequence[AnsweredBox] | None = None,
) -> list[Row]:
    """Events that make the view of this image exactly the expert's answer.

    ``labels`` is how the image stands now, ``instances`` maps suggestion ids to the instances they showed
    (a suggestion of a new object has none). Confirmed instances get ``verified``; a box with another
    category ``relabelled``, with another place ``moved``; standing instances that the answer lacks are
    ``deleted``; the image as a whole gets ``verified``. A skipped answer gives nothing.

    After a review, ``asked`` holds what was shown: what it lacks is deleted, all else stays as it is, and
    the image gets ``verified`` in part only. Every shown instance gets a word of its own, also one that an
    automatic correction had removed; a rejected suggestion that was none is a deleted instance of its own.
    """
    if answer.skipped:
        return []
    _known(answer, categories)
    claimed, parents = _claims(labels, answer.boxes, instances)
    version = f"{answer.annotation_id}-{hashlib.sha256(answer.updated_at.encode()).hexdigest()[:8]}"
    rows = [
        _said(labels, box, int(index), parent, categories) | _instance(labels, int(index), version, place)
        for place, (box, index, parent) in enumerate(zip(answer.boxes, claimed, parents, strict=True))
    ]
    left = [index for index in range(len(labels)) if index not in claimed]
    if asked is None:
        rows += [_gone(labels, index, categories) for index in left]
        whole, why = WHOLE_IMAGE, "the expert answered"
    else:
        meant = {instances[box.suggestion_id] for box in asked if box.suggestion_id in instances}
        rows += [_gone(labels, index, categories) for index in left if labels.ids[index] in meant]
        said = {row["instance_id"] for row in rows}
        rows += _rejected([b for b in asked if instances.get(b.suggestion_id) not in said], answer, instances)
        whole, why = SOME_INSTANCES, "the expert decided on some instances"
    rows.append(_row("verified", why, _state(None, None)) | {"instance_id": whole})
    same = {
        "image_id": image_id,
        "source": "expert",
        "annotator": answer.annotator,
        "round": round_,
        "run": run,
    }
    same |= {"at": when(answer.updated_at), "task_key": answer.key, "annotation_id": answer.annotation_id}
    cause = f"{run}/expert/{version}/{image_id}"
    return [{"event_id": f"{cause}/{row['instance_id']}", **row, **same} for row in rows]


def _rejected(asked: Sequence[AnsweredBox], answer: Answer, instances: Mapping[str, str]) -> list[Row]:
    """What was shown and does not stand, as deleted: instances, and suggestions that the answer lacks."""
    taken = {box.suggestion_id for box in answer.boxes}
    names = {box.suggestion_id: f"rejected-{answer.annotation_id}-{k}" for k, box in enumerate(asked)}
    rows = {
        name: _row("deleted", "the expert sees no such object", _state(box.box, box.category))
        for box in asked
        for name in [instances.get(box.suggestion_id, names[box.suggestion_id])]
        if box.suggestion_id in instances or box.suggestion_id not in taken
    }
    return [row | {"instance_id": name} for name, row in rows.items()]


def _known(answer: Answer, categories: Sequence[str]) -> None:
    odd = sorted({box.category for box in answer.boxes} - set(categories))
    if odd:
        raise LabelError(
            f"unknown category {', '.join(map(repr, odd))}",
            f"task {answer.key}, annotation {answer.annotation_id}",
            f"Correct the annotation; the project knows {', '.join(categories)}.",
        )


def _said(labels: Labels, box: AnsweredBox, index: int, parent: str | None, categories: Sequence[str]) -> Row:
    """The event of one answered box that is the standing instance ``index``, or a new one (-1)."""
    state = _state(box.box, box.category)
    if index < 0:
        reason = "from a suggestion" if box.suggestion_id else "drawn by the expert"
        return _row("added", reason, state, parent)
    # a box drawn over a standing label changes that label, but the expert has drawn: costs count it as added
    anew = "" if box.suggestion_id else "drawn by the expert in place of the label here"
    if categories[int(labels.categories[index])] != box.category:
        return _row("relabelled", anew or "renamed by the expert", state)
    if np.abs(labels.boxes[index] - np.asarray(box.box)).max() > SAME_PLACE_PX:
        return _row("moved", anew or "moved by the expert", state)
    return _row("verified", "confirmed by the expert", state)


def _gone(labels: Labels, index: int, categories: Sequence[str]) -> Row:
    state = _state(labels.boxes[index], _name(labels.categories[index], categories, "standing label"))
    return _row("deleted", "deleted by the expert", state) | {"instance_id": labels.ids[index]}


def _instance(labels: Labels, index: int, version: str, place: int) -> Row:
    return {"instance_id": f"expert-{version}-{place}" if index < 0 else labels.ids[index]}


def _row(event: str, reason: str, state: Row, parent: str | None = None) -> Row:
    return {"event": event, "reason": reason, "parent_id": parent, **state}


def _claims(
    labels: Labels, answered: Sequence[AnsweredBox], instances: Mapping[str, str]
) -> tuple[Ints, list[str | None]]:
    """For each answered box the standing instance that it is, or -1, and the instance it came from, or None.

    A suggestion's own box claims its instance first (the best overlapping, where several do); the rest
    are paired with the unclaimed instances by overlap.
    """
    drawn = np.array([box.box for box in answered], dtype=np.float64).reshape(-1, 4)
    parents = [instances.get(box.suggestion_id) if box.suggestion_id else None for box in answered]
    overlap = geometry.iou(drawn, labels.boxes)  # [answered, standing]
    place = {instance: index for index, instance in enumerate(labels.ids)}
    claimed = np.full(len(drawn), -1, dtype=np.int64)
    for index in {place[p] for p in parents if p in place}:
        mine = [k for k, parent in enumerate(parents) if parent == labels.ids[index]]
        claimed[max(mine, key=lambda k: (overlap[k, index], -k))] = index
    free = np.flatnonzero(claimed < 0)
    left = np.setdiff1d(np.arange(len(labels)), claimed)
    rows, columns = geometry.match(drawn[free], labels.boxes[left], SAME_OBJECT_IOU)
    claimed[free[rows]] = left[columns]
    return claimed, parents


def newest(answers: Iterable[Answer]) -> dict[str, Answer]:
    """The answer that counts for each task: the latest by ``updated_at`` among those that are not skipped.

    Of two annotators the later one wins; the other's answer stays in the table ``answers``. A task with
    skipped answers only keeps its latest skip.
    """
    counts: dict[str, Answer] = {}
    for answer in sorted(answers, key=lambda a: (not a.skipped, when(a.updated_at), a.annotation_id)):
        counts[answer.key] = answer
    return counts


def untaken(table: pa.Table, answers: Iterable[Answer]) -> dict[str, Answer]:
    """By image, the newest answer that is not a skip and is newer than what the image's labels rest on.

    Only these may go to ``expert_events``: an older answer would undo what came after it. An answer that was
    withdrawn after it was taken in stays in force until somebody answers again.
    """
    expert = table.filter(pc.is_in(table["instance_id"], value_set=SAYINGS))
    columns = (expert[name].to_pylist() for name in ("image_id", "at", "annotation_id"))
    rests: dict[str, tuple[datetime, int]] = {}
    for image, at, annotation in zip(*columns, strict=True):
        rests[image] = max((at, annotation), rests.get(image, (at, annotation)))
    fresh: dict[str, Answer] = {}
    for answer in sorted(answers, key=_age):
        image = image_of(answer.key)
        if not answer.skipped and (image not in rests or _age(answer) > rests[image]):
            fresh[image] = answer
    return fresh


def _age(answer: Answer) -> tuple[datetime, int]:
    return when(answer.updated_at), answer.annotation_id


def image_of(key: str) -> str:
    """The image id in a task's key ``{run}/{image_id}/{round}``."""
    parts = key.rsplit("/", 2)
    if len(parts) != 3:
        raise LabelError(f"'{key}' is not a task key", "answer", "Task keys are {run}/{image_id}/{round}.")
    return parts[1]


def when(text: str) -> datetime:
    """The time of an ISO 8601 text; one without a zone is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise LabelError(f"'{text}' is not an ISO 8601 time", "answer", "Check the label service.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _name(category: Any, categories: Sequence[str], where: str) -> str | None:
    if category is None or isinstance(category, str):
        return category
    if not 0 <= int(category) < len(categories):
        raise LabelError(
            f"category {int(category)} is not below {len(categories)}", where, "Check the categories."
        )
    return categories[int(category)]


def _state(box: Any, category: str | None) -> Row:
    corners = [None] * 4 if box is None else [float(side) for side in box]
    return {**dict(zip(CORNERS, corners, strict=True)), "category": category}


def _scalar(name: str, value: Any) -> Any:
    return pa.scalar(value, LABELS.schema.field(name).type)


def _typed(column: Any, field: pa.Field) -> Any:
    return column.cast(field.type) if isinstance(column, pa.Array) else pa.array(column, field.type)
