"""Ingest: a folder of pictures and label files in, checked records and labels out, grey copies in the cache.

Nothing that is wrong with one picture or label stops the job: it is set aside with its reason. Pictures are
read one by one, so memory stays flat; a second ingest of unchanged files reads none of them.
"""

import json
import os
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
import numpy as np

from emclean.errors import DataError, ImageError
from emclean.imaging import readers
from emclean.stores.formats import ImageEntry, LabelFile, read_labels
from emclean.stores.formats.rows import first_reasons, fit, plain
from emclean.types import ImageRecord, Labels, SetAside

NOT_PICTURES = frozenset(".json .csv .tsv .txt .md .xml .yaml .yml .html .pdf .zip .db .npy".split())
"""Files with these endings lie beside pictures by habit; they are passed over without a word."""

READERS = 2
"""Threads that read at the same time: decoders release Python's lock; more would hold more in memory."""

INDEX = "index.json"
"""The cache's index: what was read from a path of a certain size and time."""

TIMES = ("mtime", "LastModified", "last_modified", "updated", "ETag")
"""What file systems call the time of change, or what else changes with the content."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Ingested:
    """What ingest found: pictures, their labels by image id (every picture has an entry), categories.

    ``unlabelled`` are the ids of pictures that no label file speaks of; ``unlisted`` the names of files in
    the folder that are not read: a COCO file's own list, or a truth file, leaves them out.
    """

    records: tuple[ImageRecord, ...]
    labels: Mapping[str, Labels]
    categories: tuple[str, ...]
    set_aside: tuple[SetAside, ...]
    unlabelled: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()


@dataclass(frozen=True)
class PictureFile:
    """One file in a folder: its name there, its address, and what changes when it does."""

    name: str
    uri: str
    stamp: str


@dataclass(frozen=True)
class _Read:
    """What is known of a file after reading it: the record, or why there is none."""

    record: ImageRecord | None = None
    notes: tuple[str, ...] = ()
    fault: str = ""


def pixels_path(cache: Path, image_id: str) -> Path:
    """Where the cache keeps a picture's grey copy (uint8 ``.npy`` that can be memory-mapped)."""
    return cache / f"{image_id}.npy"


def ingest(
    images: str,
    labels: str | Sequence[str],
    cache: Path,
    categories: Sequence[str] = (),
    progress: Progress | None = None,
) -> Ingested:
    """Read a folder's pictures and their label files (COCO or CSV; none is allowed).

    ``categories`` fixes the categories' order, as a test set needs that of its pool; ``progress`` is told how
    many of how many pictures are done.
    """
    paths = [labels] if isinstance(labels, str) else list(labels)
    file = _combined([read_labels(str(path), categories) for path in paths], paths)
    return _ingested(images, file, cache, progress)


def ingest_truth(
    images: str,
    truth: str,
    cache: Path,
    categories: Sequence[str] = (),
    progress: Progress | None = None,
    *,
    among: Collection[str] | None = None,
) -> Ingested:
    """Read the pictures of a folder that a truth file names, and no other: of those it says nothing.

    With ``among`` only the pictures with these names are read. The rest is as for :func:`ingest`.
    """
    file = replace(read_labels(str(truth), categories), lists_images=True)
    try:
        return _ingested(images, file, cache, progress, among)
    except DataError as cause:
        raise DataError(cause.what, cause.where, f"Check the folder and {truth}.") from cause


def _ingested(
    images: str,
    file: LabelFile,
    cache: Path,
    progress: Progress | None,
    among: Collection[str] | None = None,
) -> Ingested:
    cache.mkdir(parents=True, exist_ok=True)
    found = listing(images)
    entries, absent = _match(file, found)
    if among is not None:
        found = [one for one in found if one.name in among]
    wanted = [one for one in found if one.name in entries] if file.lists_images else found
    ordered = sorted(wanted, key=lambda one: (one.name not in entries, one.name))
    outcome = _Outcome(list(file.set_aside) + absent)
    for one, read in zip(ordered, _read_all(ordered, cache, progress), strict=True):
        outcome.add(one, read, entries.get(one.name), file)
    if not outcome.records:
        what = _nothing(len(found), len(wanted), outcome.set_aside)
        raise DataError(what, images, "Check the folder and the label file.")
    unlisted = tuple(sorted({one.name for one in found} - {one.name for one in wanted}))
    return outcome.result(file.categories, unlisted)


