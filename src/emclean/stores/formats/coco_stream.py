"""COCO files of any size, picture by picture: all that stays in memory is where each picture's rows are.

One pass notes where in the file the rows of each picture stand; neighbouring rows of one picture are one
note, so that a file in the order of its pictures takes next to no memory and one in any order 24 bytes a row.
A picture's rows are read again when its turn comes. Bad rows are set aside as ``coco`` does.
"""

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import fsspec
import numpy as np

from emclean.boxes import from_xywh
from emclean.errors import LabelError
from emclean.stores.formats.coco import (
    Key,
    RowReader,
    Sink,
    bad_row,
    id_of,
    key_of,
    read_categories,
    read_images,
)
from emclean.stores.formats.json_stream import JsonStream
from emclean.stores.formats.rows import BadRow, ImageEntry, clipped, outside
from emclean.types import Floats, Ints, Labels, Predictions, SetAside

Raw = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Listing:
    """What a COCO file lists besides boxes: pictures and category names by their ids."""

    entries: Mapping[Key, ImageEntry]
    categories: Mapping[Key, str]

    @property
    def names(self) -> tuple[str, ...]:
        """The category names, in the order of their indices."""
        return tuple(dict.fromkeys(self.categories.values()))


class _Places:
    """Where the rows of each picture are: runs of neighbouring rows, sorted by picture after the pass."""

    def __init__(self) -> None:
        self._code: dict[Key, int] = {}
        self._image, self._count = array("i"), array("i")
        self._start, self._end, self._first = array("q"), array("q"), array("q")
        self._last = -1
        self._order: Ints = np.zeros(0, np.int64)
        self._bounds: Ints = np.zeros(1, np.int64)

    def note(self, image: Key, position: int, start: int, end: int) -> None:
        """A row of this picture at this place of the list and of the file."""
        code = self._code.setdefault(image, len(self._code))
        if code == self._last:
            self._end[-1] = end
            self._count[-1] += 1
            return
        self._last = code
        columns = (self._image, self._count, self._start, self._end, self._first)
        for column, value in zip(columns, (code, 1, start, end, position), strict=True):
            column.append(value)

    def gap(self) -> None:
        """A row that cannot be used: no run goes on over it."""
        self._last = -1

    def close(self) -> None:
        """Sort the runs by picture."""
        images = np.frombuffer(self._image, dtype=np.int32) if self._image else np.zeros(0, np.int32)
        self._order = np.argsort(images, kind="stable")
        counts = np.bincount(images, minlength=len(self._code))
        self._bounds = np.concatenate([[0], np.cumsum(counts)])

    @property
    def images(self) -> Iterable[Key]:
        """The pictures that rows name."""
        return self._code

    def runs(self, image: Key) -> Iterator[tuple[int, int, int, int]]:
        """First and last byte, place of the first row, and number of rows, of each run of a picture."""
        code = self._code.get(image)
        if code is None:
            return
        for i in self._order[self._bounds[code] : self._bounds[code + 1]]:
            yield self._start[i], self._end[i], self._first[i], self._count[i]


class _Repeats:
    """Which rows have an id that an earlier row has; ids are kept as 64-bit hashes."""

    def __init__(self) -> None:
        self._seen, self._position = array("q"), array("q")
        self.largest = 0
        self.rows = np.zeros(0, np.int64)

    def note(self, raw: Raw, position: int) -> None:
        """A row's id, if it has a usable one."""
        given = raw.get("label_id") if raw.get("label_id") is not None else raw.get("id")
        if isinstance(given, int):
            self.largest = max(self.largest, given)
        if given is not None:
            self._seen.append(hash(str(given)))
            self._position.append(position)

    def close(self) -> None:
        """Find the repeated rows and forget the hashes."""
        if self._seen:
            seen = np.frombuffer(self._seen, dtype=np.int64)
            order = np.argsort(seen, kind="stable")
            again = seen[order[1:]] == seen[order[:-1]]
            self.rows = np.sort(np.frombuffer(self._position, dtype=np.int64)[order[1:][again]])
        self._seen, self._position = array("q"), array("q")

    def __contains__(self, position: int) -> bool:
        at = int(np.searchsorted(self.rows, position))
        return at < len(self.rows) and int(self.rows[at]) == position


