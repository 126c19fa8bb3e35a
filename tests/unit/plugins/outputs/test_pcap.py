"""PCAP: what tshark, ulogd2 and our own reader make of its files."""

import errno
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import require_program, shared_path
from tests.unit.packets.stacks import raw, through
from tests.unit.packets.test_headers import captured_raw
from tests.unit.packets.wire import ethernet, ip, udp
from tests.unit.writing.text_rows import GOLDEN
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.resolve import Recipe
from ulogd_tw.core.stack import Node
from ulogd_tw.flow import OutputQueue, Pauses
from ulogd_tw.packets.capture import Capture
from ulogd_tw.plugins.filters.base import BASE
from ulogd_tw.plugins.outputs import pcap
from ulogd_tw.plugins.outputs.pcap import PCAP
from ulogd_tw.writing import text

ENDS = ("192.0.2.1", "198.51.100.1")
KEYS = ("raw.pkt", "raw.pktlen", "oob.time.sec", "oob.time.usec")


def packets(n, size=30):
    """Datagrams of growing sizes."""
    return [udp(*ENDS, (number, 53), bytes((number * 7) % size)) for number in range(n)]


class PcapTests(SynchronousTestCase):
    """Files of packets."""

    def setUp(self):
        self.path = Path(self.mktemp())

    def plugin(self, given=KEYS, **options):
        made = PCAP("out", Options(PCAP.all_options(), {"file": str(self.path), **options}), Clock())
        for name in given:
            made.sources.add(name, [Recipe((name,))])
        made.open()
        return made

    def read(self):
        """(time, packet, octets on the wire, link) of each in the file."""
        found = Capture().feed(self.path.read_bytes())
        return [
            (time, found.octets[start : start + size].tobytes(), wire, link)
            for time, start, size, wire, link in zip(
                found.times.tolist(), found.starts.tolist(), found.lengths.tolist(), found.wire.tolist(),
                found.links.tolist(), strict=True
            )
        ]  # fmt: skip

    def test_as_ulogd2(self):
        """The octets of ulogd2's file, from its packets; but what it says that a packet may have at most."""
        golden = shared_path(*GOLDEN, "pkt.pcap").read_bytes()
        heads = []
        place = 24
        while place < len(golden):
            heads.append(struct.unpack_from("<IIII", golden, place))
            place += 16 + heads[-1][2]
        out = self.plugin()
        out.write(raw(captured_raw(golden), **{"oob_time.sec": [head[0] for head in heads],
                                              "oob_time.usec": [head[1] for head in heads]}))  # fmt: skip
        out.stop()
        ours = self.path.read_bytes()
        self.assertEqual(golden[24:], ours[24:])
        self.assertEqual((golden[:16], golden[20:24]), (ours[:16], ours[20:24]))

    def test_tshark(self):
        """Both formats: tshark reads all packets, whatever their size, with times and lengths."""
        (tshark,) = require_program("tshark")
        for format_ in ("pcap", "pcapng"):
            self.path = Path(self.mktemp())
            several = packets(60)
            out = self.plugin(format=format_)
            out.write(raw(several, **{"oob_time.sec": list(range(60)), "oob_time.usec": [7] * 60}))
            out.stop()
            fields = [word for name in ("frame.time_epoch", "frame.len", "udp.srcport") for word in ("-e", name)]
            run = subprocess.run([tshark, "-n", "-r", self.path, "-T", "fields", *fields], capture_output=True,
                                 text=True, check=True, timeout=60)  # fmt: skip
            rows = [line.split("\t") for line in run.stdout.splitlines()]
            self.assertEqual(
                [(number + 7e-6, len(packet), number) for number, packet in enumerate(several)],
                [(float(time), int(size), int(port)) for time, size, port in rows],
            )

    def test_both_families(self):
        """Batches of one read, of two schemas, come into one order of times; what waits behind a full disk does too."""
        four = raw([b"E0", b"E2", b"E1"], **{"oob_time.sec": [10, 12, 11], "oob_time.usec": [0, 0, 0]})
        six = raw([b"`1", b"`3"], **{"oob_time.sec": [11, 13], "oob_time.usec": [5, 0], "ip6_payloadlen": [1, 1]})
        out = self.plugin()
        node = Node(out, "out", None)
        queue = OutputQueue(node, Pauses())
        node.receive(four)
        node.receive(six)
        self.assertEqual([], self.read())
        out.clock.advance(0)
        self.assertEqual([b"E0", b"`1", b"E2", b"E1", b"`3"], [packet for _, packet, _, _ in self.read()])
        self.assertTrue(queue.empty)
        self.assertEqual((5, 0, {}), (out.counters.rows_written, out.counters.rows_waiting, dict(out.counters.dropped)))
        node.receive(four)
        queue.close()
        self.assertEqual([3], [batch.n for batch in queue.left()])

    def test_one_time(self):
        """Packets that the kernel did not stamp have the time of their read: those stay as they came."""
        batch = raw([udp(*ENDS, (1, 53), b"a"), udp("2001:db8::1", "2001:db8::2", (2, 53), b"b")] * 3)
        (four, six), _ = through(("raw.pkt",), [(BASE, {})], [batch], ("raw.pkt", "raw.position"))
        out = self.plugin((*KEYS, "raw.position"))
        out.write_together([four, six])
        out.stop()
        self.assertEqual([4, 6] * 3, [packet[0] >> 4 for _, packet, _, _ in self.read()])

    def test_slices(self):
        """A large batch is put together in parts, and small parts are the same."""
        several = packets(500, 300)
        batch = raw(several, **{"oob_time.sec": [1] * 500, "oob_time.usec": [2] * 500})
        for format_ in ("pcap", "pcapng"):
            self.path = Path(self.mktemp())
            self.patch(pcap, "SLICE_OCTETS", 1000)
            out = self.plugin(format=format_)
            out.write(batch)
            out.stop()
            self.assertEqual([(1.000002, packet, len(packet), 101) for packet in several], self.read())

    def test_wire(self):
        """Octets on the wire: what the input says, else the header of IP; the time of output where there is none."""
        packet = ip(*ENDS, 17, bytes(100))[:50]
        out = self.plugin(("raw.pkt", "ip.totlen"))
        batch = raw([packet])
        batch = batch.select(["raw.pkt"]).with_columns({_key("ip.totlen"): np.array([120], np.uint16)})
        batch.now = 77.5
        out.write(batch)
        out.stop()
        self.assertEqual([(77.5, packet, 120, 101)], self.read())

    def test_links(self):
        """pcap: the first packet says of which link the file is, others are dropped and counted; pcapng takes all."""
        frames = [ethernet(packets(1)[0]), packets(1)[0], ethernet(packets(1)[0])]
        batch = raw(frames, raw_linktype=[1, 101, 1], **{"oob_time.sec": [1] * 3, "oob_time.usec": [0] * 3})
        for format_, expected in (("pcap", [1, 1]), ("pcapng", [1, 101, 1])):
            self.path = Path(self.mktemp())
            out = self.plugin((*KEYS, "raw.linktype"), format=format_)
            out.write(batch)
            out.write(batch)
            out.stop()
            self.assertEqual(expected * 2, [link for *_, link in self.read()])
            self.assertEqual(2 * (3 - len(expected)), out.counters.dropped["link"])

    def test_continued(self):
        """A file that is there is continued; one that is something else is refused before anything is written."""
        for format_ in ("pcap", "pcapng"):
            self.path = Path(self.mktemp())
            for number in range(2):
                out = self.plugin(format=format_)
                out.write(raw(packets(3), **{"oob_time.sec": [number] * 3, "oob_time.usec": [0] * 3}))
                out.stop()
            self.assertEqual([0.0] * 3 + [1.0] * 3, [time for time, *_ in self.read()])
        self.path = Path(self.mktemp())
        self.path.write_bytes(b"something else, of some length")
        error = self.assertRaises(StartError, self.plugin)
        self.assertIn("is not a pcap file", str(error))
        self.assertEqual(b"something else, of some length", self.path.read_bytes())

    def test_reopen(self):
        """SIGHUP: the file with the new name begins like a capture."""
        for format_ in ("pcap", "pcapng"):
            self.path = Path(self.mktemp())
            frame = ethernet(packets(1)[0])
            batch = raw([frame], raw_linktype=[1], **{"oob_time.sec": [1], "oob_time.usec": [0]})
            out = self.plugin((*KEYS, "raw.linktype"), format=format_)
            out.write(batch)
            rotated = self.path.with_suffix(".1")
            self.path.rename(rotated)
            out.reopen()
            out.write(batch)
            out.stop()
            self.assertEqual([(1.0, frame, len(frame), 1)], self.read())
            self.path = rotated
            self.assertEqual([(1.0, frame, len(frame), 1)], self.read())

    def test_full_disk(self):
        """A record that went out in part is taken back, and written whole when there is room."""
        real, left = os.write, [3000]

        def write(fd, octets):
            if not left[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            part = octets[: left[0]]
            left[0] -= len(part)
            return real(fd, part)

        for format_ in ("pcap", "pcapng"):
            self.path = Path(self.mktemp())
            several = packets(100)
            out = self.plugin(format=format_)
            left[0] = 3000
            self.patch(text.os, "write", write)
            done = out.write(raw(several, **{"oob_time.sec": [1] * 100, "oob_time.usec": [0] * 100}))
            self.assertNoResult(done)
            count = len(self.read())
            self.assertTrue(0 < count < 100)
            self.assertEqual([(1.0, packet, len(packet), 101) for packet in several[:count]], self.read())
            left[0] = 1 << 20
            out.clock.advance(2)
            self.assertIsNone(self.successResultOf(done))
            self.assertEqual(several, [packet for _, packet, *_ in self.read()])
            out.stop()


def _key(name):
    from ulogd_tw.core.keys import known

    return known(name)
