"""CLICKHOUSE: its keys and columns, its checks, and what it says of a table that does not fit."""

from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.storing.clickhouse.server import Server
from tests.unit.storing.sql_rows import batch_of, output, wire
from ulogd_tw import config
from ulogd_tw.built import Built
from ulogd_tw.core import types
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.keys import Key, known
from ulogd_tw.plugins.outputs.clickhouse import CLICKHOUSE
from ulogd_tw.storing.clickhouse import options
from ulogd_tw.storing.clickhouse.types import type_for
from ulogd_tw.storing.errors import TableError

KEYS = (known("exporter"), known("sourceIPv4Address"), known("octetDeltaCount"), known("flowEndMilliseconds"),
        known("flowStartMilliseconds"))  # fmt: skip
NOON_MS = 1_796_126_400_000


class Pool:
    """As adbapi's, with a server in memory."""

    def __init__(self, made, server):
        self.made, self.server = made, server
        self.connections = {}

    def connect(self):
        if not self.connections:
            self.connections[1] = self.server
            self.made.writer.opened(self.server)
        return self.server

    def disconnect(self, connection):
        self.connections.clear()


class ClickHouseCase(SynchronousTestCase):
    """With a server in memory."""

    def made(self, server, *more, **given):
        """An output, prepared, below something that gives the keys of `KEYS`, and `more`."""
        made = output(CLICKHOUSE, **{"table": "flows"} | given)
        with mock.patch("ulogd_tw.storing.clickhouse.client.connect", lambda way: server):
            made.prepare()
        wire(self, made, (*KEYS, *more))
        made.pool = Pool(made, server)
        self.addCleanup(setattr, made, "pool", None)
        return made

    def written(self, made, batch):
        """Write a batch; the columns of the statement."""
        made.store([batch], 1, False)
        statement = made.pool.server.inserts[-1][0]
        return statement.partition("(")[2].partition(")")[0].split(", ")

    def batch(self, end=NOON_MS - 1000):
        return self.now(batch_of(
            (KEYS[0].typed(types.IPV4), [1]), (KEYS[1], [2]), (KEYS[2], [3]), (KEYS[3], [end]),
            (KEYS[4], [NOON_MS - 9000])))  # fmt: skip

    @staticmethod
    def now(batch):
        batch.now = NOON_MS / 1000
        return batch


