"""Partitions by day of a table in MySQL: made ahead, and dropped when their rows are old.

Days are of UTC. The partition `odd` has the rows without a time and those from before the first day, `later` those more
than two days ahead: rows leave both by the time when they were stored. A table without partitions needs an index by
time: its old rows are deleted a few at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

import pymysql
from twisted.logger import Logger

from ulogd_tw.storing.retention import UPKEEP_S, Expired

STORED_AT = "stored_at"
"""The column of a partitioned table made here with the time when a row was stored."""
DAY_S = 86400
AHEAD = 2
"""Days after today that have a partition already."""
BACK = 31
"""Days before today that have a partition from the start; a row that is older goes to `odd`."""
SLICE = 2000
"""Rows deleted by one statement: some 20 ms."""
LONGEST_S = 0.5
"""Seconds of deleting at once; the rest comes with the next batch."""
LOCK_S = 2
"""Seconds that a change of the partitions waits for readers of the table; all others wait behind it."""
ODD, LATER = "odd", "later"
_DAY = re.compile(r"d\d{8}")
_BUSY = (1205, 1213)
_CUT = (1053, 1158, 1159, 1160, 1161, 1317, 1927, 3159, 4031)
_CLIENT = range(2000, 3000)
"""Errors of the connection, as those of _CUT."""

Execute = Callable[..., list[tuple]]


def day_of(seconds: float) -> int:
    """The number of a day since 1970."""
    return int(seconds) // DAY_S


def _part(day: int, unit: int) -> str:
    name = time.strftime("d%Y%m%d", time.gmtime(day * DAY_S))
    return f"PARTITION {name} VALUES LESS THAN ({(day + 1) * DAY_S * unit})"


_LAST = f"PARTITION {LATER} VALUES LESS THAN MAXVALUE"


def partitions_ddl(column: str, unit: int, retain: float, now: float) -> str:
    """What stands behind a new table; `column` is quoted, and has 1 / `unit` seconds since 1970."""
    today = day_of(now)
    first = max(day_of(now - retain), today - BACK)
    parts = [f"PARTITION {ODD} VALUES LESS THAN ({first * DAY_S * unit})"]
    parts += [_part(day, unit) for day in range(first, today + AHEAD + 1)]
    return f"\nPARTITION BY RANGE ({column}) (\n  " + ",\n  ".join([*parts, _LAST]) + "\n)"


class Partitions:
    """What is old in one table. `retain`: seconds for which rows are kept; `expired` counts the rows that are not."""

    log = Logger()

    def __init__(self, table: str, instance: str, retain: float, execute: Execute, expired: Expired) -> None:
        self.table, self.instance, self.retain, self.expired = table, instance, retain, expired
        self.clock = time.time
        self._execute = execute
        self._column = ""
        self._unit = 1
        self._bounds: dict[str, int] = {}
        """The partitions of days, and the first time behind each."""
        self._partitioned = self._indexed = self._may_not = False
        self._next = 0.0

    def learn(self, connection: Any, schema: str, name: str, column: str, unit: int) -> None:
        """Look at the table, whose rows have their time in this column, in 1 / `unit` seconds."""
        self._column, self._unit, self._next = "`" + column.replace("`", "``") + "`", unit, 0.0
        rows = self._execute(
            connection,
            "SELECT PARTITION_NAME, PARTITION_DESCRIPTION, PARTITION_EXPRESSION FROM information_schema.PARTITIONS "
            "WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s AND PARTITION_NAME IS NOT NULL",
            schema or None, name,
        )  # fmt: skip
        found = {part: bound for part, bound, by in rows if str(by).strip("`").lower() == column.lower()}
        self._partitioned = {ODD, LATER} <= set(found)
        self._bounds = {part: int(bound) for part, bound in found.items() if _DAY.fullmatch(part)}
        index = self._execute(connection, f"SHOW INDEX FROM {self.table} WHERE Column_name = %s", column)
        self._indexed = any(row[3] == 1 for row in index)
        if not self._partitioned and not self._indexed:
            self.log.warn(
                "{instance}: table {table} has no index by {column}: its old rows stay; CREATE INDEX by_time ON "
                "{table} ({column})", instance=self.instance, table=self.table, column=self._column,
            )  # fmt: skip

    def upkeep(self, connection: Any) -> None:
        """Make partitions ahead and remove what is old, once a minute, or more often while much is old."""
        if not self._column or self._may_not or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + UPKEEP_S
        limit = self.clock() - self.retain
        try:
            if self._partitioned:
                self._make_ahead(connection)
                self._drop(connection, limit)
                for part in (ODD, LATER):
                    self._delete_undated(connection, f"{self.table} PARTITION ({part})", limit)
            elif self._indexed:
                self._delete(connection, f"{self.table} WHERE {self._column} < {int(limit * self._unit)}")
        except pymysql.MySQLError as error:
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        code = error.args[0] if error.args else 0
        if code in (1044, 1142, 1227):
            self._may_not = True
            self.log.warn("{instance}: old rows of {table} stay: {error}; grant ALTER, CREATE, DELETE and DROP",
                          instance=self.instance, table=self.table, error=error.args[-1])  # fmt: skip
        elif not isinstance(code, int) or code in _CLIENT or code in _CUT:
            raise error
        elif code not in _BUSY:  # rows can be written all the same; the next try is in a minute
            self.log.warn("{instance}: old rows of {table} stay: {error} (error {code})", instance=self.instance,
                          table=self.table, error=error.args[-1], code=code)  # fmt: skip

    def _make_ahead(self, connection: Any) -> None:
        last = max(self._bounds.values(), default=0) // (DAY_S * self._unit)
        today = day_of(self.clock())
        days = range(max(last, today - BACK), today + AHEAD + 1)
        if days:
            new = ", ".join([*(_part(day, self._unit) for day in days), _LAST])
            self._alter(connection, f"REORGANIZE PARTITION {LATER} INTO ({new})")
            self._bounds |= {
                time.strftime("d%Y%m%d", time.gmtime(day * DAY_S)): (day + 1) * DAY_S * self._unit for day in days
            }

    def _drop(self, connection: Any, limit: float) -> None:
        for name, bound in sorted(self._bounds.items()):
            if bound <= limit * self._unit:
                self._alter(connection, f"DROP PARTITION {name}")
                del self._bounds[name]
                self.expired.partitions += 1
                self.log.info("{instance}: dropped the partition {name} of {table}, whose rows are older than retain",
                              instance=self.instance, name=name, table=self.table)  # fmt: skip

    def _alter(self, connection: Any, change: str) -> None:
        self._execute(connection, f"SET SESSION lock_wait_timeout = {LOCK_S}")
        try:
            self._execute(connection, f"ALTER TABLE {self.table} {change}")
        finally:
            self._execute(connection, "SET SESSION lock_wait_timeout = DEFAULT")

    def _delete_undated(self, connection: Any, part: str, limit: float) -> None:
        oldest = self._execute(connection, f"SELECT UNIX_TIMESTAMP({STORED_AT}) FROM {part} ORDER BY id LIMIT 1")
        if oldest and oldest[0][0] < limit:
            self._delete(connection, f"{part} WHERE {STORED_AT} < FROM_UNIXTIME({int(limit)}) ORDER BY id")

    def _delete(self, connection: Any, rows: str) -> None:
        """Delete rows in slices, so that no statement takes long."""
        ends = time.monotonic() + LONGEST_S
        while time.monotonic() < ends:
            with connection.cursor() as cursor:
                gone = cursor.execute(f"DELETE FROM {rows} LIMIT {SLICE}")
            self.expired.rows += gone
            if gone < SLICE:
                return
        self._next = 0.0
