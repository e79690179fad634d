"""Sets of labelled pictures: a label file and its pictures become one array on disk, and aligned labels.

A set in which every picture's mirror image is of the other class (``mirror``) holds the mirror images as
rows of their own. What cannot be used is set aside with its file, line and field, and counted.
"""

import hashlib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from emclean.errors import DataError, ImageError
from emclean.imaging import readers
from emclean.imaging.sheets import Pixels8, Sheet, fitted, read8
from emclean.science.classes.votes import ABSENT
from emclean.stores.formats import classes as class_files
from emclean.stores.formats.classes import ClassFile, ClassRow, Columns
from emclean.stores.formats.rows import first_reasons
from emclean.types import Bools, Ints, SetAside

READERS = 2
"""Threads that read at the same time: decoders release Python's lock."""

AS_GIVEN, MIRRORED = "as given", "mirrored"
"""The classes of a one-handed set whose label file names none."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Source:
    """Where a set lies: a folder (or URI) of pictures, or one sheet of tiles of ``tile`` px; and its labels.

    ``only``, where given, are the classes to take; rows of another are dropped.
    """

    images: str
    labels: str
    tile: int | None = None
    columns: Columns = field(default_factory=Columns)
    only: tuple[str, ...] = ()


@dataclass(frozen=True)
class Form:
    """What all pictures become: of ``sides`` (height, width; None: those of the first), grey or in colour,
    mirrored."""

    sides: tuple[int, int] | None = None
    colour: bool = False
    mirror: bool = False


@dataclass(frozen=True, eq=False)
class ClassSet:
    """A set of ``n`` labelled pictures, as aligned arrays.

    ``pictures`` is the path of one uint8 ``.npy`` file ``[N,H,W]`` or ``[N,H,W,3]``, ``digest`` that of its
    content; ``rows [n]`` index it, ``labels [n]`` are indices into ``classes``, ``pairs [n]`` number the
    particle (a picture and its mirror image share it), ``groups [n]`` what no split may part, ``votes [n,L]``
    what further labellers say (``ABSENT``: no class of the set), ``ids`` the content of each picture,
    ``names`` what the label file calls it (a picture and its mirror image alike).
    """

    pictures: str
    digest: str
    classes: tuple[str, ...]
    rows: Ints
    labels: Ints
    pairs: Ints
    groups: Ints
    votes: Ints
    ids: tuple[str, ...]
    mirrored: bool = False
    set_aside: tuple[SetAside, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, keep: Bools | Ints) -> "ClassSet":
        """The same set with some of its pictures, by mask or positions."""
        texts = {name: getattr(self, name) for name in ("ids", "names")}
        names = ("rows", "labels", "pairs", "groups", "votes")
        kept: dict[str, Any] = {name: getattr(self, name)[keep] for name in names}
        kept |= {name: tuple(np.array(given, dtype=object)[keep]) for name, given in texts.items() if given}
        return replace(self, **kept)

    def facts(self) -> str:
        """A digest of everything that decides what is learnt from the set, but for the votes."""
        named = f"{self.digest}\n{self.classes}\n{self.mirrored}"
        return _digest(named, self.rows, self.labels, self.pairs, self.groups)

    def said(self) -> str:
        """A digest of the votes."""
        return _digest("votes", self.votes)

    def all_votes(self) -> Ints:
        """What each labeller says of every picture ``[n,L]``, the labels themselves first."""
        return np.concatenate([self.labels[:, None], self.votes], axis=1)

    def open(self) -> Pixels8:
        """All pictures, mapped into memory."""
        return np.asarray(np.load(self.pictures, mmap_mode="r", allow_pickle=False))


def _digest(text: str, *arrays: Ints) -> str:
    sha = hashlib.sha256(text.encode())
    for array in arrays:
        sha.update(f"{array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()[:16]


def load(
    source: Source,
    form: Form,
    home: Path,
    classes: Sequence[str] = (),
    progress: Progress | None = None,
) -> ClassSet:
    """Read a set; its pictures go to ``home`` under their content's name.

    ``classes`` fixes the classes, as a test set needs those of its training set.
    """
    file = class_files.read(source.labels, source.columns)
    known, dropped = _of_classes(file, source, classes)
    names = tuple(classes) or _names(known, form.mirror, source)
    written = _write(known, _reader(source, form.colour), form, home, progress)
    aside = [*file.set_aside, *dropped, *written.set_aside]
    if not written.rows:
        what = f"no picture of these labels can be used.{first_reasons(aside)}"
        raise DataError(what, source.images, f"Check the folder and {source.labels}.")
    located = tuple(_located(item, source.labels) for item in aside)
    found = _aligned(written, names, form.mirror, source)
    return replace(found, set_aside=(*located, *found.set_aside))


def _located(item: SetAside, labels: str) -> SetAside:
    """The same with its file before the line."""
    return replace(item, item=f"{labels} {item.item}") if item.item.startswith("line ") else item


def _of_classes(
    file: ClassFile, source: Source, classes: Sequence[str]
) -> tuple[list[ClassRow], list[SetAside]]:
    """The rows of the wanted classes, and how many others were dropped."""
    wanted = set(source.only or classes)
    if not wanted or not any(row.label for row in file.rows):
        return list(file.rows), []
    other = Counter(row.label for row in file.rows if row.label not in wanted)
    if not other:
        return list(file.rows), []
    words = ", ".join(f"{name!r} ({count})" for name, count in other.most_common(5))
    reason = f"{sum(other.values())} rows whose label is not among {', '.join(sorted(wanted))}: {words}"
    kept = [row for row in file.rows if row.label in wanted]
    if not kept:
        raise DataError(f"no row is of a wanted class; {reason}.", source.labels, "Check the classes.")
    return kept, [SetAside("label", source.labels, reason)]


def _names(rows: Sequence[ClassRow], mirror: bool, source: Source) -> tuple[str, ...]:
    """The classes, sorted; of a one-handed set the given one and its mirror image."""
    names = tuple(sorted({row.label for row in rows}))
    if mirror and len(source.only) == 2:
        return tuple(sorted(source.only))
    if mirror and len(names) == 1:
        return (names[0], f"{MIRRORED} {names[0]}") if names[0] else (AS_GIVEN, MIRRORED)
    if len(names) < 2 or (mirror and len(names) > 2):
        what = f"has {len(names)} class(es): {', '.join(names[:10])}."
        fix = "With mirror choose one or two." if mirror else "Give two or more, or mirror for one hand."
        raise DataError(what, source.labels, fix)
    return names


Load = Callable[[ClassRow], Pixels8]


def _reader(source: Source, colour: bool) -> Load:
    """How the picture of a row is read."""
    if source.tile is None and Path(source.images).is_file():
        fix = "For a sheet give the side of its tiles (tile), else a folder of pictures."
        raise DataError("is a file.", source.images, fix)
    if source.tile is None:
        return partial(_from_folder, source.images.rstrip("/"), colour)
    pixels = read8(readers.read_bytes(source.images), source.images, colour)
    sheet = Sheet(pixels, source.tile, source.images)
    return lambda row: sheet.tile(row.image)


def _from_folder(folder: str, colour: bool, row: ClassRow) -> Pixels8:
    return read8(readers.read_bytes(f"{folder}/{row.image}"), row.image, colour)


@dataclass(frozen=True, eq=False)
class _Written:
    """The array on disk, and the rows whose pictures are its first, in order."""

    file: Path
    digest: str
    rows: list[ClassRow]
    ids: list[str]
    set_aside: list[SetAside]


def _write(
    rows: Sequence[ClassRow], load_: Load, form: Form, home: Path, progress: Progress | None
) -> _Written:
    """Write all pictures that can be read into one array, named by its content.

    With ``mirror`` the mirror image of each follows after all of them, in the same order.
    """
    kept: list[ClassRow] = []
    met: dict[str, ClassRow] = {}
    aside: list[SetAside] = []
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=home) as raw:
        shape: tuple[int, ...] = ()
        for row, read in _reads(rows, load_, progress):
            if isinstance(read, str):
                aside.append(SetAside("image", f"line {row.line}", f"{row.image}: {read}"))
                continue
            pixels = fitted(read, *(shape[:2] or form.sides or read.shape[:2]))
            shape, name = pixels.shape, _particle(pixels) if form.mirror else _id(pixels)
            if name in met:
                same = (
                    "the same picture as, or the mirror image of," if form.mirror else "the same picture as"
                )
                twice = f"{row.image}: {same} {met[name].image!r} in line {met[name].line}"
                aside.append(SetAside("image", f"line {row.line}", twice))
                continue
            met[name] = row
            kept.append(row)
            raw.write(np.ascontiguousarray(pixels).tobytes())
        if not kept:
            return _Written(home, "", [], [], aside)
        file, digest = _assembled(raw, (len(kept), *shape), form.mirror, home)
    return _Written(file, digest, kept, list(met), aside)


def _id(pixels: Pixels8) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()[:16]


def _particle(pixels: Pixels8) -> str:
    """The same for a picture and its mirror image."""
    return min(_id(pixels), _id(pixels[:, ::-1]))


def _reads(
    rows: Sequence[ClassRow], load_: Load, progress: Progress | None
) -> Iterator[tuple[ClassRow, Pixels8 | str]]:
    """Each row with its pixels, or why there are none; few pictures are in memory at a time."""
    block = 256
    with ThreadPoolExecutor(READERS) as pool:
        for first in range(0, len(rows), block):
            some = rows[first : first + block]
            yield from zip(some, pool.map(partial(_tried, load_), some), strict=True)
            if progress is not None:
                progress(first + len(some), len(rows))


def _tried(load_: Load, row: ClassRow) -> Pixels8 | str:
    try:
        return load_(row)
    except ImageError as cause:
        return cause.what.rstrip(".")


def _assembled(raw: Any, shape: tuple[int, ...], mirror: bool, home: Path) -> tuple[Path, str]:
    """The pixels in ``raw`` as an ``.npy`` file in ``home``; its path and digest."""
    raw.flush()
    given = np.memmap(raw, np.uint8, "r", shape=shape)
    blocks = [slice(first, first + 1024) for first in range(0, shape[0], 1024)]
    parts: list[Pixels8] = [given[block] for block in blocks]
    parts += [given[block, :, ::-1] for block in blocks if mirror]
    header = {"descr": "|u1", "fortran_order": False, "shape": (len(given) * (1 + mirror), *shape[1:])}
    sha = hashlib.sha256(f"{header}".encode())
    with tempfile.NamedTemporaryFile(dir=home, suffix=".part", delete=False) as out:
        np.lib.format.write_array_header_1_0(out, header)  # type: ignore[no-untyped-call]
        for part in parts:
            content = np.ascontiguousarray(part).tobytes()
            sha.update(content)
            out.write(content)
    os.chmod(out.name, 0o644)  # a draft is its owner's alone, but workers on other nodes may be others
    file = home / f"{sha.hexdigest()[:16]}.npy"
    os.replace(out.name, file)
    return file, file.stem


def _aligned(written: _Written, names: tuple[str, ...], mirror: bool, source: Source) -> ClassSet:
    """The labels of what was written, with those of the mirror images."""
    rows = written.rows
    index = {name: k for k, name in enumerate(names)}
    labels = np.array([index.get(row.label, 0) for row in rows], np.int64)
    votes, aside = _votes(rows, index, source)
    n = len(rows)
    pairs: Ints = np.arange(n, dtype=np.int64)
    groups = _groups(rows)
    ids, called = tuple(written.ids), tuple(row.image for row in rows)
    if mirror:
        labels = np.concatenate([labels, 1 - labels])
        votes = np.concatenate([votes, np.where(votes == ABSENT, ABSENT, 1 - votes)])
        pairs, groups, ids = np.tile(pairs, 2), np.tile(groups, 2), ids + tuple(f"{i}'" for i in ids)
        called += called
    positions = np.arange(len(labels), dtype=np.int64)
    arrays = (positions, labels, pairs, groups, votes)
    return ClassSet(str(written.file), written.digest, names, *arrays, ids, mirror, aside, called)


def _groups(rows: Sequence[ClassRow]) -> Ints:
    """A number for each group, in order of appearance; a row without one is a group of its own."""
    numbers: dict[tuple[str, int], int] = {}
    keys = [(row.group, 0) if row.group else ("", row.line) for row in rows]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int64)


def _votes(
    rows: Sequence[ClassRow], index: Mapping[str, int], source: Source
) -> tuple[Ints, tuple[SetAside, ...]]:
    """What each further labeller says ``[n,L]``, and how many pictures have no vote for a class."""
    names = source.columns.votes
    table = [[index.get(vote, ABSENT) for vote in row.votes] for row in rows]
    votes = np.array(table, np.int64).reshape(len(rows), len(names))
    without = int((votes == ABSENT).all(axis=1).sum()) if names else 0
    if not without:
        return votes, ()
    reason = f"{without} rows whose votes ({', '.join(names)}) name no class of the set; unused with 'crowd'"
    return votes, (SetAside("label", source.labels, reason),)


def without_test(train: ClassSet, test: ClassSet) -> ClassSet:
    """The training set less every particle that is also a test picture."""
    same = np.isin(np.array(train.ids), np.array(test.ids))
    gone = np.isin(train.pairs, train.pairs[same])
    if not gone.any():
        return train
    reason = f"{int(gone.sum())} pictures that the test set holds, too"
    left = train.take(~gone)
    return replace(left, set_aside=(*train.set_aside, SetAside("image", train.pictures, reason)))


def split(groups: Ints, shares: Sequence[float], rng: np.random.Generator) -> list[Ints]:
    """Positions of each part that takes a share of the pictures, and last of the rest; groups stay whole.

    Groups are drawn at random until a part has its share; every part has at least one group.
    """
    names, counts = np.unique(groups, return_counts=True)
    if len(names) <= len(shares):
        what = f"{len(names)} groups of pictures cannot be split into {len(shares) + 1} parts."
        raise DataError(what, "data", "Give more groups, or a test set of its own.")
    order = rng.permutation(len(names))
    part, first = np.full(len(names), len(shares)), 0
    for number, share in enumerate(shares):
        most = len(order) - (len(shares) - number)
        wanted, taken = share * len(groups), 0
        while first < most and (taken == 0 or taken + counts[order[first]] / 2 <= wanted):
            part[order[first]] = number
            taken, first = taken + int(counts[order[first]]), first + 1
    of_each = part[np.searchsorted(names, groups)]
    return [np.flatnonzero(of_each == number) for number in range(len(shares) + 1)]