class TableTests(ClickHouseCase):
    """Tables that are made, and tables that are there."""

    def test_made(self):
        """The keys of a flow that reach it, with the time first."""
        server = Server()
        made = self.made(server, create=True, retain=86400.0 * 30, rollups=("1m",))
        self.assertEqual(self.written(made, self.batch()), list(server.table))
        self.assertEqual(list(server.table)[:2], ["time", "exporter"])
        self.assertEqual(server.table["time"], "DateTime64(3, 'UTC')")
        created = next(s for s in server.statements if s.startswith("CREATE TABLE"))
        self.assertIn("ORDER BY (toStartOfFiveMinutes(time), exporter, sourceAddress)", created)
        self.assertTrue(any(s.startswith("CREATE MATERIALIZED VIEW IF NOT EXISTS default.flows_1m_view") for s in
                            server.statements))  # fmt: skip

    def test_time(self):
        """The time is the end of a flow, or its arrival if the end is odd."""
        for end, time_ms in ((NOON_MS - 1000, NOON_MS - 1000), (NOON_MS + 10**9, NOON_MS), (0, NOON_MS)):
            made = self.made(Server({"time": "DateTime64(3)"}))
            made.store([self.batch(end)], 1, False)
            self.assertEqual(made.pool.server.inserts[0][1][-8:], time_ms.to_bytes(8, "little"))

    def test_added(self):
        """A table that is there gets the columns of further keys."""
        server = Server({"time": "DateTime64(3)", "exporter": "IPv6", "octets": "UInt64"})
        made = self.made(server, create=True)
        made.writer.write(made.pool, None, 0, False)
        added = [s for s in server.statements if s.startswith("ALTER")]
        self.assertIn("ALTER TABLE flows ADD COLUMN sourceAddress IPv6 CODEC(ZSTD(1))", added)
        self.assertFalse([s for s in added if "octets" in s or "exporter " in s])

    def test_roll_ups_there(self):
        """Roll-ups that are there need no right to make tables."""
        made_keys = [Key("time", types.MILLISECONDS), known("octets"), known("sourceAddress"), KEYS[0], *KEYS[3:]]
        for others, made_now in (({"flows_1m", "flows_1m_view"}, False), ({"flows_1m"}, True)):
            server = Server({key.name: type_for(key) for key in made_keys})
            server.others = others
            made = self.made(server, create=True, rollups=("1m",))
            made.writer.write(made.pool, None, 0, False)
            statements = server.statements
            self.assertEqual(any(one.startswith("CREATE") for one in statements), made_now, statements)

    def test_there(self):
        """The columns of a table are keys; those that fill themselves are left."""
        made = self.made(Server({"octets": "UInt64", "sourceAddress": "IPv6"}))
        self.assertEqual(self.written(made, self.batch()), ["octets", "sourceAddress"])

    def test_named(self):
        """Columns with names of their own, as Akvorado has them; others are left to the server."""
        server = Server({"TimeReceived": "DateTime", "SrcAddr": "IPv6", "Bytes": "UInt64", "SrcCountry": "String"})
        pairs = ("TimeReceived=flowEndMilliseconds", "SrcAddr=sourceAddress", "Bytes=octets")
        self.assertEqual(
            self.written(self.made(server, columns=pairs), self.batch()), ["TimeReceived", "SrcAddr", "Bytes"]
        )

    def test_unknown_column(self):
        """A column that is no key is an error that names the likely one."""
        made = self.made(Server({"octets": "UInt64", "sourceAdress": "IPv6"}))
        self.assertIn("sourceAdress", str(self.assertRaises(StartError, made._check_columns)))

    def refused(self, table, **given):
        """The error of a table that does not fit."""
        return str(self.assertRaises(StartError, self.made, Server(table), **given))

    def test_missing_column(self):
        """A key without a column is one error, with the statement that adds it."""
        error = self.refused({"octets": "UInt64"}, keys=("octets", "sourceAddress"))
        self.assertIn("table flows has no column sourceAddress for the key sourceAddress", error)
        self.assertIn("ALTER TABLE flows ADD COLUMN sourceAddress IPv6", error)
        error = self.refused({"octets": "UInt64"}, columns=("SrcAddr=sourceAddress",))
        self.assertIn("ALTER TABLE flows ADD COLUMN SrcAddr IPv6", error)

    def test_wrong_type(self):
        """A column of another type is one error, with the statement that changes it."""
        for given in ({}, {"create": True}, {"keys": ("octets",)}):
            error = self.refused({"octets": "IPv6"}, **given)
            self.assertIn("column octets of table flows is IPv6, which does not fit octets", error)
            self.assertIn("ALTER TABLE flows MODIFY COLUMN octets UInt64", error)

    def test_no_table(self):
        """Without create=1 there must be a table."""
        self.assertIn("there is no table flows; make it, or set create=1", self.refused(None))

    def test_unknown_names(self):
        """A column of a roll-up that will not be there is an error, before anything is made."""
        for option in ("order", "rollup_by", "rollup_distinct"):
            server = Server()
            made = self.made(server, create=True, rollups=("1m",), **{option: ("sourceAdress",)})
            error = self.assertRaises(TableError, made.store, [self.batch()], 1, False)
            self.assertIn(f"{option}: sourceAdress is no column of table flows", str(error))
            self.assertIn("sourceAddress", error.remedy)
            self.assertFalse([s for s in server.statements if s.startswith("CREATE")])

    def test_own_key(self):
        """A key that only its plugin knows has the type of the first batch."""
        mine, server = Key("mine", types.UNSIGNED16), Server()
        made = self.made(server, mine, create=True, keys=("octets", "mine"))
        made.writer.write(made.pool, None, 0, False)
        self.assertIsNone(server.table)
        made.store([self.now(batch_of((KEYS[2], [3]), (mine, [4])))], 1, False)
        self.assertEqual(server.table["mine"], "UInt16")


