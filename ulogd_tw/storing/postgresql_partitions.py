"""Daily partitions of a table in PostgreSQL: made ahead, and dropped when their rows are old.

Days are of UTC. A row whose time is missing, or of a day that is old or more than two days ahead, goes to the default
partition, from which rows are deleted by the time when they were stored. A table without partitions has old rows
deleted in slices. A hypertable of TimescaleDB makes and drops its own chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from psycopg import errors
from twisted.logger import Logger

from ulogd_tw.core.resolve import Found
from ulogd_tw.storing.postgresql_values import microseconds
from ulogd_tw.storing.retention import UPKEEP_S, Expired

STORED_AT = "stored_at"
"""The column of a partitioned table made here with the time when a row was stored."""
DAY_S = 86400
AHEAD = 2
"""Days after today that have a partition already."""
MOST_DAYS = 400
"""Past days that get a partition because one batch has rows of them."""
SLICE = 20_000
"""Rows deleted by one statement from a table without partitions."""
BRIEF_MS = 1000
"""Milliseconds that a change of tables waits for queries, and others for it."""
LONGEST = 1.0
"""Seconds of deleting at once; the rest comes with the next look."""
LONGEST_NAME = 63
_RANGES = """
SELECT c.oid::regclass::text,
  extract(epoch FROM (regexp_match(b.text, $r$FROM \\('([^']+)'\\)$r$))[1]::timestamptz)::bigint,
  extract(epoch FROM (regexp_match(b.text, $r$TO \\('([^']+)'\\)$r$))[1]::timestamptz)::bigint,
  b.text = 'DEFAULT'
FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid,
  LATERAL (SELECT pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS text) b
WHERE i.inhparent = pg_catalog.to_regclass(%s)
"""
_HYPERTABLE = "SELECT 1 FROM pg_catalog.pg_proc WHERE proname = 'create_hypertable' AND pg_function_is_visible(oid)"

Execute = Callable[..., list[tuple]]


class Partitions:
    """The partitions of one table. `retain`: seconds for which rows are kept. `column`: the time of a row, by name."""

    log = Logger()

    def __init__(
        self, table: str, name: str, instance: str, retain: float, execute: Execute, expired: Expired | None = None
    ) -> None:
        self.table, self.name, self.instance, self.retain = table, name, instance, retain
        self._place = table.rpartition(".")[0]
        self._execute = execute
        self.expired = expired or Expired()
        self.column = ""
        self.partitioned = False
        self._stored_at = False
        self._made: set[int] = set()
        """Days with a partition, since 1970."""
        self._default = ""
        self._next = 0.0
        self._later = 0.0
        """When partitions are made again, after a query was in the way."""

    # the table

    def ddl_tail(self, column: str) -> str:
        """What stands behind the columns of a new table."""
        return f" PARTITION BY RANGE ({_quoted(column)})"

    def hypertables(self, connection: Any) -> bool:
        """Whether TimescaleDB is there."""
        return bool(self._execute(connection, _HYPERTABLE))

    def make_hypertable(self, connection: Any, column: str) -> None:
        """Give a new table chunks of a day."""
        self._execute(
            connection,
            "SELECT create_hypertable(%s, %s, chunk_time_interval => interval '1 day', if_not_exists => true)",
            self.table, column,
        )  # fmt: skip

    def make_default(self, connection: Any) -> None:
        """Give a new partitioned table its default partition, and an index by time that costs next to nothing."""
        odd = self._named("odd")
        self._execute(connection, f"CREATE TABLE IF NOT EXISTS {odd} PARTITION OF {self.table} DEFAULT")
        index = _quoted(f"{self.name[:50]}_by_time")
        self._execute(
            connection, f"CREATE INDEX IF NOT EXISTS {index} ON {self.table} USING brin ({_quoted(self.column)})"
        )

    def learn(self, column: str, partitioned: bool, columns: Iterable[str]) -> None:
        """What the table is, when its columns are read anew."""
        self.column, self.partitioned = column, partitioned
        self._stored_at = STORED_AT in columns
        self._made, self._next = set(), 0.0

    def postpone(self) -> None:
        """Try again in a minute."""
        self._next = self._later = time.monotonic() + UPKEEP_S

    def _named(self, end: str) -> str:
        name = f"{self.name[: LONGEST_NAME - len(end) - 1]}_{end}"
        return (f"{self._place}." if self._place else "") + _quoted(name)

    # days

    def days_of(self, found: Found | None) -> set[int]:
        """The days of a batch's rows, by the column of time, that may get a partition."""
        since_1970 = microseconds(found) if found is not None and isinstance(found.values, np.ndarray) else None
        if since_1970 is None or found is None:
            return set()
        days = since_1970 // np.uint64(DAY_S * 10**6)
        if found.missing is not None:
            days = days[~found.missing]
        today = self._today()
        oldest = max(today - int(self.retain // DAY_S), today - MOST_DAYS)
        return {day for day in np.unique(days).tolist() if oldest <= day <= today + AHEAD}

    def _today(self) -> int:
        return int(time.time()) // DAY_S

    def make(self, connection: Any, days: Iterable[int]) -> None:
        """Make the partitions that lack among those of these days and the next ones."""
        today = self._today()
        wanted = {*days, *range(today, today + AHEAD + 1)} - self._made
        if not self.partitioned or not wanted or time.monotonic() < self._later:
            return
        ranges = self._ranges(connection)
        for day in sorted(wanted):
            there = any(first <= day * DAY_S < last for _, first, last in ranges)
            if not there and not self._briefly(connection, partial(self._make_day, connection, day)):
                self._later = time.monotonic() + UPKEEP_S
                return
            self._made.add(day)

    def _ranges(self, connection: Any) -> list[tuple[str, int, int]]:
        """Partitions with a range, and its edges in seconds since 1970; an open edge is none of ours."""
        rows = self._execute(connection, _RANGES, self.table)
        self._default = next((name for name, _, _, default in rows if default), "")
        return [(name, first, last) for name, first, last, default in rows if first is not None and last is not None]

    def _make_day(self, connection: Any, day: int) -> None:
        first, last = (_text(number * DAY_S) for number in (day, day + 1))
        part = self._named(time.strftime("%Y%m%d", time.gmtime(day * DAY_S)))
        like = "INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING GENERATED INCLUDING STORAGE"
        column = _quoted(self.column)
        connection.execute(f"CREATE TABLE {part} (LIKE {self.table} {like})")
        if self._default:  # rows that were too far ahead when they came
            between = f"{column} >= '{first}' AND {column} < '{last}'"
            moved = f"WITH moved AS (DELETE FROM {self._default} WHERE {between} RETURNING *)"
            connection.execute(f"{moved} INSERT INTO {part} SELECT * FROM moved")
        # Unlike CREATE TABLE ... PARTITION OF, this waits only for readers of the default partition.
        connection.execute(
            f"ALTER TABLE {self.table} ATTACH PARTITION {part} FOR VALUES FROM ('{first}') TO ('{last}')"
        )

    def _briefly(self, connection: Any, change: Callable[[], Any]) -> bool:
        """Change tables in a transaction that waits for no long query: false if one is in the way, and nothing is done.

        Rows of a day without a partition go to the default one meanwhile.
        """
        connection.execute(f"BEGIN; SET LOCAL lock_timeout = {BRIEF_MS}")
        try:
            change()
            connection.commit()
        except errors.LockNotAvailable:
            connection.rollback()
            return False
        except (errors.DuplicateTable, errors.UniqueViolation, errors.InvalidObjectDefinition) as error:
            connection.rollback()  # another instance made it
            self.log.debug("{instance}: {error}", instance=self.instance, error=error)
        except BaseException:
            connection.rollback()
            raise
        return True

    # what is old

    def upkeep(self, connection: Any) -> None:
        """Make partitions ahead and remove old rows, once a minute at most."""
        if not self.column or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + UPKEEP_S
        limit = time.time() - self.retain
        if self._chunked(connection):
            chunks = "SELECT drop_chunks(%s, older_than => %s::timestamptz)"
            self.expired.partitions += len(self._execute(connection, chunks, self.table, _text(limit)))
        elif self.partitioned:
            self.make(connection, ())
            self._drop(connection, limit)
        else:
            self._delete(connection, self.table, f"{_quoted(self.column)} < '{_text(limit)}'")

    def _chunked(self, connection: Any) -> bool:
        if not self.hypertables(connection):
            return False
        return bool(self._execute(
            connection, "SELECT 1 FROM timescaledb_information.hypertables WHERE "
            "to_regclass(format('%%I.%%I', hypertable_schema, hypertable_name)) = to_regclass(%s)", self.table,
        ))  # fmt: skip

    def _drop(self, connection: Any, limit: float) -> None:
        for name, _, last in self._ranges(connection):
            if last <= limit and self._briefly(connection, partial(connection.execute, f"DROP TABLE {name}")):
                self.expired.partitions += 1
                self.log.info("{instance}: dropped the partition {name}, whose rows are older than retain",
                              instance=self.instance, name=name)  # fmt: skip
        if self._default:
            column = STORED_AT if self._stored_at else self.column
            self._delete(connection, self._default, f"{_quoted(column)} < '{_text(limit)}'")

    def _delete(self, connection: Any, table: str, old: str) -> None:
        """Delete rows in slices, so that no statement takes long."""
        ends = time.monotonic() + LONGEST
        while time.monotonic() < ends:
            rows = f"SELECT ctid FROM {table} WHERE {old} LIMIT {SLICE}"
            gone = connection.execute(f"DELETE FROM {table} WHERE ctid = ANY(ARRAY({rows}))").rowcount
            self.expired.rows += gone
            if gone < SLICE:
                return
        self._next = 0.0


def _text(seconds: float) -> str:
    """A time in UTC for a statement."""
    return time.strftime("%Y-%m-%d %H:%M:%S+00", time.gmtime(seconds))


def _quoted(name: str) -> str:
    """An identifier in quotes."""
    return '"' + name.replace('"', '""') + '"'
