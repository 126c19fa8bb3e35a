"""MYSQL on a MariaDB server that is restarted, cut off, short of privileges, and full of rows that do not fit."""

import os
import re
import shutil
import tempfile
import time

import pymysql
from twisted.internet import threads
from twisted.trial.unittest import TestCase

from tests.certificates import CA
from tests.live.mysql_case import ROWS, MYSQLTestCase, pause
from tests.live.sql_proxy import Proxy
from tests.support import PrivateMariaDB, sized
from tests.unit.storing.sql_rows import NUMBER_KEYS, ODD_STRINGS, batch_of, numbers, opened, output
from ulogd_tw.core import types
from ulogd_tw.core.errors import NotWritten, StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.plugins.outputs.mysql import MYSQL
from ulogd_tw.storing import mysql_connection


class ValuesTests(MYSQLTestCase):
    """What stands in the table."""

    async def test_every_type(self):
        """As SQLITE3 has it, and numbers of 64 bits are numbers."""
        ntp = (2208988800 + 1_790_000_000) << 32 | 1 << 31
        batch = batch_of(
            (known("octetDeltaCount"), [(1 << 64) - 1, 0, None]),
            (Key("small", types.SIGNED8), [-128, 127, None]),
            (known("sourceAddress").typed(types.IPV6), [0xFD770001 << 96 | 9, 0, None]),
            (known("orig.ip.saddr").typed(types.IPV4), [0x0A4D0001, 0, None]),
            (known("sourceMacAddress"), [0x0102030405FF, 0, None]),
            (known("flowStartMilliseconds"), [1_790_000_000_123, 0, None]),
            (known("flowEndMicroseconds"), [ntp, ntp, None]),
            (Key("yes", types.BOOLEAN), [True, False, None]),
            (Key("ratio", types.FLOAT64), [0.1, float("nan"), None]),
            (Key("e1id2", types.OCTETS), [b"\0\xff'", b"", None]),
        )
        made = await opened(self, self.output(), batch.schema.values())
        await made.write(batch)
        us = 1_790_000_000_500_000
        self.assertEqual(self.execute("SELECT * FROM {t} ORDER BY id"), [
            (1, (1 << 64) - 1, -128, "fd77:1::9", "10.77.0.1", "01:02:03:04:05:ff", 1_790_000_000_123, us, 1, 0.1,
             "00ff27"),
            (2, 0, 127, "::", "0.0.0.0", "00:00:00:00:00:00", 0, us, 0, None, ""),
            (3, *[None] * 10),
        ])  # fmt: skip

    async def test_strings(self):
        """Strings that are hard to quote come out as they went in; what is not UTF-8 becomes U+FFFD."""
        batch = batch_of((known("userName"), [*ODD_STRINGS, b"\xff\xfex", None] * 5))
        made = await opened(self, self.output(), batch.schema.values())
        await made.write(batch)
        found = [row[0] for row in self.execute("SELECT userName FROM {t} ORDER BY id")]
        self.assertEqual(found, [*ODD_STRINGS, "\ufffd\ufffdx", None] * 5)

    async def test_server_with_other_habits(self):
        """A server that takes backslashes as they are, and cuts what does not fit, does not change what is stored."""
        before = self.execute("SELECT @@GLOBAL.sql_mode")[0][0]
        self.execute("SET GLOBAL sql_mode = 'NO_BACKSLASH_ESCAPES,ANSI_QUOTES'")
        self.addCleanup(self.execute, "SET GLOBAL sql_mode = %s", before)
        self.execute("CREATE TABLE {t} (id INT AUTO_INCREMENT PRIMARY KEY, userName VARCHAR(30)) CHARSET utf8mb4")
        batch = batch_of((known("userName"), [*ODD_STRINGS, "x" * 31]))
        made = await opened(self, self.output(), batch.schema.values())
        await made.write(batch)
        self.assertEqual([row[0] for row in self.execute("SELECT userName FROM {t} ORDER BY id")], ODD_STRINGS)
        self.assertEqual(made.counters.dropped, {"refused": 1})

    async def test_existing_table(self):
        """Columns of a table of ulogd2: its number is left out, and so is what the server computes."""
        self.execute(
            "CREATE TABLE {t} (nr INT PRIMARY KEY AUTO_INCREMENT, orig_ip_saddr INT UNSIGNED, number INT UNSIGNED, "
            "twice INT AS (number * 2) PERSISTENT)"
        )
        made = await opened(self, self.output(create=False))
        self.assertEqual(made.requests(frozenset()), {"orig.ip.saddr": True, "number": True, "record_kind": False})
        await made.write(numbers(7, 1))
        self.assertEqual(self.execute("SELECT * FROM {t}"), [(1, 7, 7, 14)])

    async def test_first_column(self):
        """A first column that is no key fills itself, as ulogd2 has it; one that a plugin gives is written."""
        self.execute("CREATE TABLE {t} (row INT DEFAULT 5, number INT UNSIGNED)")
        made = await opened(self, self.output(create=False))
        await made.write(numbers(7, 1))
        self.assertEqual(self.execute("SELECT * FROM {t}"), [(5, 7)])
        self.execute("DROP TABLE {t}")
        self.execute("CREATE TABLE {t} (number INT UNSIGNED, orig_ip_saddr VARCHAR(45))")
        made = await opened(self, self.output(create=False))
        await made.write(numbers(7, 1))
        self.assertEqual(self.execute("SELECT * FROM {t}"), [(7, "0.0.0.7")])

    async def test_view_and_procedure(self):
        """The columns of a view go to a procedure, or a function, one call a row; either can refuse a row."""
        self.execute("CREATE TABLE {t} (number INT, n INT)")
        self.execute("CREATE VIEW v AS SELECT n AS _id, number FROM {t}")
        no_three = "IF x = 3 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no three'; END IF;"
        body = f"{no_three} INSERT INTO {{t}} VALUES (x, 1);"
        self.execute(f"CREATE PROCEDURE p (x INT) BEGIN {body} SELECT x; END")
        self.execute(f"CREATE FUNCTION f (x INT) RETURNS INT BEGIN {body} RETURN 1; END")
        for procedure in ("CALL p", "f"):
            made = await opened(self, self.output(table="v", create=False, procedure=procedure))
            await made.write(numbers(1, 5))
            self.assertEqual(made.counters.dropped, {"refused": 1})
        self.assertEqual(
            self.execute("SELECT number, COUNT(*) FROM {t} GROUP BY number"), [(1, 2), (2, 2), (4, 2), (5, 2)]
        )
        self.assertIn("no three (1 row)", self.told[-1])

    async def test_refused_rows(self):
        """Rows that do not fit are dropped, counted and told; the others are there."""
        self.execute("CREATE TABLE {t} (number TINYINT UNSIGNED NOT NULL UNIQUE, userName VARCHAR(3))")
        names = ["x" * 3] * 300
        names[17] = "long"
        values = list(range(300))
        values[3], values[5] = None, 4
        batch = batch_of((NUMBER_KEYS[1], values), (known("userName"), names))
        made = await opened(self, self.output(), batch.schema.values())
        await made.write(batch)
        found = [row[0] for row in self.execute("SELECT number FROM {t} ORDER BY number")]
        self.assertEqual(found, [n for n in range(256) if n not in (3, 5, 17)])
        self.assertEqual(made.counters.dropped, {"refused": 47})
        self.assertRegex(self.told[-1], "47 rows do not fit.*Column 'number' cannot be null.*Data too long.*'userName'")


