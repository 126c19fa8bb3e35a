"""PGSQL on a PostgreSQL server that is restarted, cut off, short of privileges, and full of rows that do not fit."""

import atexit
import signal
import subprocess
import time
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import psycopg
from twisted.internet import reactor, threads
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.live.sql_proxy import Proxy
from tests.postgresql import PrivatePostgreSQL
from tests.support import require_root, sized
from tests.unit.storing.sql_rows import NUMBER_KEYS, ODD_STRINGS, batch_of, numbers, opened, output, told
from tests.unit.test_documents import HOWTO, block
from ulogd_tw.core import types
from ulogd_tw.core.errors import NotWritten, StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.plugins.outputs.pgsql import PGSQL

ROWS = 500
"""Rows of a batch in tests that write many."""
COMMIT = b"COMMIT\0"


def pause(seconds):
    """A Deferred that fires then."""
    return deferLater(reactor, seconds, lambda: None)


@cache
def shared_server():
    """One server for all tests of this module, ended with the process."""
    server = PrivatePostgreSQL()
    server.__enter__()
    atexit.register(server.__exit__)
    return server


class PGSQLTestCase(TestCase):
    """With a server; every test has its own table."""

    timeout = 120

    def setUp(self):
        self.server = shared_server()
        self.table = self.id().rpartition(".")[2]
        self.told = told(self)

    def output(self, **options):
        return output(PGSQL, **self.server.options | {"table": self.table, "create": True, "reconnect": 0.3} | options)

    def execute(self, statement, *arguments):
        """The rows of a statement with {t} for the table."""
        return self.server.execute(statement.replace("{t}", f'"{self.table}"'), *arguments)

    async def write(self, made, first, batches, rows=ROWS):
        """Write batches one after the other, as the queue does; the number of the row after the last."""
        for _ in range(batches):
            await made.write(numbers(first, rows))
            first += rows
        return first

    def assertOnce(self, rows):
        """The numbers 0 to `rows` - 1 are in the table, each once."""
        found = self.execute("SELECT COUNT(*), COUNT(DISTINCT number), MAX(number) FROM {t}")
        self.assertEqual(found, [(rows, rows, rows - 1)])


