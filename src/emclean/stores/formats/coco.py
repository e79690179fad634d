"""COCO JSON: ``images``, ``categories``, ``annotations`` with ``bbox`` = x, y, width, height in pixels.

Also taken: ``group`` of an image (section, case or article), ``annotator`` and ``label_id`` of an annotation,
and lists of results with ``score``. Written files carry each label's lineage.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from emclean import boxes
from emclean.errors import LabelError
from emclean.stores.formats.rows import (
    BadRow,
    ImageEntry,
    LabelFile,
    Row,
    assemble,
    corners,
    fetch,
    fit,
    number,
)
from emclean.types import ImageRecord, Labels, SetAside

Key = int | str
"""An id in a COCO file."""

Sink = Callable[[SetAside], None]
"""Where what is set aside is told."""


@dataclass(frozen=True)
class Lineage:
    """Where a label comes from: source (crowd, auto, expert), who, when (ISO 8601), why, from which label."""

    source: str = ""
    annotator: str = ""
    at: str = ""
    reason: str = ""
    parent: str = ""


@dataclass(frozen=True, eq=False)
class Export:
    """What is written: pictures, their labels by image id, category names, lineage by label id."""

    images: Sequence[ImageRecord]
    labels: Mapping[str, Labels]
    categories: Sequence[str]
    lineage: Mapping[str, Lineage] = field(default_factory=dict)
    label_revision: str = ""


def read(path: str) -> LabelFile:
    """Read a COCO file; bad annotations are set aside, only what is no COCO file raises ``LabelError``."""
    return parse(fetch(path), str(path))


def parse(text: str, where: str) -> LabelFile:
    """Read a COCO file's text; ``where`` names it in messages."""
    content = _content(text, where)
    aside: list[SetAside] = []
    entries = read_images(_list(content, "images", where), aside.append)
    if not entries:
        raise LabelError(
            "holds no usable image.", f"{where}: images", "List each picture with id and file_name."
        )
    categories = read_categories(_list(content, "categories", where), aside.append)
    if not categories:
        raise LabelError("holds no usable category.", f"{where}: categories", "List each with id and name.")
    reader = RowReader(entries, categories)
    annotations = _list(content, "annotations", where) if "annotations" in content else []
    rows = list(_checked(annotations, reader, "annotations", aside))
    names = tuple(dict.fromkeys(categories.values()))
    labels = assemble((row for row, _ in rows), entries.values())
    for entry in entries.values():
        if entry.width is not None and entry.height is not None:
            labels[entry.file_name], outside = fit(
                labels[entry.file_name], entry.width, entry.height, entry.file_name
            )
            aside += outside
    return LabelFile(tuple(entries.values()), names, labels, tuple(aside), lists_images=True)


