"""PGSQL: writes rows into a table of a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.core.options import Option, number, octets, one_of, seconds
from ulogd_tw.core.options import text as words
from ulogd_tw.core.paths import input_file
from ulogd_tw.storing.columns import TableColumn
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.passwords import PASS_FILE, mistaken_password
from ulogd_tw.storing.retention import RETENTION
from ulogd_tw.storing.sql_output import COMMON, CONNECT_S, SQLOutput

if TYPE_CHECKING:
    from ulogd_tw.storing.postgresql import PostgreSQL

TLS_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


class PGSQL(SQLOutput):
    """Writes each row into a table of a PostgreSQL server, with one COPY a batch.

    Columns have the types of PostgreSQL: with create=1 addresses are inet, MACs macaddr, times timestamptz (those in
    nanoseconds bigint), octets bytea, numbers of 64 bits without sign numeric. A table that is there may have other
    types; then the server reads the values' texts. A row that a column cannot hold is refused alone. A lost connection
    is made again, and uncommitted rows are then written, exactly once. With retain, a table that create=1 makes has a
    partition for each day of UTC, made ahead and dropped when it is old, or is a hypertable if TimescaleDB is there;
    its column stored_at tells when a row was stored. Needs psycopg: pip install 'ulogd_tw[postgresql]'.
    """

    if TYPE_CHECKING:
        database: PostgreSQL

    name = "PGSQL"
    skips_first = False
    options = (
        Option("db", words, "", "Name of the database."),
        Option("host", words, "", "Name or address of the server, or the directory of its Unix socket. Empty: a Unix "
               "socket of this host, else localhost."),
        Option("port", number, 0, "Port of the server. 0: 5432."),
        Option("user", words, "", "User name at the server. Empty: the name of the service's user."),
        Option("pass", words, "", "Password of the user."),
        PASS_FILE,
        Option("connstring", words, "", "Connection string of libpq, such as \"host=db.example dbname=flows\"; "
               "db, host, port, user and the TLS options then have no effect."),
        Option("schema", words, "public", "Schema of the table, unless table names one."),
        *COMMON,
        *RETENTION,
        Option("sslmode", one_of("", *TLS_MODES), "", "TLS as libpq has it: disable, allow, prefer, require, verify-ca "
               "or verify-full. Empty: verify-full with ssl_ca, else prefer. Unless the certificate is verified, the "
               "password is only sent as a hash; a Unix socket needs no TLS."),
        Option("ssl_ca", input_file, "", "File with the CAs of the server's certificate (PEM)."),
        Option("ssl_cert", input_file, "", "File with our certificate for the server (PEM). Empty: none."),
        Option("ssl_key", input_file, "", "File with the private key of ssl_cert (PEM)."),
        Option("connect_timeout", seconds, 0.0, "Seconds within which the connection must be made. 0: 3."),
        Option("timeout", seconds, 30.0, "Seconds within which the server must answer a statement. 0: no bound."),
        Option("procedure", words, "INSERT", 'How rows are written. INSERT: by COPY into table; "INSERT INTO x": with '
               'this statement, for the columns of table; "CALL p" or the name of a function, such as INSERT_CT: one '
               "call for each row with the values of the columns of table, about 10,000 rows a second."),
        Option("backlog_memcap", octets, 0, "No effect; see queue_rows and queue_octets."),
        Option("backlog_oneshot_requests", number, 10, "No effect; waiting rows are written in large batches."),
        Option("ring_buffer_size", number, 0, "No effect; a separate thread always writes the rows."),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.connect_s = self.config.connect_timeout or CONNECT_S

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """Also a missing library, and a way to the server that is told twice or not at all."""
        yield from super().mistakes()
        if not is_there("psycopg"):
            yield "table", f"{self.name} needs psycopg: {install('psycopg')}"
            return
        config = self.config
        if not config.db and not config.connstring:
            yield "db", "set db= or connstring="
        yield from mistaken_password(config)
        if config.connstring:
            from psycopg import Error

            from ulogd_tw.storing.postgresql_connection import parsed

            try:
                parsed(config.connstring)
            except Error as error:
                yield "connstring", str(error).strip()

    @property
    def where(self) -> str:
        config = self.config
        if config.connstring:
            from ulogd_tw.storing.postgresql_connection import parsed

            found = parsed(config.connstring)
            return f"{found.get('dbname', found.get('user', ''))} on {found.get('host', 'this host')}"
        host = self.database.host()
        return f"{config.db} on {host}" + ("" if host.startswith("/") else f":{config.port or 5432}")

    def database_of(self) -> Database:
        if not is_there("psycopg"):
            return Database(self.config.table, self.instance)
        from ulogd_tw.storing.postgresql import PostgreSQL

        return PostgreSQL(self.config, self.instance)

    def look(self) -> list[TableColumn]:
        from ulogd_tw.storing.postgresql_connection import connect

        with connect(**self.database.keywords()) as connection:
            return self.database.columns(connection)
