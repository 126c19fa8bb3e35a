"""CLICKHOUSE on Debian's server of 2018: into a table made by hand, with a password, away, killed, and by TLS."""

import atexit
import signal
import time
from functools import cache

from twisted.internet import defer, reactor, threads
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.certificates import CA
from tests.clickhouse import PASSWORD, PrivateClickHouse
from tests.live.service import Service, temporary
from tests.live.sql_proxy import Proxy
from tests.live.test_parquet import STATE, Numbered
from tests.support import free_port, require_root, wait_until
from tests.unit.storing.sql_rows import batch_of, numbers, opened, output, told
from ulogd_tw.core import types
from ulogd_tw.core.batch import Past
from ulogd_tw.core.errors import NotWritten, StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.plugins.outputs.clickhouse import CLICKHOUSE

ROWS = 500
INSERT = b"INSERT%20INTO"
"""What the proxy knows an insert by."""


def pause(seconds):
    """A Deferred that fires then."""
    return deferLater(reactor, seconds, lambda: None)


@cache
def shared_server():
    """One server for tests that leave it alone, ended with the process."""
    server = PrivateClickHouse()
    server.__enter__()
    atexit.register(server.__exit__)
    return server


class ClickHouseCase(TestCase):
    """With a server; every test has its own table."""

    timeout = 120
    own = False
    """Whether a test has a server of its own."""

    def setUp(self):
        require_root()
        self.server = self.entered(PrivateClickHouse()) if self.own else shared_server()
        self.table = self.id().rpartition(".")[2]
        self.told = told(self)

    def entered(self, server):
        """A server until the test ends."""
        server.__enter__()
        self.addCleanup(server.__exit__)
        return server

    def output(self, *hosts, **options):
        """An output on these ports of this host, at first the server's."""
        ports = hosts or (self.server.port,)
        given = {"host": tuple(f"127.0.0.1:{port}" for port in ports), "table": self.table, "reconnect": 0.3}
        return output(CLICKHOUSE, **given | options)

    def make(self, columns="sourceIPv4Address UInt32, number UInt32", server=None):
        """A table made by hand."""
        (server or self.server).ask(f"CREATE TABLE {self.table} ({columns}) ENGINE = MergeTree ORDER BY number")

    def count(self, server=None):
        """Rows, and different numbers."""
        return tuple(map(int, (server or self.server).ask(f"SELECT count(), uniqExact(number) FROM {self.table}")[0]))

    async def write(self, made, first, batches, rows=ROWS):
        """Write batches one after the other, as the queue does; the number of the row after the last."""
        for _ in range(batches):
            await made.write(numbers(first, rows))
            first += rows
        return first


