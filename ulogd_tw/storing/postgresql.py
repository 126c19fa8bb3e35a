"""A table on a PostgreSQL server: its statements, its types, and the `Fault` for each of its errors."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import psycopg

from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Found
from ulogd_tw.storing import postgresql_connection
from ulogd_tw.storing.columns import TableColumn, Values, column_name
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.postgresql_copy import about_row, copying, stating, write
from ulogd_tw.storing.postgresql_faults import meaning, reason, text_of
from ulogd_tw.storing.postgresql_partitions import STORED_AT, Partitions
from ulogd_tw.storing.postgresql_rows import Rows, as_literals, encoded
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.retention import time_column, time_key
from ulogd_tw.storing.sifting import part

SOCKETS = ("/run/postgresql", "/var/run/postgresql")
"""Directories of the sockets of a server on this host; not /tmp, where anybody can make one."""
FENCE_S = 5
"""Seconds for an earlier session of this service to end."""
LEFT_S = 60
"""At least so many seconds pass until the server ends a transaction of ours that nobody goes on with."""
MAKING = 0x756C6F67
"""The advisory lock under which tables are made."""
MOST_OCTETS = 1 << 18
"""Octets of a statement with many rows."""
_TABLE_KINDS = "rpf"
"""Relations that take COPY: tables, partitioned and foreign ones."""

_COLUMNS = """
SELECT a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod),
  pg_catalog.format_type(coalesce(nullif(t.typbasetype, 0), t.oid), NULL),
  a.attidentity <> '' OR a.attgenerated <> ''
    OR coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%%', false)
    OR (a.attname = 'stored_at' AND d.adbin IS NOT NULL),
  c.relkind
FROM pg_catalog.pg_attribute a
  JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
  JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = pg_catalog.to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""

PREPARED = "ulogd_tw_row"
_PARAMETERS = """
SELECT ARRAY(SELECT pg_catalog.format_type(t, NULL) FROM unnest(proargtypes) t)
FROM pg_catalog.pg_proc WHERE oid = pg_catalog.to_regproc(%s)
"""
_NUMERIC = ("unsigned", "signed", "float", "boolean", "seconds", "milliseconds", "ntp")
_POINTS = ("seconds", "milliseconds", "ntp", "unsigned")
_ADDRESSES = ("ipv4", "ipv6", "address", "string")
_TAKES = {
    "smallint": _NUMERIC, "integer": _NUMERIC, "bigint": _NUMERIC, "numeric": _NUMERIC, "real": _NUMERIC,
    "double precision": _NUMERIC, "boolean": ("boolean",), "timestamp with time zone": _POINTS,
    "timestamp without time zone": _POINTS, "date": _POINTS, "inet": _ADDRESSES, "cidr": _ADDRESSES,
    "macaddr": ("mac", "string", "octets"),
}  # fmt: skip
"""The kinds of keys that columns of these types are for; any other type takes any text."""