class ValuesTests(PGSQLTestCase):
    """What stands in the table."""

    NTP = (2208988800 + 1_790_000_000) << 32 | 1 << 31

    def every_type(self):
        return batch_of(
            (known("octetDeltaCount"), [(1 << 64) - 1, 0, None]),
            (Key("small", types.SIGNED8), [-128, 127, None]),
            (Key("long", types.SIGNED64), [-(1 << 63), (1 << 63) - 1, None]),
            (known("sourceAddress").typed(types.IPV6), [0xFD770001 << 96 | 9, 0, None]),
            (known("orig.ip.saddr").typed(types.IPV4), [0x0A4D0001, 0, None]),
            (known("sourceMacAddress"), [0x0102030405FF, 0, None]),
            (known("flowStartSeconds"), [(1 << 32) - 1, 0, None]),
            (known("flowStartMilliseconds"), [1_790_000_000_123, 0, None]),
            (known("flowEndMicroseconds"), [self.NTP, self.NTP, None]),
            (known("flowEndNanoseconds"), [self.NTP, self.NTP, None]),
            (Key("yes", types.BOOLEAN), [True, False, None]),
            (Key("ratio", types.FLOAT64), [0.1, float("nan"), None]),
            (Key("half", types.FLOAT32), [0.5, -0.25, None]),
            (Key("e1id2", types.OCTETS), [b"\0\xff'", b"", None]),
            (known("userName"), ["x" * 65536, "", None]),
        )

    EXPECTED = (
        ("18446744073709551615", "-128", "-9223372036854775808", "fd77:1::9", "10.77.0.1", "01:02:03:04:05:ff",
         "2106-02-07 06:28:15+00", "2026-09-21 14:13:20.123+00", "2026-09-21 14:13:20.5+00", "1790000000500000000",
         "true", "0.1", "0.5", "\\x00ff27", "x" * 65536),
        ("0", "127", "9223372036854775807", "::", "0.0.0.0", "00:00:00:00:00:00", "1970-01-01 00:00:00+00",
         "1970-01-01 00:00:00+00", "2026-09-21 14:13:20.5+00", "1790000000500000000", "false", None, "-0.25",
         "\\x", ""),
        (None,) * 15,
    )  # fmt: skip

    def texts(self):
        """The rows, each value as the server's text."""
        columns = [name for (name,) in self.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped "
            "ORDER BY attnum", f'"{self.table}"')]  # fmt: skip
        rows = ", ".join(f"CASE WHEN pg_typeof(\"{c}\") = 'inet'::regtype THEN host(\"{c}\"::text::inet) "
                         f'ELSE "{c}"::text END' for c in columns)  # fmt: skip
        self.execute("ALTER ROLE postgres SET TimeZone = 'UTC'")
        return self.execute(f"SELECT {rows} FROM {{t}} ORDER BY small NULLS LAST")

    async def test_every_type(self):
        """Columns of PostgreSQL's types hold the values exactly, by COPY in binary form."""
        batch = self.every_type()
        made = await opened(self, self.output(), batch.schema.values())
        await made.write(batch)
        self.assertEqual(self.texts(), list(self.EXPECTED))
        found = self.execute("SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = "
                             "%s::regclass AND attnum > 0 ORDER BY attnum", self.table)  # fmt: skip
        time = "timestamp with time zone"
        self.assertEqual([kind for (kind,) in found], [
            "numeric(20,0)", "smallint", "bigint", "inet", "inet", "macaddr", time, time, time, "bigint", "boolean",
            "double precision", "real", "bytea", "text",
        ])  # fmt: skip

    async def test_text_and_statements(self):
        """The same values come as text where a column has another type, and as statements."""
        batch = self.every_type()
        for procedure, extra in (
            ("INSERT", "ALTER TABLE {t} ALTER small TYPE numeric(10,1)"),
            (f'INSERT INTO "{self.table}"', "SELECT 1"),
        ):
            made = await opened(self, self.output(procedure=procedure), batch.schema.values())
            self.execute(extra)
            await made.write(batch)
            await made.stop()
            found = [
                tuple((v or "").removesuffix(".0") if v in ("-128.0", "127.0") else v for v in row)
                for row in self.texts()
            ]
            self.assertEqual(found, list(self.EXPECTED))
            self.assertEqual(made.counters.dropped, {})
            self.execute("DROP TABLE {t}")

    async def test_strings(self):
        """Strings that are hard to quote come out as they went in; a NUL is refused, what is not UTF-8 is U+FFFD."""
        strings = [text for text in ODD_STRINGS if "\0" not in text]
        batch = batch_of(
            (Key("place", types.UNSIGNED32), list(range(62))),
            (known("userName"), [*ODD_STRINGS, b"\xff\xfex", None, *["a"] * 47, "z" * 65536]),
        )
        for procedure, kind in (
            ("INSERT", "text"),
            ("INSERT", "character(20)"),
            (f'INSERT INTO "{self.table}"', "text"),
        ):
            self.execute(f'CREATE TABLE {{t}} (place integer, "userName" {kind})')
            made = await opened(self, self.output(procedure=procedure), batch.schema.values())
            await made.write(batch)
            found = self.execute('SELECT "userName" FROM {t} ORDER BY place')
            expected = [*strings, "\ufffd\ufffdx", None, *["a"] * 47]
            if kind == "text":
                self.assertEqual([value for (value,) in found], [*expected, "z" * 65536])
                self.assertEqual(made.counters.dropped, {"refused": 1})
            else:
                self.assertEqual(
                    [v if v is None else v.rstrip(" ") for (v,) in found],
                    [v if v is None else v.rstrip(" ") for v in expected if v is None or len(v) <= 20],
                )
                self.assertEqual(made.counters.dropped["refused"], 62 - len(found))
            self.assertRegex(self.told[-1], "a text holds a NUL octet")
            await made.stop()
            self.execute("DROP TABLE {t}")

    async def test_beyond(self):
        """Values that a column cannot hold cost their rows alone, whatever the form; the others are exact."""
        batch = batch_of(
            (Key("number", types.UNSIGNED32), list(range(400))),
            (known("octetDeltaCount"), [(1 << 63) - 1 + row % 2 for row in range(400)]),
            (known("flowStartMilliseconds"), [(1 << 64) - 1 if row == 8 else row for row in range(400)]),
        )
        self.execute('CREATE TABLE {t} (number integer, "octetDeltaCount" bigint, "flowStartMilliseconds" timestamp)')
        made = await opened(self, self.output(), batch.schema.values())
        await made.write(batch)
        found = self.execute('SELECT number, "octetDeltaCount" FROM {t} ORDER BY 1')
        self.assertEqual(found, [(row, (1 << 63) - 1) for row in range(0, 400, 2) if row != 8])
        self.assertEqual(made.counters.dropped, {"refused": 201})
        self.assertRegex(self.told[-1], r"out of range for type bigint \(200 rows\); time out of range \(1 row\)")

    async def test_existing_table(self):
        """Columns of a table in lower case: those that the server fills are left out, domains are as their types."""
        self.execute("CREATE DOMAIN port AS integer CHECK (VALUE < 100)")
        self.execute(
            "CREATE TABLE {t} (_id bigint DEFAULT 7, nr serial, sourceipv4address inet, number port, "
            "twice bigint GENERATED ALWAYS AS (number * 2) STORED)"
        )
        made = await opened(self, self.output(create=False))
        self.assertEqual(made.requests(frozenset()), {"sourceIPv4Address": True, "number": True, "record_kind": False})
        await made.write(numbers(98, 4))
        self.assertEqual(
            self.execute("SELECT _id, nr > 0, sourceipv4address, number, twice FROM {t}"),
            [(7, True, ip_address(n), n, 2 * n) for n in (98, 99)],
        )
        self.assertEqual(made.counters.dropped, {"refused": 2})

    async def test_refused_rows(self):
        """Rows that do not fit are dropped, counted and told; the others are there, by COPY and by statements."""
        names = ["x" * 3] * 300
        names[17] = "long"
        values = list(range(300))
        values[3], values[5] = None, 4
        for procedure in ("INSERT", f"INSERT INTO {self.table}"):
            self.execute(
                'CREATE TABLE {t} (number integer NOT NULL UNIQUE CHECK (number < 256), "userName" varchar(3))'
            )
            batch = batch_of((NUMBER_KEYS[1], values), (known("userName"), names))
            made = await opened(self, self.output(procedure=procedure), batch.schema.values())
            await made.write(batch)
            found = [row[0] for row in self.execute("SELECT number FROM {t} ORDER BY number")]
            self.assertEqual(found, [n for n in range(256) if n not in (3, 5, 17)])
            self.assertEqual(made.counters.dropped, {"refused": 47})
            self.assertRegex(
                self.told[-1],
                "47 rows do not fit.*(null value in column.*duplicate key.*value too long|too long.*duplicate key)",
            )
            await made.stop()
            self.execute("DROP TABLE {t}")

    async def test_column_too_small(self):
        """Numbers and texts beyond their columns cost their rows alone, and none is cut; by COPY, text and statements.

        A number with a sign has no binary form for a numeric, so that all goes as text.
        """
        first = [Key(name, types.UNSIGNED32) for name in ("number", "small")]
        rows = [(0, 32767, 999, "abc"), (1, 32768, 5, "a"), (2, 5, 1000, "a"), (3, 5, 5, "abcd"), (4, 0, 0, "äöü"),
                (5, (1 << 32) - 1, 5, "ab"), (6, 6, 6, "äöüß"), (7, None, None, None)]  # fmt: skip
        fits = [row for row in rows if row[0] in (0, 4, 7)]
        ways = ("INSERT", types.UNSIGNED32), ("INSERT", types.SIGNED32), (f"INSERT INTO {self.table}", types.UNSIGNED32)
        for procedure, kind in ways:
            keys = (*first, Key("digits", kind), known("userName"))
            self.execute('CREATE TABLE {t} (number integer, small smallint, digits numeric(3), "userName" varchar(3))')
            made = await opened(self, self.output(procedure=procedure, create=False), keys)
            for some in (rows, rows[:1], rows[1:4]):
                await made.write(batch_of(*zip(keys, zip(*some, strict=True), strict=True)))
            found = self.execute('SELECT number, small, digits, "userName" FROM {t} ORDER BY number')
            self.assertEqual(found, sorted([*fits, rows[0]], key=lambda row: row[0]))
            self.assertEqual(made.counters.dropped, {"refused": 5 + 3})
            said = [line for line in self.told if "do not fit" in line][-1]
            for why in ("smallint", "numeric field overflow", r"value too long for type character varying\(3\)"):
                self.assertRegex(said, why)
            await made.stop()
            self.execute("DROP TABLE {t}")

    async def test_deferred_and_many(self):
        """Constraints that are checked at the commit, and a batch of which every second row is refused."""
        self.execute("CREATE TABLE {t} (number integer UNIQUE DEFERRABLE INITIALLY DEFERRED CHECK (number % 2 = 0))")
        made = await opened(self, self.output(create=False))
        await made.write(numbers(0, 2000))
        await made.write(numbers(1990, 20))
        found = [row[0] for row in self.execute("SELECT number FROM {t} ORDER BY 1")]
        self.assertEqual(found, list(range(0, 2010, 2)))
        self.assertEqual(made.counters.dropped, {"refused": 1000 + 15})

    async def test_view_and_procedure(self):
        """The columns of a view go to a procedure, or a function, one call a row; either can refuse a row."""
        self.execute("CREATE TABLE {t} (number int, n int)")
        self.execute("CREATE VIEW v AS SELECT n AS _id, number FROM {t}")
        body = "BEGIN IF x = 3 THEN RAISE 'no three'; END IF; INSERT INTO {t} VALUES (x, 1);"
        self.execute(f"CREATE PROCEDURE p (x int) LANGUAGE plpgsql AS $$ {body} END $$")
        self.execute(f"CREATE FUNCTION f (x smallint) RETURNS int LANGUAGE plpgsql AS $$ {body} RETURN 1; END $$")
        for procedure in ("CALL p", "f", "INSERT"):
            made = await opened(self, self.output(table="v", create=False, procedure=procedure))
            await made.write(numbers(1, 5))
            self.assertEqual(made.counters.dropped, {} if procedure == "INSERT" else {"refused": 1})
        found = self.execute("SELECT number, COUNT(*) FROM {t} GROUP BY number ORDER BY 1")
        self.assertEqual(found, [(1, 3), (2, 3), (3, 1), (4, 3), (5, 3)])
        self.assertTrue([line for line in self.told if "no three (1 row)" in line])

    async def test_poison(self):
        """A trigger that fails with any error for some rows costs these rows alone; the log has the error."""
        for code, bad in (("XX000", "NEW.number % 100 = 7"), ("42P01", "NEW.number = 3"), ("0A000", "NEW.number = 0")):
            self.execute("DROP TABLE IF EXISTS {t}")
            self.execute("CREATE TABLE {t} (number bigint)")
            self.execute(
                f"CREATE OR REPLACE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF {bad} THEN "
                f"RAISE 'odd row' USING ERRCODE = '{code}'; END IF; RETURN NEW; END $$"
            )
            self.execute("CREATE TRIGGER odd BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION odd()")
            made = await opened(self, self.output(create=False, reconnect=0.05))
            await made.write(numbers(0, 250))
            refused = made.counters.dropped["refused"]
            self.assertEqual({"XX000": 3}.get(code, 1), refused)
            self.assertEqual([(250 - refused, 250 - refused)],
                             self.execute("SELECT COUNT(*), COUNT(DISTINCT number) FROM {t}"))  # fmt: skip
            self.assertTrue(any(f"odd row (error {code})" in line for line in self.told), self.told)
            await made.stop()


