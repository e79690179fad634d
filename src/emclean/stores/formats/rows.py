"""What all label formats share: one row's checks, and rows put together as ``Labels``."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import fsspec
import numpy as np

from emclean import boxes
from emclean.errors import LabelError
from emclean.types import Bools, Floats, Labels, SetAside

THINNEST = 0.5
"""A box of which less than this many px lie within the picture is taken to lie outside."""

SHOWN = 3
"""How many of the things set aside a message names."""


@dataclass(frozen=True)
class ImageEntry:
    """What a label file says of one picture; width and height are None where it says nothing."""

    file_name: str
    width: int | None = None
    height: int | None = None
    group: str = ""


@dataclass(frozen=True)
class Row:
    """One label that passed the checks that need no picture: corners in px, index of the category."""

    image: str
    box: tuple[float, float, float, float]
    category: int
    label_id: str
    annotator: str = ""


@dataclass(frozen=True, eq=False)
class LabelFile:
    """A label file as read: pictures, category names, the labels by file name, and what was set aside.

    ``lists_images`` tells that ``images`` are all pictures meant (COCO), not only those with labels.
    """

    images: tuple[ImageEntry, ...]
    categories: tuple[str, ...]
    labels: Mapping[str, Labels]
    set_aside: tuple[SetAside, ...] = ()
    lists_images: bool = False

    def with_categories(self, categories: Sequence[str]) -> "LabelFile":
        """The same with the categories in this order; labels of any other category are set aside."""
        index = {name: i for i, name in enumerate(categories)}
        order = np.array([index.get(name, -1) for name in self.categories], dtype=np.int64)
        labels, aside = {}, list(self.set_aside)
        for image, found in self.labels.items():
            moved = order[found.categories] if len(found) else found.categories
            for i in np.flatnonzero(moved < 0):
                unknown = self.categories[found.categories[i]]
                aside.append(
                    SetAside("label", f"{image}: label {found.ids[i]}", f"unknown category {unknown!r}")
                )
            kept = found.take(moved >= 0)
            labels[image] = Labels(kept.boxes, moved[moved >= 0], kept.ids, kept.annotators)
        return replace(self, categories=tuple(categories), labels=labels, set_aside=tuple(aside))


class BadRow(ValueError):
    """Why one row cannot be used; caught by the reader, which sets the row aside."""


def first_reasons(aside: Sequence[SetAside], kind: str = "image") -> str:
    """A sentence, with a blank before it, on the first of a kind set aside; empty when there are none."""
    reasons = [f"{item.item}: {item.reason}" for item in aside if item.kind == kind]
    first = "; ".join(reason.rstrip(".") for reason in reasons[:SHOWN])
    return f" First of {len(reasons)} set aside: {first}." if reasons else ""


def fetch(path: str) -> str:
    """The text of a local path or fsspec URI."""
    try:
        with fsspec.open(str(path), "rb") as file:
            data: bytes = file.read()
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise LabelError("not a text file in UTF-8.", str(path), "Give COCO JSON or CSV.") from cause
    except (OSError, ValueError, ImportError) as cause:
        raise LabelError(
            f"cannot be opened: {cause}.", str(path), "Check the path and the rights."
        ) from cause


def plain(name: str) -> str:
    """A picture's name in a label file as a folder's listing has it: slashes, and no dot before them."""
    return name.replace("\\", "/").removeprefix("./")


def number(value: Any, field: str) -> float:
    """A finite number, from a number or its text; anything else is a bad row."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadRow(f"{field} is not a number: {_short(value)}")
    try:
        result = float(value)
    except (ValueError, OverflowError):
        raise BadRow(f"{field} is not a number: {_short(value)}") from None
    if not math.isfinite(result):
        raise BadRow(f"{field} is {result}, not a finite number")
    return result


def corners(values: Sequence[float], sides: bool) -> tuple[float, float, float, float]:
    """Checked corners from four numbers: ``x, y, width, height`` where ``sides``, else ``x1, y1, x2, y2``."""
    x1, y1, x2, y2 = values
    width, height = (x2, y2) if sides else (x2 - x1, y2 - y1)
    if width < 0 or height < 0:
        raise BadRow(f"box has a negative side ({width:g} x {height:g})")
    right, bottom = (x1 + width, y1 + height) if sides else (x2, y2)
    if not (right > x1 and bottom > y1 and math.isfinite(right) and math.isfinite(bottom)):
        raise BadRow(f"box has no area ({width:g} x {height:g})")
    return x1, y1, right, bottom


def assemble(rows: Iterable[Row], images: Iterable[ImageEntry]) -> dict[str, Labels]:
    """The labels of every picture, by file name; pictures without rows get empty labels."""
    by_image: dict[str, list[Row]] = {entry.file_name: [] for entry in images}
    for row in rows:
        by_image[row.image].append(row)
    return {image: _labels(own) for image, own in by_image.items()}


def _labels(rows: list[Row]) -> Labels:
    return Labels(
        np.array([row.box for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row.category for row in rows], dtype=np.int64),
        tuple(row.label_id for row in rows),
        tuple(row.annotator for row in rows),
    )


def fit(labels: Labels, width: int, height: int, image: str) -> tuple[Labels, tuple[SetAside, ...]]:
    """Clip boxes at the picture's border; those that lie outside are set aside."""
    inside, keep = clipped(labels.boxes, width, height)
    aside = tuple(
        SetAside("label", f"{image}: label {labels.ids[i]}", outside(labels.boxes[i], width, height))
        for i in np.flatnonzero(~keep)
    )
    kept = labels.take(keep)
    return Labels(inside[keep], kept.categories, kept.ids, kept.annotators), aside


def clipped(corners_: Floats, width: int, height: int) -> tuple[Floats, Bools]:
    """Boxes ``[N,4]`` cut at the picture's border, and which of them lie in the picture at all."""
    inside = boxes.clip(corners_, width, height)
    sides = inside[:, 2:] - inside[:, :2]
    keep = (sides >= np.minimum(THINNEST, corners_[:, 2:] - corners_[:, :2])).all(axis=1)
    return inside, np.asarray(keep & (sides > 0).all(axis=1))


def outside(box: Any, width: int, height: int) -> str:
    """Why a box that lies outside cannot be used."""
    place = ", ".join(f"{side:g}" for side in box)
    return f"box ({place}) lies outside the picture of {width} x {height} px"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
