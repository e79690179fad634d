"""Delta tables: append-only, exactly once by key, any past version readable, local or in an object store.

An append reads the keys at one version and commits only as the version right after it; if somebody
else was faster, it reads again. So no two writers can add the same key, and ``seq`` never repeats.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial, reduce
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
from deltalake import CommitProperties, DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from emclean.errors import DataError
from emclean.stores.schemas import SPECS, TableSpec

Rows: TypeAlias = pa.Table | Sequence[Mapping[str, Any]]
T = TypeVar("T")

BATCH_ROWS = 65_536
"""Rows handed to the writer at a time, so that a large append is not copied as a whole."""

PATIENCE_S = 120.0
"""How long an append tries again while other writers are faster."""

MANY_FILES = 32
"""A run's files in one table that are left as they are; more are joined."""

# By default Delta forgets versions after 30 days; here every past version must stay readable.
KEEP_HISTORY = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
}


class Tables:
    """The tables of one workspace, below a local folder or an object-store URI; safe to pickle."""

    def __init__(self, root: str | Path, storage_options: Mapping[str, str] | None = None) -> None:
        text = str(root)
        self.root = text.rstrip("/") if "://" in text else str(Path(text).expanduser().absolute())
        self._options = dict(storage_options or {})

    def __repr__(self) -> str:
        return f"Tables({self.root!r})"

    def uri(self, name: str) -> str:
        """Where the table lies."""
        return f"{self.root}/{_spec(name).name}"

    def append(self, name: str, rows: Rows, key: str | Sequence[str] | None = None) -> int:
        """Add the rows whose key is not there yet in one atomic commit; return the table's version.

        ``key`` defaults to the table's own. Of rows that share a key the first one counts.
        """
        spec = _spec(name)
        columns = spec.key if key is None else (key,) if isinstance(key, str) else tuple(key)
        table = _distinct(conform(spec, rows), columns)
        if not table.num_rows:
            return self.version(name)
        return self._patiently(name, lambda: self._try_append(spec, table, columns))

    def read(
        self,
        name: str,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> pa.Table:
        """Rows of a table, now or at a past version; ``where`` maps columns to a value or a list of values.

        A table that does not exist yet reads as an empty one.
        """
        spec = _spec(name)
        fields = [_field(spec, column) for column in (columns or spec.schema.names)]
        schema = pa.schema(fields)
        condition = _condition(spec, where or {})
        with self._errors(name):
            stored = self._open(name, version)
            if stored is None:
                return schema.empty_table()
            return _fetch(stored, schema, condition)

    def version(self, name: str) -> int:
        """The newest version of a table, -1 when it does not exist."""
        with self._errors(name):
            stored = self._open(name)
            return -1 if stored is None else int(stored.version())

    def compact(self, name: str, run: str | None = None) -> int:
        """Join small files (of one run) into large ones; past versions stay readable. Return the version."""
        parts = None if run is None else [("run", "=", run)]

        def once() -> int:
            stored = self._open(name)
            if stored is None:
                return -1
            stored.optimize.compact(partition_filters=parts)
            return int(stored.version())

        return self._patiently(name, once)

    def forget(self, run: str) -> None:
        """Take a run's rows out of every table; versions of before still hold them."""
        quoted = run.replace("'", "''")

        def once(name: str) -> int:
            stored = self._open(name)
            if stored is None:
                return -1
            stored.delete(f"run = '{quoted}'")
            return int(stored.version())

        for name in SPECS:
            if self._files(name, run):
                self._patiently(name, partial(once, name))

    def tidy(self, run: str, many: int = MANY_FILES) -> None:
        """Compact each table in which the run has more than ``many`` files; the others cost a look."""
        for name in SPECS:
            if self._files(name, run) > many:
                self.compact(name, run)

    def _files(self, name: str, run: str) -> int:
        with self._errors(name):
            stored = self._open(name)
            if stored is None:
                return 0
            files = pa.table(stored.get_add_actions(flatten=True))
            return files.filter(pc.equal(files["partition.run"], run)).num_rows if files.num_rows else 0

    def _try_append(self, spec: TableSpec, table: pa.Table, key: tuple[str, ...]) -> int:
        stored = self._open(spec.name) or self._create(spec)
        fresh = _without(table, _fetch(stored, _subset(spec, key), _narrow(spec, table, key)), key)
        if not fresh.num_rows:
            return int(stored.version())
        if "seq" in spec.schema.names:
            fresh = _number(fresh, _last_seq(stored) + 1)
        # without the columns' documentation: a table made when it read otherwise would refuse the rows
        bare = fresh.cast(pa.schema([field.remove_metadata() for field in fresh.schema]))
        reader = pa.RecordBatchReader.from_batches(bare.schema, bare.to_batches(BATCH_ROWS))
        # no retries inside: they would commit on top of rows that were not compared
        once = CommitProperties(max_commit_retries=0)
        write_deltalake(stored, reader, mode="append", commit_properties=once)
        return int(stored.version())

    def _create(self, spec: TableSpec) -> DeltaTable:
        if "://" not in self.root:
            Path(self.root).mkdir(parents=True, exist_ok=True)
        DeltaTable.create(
            self.uri(spec.name),
            spec.schema,
            mode="ignore",
            partition_by=list(spec.partition),
            description=spec.doc,
            configuration=KEEP_HISTORY,
            storage_options=self._options or None,
        )
        return DeltaTable(self.uri(spec.name), storage_options=self._options or None)

    def _open(self, name: str, version: int | None = None) -> DeltaTable | None:
        """The table at a version; None where it does not exist (version -1 is the time before)."""
        if version == -1:
            return None
        try:
            stored = DeltaTable(self.uri(name), storage_options=self._options or None)
        except TableNotFoundError as error:
            if "nknown scheme" in str(error) or version is not None:
                raise
            return None
        if version is not None and not 0 <= version <= stored.version():
            known = f"Versions 0 to {stored.version()} can be read."
            raise DataError(f"version {version} does not exist", self.uri(name), known)
        if version is not None:
            stored.load_as_version(version)
        return stored

    def _patiently(self, name: str, attempt: Callable[[], T]) -> T:
        """Try until no other writer was faster."""
        end = time.monotonic() + PATIENCE_S
        pause = 0.01
        with self._errors(name):
            while True:
                try:
                    return attempt()
                except CommitFailedError:
                    if time.monotonic() > end:
                        raise
                # other writers must not keep step with us; no result depends on this draw
                time.sleep(pause * random.random())
                pause = min(pause * 2, 1.0)

    @contextmanager
    def _errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise DataError(
                f"the table cannot be used: {self._plain(error)}",
                self.uri(name),
                "Check the workspace's place, its access rights and its free space.",
            ) from None

    def _plain(self, error: Exception) -> str:
        """The error's text on one line, without colours and without the values of storage options."""
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
        for value in self._options.values():
            text = text.replace(value, "…") if len(value) > 5 else text
        return text[:500]


def conform(spec: TableSpec, rows: Rows) -> pa.Table:
    """The rows in the table's own schema; refuse unknown, missing or null columns and wrong types.

    Columns that may be null may be left out, and so may ``seq``, which is given on append.
    """
    table = rows if isinstance(rows, pa.Table) else _from_dicts(spec, rows)
    unknown = set(table.schema.names) - set(spec.schema.names)
    if unknown:
        raise _refusal(spec, f"unknown column(s) {_names(unknown)}")
    columns = [_column(spec, table, field) for field in spec.schema]
    return pa.Table.from_arrays(columns, schema=spec.schema)


def _from_dicts(spec: TableSpec, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    names = set().union(*(row.keys() for row in rows))
    known = [field.with_nullable(True) for field in spec.schema if field.name in names]
    if unknown := names - set(spec.schema.names):
        raise _refusal(spec, f"unknown column(s) {_names(unknown)}")
    if not rows:
        return spec.schema.empty_table()
    try:
        return pa.Table.from_pylist([_timed(row, known) for row in rows], schema=pa.schema(known))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise _refusal(spec, f"a value has the wrong type: {error}") from None


def _timed(row: Mapping[str, Any], fields: Sequence[pa.Field]) -> Mapping[str, Any]:
    """The row with ISO 8601 texts as times."""
    texts = {f.name: row.get(f.name) for f in fields if pa.types.is_timestamp(f.type)}
    return {**row, **{n: datetime.fromisoformat(text) for n, text in texts.items() if isinstance(text, str)}}


def _column(spec: TableSpec, table: pa.Table, field: pa.Field) -> Any:
    if field.name not in table.schema.names:
        if field.name == "seq":
            return pa.array([0] * table.num_rows, field.type)
        if field.nullable or not table.num_rows:
            return pa.nulls(table.num_rows, field.type)
        raise _refusal(spec, f"column '{field.name}' is missing")
    try:
        column = table[field.name].cast(field.type)
    except pa.ArrowException as error:
        raise _refusal(spec, f"column '{field.name}': expected {field.type}: {error}") from None
    if column.null_count and not field.nullable:
        raise _refusal(spec, f"column '{field.name}' holds {column.null_count} null(s)")
    return column


def _refusal(spec: TableSpec, what: str) -> DataError:
    return DataError(what, f"table '{spec.name}'", "Its columns are listed in docs/tables.md.")


def _names(names: set[str]) -> str:
    return ", ".join(f"'{name}'" for name in sorted(names))


def _spec(name: str) -> TableSpec:
    if name not in SPECS:
        raise DataError(f"there is no table '{name}'", "tables", f"Known: {', '.join(SPECS)}.")
    return SPECS[name]


def _field(spec: TableSpec, column: str) -> pa.Field:
    if column not in spec.schema.names:
        raise _refusal(spec, f"there is no column '{column}'")
    return spec.schema.field(column)


def _subset(spec: TableSpec, columns: Sequence[str]) -> pa.Schema:
    return pa.schema([_field(spec, column) for column in columns])


def _condition(spec: TableSpec, where: Mapping[str, Any]) -> Any:
    """A dataset filter, or None."""
    parts = []
    for column, wanted in where.items():
        kind = _field(spec, column).type
        several = isinstance(wanted, list | tuple | set | frozenset)
        values = sorted(wanted) if isinstance(wanted, set | frozenset) else wanted
        try:
            choice = pa.array(values if several else [values], kind)
        except (pa.ArrowException, TypeError) as error:
            raise _refusal(spec, f"where '{column}': expected {kind}: {error}") from None
        parts.append(pads.field(column).isin(choice) if several else pads.field(column) == choice[0])
    return reduce(lambda a, b: a & b, parts) if parts else None


def _narrow(spec: TableSpec, table: pa.Table, key: tuple[str, ...]) -> Any:
    """A filter that holds for every stored row that could share a key with ``table``.

    A long append comes as several tables of neighbouring keys, each of which then reads its own range only.
    """
    where = {}
    ranges = []
    for column in key:
        values = pc.unique(table[column])
        if len(values) == 1 or column in spec.partition:
            where[column] = values.to_pylist()
        else:
            ends = pc.min_max(values)
            ranges.append((pads.field(column) >= ends["min"]) & (pads.field(column) <= ends["max"]))
    return reduce(lambda a, b: a & b, ranges, _condition(spec, where))


def _fetch(stored: DeltaTable, schema: pa.Schema, condition: Any) -> pa.Table:
    """The stored rows in our schema; columns that an older table lacks are null."""
    dataset = stored.to_pyarrow_dataset()
    present = [name for name in schema.names if name in dataset.schema.names]
    table = dataset.to_table(columns=present, filter=condition)
    columns = [
        table[field.name].cast(field.type) if field.name in present else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _distinct(table: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """The first row of every key, in order."""
    rows = table.select(list(key)).append_column("#", pa.array(range(table.num_rows), pa.int64()))
    first = rows.group_by(list(key), use_threads=False).aggregate([("#", "min")])["#_min"]
    return table if len(first) == table.num_rows else table.take(first.sort())


def _without(table: pa.Table, known: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """The rows whose key is not among ``known``."""
    if not known.num_rows:
        return table
    rows = table.select(list(key)).append_column("#", pa.array(range(table.num_rows), pa.int64()))
    fresh = rows.join(known, keys=list(key), join_type="left anti")["#"]
    return table if len(fresh) == table.num_rows else table.take(fresh.combine_chunks().sort())


def _number(table: pa.Table, start: int) -> pa.Table:
    place = table.schema.get_field_index("seq")
    numbers = pa.array(range(start, start + table.num_rows), pa.int64())
    return table.set_column(place, table.schema.field("seq"), numbers)


def _last_seq(stored: DeltaTable) -> int:
    """The largest ``seq`` so far, from the files' statistics, else from the column; -1 without rows."""
    files = pa.table(stored.get_add_actions(flatten=True))
    if not files.num_rows:
        return -1
    known = files["max.seq"] if "max.seq" in files.schema.names else None
    if known is None or known.null_count:
        known = stored.to_pyarrow_dataset().to_table(columns=["seq"])["seq"]
    largest = pc.max(known).as_py()
    return -1 if largest is None else int(largest)
