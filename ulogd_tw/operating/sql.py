"""SQL over tables in memory: DuckDB if installed, else SQLite.

A table is a list of batches of one shape. Queries cannot reach files or anything else of the machine.
"""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.python_values import canonical_list
from ulogd_tw.errors import QueryError

MOST_ROWS = 100_000
"""Maximum rows of a result."""
MOST_SECONDS = 30.0
_WORDS = re.compile(r'"([^"]+)"|([A-Za-z_][\w.]*)')
_STRINGS = re.compile(r"'(?:[^']|'')*'")


@dataclass
class Table:
    """The possible `columns`, and the rows; a batch without a column has NULL there."""

    columns: tuple[str, ...]
    batches: list[Batch] = field(default_factory=list)


@dataclass(frozen=True)
class Result:
    """Rows of a query; `more`: the result was cut at the maximum."""

    columns: tuple[str, ...]
    rows: list[tuple]
    more: bool = False


def words(text: str) -> frozenset[str]:
    """The names in a query: texts in double quotes, bare words, and the parts of qualified ones (``a.octets``)."""
    found = _WORDS.findall(_STRINGS.sub("''", text))
    whole = {quoted or bare for quoted, bare in found}
    return frozenset(whole | {part for _, bare in found for part in bare.split(".") if part})


def wants_all(text: str) -> bool:
    """Whether a query asks for all columns: a star outside products and count(*)."""
    return bool(re.search(r"(?i)\bselect\s+(?:distinct\s+)?(?:\w+\.)?\*|,\s*(?:\w+\.)?\*", _STRINGS.sub("''", text)))


def run(text: str, tables: Mapping[str, Table]) -> Result:
    """The result of a query over these tables. Raises `QueryError`. To be called in a thread: it takes a while."""
    try:
        import duckdb
    except ImportError:
        return _sqlite(text, tables)
    return _duckdb(duckdb, text, tables)


# DuckDB


def _duckdb(duckdb: Any, text: str, tables: Mapping[str, Table]) -> Result:
    connection = duckdb.connect(":memory:", config={"threads": 1, "enable_external_access": False})
    try:
        for name, table in tables.items():
            connection.register(name, {column: _array(column, table.batches) for column in table.columns})
        with _limited(connection.interrupt):
            cursor = connection.execute(text)
            rows = cursor.fetchmany(MOST_ROWS + 1) if cursor.description else []
            names = tuple(column[0] for column in cursor.description or ())
    except duckdb.Error as error:
        raise QueryError(str(error).partition("\n\nLINE")[0]) from None
    finally:
        connection.close()
    return Result(names, rows[:MOST_ROWS], len(rows) > MOST_ROWS)


def _array(name: str, batches: Sequence[Batch]) -> np.ndarray:
    """One column of a table: an array for numbers without missing values, else Python values."""
    parts = [(batch.columns.get(name), batch.schema.get(name), batch.missing.get(name), batch.n) for batch in batches]
    if not parts:
        return np.empty(0)
    if all(c is not None and k.type.numeric and k.type.kind != "ntp" and m is None for c, k, m, _ in parts):
        return np.concatenate([np.ascontiguousarray(column) for column, *_ in parts])
    values: list[Any] = []
    for column, key, missing, n in parts:
        values += [None] * n if column is None else canonical_list(column, key, missing)
    found = np.empty(len(values), object)
    found[:] = values
    return found


# SQLite


_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}


def _sqlite(text: str, tables: Mapping[str, Table]) -> Result:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    try:
        for name, table in tables.items():
            _fill(connection, name, table)
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        with _limited(connection.interrupt):
            cursor = connection.execute(text)
            rows = cursor.fetchmany(MOST_ROWS + 1)
    except sqlite3.Error as error:
        raise QueryError(str(error)) from None
    finally:
        connection.close()
    return Result(tuple(c[0] for c in cursor.description or ()), rows[:MOST_ROWS], len(rows) > MOST_ROWS)


def _fill(connection: sqlite3.Connection, name: str, table: Table) -> None:
    """One Python step a value: about 1 M values a second."""
    columns = ", ".join(map(_quoted, table.columns))
    connection.execute(f"create table {_quoted(name)} ({columns})")
    marks = ", ".join("?" * len(table.columns))
    for batch in table.batches:
        values = [
            _storable(canonical_list(batch.columns[column], batch.schema[column], batch.missing.get(column)))
            if column in batch.columns else [None] * batch.n
            for column in table.columns
        ]  # fmt: skip
        connection.executemany(f"insert into {_quoted(name)} values ({marks})", zip(*values, strict=True))


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _storable(values: list[Any]) -> list[Any]:
    """SQLite has signed numbers of 64 bits: larger ones become floats."""
    return [float(v) if isinstance(v, int) and v >= 1 << 63 else v for v in values]


class _limited:
    """Interrupts a query that takes too long."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._timer = threading.Timer(MOST_SECONDS, interrupt)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
