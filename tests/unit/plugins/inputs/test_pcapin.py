"""PCAPIN whose packets are rows."""

import gzip
import struct
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.packets.stacks import Sink
from tests.unit.packets.wire import block, ethernet, pcap, pcapng, udp
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL, FLOW, RAW
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.metering import capture_rows
from ulogd_tw.plugins.filters.aggregate import AGGREGATE
from ulogd_tw.plugins.filters.base import BASE
from ulogd_tw.plugins.inputs import pcapin
from ulogd_tw.plugins.inputs.pcapin import PCAPIN

ENDS = ("192.0.2.1", "198.51.100.1")


def packet(number=1, size=10):
    """A datagram whose source port numbers it."""
    return udp(*ENDS, (number, 53), bytes(size))


class Case(SynchronousTestCase):
    """Stacks that begin with PCAPIN."""

    def file(self, octets):
        path = Path(self.mktemp())
        path.write_bytes(octets)
        return str(path)

    def build(self, stacks, files, asked=ALL, **options):
        """The graph of some stacks, each a list of plugin names; the output asks for keys."""
        classes = {"PCAPIN": PCAPIN, "BASE": BASE, "AGGREGATE": AGGREGATE,
                   "SINK": type("Sink", (Sink,), {"asked": asked})}  # fmt: skip
        given = {PCAPIN: {"file": tuple(files)} | options, AGGREGATE: {"key": "protocolIdentifier", "interval": 1}}
        builder = Builder(
            lambda name, _: classes[name], lambda _, class_: (Options(class_.all_options(), given.get(class_)), [])
        )
        specs = [StackSpec("x", "f:1", tuple((name.lower(), name) for name in stack)) for stack in stacks]
        graph = builder.build(specs)
        self.assertEqual([], [str(mistake) for mistake in builder.mistakes])
        return graph

    def replay(self, graph, seconds=10.0):
        """Run all inputs to their end; the clock goes on by itself."""
        for node in graph.inputs:
            node.plugin.reactor = clock = Clock()
            self.patch(capture_rows.time, "monotonic", clock.seconds)
            for other in graph.filters:
                other.plugin.open()
            node.plugin.open()
            node.plugin.begin()
            for _ in range(1000):
                if node.plugin._pieces is None:
                    break
                clock.advance(seconds / 1000)
        return graph.outputs[0].plugin.__dict__.get("got", [])

    def rows(self, octets, asked, **options):
        """The rows of one file below BASE."""
        graph = self.build([["PCAPIN", "BASE", "SINK"]], [self.file(octets)], asked, **options)
        return [row for batch in self.replay(graph) for row in batch.rows()], graph