class ValuesTests(ClickHouseCase):
    """What stands in a table that was made by hand."""

    COLUMNS = (
        "octets UInt64, number UInt32, small Int8, sourceAddress FixedString(16), orig_ip_saddr UInt32, "
        "flowStartSeconds DateTime, flowEndMilliseconds Nullable(DateTime), half Float32, yes UInt8, "
        "userName String, interfaceName Enum8('eth0' = 1, 'lo' = 2), extra String DEFAULT 'x', "
        "twice MATERIALIZED number * 2, day Date"
    )

    def batch(self):
        return batch_of(
            (known("octetDeltaCount"), [(1 << 64) - 1, 0]), (Key("number", types.UNSIGNED32), [7, 8]),
            (Key("small", types.SIGNED8), [-128, None]), (known("sourceAddress").typed(types.IPV4), [0x0A4D0001, None]),
            (known("orig.ip.saddr").typed(types.IPV4), [0x0A4D0001, 0]), (known("flowStartSeconds"), [86400, 0]),
            (known("flowEndMilliseconds"), [1_790_000_000_999, None]), (Key("half", types.FLOAT32), [0.5, None]),
            (Key("yes", types.BOOLEAN), [True, False]), (known("userName"), ["x" * 70000, "€'\\\0y"]),
            (known("interfaceName"), ["lo", "eth0"]), (known("flowEndSeconds"), [86400 * 3, 0]),
        )  # fmt: skip

    async def test_every_type(self):
        """All types of the server that have a key; what misses is NULL or nothing, and defaults are the server's."""
        self.make(self.COLUMNS)
        batch = self.batch()
        made = await opened(self, self.output(columns=("day=flowEndSeconds",)), tuple(batch.schema.values()))
        await made.write(batch)
        columns = ("octets, small, IPv6NumToString(sourceAddress), IPv4NumToString(orig_ip_saddr), "
                   "toUInt32(flowStartSeconds), toUInt32(flowEndMilliseconds), half, yes, "
                   "length(userName), hex(substring(userName, 1, 7)), interfaceName, extra, twice, "
                   "toString(day)")  # fmt: skip
        rows = self.server.ask(f"SELECT {columns} FROM {self.table} ORDER BY number")
        self.assertEqual(rows[0], ("18446744073709551615", "-128", "::ffff:10.77.0.1", "10.77.0.1", "86400",
                                   "1790000000", "0.5", "1", "70000", "78" * 7, "lo", "x", "14",
                                   "1970-01-04"))  # fmt: skip
        self.assertEqual(rows[1], ("0", "0", "::", "0.0.0.0", "0", "\\N", "0", "0", "7", "E282AC275C0079", "eth0", "x",
                                   "16", "0000-00-00"))  # fmt: skip
        self.assertEqual(made.counters.dropped, {})

    async def test_does_not_fit(self):
        """A row that does not fit is refused alone, and kept as a dead letter."""
        self.make("sourceIPv4Address UInt32, number UInt8")
        letters = self.mktemp()
        made = await opened(self, self.output(dead_letters=letters))
        await made.write(numbers(250, 10))
        self.assertEqual(self.count(), (6, 6))
        self.assertEqual(made.counters.dropped["refused"], 4)
        self.assertTrue(any("does not fit column number, which is UInt8" in line for line in self.told))

    async def test_refused_by_server(self):
        """A row for which the table has an error is found, and refused alone."""
        self.server.ask(f"CREATE TABLE {self.table} (number UInt32, sourceIPv4Address UInt32, x UInt8 MATERIALIZED "
                        "throwIf(number = 77)) ENGINE = MergeTree ORDER BY number")  # fmt: skip
        made = await opened(self, self.output())
        await made.write(numbers(0, 200))
        self.assertEqual(self.count(), (199, 199))
        self.assertEqual(made.counters.dropped["refused"], 1)

    async def test_compressed(self):
        """gzip is what this server has; rows wait for another setting with others."""
        self.make()
        made = await opened(self, self.output(compression="lz4"))
        writing = made.write(numbers(0, 5))
        await pause(1)
        self.assertTrue(any("set compression=gzip or none" in line for line in self.told), self.told)
        await made.stop()
        await self.assertFailure(writing, NotWritten)
        made = await opened(self, self.output(compression="gzip"))
        await self.write(made, 0, 2)
        self.assertEqual(self.count(), (2 * ROWS, 2 * ROWS))


class TableTests(ClickHouseCase):
    """Errors at the start."""

    def error(self, **options):
        """The error of `prepare`."""
        return str(self.assertRaises(StartError, self.output(**options).prepare))

    async def test_too_old(self):
        """create=1 says which release it needs."""
        made = self.output(create=True)
        error = await self.assertFailure(defer.ensureDeferred(opened(self, made)), StartError)
        self.assertIn("create=1 needs ClickHouse 24.8 or later; this server is 18.16.1", str(error))

    def test_password(self):
        """A password of odd characters from a file; a wrong one is an error at the start."""
        self.make()
        for name, text in (("user", "flows"), ("pass", PASSWORD), ("wrong", "x")):
            (self.server.folder / name).write_text(text + "\n")
        files = {"user_file": str(self.server.folder / "user"), "pass_file": str(self.server.folder / "pass")}
        self.output(**files).prepare()
        error = self.error(**files | {"pass_file": str(self.server.folder / "wrong")})
        self.assertIn("correct user= and pass=", error)
        self.assertIn("pass_file", self.error(**files | {"pass_file": "/nonexistent/pass"}))

    def test_unfit(self):
        """A missing table, a missing column, and a wrong type, each with its remedy."""
        self.assertIn("make it, or set create=1", self.error())
        self.make()
        self.assertIn(f"ALTER TABLE {self.table} ADD COLUMN octets UInt64", self.error(keys=("number", "octets")))
        self.server.ask(f"ALTER TABLE {self.table} ADD COLUMN octets Array(UInt8)")
        self.assertIn(f"ALTER TABLE {self.table} MODIFY COLUMN octets UInt64", self.error())


