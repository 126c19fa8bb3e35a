"""SQL over tables in memory: DuckDB if installed, else SQLite.

A table is a list of batches of one shape. A query is one SELECT of these tables: it cannot reach files, settings or
anything else of the machine.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from ulogd_tw.operating.sql_tables import Table

MOST_ROWS = 100_000
"""Maximum rows of a result."""
MOST_SECONDS = 30.0
"""Maximum time of a query."""
MOST_MEMORY = 512 << 20
"""Maximum octets of memory of a query with its tables, beyond what an idle process has."""
_WORDS = re.compile(r'"([^"]+)"|([A-Za-z_][\w.]*)')
_STRINGS = re.compile(r"'(?:[^']|'')*'")
_STARS = re.compile(
    r"(?i)\bselect\s+(?:(?:distinct|all)\s+)?(?:[\w.]+\.)?\*|,\s*(?:[\w.]+\.)?\*"  # not in products and count(*)
    r"|\bcolumns\s*\(|\bnatural\b|\b(?:table|describe|summarize|unpivot)\b"
    r"|^\s*from\b|\(\s*from\b"
)


@dataclass(frozen=True)
class Result:
    """Rows of a query; `more`: the result was cut at the maximum."""

    columns: tuple[str, ...]
    rows: list[tuple]
    more: bool = False


class Found(Protocol):
    """A result that is still being worked out: the names of its columns, and its rows, some at a time."""

    columns: tuple[str, ...]

    def rows(self) -> Iterator[list[tuple]]:
        """Raises `QueryError`."""


class Engine(Protocol):
    """A database in memory. It is made before a process gives up its rights, and serves one query after another."""

    def ask(self, text: str, tables: Mapping[str, Table]) -> Found:
        """Begin a query; the batches of `tables` are taken out of them. Raises `QueryError`."""

    def interrupt(self) -> None:
        """End a query from another thread."""

    def forget(self) -> None:
        """Drop the tables of the last query."""

    def close(self) -> None:
        """Close the database."""


def engine(memory: int = MOST_MEMORY) -> Engine:
    """DuckDB if installed, else SQLite; `memory`: see `MOST_MEMORY`."""
    try:
        import duckdb
    except ImportError:
        from ulogd_tw.operating.sql_sqlite import SQLite

        return SQLite(memory)
    from ulogd_tw.operating.sql_duckdb import DuckDB

    return DuckDB(duckdb, memory)


def run(text: str, tables: Mapping[str, Table]) -> Result:
    """The result of a query over these tables, in this process. Raises `QueryError`."""
    with closing(engine()) as database, _limited(database.interrupt):
        found = database.ask(text, tables)
        rows: list[tuple] = []
        for some in found.rows():
            rows += some
            if len(rows) > MOST_ROWS:
                break
    return Result(found.columns, rows[:MOST_ROWS], len(rows) > MOST_ROWS)


class _limited:
    """Interrupts a query that takes too long."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._timer = threading.Timer(MOST_SECONDS, interrupt)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()


def words(text: str) -> frozenset[str]:
    """The names in a query: texts in double quotes, bare words, and the parts of qualified ones (``a.octets``)."""
    found = _WORDS.findall(_STRINGS.sub("''", text))
    whole = {quoted or bare for quoted, bare in found}
    return frozenset(whole | {part for _, bare in found for part in bare.split(".") if part})


def wants_all(text: str) -> bool:
    """Whether a query may ask for columns that it does not name: by a star, a pattern, or FROM without SELECT."""
    return bool(_STARS.search(_STRINGS.sub("''", text)))
