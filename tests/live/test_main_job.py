"""The main job on real input: kernel conntrack -> IPFIX over UDP and TCP -> collector -> 5-tuples -> SQL."""

import ipaddress
import re
import sqlite3
import xml.etree.ElementTree as ET

from twisted.trial.unittest import TestCase

from tests.live.service import Service, unaccounted
from tests.live.traffic import run_client, server_argv
from tests.support import Daemon, NetworkNamespaces, PrivateMariaDB, require_program

ROUNDS = 50
CONFIG = """
[ct1]
event_mask=4
[exp1]
collectors="{proto}:127.0.0.1:4739"
flush=0.2
reconnect=1
[col1]
listen="{proto}:127.0.0.1:4739"
[agg1]
key="5tuple"
interval=1
[db1]
db="{dir}/flows.sqlite3"
table="flows"
create=1
[my1]
socket="{socket}"
user="root"
pass=""
db="ulogd"
host="localhost"
table="flows"
create=1
[json1]
file="{dir}/flows.json"
"""


def conntrack_flows(xml):
    """{5-tuple: [flows, packets, octets]} of both directions, out of what `conntrack -L -o xml` printed."""
    found = {}
    for flow in re.findall(r"<flow[ >].*?</flow>", xml, re.S):
        for meta in ET.fromstring(flow).iter("meta"):
            if meta.get("direction") not in ("original", "reply") or meta.find("counters") is None:
                continue
            three, four = meta.find("layer3"), meta.find("layer4")
            ports = [four.findtext(name) for name in ("sport", "dport")]
            protocol = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}[four.get("protoname")]
            key = (str(ipaddress.ip_address(three.findtext("src"))), str(ipaddress.ip_address(three.findtext("dst"))),
                   protocol, *(None if port is None else int(port) for port in ports))  # fmt: skip
            packets, octets = (int(meta.findtext(f"counters/{name}")) for name in ("packets", "bytes"))
            if packets and not key[0].startswith("127."):  # the exporter's own flow goes on meanwhile
                figures = found.setdefault(key, [0, 0, 0])
                for place, value in enumerate((1, packets, octets)):
                    figures[place] += value
    return found


def stored_flows(rows):
    """The same out of rows of the database."""
    found = {}
    for *key, flows, packets, octets in rows:
        if packets and not key[0].startswith("127."):
            figures = found.setdefault(tuple(key), [0, 0, 0])
            for place, value in enumerate((flows, packets, octets)):
                figures[place] += value
    return found


SELECT = (
    'select "sourceAddress", "destinationAddress", "protocolIdentifier", "sourceTransportPort", '
    '"destinationTransportPort", flows, packets, octets from flows'
)


class MainJobTests(TestCase):
    """Real connections between two network namespaces."""

    timeout = 180

    def run_job(self, proto, maria):
        require_program("conntrack", "ping")
        stacks = ["ct1:NFCT,exp1:IPFIX", "col1:COLLECTOR,agg1:AGGREGATE,db1:SQLITE3", "col1:COLLECTOR,json1:JSON",
                  "col1:COLLECTOR,agg1:AGGREGATE,my1:MYSQL"]  # fmt: skip
        with NetworkNamespaces(conntrack=True) as spaces:
            config = CONFIG.replace("{proto}", proto).replace("{socket}", maria.socket)
            with (
                Daemon(server_argv(spaces), lambda d: "ready" in d.output()),
                Service(stacks, config, namespace=lambda argv: spaces.argv("a", argv)) as service,
            ):
                run_client(spaces, ROUNDS)
                # all of it still lives in the table: TIME_WAIT and CLOSE last longer than this test
                table = spaces.run("a", ["conntrack", "-L", "-o", "xml"]).stdout
                expected = conntrack_flows(table)
                spaces.run("a", ["conntrack", "-F"])
                self.assertGreater(len(expected), 7 * ROUNDS)
                # and two refused ones; what the exporter still holds then, its stop sends, to the collector beside it
                service.wait_for("ct1", "rows_received", table.count("</flow>") + 2)
            self.check(service, expected, maria)

    def check(self, service, expected, maria):
        counters = service.all_counters()
        self.assertEqual(unaccounted(counters), {})
        for name in ("ct1", "exp1", "col1", "agg1", "db1", "my1"):
            self.assertEqual((counters[name]["lost"], counters[name]["dropped"]), ({}, {}), name)
        with sqlite3.connect(service.directory / "flows.sqlite3") as database:
            stored = stored_flows(database.execute(SELECT))
            # a refused connection leaves the table at once: SYN one way, RST the other, in either family
            refused = {key: stored.pop(key) for key in list(stored) if 5999 in key}
            self.assertEqual(sorted(refused.values()), [[1, 1, 40], [1, 1, 60], [1, 1, 60], [1, 1, 80]])
            self.assertEqual(stored, expected)
            times = database.execute(
                "select min(first_ms), max(last_ms), min(last_ms - first_ms) from flows"
            ).fetchone()
        self.assertGreaterEqual(times[2], 0)
        self.assertGreater(times[0], 1_700_000_000_000)
        self.assertEqual(stored_flows(maria.execute(SELECT.replace('"', "`"))), expected | refused)
        self.assertTrue(any(":" in key[0] and key[2] == 6 for key in expected))
        self.assertTrue(any(key[2] in (1, 58) for key in expected))

    def test_over_udp_and_tcp(self):
        """Every flow with conntrack's own packets and octets, in SQLite and in MariaDB, start not after end."""
        with PrivateMariaDB() as maria:
            for proto in ("udp", "tcp"):
                maria.execute("drop table if exists flows")
                self.run_job(proto, maria)
