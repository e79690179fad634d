"""The particles of a picture from its windows' tables, each once.

Windows lie in rows, and only neighbours may see the same particle: two rows of windows are in memory at a
time, however many there are.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from emclean.imaging.segmentation import once
from emclean.loop.analysis.looking import BYTES
from emclean.loop.analysis.looking import SCHEMA as WINDOW
from emclean.loop.analysis.pieces import Piece
from emclean.types import Ints

Columns = dict[str, NDArray[Any]]

_WINDOW = "window"
"""The column with the number of the window that an object is from."""


def bands(home: Path, pieces: Iterable[Piece]) -> Iterator[Columns]:
    """The objects of a picture, a row of windows at a time: columns as in the windows' files.

    ``pieces`` are all windows of the picture, row by row; their files lie in ``home``.
    """
    waiting: Columns | None = None
    for _, row in groupby(pieces, lambda piece: piece.window.core[0].start):
        here = list(row)
        columns = _columns([pq.read_table(home / f"{p.key}.parquet", schema=WINDOW) for p in here], here)
        if waiting is None:
            waiting = _taken(columns, _kept(columns))
            continue
        both = {name: np.concatenate([waiting[name], columns[name]]) for name in columns}
        kept, n = _kept(both), len(waiting["x"])
        yield _told(_taken(both, kept[kept < n]))
        waiting = _taken(both, kept[kept >= n])
    if waiting is not None:
        yield _told(waiting)


def merged(parts: Sequence[pa.Table], pieces: Sequence[Piece]) -> Columns:
    """The objects of a picture from the table of each of its windows, all at once."""
    columns = _columns(parts, pieces)
    return _told(_taken(columns, _kept(columns)))


def _columns(parts: Sequence[pa.Table], pieces: Sequence[Piece]) -> Columns:
    table = pa.concat_tables(parts)
    columns: Columns = {
        name: table.column(name).to_numpy(zero_copy_only=False) for name in WINDOW.names if name not in BYTES
    }
    columns |= {name: _objects(table.column(name).to_pylist()) for name in BYTES}
    numbers = [piece.window.number for piece in pieces]
    columns[_WINDOW] = np.repeat(np.array(numbers, np.int64), [part.num_rows for part in parts])
    return columns


def _objects(values: Sequence[Any]) -> NDArray[Any]:
    """A column of any values; numpy alone would make bytes of one length of them."""
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def _kept(columns: Mapping[str, NDArray[Any]]) -> Ints:
    """The places of the objects that remain where several windows saw one."""
    boxes = np.stack([columns[name] for name in ("y1", "x1", "y2", "x2")], axis=1).astype(np.int64)
    centres = np.stack([columns["y"], columns["x"]], axis=1)
    return once(boxes, centres, columns["owned"].astype(np.bool_), columns[_WINDOW])


def _taken(columns: Mapping[str, NDArray[Any]], places: Ints) -> Columns:
    return {name: column[places] for name, column in columns.items()}


def _told(columns: Columns) -> Columns:
    return {name: column for name, column in columns.items() if name != _WINDOW}
