"""NFCT and the kernel's connection tracking: real flows in network namespaces, held against conntrack's own figures."""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.live.service import Service
from tests.support import Daemon, NetworkNamespaces, require_program, sized, wait_until

TOP = Path(__file__).resolve().parents[2]

# Talks to itself from the other side of the veth pair: an echo of TCP and UDP on one port, both families.
SERVER = """
import socket, threading
def tcp(s):
    while True:
        c, _ = s.accept()
        with c:
            data = c.recv(65536)
            c.sendall(data[:len(data) // 2])
            while c.recv(65536): pass
def udp(s):
    while True:
        data, peer = s.recvfrom(65536)
        s.sendto(data, peer)
for kind, work in ((socket.SOCK_STREAM, tcp), (socket.SOCK_DGRAM, udp)):
    s = socket.socket(socket.AF_INET6, kind)
    s.bind(("::", 5000))
    if kind == socket.SOCK_STREAM: s.listen(64)
    threading.Thread(target=work, args=(s,)).start()
print("up", flush=True)
"""
CLIENT = """
import socket, sys
for i, host in enumerate(sys.argv[1:]):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for j in range(20):
        with socket.socket(family, socket.SOCK_STREAM) as s:
            s.connect((host, 5000)); s.sendall(b"x" * (100 + 10 * j)); s.recv(65536)
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            s.bind(("", 20000 + 100 * i + j))  # the kernel may give two sockets one port: then they are one flow
            s.settimeout(5); s.connect((host, 5000)); s.send(b"y" * (50 + j)); s.recv(65536)
"""
MANY = """
import socket, sys
host, n = sys.argv[1], int(sys.argv[2])
for i in range(0, n, 20000):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for port in range(1, 1 + min(20000, n - i)):
            s.sendto(b"z", (host, port))
"""
DNAT = """
table ip utwnat {
    chain output { type nat hook output priority -100; ip daddr 10.99.0.1 tcp dport 8080 dnat to %s:5000; }
}
"""


class Rows:
    """NFCT in namespace `a`, there while the `with` lasts; afterwards its rows and counters."""

    def __init__(self, namespaces, *arguments):
        argv = [sys.executable, "-m", "tests.live.nfct_rows", *arguments]
        ready = lambda daemon: "ready" in daemon.output()  # noqa: E731
        self.daemon = Daemon(namespaces.argv("a", argv), ready, within=20, cwd=TOP)
        self.rows, self.counters, self.log = [], None, ""

    def __enter__(self):
        self.daemon.start()
        return self

    def received(self):
        return sum(line.startswith('{"') for line in self.daemon.output().splitlines())

    def __exit__(self, *_):
        self.daemon.stop()
        for line in self.daemon.output().splitlines():
            if line.startswith('{"counters"'):
                self.counters = json.loads(line)["counters"]
            elif line.startswith("{"):
                self.rows.append(json.loads(line))
            else:
                self.log += line + "\n"
        self.daemon.__exit__()


def _xml_flow(flow):
    """What conntrack -o xml says of one flow, in our keys, addresses as integers."""
    found = {}
    for meta in flow.findall("meta"):
        direction = meta.get("direction")
        if direction == "independent":
            found["ct.id"] = int(meta.findtext("id"))
            continue
        side = {"original": "orig", "reply": "reply"}[direction]
        for key, path in (("ip.saddr", "layer3/src"), ("ip.daddr", "layer3/dst")):
            found[f"{side}.{key}"] = int(ip_address(meta.findtext(path)))
        found[f"{side}.ip.protocol"] = int(meta.find("layer4").get("protonum"))
        for key, path in (
            ("l4.sport", "layer4/sport"), ("l4.dport", "layer4/dport"),
            ("raw.pktcount", "counters/packets"), ("raw.pktlen", "counters/bytes"),
        ):  # fmt: skip
            if meta.findtext(path) is not None:
                found[f"{side}.{key}"] = int(meta.findtext(path))
    return found


def xml_flows(text):
    """All flows of an output of conntrack, which may have ended in the middle."""
    flows = re.findall(r"<flow.*?</flow>", text, re.DOTALL)
    return [_xml_flow(ElementTree.fromstring(flow)) for flow in flows]


def same(row, names):
    """These keys of a row, as something that can be counted."""
    return tuple(sorted((name, row[name]) for name in names if name in row))