class AddedColumnTests(MYSQLTestCase):
    """create=1 with a table that lacks columns."""

    async def test_a_key_more(self):
        """Its column is added; older rows have NULL. A view stays as it is."""
        self.execute("CREATE TABLE {t} (number INT)")
        self.execute("INSERT INTO {t} VALUES (1)")
        self.execute("CREATE VIEW seen AS SELECT number FROM {t}")
        made = await opened(self, self.output(table="seen"))
        await made.write(numbers(2, 1))
        made = await opened(self, self.output())
        await made.write(numbers(3, 1))
        self.assertEqual(self.execute("SELECT * FROM {t}"), [(1, None), (2, None), (3, "0.0.0.3")])
        self.assertEqual([line for line in self.told if "older rows have NULL" in line], self.told)
        self.assertEqual(len(self.told), 1)

    async def test_not_allowed(self):
        """Where the user may not, the log has the statement, and the stack runs without the column; alter=0 says
        nothing. A key named in keys= is a mistake then."""
        self.execute("CREATE TABLE {t} (number INT)")
        self.execute("CREATE USER fewer@'127.0.0.1'")
        self.execute("GRANT SELECT, INSERT ON {t} TO fewer@'127.0.0.1'")
        statement = "ALTER TABLE .* ADD COLUMN `sourceIPv4Address` .*alter=0"
        with self.assertRaisesRegex(StartError, statement):
            await opened(self, self.output(user="fewer", keys=("sourceIPv4Address",)))
        for alter in (True, False):
            made = await opened(self, self.output(user="fewer", alter=alter))
            await made.write(numbers(3, 1))
            made.writer.renew = True
            await made.write(numbers(4, 1))
        self.assertEqual(self.execute("SELECT * FROM {t}"), [(3,), (4,)] * 2)
        lines = [line for line in self.told if "ADD COLUMN" in line]
        self.assertEqual(len(lines), 1, self.told)
        self.assertRegex(lines[0], statement)

    async def test_type_that_does_not_fit(self):
        """The statement of the message mends the column."""
        keys = (NUMBER_KEYS[1], known("userName"))
        self.execute("CREATE TABLE {t} (number DATETIME, userName INT)")
        for _ in keys:
            with self.assertRaisesRegex(StartError, "does not fit") as caught:
                await opened(self, self.output(), keys)
            self.execute(re.search("ALTER TABLE [^;]*", str(caught.exception))[0])
        made = await opened(self, self.output(), keys)
        await made.write(batch_of((keys[0], [7]), (keys[1], ["x"])))
        self.assertEqual(self.execute("SELECT * FROM {t}"), [(7, "x")])


