"""Old rows of a table in SQLite, deleted a few at once."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from twisted.logger import Logger

from ulogd_tw.storing.retention import UPKEEP_S, Expired

BITE = 500
"""Rows deleted in one transaction: a few milliseconds, for which other writers wait."""
LONGEST_S = 0.2
"""Seconds of deleting at once; the rest comes with the next batch, or a second later."""
DAY_S = 86400
STORED_AT = "stored_at"
"""The column of a table made here with the time when a row was stored, in seconds since 1970."""
PAGES = 500
"""Pages given back to the file system at once."""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Retention:
    """What is old in one table. `retain`: seconds for which rows are kept; `expired` counts the rows that are not.

    A row without a time, or of a time more than a day ahead, is old by the time when it was stored, in the column that
    a table made here has for it; else it stays.
    """

    log = Logger()

    def __init__(self, schema: str, name: str, instance: str, retain: float, expired: Expired) -> None:
        self.name, self.instance, self.retain, self.expired = name, instance, retain, expired
        self._schema = f"{_quoted(schema)}." if schema else ""
        self.table = self._schema + _quoted(name)
        self.clock = time.time
        self._column = ""
        self._unit = 1
        self._next = 0.0
        self._stored_at = False
        self._told = False
        self._indexed: bool | None = None
        """Whether there is an index by time; None until somebody looks."""

    def learn(self, column: str, unit: int, stored_at: bool) -> None:
        """The column with the time of a row, in 1 / `unit` seconds; whether there is STORED_AT."""
        self._column, self._unit, self._stored_at, self._next = _quoted(column), unit, stored_at, 0.0
        self._indexed = None

    def upkeep(self, connection: Any, create: bool = False) -> bool:
        """Delete what is old, once a minute; True where more is left, for the next call.

        Without an index by time all rows stay: each look would read the whole table. `create` makes one.
        """
        if not self._column or time.monotonic() < self._next:
            return False
        try:
            return self._look(connection, create)
        except sqlite3.OperationalError as error:
            self._next = time.monotonic() + UPKEEP_S
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_ERROR:
                raise
            # The table cannot be kept so, such as one WITHOUT ROWID; rows can be written all the same.
            self.log.warn("{instance}: old rows of {table} stay: {error}", instance=self.instance, table=self.table,
                          error=error)  # fmt: skip
            return False

    def _look(self, connection: Any, create: bool) -> bool:
        if self._indexed is None:
            self._indexed = self._has_index(connection) or (create and self._make_index(connection))
        if not self._indexed:
            self._next = time.monotonic() + UPKEEP_S
            self._say_no_index()
            return False
        ends = time.monotonic() + LONGEST_S
        while more := self._bite(connection):
            if time.monotonic() > ends:
                return True
        self._next = time.monotonic() + UPKEEP_S
        self._give_back(connection)
        return more

    def _has_index(self, connection: Any) -> bool:
        """Whether an index begins with the column."""
        names = [row[1] for row in connection.execute(f"PRAGMA {self._schema}index_list({_quoted(self.name)})")]
        first = (connection.execute(f"PRAGMA {self._schema}index_info({_quoted(name)})").fetchone() for name in names)
        return any(row is not None and row[2] and _quoted(row[2]) == self._column for row in first)

    def _say_no_index(self) -> None:
        if not self._told:
            self._told = True
            self.log.warn(
                "{instance}: table {table} has no index by {column}: its old rows stay; CREATE INDEX by_time ON "
                "{table} ({column})", instance=self.instance, table=self.table, column=self._column,
            )  # fmt: skip

    def _make_index(self, connection: Any) -> bool:
        index = f"{self._schema}{_quoted(self.name + '_by_time')}"
        connection.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {_quoted(self.name)} ({self._column})")
        return True

    def _bite(self, connection: Any) -> bool:
        """Delete some rows in a transaction of their own; whether there may be more."""
        now = self.clock()
        limit = now - self.retain
        gone = self._delete(connection, f"{self._column} < ? ORDER BY {self._column}", int(limit * self._unit))
        if self._stored_at:
            ahead = int((now + DAY_S) * self._unit)
            undated = f"SELECT {STORED_AT} FROM {self.table} WHERE {self._column} IS NULL ORDER BY rowid LIMIT 1"
            oldest = connection.execute(undated).fetchone()
            if oldest and oldest[0] < limit:
                gone += self._delete(connection, f"{self._column} IS NULL AND {STORED_AT} < ? ORDER BY rowid", limit)
            gone += self._delete(connection, f"{self._column} > {ahead} AND {STORED_AT} < ?", limit)
        return gone >= BITE

    def _delete(self, connection: Any, old: str, limit: float) -> int:
        rows = f"SELECT rowid FROM {self.table} WHERE {old} LIMIT {BITE}"
        gone = connection.execute(f"DELETE FROM {self.table} WHERE rowid IN ({rows})", (limit,)).rowcount
        self.expired.rows += gone
        return gone

    def _give_back(self, connection: Any) -> None:
        """Shrink a file that is more than half empty; new rows use what is free otherwise."""
        free, all_ = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_count"))
        if free * 2 > all_:
            connection.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall()
