"""From the windows' files to one table of particles: each counts once; memory holds one picture at a time."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emclean.imaging.segmentation import Levels, once
from emclean.loop.analysis.looking import BYTES
from emclean.loop.analysis.looking import SCHEMA as WINDOW
from emclean.loop.analysis.pieces import Measured, Micrograph, Piece

SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("sample", "image")),
        ("particle", pa.int64()),
        *((name, pa.float64()) for name in ("x", "y", "length_px", "width_px", "turn_deg")),
        ("area_px", pa.int64()),
        *((name, pa.float64()) for name in ("length_nm", "width_nm", "solidity", "grey")),
        *((name, pa.string()) for name in ("set_aside", "hand")),
        *((name, pa.float64()) for name in ("p_usable", "p_left")),
    ]
)
"""The columns of ``particles.parquet``: ``set_aside`` is a reason (border, debris, cluster, unusable) or
empty; ``hand`` is left, right, or empty where the particle is set aside; ``turn_deg`` is from upright."""

REASONS = ("border", "debris", "cluster", "unusable")
GALLERY = 12
"""Cut-outs of each sort that the report shows."""

RANK: Mapping[str, Callable[[float], float]] = {
    "surest left": lambda p_left: -p_left,
    "surest right": lambda p_left: p_left,
    "least sure": lambda p_left: abs(p_left - 0.5),
    "unusable": lambda p_usable: p_usable,
}
"""The sheets of the gallery, and what comes first on each."""


@dataclass(frozen=True, eq=False)
class Counted:
    """What a picture holds: its usable particles, those called left, those set aside by reason."""

    picture: Micrograph
    measured: Measured
    usable: int
    left: int
    set_aside: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Mark:
    """The particles of one picture for its overlay: columns ``[N]`` as in :data:`SCHEMA`, and its levels."""

    picture: Micrograph
    levels: Levels
    columns: Mapping[str, NDArray[Any]]


@dataclass(eq=False)
class Gathered:
    """Everything that the pictures gave, of flat size: counts, sizes by the nm, cut-outs to be shown.

    ``sizes`` counts the lengths of each sample: ``nm`` those of pictures that tell the side of their pixels,
    rounded to nm; ``px`` those of the others.
    """

    counts: list[Counted] = field(default_factory=list)
    sizes: dict[str, dict[str, Counter[int]]] = field(default_factory=lambda: {"nm": {}, "px": {}})
    gallery: dict[str, list[tuple[float, bytes]]] = field(default_factory=lambda: {s: [] for s in RANK})
    marks: list[Mark] = field(default_factory=list)

    def show(self, table: Mapping[str, NDArray[Any]], usable_from: float) -> None:
        """Keep the cut-outs that belong into the gallery; each with the probability that matters."""
        has = [picture is not None for picture in table["picture"]]
        for i in np.flatnonzero(has).tolist():
            p_left, p_usable = float(table["p_left"][i]), float(table["p_usable"][i])
            if p_usable < usable_from:
                self._hang("unusable", p_usable, table["picture"][i])
                continue
            for sheet in ("surest left", "surest right", "least sure"):
                self._hang(sheet, p_left, table["picture"][i])

    def _hang(self, sheet: str, value: float, picture: bytes) -> None:
        """Put a cut-out up if it is among the first of its sort."""
        here = self.gallery[sheet]
        here.append((value, picture))
        here.sort(key=lambda entry: RANK[sheet](entry[0]))
        del here[GALLERY:]


@dataclass(frozen=True)
class Tables:
    """The two files that particles are written to, picture by picture."""

    parquet: Any
    rows: Any

    def write(self, columns: Mapping[str, Any]) -> None:
        """Add the particles of one picture."""
        table = pa.table(dict(columns), SCHEMA)
        self.parquet.write_table(table)
        for batch in table.to_batches(4096):
            self.rows.writerows(zip(*(column.to_pylist() for column in batch.columns), strict=True))


@contextmanager
def tables(folder: Path) -> Iterator[Tables]:
    """``particles.parquet`` and ``particles.csv``; they appear only when they are whole."""
    drafts = {name: folder / f".particles.{name}" for name in ("parquet", "csv")}
    with (
        pq.ParquetWriter(drafts["parquet"], SCHEMA) as parquet,
        drafts["csv"].open("w", newline="", encoding="utf-8") as file,
    ):
        rows = csv.writer(file)
        rows.writerow(SCHEMA.names)
        yield Tables(parquet, rows)
    for name, draft in drafts.items():
        draft.replace(folder / f"particles.{name}")


def joined(home: Path, pieces: Sequence[Piece]) -> dict[str, NDArray[Any]]:
    """The objects of all windows of a picture, each once: columns as in the windows' files."""
    return merged([pq.read_table(home / f"{piece.key}.parquet", schema=WINDOW) for piece in pieces], pieces)


