"""CLICKHOUSE on today's engine: tables that it makes, roll-ups, repeats, and millions of rows of a collector."""

import atexit
import csv
import re
import subprocess
import sys
import time
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from twisted.internet import defer, reactor, threads
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.clickhouse import Chdb
from tests.live.service import Service, generate, temporary, unaccounted
from tests.support import TOP, free_port, given, wait_until
from tests.unit.storing.sql_rows import batch_of, opened, output, told
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Coded, different
from ulogd_tw.core.keys import Key, known
from ulogd_tw.core.resolve import Found, Provided
from ulogd_tw.plugins.outputs.clickhouse import CLICKHOUSE
from ulogd_tw.storing.clickhouse import schema
from ulogd_tw.storing.clickhouse.client import Connection, Way
from ulogd_tw.storing.clickhouse.database import ClickHouse
from ulogd_tw.storing.columns import Target

ROWS = 1000
RECORDS = 2_000_000


@cache
def shared_server():
    """One server for all tests of this module, ended with the process."""
    server = Chdb()
    server.__enter__()
    atexit.register(server.__exit__)
    return server


class TodayCase(TestCase):
    """With a server; every test has its own table."""

    timeout = 120

    def setUp(self):
        self.server = shared_server()
        self.table = self.id().rpartition(".")[2]

    def output(self, **options):
        """An output that makes its table."""
        given = {"host": (f"127.0.0.1:{self.server.port}",), "table": self.table, "create": True, "reconnect": 0.3}
        return output(CLICKHOUSE, **given | options)

    def one(self, columns, table=""):
        """The only row of a query of the table."""
        (row,) = self.server.ask(f"SELECT {columns} FROM {self.table}{table}")
        return row


NAME = known("ingressInterfaceName")
FLOW = (known("exporter").typed(types.IPV4), known("sourceAddress").typed(types.IPV4), known("octetDeltaCount"),
        known("packetDeltaCount"), known("protocolIdentifier"), known("flowEndMilliseconds"), NAME)  # fmt: skip


def flows(n, now, first=0):
    """Flows that end within the hour before `now`."""
    numbers = np.arange(first, first + n)
    names = Coded((numbers % 3).astype(np.int32), [b"eth0", b"eth1", b""])
    values = (np.uint32(0x7F000001) + (numbers % 2).astype(np.uint32), numbers.astype(np.uint32),
              numbers.astype(np.uint64), np.ones(n, np.uint64), (numbers % 7).astype(np.uint8),
              (int(now) * 1000 - numbers % 3600 * 1000).astype(np.uint64), names)  # fmt: skip
    held = {key.name: column for key, column in zip(FLOW, values, strict=True)}
    return Batch(Schema(FLOW), held, n=n, now=now)


