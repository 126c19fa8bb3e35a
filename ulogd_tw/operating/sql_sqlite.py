"""SQLite as the engine of queries where DuckDB is not installed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.python_values import canonical_list
from ulogd_tw.errors import QueryError
from ulogd_tw.operating.sql_tables import ROWS_AT_ONCE, Table, quoted

_TABLE_FUNCTIONS = {"json_each", "json_tree"}
_REFUSED = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "sqlite_log"}
_ALWAYS = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE}


class SQLite:
    """One database in memory for each query."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._connection: sqlite3.Connection | None = None

    def ask(self, text: str, tables: Mapping[str, Table]) -> _Found:
        """Begin a query. Raises `QueryError`."""
        connection = self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        try:
            connection.execute("pragma temp_store = memory")
            connection.execute(f"pragma hard_heap_limit = {self._memory * 3 // 4}")
            for name, table in tables.items():
                _fill(connection, name, table)
            connection.set_authorizer(_Authorizer(tables))
            cursor = connection.execute(text)
        except (sqlite3.Error, sqlite3.Warning) as error:
            raise QueryError(str(error)) from None
        if cursor.description is None:
            raise QueryError("there is no SELECT in the query")
        return _Found(cursor)

    def interrupt(self) -> None:
        if self._connection is not None:
            self._connection.interrupt()

    def forget(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    close = forget


class _Authorizer:
    """Lets pass what a SELECT of these tables needs; whatever else is refused."""

    def __init__(self, tables: Mapping[str, Table]) -> None:
        self._tables = {name.lower() for name in tables}

    def __call__(self, action: int, first: str | None, second: str | None, schema: str | None, _: Any) -> int:
        if action in _ALWAYS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ:
            name = (first or "").lower()
            # of a common table expression or a subquery no schema is given
            known = name in self._tables or name in _TABLE_FUNCTIONS or schema is None
            return sqlite3.SQLITE_OK if known and not name.startswith(("sqlite_", "pragma_")) else sqlite3.SQLITE_DENY
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in _REFUSED:
            return sqlite3.SQLITE_OK
        return sqlite3.SQLITE_DENY


class _Found:
    """The result of a query."""

    def __init__(self, cursor: sqlite3.Cursor) -> None:
        self._cursor = cursor
        self.columns = tuple(column[0] for column in cursor.description)

    def rows(self) -> Iterator[list[tuple]]:
        try:
            while some := self._cursor.fetchmany(ROWS_AT_ONCE):
                yield some
        except sqlite3.Error as error:
            raise QueryError(str(error)) from None


def _fill(connection: sqlite3.Connection, name: str, table: Table) -> None:
    """One Python step a value: about 1 M values a second."""
    columns = ", ".join(map(quoted, table.columns))
    connection.execute(f"create table {quoted(name)} ({columns})")
    marks = ", ".join("?" * len(table.columns))
    while table.batches:
        values = _values(table.batches.pop(0), table.columns)
        connection.executemany(f"insert into {quoted(name)} values ({marks})", zip(*values, strict=True))


def _values(batch: Batch, columns: tuple[str, ...]) -> list[list[Any]]:
    return [
        _storable(canonical_list(batch.columns[name], batch.schema[name], batch.missing.get(name)))
        if name in batch.columns else [None] * batch.n
        for name in columns
    ]  # fmt: skip


def _storable(values: list[Any]) -> list[Any]:
    """SQLite has signed numbers of 64 bits: larger ones become floats."""
    return [float(v) if isinstance(v, int) and v >= 1 << 63 else v for v in values]
