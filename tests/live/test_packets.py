"""Packets from capture files: what tshark reads in them, what tcpdump and ulogd2 make of ours; names of interfaces."""

import json
import random
import struct
import subprocess
from pathlib import Path

from twisted.internet import defer, reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.live.test_replay import Job
from tests.support import NetworkNamespaces, require_program, shared_path
from tests.unit.packets import frames, wire
from tests.unit.packets.stacks import raw
from tests.unit.packets.test_headers import captured, read_by_tshark, value
from ulogd_tw.core.options import Options
from ulogd_tw.core.resolve import Recipe
from ulogd_tw.plugins.filters.ifindex import IFINDEX

PACKETS = """
[cap1]
file="{path}"
exit=1
[json2]
file="{{dir}}/packets.json"
[log1]
file="{{dir}}/packets.log"
[pcap1]
file="{{dir}}/copy.{format}"
format="{format}"
"""
FIELDS = {
    "ip.ttl": "ip.ttl", "ip.totlen": "ip.len", "ip.csum": "ip.checksum", "ip.id": "ip.id", "ip.tos": "ip.dsfield",
    "ip6.payloadlen": "ipv6.plen", "ip6.hoplimit": "ipv6.hlim", "ip6.flowlabel": "ipv6.flow",
    "ip6.priority": "ipv6.tclass", "ip6.fragid": "ipv6.fraghdr.ident",
    "tcp.seq": "tcp.seq_raw", "tcp.ackseq": "tcp.ack_raw", "tcp.window": "tcp.window_size_value",
    "tcp.csum": "tcp.checksum", "tcp.syn": "tcp.flags.syn", "tcp.ack": "tcp.flags.ack", "tcp.fin": "tcp.flags.fin",
    "tcp.rst": "tcp.flags.reset", "tcp.psh": "tcp.flags.push", "tcp.urg": "tcp.flags.urg",
    "icmp.type": "icmp.type", "icmp.code": "icmp.code", "icmp.csum": "icmp.checksum",
    "icmpv6.type": "icmpv6.type", "icmpv6.code": "icmpv6.code", "icmpv6.csum": "icmpv6.checksum",
    "arp.hwtype": "arp.hw.type", "arp.protocoltype": "arp.proto.type", "arp.operation": "arp.opcode",
    "sctp.csum": "sctp.checksum", "raw.pktlen": "frame.len",
}  # fmt: skip
"""ulogd2's keys and tshark's fields."""
ADDRESSES = {"src_ip": ("ip.src", "ipv6.src"), "dest_ip": ("ip.dst", "ipv6.dst"),
             "arp.saddr.str": ("arp.src.proto_ipv4",)}  # fmt: skip
PORTS = {"src_port": "srcport", "dest_port": "dstport"}


class PacketTests(Job):
    """`twistd ulogd` on captures."""

    def compare(self, packets):
        """Every packet: the objects of JSON say what tshark says."""
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(wire.pcap([(1000 + number / 1e6, packet) for number, packet in enumerate(packets)], link=1))
        stacks = ["cap1:PCAPIN,base1:BASE,json2:JSON", "cap1:PCAPIN,base1:BASE,print1:PRINTPKT,log1:LOGEMU",
                  "cap1:PCAPIN,pcap1:PCAP"]  # fmt: skip
        format_ = random.Random(len(packets)).choice(("pcap", "pcapng"))
        self.job(stacks, PACKETS.format(path=Path(path).resolve(), format=format_).format(dir=directory_of(path)))
        rows = [json.loads(line) for line in (directory_of(path) / "packets.json").read_text().splitlines()]
        rows.sort(key=lambda row: row["oob.time.usec"])
        names = [*FIELDS.values(), *(name for several in ADDRESSES.values() for name in several), "ip.proto",
                 *(f"{kind}.{port}" for kind in ("tcp", "udp", "sctp") for port in PORTS.values())]  # fmt: skip
        said = read_by_tshark(self, packets, names)
        self.assertEqual(len(packets), len(rows))
        for packet, ours, theirs in zip(packets, rows, said, strict=True):
            got = {name: ours[name] for name in COMPARED if name in ours}
            self.assertEqual(expected(theirs, ours), got, packet.hex())
        lines = (directory_of(path) / "packets.log").read_text().splitlines()
        self.assertEqual(len(packets), len(lines))
        self.same_packets(path, directory_of(path) / f"copy.{format_}")

    def same_packets(self, one, other):
        """tshark sees the same packets at the same times in both files."""
        (tshark,) = require_program("tshark")
        words = ["-T", "fields", "-e", "frame.time_epoch", "-e", "frame.len", "-e", "eth.src", "-e", "frame.protocols"]
        told = [subprocess.run([tshark, "-n", "-r", path, *words], capture_output=True, text=True, timeout=60).stdout
                for path in (one, other)]  # fmt: skip
        self.assertEqual(*told)

    def test_made(self):
        """Packets of every kind."""
        self.compare([frames.ethernet(random.Random(seed), whole=True) for seed in range(1000)])

    def test_captured(self):
        """Those of the corpus."""
        packets = []
        for path in sorted(shared_path("corpus", "ipfix", "files").rglob("*.pcap")):
            packets += captured(path.read_bytes())[:300]
        self.compare(packets)


