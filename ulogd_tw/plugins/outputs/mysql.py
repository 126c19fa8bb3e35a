"""MYSQL: writes rows into a table of a MySQL or MariaDB server."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pymysql

from ulogd_tw.core.keys import Key
from ulogd_tw.core.options import Option, boolean, number, octets, one_of, seconds
from ulogd_tw.core.options import text as words
from ulogd_tw.core.paths import input_file
from ulogd_tw.core.regular_file import read_regular
from ulogd_tw.storing import mysql_connection
from ulogd_tw.storing.columns import TableColumn, Values, column_name
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.mysql_load import Loading
from ulogd_tw.storing.mysql_partitions import STORED_AT, Partitions, partitions_ddl
from ulogd_tw.storing.mysql_text import literals
from ulogd_tw.storing.passwords import PASS_FILE, mistaken_password
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.retention import RETENTION, parts_in, parts_of_a_second, time_column, time_key
from ulogd_tw.storing.sql_output import COMMON, CONNECT_S, SQLOutput

SOCKETS = ("/run/mysqld/mysqld.sock", "/var/run/mysqld/mysqld.sock", "/var/lib/mysql/mysql.sock")
"""Usual sockets of a server on this host, as libmysqlclient has them; not /tmp/mysql.sock, which anybody can make."""
_AUTOMATIC = ("auto_increment", "virtual", "stored", "persistent")
"""MySQL's words for columns that fill themselves."""
_STORED_AT = f"`{STORED_AT}` TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP"
_WITHOUT_TRANSACTIONS = ("MyISAM", "Aria", "MEMORY", "CSV", "ARCHIVE")
SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
"""Values that do not fit are refused instead of cut, and backslash escapes work, for any default of the server."""
LONGEST_CONNECT_S = 31536000
"""The longest time that pymysql takes."""
FENCE_S = 5
"""Seconds for a killed session of this service to end."""

_NUMBERS = ("tinyint", "smallint", "mediumint", "int", "bigint", "decimal", "float", "double", "bit")
_TIMES = ("date", "time", "datetime", "timestamp", "year")
"""MySQL's types for what is no number of seconds."""

# Server errors that are about a row, not the statement: data exceptions, violated constraints, a trigger's SIGNAL.
_ROW_ERRORS = frozenset({
    1048, 1062, 1169, 1216, 1263, 1264, 1265, 1292, 1366, 1367, 1406, 1411, 1441, 1452, 1526, 1557, 1586, 1644, 1690,
    1748, 3140, 3819, 4025, 4078,
})  # fmt: skip

_NO_SUCH_THREAD, _LOCK_WAIT_TIMEOUT = 1094, 1205
_LOGIN = (1045, 1698)
_PERMISSION = (1044, 1142, 1143, 1227, 1370, 1410)
_READ_ONLY = (1036, 1290, 1792, 1836)
_FAULTS = (
    (Fault("permission", "grant the user INSERT and SELECT on the table"), _PERMISSION),
    (Fault("permission", "correct user= and pass=, or make this account for this host: CREATE USER"), _LOGIN),
    (Fault("permission", "set ssl_ca to the CA of the server's certificate, or socket= to its Unix socket"),
     (mysql_connection.REFUSED, mysql_connection.NO_TLS)),
    (Fault("permission", "make the file readable for the user of the service"), (mysql_connection.NO_PASSWORD,)),
    (Fault("read_only", "the server takes no writes; is it a replica?"), _READ_ONLY),
    (Fault("table", "make the database and the table, or set create=1"), (1049, 1146)),
    (Fault("table", "see that the table fits the keys, or make it anew"), (1054, 1136, 1364)),
    (Fault("table", "", transient=True), (1060,)),  # another program has added the same column just now
    (Fault("procedure", "make it, or set procedure=INSERT"), (1305, 1318)),
    (Fault("full", "make room on the disk of the server"), (1021, 1114, 3, 28)),
    (Fault("locked", "", transient=True), (1205, 1213, 1099, 1100)),
    (Fault("away", "", transient=True), (
        1040, 1053, 1077, 1080, 1081, 1129, 1152, 1153, 1158, 1159, 1160, 1161, 1184, 1203, 1226, 1317, 1927, 2002,
        2003, 2005, 2006, 2013, 2014, 2027, 2055, 3159, 4031,
    )),
)  # fmt: skip
_FAULT_OF = {code: fault for fault, codes in _FAULTS for code in codes}


