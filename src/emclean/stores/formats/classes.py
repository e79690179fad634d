"""CSV with one labelled picture a row: ``image,label[,group]``, and columns of further labellers' votes.

Where the pictures are the tiles of one sheet, ``row`` may stand in place of ``image``: the number of the
tile, from 0, row by row. Comma, semicolon or tab separate.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO

from emclean.errors import LabelError
from emclean.stores.formats.csv import delimiter_of, numbered
from emclean.stores.formats.rows import fetch, first_reasons
from emclean.types import SetAside

IMAGE = ("image", "row")
"""The columns that may name the picture; the first that is there does."""

LABEL, GROUP, SOURCE = "label", "group", "source"


@dataclass(frozen=True)
class Columns:
    """Which columns are read; without ``needs_label`` a file may have none (a one-handed set).

    A group column of another name than ``group`` must be there. ``votes`` are further labellers' columns.
    """

    label: str = LABEL
    group: str = GROUP
    votes: tuple[str, ...] = ()
    needs_label: bool = True


@dataclass(frozen=True)
class ClassRow:
    """One picture: the line it stands in, its name (or number in the sheet), label, group and votes.

    ``source`` is who said so, where there is a column for it, as in what ``emclean export`` writes.
    """

    line: int
    image: str
    label: str
    group: str = ""
    votes: tuple[str, ...] = ()
    source: str = ""


@dataclass(frozen=True)
class ClassFile:
    """The rows that can be used, and those that were set aside with their line and field."""

    rows: tuple[ClassRow, ...]
    set_aside: tuple[SetAside, ...] = ()


def read(path: str, columns: Columns | None = None) -> ClassFile:
    """Read a CSV file of class labels; a bad row is set aside.

    ``LabelError``: the file lacks the columns, or none of its rows can be used.
    """
    return parse(fetch(path), str(path), columns or Columns())


def parse(text: str, where: str, columns: Columns) -> ClassFile:
    """Read the text of a CSV file; ``where`` names it in messages."""
    lines = csv.reader(StringIO(text, newline=None), delimiter=delimiter_of(text))
    header = [name.strip().lower() for name in next(lines, [])]
    names = _Names.of(columns, header, where)
    aside: list[SetAside] = []
    rows: dict[str, ClassRow] = {}
    for line, item in numbered(lines, header, aside):
        row = names.row(line, item)
        reason = names.fault(row, rows.get(row.image))
        if reason:
            aside.append(SetAside("label", f"line {line}", reason))
        else:
            rows[row.image] = row
    if not rows:
        raise LabelError(f"holds no usable row.{first_reasons(aside, 'label')}", where, "Mend these rows.")
    return ClassFile(tuple(rows.values()), tuple(aside))


@dataclass(frozen=True)
class _Names:
    """The columns of one file by their lower-case names; an empty one is not there."""

    image: str
    label: str
    group: str
    votes: tuple[str, ...]

    @staticmethod
    def of(columns: Columns, header: Sequence[str], where: str) -> "_Names":
        """The columns that a header offers; refuse one without those that are needed."""
        image = next((name for name in IMAGE if name in header), "")
        label, group = columns.label.lower(), columns.group.lower()
        votes = tuple(name.lower() for name in columns.votes)
        needed = [*votes, *([label] if columns.needs_label or label != LABEL else [])]
        needed += [group] if group != GROUP else []
        missing = ([] if image else [" or ".join(IMAGE)]) + [name for name in needed if name not in header]
        if missing:
            what = (
                f"its first line lacks the column(s) {', '.join(missing)}; it has {', '.join(header)[:200]}."
            )
            fix = "Write a header with image,label and, if wanted, group; or name the columns that it has."
            raise LabelError(what, where, fix)
        return _Names(image, label if label in header else "", group if group in header else "", votes)

    def row(self, line: int, item: dict[str, str]) -> ClassRow:
        """What a line says."""
        image, label, group = (item.get(name, "") for name in (self.image, self.label, self.group))
        votes = tuple(item.get(name, "") for name in self.votes)
        return ClassRow(line, image, label, group, votes, item.get(SOURCE, ""))

    def fault(self, row: ClassRow, before: ClassRow | None) -> str:
        """Why a row cannot be used, with the field; empty where it can. ``before`` names the same picture."""
        if not row.image:
            return f"{self.image}: empty"
        if before is not None:
            return f"{self.image}: {row.image!r} stands in line {before.line} already"
        return f"{self.label}: empty" if self.label and not row.label else ""