def _nothing(found: int, named: int, aside: Sequence[SetAside]) -> str:
    if not found:
        return "the folder holds no pictures."
    what = "can be used" if named else "is named in the label file"
    return f"none of {found} files {what}.{first_reasons(aside)}"


class _Outcome:
    """Gathers records, labels and what is set aside, picture by picture."""

    def __init__(self, set_aside: list[SetAside]) -> None:
        self.records: dict[str, ImageRecord] = {}
        self.labels: dict[str, Labels] = {}
        self.set_aside = set_aside
        self.unlabelled: list[str] = []

    def add(self, one: PictureFile, read: _Read, entry: ImageEntry | None, file: LabelFile) -> None:
        """Take in one picture with its labels, or set it aside."""
        record = read.record
        fault = read.fault or (_clash(record, entry, self.records) if record else "")
        if record is None or fault:
            lost = len(file.labels[entry.file_name]) if entry else 0
            more = f"; its {lost} labels are not used" if lost else ""
            self.set_aside.append(SetAside("image", one.name, f"{fault}{more}"))
            return
        self.set_aside += [SetAside("image", f"{one.name} (in part)", note) for note in read.notes]
        record = replace(record, name=one.name, uri=one.uri, group=entry.group if entry else "")
        own = file.labels[entry.file_name] if entry else Labels.empty()
        kept, outside = fit(own, record.width, record.height, one.name)
        self.set_aside += outside
        self.records[record.image_id], self.labels[record.image_id] = record, kept
        if entry is None:
            self.unlabelled.append(record.image_id)

    def result(self, categories: tuple[str, ...], unlisted: tuple[str, ...]) -> Ingested:
        """Everything, pictures in the order of their names."""
        records = tuple(sorted(self.records.values(), key=lambda record: record.name))
        aside, unlabelled = tuple(self.set_aside), tuple(self.unlabelled)
        return Ingested(records, self.labels, categories, aside, unlabelled, unlisted)


def _clash(record: ImageRecord, entry: ImageEntry | None, before: Mapping[str, ImageRecord]) -> str:
    if record.image_id in before:
        return f"duplicate: same content as {before[record.image_id].name}"
    if entry is None or entry.width is None or entry.height is None:
        return ""
    if (entry.width, entry.height) == (record.width, record.height):
        return ""
    said, true = f"{entry.width} x {entry.height}", f"{record.width} x {record.height}"
    return f"the label file says {said} px, the picture has {true}"


def _combined(files: Sequence[LabelFile], paths: Sequence[str]) -> LabelFile:
    """Several label files as one: rows added up, categories by name, ids and annotators by file."""
    if len(files) == 1:
        return files[0]
    names = tuple(dict.fromkeys(name for file in files for name in file.categories))
    entries: dict[str, ImageEntry] = {}
    labels: dict[str, Labels] = {}
    aside: list[SetAside] = []
    for file, path in zip(files, paths, strict=True):
        who = PurePosixPath(str(path)).stem
        moved = file.with_categories(names)
        aside += moved.set_aside
        for entry in moved.images:
            entries.setdefault(entry.file_name, entry)
            labels[entry.file_name] = _added(labels.get(entry.file_name), moved.labels[entry.file_name], who)
    listed = bool(files) and all(file.lists_images for file in files)
    return LabelFile(tuple(entries.values()), names, labels, tuple(aside), listed)


def _added(before: Labels | None, more: Labels, who: str) -> Labels:
    before = before or Labels.empty()
    return Labels(
        np.concatenate([before.boxes, more.boxes]),
        np.concatenate([before.categories, more.categories]),
        before.ids + tuple(f"{who}/{label_id}" for label_id in more.ids),
        before.annotators + tuple(annotator or who for annotator in more.annotators),
    )


def listing(images: str) -> list[PictureFile]:
    """Every file under the folder that may be a picture, by name."""
    try:
        fs, root = fsspec.core.url_to_fs(str(images))
        listed = fs.find(root, detail=True)
    except (OSError, ValueError, ImportError) as cause:
        raise DataError(f"the folder cannot be listed: {cause}.", str(images), "Check the path.") from cause
    if not listed and not fs.exists(root):
        raise DataError("there is no such folder.", str(images), "Check the path.")
    local = "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))
    files = []
    for path, info in sorted(listed.items()):
        name = os.path.relpath(path, root) if path != root else PurePosixPath(path).name
        hidden = any(part.startswith(".") for part in PurePosixPath(name).parts)
        if not hidden and PurePosixPath(name).suffix.lower() not in NOT_PICTURES:
            uri = path if local else fs.unstrip_protocol(path)
            files.append(PictureFile(name.replace(os.sep, "/"), uri, _stamp(info)))
    return files


