"""DuckDB as the engine of queries: with a locked configuration, and only for queries that `sql_checks` lets pass."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ulogd_tw.core import arrow
from ulogd_tw.core.arrow import Stream, Vector
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import numbers, strings
from ulogd_tw.core.keys import Key
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.readable import readable, type_of
from ulogd_tw.core.text import PLAIN
from ulogd_tw.core.utf8 import valid
from ulogd_tw.errors import QueryError
from ulogd_tw.operating import sql_checks
from ulogd_tw.operating.sql_tables import ROWS_AT_ONCE, Table, quoted

_CONFIGURATION = {
    "threads": 1,
    "enable_external_access": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "allow_community_extensions": False,
    "python_enable_replacements": False,
    "temp_directory": "",
    "max_temp_directory_size": "0B",
    "lock_configuration": True,
}
_TYPES = {"u": "ubigint", "i": "bigint", "f": "double", "b": "boolean"}
_WARM = (
    "select 1, 1.5, 1.5::double, 2::hugeint, true, 'a', 'a'::blob, date '2000-01-01', time '00:00:00', [1], {'a': 1}, "
    "timestamp '2000-01-01 00:00:00', timestamptz '2000-01-01 00:00:00+00', interval 1 day, map {'a': 1}, "
    "'00000000-0000-0000-0000-000000000000'::uuid"
)
"""A value of each type: Python's classes for them are loaded while files can still be read."""


class DuckDB:
    """One database in memory, used for one query after another."""

    def __init__(self, duckdb: Any, memory: int) -> None:
        self._duckdb = duckdb
        limit = f"{memory * 3 // 4 >> 20}MiB"
        self._connection = duckdb.connect(":memory:", config=_CONFIGURATION | {"memory_limit": limit})
        self._connection.execute(_WARM).fetchall()
        self._functions = sql_checks.functions(self._connection.execute(sql_checks.FUNCTIONS).fetchall())
        self._tables: list[str] = []

    def ask(self, text: str, tables: Mapping[str, Table]) -> _Found:
        """Begin a query. Raises `QueryError` and MemoryError."""
        self._check(text, tables)
        for name, table in tables.items():
            self._tables.append(name)
            self._fill(name, table)
        try:
            return _Found(self._duckdb, self._connection.execute(text))
        except self._duckdb.OutOfMemoryException as error:
            raise MemoryError from error
        except self._duckdb.Error as error:
            raise _said(error) from None

    def interrupt(self) -> None:
        self._connection.interrupt()

    def forget(self) -> None:
        while self._tables:
            self._connection.execute(f"drop table if exists {quoted(self._tables.pop())}")

    def close(self) -> None:
        self._connection.close()

    def _check(self, text: str, tables: Mapping[str, Table]) -> None:
        """Let DuckDB itself parse the query, look at what it has found. Raises `QueryError`."""
        try:
            if len(self._connection.extract_statements(text)) != 1:
                raise QueryError(sql_checks.ONE_SELECT)
            serialized = self._connection.execute("select json_serialize_sql(?::varchar)", [text]).fetchone()[0]
        except self._duckdb.Error as error:
            raise _said(error) from None
        try:
            sql_checks.check(json.loads(serialized), frozenset(tables), self._functions)
        except RecursionError:
            raise QueryError("the query is nested too deeply") from None

    def _fill(self, name: str, table: Table) -> None:
        """Make a table of its batches, one after the other, which are taken out of it."""
        types = {column: _type_of(column, table) for column in table.columns}
        columns = ", ".join(f"{quoted(column)} {of}" for column, of in types.items())
        self._connection.execute(f"create table {quoted(name)} ({columns})")
        while table.batches:
            rows, values = _rows(table.batches.pop(0), types)
            self._connection.register("batch of rows", rows)
            self._connection.execute(f'insert into {quoted(name)} select {", ".join(values)} from "batch of rows"')
            self._connection.unregister("batch of rows")


class _Found:
    """The result of a query."""

    def __init__(self, duckdb: Any, cursor: Any) -> None:
        self._duckdb, self._cursor = duckdb, cursor
        self.columns = tuple(column[0] for column in cursor.description or ())

    def rows(self) -> Iterator[list[tuple]]:
        try:
            while some := self._cursor.fetchmany(ROWS_AT_ONCE):
                yield some
        except self._duckdb.OutOfMemoryException as error:
            raise MemoryError from error
        except self._duckdb.Error as error:
            raise _said(error) from None


def _said(error: Exception) -> QueryError:
    """What DuckDB says of a query, without the text of the query."""
    return QueryError(str(error).partition("\n\nLINE")[0])


def _numeric(key: Key) -> str:
    """The type of a column of numbers; nothing for others, which are texts. Labels may be no numbers."""
    shown = type_of(key.type)
    if key.type.form == "label" or not shown.numeric or shown.kind == "ntp" or shown.dtype is None:
        return ""
    return _TYPES.get(shown.dtype.kind, "")


def _type_of(name: str, table: Table) -> str:
    """The type of a column in all batches: numbers of different kinds are double, numbers and texts texts."""
    keys = [batch.schema[name] for batch in table.batches if name in batch.schema]
    if not keys and name in table.keys:
        keys = [table.keys[name]]
    found = {_numeric(key) for key in keys}
    if "" in found:
        return "varchar"
    return found.pop() if len(found) == 1 else "double"


def _rows(batch: Batch, types: Mapping[str, str]) -> tuple[Stream, list[str]]:
    """The columns of a batch as DuckDB reads them, and for each column of the table the expression with its value."""
    names, vectors = ["rows"], [arrow.nothing(arrow.BOOLEAN, batch.n)]
    values = []
    for place, (name, of) in enumerate(types.items()):
        if name not in batch.columns:
            values.append(f"null::{of}")
            continue
        names.append(f"c{place}")
        vectors.append(_vector(batch, name))
        values.append(f"c{place}::{of}")
    return Stream(names, [vectors]), values


def _vector(batch: Batch, name: str) -> Vector:
    """One column of a batch: numbers, or the canonical texts."""
    key, column, missing = batch.schema[name], batch.columns[name], batch.missing.get(name)
    if _numeric(key):
        return arrow.numbers(numbers(readable(column, key)[0]), missing)
    shown, shown_key = readable(column, key)
    if shown_key.type.kind in ("string", "list"):
        return arrow.strings(valid(strings(shown)), missing)
    field = ColumnField(b"", column, None, key, PLAIN)
    return arrow.strings(Lines(b"\n", b"", b"").column([field], batch.n), missing)
