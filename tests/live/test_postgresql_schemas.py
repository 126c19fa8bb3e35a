"""The schemas of etc/sql/postgresql in PostgreSQL, with rows that PGSQL stores of the kernel's and an exporter's."""

import sys
from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface

from twisted.trial.unittest import SynchronousTestCase

from tests.live import stock
from tests.live.service import Service
from tests.live.test_schemas import message
from tests.postgresql import PrivatePostgreSQL
from tests.support import TOP, NetworkNamespaces, require_program
from tests.unit.test_documents import commented_statements

FOLDER = TOP / "etc" / "sql" / "postgresql"
STACKS = (
    "col1:COLLECTOR,agg1:AGGREGATE,flows1:PGSQL",
    "ct1:NFCT,nat1:PGSQL",
    "log1:NFLOG,base1:BASE,ifi1:IFINDEX,packets1:PGSQL",
)
CONFIG = """
[col1]
listen="udp:127.0.0.1:4739"
[agg1]
key="5tuple"
interval=1
[ct1]
event_mask=4
accept_proto_filter=udp,icmp
[log1]
group=1
"""
SEND = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(bytes.fromhex(sys.argv[1]), "
SEND += "('127.0.0.1', 4739))"


class SchemaTests(SynchronousTestCase):
    """One server, one service with a stack for each schema."""

    def test_rows(self):
        """Each schema can be loaded twice, PGSQL fills it without a word, and its comments are statements that run."""
        require_program("nft", "ping", "conntrack")
        names = sorted(path.stem for path in FOLDER.glob("*.sql"))
        self.assertEqual(["flows", "nat", "packets"], names)
        with PrivatePostgreSQL() as self.server, NetworkNamespaces(conntrack=True) as spaces:
            where = f'host="{self.server.folder}"\nport={self.server.port}\nuser="postgres"\n'
            for name in names:
                self.server.execute(f"CREATE DATABASE {name}", dbname="postgres")
                for _ in range(2):
                    self.execute(name, (FOLDER / f"{name}.sql").read_text("utf-8"))
            sections = "".join(f'[{name}1]\n{where}db="{name}"\ntable="{name}"\n' for name in names)
            spaces.run("a", ["nft", "-f", "-"], input=stock.RULES)
            with Service(STACKS, CONFIG + sections, namespace=lambda argv: spaces.argv("a", argv)) as service:
                stock.make_traffic(spaces, sys.executable)
                spaces.run("a", [sys.executable, "-c", SEND, message().hex()])
                for name, rows in (("flows1", 1), ("nat1", 3), ("packets1", 10)):
                    service.wait_for(name, "rows_written", rows, 60)
            for name in names:
                self.assertEqual({}, service.counters(f"{name}1")["dropped"])
                for statement in commented_statements(FOLDER / f"{name}.sql"):
                    self.execute(name, statement.replace("203.0.113.50", spaces.ipv4["b"]))
            self.now = datetime.now(UTC)
            self.check_flows()
            self.check_nat(spaces)
            self.check_packets(spaces)

    def execute(self, name, statement):
        return self.server.execute(statement, dbname=name)

    def assertNow(self, time):
        self.assertLess(abs(self.now - time), timedelta(minutes=2))

    def check_flows(self):
        ((*found, start, end),) = self.execute(
            "flows",
            "SELECT host(sourceaddress), host(destinationaddress), protocolidentifier, sourcetransportport, "
            "destinationtransportport, flows, packets, octets, first_ms, last_ms FROM flows",
        )
        self.assertEqual(["10.0.0.1", "10.0.0.2", 6, 51000, 443, 1, 10, 1000], found)
        self.assertEqual(timedelta(milliseconds=500), end - start)
        self.assertNow(end)

    def check_nat(self, spaces):
        """Two datagrams of 3 and 5 octets to a closed port, in each family."""
        rows = self.execute(
            "nat",
            "SELECT host(orig_ip_saddr), host(reply_ip_saddr), orig_l4_sport, reply_l4_sport, orig_raw_pktcount, "
            "orig_raw_pktlen, flowendmilliseconds FROM nat WHERE orig_ip_protocol = 17 ORDER BY family(orig_ip_saddr)",
        )
        found = [row[:-1] for row in rows]
        for family, overhead in ((spaces.ipv4, 28), (spaces.ipv6, 48)):
            a, b = (str(ip_interface(family[side]).ip) for side in "ab")
            self.assertIn((a, b, 20000, 5353, 2, 2 * overhead + 8), found)
        self.assertNow(rows[0][-1])

    def check_packets(self, spaces):
        """The rule with a mark logs each datagram, with its length and the device of the namespace."""
        rows = self.execute(
            "packets",
            "SELECT host(ip_saddr), host(ip_daddr), oob_out, oob_mark, udp_dport, ip_totlen, at FROM packets "
            "WHERE oob_prefix = 'marked ' AND ip_protocol = 17 AND family(ip_saddr) = 4 ORDER BY ip_totlen",
        )
        a, b = spaces.ipv4["a"], spaces.ipv4["b"]
        self.assertEqual([(a, b, "veth0", 1, 5353, 28 + octets) for octets in (3, 5)], [row[:-1] for row in rows])
        self.assertNow(rows[0][-1])
        pings = self.execute("packets", "SELECT icmp_type, icmp_code, udp_dport FROM packets WHERE ip_protocol = 1")
        self.assertEqual([(8, 0, None)] * 2, pings)