class SiftingTests(MYSQLTestCase):
    """Rows that the server refuses with an error about the whole statement."""

    async def test_trigger(self):
        """A trigger that fails with any error for some rows costs these rows alone; the log has the error."""
        for number, bad in ((30001, "NEW.number % 100 = 7"), (1146, "NEW.number = 3"), (1365, "NEW.number = 0")):
            self.execute("DROP TABLE IF EXISTS {t}")
            self.execute("CREATE TABLE {t} (number INT UNSIGNED) ENGINE=InnoDB")
            self.execute(
                f"CREATE TRIGGER odd BEFORE INSERT ON {{t}} FOR EACH ROW BEGIN IF {bad} THEN SIGNAL SQLSTATE '45000' "
                f"SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'odd row'; END IF; END"
            )
            made = await opened(self, self.output(create=False, reconnect=0.05))
            await made.write(numbers(0, 250))
            refused = made.counters.dropped["refused"]
            self.assertEqual({30001: 3}.get(number, 1), refused)
            self.assertEqual([(250 - refused, 250 - refused)],
                             self.execute("SELECT COUNT(*), COUNT(DISTINCT number) FROM {t}"))  # fmt: skip
            self.assertTrue(any(f"odd row (error {number})" in line for line in self.told), self.told)
            await made.stop()


class TlsTests(TestCase):
    """Servers with and without TLS."""

    timeout = 120

    def setUp(self):
        self.ca = CA(self.mktemp())
        self.files = {"ssl_ca": self.ca.file}

    def server(self, name=None):
        """A server, with a certificate for this name."""
        options = []
        if name:
            certificate, key = self.ca.issue("server", name)
            for file in (certificate, key, self.ca.file):
                os.chmod(file, 0o644)
            place = tempfile.mkdtemp(prefix="utw-tls-")
            self.addCleanup(shutil.rmtree, place)
            os.chmod(place, 0o755)
            options = [f"--ssl-{word}={shutil.copy(file, place)}"
                       for word, file in (("ca", self.ca.file), ("cert", certificate), ("key", key))]  # fmt: skip
        made = PrivateMariaDB(networking=True, options=options)
        made.__enter__()
        self.addCleanup(made.__exit__)
        return made

    def output(self, server, **options):
        """An output on this server, over TCP."""
        where = {"host": "127.0.0.1", "port": server.port, "user": "root", "db": "ulogd"}
        return output(MYSQL, **where | {"table": "flows", "create": True, "reconnect": 0.2} | options)

    async def test_verified(self):
        """With the CA of the server's certificate, rows go over TLS; its name counts unless ssl_verify=ca."""
        server = self.server("127.0.0.1")
        for verify in ("identity", "ca"):
            made = await opened(self, self.output(server, ssl_verify=verify, **self.files))
            await made.write(numbers(0, 3))
            self.assertTrue(made.database.connection.encrypted and made.database.connection.safe)
            await made.stop()
        self.assertEqual([(6,)], server.execute("SELECT COUNT(*) FROM flows"))

    async def test_not_verified(self):
        """Another CA, another name, or no TLS at all: nothing is sent."""
        named = self.server("db.example")
        for server, files in ((named, {"ssl_ca": CA(self.mktemp()).file, "ssl_verify": "ca"}), (named, self.files)):
            with self.assertRaises(pymysql.OperationalError) as caught:
                mysql_connection.connect(**self.output(server, **files).database.keywords())
            self.assertRegex(str(caught.exception), "(?i)certificate verify failed")
        plain = self.server()
        with self.assertRaisesRegex(StartError, "SSL is required|does not speak TLS"):
            await opened(self, self.output(plain, **self.files))