class TableTests(TodayCase):
    """The tables that create=1 makes."""

    async def test_schema(self):
        """Types, codecs, order, partitions, TTL and the deduplication window, as the server understood them."""
        made = await opened(self, self.output(retain=86400.0 * 30, rollups=("1m:7d",)), FLOW)
        await made.write(flows(10, time.time()))
        (text,) = self.server.ask(f"SHOW CREATE TABLE {self.table}")
        for part in ("`sourceAddress` IPv6 CODEC(ZSTD(1))", "`ingressInterfaceName` LowCardinality(String)",
                     "`time` DateTime64(3, \\'UTC\\') CODEC(DoubleDelta, ZSTD(1))", "toIntervalSecond(2592000)",
                     "PARTITION BY toYYYYMMDD(time)", "ORDER BY (toStartOfFiveMinutes(time), exporter, sourceAddress)",
                     "non_replicated_deduplication_window = 10000"):  # fmt: skip
            self.assertIn(part, text[0])
        self.assertIn("toIntervalSecond(604800)", self.server.ask(f"SHOW CREATE TABLE {self.table}_1m")[0][0])

    async def test_rollups(self):
        """Sums of 1 minute, 5 minutes and an hour are those of the rows, also of different addresses."""
        made = self.output(rollups=("1m", "5m", "1h"), rollup_by=("exporter", "ingressInterfaceName"),
                           rollup_distinct=("sourceAddress",))  # fmt: skip
        await opened(self, made, FLOW)
        now = time.time()
        for first in (0, 5000):
            await made.write(flows(5000, now, first))
        for name, interval in (("1m", 60), ("5m", 300), ("1h", 3600)):
            groups = "toUnixTimestamp(time), exporter, ingressInterfaceName"
            found = self.server.ask(f"SELECT {groups}, sum(octets), sum(packets), sum(flows), "
                                    f"uniqMerge(distinct_sourceAddress) FROM {self.table}_{name} GROUP BY 1, 2, 3 "
                                    "ORDER BY 1, 2, 3")  # fmt: skip
            of_rows = self.server.ask(f"SELECT intDiv(toUnixTimestamp(time), {interval}) * {interval} AS t, exporter, "
                                      f"ingressInterfaceName, sum(octets), sum(packets), count(), uniq(sourceAddress) "
                                      f"FROM {self.table} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3")  # fmt: skip
            self.assertEqual(found, of_rows)
        self.assertEqual(self.one("sum(octets), sum(flows)", "_1h"), (str(sum(range(10000))), "10000"))

    async def test_repeated(self):
        """A batch that is written again under its token is once in the table and in every roll-up."""
        made = await opened(self, self.output(rollups=("1m", "1h"), rollup_distinct=("sourceAddress",)), FLOW)
        batch = flows(ROWS, time.time())
        await made.write(batch)
        for _ in range(2):
            await made.in_thread(made.store, [batch], made.write_number, True)
        for table in ("", "_1m", "_1h"):
            self.assertEqual(self.one("sum(octets)", table), (str(sum(range(ROWS))),), table)
        await made.write(batch)
        self.assertEqual(self.one("sum(octets)"), (str(2 * sum(range(ROWS))),))

    async def test_repeated_after_the_window(self):
        """The limit: a repeat that is older than the window is there twice."""
        made = await opened(self, self.output(), FLOW)
        batch = flows(10, time.time())
        await made.write(batch)
        first = made.write_number
        self.server.ask(f"ALTER TABLE {self.table} MODIFY SETTING non_replicated_deduplication_window = 2")
        for at in range(4):
            await made.write(flows(10, time.time(), 10 + 10 * at))
        await made.in_thread(made.store, [batch], first, True)
        self.assertEqual(self.one("count()"), ("60",))

    async def test_document(self):
        """The statements in docs/clickhouse.md are understood, and its questions answered."""
        interface = known("ingressInterface")
        self.table = "flows"
        made = await opened(self, self.output(rollups=("1m:7d", "5m:90d", "1h:1825d")), (*FLOW, interface))
        await made.write(flows(100, time.time()).with_columns({interface: np.full(100, 7, np.uint32)}))
        text = (TOP / "docs/clickhouse.md").read_text()
        statements = [one.strip() for block in re.findall(r"```sql\n(.+?)```", text, re.S) for one in block.split(";")]
        statements = list(filter(None, statements))
        for statement in statements:
            (answer,) = self.server.ask(f"SELECT formatQuery({schema.text_literal(statement)}) != ''")
            self.assertEqual(answer, ("1",), statement)
            if statement.startswith("SELECT"):
                self.assertTrue(self.server.ask(statement), statement)
        self.assertEqual(len(statements), 6)

    async def test_odd_times(self):
        """Flows that end at any time since 1970 and before 2100 are taken at once."""
        made = await opened(self, self.output(), FLOW)
        batch = flows(ROWS, time.time())
        ends = np.linspace(0, 4_000_000_000_000, ROWS).astype(np.uint64)
        await made.write(batch.with_columns({FLOW[5]: ends}))
        self.assertEqual(self.one("count(), sum(toUnixTimestamp64Milli(flowEndMilliseconds))"), (
            str(ROWS), str(int(ends.sum()))))  # fmt: skip
        self.assertEqual(dict(made.counters.errors), {})

    async def test_nullable(self):
        """With nullable=1 what misses is NULL; without, 0 and ::."""
        for nullable, expected in ((True, ("\\N", "\\N", "\\N")), (False, ("0", "::", ""))):
            self.table = f"nullable_{nullable}"
            made = self.output(
                nullable=nullable, order=("exporter",), rollups=("1m",), rollup_by=("ingressInterfaceName",)
            )
            await opened(self, made, FLOW)
            await made.write(batch_of((FLOW[2], [None]), (FLOW[1], [None]), (NAME, [None]), (FLOW[0], [1])))
            self.assertEqual(self.one("octets, sourceAddress, ingressInterfaceName"), expected)
            self.assertEqual(self.one("ingressInterfaceName, octets, flows", "_1m"), ("", "0", "1"))

    async def test_broken_view(self):
        """Rows wait for a view that fails, which the log names, and are there once when it is mended."""
        made = await opened(self, self.output(), FLOW)
        await made.write(flows(10, time.time()))
        self.server.ask(
            f"CREATE MATERIALIZED VIEW broken ENGINE = Memory AS SELECT throwIf(octets = 11) FROM {self.table}"
        )
        lines = told(self)
        writing = made.write(flows(10, time.time(), 10))
        await deferLater(reactor, 1.5, lambda: None)
        self.server.ask("DROP TABLE broken")
        await writing
        self.assertEqual(self.one("count(), sum(octets)"), ("20", "190"))
        self.assertTrue(any("broken" in line and "mend the view, or drop it" in line for line in lines), lines)

    async def test_added(self):
        """A table gets columns for further keys, and roll-ups that were configured later."""
        made = await opened(self, self.output(), FLOW[:5])
        await made.stop()
        made = await opened(self, self.output(rollups=("5m",)), FLOW)
        await made.write(flows(10, time.time()))
        self.assertEqual(self.one("countIf(ingressInterfaceName = 'eth0')"), ("4",))
        self.assertEqual(self.one("sum(flows)", "_5m"), ("10",))

    async def test_compression(self):
        """Every way to compress."""
        for way in ("lz4", "zstd", "gzip"):
            made = await opened(self, self.output(compression=way, table=f"packed_{way}"), FLOW)
            await made.write(flows(ROWS, time.time()))
            self.assertEqual(self.server.ask(f"SELECT sum(octets) FROM packed_{way}"), [(str(sum(range(ROWS))),)])

    def test_cluster(self):
        """Statements for clusters are understood, which no server here can execute."""
        made = schema.Schema(
            "d", "flows", {"time": schema.TIME_TYPE, "exporter": "IPv6", "octets": "UInt64"}, order=("exporter",),
            retain_s=86400.0, rollups=schema.rollups(("1m:1d", "1h")), by=("exporter",), sums=("octets",),
            distinct=("exporter",), cluster="c", replicated=True, distributed=True,
        )  # fmt: skip
        for statement in made.statements():
            (answer,) = self.server.ask(f"SELECT formatQuery({schema.text_literal(statement)}) != ''")
            self.assertEqual(answer, ("1",), statement)