class PacketTests(Case):
    """Packets of files as rows."""

    def test_forms(self):
        """pcap and pcapng, both byte orders, nanoseconds, gzip: the same packets with their times."""
        packets = [(1_700_000.25, packet(1)), (1_700_001.5, packet(2, 0))]
        expected = [(1, 1_700_000, 250_000, 38, 101), (2, 1_700_001, 500_000, 28, 101)]
        asked = ("sourceTransportPort", "oob.time.sec", "oob.time.usec", "raw.pktlen", "raw.linktype")
        for octets in (pcap(packets), pcap(packets, order=">", nanoseconds=True), pcapng(packets),
                       pcapng(packets, order=">", resolution=9), gzip.compress(pcapng(packets))):  # fmt: skip
            rows, graph = self.rows(octets, asked)
            self.assertEqual(expected, [tuple(row[name] for name in asked) for row in rows])
            self.assertEqual({}, graph.unaccounted())

    def test_slices(self):
        """However much is read at once, even less than a packet."""
        octets = pcap([(n, packet(n, n)) for n in range(1, 60)])
        for size in (1, 7, 100, 1 << 20):
            self.patch(pcapin, "PACKET_OCTETS", size)
            rows, _ = self.rows(octets, ("udp.sport",))
            self.assertEqual(list(range(1, 60)), [row["udp.sport"] for row in rows])

    def test_cut_by_the_capture(self):
        """raw.pktlen is what was on the wire, also where the capture has less of it."""
        record = struct.pack("<IIII", 5, 6, 20, 1500) + packet()[:20]
        (row,), _ = self.rows(pcap([]) + record, ("raw.pktlen", "ip.saddr", "raw.pkt"))
        self.assertEqual((1500, 20), (row["raw.pktlen"], len(row["raw.pkt"])))

    def test_ethernet(self):
        """The header of Ethernet is raw.mac too, which other links do not have."""
        asked = ("raw.mac", "raw.mac_len", "raw.type", "sourceMacAddress")
        frame = bytes.fromhex("0200000000020200000000010800") + packet()
        section = block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        links = b"".join(block("<", 1, struct.pack("<HHI", link, 0, 0)) for link in (1, 101))
        packets = b"".join(
            block("<", 6, struct.pack("<IIIII", which, 0, 0, len(octets), len(octets)) + octets)
            for which, octets in ((0, frame), (1, packet()), (0, frame))
        )
        rows, _ = self.rows(section + links + packets, asked)
        self.assertEqual([frame[:14], None, frame[:14]], [row.get("raw.mac") for row in rows])
        self.assertEqual([14, None, 14], [row.get("raw.mac_len") for row in rows])
        self.assertEqual([0x020000000001, None, 0x020000000001], [row.get("sourceMacAddress") for row in rows])

    def test_types(self):
        """The plugin below decides: packets above BASE, flow records elsewhere; both of one id are two instances."""
        files = [self.file(pcap([(1.0, packet())]))]
        graph = self.build([["PCAPIN", "BASE", "SINK"], ["PCAPIN", "SINK"]], files)
        self.assertEqual([RAW, FLOW], [node.plugin.otype for node in graph.inputs])
        self.assertEqual(["pcapin", "pcapin#2"], [node.ident for node in graph.inputs])
        self.assertEqual([1], [batch.n for batch in self.replay(graph)])

    def test_seconds(self):
        """An AGGREGATE below gets each packet in its second."""
        octets = pcap([(100.1, packet()), (100.9, packet()), (101.5, packet()), (103.0, packet())])
        graph = self.build([["PCAPIN", "BASE", "AGGREGATE", "SINK"]], [self.file(octets)])
        got = self.replay(graph)
        graph.filters[-1].plugin.flush()
        rows = [row for batch in (got or graph.outputs[0].plugin.got) for row in batch.rows()]
        self.assertEqual([(100, 2, 76), (101, 1, 38), (103, 1, 38)],
                         [(row["interval_start"], row["packets"], row["octets"]) for row in rows])  # fmt: skip

    def test_speed(self):
        """real: packets come when they are due; 4: four times as fast."""
        octets = pcap([(100 + n / 2, packet(n)) for n in range(1, 9)])
        for speed, needed in (("real", 3.5), ("4", 3.5 / 4), ("max", 0.0)):
            graph = self.build([["PCAPIN", "BASE", "SINK"]], [self.file(octets)], ("udp.sport",), speed=speed)
            came = []
            sink = graph.outputs[0].plugin
            clock = []

            def write(batch, came=came, clock=clock):
                came.append((clock[0].seconds(), batch.n))

            sink.write = write
            plugin = graph.inputs[0].plugin
            plugin.reactor = own = Clock()
            clock.append(own)
            self.patch(capture_rows.time, "monotonic", own.seconds)
            plugin.open()
            plugin.begin()
            for _ in range(500):
                own.advance(0.01)
            self.assertEqual(8, sum(n for _, n in came))
            self.assertLess(abs(needed - (came[-1][0] - came[0][0])), 0.1)

    def test_damaged(self):
        """What stands before the damage is there; the rest is counted."""
        octets = pcap([(1, packet(1)), (2, packet(2))]) + bytes(8) + b"\xff\xff\xff\x7f" + bytes(4)
        rows, graph = self.rows(octets, ("udp.sport",))
        self.assertEqual([1, 2], [row["udp.sport"] for row in rows])
        self.assertEqual({"capture": 1}, dict(graph.inputs[0].plugin.counters.errors))

    def test_frames(self):
        """VLAN tags of Ethernet are found on the way."""
        octets = pcap([(1, ethernet(packet(), b"\x81\0\x20\5"))], link=1)
        (row,), _ = self.rows(octets, ("vlanId", "dot1qPriority", "udp.dport"))
        self.assertEqual((5, 1, 53), (row["vlanId"], row["dot1qPriority"], row["udp.dport"]))