class Given(NamedTuple):
    """The usable labels of one picture, and each one's row as it stands in the file."""

    labels: Labels
    rows: list[Raw]


class _Columns(NamedTuple):
    """Usable rows: their numbers among those read, boxes ``[N,4]``, categories ``[N]``, scores ``[N]``."""

    kept: list[int]
    boxes: Floats
    categories: Ints
    scores: Floats


class _Stream:
    """A COCO file, open: its boxes are read picture by picture."""

    def __init__(self, path: str, listing: Listing | None, scored: bool, aside: Sink) -> None:
        self.path, self.place = str(path), "results" if scored else "annotations"
        self._file = opened(self.path)
        self._places, self.repeats = _Places(), _Repeats()
        lists = self._scan(aside, ids=not scored)
        if listing is None:
            entries = read_images(lists["images"], aside)
            self.listing = Listing(entries, read_categories(lists["categories"], aside))
        else:
            self.listing = listing
        self.reader = RowReader(self.listing.entries, self.listing.categories, scored)
        for image in self._places.images:
            if image not in self.listing.entries:
                self._unknown(image, aside)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _scan(self, aside: Sink, ids: bool) -> dict[str, list[Any]]:
        """Note where every row is; return the file's other lists that matter."""
        stream = JsonStream(self._file, self.path)
        lists: dict[str, list[Any]] = {"images": [], "categories": []}
        position = -1
        for key, value, start, end in stream.elements():
            if key in lists:
                lists[key].append(value)
            elif key in ("annotations", ""):
                position += 1
                self._note(value, position, start, end, aside)
                if ids and isinstance(value, dict):
                    self.repeats.note(value, position)
        self._places.close()
        self.repeats.close()
        self.sections, self.top = stream.sections, stream.top
        return lists

    def _note(self, raw: Any, position: int, start: int, end: int, aside: Sink) -> None:
        try:
            if not isinstance(raw, dict):
                raise BadRow("not an object")
            self._places.note(key_of(raw, "image_id"), position, start, end)
        except BadRow as cause:
            self._places.gap()
            aside(bad_row(raw, position, self.place, cause))

    def _unknown(self, image: Key, aside: Sink) -> None:
        for _, _, first, count in self._places.runs(image):
            for position in range(first, first + count):
                aside(SetAside("label", f"{self.place}[{position}]", f"unknown image_id {image}"))

    def has_rows(self, image: Key) -> bool:
        """Whether any row, good or bad, names this picture."""
        return next(self._places.runs(image), None) is not None

    def _rows(self, image: Key) -> tuple[list[Raw], list[int]]:
        """A picture's rows as they stand in the file, and their places in the list."""
        rows: list[Raw] = []
        positions: list[int] = []
        for start, end, first, count in self._places.runs(image):
            self._file.seek(start)
            rows += json.loads(b"[" + self._file.read(end - start) + b"]")
            positions += range(first, first + count)
        return rows, positions

    def _columns(self, image: Key, aside: Sink) -> tuple[_Columns, list[Raw], list[int]]:
        """The usable rows of a picture, cut at its border; the others are set aside."""
        rows, positions = self._rows(image)
        whole = None if len(self.repeats.rows) else _together(rows, self.reader)
        found = whole if whole is not None else self._one_by_one(rows, positions, aside)
        entry = self.listing.entries[image]
        if entry.width is None or entry.height is None:
            return found, rows, positions
        inside, keep = clipped(found.boxes, entry.width, entry.height)
        for i in np.flatnonzero(~keep):
            what = f"{self.place}[{positions[found.kept[i]]}] of {entry.file_name}"
            aside(SetAside("label", what, outside(found.boxes[i], entry.width, entry.height)))
        kept = [found.kept[i] for i in np.flatnonzero(keep)]
        return _Columns(kept, inside[keep], found.categories[keep], found.scores[keep]), rows, positions

    def _one_by_one(self, rows: list[Raw], positions: list[int], aside: Sink) -> _Columns:
        kept, read = [], []
        for i, (raw, position) in enumerate(zip(rows, positions, strict=True)):
            try:
                row, score = self.reader(raw, position)
                if position in self.repeats:
                    raise BadRow(f"duplicate id {row.label_id}")
            except BadRow as cause:
                aside(bad_row(raw, position, self.place, cause))
                continue
            kept.append(i)
            read.append((*row.box, row.category, score))
        table = np.array(read, dtype=np.float64).reshape(-1, 6)
        return _Columns(kept, table[:, :4], table[:, 4].astype(np.int64), table[:, 5])