class KilledTests(TodayCase):
    """A server that is killed in mid-insert."""

    BATCH = 50_000

    async def test_killed(self):
        """Every row is there once, in the table and in the roll-ups: repeats are known by their tokens."""
        self.server = Chdb()
        self.server.__enter__()
        self.addCleanup(self.server.__exit__)
        made = await opened(self, self.output(rollups=("1m", "1h")), FLOW)
        now, batches = time.time(), 30
        writing = defer.ensureDeferred(self.write(made, now, batches))
        for wait in (0.41, 0.23, 0.35):
            await deferLater(reactor, wait, lambda: None)
            await threads.deferToThread(self.server.stop)
            await threads.deferToThread(self.server.start)
        await writing
        rows = batches * self.BATCH
        expected = (str(rows), str(sum(range(rows))))
        self.assertEqual(self.one("count(), sum(octets)"), expected)
        for name in ("_1m", "_1h"):
            self.assertEqual(self.one("sum(flows), sum(octets)", name), expected, name)
        self.assertGreater(made.counters.errors["away"], 0)
        self.assertEqual(made.counters.figures["maybe_twice"], 0)

    async def write(self, made, now, batches):
        """Write batches one after the other."""
        for number in range(batches):
            await made.write(flows(self.BATCH, now, number * self.BATCH))