COMPARED = [
    f"{side}.{key}"
    for side in ("orig", "reply")
    for key in ("ip.saddr", "ip.daddr", "ip.protocol", "l4.sport", "l4.dport", "raw.pktcount", "raw.pktlen")
] + ["ct.id"]


class NfctTests(SynchronousTestCase):
    """Real flows."""

    def setUp(self):
        require_program("conntrack", "ping")
        self.namespaces = NetworkNamespaces(conntrack=True)
        self.namespaces.__enter__()
        self.addCleanup(self.namespaces.__exit__)

    def run_a(self, *argv, **keywords):
        return self.namespaces.run("a", argv, **keywords)

    def traffic(self):
        """TCP, UDP, ICMP in both families, and TCP through DNAT."""
        ns = self.namespaces
        self.run_a("nft", "-f", "-", input=DNAT % ns.ipv4["b"])
        self.run_a("ip", "route", "add", "10.99.0.1/32", "via", ns.ipv4["b"])
        server = Daemon(ns.argv("b", [sys.executable, "-c", SERVER]), lambda daemon: "up" in daemon.output())
        with server:
            self.run_a(sys.executable, "-c", CLIENT, ns.ipv4["b"], ns.ipv6["b"])
            self.run_a(
                sys.executable,
                "-c",
                CLIENT.replace("5000", "8080").split("        with socket.socket(family, socket.SOCK_DGRAM")[0],
                "10.99.0.1",
            )
        for address in (ns.ipv4["b"], ns.ipv6["b"]):
            self.run_a("ping", "-c", "2", "-i", "0.2", address)

    def test_rows_are_conntracks(self):
        """Every ended flow is a row with the addresses, ports, packets and octets that conntrack shows, once."""
        watch = Daemon(
            self.namespaces.argv("a", ["conntrack", "-E", "-e", "DESTROY", "-o", "xml,timestamp", "-b", "67108864"]),
            within=10,
        )
        with watch, Rows(self.namespaces) as ours:
            # conntrack says nothing when it listens.
            wait_until(lambda: self._both_listen(watch.pid), what="conntrack listening")
            self.traffic()
            live = xml_flows(self.run_a("conntrack", "-L", "-o", "xml,id").stdout)
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= len(live), what="rows")
            theirs = wait_until(lambda: len(f := xml_flows(watch.output())) >= ours.received() and f, what="conntrack")
        self.assertEqual(
            Counter(same(row, COMPARED) for row in ours.rows), Counter(same(flow, COMPARED) for flow in theirs)
        )
        self.assertEqual(
            (ours.counters["lost"], ours.counters["errors"], ours.counters["rows_emitted"]), ({}, {}, len(ours.rows))
        )
        self._check_kinds(ours.rows)
        for row in ours.rows:
            start = row["flow.start.sec"], row["flow.start.usec"]
            self.assertLessEqual(start, (row["flow.end.sec"], row["flow.end.usec"]), row)
            self.assertLessEqual(row["flowStartMilliseconds"], row["flowEndMilliseconds"])
            self.assertEqual(row["ct.event"], 4)

    def _both_listen(self, pid):
        """Whether two sockets of the namespace follow DESTROY (group 3, so bit 2 of column 4 of /proc/net/netlink)."""
        lines = Path(f"/proc/{pid}/net/netlink").read_text().splitlines()[1:]
        return sum(f[1] == "12" and int(f[3], 16) & 4 == 4 for f in map(str.split, lines)) == 2

    def _check_kinds(self, rows):
        """All the traffic is there: 20 flows of each kind, DNAT visible as postNAT keys."""
        ns = self.namespaces
        for family, peer in ((2, ns.ipv4["b"]), (10, ns.ipv6["b"])):
            for protocol in (6, 17):
                flows = [
                    r for r in rows
                    if (r["oob.family"], r["orig.ip.protocol"], r.get("orig.l4.dport")) == (family, protocol, 5000)
                    and r["orig.ip.daddr"] == int(ip_address(peer))
                ]  # fmt: skip
                self.assertEqual(len(flows), 20, (family, protocol))
        (echo,) = [r for r in rows if r["orig.ip.protocol"] == 1]
        self.assertEqual((echo["icmp.type"], echo["icmp.code"], echo["orig.raw.pktcount"]), (8, 0, 2))
        (echo,) = [r for r in rows if r["orig.ip.protocol"] == 58 and r.get("icmpv6.type") == 128]
        self.assertEqual(echo["reply.raw.pktcount"], 2)
        self.assertFalse({"orig.l4.sport", "icmp.type"} & set(echo))
        nat = [r for r in rows if r["orig.ip.daddr"] == int(ip_address("10.99.0.1"))]
        self.assertEqual(len(nat), 20)
        for row in nat:
            self.assertEqual(row["postNATDestinationAddress"], int(ip_address(ns.ipv4["b"])))
            self.assertEqual((row["orig.l4.dport"], row["postNAPTDestinationTransportPort"]), (8080, 5000))

    def test_every_event(self):
        """hash_enable=0 gives begin, change and end of each flow as event_mask asks."""
        with Rows(self.namespaces, "hash_enable=0", "event_mask=7") as ours:
            self.run_a("ping", "-c", "1", self.namespaces.ipv4["b"])
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= 3, what="rows")
        events = {row["ct.event"]: row for row in ours.rows}
        self.assertEqual([row["ct.event"] for row in ours.rows], [1, 2, 4])
        self.assertEqual(events[1]["flow.start.sec"] // 10, events[4]["flow.start.sec"] // 10)
        self.assertFalse({"orig.raw.pktlen", "flow.end.sec"} & set(events[1]))

    def test_many_at_once(self):
        """20 k flows deleted at once: none is lost."""
        n = sized(20_000, 100_000)
        with Rows(self.namespaces, "--quiet", "--wanted", "ct.id,orig.raw.pktlen") as ours:
            self.run_a(sys.executable, "-c", MANY, self.namespaces.ipv4["b"], str(n))
            there = int(self.run_a("conntrack", "-C").stdout)
            self.run_a("conntrack", "-F")
            # An orderly stop reads what is still in the socket.
        self.assertGreaterEqual(there, n)
        self.assertEqual((ours.counters["lost"], ours.counters["errors"]), ({}, {}))
        self.assertGreaterEqual(ours.counters["rows_emitted"], there)

    def test_loss_is_counted(self):
        """With a queue that is too small, rows and counted losses together are all the flows."""
        with Rows(self.namespaces, "--quiet", "receive_buffer=100k", "batch_latency=500ms") as ours:
            self.run_a(sys.executable, "-c", MANY, self.namespaces.ipv4["b"], "5000")
            there = int(self.run_a("conntrack", "-C").stdout)
            self.run_a("conntrack", "-F")
        self.assertGreater(ours.counters["lost"].get("kernel", 0), 0)
        self.assertEqual(ours.counters["rows_emitted"] + ours.counters["lost"]["kernel"], there)
        self.assertIn("receive_buffer", ours.log)

    def test_settings_of_the_kernel(self):
        """One warning names what the kernel does not keep, and the sysctl that changes it."""
        for name in ("nf_conntrack_acct", "nf_conntrack_timestamp"):
            self.run_a("sh", "-c", f"echo 0 >/proc/sys/net/netfilter/{name}")
        with Rows(self.namespaces) as ours:
            self.run_a("ping", "-c", "1", self.namespaces.ipv4["b"])
            self.run_a("conntrack", "-F")
            wait_until(lambda: ours.received() >= 1, what="rows")
        self.assertIn("sysctl -w net.netfilter.nf_conntrack_acct=1 net.netfilter.nf_conntrack_timestamp=1", ours.log)
        (row,) = ours.rows
        self.assertFalse({"orig.raw.pktlen", "reply.raw.pktcount", "flow.start.sec"} & set(row))
        self.assertIn("flow.end.sec", row)

    def test_other_namespace(self):
        """network_namespace_path follows another namespace than its own, and the kernel's filter chooses in it."""
        path = f"/run/netns/{self.namespaces.names['b']}"
        with Rows(self.namespaces, f"network_namespace_path={path}", "accept_proto_filter=icmp") as ours:
            for address in (self.namespaces.ipv4["b"], self.namespaces.ipv6["b"]):
                self.run_a("ping", "-c", "1", address)
            self.run_a("conntrack", "-F")
            self.namespaces.run("b", ["conntrack", "-F"])
            wait_until(lambda: ours.received() >= 1, what="rows")
        self.assertEqual([row["orig.ip.protocol"] for row in ours.rows], [1])
        self.assertEqual((ours.counters["messages_received"], ours.counters["rows_filtered"]), (1, 0))

    def test_no_privilege(self):
        """Without CAP_NET_ADMIN it says so, and how to grant it."""
        argv = [sys.executable, "-m", "tests.live.nfct_rows"]
        nobody = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
        require_program("setpriv")
        result = self.run_a(
            *nobody, *argv, check=False, cwd=TOP, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, capture_output=False
        )
        self.assertIn("AmbientCapabilities=CAP_NET_ADMIN", result.stdout)


class FirstFlowTests(SynchronousTestCase):
    """A host whose firewall tracks nothing: NFCT says at once what to run, and what it says works as printed."""

    def test_remedies_work(self):
        """nft and sysctl take the lines out of the log; the next ping is a row."""
        require_program("nft")
        config = '[j]\nfile="{dir}/rows"\nsync=1\n'
        with (
            NetworkNamespaces() as namespaces,
            Service(["ct:NFCT,j:JSON"], config, namespace=partial(namespaces.argv, "a")) as ours,
        ):
            for name in ("acct", "timestamp"):
                path = f"/proc/sys/net/netfilter/nf_conntrack_{name}"
                self.assertEqual("0", namespaces.run("a", ["cat", path]).stdout.strip())
            namespaces.run("a", ["ping", "-c", "1", namespaces.ipv4["b"]])
            log = wait_until(lambda: "tracks no connections" in ours.output() and ours.output(), 20, "the warning")
            remedies = [line.split("Run: ", 1)[1].split(" (affects")[0] for line in log.splitlines() if "Run: " in line]
            self.assertEqual(["sysctl", "nft"], [remedy.split()[0] for remedy in remedies], log)
            for remedy in remedies:
                namespaces.run("a", ["sh", "-c", remedy])
            namespaces.run("a", ["ping", "-c", "1", namespaces.ipv4["b"]])
            namespaces.run("a", ["conntrack", "-F"])
            rows = ours.directory / "rows"
            wait_until(lambda: rows.exists() and '"orig.raw.pktlen":84' in rows.read_text(), 20, "the row of the ping")


SINK = """
import socket, sys, time
tcp = socket.create_server(("", 4739)); udp = socket.socket(type=socket.SOCK_DGRAM); udp.bind(("", 4739))
print("ready", flush=True)
kept = tcp.accept()
time.sleep(60)
"""
SEND = """
import socket, sys
sender = socket.socket(type=socket.SOCK_DGRAM)
sender.bind(("", 40404))
sender.sendto(b"x", (sys.argv[1], 4739))
"""


class OwnExportTests(SynchronousTestCase):
    """`own_export=0`."""

    def test_own_export_is_left_out(self):
        """The export over TCP and UDP is no row; the export of another process to the same port is one."""
        with NetworkNamespaces(conntrack=True) as namespaces:
            there = namespaces.ipv4["b"]
            config = (
                "[ct]\nown_export=0\nactive_timeout=1\n"
                f'[e]\ncollectors="tcp:{there}:4739 udp:{there}:4739"\n[j]\nfile="{{dir}}/rows"\nsync=1\n'
            )
            sink = Daemon(
                namespaces.argv("b", [sys.executable, "-c", SINK]), lambda d: "ready" in d.output(), within=20
            )
            with (
                sink,
                Service(["ct:NFCT,e:IPFIX", "ct:NFCT,j:JSON"], config, namespace=partial(namespaces.argv, "a")) as ours,
            ):
                namespaces.run("a", ["ping", "-c", "1", there])
                namespaces.run("a", [sys.executable, "-c", SEND, there])
                rows = ours.directory / "rows"

                def ports():
                    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
                    return {row.get("orig.l4.sport") for row in found if row.get("orig.l4.dport") == 4739}

                wait_until(lambda: 40404 in ports(), 30, "the row of the other exporter")
                ours.wait_for("e", "rows_written", 2)

                def filtered():
                    namespaces.run("a", ["conntrack", "-F"])
                    return ours.counters("ct")["rows_filtered"] >= 2

                wait_until(filtered, 30, "the ends of both exports")
            self.assertEqual({40404}, ports())
