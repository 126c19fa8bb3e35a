"""One connection to a database for SQLITE3 and MYSQL: blocking, in one thread, one transaction a batch.

A connection can die during a commit, and then nobody knows whether the rows are stored. So every transaction also
writes the number of its batch into the small table ``ulogd_tw_batches``. Before a batch is repeated, its number is
looked up there.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
from twisted.logger import Logger

from ulogd_tw.core.batch import Past
from ulogd_tw.core.keys import Key
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.readable import type_of
from ulogd_tw.storing.columns import TableColumn, Values, column_name
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.retention import Expired
from ulogd_tw.storing.sifting import Sifting, part

BATCHES = "ulogd_tw_batches"
KEPT_S = 86400
"""Seconds for which batch numbers of earlier runs are kept."""

# the connection

_BATCHES_COLUMNS = (
    "run VARCHAR(36) NOT NULL, instance VARCHAR(100) NOT NULL, number BIGINT NOT NULL, written_at BIGINT NOT NULL, "
    "PRIMARY KEY (run, instance)"
)


class Database:
    """A table in a database, through DB-API connections in autocommit mode; the caller opens them.

    All methods except `interrupt` are called by one thread at a time.
    """

    log = Logger()
    driver = ""
    """The DB-API module, by name."""
    mark = "?"
    """Placeholder of a value in a statement."""
    quote = '"'
    longest_name = 0
    """Maximum length of a column's name; 0: no limit."""
    upsert = ""
    """The statement to store the number of a batch, with {table} and values for run, instance, number, time."""
    type_names: Mapping[str, str] = {}
    """The column type of each key type, by its name or kind."""

    def __init__(self, table: str, instance: str) -> None:
        schema, _, name = table.rpartition(".")
        self.schema, self.name = schema, name
        self.table = ".".join(self.quoted(part) for part in (schema, name) if part)
        self.batches = ".".join(self.quoted(part) for part in (schema, BATCHES) if part)
        self.instance = instance[:100]
        self.run = str(uuid.uuid4())
        self.numbered = True
        """Whether batch numbers can be stored."""
        self.alterable = True
        """Whether a column can be added to the table, seen by `columns`; a view has none."""
        self.transactional = True
        """Whether rows can be taken back, seen by `columns`."""
        self.in_doubt = -1
        """The number of a batch whose commit got no answer."""
        self.expired = Expired()
        self.connection: Any = None
        self._refused = (0, Refused())
        self._known: Values | None = None
        """A row that was written."""

    # what each database does its own way

    def keywords(self) -> dict[str, Any]:
        """Arguments of the driver's `connect`."""
        raise NotImplementedError

    def opened(self, connection: Any) -> None:
        """Prepare a new connection."""
        self.connection = connection

    def ready(self, connection: Any, values: Values, n: int) -> None:
        """Make what rows need before their transaction begins, such as partitions."""

    def upkeep(self, connection: Any) -> None:
        """Remove rows that are old, and make partitions ahead. Often called; does nothing if it is too early."""

    def closing(self, connection: Any) -> None:
        """Leave whole what the connection has written; it is closed next. Raises nothing."""

    def stale(self) -> bool:
        """Whether the connection no longer leads to the configured database."""
        return False

    def columns(self, connection: Any) -> list[TableColumn]:
        """The columns of the table; none if there is no table."""
        raise NotImplementedError

    def _exists(self, connection: Any, name: str) -> bool:
        """Whether there is a table of this name."""
        raise NotImplementedError

    def begin(self, connection: Any) -> None:
        """Begin a transaction."""
        raise NotImplementedError

    def insert(self, connection: Any, values: Values, n: int, refused: Refused) -> None:
        """Insert `n` rows into the table; rows that do not fit it go to `refused`, by their numbers among the `n`."""
        raise NotImplementedError

    def fault(self, error: Exception) -> Fault | None:
        """The `Fault` for an exception of the driver; None for other exceptions."""
        raise NotImplementedError

    def text(self, error: Exception) -> str:
        """An exception for a log line."""
        return str(error)

    def interrupt(self) -> None:
        """Make a running call in another thread fail soon."""

    # what they do alike

    @classmethod
    def quoted(cls, name: str) -> str:
        """An identifier in quotes."""
        return cls.quote + name.replace(cls.quote, 2 * cls.quote) + cls.quote

    def ddl(self, keys: Iterable[Key]) -> str:
        """The statement to create the table with a column for each key."""
        lines = [self.column_ddl(key) for key in keys]
        return f"CREATE TABLE IF NOT EXISTS {self.table} (\n  " + ",\n  ".join(lines) + "\n)"

    def column_ddl(self, key: Key) -> str:
        """One line of `ddl`; also the text after ADD COLUMN."""
        # Times in micro- and nanoseconds fit into columns of signed integers.
        held = key.type if key.type.kind == "ntp" else type_of(key.type)
        type_name = self.type_names.get(held.name)
        if type_name is None:
            type_name = self.type_names[held.kind]
        return f"{self.quoted(column_name(key.name))} {type_name}".rstrip()

    def make(self, connection: Any, keys: Iterable[Key]) -> None:
        """Create the table."""
        self._execute(connection, self.ddl(keys))
        self.log.info("{instance}: made the table {table}", instance=self.instance, table=self.table)

    def add_columns(self, connection: Any, keys: list[Key]) -> None:
        """Add a column for each key. Raises `TableError` where the user of the service may not."""
        names = ", ".join(column_name(key.name) for key in keys)
        try:
            for statement in self.add_ddl(keys):
                self._execute(connection, statement)
        except Exception as error:
            fault = self.fault(error)
            if fault is None or fault.reason != "permission":
                raise
            remedy = "; ".join(self.add_ddl(keys)) + "; or set alter=0"
            raise TableError(f"table {self.table} has no column {names}: {self.text(error)}", remedy) from error
        self.log.info(
            "{instance}: added {columns} to the table {table}: {names}; older rows have NULL there",
            instance=self.instance, columns=plural(len(keys), "column"), table=self.table, names=names,
        )  # fmt: skip

    def add_ddl(self, keys: Iterable[Key]) -> list[str]:
        """The statements to add a column for each key."""
        return [f"ALTER TABLE {self.table} ADD COLUMN {self.column_ddl(key)}" for key in keys]

    def holds(self, column: TableColumn, key: Key) -> bool:
        """Whether the type of a column is good for the values of a key; a value too large is a matter of its row."""
        return True

    def change_ddl(self, column: TableColumn, key: Key) -> str:
        """The statement to give a column the type for a key."""
        _, _, type_name = self.column_ddl(key).rpartition(self.quote)
        return f"ALTER TABLE {self.table} MODIFY COLUMN {self.quoted(column.name)}{type_name}"

    def check_types(self, columns: Iterable[TableColumn], keys: Iterable[Key]) -> None:
        """Raises `TableError` for a column that cannot hold the values of its key."""
        by_column = {column_name(key.name).lower(): key for key in keys}
        for column in columns:
            key = by_column.get(column.name.lower())
            if key is not None and not column.automatic and not self.holds(column, key):
                raise TableError(
                    f"column {column.name} of table {self.table} is {column.type}, which does not fit {key.name} "
                    f"({key.type.name})",
                    f"{self.change_ddl(column, key)}; or leave the key out by keys=",
                )

    def number_batches(self, connection: Any) -> None:
        """Create the table of batch numbers if needed, and delete old ones; `numbered` is the result."""
        self.numbered = True
        old = int(time.time()) - KEPT_S
        try:
            if not self._exists(connection, BATCHES):  # CREATE wants the privilege also where the table is there
                self._execute(connection, f"CREATE TABLE IF NOT EXISTS {self.batches} ({_BATCHES_COLUMNS})")
            self._execute(connection, f"DELETE FROM {self.batches} WHERE written_at < {self.mark}", old)
        except Exception as error:
            fault = self.fault(error)
            if fault is None or fault.reason != "permission":
                raise
            self.numbered = False

    def store(
        self, connection: Any, values: Values, n: int, number: int, again: bool, past: Past | None = None
    ) -> Refused:
        """Write one batch in one transaction. `again`: an earlier attempt may have been committed unnoticed.

        `past`: an earlier run may have done so; then nothing is written.
        """
        if again and (stored := self.stored(connection, number)):
            return stored
        if past and self._stored_before(connection, past):
            return Refused()
        return self._commit(connection, values, n, number, Refused(), past)

    def sift(self, connection: Any, values: Values, n: int, number: int, past: Past | None = None) -> Refused:
        """As `store`, without the rows refused by an error about the whole statement.

        Raises this error if nothing shows that rows are the cause.
        """
        if stored := self.stored(connection, number):
            return stored
        if not self.transactional:  # rows that are tried would stay
            return self._commit(connection, values, n, number, Refused(), past)
        sifting = Sifting(values, n, partial(self._try, connection))
        sifting.run(partial(self._takes_others, connection, values))
        refused = Refused()
        for row, error in sifting.bad.items():
            refused.add(self.text(error), row)
        good, bad = sifting.good(), refused.rows
        refused = self._commit(connection, part(values, good), len(good), number, refused, past)
        refused.move(good, since=bad)
        return refused

    def _try(self, connection: Any, values: Values, n: int) -> Exception | None:
        """Insert rows and take them back; the error for which rows may be to blame."""
        try:
            self.begin(connection)
            self.insert(connection, values, n, Refused())
            return None
        except Exception as error:
            fault = self.fault(error)
            if fault is None or not fault.of_rows:
                raise
            return error
        finally:
            connection.rollback()

    def _takes_others(self, connection: Any, values: Values) -> bool:
        """Whether the table takes a row that it took before: one of ours, or a copy of one that is in it."""
        if self._known is not None and [t for t, _ in self._known] == [t for t, _ in values]:
            return self._try(connection, self._known, 1) is None
        try:
            self.begin(connection)
            return self.copy_row(connection, [target.column for target, _ in values])
        except Exception as error:
            return self.about_row(error)
        finally:
            connection.rollback()

    def copy_row(self, connection: Any, columns: list[str]) -> bool:
        """Insert a copy of a row of the table; False where it has none. Raises the driver's exceptions."""
        names = ", ".join(map(self.quoted, columns))
        cursor = connection.cursor()
        try:
            cursor.execute(f"INSERT INTO {self.table} ({names}) SELECT {names} FROM {self.table} LIMIT 1")
            return cursor.rowcount > 0
        finally:
            cursor.close()

    def about_row(self, error: Exception) -> bool:
        """Whether an error is about one row, such as a key that is there twice: then the table takes others."""
        raise NotImplementedError

    def _stored_before(self, connection: Any, past: Past) -> bool:
        """Whether an earlier run has committed this batch."""
        if not self.numbered:
            return False
        known = [(past.mark, 1)] if past.mark else []
        known += [(past.run, past.number)] if past.run else []
        return any(self.last_number(connection, run) >= number for run, number in known)

    def _commit(
        self, connection: Any, values: Values, n: int, number: int, refused: Refused, past: Past | None = None
    ) -> Refused:
        self.ready(connection, values, n)
        self.begin(connection)
        if self.numbered:
            statement = self.upsert.format(table=self.batches)
            self._execute(connection, statement, self.run, self.instance, number, int(time.time()))
            if past and past.mark:
                self._execute(connection, statement, past.mark, self.instance, 1, int(time.time()))
        already = refused.rows
        twice = self.in_doubt == number and not (self.numbered and self.transactional)
        if not self.transactional:
            self.in_doubt = number
        if n:
            self.insert(connection, values, n, refused)
        self._refused = (number, refused)
        self.in_doubt = number
        connection.commit()
        self.in_doubt = -1
        refused.maybe_twice = n if twice else 0
        if n and refused.rows == already:
            self._known = part(values, np.zeros(1, np.int64))
        return refused

    def stored(self, connection: Any, number: int) -> Refused | None:
        """The refused rows of a committed batch; None if it was not committed, or nobody can tell."""
        if not self.numbered or self.last_number(connection, self.run) < number:
            return None
        return self._refused[1] if self._refused[0] == number else Refused()

    def last_number(self, connection: Any, run: str) -> int:
        """The number of the last batch that a run has committed; -1: none."""
        mark = self.mark
        rows = self._execute(
            connection, f"SELECT number FROM {self.batches} WHERE run = {mark} AND instance = {mark}",
            run, self.instance,
        )  # fmt: skip
        return rows[0][0] if rows else -1

    def _execute(self, connection: Any, statement: str, *arguments: Any) -> list[tuple]:
        """The rows of one small statement."""
        cursor = connection.cursor()
        try:
            cursor.execute(statement, *([arguments] if arguments else []))
            return list(cursor.fetchall())
        finally:
            cursor.close()