class PostgreSQL(Database):
    """A table on a PostgreSQL server."""

    driver = postgresql_connection.__name__
    mark = "%s"
    longest_name = 63
    upsert = (
        "INSERT INTO {table} (run, instance, number, written_at) VALUES (%s, %s, %s, %s) "
        "ON CONFLICT (run, instance) DO UPDATE SET number = EXCLUDED.number, written_at = EXCLUDED.written_at"
    )
    type_names = {
        "unsigned8": "smallint", "unsigned16": "integer", "unsigned32": "bigint", "unsigned64": "numeric(20)",
        "signed8": "smallint", "signed16": "smallint", "signed32": "integer", "signed64": "bigint", "float32": "real",
        "float64": "double precision", "boolean": "boolean", "seconds": "timestamptz", "milliseconds": "timestamptz",
        "dateTimeNanoseconds": "bigint", "ntp": "timestamptz", "ipv4": "inet", "ipv6": "inet", "address": "inet",
        "mac": "macaddr", "string": "text", "octets": "bytea", "list": "text",
    }  # fmt: skip

    def __init__(self, config: Any, instance: str) -> None:
        table = config.table if "." in config.table or not config.schema else f"{config.schema}.{config.table}"
        super().__init__(table, instance)
        self.config = config
        self.procedure = config.procedure.strip()
        self.relation = ""
        """The kind of relation, by pg_class.relkind; empty if it is not known."""
        self._partitions = (
            Partitions(self.table, self.name, self.instance, config.retain, self._execute, self.expired)
            if config.retain
            else None
        )
        self._hypertables = False
        """Whether TimescaleDB is there."""
        self._may_not = False
        """Whether partitions cannot be made for lack of rights."""
        self._found: list[tuple] = []
        self._kinds: dict[str, str] = {}
        self._session: tuple[int, Any] | None = None
        """Process and start of the server's side of the last connection."""

    # a new connection

    def keywords(self) -> dict[str, Any]:
        found = {"answer_s": self.config.timeout or None, "pass_file": self.config.pass_file}
        return found | self.parameters()

    def parameters(self) -> dict[str, Any]:
        """The parameters of libpq."""
        config = self.config
        found = {"client_encoding": "UTF8", "application_name": f"ulogd_tw {self.instance}",
                 "connect_timeout": max(2, round(config.connect_timeout or 3))}  # fmt: skip
        secret = {"password": config.pass_} if config.pass_ else {}
        if config.connstring:
            return found | postgresql_connection.parsed(config.connstring) | secret
        named = {"dbname": config.db, "user": config.user, "host": self.host(), "port": config.port or 5432}
        tls = {"sslrootcert": config.ssl_ca, "sslcert": config.ssl_cert, "sslkey": config.ssl_key,
               "sslmode": config.sslmode or ("verify-full" if config.ssl_ca else "")}  # fmt: skip
        return found | {name: value for name, value in (named | tls).items() if value} | secret

    def host(self) -> str:
        """The server's host, or the directory of its Unix socket."""
        name = f".s.PGSQL.{self.config.port or 5432}"
        if self.config.host:
            return self.config.host
        return next((place for place in SOCKETS if os.path.exists(f"{place}/{name}")), "localhost")

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        wait_s = self.config.timeout or 30
        connection.execute(
            f"SET standard_conforming_strings = on; SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; "
            f"SET lock_timeout = {round(wait_s * 500)}; "
            f"SET idle_in_transaction_session_timeout = {round(max(LEFT_S, 2 * wait_s) * 1000)}"
        )
        self._fence(connection)
        self._hypertables = self._partitions is not None and self._partitions.hypertables(connection)

    def _fence(self, connection: Any) -> None:
        """Wait until the session of the last connection has ended: its transaction may still be committed.

        The server may not notice a lost network, so the session is ended.
        """
        session = "pg_catalog.pg_stat_activity WHERE pid = %s AND backend_start = %s"
        last, rows = self._session, None
        if last:
            self._execute(connection, f"SELECT pg_catalog.pg_terminate_backend(pid) FROM {session}", *last)
            for _ in range(FENCE_S * 20):
                rows = self._execute(connection, f"SELECT pg_catalog.pg_sleep(0.05) FROM {session}", *last)
                if not rows:
                    break
        if rows:
            raise psycopg.errors.LockNotAvailable("an earlier connection of this service does not end")
        session = "pid = pg_catalog.pg_backend_pid()"
        rows = self._execute(connection, f"SELECT pid, backend_start FROM pg_catalog.pg_stat_activity WHERE {session}")
        self._session = (rows[0][0], rows[0][1]) if rows else None

    # tables

    def columns(self, connection: Any) -> list[TableColumn]:
        self._found = self._structure(connection)
        self.relation = self._found[0][4] if self._found else ""
        self._kinds = {name: base for name, _, base, *_ in self._found}
        self.alterable = self.relation in ("", "r", "p") and self.procedure.upper() == "INSERT"
        made = [
            TableColumn(name, kind, automatic or (place == 0 and name.startswith("_")), base.startswith("timestamp"))
            for place, (name, kind, base, automatic, _) in enumerate(self._found)
        ]
        if self._partitions and made:
            column = time_column((column for column in made if column.time), self.config.retain_by)
            name = column.name if column is not None else ""
            self._partitions.learn(name, self.relation == "p", self._kinds)
            if not name:
                raise TableError(f"table {self.table} has no column of times for retain", "set retain_by=, or retain=0")
        return made

    def holds(self, column: TableColumn, key: Key) -> bool:
        takes = _TAKES.get(self._kinds.get(column.name, ""))
        return takes is None or key.type.kind in takes or (column.integer and key.type.kind == "ipv4")

    def change_ddl(self, column: TableColumn, key: Key) -> str:
        name, _, type_name = self.column_ddl(key).rpartition(" ")
        return f"ALTER TABLE {self.table} ALTER COLUMN {name} TYPE {type_name} USING NULL"

    def _structure(self, connection: Any) -> list[tuple]:
        return self._execute(connection, _COLUMNS, self.table)

    def _exists(self, connection: Any, name: str) -> bool:
        place = ".".join(self.quoted(part) for part in (self.schema, name) if part)
        return self._execute(connection, "SELECT pg_catalog.to_regclass(%s) IS NOT NULL", place)[0][0]

    def number_batches(self, connection: Any) -> None:
        with self._alone(connection):
            super().number_batches(connection)

    def make(self, connection: Any, keys: Iterable[Key]) -> None:
        keys = list(keys)
        key = self._time_key(keys)
        with self._alone(connection):
            super().make(connection, keys)
            if self._partitions and key:
                self._make_parts(connection, column_name(key.name))

    def _make_parts(self, connection: Any, column: str) -> None:
        """Give a new table its partitions, or chunks."""
        assert self._partitions is not None
        self._partitions.column = column
        if self._hypertables:
            self._partitions.make_hypertable(connection, column)
        else:
            self._partitions.make_default(connection)

    @contextlib.contextmanager
    def _alone(self, connection: Any) -> Iterator[None]:
        """Make tables while no other instance does: two that begin together would fail (seen with 15)."""
        connection.execute(f"SELECT pg_catalog.pg_advisory_lock({MAKING})")
        yield  # after an error the session is ended, and with it the lock
        connection.execute(f"SELECT pg_catalog.pg_advisory_unlock({MAKING})")

    def add_ddl(self, keys: Iterable[Key]) -> list[str]:
        return [
            statement.replace(" ADD COLUMN ", " ADD COLUMN IF NOT EXISTS ", 1) for statement in super().add_ddl(keys)
        ]

    def _time_key(self, keys: Iterable[Key]) -> Key | None:
        return time_key((key for key in keys if self.column_ddl(key).endswith(" timestamptz")), self.config.retain_by)

    def ddl(self, keys: Iterable[Key]) -> str:
        """The statement to create the table; with `retain` it has a column more, and partitions by the time of rows."""
        keys = list(keys)
        made = super().ddl(keys)
        if not self._partitions:
            return made
        key = self._time_key(keys)
        if key is None:
            raise TableError("retain needs a column of times in the table", "set retain_by=, or retain=0")
        made = made.removesuffix("\n)") + f",\n  {STORED_AT} timestamptz NOT NULL DEFAULT now()\n)"
        return made if self._hypertables else made + self._partitions.ddl_tail(column_name(key.name))

    def ready(self, connection: Any, values: Values, n: int) -> None:
        """Make the partitions of the rows, and remove what is old."""
        if self._partitions:
            column = self._partitions.column
            self._keep(connection, next((found for target, found in values if target.column == column), None))

    def upkeep(self, connection: Any) -> None:
        self._keep(connection, None)

    def _keep(self, connection: Any, times: Found | None) -> None:
        """Keep the table in order; rows can be written all the same if that fails, but for a lost connection."""
        partitions = self._partitions
        if not partitions or self._may_not:
            return
        try:
            partitions.make(connection, partitions.days_of(times))
            partitions.upkeep(connection)
        except psycopg.Error as error:
            fault = meaning(error)
            if not error.sqlstate or fault is None or fault.reason == "away":
                raise
            partitions.postpone()
            self._may_not = isinstance(error, psycopg.errors.InsufficientPrivilege)
            remedy = "; make the user its owner" if self._may_not else ""
            if not fault.transient:
                self.log.warn(
                    "{instance}: partitions of {table} are not made, or old rows stay: {error}{remedy}",
                    instance=self.instance, table=self.table, error=self.text(error), remedy=remedy,
                )  # fmt: skip

    def _execute(self, connection: Any, statement: str, *arguments: Any) -> list[tuple]:
        with connection.cursor() as cursor:
            cursor.execute(statement, arguments or None)
            return list(cursor.fetchall()) if cursor.description else []

    # rows

    def begin(self, connection: Any) -> None:
        connection.execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE")  # deferred ones would fail at the commit

    def insert(self, connection: Any, values: Values, n: int, refused: Refused) -> None:
        """One COPY of all rows, binary if every column has such a form; 300,000 rows of 12 columns a second."""
        names = [target.column for target, _ in values]
        kinds = [self._kinds.get(name, "") for name in names]
        columns = ", ".join(map(self.quoted, names))
        if self.procedure.upper() == "INSERT" and self.relation in _TABLE_KINDS:
            rows, numbers = self._fitting(values, n, refused, lambda some, k: encoded(some, kinds, k))
            form = "binary" if rows.binary else "text"
            send = copying(connection, f"COPY {self.table} ({columns}) FROM STDIN (FORMAT {form})", rows)
        else:
            head, lead, end = self._prepared(connection, len(names)) or self._statement(columns)
            rows, numbers = self._fitting(values, n, refused, lambda some, k: as_literals(some, kinds, k, lead, end))
            send = stating(connection, head, rows, 2 if head else 0, MOST_OCTETS)
        at = numbers.tolist()
        write(connection, len(at), send, lambda row, error: refused.add(reason(error), at[row]), self.name)
        if rows.binary and self._structure(connection) != self._found:
            raise TableError(f"table {self.table} was altered meanwhile", "no need to do anything")

    def _prepared(self, connection: Any, n: int) -> tuple[bytes, bytes, bytes] | None:
        """As `_statement`, for a function without others of its name: arguments then have the types of its parameters.

        A number is no argument for a smallint, but the value of a prepared statement's parameter can be one.
        """
        if self.procedure.partition(" ")[0].upper() in ("INSERT", "CALL"):
            return None
        found = self._execute(connection, _PARAMETERS, self.procedure)
        if not found or len(found[0][0]) != n:
            return None
        if not self._execute(connection, f"SELECT 1 FROM pg_prepared_statements WHERE name = '{PREPARED}'"):
            places = ", ".join(f"${place + 1}" for place in range(n))
            types = f" ({', '.join(found[0][0])})" if n else ""
            connection.execute(f"PREPARE {PREPARED}{types} AS SELECT {self.procedure}({places})")
        return b"", f"EXECUTE {PREPARED}(".encode(), b");"

    def _statement(self, columns: str) -> tuple[bytes, bytes, bytes]:
        """The text before all rows, before each row, and behind each row."""
        if self.procedure.partition(" ")[0].upper() == "INSERT":
            head = self.procedure if " " in self.procedure else f"INSERT INTO {self.table}"
            return f"{head} ({columns}) VALUES\n".encode(), b"(", b"),"
        call = self.procedure if self.procedure.upper().startswith("CALL ") else f"SELECT {self.procedure}"
        return b"", f"{call}(".encode(), b");"

    @staticmethod
    def _fitting(values: Values, n: int, refused: Refused, encode: Any) -> tuple[Rows, np.ndarray]:
        """The rows that PostgreSQL's types can hold, encoded, and their numbers in the batch."""
        rows, numbers = encode(values, n), np.arange(n)
        if rows.refused:
            bad = np.logical_or.reduce(list(rows.refused.values()))
            for text, mask in rows.refused.items():
                for row in np.flatnonzero(mask).tolist():
                    refused.add(text, row)
            numbers = np.flatnonzero(~bad)
            rows = encode(part(values, numbers), len(numbers))
        return rows, numbers

    def copy_row(self, connection: Any, columns: list[str]) -> bool:
        return self.procedure.upper() == "INSERT" and super().copy_row(connection, columns)

    # errors

    def about_row(self, error: Exception) -> bool:
        return about_row(error)

    def fault(self, error: Exception) -> Fault | None:
        return meaning(error)

    def text(self, error: Exception) -> str:
        return text_of(error)

    def interrupt(self) -> None:
        """Shut the socket of the connection; a waiting thread gets an error at once."""
        if self.connection is not None:
            self.connection.cut()