def _stamp(info: Mapping[str, Any]) -> str:
    """Size and time of change, by whatever name the file system gives them; empty when it gives no time."""
    times = [info[key] for key in TIMES if info.get(key)]
    return f"{info.get('size')} {times[0]}" if times else ""


def _match(file: LabelFile, found: Sequence[PictureFile]) -> tuple[dict[str, ImageEntry], list[SetAside]]:
    """Which label entry belongs to which file in the folder, and the entries that belong to none."""
    names = {one.name for one in found}
    tails: dict[str, list[str]] = {}
    for name in names:
        tails.setdefault(PurePosixPath(name).name, []).append(name)
    entries: dict[str, ImageEntry] = {}
    absent = []
    # a name as it stands goes before one that fits with other slashes, or by its last part alone
    by_fit = sorted(file.images, key=lambda e: (e.file_name not in names, plain(e.file_name) not in names))
    for entry in by_fit:
        place = _place(entry.file_name, names, tails)
        if place and place not in entries:
            entries[place] = entry
            continue
        why = f"is {place} again" if place else "the label file names it, the folder does not hold it"
        lost = len(file.labels[entry.file_name])
        absent.append(SetAside("image", entry.file_name, f"{why} ({lost} labels not used)"))
    return entries, absent


def _place(asked: str, names: set[str], tails: Mapping[str, list[str]]) -> str | None:
    """A file by its name in the folder, else by the last part of its name if only one file has that."""
    asked = plain(asked)
    if asked in names:
        return asked
    alike = tails.get(PurePosixPath(asked).name, [])
    return alike[0] if len(alike) == 1 else None


def _read_all(files: Sequence[PictureFile], cache: Path, progress: Progress | None) -> Iterator[_Read]:
    """What each file holds, in their order; unchanged files come from the index."""
    index = _load_index(cache)
    with ThreadPoolExecutor(READERS) as pool:
        reads = pool.map(lambda one: _known(one, cache, index) or _read(one, cache), files)
        for done, (one, read) in enumerate(zip(files, reads, strict=True), start=1):
            if read.record is not None and one.stamp:
                index[one.uri] = [one.stamp, *_as_row(read)]
            if progress is not None:
                progress(done, len(files))
            yield read
    _replace(cache / INDEX, json.dumps(index).encode())


def _read(one: PictureFile, cache: Path) -> _Read:
    """Read one file and keep its grey copy."""
    try:
        data = readers.read_bytes(one.uri)
        picture = readers.read(data, one.name)
    except ImageError as cause:
        return _Read(fault=cause.what.rstrip("."))
    image_id = readers.image_id(data)
    height, width = picture.pixels.shape
    target = pixels_path(cache, image_id)
    if not target.exists():
        _save(target, readers.to_grey8(picture.pixels))
    record = ImageRecord(image_id, one.uri, one.name, width, height, picture.bit_depth, picture.pixel_size_nm)
    return _Read(record, picture.notes)


def _known(one: PictureFile, cache: Path, index: Mapping[str, list[Any]]) -> _Read | None:
    """What the index says of an unchanged file whose grey copy is there."""
    row = index.get(one.uri)
    if not one.stamp or row is None or row[0] != one.stamp or not pixels_path(cache, row[1]).exists():
        return None
    _, image_id, width, height, depth, size, notes = row
    return _Read(ImageRecord(image_id, one.uri, one.name, width, height, depth, size), tuple(notes))


def _as_row(read: _Read) -> list[Any]:
    record = read.record
    assert record is not None
    size = record.pixel_size_nm
    return [record.image_id, record.width, record.height, record.bit_depth, size, list(read.notes)]


def _load_index(cache: Path) -> dict[str, list[Any]]:
    """The index, or an empty one where it is absent or damaged: it only saves time."""
    try:
        content = json.loads((cache / INDEX).read_bytes())
    except (OSError, ValueError):
        return {}
    rows = content.items() if isinstance(content, dict) else ()
    return {uri: row for uri, row in rows if isinstance(row, list) and len(row) == 7}


def _save(target: Path, pixels: Any) -> None:
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file:
        np.save(file, pixels)
    os.replace(file.name, target)


def _replace(target: Path, content: bytes) -> None:
    """Write a file at once: a killed job leaves the old one or the new one."""
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file:
        file.write(content)
    os.replace(file.name, target)
