"""CSV files written as rows come, and one that ends up sorted however long it is."""

import csv
import heapq
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

RUN = 50_000
"""Rows that are sorted in memory at a time."""

OPEN = 64
"""Sorted files that are merged at a time: far fewer than a process may open."""

_Write = Callable[[Sequence[Any]], object]


def writer(file: TextIO) -> _Write:
    """Writes one row of cells; line breaks within a cell become spaces, so that a line is a row."""
    write = csv.writer(file, lineterminator="\n").writerow
    return lambda cells: write(_one_line(cells))


def _one_line(cells: Sequence[Any]) -> list[Any]:
    """The cells, those with a line break (or anything else that is not for printing) without it."""
    return [" ".join(c.split()) if c.__class__ is str and not c.isprintable() else c for c in cells]


def open_text(path: Path) -> TextIO:
    """A text file to write; what UTF-8 cannot hold (half a surrogate pair) is written as an escape."""
    return path.open("w", newline="", encoding="utf-8", errors="backslashreplace")


def temporary(folder: Path | None = None) -> TextIO:
    """A text file without a name, to write and to read, that goes when it is closed."""
    return tempfile.TemporaryFile("w+", dir=folder, newline="\n", encoding="utf-8", errors="backslashreplace")


class Ranked:
    """A CSV file whose rows come in any order and are written by falling value, in flat memory.

    Rows are sorted a run at a time in temporary files, which are merged at the end (external merge sort).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._buffer = io.StringIO()
        self._cells = writer(self._buffer)
        self._lines: list[str] = []
        self._runs: list[TextIO] = []
        self.rows = 0

    def add(self, value: float, cells: Sequence[Any]) -> None:
        """One row; ``value`` from 0 to 1 says where it belongs, and among equals the earlier comes first."""
        self._buffer.seek(0)
        self._buffer.truncate()
        self._cells(cells)
        # fixed widths, so that lines sort as text
        self._lines.append(f"{1 - value:.9f} {self.rows:012d} {self._buffer.getvalue()}")
        self.rows += 1
        if len(self._lines) >= RUN:
            self._spill()

    def _spill(self) -> None:
        self._lines.sort()
        self._runs.append(self._kept(self._lines))
        self._lines = []
        if len(self._runs) >= OPEN:
            merged = self._kept(heapq.merge(*self._runs))
            for run in self._runs:
                run.close()
            self._runs = [merged]

    def _kept(self, lines: Iterable[str]) -> TextIO:
        """Lines in a temporary file, ready to be read."""
        file = temporary(self._folder)
        file.writelines(lines)
        file.seek(0)
        return file

    def write(self, path: Path, head: Sequence[str]) -> None:
        """The whole file: a ``rank`` from 1, then the cells."""
        self._lines.sort()
        with open_text(path) as file:
            writer(file)(("rank", *head))
            for rank, line in enumerate(self._merged(), start=1):
                file.write(f"{rank},{line.split(' ', 2)[2]}")
        self.close()

    def _merged(self) -> Iterator[str]:
        return iter(heapq.merge(*self._runs, self._lines))

    def close(self) -> None:
        """Drop the temporary files."""
        for run in self._runs:
            run.close()
        self._runs, self._lines = [], []


class Top:
    """The ``most`` things of largest value, the earlier first among equals."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, int, Any]] = []
        self._met = 0

    def add(self, value: float, thing: Any) -> None:
        """Keep it if it is one of the best so far."""
        self._met += 1
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, (value, -self._met, thing))
        elif self._heap and value > self._heap[0][0]:
            heapq.heapreplace(self._heap, (value, -self._met, thing))

    def best(self) -> list[Any]:
        """The things, best first."""
        return [thing for _, _, thing in sorted(self._heap, reverse=True)]