class MySQL(Database):
    """A table on a MySQL or MariaDB server."""

    driver = mysql_connection.__name__
    mark = "%s"
    quote = "`"
    longest_name = 64
    upsert = (
        "INSERT INTO {table} (run, instance, number, written_at) VALUES (%s, %s, %s, %s) "
        "ON DUPLICATE KEY UPDATE number = VALUES(number), written_at = VALUES(written_at)"
    )
    type_names = {
        "unsigned8": "TINYINT UNSIGNED", "unsigned16": "SMALLINT UNSIGNED", "unsigned32": "INT UNSIGNED",
        "unsigned64": "BIGINT UNSIGNED", "signed8": "TINYINT", "signed16": "SMALLINT", "signed32": "INT",
        "signed64": "BIGINT", "float32": "FLOAT", "float64": "DOUBLE", "boolean": "BOOLEAN", "seconds": "INT UNSIGNED",
        "milliseconds": "BIGINT UNSIGNED", "ntp": "BIGINT UNSIGNED", "ipv4": "VARCHAR(45)", "ipv6": "VARCHAR(45)",
        "address": "VARCHAR(45)", "mac": "CHAR(17)", "string": "MEDIUMTEXT", "octets": "MEDIUMTEXT",
        "list": "MEDIUMTEXT",
    }  # fmt: skip

    def __init__(self, config: Any, instance: str) -> None:
        super().__init__(config.table, instance)
        self.config = config
        self.procedure = config.procedure
        self.most_octets = 1 << 20
        """Maximum octets of a statement (max_allowed_packet)."""
        self.partitions = (
            Partitions(self.table, instance, config.retain, self._execute, self.expired) if config.retain else None
        )
        self.loading = Loading(config.load_data and self._inserts, self.table, instance)

    def keywords(self) -> dict[str, Any]:
        config = self.config
        within = min(config.connect_timeout or CONNECT_S, LONGEST_CONNECT_S)
        found = {
            "user": config.user, "password": config.pass_, "database": config.db, "charset": "utf8mb4",
            "sql_mode": SQL_MODE, "autocommit": True, "connect_timeout": within,
            "read_timeout": within, "write_timeout": within, "local_infile": self.loading.wanted,
            "pass_file": config.pass_file,
        }  # fmt: skip
        if path := self.socket_path():
            return found | {"unix_socket": path}
        found |= {"any_tls": config.ssl_verify == "none"} | self._tls()
        if config.server_public_key:
            found["server_public_key"] = read_regular(config.server_public_key)
        return found | {"host": config.host or "localhost", "port": config.port or 3306}

    def _tls(self) -> dict[str, Any]:
        """Arguments for a connection that must have TLS; without them it has TLS if the server has."""
        config = self.config
        found = {name: getattr(config, name) for name in ("ssl_ca", "ssl_cert", "ssl_key") if getattr(config, name)}
        if config.ssl_ca and config.ssl_verify != "none":
            found |= {"ssl_verify_cert": True, "ssl_verify_identity": config.ssl_verify == "identity"}
        return found

    def socket_path(self) -> str | None:
        """The Unix socket of the server, or None for TCP."""
        config = self.config
        if config.socket:
            return config.socket
        if config.host in ("", "localhost") and not config.port:
            return next((path for path in SOCKETS if os.path.exists(path)), None)
        return None

    # a new connection

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        if self._tls() and not self.socket_path() and not connection.encrypted:
            raise pymysql.OperationalError(mysql_connection.NO_TLS, "the server does not speak TLS")
        # pymysql's connect_timeout does not bound the handshake, read_timeout does; it has no public name later on.
        connection._read_timeout = connection._write_timeout = self.config.timeout
        self.most_octets = self._execute(connection, "SELECT @@max_allowed_packet")[0][0]
        self.loading.ask(connection)
        self._fence(connection)

    def _fence(self, connection: Any) -> None:
        """Wait until an earlier session of this service has ended: its transaction may still be committed.

        A named lock identifies the session. The server may not notice a lost network, so the session is killed.
        """
        name = f"ulogd_tw {self.run}"
        try:
            if self._lock(connection, name, 0):
                return
            holder = self._execute(connection, "SELECT IS_USED_LOCK(%s)", name)[0][0]
            if holder is not None:
                try:
                    self._execute(connection, f"KILL CONNECTION {holder:d}")
                except pymysql.MySQLError as error:
                    if error.args[0] != _NO_SUCH_THREAD:
                        raise
            if self._lock(connection, name, FENCE_S):
                return
        except (pymysql.NotSupportedError, pymysql.InternalError, pymysql.ProgrammingError) as error:
            self.log.debug("{instance}: no named locks: {error}", instance=self.instance, error=error)  # Galera
            return
        raise pymysql.OperationalError(_LOCK_WAIT_TIMEOUT, "an earlier connection of this service does not end")

    def _lock(self, connection: Any, name: str, wait_s: int) -> bool:
        return self._execute(connection, "SELECT GET_LOCK(%s, %s)", name, wait_s)[0][0] == 1

    def columns(self, connection: Any) -> list[TableColumn]:
        kind = self._kind(connection, self.name)
        self.alterable = kind in ("", "BASE TABLE") and self._inserts
        if not kind:
            return []
        rows = self._execute(connection, f"SHOW COLUMNS FROM {self.table}")
        found = [
            TableColumn(name, kind, any(word in extra.lower() for word in _AUTOMATIC) or _fills_itself(name, default))
            for name, kind, _, _, default, extra in rows
        ]
        if self.partitions and kind == "BASE TABLE":
            self._learn_time(connection, found)
        self.loading.look_at(found, self.transactional and kind == "BASE TABLE")
        return _as_parameters(found, self._parameters(connection))

    def _learn_time(self, connection: Any, columns: list[TableColumn]) -> None:
        column = time_column((column for column in columns if column.integer), self.config.retain_by)
        if column is None:
            raise TableError(f"table {self.table} has no column of times for retain", "set retain_by=, or retain=0")
        unit = parts_in(column, self.config.retain_by)
        self.partitions.learn(connection, self.schema, self.name, column.name, unit)

    def ready(self, connection: Any, values: Values, n: int) -> None:
        self.upkeep(connection)

    def upkeep(self, connection: Any) -> None:
        if self.partitions:
            self.partitions.upkeep(connection)

    def _parameters(self, connection: Any) -> list[str]:
        """The types of the procedure's parameters; none where rows are inserted, or the user may not see them."""
        word, _, rest = self.procedure.strip().partition(" ")
        if word.upper() == "INSERT":
            return []
        name = (rest.strip() if word.upper() == "CALL" else word).replace("`", "")
        schema, _, name = name.rpartition(".")
        rows = self._execute(
            connection,
            "SELECT DTD_IDENTIFIER FROM information_schema.PARAMETERS WHERE SPECIFIC_SCHEMA = COALESCE(%s, DATABASE()) "
            "AND SPECIFIC_NAME = %s AND ORDINAL_POSITION > 0 ORDER BY ORDINAL_POSITION",
            schema or None, name,
        )  # fmt: skip
        return [kind for (kind,) in rows]

    @property
    def _inserts(self) -> bool:
        """Whether rows are inserted into the table itself, by a plain INSERT."""
        return self.procedure.strip().upper() == "INSERT"

    def _exists(self, connection: Any, name: str) -> bool:
        return bool(self._kind(connection, name))

    def _kind(self, connection: Any, name: str) -> str:
        """BASE TABLE or VIEW; empty if there is none. A table invisible to the user counts as missing."""
        rows = self._execute(
            connection,
            "SELECT ENGINE, TABLE_TYPE FROM information_schema.TABLES "
            "WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s",
            self.schema or None, name,
        )  # fmt: skip
        if name == self.name:
            self.transactional = not rows or rows[0][0] not in _WITHOUT_TRANSACTIONS
        if rows and rows[0][0] in _WITHOUT_TRANSACTIONS:
            self.log.warn(
                "{instance}: table {table} has no transactions ({engine}): rows of a repeated batch may be "
                "stored twice; ALTER TABLE {table} ENGINE=InnoDB",
                instance=self.instance, table=self.table, engine=rows[0][0],
            )  # fmt: skip
        return str(rows[0][1]) if rows else ""

    def holds(self, column: TableColumn, key: Key) -> bool:
        word = re.split(r"\W", column.type.lower(), maxsplit=1)[0]
        if word in _NUMBERS:
            return key.type.numeric or (key.type.kind == "ipv4" and column.integer)
        return word not in _TIMES

    def add_ddl(self, keys: Iterable[Key]) -> list[str]:
        return [f"ALTER TABLE {self.table} " + ", ".join(f"ADD COLUMN {self.column_ddl(key)}" for key in keys)]

    def ddl(self, keys: Iterable[Key]) -> str:
        """The statement to create the table; with `retain` it has a column more, and partitions by the time of rows."""
        lines, end = [self.column_ddl(key) for key in keys], ""
        if self.partitions:
            lines = ["`id` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT", *lines, _STORED_AT, "KEY (`id`)"]
            end = self._partitions_ddl(list(keys))
        else:
            lines.insert(0, "`id` BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY")
        body = ",\n  ".join(lines)
        return f"CREATE TABLE IF NOT EXISTS {self.table} (\n  {body}\n) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4{end}"

    def _partitions_ddl(self, keys: list[Key]) -> str:
        key = time_key((key for key in keys if "INT" in self.column_ddl(key)), self.config.retain_by)
        if key is None:
            raise TableError("retain needs a column of times in the table", "set retain_by=, or retain=0")
        column, unit = self.quoted(column_name(key.name)), parts_of_a_second(key)
        return partitions_ddl(column, unit, self.config.retain, time.time())

    # rows

    def begin(self, connection: Any) -> None:
        connection.begin()

    def insert(self, connection: Any, values: Values, n: int, refused: Refused) -> None:
        """By LOAD DATA LOCAL, where that is possible and all rows fit; else by statements of many rows each."""
        if not self._refused[1].rows and self.loading.load(connection, values, n, self.about_row):
            return
        self._insert_by_statements(connection, values, n, refused)

    def _insert_by_statements(self, connection: Any, values: Values, n: int, refused: Refused) -> None:
        """The statements are built by NumPy: MariaDB takes 150,000 rows of 12 columns a second."""
        head, many = self._statement([target.column for target, _ in values])
        first = 0
        for piece, rows in literals(values, n):
            if many:
                self._insert(connection, head, piece, range(first, first + rows), refused)
            else:
                for row, line in enumerate(piece.split(b"\n")[:-1], first):
                    self._insert(connection, head, line + b"\n", range(row, row + 1), refused)
            first += rows

    def _statement(self, columns: list[str]) -> tuple[bytes, bool]:
        """The text before the rows, and whether many may follow: a procedure takes one."""
        procedure = self.procedure.strip()
        word, _, rest = procedure.partition(" ")
        if word.upper() == "INSERT":
            names = ", ".join(map(self.quoted, columns))
            return f"{procedure if rest else f'INSERT INTO {self.table}'} ({names}) VALUES\n".encode(), True
        if word.upper() == "CALL":
            return f"CALL {rest.strip()}".encode(), False
        return f"SELECT {procedure}".encode(), False

    def _insert(self, connection: Any, head: bytes, rows: bytes, numbers: range, refused: Refused) -> None:
        """Insert rows of these numbers at once; on a refusal halve them, and so on. A refused statement inserts
        nothing."""
        reason = ""
        if len(head) + len(rows) >= self.most_octets:
            reason = "larger than the server's max_allowed_packet"
        else:
            try:
                self._query(connection, head + rows[:-2])
            except pymysql.MySQLError as error:
                if error.args[0] not in _ROW_ERRORS:
                    raise
                reason = _reason(error)
        if reason and len(numbers) == 1:
            refused.add(reason, numbers[0])
        elif reason:
            lines, middle = rows.split(b"\n")[:-1], len(numbers) // 2
            for half in (slice(0, middle), slice(middle, None)):
                self._insert(connection, head, b"\n".join(lines[half]) + b"\n", numbers[half], refused)

    def _query(self, connection: Any, statement: bytes) -> None:
        cursor = connection.cursor()
        try:
            cursor.execute(statement)
            while cursor.nextset():  # what a procedure gives back
                pass
        except (pymysql.Error, OSError):
            raise
        except Exception as error:  # pymysql raises all sorts of things at an answer that is none
            raise mysql_connection.malformed(error) from error

    def copy_row(self, connection: Any, columns: list[str]) -> bool:
        return self._inserts and super().copy_row(connection, columns)

    def about_row(self, error: Exception) -> bool:
        return isinstance(error, pymysql.MySQLError) and bool(error.args) and error.args[0] in _ROW_ERRORS

    def fault(self, error: Exception) -> Fault | None:
        if isinstance(error, OSError):
            return Fault("away", transient=True)
        if not isinstance(error, pymysql.Error):
            return None
        code = error.args[0] if error.args else 0
        if code in _FAULT_OF:
            return _FAULT_OF[code]
        if isinstance(error, pymysql.InterfaceError):
            return Fault("away", transient=True)
        return Fault("server")

    def text(self, error: Exception) -> str:
        if isinstance(error, pymysql.Error) and len(error.args) > 1:
            return f"{error.args[1]} (error {error.args[0]})"
        return str(error)

    def interrupt(self) -> None:
        """Shut the socket of the connection; a reading thread gets an error at once."""
        # pymysql has no public name for its socket, and close() would wait for the one who reads.
        held = getattr(self.connection, "_sock", None)
        if held is not None:
            try:
                held.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def _fills_itself(name: str, default: Any) -> bool:
    """Whether a column is the one with the time when a row was stored."""
    return name == STORED_AT and default is not None