class OutageTests(MYSQLTestCase):
    """Whatever happens to server and network, every row is there, once."""

    async def test_server_restarts(self):
        """The server is gone for some seconds and comes back; rows wait, and the log says so in two lines."""
        made = await opened(self, self.output())
        first = await self.write(made, 0, 5)
        await threads.deferToThread(self.server.stop)
        writing = made.write(numbers(first, ROWS))
        await pause(sized(5, 10))
        self.assertFalse(writing.called)
        await threads.deferToThread(self.server.start)
        await writing
        self.assertOnce(await self.write(made, first + ROWS, 5))
        told = [line for line in self.told if "made the table" not in line]
        self.assertEqual(len(told), 2, told)
        self.assertRegex(told[1], "accepts rows again")

    async def test_server_crashes(self):
        """The same when it is killed while it writes."""
        made = await opened(self, self.output())
        writing = made.write(numbers(0, 100_000))
        await pause(0.2)
        await threads.deferToThread(self.server.stop, 9)
        await threads.deferToThread(self.server.start)
        await writing
        self.assertOnce(100_000)

    async def test_away_at_start(self):
        """A server that is away at the start is waited for; the table is made when it comes."""
        await threads.deferToThread(self.server.stop)
        made = self.output()
        made.prepare()
        self.assertEqual(list(made.available(NUMBER_KEYS)), [])
        await made.open()
        self.addCleanup(made.stop)
        self.assertRegex(self.told[0], "Can't connect.*rows wait")
        writing = made.write(numbers(0, ROWS))
        await pause(0.5)
        await threads.deferToThread(self.server.start)
        await writing
        self.assertOnce(ROWS)

    async def test_killed_connection(self):
        """An administrator kills the connection, idle and in the middle of a batch."""
        made = await opened(self, self.output())
        first = await self.write(made, 0, 1)
        self._kill()
        first = await self.write(made, first, 1)
        self.assertEqual([line for line in self.told if "rows wait" in line], [])
        for _ in range(3):
            writing = made.write(numbers(first, 60_000))
            await pause(0.1)
            self._kill()
            await writing
            first += 60_000
        self.assertOnce(first)

    def _kill(self):
        for (ident,) in self.execute(
            "SELECT ID FROM information_schema.PROCESSLIST WHERE ID <> CONNECTION_ID() AND DB = 'ulogd'"
        ):
            self.execute(f"KILL CONNECTION {ident}")

    async def test_idle_connection(self):
        """The server closes idle connections: nothing is lost and nothing is told."""
        before = self.execute("SELECT @@GLOBAL.wait_timeout")[0][0]
        self.execute("SET GLOBAL wait_timeout = 1")
        self.addCleanup(self.execute, "SET GLOBAL wait_timeout = %s", before)
        made = await opened(self, self.output())
        first = 0
        for _ in range(3):
            first = await self.write(made, first, 1)
            await pause(1.3)
        self.assertOnce(first)
        self.assertEqual([line for line in self.told if "made the table" not in line], [])
        self.assertEqual(made.counters.errors["away"], 2)

    async def test_table_dropped(self):
        """A table that is dropped is told, and made anew."""
        made = await opened(self, self.output())
        await self.write(made, 0, 1)
        self.execute("DROP TABLE {t}")
        await self.write(made, 0, 1)
        self.assertOnce(ROWS)

    async def test_missing_table(self):
        """Without create=1 a missing table keeps the stack from starting; one that goes later is waited for."""
        with self.assertRaisesRegex(StartError, "no table"):
            self.output(create=False).prepare()
        self.execute("CREATE TABLE {t} (number INT)")
        made = await opened(self, self.output(create=False))
        self.execute("DROP TABLE {t}")
        writing = made.write(numbers(0, ROWS))
        await pause(0.5)
        self.assertFalse(writing.called)
        self.assertRegex(self.told[0], r"doesn't exist \(error 1146\); make the .*, or set create=1; rows wait")
        self.execute("CREATE TABLE {t} (number INT)")
        await writing
        self.assertOnce(ROWS)

    async def test_read_only(self):
        """A server that takes no writes for a while, and a user with few rights."""
        self.execute("CREATE TABLE {t} (number INT)")
        self.execute("CREATE USER few@localhost")
        self.execute("CREATE USER few@'127.0.0.1'")
        for host in ("localhost", "127.0.0.1"):
            self.execute(f"GRANT SELECT, INSERT ON {{t}} TO few@'{host}'")
        made = await opened(self, self.output(create=False, user="few"))
        await self.write(made, 0, 1)
        self.assertEqual([line for line in self.told if "may be written twice" in line], self.told)
        self.execute("SET GLOBAL read_only = 1")
        self.addCleanup(self.execute, "SET GLOBAL read_only = 0")
        writing = made.write(numbers(ROWS, ROWS))
        await pause(0.7)
        self.assertFalse(writing.called)
        self.execute("SET GLOBAL read_only = 0")
        await writing
        self.assertOnce(2 * ROWS)
        self.assertEqual(len([line for line in self.told if "read-only" in line]), 1)

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