class LabelStream(_Stream):
    """A COCO label file. ``listing`` has its pictures and categories, ``sections`` where its parts are."""

    def __init__(self, path: str, aside: Sink, names: Sequence[str] = ()) -> None:
        """``names`` gives the categories' order; labels of any other category are set aside."""
        super().__init__(path, None, False, aside)
        for part in ("images", "categories"):
            if part not in self.sections:
                raise LabelError("is missing.", f"{path}: {part}", "A COCO file has images and categories.")
        for part, found in (("image", self.listing.entries), ("category", self.listing.categories)):
            if not found:
                raise LabelError(f"holds no usable {part}.", str(path), "Give a COCO label file.")
        if names:
            self.reader = RowReader(self.listing.entries, self.listing.categories, names=names)

    def read(self, image: Key, aside: Sink) -> Given:
        """The labels of one picture; what cannot be used is told to ``aside``."""
        found, rows, positions = self._columns(image, aside)
        own = [rows[i] for i in found.kept]
        ids = tuple(id_of(raw, positions[i]) for raw, i in zip(own, found.kept, strict=True))
        annotators = tuple(str(raw.get("annotator") or "") for raw in own)
        return Given(Labels(found.boxes, found.categories, ids, annotators), own)

    def part(self, key: str) -> bytes:
        """A top-level part of the file as it stands there."""
        start, end = self.sections[key]
        self._file.seek(start)
        return self._file.read(end - start)


class ResultStream(_Stream):
    """A COCO results list, with the ids of a label file's listing."""

    def __init__(self, path: str, listing: Listing, aside: Sink) -> None:
        super().__init__(path, listing, True, aside)
        if self.top != "[" and "annotations" not in self.sections:
            raise LabelError("a results file is a list of detections.", str(path), "Give a JSON list.")

    def read(self, image: Key, aside: Sink) -> Predictions:
        """The predictions for one picture; what cannot be used is told to ``aside``."""
        found, _, _ = self._columns(image, aside)
        return Predictions(found.boxes, found.categories, found.scores)


def _together(rows: list[Raw], reader: RowReader) -> _Columns | None:
    """All rows at once, or None where any of them needs a closer look; some fifty times as fast."""
    try:
        table = np.array([raw["bbox"] for raw in rows]).reshape(-1, 4)
        categories = np.array([reader.index[raw["category_id"]] for raw in rows], dtype=np.int64)
        scores = np.array([raw["score"] for raw in rows]) if reader.scored else np.ones(len(rows))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    if not rows:
        return _Columns([], np.zeros((0, 4)), categories, np.zeros(0))
    if table.dtype.kind not in "if" or scores.dtype.kind not in "if" or len(table) != len(rows):
        return None
    with np.errstate(over="ignore"):  # an infinite corner is found below
        boxes = from_xywh(table)
    usable = np.isfinite(boxes).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    usable = usable and ((scores >= 0) & (scores <= 1)).all()
    if not usable or any(raw.get("iscrowd") for raw in rows):
        return None
    if not all(_plain_ids(raw) for raw in rows):
        return None
    return _Columns(list(range(len(rows))), boxes, categories, scores.astype(np.float64))


def _plain_ids(raw: Raw) -> bool:
    """Whether a row's ids are whole numbers or text, and none of them true or false."""
    return (
        raw["category_id"].__class__ in (int, str, float)
        and raw.get("id").__class__ in (int, str, type(None))
        and raw.get("label_id").__class__ in (int, str, type(None))
    )


def opened(path: str) -> BinaryIO:
    """A local path or fsspec URI, open for reading at any place."""
    try:
        file = fsspec.open(str(path), "rb").open()
        file.seek(0)
    except (OSError, ValueError, ImportError) as cause:
        raise LabelError(
            f"cannot be opened: {cause}.", str(path), "Check the path and the rights."
        ) from cause
    return file  # type: ignore[no-any-return]