class AwayTests(ClickHouseCase):
    """Servers that are not there."""

    own = True

    async def test_failover(self):
        """Rows go to the next server while the first one is away, and stay there."""
        other = self.entered(PrivateClickHouse())
        self.make()
        self.make(server=other)
        made = await opened(self, self.output(self.server.port, other.port))
        first = await self.write(made, 0, 3)
        await threads.deferToThread(self.server.stop, signal.SIGKILL)
        await self.write(made, first, 3)
        await threads.deferToThread(self.server.start)
        self.assertEqual((self.count(), self.count(other)), ((3 * ROWS, 3 * ROWS), (3 * ROWS, 3 * ROWS)))
        self.assertTrue(made.where.endswith(str(other.port)))

    async def test_away_at_start(self):
        """A server that comes later gets the rows."""
        self.make()
        self.server.stop()
        made = await opened(self, self.output())
        writing = defer.ensureDeferred(self.write(made, 0, 2))
        await pause(1)
        await threads.deferToThread(self.server.start)
        await writing
        self.assertEqual(self.count(), (2 * ROWS, 2 * ROWS))

    async def test_away(self):
        """Rows wait while the server is away, and each is there once."""
        self.make()
        made = await opened(self, self.output())
        first = await self.write(made, 0, 2)
        await threads.deferToThread(self.server.stop)
        writing = defer.ensureDeferred(self.write(made, first, 4))
        await pause(10)
        await threads.deferToThread(self.server.start)
        await writing
        self.assertEqual(self.count(), (6 * ROWS, 6 * ROWS))
        self.assertGreater(made.counters.errors["away"], 2)
        self.assertTrue(any("accepts rows again" in line for line in self.told))

    async def test_killed(self):
        """A server that is killed again and again in mid-insert has every row; those that may be twice are counted."""
        self.make()
        made = await opened(self, self.output())
        writing = defer.ensureDeferred(self.write(made, 0, 30, 100_000))
        for _ in range(3):
            await pause(0.4)
            await threads.deferToThread(self.server.stop, signal.SIGKILL)
            await threads.deferToThread(self.server.start)
        await writing
        rows, different = self.count()
        self.assertEqual(different, 3_000_000)
        self.assertLessEqual(rows - different, made.counters.figures["maybe_twice"])

    async def test_lost_answer(self):
        """An insert without an answer is looked up in the query log, and is there once."""
        self.make()
        proxy = Proxy(self.server.port, INSERT)
        await proxy.start()
        made = await opened(self, self.output(proxy.port))
        proxy.at_commit = "lose_answer"
        await self.write(made, 0, 2)
        self.assertEqual((self.count(), made.counters.figures["maybe_twice"]), ((2 * ROWS, 2 * ROWS), 0))
        self.assertEqual(proxy.answers_lost, 1)
        self.assertTrue(any("non_replicated_deduplication_window" in line for line in self.told))
        await made.stop()
        await proxy.stop()

    async def test_idle(self):
        """A connection that the server has closed is no doubt about an insert, and no fault."""
        self.make()
        made = await opened(self, self.output())
        await self.write(made, 0, 1)
        await pause(4.5)  # keep_alive_timeout is 3
        await self.write(made, ROWS, 1)
        self.assertEqual(self.count(), (2 * ROWS, 2 * ROWS))
        self.assertEqual((dict(made.counters.errors), made.counters.figures["maybe_twice"]), ({}, 0))

    async def test_silent(self):
        """A server that says nothing any more is left for the next one; the insert in doubt is counted."""
        self.make()
        proxy = Proxy(self.server.port, INSERT)
        await proxy.start()
        made = await opened(self, self.output(proxy.port, self.server.port, timeout=1.0, connect_timeout=1.0))
        made.database.way.first = 0  # the proxy runs in this reactor, which stood still at the start
        made.reopen()
        await self.write(made, 0, 1)
        self.assertTrue(made.where.endswith(str(proxy.port)))
        proxy.frozen = True
        await self.write(made, ROWS, 2)
        self.assertEqual((self.count(), made.counters.figures["maybe_twice"]), ((3 * ROWS, 3 * ROWS), ROWS))
        self.assertTrue(made.where.endswith(str(self.server.port)))
        await made.stop()
        await proxy.stop()

    async def test_frozen(self):
        """A stop does not wait for a server that says nothing."""
        self.make()
        proxy = Proxy(self.server.port, INSERT)
        await proxy.start()
        made = await opened(self, self.output(proxy.port))
        await self.write(made, 0, 1)
        proxy.frozen = True
        writing = made.write(numbers(ROWS, ROWS))
        began = time.monotonic()
        await made.stop()
        await self.assertFailure(writing, NotWritten)
        self.assertLess(time.monotonic() - began, 30)
        await proxy.stop()