class OthersTests(TodayCase):
    """Tables of other programs, by the columns in docs/clickhouse.md."""

    AKVORADO = """
        TimeReceived DateTime CODEC(DoubleDelta, LZ4), SamplingRate UInt64, ExporterAddress LowCardinality(IPv6),
        ExporterName LowCardinality(String), SrcAddr IPv6 CODEC(ZSTD(1)), DstAddr IPv6 CODEC(ZSTD(1)),
        SrcNetMask UInt8, DstNetMask UInt8, SrcAS UInt32, DstAS UInt32, SrcCountry LowCardinality(FixedString(2)),
        DstASPath Array(UInt32), InIfName LowCardinality(String), OutIfName LowCardinality(String),
        InIfDescription LowCardinality(String), OutIfDescription LowCardinality(String), InIfSpeed UInt32,
        InIfBoundary Enum8('undefined' = 0, 'external' = 1, 'internal' = 2), EType UInt32, Proto UInt32, SrcPort UInt16,
        DstPort UInt16, Bytes UInt64, Packets UInt64, PacketSize UInt64 ALIAS intDiv(Bytes, Packets),
        ForwardingStatus UInt32"""
    GOFLOW2 = """
        date Date, time_inserted_ns DateTime64(9), time_received_ns DateTime64(9), time_flow_start_ns DateTime64(9),
        sequence_num UInt32, sampling_rate UInt64, sampler_address FixedString(16), src_addr FixedString(16),
        dst_addr FixedString(16), src_as UInt32, dst_as UInt32, etype UInt32, proto UInt32, src_port UInt32,
        dst_port UInt32, bytes UInt64, packets UInt64"""
    IPV4, IPV6 = "::ffff:192.0.2.1", "2001:db8::1"

    def columns(self, table):
        """The option `columns` of a block of the document."""
        found = re.search(rf'^table="{table}"\ncolumns="([^"]+)"', (TOP / "docs/clickhouse.md").read_text(), re.M)
        return tuple(found[1].split())

    async def written(self, table, columns):
        """Write a flow of each family into a table."""
        self.server.ask(f"CREATE TABLE {self.table} ({columns}) ENGINE = MergeTree ORDER BY tuple() "
                        "SETTINGS allow_suspicious_low_cardinality_types = 1, "
                        "non_replicated_deduplication_window = 9")  # fmt: skip
        made = self.output(create=False, columns=self.columns(table))
        await opened(self, made, self.flow(types.IPV4, self.IPV4).schema.values())
        for type_, address in ((types.IPV4, self.IPV4), (types.IPV6, self.IPV6)):
            batch = self.flow(type_, address)
            for name in made._named.values():
                made.sources.add(name, Provided(batch.schema.values()).recipes(name))
            await made.write(batch)

    @staticmethod
    def flow(type_, address):
        """A flow as an exporter sends it."""
        number = int(ip_address(address)) & (2**32 - 1 if type_ is types.IPV4 else -1)
        given = {
            "bgpSourceAsNumber": 64500, "bgpDestinationAsNumber": 64501, "sourceTransportPort": 1024,
            "destinationTransportPort": 53, "protocolIdentifier": 17, "octetDeltaCount": 700, "packetDeltaCount": 7,
            "flowStartMilliseconds": 1_790_000_000_123, "received_ms": 1_790_000_005_678, "ethernetType": 0x86DD,
            "ingressInterfaceName": "eth0", "sampling_factor": 100.0, "forwardingStatus": 64,
        }  # fmt: skip
        pairs = [(known(name).typed(type_), [number]) for name in ("exporter", "sourceAddress", "destinationAddress")]
        return batch_of(*pairs, *((known(name), [value]) for name, value in given.items()))

    async def test_akvorado(self):
        """Its table takes both families; what is not sent has the table's defaults."""
        await self.written("flows", self.AKVORADO)
        words = ("SrcAddr, ExporterAddress, toUnixTimestamp(TimeReceived), SamplingRate, SrcAS, DstPort, Bytes, "
                 "Packets, PacketSize, InIfName, InIfBoundary, EType, ForwardingStatus, DstASPath")  # fmt: skip
        rows = self.server.ask(f"SELECT {words} FROM {self.table} ORDER BY SrcAddr")
        rest = ("1790000005", "100", "64500", "53", "700", "7", "100", "eth0", "undefined", "34525", "64", "[]")
        self.assertEqual(rows, [(self.IPV4, self.IPV4, *rest), (self.IPV6, self.IPV6, *rest)])

    async def test_goflow2(self):
        """The same in goflow2's."""
        await self.written("flows_raw", self.GOFLOW2)
        rows = self.server.ask("SELECT IPv6NumToString(src_addr), IPv6NumToString(sampler_address), toString(date), "
                               "toUnixTimestamp64Nano(time_received_ns), toUnixTimestamp64Nano(time_flow_start_ns), "
                               "sampling_rate, proto, bytes, packets, etype "
                               f"FROM {self.table} ORDER BY src_addr")  # fmt: skip
        rest = ("2026-09-21", "1790000005678000000", "1790000000123000000", "100", "17", "700", "7", "34525")
        self.assertEqual(rows, [(self.IPV4, self.IPV4, *rest), (self.IPV6, self.IPV6, *rest)])


