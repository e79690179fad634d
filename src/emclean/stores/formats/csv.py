"""CSV with one box a row: ``image,x1,y1,x2,y2,category`` or ``image,x,y,width,height,category``, in pixels.

``annotator`` and ``id`` are optional columns; comma, semicolon or tab separate. Where no comma separates,
numbers may have a decimal comma. A row with a picture and nothing else says that the picture holds no object.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from emclean.errors import LabelError
from emclean.stores.formats.rows import (
    BadRow,
    ImageEntry,
    LabelFile,
    Row,
    assemble,
    corners,
    fetch,
    first_reasons,
    number,
)
from emclean.types import Labels, SetAside

CORNERS, SIDES = ("x1", "y1", "x2", "y2"), ("x", "y", "width", "height")
_Item = dict[str, str]

COLUMNS = ("image", *CORNERS, "category", "annotator", "id")


@dataclass(frozen=True)
class _Form:
    """How a file writes boxes: with their ``sides`` or corners, with a ``decimal_comma`` or not."""

    sides: bool
    decimal_comma: bool

    def box(self, item: _Item) -> tuple[float, float, float, float]:
        """The row's checked corners."""
        values = [self._number(item.get(name, ""), name) for name in (SIDES if self.sides else CORNERS)]
        return corners(values, self.sides)

    def _number(self, cell: str, name: str) -> float:
        try:
            return number(cell.replace(",", ".") if self.decimal_comma else cell, name)
        except BadRow:
            return number(cell, name)  # whose reason shows the cell as it stands in the file


def read(path: str) -> LabelFile:
    """Read a CSV file; a bad row is set aside.

    ``LabelError``: the file lacks the columns, or holds rows of which none can be used.
    """
    return parse(fetch(path), str(path))


def parse(text: str, where: str) -> LabelFile:
    """Read a CSV file's text; ``where`` names it in messages."""
    delimiter = delimiter_of(text)
    lines = csv.reader(StringIO(text, newline=None), delimiter=delimiter)
    header = [name.strip().lower() for name in next(lines, [])]
    form = _Form(_has_sides(header, where), delimiter != ",")
    aside: list[SetAside] = []
    found: list[tuple[Row, str]] = []
    images: dict[str, ImageEntry] = {}
    for line, item in numbered(lines, header, aside):
        try:
            image = item.get("image", "")
            if not image:
                raise BadRow("has no image")
            if any(item.get(name) for name in header if name != "image"):
                found.append(_row(item, line, form))
            # a bad row names no picture: its cells may stand in the wrong columns
            images.setdefault(image, ImageEntry(image))
        except BadRow as cause:
            aside.append(SetAside("label", f"line {line}", str(cause)))
    kept = list(_once(found, aside))
    names = tuple(sorted({name for _, name in kept}))
    if aside and not names:
        what = f"holds no usable label.{first_reasons(aside, 'label')}"
        raise LabelError(what, where, "Mend these rows.")
    rows = (Row(r.image, r.box, names.index(name), r.label_id, r.annotator) for r, name in kept)
    return LabelFile(tuple(images.values()), names, assemble(rows, images.values()), tuple(aside))


def write(path: Path, labels: Mapping[str, Labels], categories: tuple[str, ...]) -> None:
    """Write labels by file name: corners, category, annotator, id; pictures without labels get a row too."""
    partial = path.with_name(path.name + ".part")
    with partial.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(COLUMNS)
        for image, own in labels.items():
            for box, category, who, label_id in zip(
                own.boxes, own.categories, own.annotators, own.ids, strict=True
            ):
                out.writerow(
                    [image, *(repr(float(side)) for side in box), categories[category], who, label_id]
                )
            if not len(own):
                out.writerow([image, *[""] * (len(COLUMNS) - 1)])
    partial.replace(path)


def delimiter_of(text: str) -> str:
    """What separates the columns of a CSV text, by its first line."""
    first = text.split("\n", 1)[0]
    return max(",;\t", key=first.count)


def _has_sides(header: list[str], where: str) -> bool:
    """Whether boxes are given as sides; refuse a header without the columns."""
    for columns in (CORNERS, SIDES):
        if set(header) >= {"image", "category", *columns}:
            return columns == SIDES
    missing = [name for name in ("image", *CORNERS, "category") if name not in header]
    what = f"not COCO JSON, and as CSV its first line lacks the column(s) {', '.join(missing)}."
    fix = "Write a header with image, category and either x1, y1, x2, y2 or x, y, width, height."
    raise LabelError(what, where, fix)


def numbered(
    lines: Iterator[list[str]], header: list[str], aside: list[SetAside]
) -> Iterator[tuple[int, _Item]]:
    """Numbered rows by column name; a line that is no CSV is set aside."""
    line = 1
    while True:
        line += 1
        try:
            cells = next(lines)
        except StopIteration:
            return
        except csv.Error as cause:
            aside.append(SetAside("label", f"line {line}", str(cause)))
            continue
        surplus = [cell.strip() for cell in cells[len(header) :] if cell.strip()]
        if surplus:
            reason = (
                f"more cells than the {len(header)} columns of the first line: {', '.join(surplus)[:40]!r}"
            )
            aside.append(SetAside("label", f"line {line}", reason))
        elif cells:
            yield line, {name: cell.strip() for name, cell in zip(header, cells, strict=False)}


def _row(item: _Item, line: int, form: _Form) -> tuple[Row, str]:
    box = form.box(item)
    category = item.get("category", "")
    if not category:
        raise BadRow("has no category")
    return Row(item["image"], box, 0, item.get("id") or f"line-{line}", item.get("annotator", "")), category


def _once(found: list[tuple[Row, str]], aside: list[SetAside]) -> Iterator[tuple[Row, str]]:
    met: set[str] = set()
    for row, name in found:
        if row.label_id in met:
            aside.append(
                SetAside("label", f"{row.image}: label {row.label_id}", f"duplicate id {row.label_id}")
            )
            continue
        met.add(row.label_id)
        yield row, name
