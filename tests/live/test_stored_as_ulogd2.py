"""Rows of MYSQL, PGSQL and SQLITE3 beside the statements and rows of ulogd2 2.0.8 for the same connections.

The statements were logged by the servers on 2026-11-23, the rows read from its SQLite file. They go into tables of
Debian's package beside those that our outputs fill from messages of the kernel with the same values.
"""

import contextlib
import sqlite3
from ipaddress import ip_address

from twisted.trial.unittest import TestCase

from tests.live import stock
from tests.live.service import temporary
from tests.live.test_mysql_ulogd2 import FLAT
from tests.postgresql import PrivatePostgreSQL
from tests.support import PrivateMariaDB, require_program
from tests.unit.netfilter.messages import DESTROY, attr, be, counters, flow_tuple, message, nest, ports
from tests.unit.netfilter.test_conntrack import decode
from tests.unit.storing.sql_rows import opened, output
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL, FLOW, Input, Output
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.netfilter.conntrack import KEYS
from ulogd_tw.plugins.filters.ip2bin import IP2BIN
from ulogd_tw.plugins.filters.ip2str import IP2STR
from ulogd_tw.plugins.outputs.mysql import MYSQL
from ulogd_tw.plugins.outputs.pgsql import PGSQL
from ulogd_tw.plugins.outputs.sqlite3 import SQLITE3

V4, V6 = ("10.77.0.1", "10.77.0.2"), ("fd77::1", "fd77::2")
MYSQL_FLAT = """
('10.77.0.1','10.77.0.2',6,19999,5999,60,1,40,1,1795394035,1795394035),
('fd77::1','fd77::2',6,19999,5999,80,1,60,1,1795394035,1795394035)
"""
MYSQL_CALLS = (
    "2,0x00000000000000000000ffff0a4d0001,0x00000000000000000000ffff0a4d0002,6,19999,5999,60,1,"
    "0x00000000000000000000ffff0a4d0002,NULL,6,5999,19999,40,1,NULL,NULL,0,1795394035,798088,1795394035,798077",
    "10,0xfd770000000000000000000000000001,0xfd770000000000000000000000000002,6,19999,5999,80,1,"
    "0xfd770000000000000000000000000002,NULL,6,5999,19999,60,1,NULL,NULL,0,1795394035,802193,1795394035,800103",
)
MYSQL_FLOWS = (
    (V4, 6, 19999, 5999, (60, 1), (40, 1), (1795394035, 798088), (1795394035, 798077)),
    (V6, 6, 19999, 5999, (80, 1), (60, 1), (1795394035, 802193), (1795394035, 800103)),
)
PGSQL_FLAT = """
('fd77::1','fd77::2',17,30015,84,1,1795394195), ('10.77.0.1','10.77.0.2',17,30000,49,1,1795394195),
('10.77.0.1','10.77.0.2',17,30001,100,2,1795394195)
"""
PGSQL_CALLS = (
    "10,'fd77::1','fd77::2',17,30015,5000,84,1,'fd77::2','fd77::1',17,5000,30015,84,1,NULL,NULL,0,"
    "1795394195,222868,1795394197,220101,4",
    "2,'10.77.0.1','10.77.0.2',17,30000,5000,49,1,'10.77.0.2','10.77.0.1',17,5000,30000,0,0,NULL,NULL,0,"
    "1795394195,219469,1795394197,218498,4",
    "2,'10.77.0.1','10.77.0.2',17,30001,5000,100,2,'10.77.0.2','10.77.0.1',17,5000,30001,100,2,NULL,NULL,0,"
    "1795394195,219539,1795394197,223335,4",
)
PGSQL_FLOWS = (
    (V6, 17, 30015, 5000, (84, 1), (84, 1), (1795394195, 222868), (1795394197, 220101)),
    (V4, 17, 30000, 5000, (49, 1), (0, 0), (1795394195, 219469), (1795394197, 218498)),
    (V4, 17, 30001, 5000, (100, 2), (100, 2), (1795394195, 219539), (1795394197, 223335)),
)
SQLITE_FLOWS = (
    (V4, 6, 20001, 5000, (2420, 6), (1266, 4), (1795392639, 175808), (1795392640, 177025)),
    (V6, 6, 19999, 5999, (80, 1), (60, 1), (1795392639, 359508), (1795392639, 183065)),
)
SQLITE_ROWS = (
    (1795392639, 175808, 1795392640, 177025, 16796938, 33574154, 20001, 5000, 6, None, None, 2420, 6, 1266, 4, 0),
    (1795392639, 359508, 1795392639, 183065, 30717, 30717, 19999, 5999, 6, None, None, 80, 1, 60, 1, 0),
)


def kernel_message(flow):
    """The kernel's message at the end of a connection: times in nanoseconds, octets before packets in `flow`."""
    (source, destination), protocol, sport, dport, orig, reply, start, end = flow
    source, destination = ip_address(source).packed, ip_address(destination).packed
    stamps = [sec * 10**9 + usec * 1000 for sec, usec in (start, end)]
    return message(
        DESTROY, 2 if len(source) == 4 else 10,
        flow_tuple(1, source, destination, protocol, *ports(sport, dport)),
        flow_tuple(2, destination, source, protocol, *ports(dport, sport)),
        counters(9, orig[1], orig[0]), counters(10, reply[1], reply[0]), attr(8, be(4, 0)),
        nest(20, *(attr(1 + place, be(8, stamp)) for place, stamp in enumerate(stamps))),
    )  # fmt: skip


class Connections(Input):
    """Stands for NFCT."""

    name = "CONNECTIONS"
    otype = FLOW
    provides = KEYS


