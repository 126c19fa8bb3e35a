"""Stores batches in a table of ClickHouse: one INSERT of one block each, with a token by which a repeat is known.

There are no transactions. A server that knows the token of an insert does not do it again, if the table has a
deduplication window. For another table the server's query log is asked before an insert is repeated; where it does not
know, the rows may be there twice, and are counted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ulogd_tw.core.batch import Past
from ulogd_tw.core.keys import Key
from ulogd_tw.storing.clickhouse import compression, faults, native
from ulogd_tw.storing.clickhouse.client import NoAnswer, ServerError, Way
from ulogd_tw.storing.clickhouse.ordering import order, terms
from ulogd_tw.storing.clickhouse.schema import LEAST_VERSION, Schema, column_line, quoted, text_literal
from ulogd_tw.storing.clickhouse.types import ColumnType, holds, parsed, type_for
from ulogd_tw.storing.clickhouse.values import Prepared, prepared
from ulogd_tw.storing.columns import TableColumn, Values, column_name
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.sifting import PROBED

_FILLED = ("MATERIALIZED", "ALIAS", "EPHEMERAL")
_SETTINGS = {
    "async_insert": 0, "insert_deduplicate": 1, "deduplicate_insert": "enable",
    "deduplicate_blocks_in_dependent_materialized_views": 1, "log_queries": 1,
}  # fmt: skip
"""Settings of an INSERT, for servers that have them."""
_TOKEN = "insert_deduplication_token"
_SYNCHRONOUS = ("distributed_foreground_insert", "insert_distributed_sync")
_WINDOW = re.compile(r"\bnon_replicated_deduplication_window\s*=\s*(\d+)")
_NO_WINDOW = re.compile(r"\breplicated_deduplication_window\s*=\s*0\b")
_LOCAL = re.compile(r"Distributed\(\s*'?[^,']*'?\s*,\s*'?([^,']*)'?\s*,\s*'?([^,')]*)'?")
_UNKNOWN_IDENTIFIER = (47, 386)
_FINISHED = {"QueryFinish", "2"}
_FAILED = {"ExceptionBeforeStart", "ExceptionWhileProcessing", "3", "4"}
"""Kinds of lines in the query log; 18.16 has numbers."""
_LAST_S = 2.0
"""Seconds for an answer at a stop."""


class ClickHouse(Database):
    """A table of one of several servers. `numbered`: a repeated insert is there once."""

    driver = "ulogd_tw.storing.clickhouse.client"
    quote = "`"

    def __init__(self, table: str, instance: str, way: Way, *, schema: Schema | None = None, cluster: str = "",
                 encoding: str = "none", nullable: bool = False) -> None:  # fmt: skip
        super().__init__(table, instance)
        self.way = way
        self.to_make = schema
        """The tables to be made; None for a table that is there."""
        self.table = ".".join(quoted(part) for part in (self.schema, self.name) if part)
        self.types: dict[str, ColumnType] = {}
        self.version = ""
        self.numbered = False
        self.sent = 0
        """Octets of all inserts, as they were on their way."""
        self._on = f" ON CLUSTER {quoted(cluster)}" if cluster else ""
        self._encoding = encoding
        self._nullable = nullable
        self._settings: dict[str, Any] = {}
        self._has: set[str] = set()
        self._engine = ""
        self._key: list[tuple[str, int]] = []
        self._doubtful_host = -1
        self._rolled_up = False

    # the connection

    def keywords(self) -> dict[str, Any]:
        return {"way": self.way}

    def opened(self, connection: Any) -> None:
        """Learn which release the server is, and which settings it has. One that says nothing is left for the next."""
        self.connection = connection
        names = ", ".join(map(text_literal, (*_SETTINGS, _TOKEN, *_SYNCHRONOUS)))
        try:
            self.version = connection.ask("SELECT version()")[0][0]
        except NoAnswer:
            self.way.next()
            raise
        self._has = {row[0] for row in connection.ask(f"SELECT name FROM system.settings WHERE name IN ({names})")}

    def number_batches(self, connection: Any) -> None:
        """Nothing: a batch is known by its token."""

    def stale(self) -> bool:
        return self.connection is not None and self.connection.closed_by_server()

    def interrupt(self) -> None:
        self.way.answer_s = self.way.connect_s = _LAST_S  # a stop does not wait for a server that says nothing
        if self.connection is not None:
            self.connection.cut()

    def fault(self, error: Exception) -> Fault | None:
        if faults.nothing_done(error):  # after a doubt the same server is asked again: others do not know the token
            self.way.next()
        return faults.meaning(error)

    def text(self, error: Exception) -> str:
        return faults.text_of(error)

    # the table

    def columns(self, connection: Any) -> list[TableColumn]:
        rows = connection.ask(
            f"SELECT name, type, default_kind FROM system.columns WHERE {self._where(self.schema, self.name)}"
        )
        self.types = {name: parsed(type_name) for name, type_name, _ in rows}
        if rows:
            self._learn(connection)
        return [TableColumn(name, type_name, kind in _FILLED, self.types[name].time) for name, type_name, kind in rows]

    def _where(self, database: str, names: str | Sequence[str], column: str = "table") -> str:
        listed = ", ".join(map(text_literal, [names] if isinstance(names, str) else names))
        return f"database = {text_literal(database or self.way.database)} AND {column} IN ({listed})"

    def _learn(self, connection: Any) -> None:
        """The engine, the sorting key, and whether inserts are deduplicated."""
        self._engine, full, key = self._described(connection, self.schema, self.name)
        self.alterable = not self._engine.endswith("View")
        if self._engine == "Distributed" and (local := _LOCAL.match(full)):
            inner, full, _ = self._described(connection, local[1], local[2])
        else:
            inner = self._engine
        self.numbered = _TOKEN in self._has and _deduplicates(inner, full)
        self._key = terms(key) or []
        self._settings = {name: value for name, value in _SETTINGS.items() if name in self._has}
        if self._engine == "Distributed":
            self._settings |= dict.fromkeys([name for name in _SYNCHRONOUS if name in self._has][:1], 1)

    def _described(self, connection: Any, database: str, name: str) -> tuple[str, str, str]:
        """The engine of a table, alone and with its settings, and the sorting key."""
        where = self._where(database, name, "name")
        try:
            found = connection.ask(f"SELECT engine, engine_full, sorting_key FROM system.tables WHERE {where}")
        except ServerError as error:
            if error.code not in _UNKNOWN_IDENTIFIER:
                raise
            found = [[*row, "", ""] for row in connection.ask(f"SELECT engine FROM system.tables WHERE {where}")]
        engine, full, key = found[0] if found else ("", "", "")
        return engine, full, key

    def make(self, connection: Any, keys: Iterable[Key]) -> None:
        """Make the table and its roll-ups. Raises `TableError` where the server is too old."""
        assert self.to_make is not None
        self._check_version()
        for statement in self.to_make.statements():
            connection.ask(statement)
        self._rolled_up = True
        self.log.info("{instance}: made the table {table}", instance=self.instance, table=self.table)

    def complete(self) -> None:
        """Make roll-ups that were configured since the table was made; else the user needs no right to make tables."""
        if self.to_make is None or self._rolled_up:
            return
        names = self.to_make.rollup_names()
        listed = f"SELECT name FROM system.tables WHERE {self._where(self.schema, names, 'name')}"
        if names and set(names) - {row[0] for row in self.connection.ask(listed)}:
            self._check_version()
            for statement in self.to_make.rollup_statements():
                self.connection.ask(statement)
        self._rolled_up = True

    def _check_version(self) -> None:
        numbers = tuple(int(number) for number in re.findall(r"\d+", self.version)[:2])
        if numbers < LEAST_VERSION:
            least = ".".join(map(str, LEAST_VERSION))
            raise TableError(
                f"create=1 needs ClickHouse {least} or later; this server is {self.version}",
                "make the table by hand and leave out create, or set another server",
            )

    def column_ddl(self, key: Key) -> str:
        return column_line(column_name(key.name), type_for(key, self._nullable))

    def add_ddl(self, keys: Iterable[Key]) -> list[str]:
        tables = [self.table]
        if self.to_make is not None and self.to_make.distributed:
            tables.insert(0, ".".join(quoted(part) for part in (self.schema, f"{self.name}_local") if part))
        return [f"ALTER TABLE {table}{self._on} ADD COLUMN {self.column_ddl(key)}" for key in keys for table in tables]

    def _execute(self, connection: Any, statement: str, *arguments: Any) -> list[tuple]:
        return [tuple(row) for row in connection.ask(statement)]

    def holds(self, column: TableColumn, key: Key) -> bool:
        return holds(parsed(column.type), key.type)

    def change_ddl(self, column: TableColumn, key: Key) -> str:
        return f"ALTER TABLE {self.table}{self._on} MODIFY COLUMN {quoted(column.name)} {type_for(key, self._nullable)}"

    # rows

    def store(self, connection: Any, values: Values, n: int, number: int, again: bool = False,
              past: Past | None = None) -> Refused:  # fmt: skip
        """Write one batch with one INSERT."""
        twice = self._maybe_twice(connection, n, number, again, past)
        if twice is None:
            return Refused()
        refused = Refused()
        columns, places = self._good(values, n, refused)
        if len(places):
            self._insert(connection, columns, len(places), self._own_token(number, past), number)
            refused.maybe_twice = twice
        self.in_doubt, self._doubtful_host = -1, -1
        return refused

    def sift(self, connection: Any, values: Values, n: int, number: int, past: Past | None = None) -> Refused:
        """As `store`, in halves, until the rows are alone for which the server has an error.

        Each half is an insert with a token of its own. Raises the error if no row goes through.
        """
        twice = self._maybe_twice(connection, n, number, True, past)
        if twice is None:
            return Refused()
        refused = Refused()
        columns, places = self._good(values, n, refused)
        bad = _Halves(self, connection, columns, self._own_token(number, past), number).run(len(places))
        for row, error in bad.items():
            refused.add(self.text(error), int(places[row]))
        refused.maybe_twice = twice
        self.in_doubt, self._doubtful_host = -1, -1
        return refused

    def _maybe_twice(self, connection: Any, n: int, number: int, again: bool, past: Past | None) -> int | None:
        """The rows that an earlier attempt may have stored, for which nothing makes sure; None if it did store all."""
        if past and past.run and not past.mark:
            return self._told(connection, token(past.run, past.number), n)
        if not again or self.in_doubt != number:
            return 0
        if self._doubtful_host not in (-1, connection.host) and not self._everywhere:
            return n
        return 0 if self.numbered else self._told(connection, self._own_token(number, past), n)

    def _told(self, connection: Any, token: str, n: int) -> int | None:
        """The rows that may be there by what the query log tells of a token; None if all are."""
        done = self.done(connection, token)
        return None if done else n if done is None else 0

    @property
    def _everywhere(self) -> bool:
        """Whether every server knows the tokens."""
        return self._engine.startswith(("Replicated", "Shared"))

    def _own_token(self, number: int, past: Past | None) -> str:
        return past.mark if past and past.mark else token(self.run, number)

    def _good(self, values: Values, n: int, refused: Refused) -> tuple[list[Prepared], np.ndarray]:
        """The columns, sorted by the table's key, without the rows that do not fit; the number of each row."""
        found = [
            prepared(target.column, self.types[target.column], value)
            for target, value in values
            if value is not None and target.column in self.types
        ]
        places = _fitting(found, n, refused)
        if len(places) < n:
            found = [column.take(places) for column in found]
        sorted_ = order(self._key, {column.name: column for column in found}) if self._key else None
        if sorted_ is None:
            return found, places
        return [column.take(sorted_) for column in found], places[sorted_]

    def _insert(self, connection: Any, columns: Sequence[Prepared], rows: int, token: str, number: int) -> None:
        """One INSERT."""
        names = ", ".join(quoted(column.name) for column in columns)
        body, encoding = compression.compressed(native.block([c.native() for c in columns], rows), self._encoding)
        self.sent += sum(map(len, body))
        settings = dict(self._settings)
        if self.numbered:
            settings[_TOKEN] = token
        try:
            connection.insert(f"INSERT INTO {self.table} ({names}) FORMAT Native", body, encoding, query_id=token,
                              **settings)  # fmt: skip
        except (NoAnswer, ServerError) as error:
            if faults.in_doubt(error):
                self.in_doubt, self._doubtful_host = number, connection.host
            raise

    def insert_rows(self, connection: Any, columns: Sequence[Prepared], rows: slice, token: str,
                    number: int) -> Exception | None:  # fmt: skip
        """Insert some rows; the error for which they may be to blame."""
        try:
            self._insert(connection, [c.take(rows) for c in columns], rows.stop - rows.start, token, number)
            return None
        except ServerError as error:
            fault = self.fault(error)
            if fault is None or not fault.of_rows:
                raise
            return error

    # what became of an insert

    def stored(self, connection: Any, number: int) -> Refused | None:
        return Refused() if self.done(connection, token(self.run, number)) else None

    def done(self, connection: Any, token: str) -> bool | None:
        """Whether the insert of a token is done, as the server's query log has it; None where that cannot be known."""
        try:
            connection.ask("SYSTEM FLUSH LOGS")
            rows = connection.ask(f"SELECT toString(type) FROM system.query_log WHERE query_id = {text_literal(token)}")
        except ServerError:
            return None
        kinds = {row[0] for row in rows}
        if kinds & _FINISHED:
            return True
        return False if kinds & _FAILED else None