def _as_parameters(columns: list[TableColumn], types: list[str]) -> list[TableColumn]:
    """The columns whose values are arguments of a procedure, with the types of its parameters.

    The first column may be left out of the call, as ulogd2 does. Where the numbers differ otherwise, the columns stay.
    """
    first = len(columns) - len(types)
    if not types or first not in (0, 1):
        return columns
    return [
        *columns[:first],
        *(replace(column, type=kind) for column, kind in zip(columns[first:], types, strict=True)),
    ]


def _reason(error: Exception) -> str:
    """The server's text, without the row's number, so that equal reasons are equal."""
    return str(error.args[1] if len(error.args) > 1 else error).partition(" at row ")[0]


class MYSQL(SQLOutput):
    """Writes each row into a table of a MySQL or MariaDB server, with one transaction and few statements a batch.

    Times are integers since 1970 in the unit of their key. Addresses are text (in an integer column, IPv4 addresses are
    numbers). Octets are hexadecimal text; a column or parameter of a binary type (BINARY, VARBINARY, BLOB) gets them as
    they are, and addresses as octets if it has their size. A lost connection is made again, and uncommitted rows are
    then written, exactly once. With retain, a table that create=1 makes has a partition for each day of UTC, made ahead
    and dropped when it is old; its column stored_at tells when a row was stored.
    """

    name = "MYSQL"
    skips_first = True
    options = (
        Option("db", words, None, "Name of the database.", mandatory=True),
        Option("host", words, "", "Name or address of the server. Empty, or localhost without port: a Unix socket of "
               "this host."),
        Option("port", number, 0, "Port of the server. 0: 3306."),
        Option("socket", words, "", "Path of a Unix socket of the server, instead of host and port."),
        Option("user", words, "", "User name at the server."),
        Option("pass", words, "", "Password of the user."),
        PASS_FILE,
        *COMMON,
        *RETENTION,
        Option("ssl_ca", input_file, "", "File with the CAs of the server (PEM): the connection must have TLS, and the "
               "server a certificate of one of them. Empty: TLS if the server has it, and the password is only sent as "
               "a hash. A Unix socket needs none."),
        Option("ssl_cert", input_file, "", "File with our certificate for the server (PEM). Empty: none."),
        Option("ssl_key", input_file, "", "File with the private key of ssl_cert (PEM)."),
        Option("ssl_verify", one_of("identity", "ca", "none"), "identity", "Check of the server's certificate. "
               "identity: signed by a CA in ssl_ca, with the name in host; ca: signed by a CA in ssl_ca; none: no "
               "check, so that an impostor can read the password."),
        Option("server_public_key", input_file, "", "File with the public RSA key of a MySQL server (PEM), for "
               "accounts with caching_sha2_password or sha256_password without TLS. Empty: none."),
        Option("connect_timeout", seconds, 0.0, "Seconds within which the connection must be made. 0: 3."),
        Option("timeout", seconds, 30.0, "Seconds within which the server must answer a statement."),
        Option("load_data", boolean, True, "1: rows are sent by LOAD DATA LOCAL, about twice as fast, where the server "
               "has local_infile=ON, procedure is INSERT, and the table has transactions. Rows that do not fit are "
               "sorted out by INSERT. The service sends its rows only, never a file. 0: always INSERT."),
        Option("procedure", words, "INSERT", 'How rows are written. INSERT: into table; "INSERT IGNORE INTO x": with '
               'this statement, for the columns of table; "CALL p" or the name of a function: one call for each row '
               "with the values of the columns of table, about 10,000 rows a second."),
        Option("backlog_memcap", octets, 0, "No effect; see queue_rows and queue_octets."),
        Option("backlog_oneshot_requests", number, 10, "No effect; waiting rows are written in large batches."),
        Option("ring_buffer_size", number, 0, "No effect; a separate thread always writes the rows."),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.connect_s = self.config.connect_timeout or CONNECT_S

    def mistakes(self) -> Iterator[tuple[str, str]]:
        yield from super().mistakes()
        yield from mistaken_password(self.config)

    @property
    def where(self) -> str:
        config = self.config
        server = self.database.socket_path() or f"{config.host or 'localhost'}:{config.port or 3306}"
        return f"{config.db} on {server}"

    def database_of(self) -> MySQL:
        return MySQL(self.config, self.instance)

    def look(self) -> list[TableColumn]:
        connection = mysql_connection.connect(**self.database.keywords())
        try:
            return self.database.columns(connection)
        finally:
            connection.close()