class Filtered(Output):
    """Asks for all, and keeps the batches."""

    name = "FILTERED"
    itype = FLOW
    batches = ()

    def requests(self, wanted):
        return ALL

    def write(self, batch):
        self.batches = (*self.batches, batch)


def batches_of(flows, filter_):
    """The batches of connections behind a filter."""
    classes = {"CONNECTIONS": Connections, filter_.name: filter_, "FILTERED": Filtered}
    builder = Builder(lambda name, _: classes[name], lambda _, class_: (Options(class_.all_options(), {}), []))
    pairs = (("ct1", "CONNECTIONS"), ("ip1", filter_.name), ("out1", "FILTERED"))
    source, _, sink = builder.build([StackSpec("x", "f:1", pairs)]).nodes
    found, refused = decode([kernel_message(flow) for flow in flows])
    assert not refused, refused
    for batch in found:
        source.pass_on(batch)
    return sink.plugin.batches


class StoredTests(TestCase):
    """Each output with tables of ulogd2."""

    timeout = 120

    async def store(self, class_, flows, filter_, **options):
        """Let an output store the connections in a table that is there."""
        found = batches_of(flows, filter_)
        keys = {key.name: key for batch in found for key in batch.schema.values()}
        made = await opened(self, output(class_, **options), tuple(keys.values()))
        for batch in found:
            await made.write(batch)
        self.assertEqual((len(flows), {}), (sum(batch.n for batch in found), made.counters.dropped))
        await made.stop()

    async def test_pgsql(self):
        """The function of the package's schema is called with the same values, and a flat table has the same rows."""
        require_program("ulogd")  # whose package has the schema
        with PrivatePostgreSQL() as server:
            for database in ("theirs", "ours"):
                stock.pgsql_schema(server, database)
            server.execute(f"INSERT INTO flat VALUES {PGSQL_FLAT}", dbname="theirs")
            for call in PGSQL_CALLS:
                server.execute(f"SELECT INSERT_CT({call})", dbname="theirs")
            where = server.options | {"db": "ours"}
            await self.store(PGSQL, PGSQL_FLOWS, IP2STR, **where, table="flat", procedure="INSERT")
            await self.store(PGSQL, PGSQL_FLOWS, IP2STR, **where, table="ulog2_ct", procedure="INSERT_CT")
            for table in ("flat", "ulog2_ct"):
                query = f"SELECT to_jsonb(t) - '_ct_id' FROM {table} t"
                theirs, ours = (
                    sorted((row for (row,) in server.execute(query, dbname=database)), key=str)
                    for database in ("theirs", "ours")
                )
                self.assertEqual((theirs, 3), (ours, len(ours)))

    async def test_mysql(self):
        """As in PostgreSQL. IP2BIN of ulogd2 leaves its last address out (NULL); ours is the client's."""
        require_program("ulogd", "mariadb")
        with PrivateMariaDB() as server:
            for database in ("theirs", "ours"):
                stock.mysql_schema(server, database)
                server.execute(f"CREATE TABLE {database}.flat {FLAT}")
            columns = [row[0] for row in server.execute("SHOW COLUMNS FROM theirs.flat")][1:]
            server.execute(f"INSERT INTO theirs.flat ({', '.join(columns)}) VALUES {MYSQL_FLAT}")
            for call in MYSQL_CALLS:
                server.execute(f"SELECT theirs.INSERT_CT({call})")
            where = {"socket": server.socket, "user": "root", "db": "ours"}
            await self.store(MYSQL, MYSQL_FLOWS, IP2STR, **where, table="flat", procedure="INSERT")
            await self.store(MYSQL, MYSQL_FLOWS, IP2BIN, **where, table="conntrack", procedure="INSERT_CT")
            for table in ("flat", "ulog2_ct"):
                names = [row[0] for row in server.execute(f"SHOW COLUMNS FROM theirs.{table}")][1:]
                self.assertGreater(len(names), 8)
                order = "orig_bytes" if table == "ulog2_ct" else "orig_raw_pktlen"
                theirs, ours = (
                    [dict(zip(names, row, strict=True)) for row in
                     server.execute(f"SELECT {', '.join(names)} FROM {database}.{table} ORDER BY {order}")]
                    for database in ("theirs", "ours")
                )  # fmt: skip
                if table == "ulog2_ct":
                    self.assertEqual([None, None], [row["reply_ip_daddr"] for row in theirs])
                    for row, client in zip(theirs, ("::ffff:" + V4[0], V6[0]), strict=True):
                        row["reply_ip_daddr"] = ip_address(client).packed
                self.assertEqual(theirs, ours)

    async def test_sqlite3(self):
        """The package's table has the same numbers, but for addresses.

        ulogd2 stores the first four octets in the byte order of its host; ours are numbers, and texts for IPv6.
        """
        require_program("ulogd")
        path = temporary("sqlite") / "ulogd.sqlite3db"
        stock.sqlite_tables(path)
        await self.store(SQLITE3, SQLITE_FLOWS, IP2STR, db=str(path), table="ulog_ct")
        expected = []
        for row, (addresses, *_) in zip(SQLITE_ROWS, SQLITE_FLOWS, strict=True):
            octets = [ip_address(address).packed for address in addresses]
            self.assertEqual(row[4:6], tuple(int.from_bytes(one[:4], "little") for one in octets))
            ours = [int.from_bytes(one, "big") if len(one) == 4 else address
                    for one, address in zip(octets, addresses, strict=True)]  # fmt: skip
            expected.append((*row[:4], *ours, *row[6:]))
        with contextlib.closing(sqlite3.connect(path)) as database:
            self.assertEqual(expected, database.execute("SELECT * FROM ulog_ct").fetchall())