def merged(parts: Sequence[pa.Table], pieces: Sequence[Piece]) -> dict[str, NDArray[Any]]:
    """The objects of a picture from the table of each of its windows, each once."""
    numbers = np.repeat([piece.window.number for piece in pieces], [part.num_rows for part in parts])
    table = pa.concat_tables(parts)
    columns: dict[str, NDArray[Any]] = {
        name: table.column(name).to_numpy(zero_copy_only=False) for name in WINDOW.names if name not in BYTES
    }
    columns |= {name: _objects(table.column(name).to_pylist()) for name in BYTES}
    boxes = np.stack([columns[name] for name in ("y1", "x1", "y2", "x2")], axis=1).astype(np.int64)
    centres = np.stack([columns["y"], columns["x"]], axis=1)
    kept = once(boxes, centres, columns["owned"].astype(np.bool_), numbers.astype(np.int64))
    return {name: column[kept] for name, column in columns.items()}


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    """A column of any values; numpy alone would make bytes of one length of them."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def described(
    picture: Micrograph, measured: Measured, found: Mapping[str, NDArray[Any]], usable_from: float
) -> dict[str, Any]:
    """The particles of a picture as columns of :data:`SCHEMA`."""
    n = len(found["x"])
    reason = found["reason"].astype(object)
    unusable = (reason == "") & (found["p_usable"] < usable_from)
    aside = np.where(unusable, "unusable", reason)
    hand = np.where(aside != "", "", np.where(found["p_left"] > 0.5, "left", "right"))
    nm = np.nan if measured.nm is None else measured.nm
    return {
        "sample": [picture.sample] * n,
        "image": [picture.name] * n,
        "particle": np.arange(1, n + 1),
        "x": found["x"],
        "y": found["y"],
        "length_px": found["length"],
        "width_px": found["width"],
        "turn_deg": np.degrees(found["turn"].astype(np.float64)),
        "area_px": found["area"].astype(np.int64),
        "length_nm": _or_none(found["length"] * nm),
        "width_nm": _or_none(found["width"] * nm),
        "solidity": found["solidity"],
        "grey": found["grey"],
        "set_aside": aside.astype(object),
        "hand": hand.astype(object),
        "p_usable": _or_none(found["p_usable"]),
        "p_left": _or_none(found["p_left"]),
    }


def _or_none(values: NDArray[Any]) -> list[float | None]:
    """What is not known is null in a table."""
    return [None if value != value else float(value) for value in values]


def counted(
    picture: Micrograph, measured: Measured, columns: Mapping[str, Any]
) -> tuple[Counted, Counter[int]]:
    """The counts of a picture, and the lengths of its usable particles, rounded to nm (or px)."""
    usable = columns["set_aside"] == ""
    aside = {reason: int((columns["set_aside"] == reason).sum()) for reason in REASONS}
    left = int((columns["hand"] == "left").sum())
    lengths = np.asarray(columns["length_px"], dtype=np.float64)[usable] * (measured.nm or 1.0)
    sizes = Counter(np.round(lengths).astype(int).tolist())
    return Counted(picture, measured, int(usable.sum()), left, aside), sizes


def gather(
    pictures: Sequence[tuple[Micrograph, Measured, Sequence[Piece]]],
    home: Path,
    folder: Path,
    usable_from: float,
    overlays: int,
    offer: Callable[[Micrograph, Measured, Mapping[str, Any], Mapping[str, NDArray[Any]]], None],
) -> Gathered:
    """Write the tables of particles, and keep what the results need; ``overlays`` pictures are marked.

    ``offer`` gets the particles of each picture: their columns, and all that windows tell of them.
    """
    found = Gathered()
    with tables(folder) as out:
        for picture, measured, pieces in pictures:
            objects = joined(home, pieces)
            columns = described(picture, measured, objects, usable_from)
            out.write(columns)
            counts, sizes = counted(picture, measured, columns)
            found.counts.append(counts)
            unit = "px" if measured.nm is None else "nm"
            found.sizes[unit].setdefault(picture.sample, Counter()).update(sizes)
            found.show(objects, usable_from)
            offer(picture, measured, columns, objects)
            if len(found.marks) < overlays and _newest_sample(found, picture, len(pictures), overlays):
                names = ("x", "y", "length_px", "width_px", "turn_deg", "set_aside", "hand")
                marked = {name: np.asarray(columns[name]) for name in names}
                found.marks.append(Mark(picture, measured.levels, marked))
    return found


def _newest_sample(found: Gathered, picture: Micrograph, n: int, overlays: int) -> bool:
    """Whether a picture is to be marked: all of few; of many, the first of each sample."""
    return n <= overlays or picture.sample not in {mark.picture.sample for mark in found.marks}
