"""NFCT and the kernel's table of flows: what was there before the start, what went without an event, reports."""

import functools
import json
import signal
import sys
from collections import Counter
from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service, sleep, unaccounted
from tests.live.test_nfct import COMPARED, MANY, TOP, Rows, same, xml_flows
from tests.support import NetworkNamespaces, require_program, sized, wait_until

# Sends a datagram to each port from one port, so each is a flow.
DATAGRAMS = """
import socket, sys
host, source, first, last = sys.argv[1], *map(int, sys.argv[2:5])
with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", source))
    for port in range(first, last):
        s.sendto(b"z" * int(sys.argv[5]), (host, port))
"""


class TableTestCase(SynchronousTestCase):
    """Flows of side a."""

    def setUp(self):
        require_program("conntrack")
        self.namespaces = NetworkNamespaces(conntrack=True)
        self.namespaces.__enter__()
        self.addCleanup(self.namespaces.__exit__)

    def run_a(self, *argv, **keywords):
        return self.namespaces.run("a", argv, **keywords)

    def flows(self, n, first=6000, octets=10, family=4):
        """n flows of one datagram each."""
        host = self.namespaces.ipv4["b"] if family == 4 else self.namespaces.ipv6["b"]
        self.run_a(sys.executable, "-c", DATAGRAMS, host, "1025", str(first), str(first + n), str(octets))

    def listed(self):
        """What conntrack lists."""
        return xml_flows(self.run_a("conntrack", "-L", "-o", "xml,id").stdout)

    def set(self, name, value):
        self.run_a("sh", "-c", f"echo {value} >/proc/sys/net/netfilter/nf_conntrack_{name}")

    def figures(self, ours):
        return ours.counters["flows"]

    def learnt(self, ours, n=1):
        """Wait until n dumps are complete; nfct_rows prints the figure."""
        wait_until(lambda: f"dump {n}" in ours.daemon.output(), what=f"dump {n}")


class StartTests(TableTestCase):
    """What lived before the start."""

    def check_once(self, *options):
        self.flows(50)
        self.flows(20, family=6)
        there = self.listed()
        with Rows(self.namespaces, "--dumps", *options) as ours:
            self.learnt(ours)
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= len(there), what="rows")
            sleep(1.2)  # for one that comes twice
        self.assertEqual(
            Counter(same(row, COMPARED) for row in ours.rows), Counter(same(flow, COMPARED) for flow in there)
        )
        self.assertEqual({row["ct.event"] for row in ours.rows}, {4})
        self.assertEqual((ours.counters["lost"], ours.counters["errors"]), ({}, {}))
        return ours

    def test_told_by_events(self):
        """With nf_conntrack_events=1 the end of each is an event, with its time."""
        ours = self.check_once("resync=500ms")
        self.assertEqual(self.figures(ours)["vanished"], 0)
        self.assertEqual(self.figures(ours)["followed"], 0)
        for row in ours.rows:
            self.assertLessEqual(row["flowStartMilliseconds"], row["flowEndMilliseconds"])

    def test_without_events(self):
        """With nf_conntrack_events=2 they end without an event: a reading of the table finds that, once."""
        self.set("events", 2)
        ours = self.check_once("resync=500ms")
        self.assertEqual(self.figures(ours)["vanished"], len(ours.rows))
        for row in ours.rows:
            self.assertIn("flowStartMilliseconds", row)
            self.assertNotIn("flow.end.sec", row)

    def test_restart_under_load(self):
        """Flows that live across a stop and a start of ours are told once, by one run or the other."""
        self.flows(sized(3000, 20_000))
        there = self.listed()
        ids = Counter(flow["ct.id"] for flow in there)
        first = Rows(self.namespaces, "--dumps", "--wanted", "ct.id,ct.event")
        with first:
            self.learnt(first)
            self.run_a("conntrack", "-D", "-p", "udp", "--dport", "6001")
            wait_until(lambda: first.received() >= 1, what="rows")
        with Rows(self.namespaces, "--dumps", "--wanted", "ct.id,ct.event") as second:
            self.flows(500, first=40_000)  # while it reads the table
            self.learnt(second)
            there += [flow for flow in self.listed() if flow["ct.id"] not in ids]
            self.run_a("conntrack", "-F")
            wait_until(lambda: second.received() >= len(there) - 1, what="rows")
        found = Counter(row["ct.id"] for row in first.rows + second.rows)
        self.assertEqual(found, Counter(flow["ct.id"] for flow in there))

    def test_filters(self):
        """The filters choose in the table as among the events."""
        self.set("events", 2)
        self.flows(5)
        self.flows(5, family=6)
        with Rows(self.namespaces, "--dumps", "resync=300ms", f"accept_dst_filter={self.namespaces.ipv6['b']}") as ours:
            self.learnt(ours)
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= 5, what="rows")
        self.assertEqual({row["orig.ip.daddr"] for row in ours.rows}, {int(ip_address(self.namespaces.ipv6["b"]))})
        self.assertEqual(len(ours.rows), 5)