class ColumnsTests(SynchronousTestCase):
    """Values of any kind, as they come back from the server."""

    KEYS = {
        "n": Key("n", types.UNSIGNED64), "i": Key("i", types.SIGNED32), "s": known("userName"), "c": NAME,
        "a": known("sourceAddress").typed(types.IPV6), "b": Key("b", types.BOOLEAN),
        "t": known("flowEndMilliseconds"), "d": known("samplerName"),
    }  # fmt: skip
    TABLE = ("n Nullable(UInt64), i Int32, s String, c LowCardinality(Nullable(String)), a Nullable(IPv6), b Bool, "
             "t DateTime64(3, 'UTC'), d LowCardinality(String)")  # fmt: skip
    ROW = st.tuples(
        st.none() | st.integers(0, 2**64 - 1), st.integers(-(2**31), 2**31 - 1), st.text(max_size=200),
        st.none() | st.sampled_from(["eth0", "lo", ""]), st.none() | st.integers(0, 2**128 - 1), st.booleans(),
        st.integers(0, 4_000_000_000_000), st.sampled_from(["x", "y" * 200]),
    )  # fmt: skip

    def setUp(self):
        self.server = shared_server()
        self.server.ask("CREATE TABLE IF NOT EXISTS any (number UInt32, " + self.TABLE + ") ENGINE = Memory")
        self.connection = Connection(Way([("127.0.0.1", self.server.port)], "default"))
        self.addCleanup(self.connection.close)
        self.database = ClickHouse("any", "ch1", self.connection.way)
        self.database.opened(self.connection)
        self.database.columns(self.connection)

    @given(st.lists(ROW, min_size=1, max_size=40), st.booleans())
    def test_round_trip(self, rows, coded):
        """The server reads what was written, whether strings come with a dictionary or without."""
        self.server.ask("TRUNCATE TABLE any")
        self.database.store(self.connection, self.written(rows, coded), len(rows), 1)
        found = self.server.ask("SELECT n, i, hex(s), hex(c), isNull(c), hex(a), b, toUnixTimestamp64Milli(t), hex(d) "
                                "FROM any ORDER BY number")  # fmt: skip
        self.assertEqual(found, list(map(self.expected, rows)))

    def written(self, rows, coded):
        """The values of these rows, with their numbers."""
        numbers = (Key("number", types.UNSIGNED32), list(range(len(rows))))
        batch = batch_of(numbers, *zip(self.KEYS.values(), map(list, zip(*rows, strict=True)), strict=True))
        values = []
        for name, key in {"number": numbers[0], **self.KEYS}.items():
            column = batch.columns[key.name]
            if coded and name in "cd":
                words, codes = different(column)
                column = Coded(codes.astype(np.int32), words)
            values.append((Target(name, (name,)), Found(column, batch.missing.get(key.name), key)))
        return values

    @staticmethod
    def upper(text):
        """A text in hexadecimal, without NULs behind it."""
        return text.encode().rstrip(b"\0").hex().upper()

    def expected(self, row):
        """A row as the server's text."""
        n, i, s, c, a, b, t, d = row
        return (
            "\\N" if n is None else str(n), str(i), self.upper(s), "\\N" if c is None else self.upper(c),
            str(int(c is None)), "\\N" if a is None else f"{a:032X}", str(b).lower(), str(t), self.upper(d),
        )  # fmt: skip


