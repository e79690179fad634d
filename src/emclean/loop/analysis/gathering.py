"""From the windows' files to one table of particles: each counts once; memory holds two rows of windows."""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emclean.imaging.segmentation import Levels
from emclean.loop.analysis.bands import bands
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
MARKED = ("x", "y", "length_px", "width_px", "turn_deg", "set_aside", "hand")
"""The columns that an overlay shows."""

MOST_MARKED = 20_000
"""Particles of a picture that its overlay is chosen from: what it shows is a part with many."""

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

    @property
    def all(self) -> int:
        """Every object, also those that were set aside."""
        return self.usable + sum(self.set_aside.values())

    def plus(self, more: "Counted") -> "Counted":
        """With the counts of a further part of the picture."""
        aside = {reason: n + more.set_aside[reason] for reason, n in self.set_aside.items()}
        return replace(self, usable=self.usable + more.usable, left=self.left + more.left, set_aside=aside)


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

    def measure(self, picture: Micrograph, measured: Measured, columns: Mapping[str, Any]) -> Counted:
        """Take the sizes of some particles of a picture; their counts."""
        counts, sizes = counted(picture, measured, columns)
        unit = "px" if measured.nm is None else "nm"
        self.sizes[unit].setdefault(picture.sample, Counter()).update(sizes)
        return counts

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


def described(
    picture: Micrograph,
    measured: Measured,
    found: Mapping[str, NDArray[Any]],
    usable_from: float,
    first: int = 1,
) -> dict[str, Any]:
    """Particles of a picture as columns of :data:`SCHEMA`, numbered from ``first``."""
    n = len(found["x"])
    reason = found["reason"].astype(object)
    unusable = (reason == "") & (found["p_usable"] < usable_from)
    aside = np.where(unusable, "unusable", reason)
    hand = np.where(aside != "", "", np.where(found["p_left"] > 0.5, "left", "right"))
    nm = np.nan if measured.nm is None else measured.nm
    return {
        "sample": [picture.sample] * n,
        "image": [picture.name] * n,
        "particle": np.arange(first, first + n),
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


Offer = Callable[[Micrograph, Measured, Mapping[str, Any], Mapping[str, NDArray[Any]]], None]


def gather(
    pictures: Sequence[tuple[Micrograph, Measured, Iterable[Piece]]],
    home: Path,
    folder: Path,
    usable_from: float,
    overlays: int,
    offer: Offer,
) -> Gathered:
    """Write the tables of particles, and keep what the results need; ``overlays`` pictures are marked.

    ``offer`` gets the particles of each picture, a row of windows at a time: their columns, and all that
    windows tell of them.
    """
    found = Gathered()
    with tables(folder) as out:
        for picture, measured, pieces in pictures:
            counts = Counted(picture, measured, 0, 0, dict.fromkeys(REASONS, 0))
            shown = len(found.marks) < overlays and _newest_sample(found, picture, len(pictures), overlays)
            marks = _Marks(MOST_MARKED if shown else 0)
            for objects in bands(home, pieces):
                columns = described(picture, measured, objects, usable_from, counts.all + 1)
                out.write(columns)
                counts = counts.plus(found.measure(picture, measured, columns))
                found.show(objects, usable_from)
                marks.add(columns)
                offer(picture, measured, columns, objects)
            found.counts.append(counts)
            if shown:
                found.marks.append(Mark(picture, measured.levels, marks.columns))
    return found


@dataclass(eq=False)
class _Marks:
    """What an overlay needs of the particles of a picture, of the first ``most``."""

    most: int
    columns: dict[str, NDArray[Any]] = field(default_factory=dict)

    def add(self, columns: Mapping[str, Any]) -> None:
        """Take further particles, as long as there is room."""
        parts = {name: [self.columns[name]] if self.columns else [] for name in MARKED}
        self.columns = {
            name: np.concatenate([*before, np.asarray(columns[name])])[: self.most]
            for name, before in parts.items()
        }


def _newest_sample(found: Gathered, picture: Micrograph, n: int, overlays: int) -> bool:
    """Whether a picture is to be marked: all of few; of many, the first of each sample."""
    return n <= overlays or picture.sample not in {mark.picture.sample for mark in found.marks}