class LossTests(TableTestCase):
    """Events that the kernel dropped."""

    def test_resynchronised(self):
        """With follow=all every flow has its row although the kernel dropped most of the events."""
        with Rows(
            self.namespaces, "--dumps", "--wanted", "ct.id,ct.event,orig.raw.pktlen", "follow=all", "resync=1s",
            "receive_buffer=100k", "batch_latency=300ms",
        ) as ours:  # fmt: skip
            self.learnt(ours)
            self.run_a(sys.executable, "-c", MANY, self.namespaces.ipv4["b"], "5000")
            self.learnt(ours, 3)
            there = self.listed()
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= len(there), 20, "rows")
        self.assertGreater(ours.counters["lost"].get("kernel", 0), 0)
        ends = [row for row in ours.rows if row["ct.event"] == 4]
        self.assertEqual(Counter(row["ct.id"] for row in ends), Counter(flow["ct.id"] for flow in there))
        self.assertEqual({row["orig.raw.pktlen"] for row in ends}, {29})
        self.assertGreater(self.figures(ours)["vanished"], 0)


class PollTests(TableTestCase):
    """pollinterval."""

    def test_vanished(self):
        """Flows that have gone since the last reading have a row each, with its counters and without an end."""
        self.flows(30)
        there = self.listed()
        with Rows(self.namespaces, "--dumps", "pollinterval=1") as ours:
            self.learnt(ours)
            self.flows(10, first=30_000)
            self.learnt(ours, 2)
            self.flows(10, first=30_000)  # a second packet of each; at most one reading sees one only
            there = self.listed()
            self.learnt(ours, 4)
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= len(there), what="rows")
        self.assertEqual(
            Counter(same(row, COMPARED) for row in ours.rows), Counter(same(flow, COMPARED) for flow in there)
        )
        self.assertEqual({row["ct.event"] for row in ours.rows}, {4})
        self.assertFalse(any("flow.end.sec" in row for row in ours.rows))


class ReportTests(TableTestCase):
    """Flows that live."""

    def packets(self, times):
        for _ in range(times):
            self.flows(3)
            sleep(0.7)

    def check_sums(self, *options):
        with Rows(self.namespaces, "--dumps", "active_timeout=1s", *options) as ours:
            self.learnt(ours)
            self.packets(5)
            there = {flow["ct.id"]: flow for flow in self.listed()}
            before = ours.received()
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= before + 3, what="rows")
        interim = [row for row in ours.rows if row["ct.event"] == 2]
        self.assertGreaterEqual(len(interim), 6)
        for row in interim:
            self.assertEqual(row["flowEndReason"], 2)
            self.assertEqual(
                (row["octetDeltaCount"], row["packetDeltaCount"]), (row["orig.raw.pktlen"], row["orig.raw.pktcount"])
            )
        self.assertEqual(Counter(row["ct.id"] for row in ours.rows if row["ct.event"] == 4), Counter(list(there)))
        for ident in there:
            parts = [row for row in ours.rows if row["ct.id"] == ident]
            self.assertEqual(sum(row["orig.raw.pktcount"] for row in parts), 5)
            self.assertEqual(sum(row["orig.raw.pktlen"] for row in parts), 5 * 38)
            for one, other in zip(parts, parts[1:], strict=False):
                self.assertLessEqual(one["flowEndMilliseconds"], other["flowEndMilliseconds"])
        return ours, there

    def test_active_timeout(self):
        """The reports of a flow and its end together have all its packets, and follow one another."""
        ours, there = self.check_sums()
        for ident, flow in there.items():
            parts = [row for row in ours.rows if row["ct.id"] == ident]
            self.assertEqual(flow["orig.raw.pktcount"], 5)
            for one, other in zip(parts, parts[1:], strict=False):
                self.assertEqual(one["flowEndMilliseconds"], other["flowStartMilliseconds"])

    def test_reset(self):
        """With reset=1 the kernel's counters begin anew with each report."""
        _, there = self.check_sums("reset=1")
        self.assertTrue(all(flow["orig.raw.pktcount"] < 5 for flow in there.values()))

    def test_signal(self):
        """SIGUSR2: a row for each flow that lives, counters at 0 then, and the end has the rest."""
        self.flows(4)
        with Rows(self.namespaces, "--dumps") as ours:
            self.learnt(ours)
            self.flows(4)
            ours.daemon.process.send_signal(signal.SIGUSR2)
            wait_until(lambda: ours.received() >= 4, what="rows")
            self.learnt(ours, 2)
            self.assertEqual({flow["orig.raw.pktcount"] for flow in self.listed()}, {0})
            self.flows(4)
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= 8, what="rows")
        self.assertEqual(
            Counter((row["ct.event"], row["orig.raw.pktcount"]) for row in ours.rows), {(2, 2): 4, (4, 1): 4}
        )