class _Halves:
    """The rows of one batch that is sifted: halves are inserted until the bad rows are alone."""

    def __init__(self, database: ClickHouse, connection: Any, columns: Sequence[Prepared], token: str,
                 number: int) -> None:  # fmt: skip
        self._database, self._connection, self._columns = database, connection, columns
        self._token, self._number = token, number
        self._bad: dict[int, Exception] = {}

    def run(self, rows: int) -> dict[int, Exception]:
        """The bad rows, with the error of each. Raises the error if none of some rows goes through.

        A row alone has to blame where the error says so.
        """
        probed = np.unique(np.linspace(0, rows, PROBED + 1).astype(np.int64)).tolist()[:-1]
        tried = 0
        for start in probed:
            tried += 1
            error = self._try(start, start + 1)
            if error is None:
                break
            self._bad[start] = error
        odd = next((error for error in self._bad.values() if not faults.about_row(error)), None)
        if len(self._bad) == tried and odd is not None:
            raise odd
        for start, stop in zip(probed[:tried], [*probed[1:tried], rows], strict=True):
            if start + 1 < stop:
                self._halve(start + 1, stop)
        return self._bad

    def _try(self, start: int, stop: int) -> Exception | None:
        own = f"{self._token}-{start}-{stop}"
        return self._database.insert_rows(self._connection, self._columns, slice(start, stop), own, self._number)

    def _halve(self, start: int, stop: int) -> None:
        error = self._try(start, stop)
        if error is None:
            return
        if stop - start == 1:
            self._bad[start] = error
            return
        middle = (start + stop) // 2
        self._halve(start, middle)
        self._halve(middle, stop)


def _fitting(columns: Sequence[Prepared], n: int, refused: Refused) -> np.ndarray:
    """The numbers of the rows whose values all fit; the others are refused."""
    bad = np.full(n, not columns)
    for row in range(n if not columns else 0):
        refused.add("the row has no value for any column", row)
    for column in columns:
        if column.bad is not None:
            for row in np.flatnonzero(column.bad & ~bad).tolist():
                refused.add(f"the value does not fit column {column.name}, which is {column.type.name}", row)
            bad |= column.bad
    return np.flatnonzero(~bad)


def token(run: str, number: int) -> str:
    """The token of a write."""
    return f"{run}-{number}"


def _deduplicates(engine: str, full: str) -> bool:
    """Whether a table knows the tokens of its last inserts."""
    if engine.startswith(("Replicated", "Shared")):
        return not _NO_WINDOW.search(full)
    found = _WINDOW.search(full)
    return found is not None and int(found[1]) > 0