def write(path: Path, export: Export) -> None:
    """Write labels as COCO with lineage: source, annotator, at, reason, parent; ``info.label_revision``."""
    content = {
        "info": {"description": "written by emclean", "label_revision": export.label_revision},
        "images": [_image_row(i, record) for i, record in enumerate(export.images, start=1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(export.categories, start=1)],
        "annotations": [{"id": i, **row} for i, row in enumerate(_annotation_rows(export), start=1)],
    }
    partial = path.with_name(path.name + ".part")
    partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    partial.replace(path)


def _image_row(number_: int, record: ImageRecord) -> dict[str, Any]:
    row = {"id": number_, "file_name": record.name, "width": record.width, "height": record.height}
    row |= {"group": record.group, "content_id": record.image_id}
    return row if record.pixel_size_nm is None else row | {"pixel_size_nm": record.pixel_size_nm}


def _annotation_rows(export: Export) -> Iterator[dict[str, Any]]:
    for i, record in enumerate(export.images, start=1):
        labels = export.labels.get(record.image_id, Labels.empty())
        sides = boxes.to_xywh(labels.boxes)
        for k, label_id in enumerate(labels.ids):
            lineage = export.lineage.get(label_id, Lineage(annotator=labels.annotators[k]))
            yield {
                "label_id": label_id,
                "image_id": i,
                "category_id": int(labels.categories[k]) + 1,
                "bbox": [float(side) for side in sides[k]],
                "area": float(sides[k, 2] * sides[k, 3]),
                "iscrowd": 0,
                **asdict(lineage),
            }


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as cause:
        raise LabelError(f"not JSON: {cause}.", where, "Give a COCO JSON file.") from cause


def _content(text: str, where: str) -> dict[str, Any]:
    content = _json(text, where)
    if not isinstance(content, dict):
        raise LabelError("a COCO file is an object with images, categories, annotations.", where)
    return content


def _list(content: dict[str, Any], key: str, where: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        what = "is missing." if key not in content else "is not a list."
        raise LabelError(what, f"{where}: {key}", "A COCO file has images, categories, annotations.")
    return value


def read_images(rows: Iterable[Any], aside: Sink) -> dict[Key, ImageEntry]:
    """Picture by id, from the rows of ``images``; each file name and each id once."""
    found: dict[Key, ImageEntry] = {}
    names: set[str] = set()
    for i, row in enumerate(rows):
        try:
            key, entry = _image(row)
            if key in found:
                raise BadRow(f"duplicate image id {key}")
            if entry.file_name in names:
                raise BadRow(f"duplicate file_name {entry.file_name!r}")
        except BadRow as cause:
            aside(SetAside("image", f"images[{i}]", str(cause)))
            continue
        found[key] = entry
        names.add(entry.file_name)
    return found


def _image(row: Any) -> tuple[Key, ImageEntry]:
    if not isinstance(row, dict):
        raise BadRow("not an object")
    name = row.get("file_name")
    if not isinstance(name, str) or not name:
        raise BadRow("has no file_name")
    return key_of(row, "id"), ImageEntry(
        name, _side(row, "width"), _side(row, "height"), str(row.get("group") or "")
    )


def _side(row: dict[str, Any], field_: str) -> int | None:
    if row.get(field_) is None:
        return None
    value = number(row[field_], field_)
    if value < 1 or value != int(value):
        raise BadRow(f"{field_} is {value:g}, not a whole number of pixels")
    return int(value)


def key_of(row: dict[str, Any], field_: str) -> Key:
    """An id, which is a whole number or text; anything else is a bad row."""
    key = row.get(field_)
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    if isinstance(key, bool) or not isinstance(key, (int, str)):
        raise BadRow(f"has no usable {field_}")
    return key


def read_categories(rows: Iterable[Any], aside: Sink) -> dict[Key, str]:
    """Name by id, from the rows of ``categories``."""
    found: dict[Key, str] = {}
    for i, row in enumerate(rows):
        try:
            if not isinstance(row, dict) or not isinstance(row.get("name"), str) or not row["name"]:
                raise BadRow("has no name")
            key = key_of(row, "id")
            if key in found:
                raise BadRow(f"duplicate category id {key}")
            found[key] = row["name"]
        except BadRow as cause:
            aside(SetAside("label", f"categories[{i}]", str(cause)))
    return found


class RowReader:
    """Turns one raw annotation (or result, where ``scored``) into a row and its score.

    ``names`` gives the categories' order; without it, it is that of ``categories``.
    """

    def __init__(
        self,
        images: Mapping[Any, ImageEntry],
        categories: Mapping[Any, str],
        scored: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        order = tuple(names) or tuple(dict.fromkeys(categories.values()))
        self.index = {key: order.index(name) for key, name in categories.items() if name in order}
        self.scored = scored
        self._images = images

    def __call__(self, raw: Any, position: int) -> tuple[Row, float]:
        """The row at this place of the list; a bad one raises ``BadRow``."""
        if not isinstance(raw, dict):
            raise BadRow("not an object")
        image, category = key_of(raw, "image_id"), key_of(raw, "category_id")
        if image not in self._images:
            raise BadRow(f"unknown image_id {image}")
        if category not in self.index:
            raise BadRow(f"unknown category_id {category}")
        if raw.get("iscrowd") in (1, True):
            raise BadRow("iscrowd: a crowd of objects, not one")
        box = _box(raw.get("bbox"))
        score = number(raw.get("score"), "score") if self.scored else 1.0
        if not 0 <= score <= 1:
            raise BadRow(f"score is {score:g}, not from 0 to 1")
        label_id = id_of(raw, position)
        annotator = str(raw.get("annotator") or "")
        return Row(self._images[image].file_name, box, self.index[category], label_id, annotator), score


def id_of(raw: dict[str, Any], position: int) -> str:
    """The label's id; rows without one get ``row-N`` by their place in the file."""
    if raw.get("label_id") is not None:
        return str(key_of(raw, "label_id"))
    return f"row-{position}" if raw.get("id") is None else str(key_of(raw, "id"))


def _box(raw: Any) -> tuple[float, float, float, float]:
    if not isinstance(raw, list) or len(raw) != 4:
        raise BadRow("bbox is not a list of x, y, width, height")
    return corners([number(value, "bbox") for value in raw], sides=True)


def _checked(
    raw: list[Any], reader: RowReader, place: str, aside: list[SetAside]
) -> Iterator[tuple[Row, float]]:
    """The rows that can be used; each id that the file gives counts once."""
    met: set[str] = set()
    for i, item in enumerate(raw):
        try:
            row, score = reader(item, i)
            if row.label_id in met:
                raise BadRow(f"duplicate id {row.label_id}")
        except BadRow as cause:
            aside.append(bad_row(item, i, place, cause))
            continue
        if item.get("id") is not None or item.get("label_id") is not None:
            met.add(row.label_id)
        yield row, score


def bad_row(raw: Any, position: int, place: str, cause: BadRow) -> SetAside:
    """What is said of a row that cannot be used: its place in the file, its id if it has one, the reason."""
    name = f" (id {raw['id']})" if isinstance(raw, dict) and "id" in raw else ""
    return SetAside("label", f"{place}[{position}]{name[:40]}", str(cause))