class OutageTests(PGSQLTestCase):
    """Whatever happens to server and network, every row is there, once."""

    async def test_server_restarts(self):
        """The server is gone for a moment and comes back; rows wait, and the log says so in two lines."""
        made = await opened(self, self.output())
        first = await self.write(made, 0, 5)
        await threads.deferToThread(self.server.stop)
        writing = made.write(numbers(first, ROWS))
        await pause(sized(1, 10))
        self.assertFalse(writing.called)
        await threads.deferToThread(self.server.start)
        await writing
        self.assertOnce(await self.write(made, first + ROWS, 5))
        told = [line for line in self.told if "made the table" not in line]
        self.assertEqual(len(told), 2, told)
        self.assertRegex(told[1], "accepts rows again")

    async def test_more_columns(self):
        """A key that comes later gets a column, NULL in older rows; rows that are refused stand in a file."""
        letters = self.mktemp()
        made = await opened(self, self.output(keys=("number",)))
        await self.write(made, 0, 1)
        await made.stop()
        made = self.output(keys=("number", "sourceIPv4Address"), dead_letters=letters)
        made = await opened(self, made)
        self.execute("ALTER TABLE {t} ADD CHECK (number <> 703)")
        await self.write(made, ROWS, 1)
        self.assertEqual(
            [(2 * ROWS - 1, ROWS - 1)], self.execute('SELECT COUNT(*), COUNT("sourceIPv4Address") FROM {t}')
        )
        self.assertTrue([line for line in self.told if "added 1 column" in line], self.told)
        await made.stop()
        text = "".join(path.read_text() for path in Path(letters).rglob("*") if path.is_file())
        self.assertIn("703", text)
        self.assertEqual(1, len(text.splitlines()), text)
        self.assertIn("violates check constraint", text)

    async def test_documents(self):
        """The how-to's user can make all that its options ask for."""
        statements = block(HOWTO, "sql", "-- PostgreSQL")
        for statement in statements.split(";")[:-1]:
            self.server.execute(statement)
        made = await opened(self, self.output(user="ulogd", db="flows", retain=86400.0, retain_by="received_ms"),
                            (*NUMBER_KEYS, known("received_ms")))  # fmt: skip
        await made.write(numbers(0, 3))
        found = self.server.execute(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'test_documents'::regclass", dbname="flows"
        )
        self.assertEqual([(4,)], found)
        self.assertEqual([], [line for line in self.told if "made the table" not in line])

    async def test_server_crashes(self):
        """The same when it is killed while it writes."""
        made = await opened(self, self.output())
        writing = made.write(numbers(0, 300_000))
        await pause(0.3)
        await threads.deferToThread(self.server.stop, signal.SIGKILL)
        await threads.deferToThread(self.server.start)
        await writing
        self.assertOnce(300_000)

    async def test_hangs(self):
        """A server that stands still is given up after `timeout`; its half-done transaction does no harm."""
        made = await opened(self, self.output(timeout=1.0, connect_timeout=2.0))
        self.addCleanup(self.server.hang, signal.SIGCONT)
        real = made.database.insert

        def insert(*arguments):
            real(*arguments)
            made.database.insert = real
            self.server.hang()  # between the rows and the commit

        for before in (True, False):
            self.execute("TRUNCATE {t}")
            if before:
                self.server.hang()
            else:
                made.database.insert = insert
            writing = made.write(numbers(0, ROWS))
            await pause(sized(1.8, 20))
            self.assertFalse(writing.called)
            self.server.hang(signal.SIGCONT)
            await writing
            self.assertOnce(ROWS)

    async def test_away_at_start(self):
        """A server that is away at the start is waited for; the table is made when it comes."""
        await threads.deferToThread(self.server.stop)
        made = self.output()
        made.prepare()
        self.assertEqual(list(made.available(NUMBER_KEYS)), [])
        await made.open()
        self.addCleanup(made.stop)
        self.assertRegex(self.told[0], "No such file or directory.*rows wait")
        writing = made.write(numbers(0, ROWS))
        await pause(0.5)
        await threads.deferToThread(self.server.start)
        await writing
        self.assertOnce(ROWS)

    async def test_ended_session(self):
        """An administrator ends the session, idle and in the middle of a batch."""
        made = await opened(self, self.output())
        first = await self.write(made, 0, 1)
        self._end()
        first = await self.write(made, first, 1)
        self.assertEqual([line for line in self.told if "rows wait" in line], [])
        for _ in range(3):
            writing = made.write(numbers(first, 60_000))
            await pause(0.05)
            self._end()
            await writing
            first += 60_000
        self.assertOnce(first)

    def _end(self):
        self.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'ulogd_tw %'")

    async def test_deadlock(self):
        """A transaction that the server breaks off because of a deadlock is repeated."""
        self.execute("CREATE TABLE {t} (number bigint)")
        self.execute("CREATE TABLE IF NOT EXISTS other (n int)")
        self.execute("CREATE OR REPLACE FUNCTION crossed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                     "LOCK TABLE other; RETURN NULL; END $$")  # fmt: skip
        self.execute("CREATE TRIGGER c AFTER INSERT ON {t} FOR EACH STATEMENT EXECUTE FUNCTION crossed()")
        made = await opened(self, self.output(create=False))
        with psycopg.connect(**self.server.where) as holder:
            holder.execute("SET deadlock_timeout = '60s'; LOCK TABLE other")
            writing = made.write(numbers(0, ROWS))
            await pause(0.3)
            locked = threads.deferToThread(holder.execute, f"LOCK TABLE {self.table}")
            await locked
            self.assertFalse(writing.called)
        await writing
        self.assertOnce(ROWS)
        self.assertGreaterEqual(made.counters.errors["locked"], 1)

    async def test_table_dropped(self):
        """A table that is dropped is told, and made anew."""
        made = await opened(self, self.output())
        await self.write(made, 0, 1)
        self.execute("DROP TABLE {t}")
        await self.write(made, 0, 1)
        self.assertOnce(ROWS)

    async def test_table_altered(self):
        """A column of another type or order never gets octets of the one before: rows go on, each exact."""
        made = await opened(self, self.output())
        first = await self.write(made, 0, 1)
        for change in ("ALTER number TYPE double precision", "ALTER number TYPE integer", "ADD more timestamptz",
                       "DROP more", 'DROP "sourceIPv4Address"', "ALTER number TYPE text"):  # fmt: skip
            self.execute(f"ALTER TABLE {{t}} {change}")
            first = await self.write(made, first, 1)
        self.assertEqual([(first, first - 1, 0)], self.execute(
            "SELECT COUNT(DISTINCT number::int), MAX(number::int), MIN(number::int) FROM {t}"))  # fmt: skip
        self.assertEqual(made.counters.dropped, {})

    async def test_table_altered_meanwhile(self):
        """The same where the table is altered between two batches into a type of the same size."""
        self.execute("CREATE TABLE {t} (number bigint)")
        made = await opened(self, self.output(create=False))
        await self.write(made, 0, 1)
        self.execute("ALTER TABLE {t} ALTER number TYPE double precision")
        self.assertOnce(await self.write(made, ROWS, 1))

    async def test_missing_table(self):
        """Without create=1 a missing table keeps the stack from starting; one that goes later is waited for."""
        with self.assertRaisesRegex(StartError, "no table"):
            self.output(create=False).prepare()
        self.execute("CREATE TABLE {t} (number int)")
        made = await opened(self, self.output(create=False))
        self.execute("DROP TABLE {t}")
        writing = made.write(numbers(0, ROWS))
        await pause(0.5)
        self.assertFalse(writing.called)
        self.assertRegex(self.told[0], r"does not exist \(error 42P01\).*make the .*, or set create=1; rows wait")
        self.execute("CREATE TABLE {t} (number int)")
        await writing
        self.assertOnce(ROWS)

    async def test_read_only(self):
        """A server that takes no writes for a while, and a user with few rights."""
        self.execute("CREATE TABLE {t} (number int)")
        self.execute("CREATE ROLE few LOGIN")
        self.execute("GRANT SELECT, INSERT ON {t} TO few")
        self.execute("DROP TABLE IF EXISTS ulogd_tw_batches")
        made = await opened(self, self.output(create=False, user="few"))
        await self.write(made, 0, 1)
        self.assertEqual([line for line in self.told if "may be written twice" in line], self.told)
        self.execute("ALTER ROLE few SET default_transaction_read_only = on")
        self._end()
        writing = made.write(numbers(ROWS, ROWS))
        await pause(0.7)
        self.assertFalse(writing.called)
        self.execute("ALTER ROLE few SET default_transaction_read_only = off")
        self._end()
        await writing
        self.assertOnce(2 * ROWS)
        self.assertEqual(len([line for line in self.told if "read-only" in line]), 1)

    async def test_no_rights(self):
        """A database that is not there, a user who may not, a wrong password: the start fails and says what to do."""
        for options, text in (({"db": "nowhere"}, "make the database"), ({"user": "nobody2"}, "correct user="),
                              ({"schema": "missing"}, "make the database")):  # fmt: skip
            with self.assertRaises(StartError) as caught:
                await opened(self, self.output(**options))
            self.assertIn(text, f"{caught.exception} {caught.exception.remedy}")

    async def test_disk_full(self):
        """A full disk: rows wait, and none is there twice when there is room again."""
        require_root()
        place = self.server.folder / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700,uid=65534", "tmpfs", place], check=True)
        self.addCleanup(subprocess.run, ["umount", "-l", place], check=True)
        self.execute(f"CREATE TABLESPACE small LOCATION '{place}'")
        self.execute("CREATE TABLE {t} (number bigint) TABLESPACE small")
        made = await opened(self, self.output(create=False))
        await made.write(numbers(0, 20_000))
        writing = made.write(numbers(20_000, 100_000))
        await pause(0.7)
        self.assertFalse(writing.called)
        self.assertGreaterEqual(made.counters.errors["full"], 1)
        subprocess.run(["mount", "-o", "remount,size=64m", place], check=True)
        await writing
        self.assertOnce(120_000)
        self.execute("DROP TABLE {t}")
        self.execute("DROP TABLESPACE small")

    async def test_stop_gives_rows_back(self):
        """A batch that cannot be written is given back at a stop, within seconds."""
        made = await opened(self, self.output())
        await threads.deferToThread(self.server.stop)
        writing = made.write(numbers(0, ROWS))
        await pause(0.3)
        began = time.monotonic()
        await made.stop()
        self.assertLess(time.monotonic() - began, 5)
        await self.assertFailure(writing, NotWritten)
        await threads.deferToThread(self.server.start)
        self.assertEqual(self.execute("SELECT COUNT(*) FROM {t}"), [(0,)])


class ProxyTests(PGSQLTestCase):
    """A network that loses things."""

    async def proxied(self, **options):
        """An output behind a proxy, and that proxy."""
        proxy = Proxy(self.server.port, COMMIT)
        await proxy.start()
        self.addCleanup(proxy.stop)
        made = self.output(**{"host": "127.0.0.1", "port": proxy.port, "connect_timeout": 2.0} | options)
        await threads.deferToThread(made.prepare)  # which waits for the proxy, in this reactor
        return await opened(self, made), proxy

    async def lost_at_commit(self, way, lost, **options):
        made, proxy = await self.proxied(**options)
        first = await self.write(made, 0, 1)
        for _ in range(2):
            proxy.at_commit = way
            first = await self.write(made, first, 1)
        first = await self.write(made, first, 1)
        self.assertEqual((proxy.at_commit, proxy.answers_lost), (None, 2 if lost else 0))
        return made, first

    async def test_answer_to_commit_is_lost(self):
        """The rows are there, we do not know it, and do not write them again."""
        _, rows = await self.lost_at_commit("lose_answer", True)
        self.assertOnce(rows)

    async def test_commit_is_lost(self):
        """The rows are not there, and are written again."""
        _, rows = await self.lost_at_commit("lose_statement", False)
        self.assertOnce(rows)

    async def test_commit_comes_late(self):
        """We are cut off, and look for the rows while their commit is still on its way."""
        _, rows = await self.lost_at_commit("delay", True)
        await pause(1)
        self.assertOnce(rows)

    async def test_answer_is_lost_with_refused_rows(self):
        """Rows that were refused are counted, also when the answer to their commit was lost."""
        self.execute("CREATE TABLE {t} (number int CHECK (number < 256))")
        made, proxy = await self.proxied()
        proxy.at_commit = "lose_answer"
        await made.write(numbers(0, 300))
        self.assertOnce(256)
        self.assertEqual(made.counters.dropped, {"refused": 44})

    async def test_black_hole(self):
        """A network that swallows everything is noticed after `timeout`; its half-done transaction does no harm."""
        made, proxy = await self.proxied(timeout=1.0, connect_timeout=2.0)
        first = await self.write(made, 0, 1)
        real = made.database.insert

        def insert(*arguments):
            real(*arguments)
            made.database.insert = real
            proxy.frozen = True  # from here to the commit

        made.database.insert = insert
        writing = made.write(numbers(first, ROWS))
        await pause(2.5)
        self.assertFalse(writing.called)
        proxy.frozen = False
        began = time.monotonic()
        await writing
        self.assertLess(time.monotonic() - began, 10)
        self.assertOnce(await self.write(made, first + ROWS, 2))

    async def test_stop_in_a_black_hole(self):
        """A stop does not wait for `timeout`."""
        made, proxy = await self.proxied()
        await self.write(made, 0, 1)
        proxy.frozen = True
        writing = made.write(numbers(ROWS, ROWS))
        await pause(0.2)
        began = time.monotonic()
        given_back = self.assertFailure(writing, NotWritten)
        await made.stop()
        await given_back
        self.assertLess(time.monotonic() - began, 8)
        self.assertOnce(ROWS)