class ProxyTests(MYSQLTestCase):
    """A network that loses things."""

    async def proxied(self, **options):
        """An output behind a proxy, and that proxy."""
        proxy = Proxy(self.server.port)
        await proxy.start()
        self.addCleanup(proxy.stop)
        made = await opened(self, self.output(port=proxy.port, **options))
        return made, proxy

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

    async def test_no_batch_numbers(self):
        """A user who may not number batches: rows whose commit got no answer are there twice, and counted as such."""
        self.execute("CREATE TABLE {t} (number INT)")
        self.execute("CREATE USER plain@'127.0.0.1'")
        self.execute("GRANT SELECT, INSERT ON {t} TO plain@'127.0.0.1'")
        made, rows = await self.lost_at_commit("lose_answer", True, user="plain", keys=("number",))
        self.assertEqual(made.counters.figures["maybe_twice"], 2 * ROWS)
        found = self.execute("SELECT COUNT(*), COUNT(DISTINCT number) FROM {t}")
        self.assertEqual(found, [(rows + 2 * ROWS, rows)])
        self.assertEqual(len([line for line in self.told if "counted as maybe_twice" in line]), 1)

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
        self.execute("CREATE TABLE {t} (number TINYINT UNSIGNED)")
        made, proxy = await self.proxied()
        proxy.at_commit = "lose_answer"
        await made.write(numbers(0, 300))
        self.assertOnce(256)
        self.assertEqual(made.counters.dropped, {"refused": 44})

    async def test_black_hole(self):
        """A network that swallows everything is noticed after `timeout`; its half-done transaction does no harm."""
        made, proxy = await self.proxied(timeout=1.0, connect_timeout=1.0)
        first = await self.write(made, 0, 1)
        proxy.frozen = True
        writing = made.write(numbers(first, ROWS))
        await pause(2.5)
        self.assertFalse(writing.called)
        proxy.frozen = False
        began = time.monotonic()
        await writing
        self.assertLess(time.monotonic() - began, 10)
        self.assertOnce(await self.write(made, first + ROWS, 2))

    async def test_black_hole_in_a_transaction(self):
        """The server keeps the transaction of a connection that we have given up: it is ended before we go on."""
        made, proxy = await self.proxied(timeout=1.0, connect_timeout=1.0)
        first = await self.write(made, 0, 1)
        real = made.database.insert

        def insert(*arguments):
            real(*arguments)
            made.database.insert = real
            proxy.frozen = True  # from here to the commit

        made.database.insert = insert
        writing = made.write(numbers(first, ROWS))
        await pause(1.5)
        proxy.frozen = False
        await writing
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