class PastTests(ClickHouseCase):
    """Batches of an earlier run that got no answer."""

    async def test_query_log(self):
        """The server's query log tells that a batch is there."""
        self.make()
        first = await opened(self, self.output())
        batch = numbers(0, ROWS)
        await first.write(batch)
        await first.stop()
        batch.past = Past("", first.run, first.write_number)
        second = await opened(self, self.output())
        self.assertTrue(await second.in_thread(second.committed, first.run, first.write_number))
        self.assertFalse(await second.in_thread(second.committed, first.run, 99))
        await second.write(batch)
        self.assertEqual((self.count(), second.counters.figures["maybe_twice"]), ((ROWS, ROWS), 0))


class KilledTests(SynchronousTestCase):
    """kill -9 of the service while records come."""

    KILLS = 3

    def test_killed(self):
        """No row is there twice, and those that miss are counted: the query log tells of the last insert."""
        require_root()
        server, port = shared_server(), free_port("udp")
        columns = "octets UInt64, sourceAddress FixedString(16)"
        server.ask(f"CREATE TABLE killed ({columns}) ENGINE = MergeTree ORDER BY octets")
        directory = temporary("clickhouse")
        text = f'[col]\nlisten="udp:127.0.0.1:{port}"\n[ch]\nhost="127.0.0.1:{server.port}"\ntable=killed\nflush=0.05'
        exporter = Numbered(port)
        self.addCleanup(exporter.ends.set)
        lost = {"restart": 0, "unsaved": 0}
        for round_ in range(self.KILLS + 1):
            with Service(["col:COLLECTOR,ch:CLICKHOUSE"], text, directory=directory, settings=STATE) as service:
                wait_until((directory / "stats.json").exists, what="the counters")
                if not round_:
                    exporter.start()
                time.sleep(0.7 + round_ % 3 * 0.017)
                if round_ < self.KILLS:
                    service.kill()
                else:
                    exporter.end()
                    time.sleep(0.5)
                    service.stop()
            counters = service.all_counters()
            for counted in counters.values():
                for reason in lost:
                    lost[reason] += counted["lost"].get(reason, 0)
            (directory / "stats.json").unlink()
        rows, different = map(int, server.ask("SELECT count(), uniqExact(octets) FROM killed")[0])
        self.assertEqual(rows, different)
        self.assertLessEqual(rows + lost["unsaved"], exporter.sent)
        self.assertGreaterEqual(rows + lost["unsaved"] + lost["restart"], exporter.sent, lost)


class TlsTests(TestCase):
    """HTTPS."""

    timeout = 120

    def setUp(self):
        require_root()
        self.ca = CA(self.mktemp())

    def server(self, verification="none"):
        """A server with a certificate, which looks at those of its clients."""
        certificate, key = self.ca.issue("server", "127.0.0.1", "localhost")
        config = (
            f"<openSSL><server><certificateFile>{certificate}</certificateFile><privateKeyFile>{key}</privateKeyFile>"
            f"<verificationMode>{verification}</verificationMode><caConfig>{self.ca.file}</caConfig>"
            "<loadDefaultCAFile>false</loadDefaultCAFile></server></openSSL>"
        )
        server = PrivateClickHouse(config, tls=True)
        server.__enter__()
        self.addCleanup(server.__exit__)
        server.ask("CREATE TABLE t (sourceIPv4Address UInt32, number UInt32) ENGINE = Memory")
        return server

    def output(self, server, **options):
        """An output to its port for HTTPS."""
        given = {"host": (f"127.0.0.1:{server.tls_port}",), "table": "t", "tls": True, "ssl_ca": self.ca.file}
        return output(CLICKHOUSE, **given | options)

    async def test_verified(self):
        """A server with a certificate of our CA gets rows; one of another CA gets nothing."""
        server, other = self.server(), CA(self.mktemp(), "other")
        made = await opened(self, self.output(server))
        await made.write(numbers(0, ROWS))
        self.assertEqual(server.ask("SELECT count() FROM t"), [(str(ROWS),)])
        await made.stop()
        error = str(self.assertRaises(StartError, self.output(server, ssl_ca=other.file).prepare))
        self.assertIn("its certificate is not valid", error)
        self.assertIn("set ssl_ca=", error)

    async def test_client_certificate(self):
        """A server that asks for our certificate gets rows with it."""
        server = self.server("strict")
        certificate, key = self.ca.issue("client", "ulogd")
        made = await opened(self, self.output(server, ssl_cert=certificate, ssl_key=key))
        await made.write(numbers(0, ROWS))
        self.assertEqual(server.ask("SELECT count() FROM t"), [(str(ROWS),)])
        await made.stop()
        lines = told(self)
        self.output(server).prepare()
        self.assertTrue(any("rows wait" in line for line in lines), lines)