def directory_of(path):
    """Where the outputs of a job write, beside its capture."""
    found = Path(path).resolve().parent / f"{Path(path).name}-out"
    found.mkdir(exist_ok=True)
    return found


COMPARED = {*FIELDS, *ADDRESSES, *PORTS}


def expected(tshark, ours):
    """tshark's values of one packet under our names; of each field the first, which is the outermost packet's."""
    said = {name: value(tshark[field][0]) for name, field in FIELDS.items() if tshark[field]}
    said = {name: int(number) for name, number in said.items()}
    six = "ip6.payloadlen" in ours
    if six:  # what is inside of it is of no interest
        said = {name: number for name, number in said.items() if not name.startswith("ip.")}
    for name, several in ADDRESSES.items():
        fields = several if not six else several[::-1]
        there = [tshark[field][0] for field in fields if tshark[field]]
        if there:
            said[name] = there[0]
    for name, port in PORTS.items():
        there = [tshark[f"{kind}.{port}"][0] for kind in ("tcp", "udp", "sctp") if tshark[f"{kind}.{port}"]]
        if there and ours.get("ip.protocol") != 136:  # ulogd2 has no keys of UDP-Lite
            said[name] = int(there[0])
    return said


class IfindexTests(TestCase):
    """The kernel's names."""

    @defer.inlineCallbacks
    def test_followed(self):
        """An interface that is made, renamed and removed while the plugin looks on."""
        with NetworkNamespaces() as ns:
            options = Options(IFINDEX.all_options(), {"network_namespace_path": f"/run/netns/{ns.names['a']}"})
            plugin = IFINDEX("if1", options)
            yield plugin.open()
            self.addCleanup(plugin.stop)
            plugin.wanted = frozenset({"oob.in", "oob.out"})
            plugin.sources.add("oob.ifindex_in", [Recipe(("oob.ifindex_in",))])
            self.assertEqual(b"lo", plugin.names[1])
            ns.run("a", ["ip", "link", "add", "dummy7", "type", "bridge"])
            links = json.loads(ns.run("a", ["ip", "-j", "link"]).stdout)
            index = next(link["ifindex"] for link in links if link["ifname"] == "dummy7")
            yield self.follow(plugin, ns, index)

    def follow(self, plugin, ns, index):
        """Look at the name, rename, look again."""
        seen = []

        def name():
            batch = raw([struct.pack("!I", index)], oob_ifindex_in=[index])
            seen.append(plugin.process(batch).columns["oob.in"].to_list()[0])

        for command in ([], ["ip", "link", "set", "dummy7", "name", "wan0"], ["ip", "link", "del", "wan0"]):
            if command:
                ns.run("a", command)
            plugin._port.doRead()
            name()
        self.assertEqual([b"dummy7", b"wan0", b"wan0"], seen)
        return deferLater(reactor, 0, lambda: None)