class CollectorTests(SynchronousTestCase):
    """A collector that stores in ClickHouse and in PARQUET."""

    def test_collector(self):
        """Two million records: sums are the generator's, and roll-ups what `ulogd-tw flows` says of the same rows."""
        server, port = shared_server(), free_port("udp")
        text = (
            f'[col]\nlisten="udp:127.0.0.1:{port}"\nreceive_buffer=64M\n[pq]\ndirectory="{{dir}}/store"\n'
            f'[ch]\nhost="127.0.0.1:{server.port}"\ntable="collected"\ncreate=1\nretain=30d\n'
            'rollups="1m:7d 5m 1h"\nrollup_by="exporter protocolIdentifier"\n'
        )
        with Service(["col:COLLECTOR,pq:PARQUET", "col:COLLECTOR,ch:CLICKHOUSE"], text) as service:
            sent = generate(f"127.0.0.1:{port}", "-n", RECORDS, "-r", 250_000)
            service.wait_for("ch", "rows_received", 1)
            wait_until(lambda: self.still(service), 60.0, "all rows written")
            service.stop()
            counters = service.all_counters()
        self.assertEqual(unaccounted(counters), {})
        received = counters["ch"]["rows_written"]
        self.assertEqual(received + sum(counters["col"]["lost"].values()), sent["records"])
        sums = "sum(octets), sum(packets)"
        (of_rows,) = server.ask(f"SELECT {sums}, count() FROM collected")
        self.assertEqual(of_rows[2], str(received))
        if received == sent["records"]:
            self.assertEqual(of_rows[:2], (str(sent["octets"]), str(sent["packets"])))
        for name in ("1m", "5m", "1h"):
            self.assertEqual(server.ask(f"SELECT {sums}, sum(flows) FROM collected_{name}"), [of_rows])
        found = server.ask("SELECT protocolIdentifier, sum(octets), sum(packets), sum(flows) FROM collected_5m "
                           "GROUP BY 1 ORDER BY 1")  # fmt: skip
        self.assertEqual(sorted(tuple(map(int, row)) for row in found), self.asked(service.directory / "store"))

    def test_spool(self):
        """Rows that waited for the server at a stop are stored by the next run, once."""
        server, port, directory = Chdb(), free_port("udp"), temporary("clickhouse")
        server.__enter__()
        self.addCleanup(server.__exit__)
        text = (
            f'[col]\nlisten="udp:127.0.0.1:{port}"\n[ch]\nhost="127.0.0.1:{server.port}"\ntable="f"\ncreate=1\n'
            'rollups="1m"\nspool="{dir}/spool"\n'
        )
        settings = 'stop_timeout=1\nstate_dir="{dir}/state"'
        sent = []
        with Service(["col:COLLECTOR,ch:CLICKHOUSE"], text, directory=directory, settings=settings) as service:
            for server_is_there in (True, False):
                sent.append(generate(f"127.0.0.1:{port}", "-n", 20_000, "-r", 50_000)["octets"])
                service.wait_for("ch", "rows_received", 20_000 * len(sent))
                if server_is_there:
                    service.wait_for("ch", "rows_written", 20_000)
                    server.stop()
        self.assertEqual(service.counters("ch")["rows_spooled"], 20_000)
        server.start()
        with Service(["col:COLLECTOR,ch:CLICKHOUSE"], text, directory=directory, settings=settings) as service:
            service.wait_for("ch", "rows_written", 20_000, within=60.0)
        self.assertEqual(server.ask("SELECT count(), sum(octets) FROM f"), [("40000", str(sum(sent)))])
        self.assertEqual(server.ask("SELECT sum(flows), sum(octets) FROM f_1m"), [("40000", str(sum(sent)))])

    @staticmethod
    def still(service):
        """Whether all that came is written."""
        found = service.all_counters()
        before = found.get("col", {}).get("rows_received", 0)
        return before and all(found[name]["rows_written"] == before for name in ("ch", "pq"))

    @staticmethod
    def asked(store):
        """Protocol, octets, packets and flows by `ulogd-tw flows`."""
        words = [Path(sys.executable).with_name("ulogd-tw"), "flows", store, "--by", "protocolIdentifier", "--from",
                 "-1d", "--sum", "octets,packets,flows", "-f", "csv"]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=TOP)
        assert done.returncode in (0, 3), done.stderr  # 3: nobody was there before the first row
        rows = list(csv.DictReader(done.stdout.splitlines()))
        names = ("protocolIdentifier", "octets", "packets", "flows")
        return sorted(tuple(int(row[name]) for name in names) for row in rows)