class StackTests(SynchronousTestCase):
    """The configuration of whole stacks."""

    def built(self, section, stack="c:COLLECTOR,x:CLICKHOUSE", *more):
        """A stack that ends in x:CLICKHOUSE."""
        lines = ["[global]", f"stack={stack}", "[c]", "listen=udp:127.0.0.1:4739", "[x]", "table=flows", section]
        return Built(config.parse("\n".join([*lines, *more]), "test.conf"), prepare=False)

    def mistakes(self, section):
        """The mistakes in the section of the output."""
        return " ".join(map(str, self.built(section).mistakes))

    def test_keys(self):
        """Below a collector the keys of flows, below an aggregate its columns."""
        output = self.built("create=1").graph.outputs[0].plugin
        self.assertLess({"exporter", "sourceAddress", "octets"}, set(output._given_keys()))
        made = self.built("create=1", "c:COLLECTOR,a:AGGREGATE,x:CLICKHOUSE", "[a]", "key=5tuple")
        given = made.graph.outputs[0].plugin._given_keys()
        self.assertLess({"interval_start", "octets", "flows"}, set(given))

    def test_sums_of_sums(self):
        """Roll-ups of an aggregate add up its numbers of flows, in one column."""
        made = self.built("create=1\nrollups=1m", "c:COLLECTOR,a:AGGREGATE,x:CLICKHOUSE", "[a]", "key=5tuple")
        output = made.graph.outputs[0].plugin
        output._keys_to_make(None)
        _, minute, view = output.database.to_make.statements()
        self.assertEqual(minute.count("\n  flows UInt64"), 1)
        self.assertIn("sum(s.flows) AS flows", view)
        self.assertIn("sum(s.octets) AS octets", view)

    def test_mistakes(self):
        """Options that need others, and texts that are none."""
        for section, text in (
            ("retain=1d", "set create=1"), ("create=1\ndistributed=1", "set cluster="),
            ("pass=a\npass_file=/etc/hostname", "the password is given twice"), ("host=a:b:c", "is not a server"),
            ("create=1\nrollups=7s", "does not divide a day"), ("columns=a", "is not a pair COLUMN=KEY"),
            ('columns="a=octets,a=packets"', "is there twice"),
            ("create=1\nkeys=octets\nrollup_by=octet", "octet is not in keys=; did you mean octets?"),
            ("compression=brotli", "is none of none, lz4, zstd, gzip"),
        ):  # fmt: skip
            self.assertIn(text, self.mistakes(section), section)

    def test_library(self):
        """A way to compress that has no library says what brings it."""
        with mock.patch("ulogd_tw.plugins.outputs.clickhouse.is_there", lambda name: False):
            self.assertIn("lz4 needs lz4", self.mistakes("compression=lz4"))

    def test_servers(self):
        """Hosts with and without port, and addresses."""
        words = options.servers("ch1 ch2:9000,[2001:db8::1]:8124 [::1]")
        self.assertEqual([options.server(word, 8123) for word in words],
                         [("ch1", 8123), ("ch2", 9000), ("2001:db8::1", 8124), ("::1", 8123)])  # fmt: skip

    def test_password_in_clear(self):
        """A password that goes over a network as it is, is a remark."""
        for given, remark in (({"host": ("ch1",), "pass": "x"}, True), ({"pass": "x"}, False),
                              ({"host": ("ch1",), "pass": "x", "tls": True}, False)):  # fmt: skip
            found = " ".join(text for _, text in output(CLICKHOUSE, table="flows", **given).remarks())
            self.assertEqual("goes over the network as it is" in found, remark, given)