class SumTests(TableTestCase):
    """The service with reports of flows that live."""

    CONFIG = """
[ct1]
active_timeout=1
accept_proto_filter=udp
[agg1]
key="destinationTransportPort"
interval=1
[json1]
file="{dir}/sums.json"
[exp1]
collectors="tcp:127.0.0.1:4739"
reconnect=1
[col1]
listen="tcp:127.0.0.1:4739"
[json2]
file="{dir}/records.json"
"""

    def read(self, service, name):
        return [json.loads(line) for line in (service.directory / name).read_text().splitlines()]

    def test_sums(self):
        """AGGREGATE and a collector of what IPFIX sends both count every packet once."""
        stacks = ["ct1:NFCT,agg1:AGGREGATE,json1:JSON", "ct1:NFCT,exp1:IPFIX", "col1:COLLECTOR,json2:JSON"]
        with Service(stacks, self.CONFIG, namespace=functools.partial(self.namespaces.argv, "a")) as service:
            for _ in range(5):
                self.flows(3)
                sleep(0.7)
            self.run_a("conntrack", "-F")
            wait_until(lambda: service.counters("ct1")["flows"]["followed"] == 0, what="the end of all flows")
            wait_until(lambda: service.counters("exp1")["rows_written"] == service.counters("ct1")["rows_emitted"]
                       and service.counters("json2")["rows_written"] == service.counters("exp1")["records_encoded"],
                       what="records")  # fmt: skip
        self.assertEqual(unaccounted(service.all_counters()), {})
        sums, records = Counter(), Counter()
        for row in self.read(service, "sums.json"):
            sums[row["destinationTransportPort"]] += row["packets"]
        reasons = Counter()
        for row in self.read(service, "records.json"):
            if row["flowDirection"] == 0:
                records[row["destinationTransportPort"]] += row["packetDeltaCount"]
                reasons[row["flowEndReason"]] += 1
        self.assertEqual((sums, records), (dict.fromkeys((6000, 6001, 6002), 5),) * 2)
        self.assertGreaterEqual(reasons[2], 6)
        self.assertEqual(reasons[1], 3)


class SettingTests(TableTestCase):
    """sysctl=1."""

    def test_set(self):
        """What is off is set, and no warning said."""
        for name in ("acct", "timestamp", "events"):
            self.set(name, 0)
        with Rows(self.namespaces, "sysctl=1") as ours:
            pass
        found = self.run_a(
            "sh",
            "-c",
            "cat /proc/sys/net/netfilter/nf_conntrack_acct "
            "/proc/sys/net/netfilter/nf_conntrack_timestamp /proc/sys/net/netfilter/nf_conntrack_events",
        )
        self.assertEqual(found.stdout.split(), ["1", "1", "1"])
        self.assertNotIn("sysctl -w", ours.log)
        self.assertIn("net.netfilter.nf_conntrack_acct=1 was set", ours.log)


class DoctorTests(TableTestCase):
    """ulogd-tw doctor on a real kernel."""

    def doctor(self, path):
        return self.run_a(sys.executable, "-m", "ulogd_tw.operating.doctor", "-c", path, cwd=TOP, check=False)

    def test_namespace(self):
        """It looks into the namespace that NFCT follows, and its status tells whether all is well there."""
        path = self.mktemp()
        folder = Path(path)
        folder.mkdir()
        (folder / "x.conf").write_text(
            "[global]\nstack=ct1:NFCT,json1:JSON\n[ct1]\n"
            f"network_namespace_path=/run/netns/{self.namespaces.names['b']}\n[json1]\nfile=stdout\n"
        )
        good = self.doctor((folder / "x.conf").absolute())
        self.assertEqual(good.returncode, 0, good.stdout + good.stderr)
        self.assertIn(f"conntrack over netlink in /run/netns/{self.namespaces.names['b']}: answers", good.stdout)
        self.namespaces.run("b", ["sh", "-c", "echo 0 >/proc/sys/net/netfilter/nf_conntrack_acct"])
        bad = self.doctor((folder / "x.conf").absolute())
        self.assertEqual(bad.returncode, 1)
        self.assertIn("sysctl -w net.netfilter.nf_conntrack_acct=1", bad.stdout)
