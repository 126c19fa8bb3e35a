"""SQLITE3: writes rows into a table of an SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import count
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from twisted.python.failure import Failure

from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option
from ulogd_tw.core.options import text as words
from ulogd_tw.core.paths import unwritable
from ulogd_tw.core.python_values import canonical_list
from ulogd_tw.core.resolve import Found
from ulogd_tw.storing.columns import TableColumn, Values
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.retention import RETENTION, parts_in, time_column, time_key
from ulogd_tw.storing.sql_output import COMMON, SQLOutput
from ulogd_tw.storing.sqlite_retention import STORED_AT, Retention

BUSY_S = 0.5
"""Seconds for which SQLite itself waits for a lock, in its thread, before the batch is repeated later."""
MEMORY = ":memory:"
CHECKPOINTS = 10
"""Attempts to put the last rows into a file that was moved away."""
LOOK_S = 1.0
"""Seconds between two looks whether the file is still there."""
_PARAMETERS = 900
"""Maximum values of one statement: SQLite before 3.32 takes 999."""
_TOGETHER = "ulogd_tw_together"
_TEXTS = ("CHAR", "CLOB", "TEXT", "BLOB")
"""Words in the types of columns that keep text as it is."""

_FAULTS = {
    sqlite3.SQLITE_BUSY: Fault("locked", "another program has locked it", transient=True),
    sqlite3.SQLITE_LOCKED: Fault("locked", "another connection has locked it", transient=True),
    sqlite3.SQLITE_INTERRUPT: Fault("stopped", transient=True),
    sqlite3.SQLITE_READONLY: Fault(
        "permission", "make the file and its directory writable for the user of the service"
    ),
    sqlite3.SQLITE_PERM: Fault("permission", "make the file and its directory writable for the user of the service"),
    sqlite3.SQLITE_CANTOPEN: Fault(
        "permission", "the directory must be there, and writable for the user of the service"
    ),
    sqlite3.SQLITE_FULL: Fault("full", "make room on the disk"),
    sqlite3.SQLITE_IOERR: Fault("disk", "look at the disk and its file system"),
    sqlite3.SQLITE_CORRUPT: Fault("disk", "the file is damaged: sqlite3 FILE .recover saves what can be saved"),
    sqlite3.SQLITE_NOTADB: Fault("table", "name an SQLite file in db="),
}


class SQLite(Database):
    """A table in an SQLite file, in WAL mode: readers and writers do not block each other."""

    driver = "sqlite3"
    upsert = "INSERT OR REPLACE INTO {table} (run, instance, number, written_at) VALUES (?, ?, ?, ?)"
    type_names = {
        # No type: a column declared INTEGER turns the text of a number from 2**63 on into a rounded REAL.
        "unsigned64": "",
        "unsigned": "INTEGER", "signed": "INTEGER", "boolean": "INTEGER", "seconds": "INTEGER",
        "milliseconds": "INTEGER", "ntp": "INTEGER", "float": "REAL", "ipv4": "TEXT", "ipv6": "TEXT",
        "address": "TEXT", "mac": "TEXT", "string": "TEXT", "octets": "TEXT", "list": "TEXT",
    }  # fmt: skip

    def __init__(
        self, path: str, table: str, instance: str, retain: float = 0.0, retain_by: str = "", create: bool = False
    ):
        super().__init__(table, instance)
        self.path = path
        self.retention = Retention(self.schema, self.name, instance, retain, self.expired) if retain else None
        self._retain_by = retain_by
        self._create = create
        self._file: tuple[int, int] | None = None

    def keywords(self) -> dict[str, Any]:
        with contextlib.suppress(OSError):  # it is there, or SQLite says what is wrong
            os.close(os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))
        # Another thread than the connection's user interrupts it.
        return {"database": self.path, "timeout": BUSY_S, "isolation_level": None, "check_same_thread": False}

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        if self.retention:
            connection.execute("PRAGMA auto_vacuum=INCREMENTAL")  # of a file that is still empty
        connection.execute("PRAGMA journal_mode=WAL")
        # The file stays whole whatever happens; power loss may take the last transactions.
        connection.execute("PRAGMA synchronous=NORMAL")
        self._file = self._identity()

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def stale(self) -> bool:
        """Whether the file was moved or replaced: nobody would see further rows."""
        return self.path != MEMORY and self._identity() != self._file

    def closing(self, connection: Any) -> None:
        """Put committed rows that stand in NAME-wal into the file: by its name, that belongs to the next file.

        SQLite does so itself when it closes a file, but not one that was moved away (seen with 3.40).
        """
        if not self.stale():
            return
        try:
            connection.rollback()
            for _ in range(CHECKPOINTS):  # a reader of the moved file may hold it up, for BUSY_S each time
                _, waiting, done = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
                if waiting == done:
                    return
            rows = f"its last rows stand in {self.path}-wal, since another program reads it"
        except sqlite3.Error as error:
            rows = f"its last rows may stand in {self.path}-wal: {error}"
        self.log.error("{instance}: {path} was moved away; {rows}", instance=self.instance, path=self.path, rows=rows)

    def columns(self, connection: Any) -> list[TableColumn]:
        schema = f"{self.quoted(self.schema)}." if self.schema else ""
        # table_xinfo: hidden is 2 or 3 for generated columns.
        rows = self._execute(connection, f"PRAGMA {schema}table_xinfo({self.quoted(self.name)})")
        keys = sum(1 for row in rows if row[5])
        self.alterable = not self._is_view(connection)
        found = [
            TableColumn(name, kind, bool(hidden) or (keys == 1 and bool(place) and kind.upper() == "INTEGER")
                        or (name == STORED_AT and default is not None))
            for _, name, kind, _, default, place, hidden in rows
        ]  # fmt: skip
        if self.retention and found:
            self._learn_time(self.retention, found)
        return found

    def _learn_time(self, retention: Retention, columns: list[TableColumn]) -> None:
        column = time_column(columns, self._retain_by)
        if column is None:
            raise TableError(f"table {self.table} has no column of times for retain", "set retain_by=, or retain=0")
        stored_at = any(column.name == STORED_AT for column in columns)
        retention.learn(column.name, parts_in(column, self._retain_by), stored_at)

    def ddl(self, keys: Iterable[Key]) -> str:
        """The statement to create the table; with `retain` it has a column more."""
        made = super().ddl(keys)
        if not self.retention:
            return made
        return (
            made.removesuffix("\n)") + f",\n  {STORED_AT} INTEGER DEFAULT (CAST(strftime('%s', 'now') AS INTEGER))\n)"
        )

    def make(self, connection: Any, keys: Iterable[Key]) -> None:
        keys = list(keys)
        key = time_key(keys, self._retain_by)
        if self.retention and key is None:
            raise TableError("retain needs a column of times in the table", "set retain_by=, or retain=0")
        super().make(connection, keys)

    def ready(self, connection: Any, values: Values, n: int) -> None:
        self.upkeep(connection)

    def upkeep(self, connection: Any) -> None:
        if self.retention:
            self.retention.upkeep(connection, self._create and self.alterable)

    def _is_view(self, connection: Any) -> bool:
        schema = f"{self.quoted(self.schema)}." if self.schema else ""
        query = f"SELECT 1 FROM {schema}sqlite_master WHERE type = 'view' AND lower(name) = lower(?)"
        return bool(self._execute(connection, query, self.name))

    def holds(self, column: TableColumn, key: Key) -> bool:
        """Text that looks like a number would become one in a column of numbers: 0123, or 1e5 in hexadecimal."""
        name = column.type.upper()
        return key.type.kind not in ("string", "octets", "list") or not name or any(w in name for w in _TEXTS)

    def change_ddl(self, column: TableColumn, key: Key) -> str:
        """SQLite changes no types: the old column gets another name, and create=1 adds the new one."""
        old = self.quoted(column.name + "_old")
        return f"ALTER TABLE {self.table} RENAME COLUMN {self.quoted(column.name)} TO {old}"

    def _exists(self, connection: Any, name: str) -> bool:
        schema = f"{self.quoted(self.schema)}." if self.schema else ""
        return bool(self._execute(connection, f"PRAGMA {schema}table_info({self.quoted(name)})"))

    def begin(self, connection: Any) -> None:
        connection.execute("BEGIN IMMEDIATE")

    def insert(self, connection: Any, values: Values, n: int, refused: Refused) -> None:
        """Many rows a statement, about a million rows a second of 12 columns, as long as all fit the table.

        After a refused row, the batch and the next one are inserted with a statement for each row, at half the speed.
        """
        columns = [(target, _list(found)) for target, found in values if found is not None]
        names = ", ".join(self.quoted(target.column) for target, _ in values)
        marks = ", ".join("NULL" if found is None else "?" for _, found in values)
        statement, row = f"INSERT INTO {self.table} ({names}) VALUES ", f"({marks})"
        lists = [found for _, found in columns]
        done = 0
        if not self._refused[1].rows:
            done = self._insert_together(connection, statement, row, lists, n)
        self._insert_singly(connection, statement + row, [found[done:] for found in lists], done, n, refused)

    @staticmethod
    def _insert_together(connection: Any, statement: str, row: str, lists: list[list], n: int) -> int:
        """Insert full statements of many rows; returns the number of rows inserted, 0 if one is refused."""
        width = len(lists)
        at_once = _PARAMETERS // max(width, 1)
        n -= n % at_once
        if not n:
            return 0
        flat = [None] * (n * width)
        for place, found in enumerate(lists):
            flat[place::width] = found[:n]
        step = at_once * width
        pieces = (flat[at : at + step] for at in range(0, len(flat), step)) if width else ((),) * (n // at_once)
        connection.execute(f"SAVEPOINT {_TOGETHER}")
        try:
            connection.executemany(statement + ", ".join([row] * at_once), pieces)
        except (sqlite3.IntegrityError, sqlite3.DataError):
            if not connection.in_transaction:  # ON CONFLICT ROLLBACK took the rows before it along
                raise
            connection.execute(f"ROLLBACK TO {_TOGETHER}")
            n = 0
        connection.execute(f"RELEASE {_TOGETHER}")
        return n

    @staticmethod
    def _insert_singly(
        connection: Any, statement: str, lists: list[list], first: int, n: int, refused: Refused
    ) -> None:
        """Insert row by row, from row number `first` of `n` on."""
        numbers, skipped = count(first + 1), 0
        numbered = zip(numbers, *(lists or [[None] * (n - first)]), strict=False)
        rows = map(itemgetter(slice(1, 1 + len(lists))), numbered)
        while True:
            try:
                connection.executemany(statement, rows)
                return
            except (sqlite3.IntegrityError, sqlite3.DataError) as error:
                if not connection.in_transaction:
                    raise
                # `rows` stands behind the row that was refused; each look at the number takes one away.
                refused.add(str(error), next(numbers) - 2 - skipped)
                skipped += 1

    def about_row(self, error: Exception) -> bool:
        return isinstance(error, sqlite3.IntegrityError | sqlite3.DataError)

    def fault(self, error: Exception) -> Fault | None:
        if not isinstance(error, sqlite3.Error):
            return None
        code = getattr(error, "sqlite_errorcode", None)
        if code is not None and code & 0xFF in _FAULTS:
            return _FAULTS[code & 0xFF]
        if "no such table" in str(error):
            return Fault("table", "make the table, or set create=1")
        return Fault("table" if code == sqlite3.SQLITE_ERROR else "refused", "see that the table fits the keys")

    def interrupt(self) -> None:
        connection = self.connection
        if connection is not None:
            try:
                connection.interrupt()
            except sqlite3.ProgrammingError:  # closed meanwhile
                pass


def _list(found: Found) -> list:
    """The values of a column for SQLite: numbers beyond 64 bits with sign become text."""
    values = canonical_list(found.values, found.key, found.missing)
    if isinstance(found.values, np.ndarray) and found.values.dtype == np.uint64 and found.values.ndim == 1:
        for row in np.flatnonzero(found.values >= np.uint64(1 << 63)).tolist():
            if values[row] is not None:
                values[row] = str(values[row])
    return values


class SQLITE3(SQLOutput):
    """Writes each row into a table of an SQLite file, one transaction a batch.

    Times are integers since 1970 in the unit of their key, addresses are text, octets are hexadecimal text. Numbers
    from 2**63 on are text, since SQLite's integers are signed. Rows wait while another program has locked the file.
    """

    name = "SQLITE3"
    options = (
        Option("db", words, None, "Path of the database file. With create=1 a missing file is made.", mandatory=True),
        *COMMON,
        *RETENTION,
    )

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """The directory of the database is there."""
        yield from super().obstacles()
        if text := unwritable(self.config.db):
            yield "db", text, True

    def wake(self, now: float) -> float:
        """Let go of a file that was moved away, before anybody opens the next one of its name."""
        if self.pool is not None and self._busy is None and self.database.stale():
            self._let_go()
        elif self.config.retain:
            super().wake(now)
        return LOOK_S

    def reopen(self) -> None:
        super().reopen()
        if self.pool is not None and self._busy is None:
            self._let_go()

    def _let_go(self) -> None:
        self.in_thread(self.writer.disconnect, self.pool).addErrback(self._not_closed)

    def _not_closed(self, failure: Failure) -> None:
        if isinstance(failure.value, Exception):
            self.fault(failure.value)

    def database_of(self) -> SQLite:
        config = self.config
        return SQLite(config.db, config.table, self.instance, config.retain, config.retain_by, config.create)

    def look(self) -> list[TableColumn] | None:
        path = Path(self.config.db)
        if not path.exists():
            return []
        # Not mode=ro: the last reader could then not tidy the WAL away. As root, SQLite gives it the file's owner.
        # `mode=rw` makes no file.
        uri = path.absolute().as_uri() + "?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=BUSY_S, isolation_level=None)
        try:
            return self.database.columns(connection)
        finally:
            connection.close()
