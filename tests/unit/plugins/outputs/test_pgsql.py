"""PGSQL: the parameters of libpq, what errors mean, statements, and what a check says."""

import os

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.sql_rows import output
from ulogd_tw.core import types
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.plugins.outputs import pgsql
from ulogd_tw.plugins.outputs.pgsql import PGSQL
from ulogd_tw.storing.columns import TableColumn
from ulogd_tw.storing.errors import TableError

try:
    from psycopg import OperationalError, errors

    from ulogd_tw.storing import postgresql_connection
except ModuleNotFoundError:
    skip = "install: psycopg"


def made(**options):
    """An instance that was never opened."""
    return output(PGSQL, **{"db": "flows", "host": "db.example", "table": "t"} | options)


class Connection:
    """What psycopg gives."""


class OptionsTests(SynchronousTestCase):
    """Options and parameters."""

    def parameters(self, **options):
        found = made(**options).database.parameters()
        return {name: value for name, value in found.items() if name not in ("client_encoding", "application_name")}

    def test_parameters(self):
        """Options become parameters of libpq; a connection string goes before them, passwords before it."""
        usual = {"connect_timeout": 3, "dbname": "flows", "host": "db.example", "port": 5432}
        self.assertEqual(usual, self.parameters())
        self.assertEqual(
            usual | {"user": "u", "password": "p", "port": 6432}, self.parameters(user="u", port=6432, **{"pass": "p"})
        )
        tls = {"sslrootcert": "ca", "sslcert": "c", "sslkey": "k"}
        options = {"ssl_ca": "ca", "ssl_cert": "c", "ssl_key": "k"}
        self.assertEqual(usual | tls | {"sslmode": "verify-full"}, self.parameters(**options))
        self.assertEqual(usual | tls | {"sslmode": "verify-ca"}, self.parameters(**options, sslmode="verify-ca"))
        self.assertEqual({"connect_timeout": 7, "dbname": "x", "host": "a,b"},
                         self.parameters(connstring="host=a,b dbname=x", connect_timeout=7.0))  # fmt: skip

    def test_password_file(self):
        """The password is the first line, read for each connection."""
        path, seen = self.mktemp(), []
        instance = made(pass_file=path)
        self.patch(
            postgresql_connection.BoundedConnection, "connect", lambda **given: seen.append(given) or Connection()
        )
        for text, password in (("secret\n", "secret"), ("other\r\nrest", "other"), ("s p ", "s p ")):
            with open(path, "w") as file:
                file.write(text)
            postgresql_connection.connect(**instance.database.keywords())
            self.assertEqual(password, seen[-1]["password"])
        os.unlink(path)
        self.assertRaisesRegex(StartError, "No such file", instance.prepare)

    def test_schema(self):
        """The schema stands before the table, unless the table names one."""
        self.assertEqual('"public"."t"', made().database.table)
        self.assertEqual('"x"."ulogd_tw_batches"', made(schema="x").database.batches)
        self.assertEqual('"y"."t"', made(schema="x", table="y.t").database.table)

    def mistakes(self, **options):
        return dict(made(**options).mistakes())

    def test_mistakes(self):
        """What the options say twice, or not at all; each names its option."""
        self.assertEqual({}, self.mistakes())
        self.assertEqual({"db": "set db= or connstring="}, self.mistakes(db=""))
        self.assertEqual(["pass_file"], list(self.mistakes(pass_file="f", **{"pass": "x"})))
        self.assertIn("nosuch", self.mistakes(connstring="nosuch=1")["connstring"])

    def test_missing_library(self):
        """Without psycopg the check says what to install, and the configuration is read all the same."""
        self.patch(pgsql, "is_there", lambda library: False)
        self.assertRegex(
            self.mistakes()["table"], r"PGSQL needs psycopg: .*'(ulogd_tw\[postgresql\]|psycopg\[binary\])'$"
        )


class DatabaseTests(SynchronousTestCase):
    """Statements, and errors."""

    def test_table(self):
        """The statement that makes a table, and long names."""
        names = ("octetDeltaCount", "orig.ip.saddr", "flowStartMilliseconds", "flowStartNanoseconds")
        keys = [*map(known, names), Key('od"d', types.OCTETS)]
        self.assertEqual(
            'CREATE TABLE IF NOT EXISTS "public"."t" (\n  "octetDeltaCount" numeric(20),\n  "orig_ip_saddr" inet,\n'
            '  "flowStartMilliseconds" timestamptz,\n  "flowStartNanoseconds" bigint,\n  "od""d" bytea\n)',
            made().database.ddl(keys),
        )
        self.assertRegex(dict(made(keys=("k" * 64,)).mistakes())["keys"], "longer than the 63 characters")

    def test_faults(self):
        """What an error means for the rows: they wait, or are looked at one by one."""
        database = made().database
        for error, reason, transient, of_rows in (
            (errors.AdminShutdown(), "away", True, False), (errors.DeadlockDetected(), "locked", True, False),
            (errors.DiskFull(), "full", False, False), (errors.ReadOnlySqlTransaction(), "read_only", False, False),
            (errors.UndefinedTable(), "table", False, True), (errors.UndefinedColumn(), "table", False, True),
            (errors.InvalidBinaryRepresentation(), "table", False, True),
            (errors.UndefinedFunction(), "procedure", False, True), (errors.TooManyConnections(), "away", True, False),
            (errors.InsufficientPrivilege(), "permission", False, True),
            (errors.InternalError_(), "server", False, True), (errors.IoError(), "disk", False, False),
            (OperationalError("connection refused"), "away", True, False),
            (OperationalError('FATAL:  password authentication failed for user "u"'), "permission", False, True),
            (OperationalError('FATAL:  database "x" does not exist'), "table", False, True),
        ):  # fmt: skip
            fault = database.fault(error)
            self.assertEqual((reason, transient, of_rows), (fault.reason, fault.transient, fault.of_rows), error)
        self.assertIsNone(database.fault(KeyError()))

    def test_types(self):
        """A column of another type than its key's gives the statement to change it, unless it can hold the values."""
        database = made().database
        database._kinds = {"protocolIdentifier": "text", "octetDeltaCount": "inet", "sourceAddress": "inet"}
        columns = [TableColumn(name, kind) for name, kind in database._kinds.items()]
        database.check_types(columns, [known("protocolIdentifier"), known("sourceAddress")])
        with self.assertRaises(TableError) as caught:
            database.check_types(columns, [known("octetDeltaCount")])
        self.assertIn('ALTER COLUMN "octetDeltaCount" TYPE numeric(20) USING NULL', caught.exception.remedy)

    def test_procedures(self):
        """ulogd2's forms: a function, a procedure, a statement."""
        for procedure, expected in (
            ("INSERT_CT", (b"", b"SELECT INSERT_CT(", b");")), ("CALL p", (b"", b"CALL p(", b");")),
            ("INSERT", (b'INSERT INTO "public"."t" ("a") VALUES\n', b"(", b"),")),
            ("INSERT INTO x", (b'INSERT INTO x ("a") VALUES\n', b"(", b"),")),
        ):  # fmt: skip
            self.assertEqual(expected, made(procedure=procedure).database._statement('"a"'))
