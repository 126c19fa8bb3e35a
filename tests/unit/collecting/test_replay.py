"""PCAPIN and IPFIXFILE: files into the same records as from sockets."""

import csv
import gzip
import json
import struct
from collections import Counter
from itertools import accumulate
from pathlib import Path

from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.work import calls
from tests.support import given, shared_path
from tests.unit.core.doubles import KEEP
from tests.unit.ipfix import test_corpus, test_netflow
from tests.unit.ipfix.test_corpus import canonical_rows
from tests.unit.ipfix.test_parking import TOLD
from tests.unit.ipfix.wire import COUNTER, a_set, counts, counts_of, message, without_layers, without_our_times
from tests.unit.packets.wire import block, ethernet, ip, pcap, pcapng, tcp, udp
from ulogd_tw.collecting import captured_streams
from ulogd_tw.collecting.captured_streams import GAP_SECONDS
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.core.stack import Builder, StackSpec
from ulogd_tw.ipfix.files import FileReader
from ulogd_tw.packets import reassembly
from ulogd_tw.plugins.filters.aggregate import AGGREGATE
from ulogd_tw.plugins.inputs.ipfixfile import IPFIXFILE
from ulogd_tw.plugins.inputs.pcapin import PCAPIN, speed


class Reactor(Clock):
    """A clock that can be stopped."""

    running = True

    def stop(self):
        self.running = False


class ReplayCase(SynchronousTestCase):
    """Files are read as fast as a clock is advanced."""

    def setUp(self):
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.reactor = Reactor()

    def file(self, octets, name="replay"):
        path = self.directory / name
        path.write_bytes(octets)
        return str(path)

    def make(self, class_, *paths, **options):
        """An input over these files, and the batches that it emits."""
        values = {"file": paths, "park": 0.0, "clock_skew": 0.0} | options
        plugin = class_("in1", Options(class_.all_options(), values))
        self.assertEqual([], list(plugin.mistakes()))
        plugin.wanted = ALL
        plugin.reactor = self.reactor
        self.batches = []
        plugin.emit = self.batches.append
        plugin.open()
        return plugin

    def run_all(self, plugin, seconds=10.0):
        plugin.begin()
        for _ in range(1000):
            if plugin._pieces is None:
                return plugin
            self.reactor.advance(seconds / 1000)
        raise AssertionError("it does not come to its end")

    def rows(self):
        return [row for batch in self.batches for row in batch.rows()]


class PcapTests(ReplayCase):
    """Captures of flow exports."""

    def replay(self, packets, link=101, **options):
        return self.run_all(self.make(PCAPIN, self.file(pcap(packets, link)), **options))

    def test_datagrams(self):
        """Sessions by sender and collector; the clock of the packets; other ports are not looked at."""
        ends = ("192.0.2.1", "198.51.100.1")
        sent = [
            (1000.5, udp(*ends, (5000, 4739), TOLD)),
            (1001.5, udp(*ends, (5000, 4739), counts(1))),
            (1002.5, udp(*ends, (5000, 4738), counts(2))),
            (1003.5, udp("2001:db8::1", "2001:db8::2", (6000, 2055), TOLD)),
            (1004.5, udp("2001:db8::1", "2001:db8::2", (6000, 2055), counts(3))),
        ]
        plugin = self.replay(sent)
        self.assertEqual(
            [(1, 5000, 1_001_500), (3, 6000, 1_004_500)],
            [(r["octetDeltaCount"], r["exporter_port"], r["received_ms"]) for r in self.rows()],
        )
        self.assertTrue(all(batch.held for batch in self.batches))
        self.assertEqual((5, 4), (plugin.counters.figures["packets_read"], plugin.counters.messages_received))

    def test_links(self):
        """Ethernet with and without tags, Linux cooked, loopback and raw IP; others are counted."""
        packets = [udp("192.0.2.1", "198.51.100.1", (5000, 4739), octets) for octets in (TOLD, counts(7))]
        cooked = struct.pack("!HHH8sH", 0, 1, 6, bytes(8), 0x800)
        cooked2 = struct.pack("!HHIHBB8s", 0x800, 0, 1, 1, 0, 6, bytes(8))
        for link, front in ((1, None), (113, cooked), (276, cooked2), (0, struct.pack("<I", 2)), (12, b"")):
            framed = [ethernet(p) if front is None else front + p for p in packets]
            self.replay([(1.0, p) for p in framed], link)
            self.assertEqual([7], counts_of(self.rows()), link)
        self.replay([(1.0, ethernet(p, b"\x81\0\0\5")) for p in packets], 1)
        self.assertEqual([7], counts_of(self.rows()))
        plugin = self.replay([(1.0, packets[0])], 147)
        self.assertEqual({"link": 1}, dict(plugin.counters.errors))

    def test_fragments(self):
        """A datagram in pieces, in any order, of IPv4 and IPv6."""
        values = range(500)
        octets = struct.pack("!HHHH", 5000, 4739, 8 + len(counts(*values)), 0) + counts(*values)
        four = [ip("192.0.2.1", "198.51.100.1", 17, octets[at : at + 800], at // 8 | 0x2000 * (at + 800 < len(octets)))
                for at in range(0, len(octets), 800)]  # fmt: skip
        six = [ip("2001:db8::1", "2001:db8::2", 44, struct.pack("!BBHI", 17, 0, at | (at + 800 < len(octets)), 9)
                  + octets[at : at + 800]) for at in range(0, len(octets), 800)]  # fmt: skip
        for pieces, ends in ((four, ("192.0.2.1", "198.51.100.1")), (six, ("2001:db8::1", "2001:db8::2"))):
            told = udp(*ends, (5000, 4739), TOLD)
            self.replay([(1.0, p) for p in (told, *reversed(pieces))])
            self.assertEqual(list(values), counts_of(self.rows()))

    def test_tcp(self):
        """A connection in order, repeated and turned round; its end, and another one with the same ports."""
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        stream = TOLD + counts(1, 2) + counts(3, number=2)
        segments = [(at, stream[at : at + 13]) for at in range(0, len(stream), 13)]
        segments[1], segments[2] = segments[2], segments[1]
        packets = [tcp(*ends, 99, flags=2), *(tcp(*ends, 100 + at, octets) for at, octets in segments)]
        packets += [packets[2], tcp(*ends, 100 + len(stream), flags=0x11)]
        again = [tcp(*ends, 5000, flags=2), tcp(*ends, 5001, counts(9)), tcp(*ends, 5001 + 24, TOLD[:10])]
        plugin = self.replay([(1.0, p) for p in packets + again])
        self.assertEqual([1, 2, 3], counts_of(self.rows()))
        # The second connection has no template, and ends in the middle of a message.
        self.assertEqual({"no_template": 1, "cut": 1}, dict(plugin.counters.errors))

    def test_forms(self):
        """pcap, pcapng and gzip of the same packets; several files in their order."""
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        packets = [(1.0, udp(*ends, TOLD)), (2.0, udp(*ends, counts(7)))]
        for octets in (pcap(packets), pcap(packets, order=">", nanoseconds=True), pcapng(packets), gzip.compress(
                pcapng(packets, order=">", resolution=9))):  # fmt: skip
            self.run_all(self.make(PCAPIN, self.file(octets)))
            self.assertEqual([7], counts_of(self.rows()))
        self.file(pcap(packets[:1]), "b1")
        self.file(pcap(packets[1:]), "b2")
        plugin = self.run_all(self.make(PCAPIN, str(self.directory / "b*")))
        self.assertEqual(([7], 2), (counts_of(self.rows()), plugin.counters.figures["files_read"]))

    def test_damaged(self):
        """What stands before the damage is read; it is counted, and the next file goes on."""
        packets = [(1.0, udp("192.0.2.1", "198.51.100.1", (5000, 4739), o)) for o in (TOLD, counts(7))]
        whole = pcap(packets)
        plugin = self.run_all(self.make(PCAPIN, self.file(whole[:-1], "a"), self.file(b"nonsense" * 9, "b"),
                                        self.file(gzip.compress(whole)[:-9], "c"), self.file(whole, "d")))  # fmt: skip
        errors = plugin.counters.errors
        self.assertEqual((2, 1), (errors["capture"], errors["file"]))
        self.assertEqual([7, 7], counts_of(self.rows())[-2:])

    def test_damaged_gzip(self):
        """Wherever a file of gzip is damaged, it is counted and the next one is read."""
        whole = pcap([(1.0, udp("192.0.2.1", "198.51.100.1", (5000, 4739), o)) for o in (TOLD, counts(7))])
        packed = gzip.compress(whole)
        for place in range(2, len(packed)):
            broken = packed[:place] + bytes([packed[place] ^ 0xFF]) + packed[place + 1 :]
            plugin = self.run_all(self.make(PCAPIN, self.file(broken, "a"), self.file(whole, "b")))
            self.assertEqual(2, plugin.counters.figures["files_read"], place)
            self.assertEqual([7], counts_of(self.rows())[-1:], place)
            errors = plugin.counters.errors
            self.assertTrue(errors["file"] or errors["capture"] or place < 10, place)  # the head has times and names

    def test_connection_ends_with_its_file(self):
        """What a damaged file has begun does not go on in the next one, and is counted."""
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        octets = TOLD + counts(1) + counts(2, number=1)
        size = len(TOLD) + 30
        first = pcap([(1.0, tcp(*ends, 100, octets[:size]))])
        second = pcap([(2.0, tcp(*ends, 100 + size, octets[size:]))])
        wrong = first + bytes(8) + b"\xff" * 8
        plugin = self.run_all(self.make(PCAPIN, self.file(wrong, "a"), self.file(second, "b")))
        self.assertEqual([1], counts_of(self.rows()))
        self.assertEqual((1, 1), (plugin.counters.errors["capture"], plugin.counters.errors["cut"]))

    def test_impossible_times(self):
        """Packets whose time cannot be are read by the clock of those before, and nobody waits for them."""
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        section = block("<", 0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        parts = [section]
        parts += [block("<", 1, struct.pack("<HHI", 101, 0, 0) + struct.pack("<HHqHH", 14, 8, offset, 0, 0))
                  for offset in (2**62, 0)]  # fmt: skip
        for interface, octets in ((0, TOLD), (1, counts(1)), (0, counts(2, number=1)), (1, counts(3, number=2))):
            packet = udp(*ends, octets)
            head = struct.pack("<IIIII", interface, 0, 5_000_000, len(packet), len(packet))
            parts.append(block("<", 6, head + packet))
        for how in ("max", "real"):
            plugin = self.run_all(self.make(PCAPIN, self.file(b"".join(parts)), speed=how))
            self.assertEqual([(1, 5000), (2, 5000), (3, 5000)],
                             [(row["octetDeltaCount"], row["received_ms"]) for row in self.rows()])  # fmt: skip
            self.assertEqual({}, dict(plugin.counters.errors))

    def test_missing_file(self):
        """The stack does not start, and the message names the file."""
        error = self.assertRaises(StartError, self.make, PCAPIN, str(self.directory / "nothing"))
        self.assertIn("nothing: No such file", str(error))

    def test_speed(self):
        """real: as long as the capture took; 4: a quarter of that."""
        self.assertEqual([0.0, 1.0, 2.5], [speed("max"), speed("real"), speed("2.5")])
        for text in ("fast", "0", "-1", "nan", "inf"):
            self.assertRaises(ValueError, speed, text)

    def test_exit(self):
        """exit=1: the service is told once that the input is at its end."""
        packets = pcap([(1.0, udp("192.0.2.1", "198.51.100.1", (5000, 4739), TOLD))])
        for exits in (True, False):
            plugin, told = self.make(PCAPIN, self.file(packets), exit=exits), []
            plugin.ended = lambda plugin=plugin, told=told: told.append(plugin.at_end)
            self.run_all(plugin)
            self.reactor.advance(1)
            self.assertEqual([True] * exits, told)

    def test_pause(self):
        """A full queue below: nothing is read until there is room."""
        told = udp("192.0.2.1", "198.51.100.1", (5000, 4739), TOLD)
        data = [(2.0, udp("192.0.2.1", "198.51.100.1", (5000, 4739), counts(n, number=n))) for n in range(3000)]
        plugin = self.make(PCAPIN, self.file(pcap([(1.0, told), *data])))
        plugin.emit = lambda batch: (self.batches.append(batch), plugin.pause())
        plugin.begin()
        self.reactor.advance(1)
        before = len(self.rows())
        self.assertLess(before, 3000)
        self.reactor.advance(1)
        self.assertEqual(before, len(self.rows()))
        plugin.emit = self.batches.append
        plugin.resume()
        for _ in range(100):
            self.reactor.advance(0.1)
        self.assertEqual(list(range(3000)), counts_of(self.rows()))

    def test_intervals(self):
        """An AGGREGATE below counts by the capture's clock, and the wall clock closes nothing before the end."""
        classes = {c.name: c for c in (PCAPIN, AGGREGATE, KEEP)}
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        sent = [(600.0, udp(*ends, TOLD))]
        sent += [(600.0 + 20 * n, udp(*ends, counts(1, number=n))) for n in range(10)]
        options = {"PCAPIN": {"file": (self.file(pcap(sent)),), "clock_skew": 0.0}, "AGGREGATE": {"key": "exporter"}}

        def read(instance, class_):
            return Options(class_.all_options(), options.get(class_.name, {})), []

        builder = Builder(lambda name, position: classes[name], read)
        graph = builder.build([StackSpec("s", "t:1", (("in", "PCAPIN"), ("agg", "AGGREGATE"), ("out", "KEEP")))])
        self.assertEqual([], builder.mistakes)
        source, aggregate, keep = (graph.instances[name] for name in ("in", "agg", "out"))
        source.reactor = self.reactor
        source.open()
        source.begin()
        while source._pieces is not None:
            aggregate.wake(2e9)
            self.reactor.advance(0.1)
        self.assertTrue(aggregate.holds)
        for _ in range(10):
            aggregate.wake(0.0)
        self.assertFalse(aggregate.holds)
        rows = [row for batch in keep.batches for row in batch.rows()]
        self.assertEqual([(600, 3), (660, 3), (720, 3), (780, 1)],
                         [(row["interval_start"], row["octets"]) for row in rows])  # fmt: skip


class ConnectionTests(ReplayCase):
    """TCP connections of which the capture does not have everything."""

    ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
    parts = (TOLD, *(counts(n, number=n) for n in range(50)))

    def segments(self):
        """A SYN, and each message in a segment."""
        found, at = [tcp(*self.ends, 999, flags=2)], 1000
        for part in self.parts:
            found.append(tcp(*self.ends, at, part))
            at += len(part)
        return found

    def replay(self, packets, **options):
        return self.run_all(self.make(PCAPIN, self.file(pcap(packets)), **options))

    def test_lost_segment(self):
        """What the capture has missed is counted once; all before and behind it is there, with its own time."""
        for closed in ([], [(70.0, tcp(*self.ends, 1000 + len(b"".join(self.parts)), flags=0x11))]):
            packets = [(1.0 + number, one) for number, one in enumerate(self.segments()) if number != 11]
            plugin = self.replay(packets + closed)
            self.assertEqual([n for n in range(50) if n != 9], counts_of(self.rows()))
            self.assertEqual({"segments_missing": 1}, dict(plugin.counters.errors))
            self.assertEqual({"sequence": 1}, dict(plugin.counters.lost))
            late = [row["received_ms"] / 1000 - (3 + row["octetDeltaCount"]) for row in self.rows()]
            self.assertLessEqual(max(late), GAP_SECONDS + 1)

    @given(st.integers(5, 50), st.integers(1, 20), st.integers(1, 3))
    def test_lost_octets(self, size, first, lost):
        """Messages of which something is missing are left out, wherever the gap begins and ends; no other is."""
        whole, at = b"".join(self.parts), list(accumulate(map(len, self.parts), initial=0))
        begin, end = len(TOLD) + size * first, len(TOLD) + size * (first + lost)
        packets = [tcp(*self.ends, 999, flags=2), tcp(*self.ends, 1000, whole[:begin])]
        packets += [tcp(*self.ends, 1000 + n, whole[n : n + size]) for n in range(end, len(whole), size)]
        plugin = self.replay([(1.0, one) for one in packets])
        expected = [n for n in range(50) if at[n + 2] <= begin or at[n + 1] >= end]
        self.assertEqual(expected, counts_of(self.rows()))
        self.assertEqual({"segments_missing": 1}, dict(plugin.counters.errors))
        read = sum(len(self.parts[n + 1]) for n in (-1, *expected))
        self.assertEqual(len(whole) - (end - begin) - read, plugin.counters.figures["octets_skipped"])

    def test_lost_at_the_end(self):
        """A gap that the connection ends with, or the file, is counted too, and so is what it ends within."""
        packets = [(1.0, one) for number, one in enumerate(self.segments()) if number != 50]
        packets[-1] = (1.0, packets[-1][1][:20] + packets[-1][1][20:-3])
        plugin = self.replay(packets)
        self.assertEqual(list(range(48)), counts_of(self.rows()))
        self.assertEqual({"segments_missing": 1, "cut": 1}, dict(plugin.counters.errors))

    @given(st.integers(1, 40), st.integers(0, 60))
    def test_begins_within(self, size, skipped):
        """A connection that is older than the capture is read from the first message that begins in it."""
        whole = TOLD * 2 + b"".join(self.parts[1:])
        packets = [tcp(*self.ends, at, whole[at : at + size]) for at in range(skipped, len(whole), size)]
        plugin = self.replay([(1.0, one) for one in packets])
        if skipped <= len(TOLD):
            self.assertEqual(list(range(50)), counts_of(self.rows()))
            missed = (len(TOLD) - skipped) % len(TOLD)
            self.assertEqual(missed, plugin.counters.figures["octets_skipped"])
            self.assertEqual({}, dict(plugin.counters.errors))

    def test_files(self):
        """A connection goes on in the next file, and a SYN that was captured twice begins no other one."""
        packets = self.segments()
        one, two = self.file(pcap([(1.0, o) for o in packets[:20]]), "1"), self.file(
            pcap([(2.0, packets[0]), *((2.0, o) for o in packets[20:])]), "2")  # fmt: skip
        plugin = self.run_all(self.make(PCAPIN, one, two))
        self.assertEqual(list(range(50)), counts_of(self.rows()))
        self.assertEqual({}, dict(plugin.counters.errors))

    def test_other_connection(self):
        """The same ports again, without a SYN and far away: a session of its own."""
        for sequence in (1_000_000_000, 3_000_000_000):
            packets = [(1.0, tcp(*self.ends, sequence, TOLD)), (2.0, tcp(*self.ends, 1000, counts(1)))]
            plugin = self.replay(packets)
            self.assertEqual({"no_template": 1}, dict(plugin.counters.errors))

    def test_bounds(self):
        """Octets that wait are bounded for a connection and for all; so are connections, and silent ones end."""
        self.patch(reassembly, "MOST_HELD", 1000)
        packets = [(1.0, one) for number, one in enumerate(self.segments()) if number != 11]
        plugin = self.make(PCAPIN, self.file(pcap(packets)))
        take, most = plugin._connections.take, []
        plugin._connections.take = lambda sent: (take(sent), most.append(plugin._connections.held.octets))[0]
        self.run_all(plugin)
        self.assertEqual(49, len(self.rows()))
        self.assertTrue(0 < max(most) <= 1000, max(most))
        self.assertEqual(0, plugin._connections.held.octets)
        many = [(1.0, tcp("192.0.2.1", "198.51.100.1", (port, 4739), 1, TOLD)) for port in range(1, 6)]
        plugin = self.replay(many, max_sessions=3)
        self.assertEqual({"limit_sessions": 2}, dict(plugin.counters.errors))
        later = 1.0 + captured_streams.IDLE_SECONDS
        with_silence = [many[:2], [(later, udp(*self.ends, b""))], [(later, many[3][1])]]
        files = [self.file(pcap(packets), str(number)) for number, packets in enumerate(with_silence)]
        plugin = self.run_all(self.make(PCAPIN, *files, max_sessions=3))
        self.assertEqual(0, plugin.counters.errors["limit_sessions"])
        self.assertEqual(4, plugin.counters.messages_received)


class DamageTests(ReplayCase):
    """Captures with anything in them."""

    def capture(self, form):
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        octets = struct.pack("!HHHH", 5000, 4739, 8 + len(counts(*range(100))), 0) + counts(*range(100))
        packets = [
            udp(*ends, TOLD), udp(*ends, counts(1)),
            ip(*ends[:2], 17, octets[:400], 0x2000), ip(*ends[:2], 17, octets[400:], 50),
            tcp(*ends, 1, flags=2), tcp(*ends, 2, TOLD), tcp(*ends, 2 + len(TOLD), counts(5)),
            udp("2001:db8::1", "2001:db8::2", (1, 2055), b"x"),
        ]  # fmt: skip
        framed = [ethernet(one) for one in packets]
        return form([(1.0 + number, one) for number, one in enumerate(framed)], 1)

    @given(st.sampled_from((pcap, pcapng)), st.data())
    def test_cut(self, form, data):
        """A capture that is cut anywhere gives the records of the packets before that."""
        octets = self.capture(form)
        size = data.draw(st.integers(0, len(octets)))
        self.run_all(self.make(PCAPIN, self.file(octets)))
        whole = [(row["octetDeltaCount"], row["received_ms"]) for row in self.rows()]
        self.assertEqual(1 + 100 + 1, len(whole))
        plugin = self.run_all(self.make(PCAPIN, self.file(octets[:size])))
        rows = [(row["octetDeltaCount"], row["received_ms"]) for row in self.rows()]
        self.assertEqual(whole[: len(rows)], rows)
        self.assertEqual(
            sum(time < 1000 * (1 + plugin.counters.figures["packets_read"]) for _, time in whole), len(rows)
        )

    @given(st.sampled_from((pcap, pcapng)), st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1))))
    def test_garbage(self, form, places):
        """Whatever octets are changed: nothing raises (the double of `fault` would), and the file comes to its end."""
        octets = bytearray(self.capture(form))
        for place, wrong in places:
            place %= len(octets)
            octets[place : place + len(wrong)] = wrong
        plugin = self.run_all(self.make(PCAPIN, self.file(bytes(octets))))
        self.rows()
        self.assertEqual(1, plugin.counters.figures["files_read"])

    @given(st.binary(max_size=300))
    def test_payload(self, octets):
        """Whatever the packets carry, over UDP and TCP."""
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        packets = [udp(*ends, octets), tcp(*ends, 1, flags=2), tcp(*ends, 2, octets), tcp(*ends, 2 + len(octets), TOLD)]
        self.run_all(self.make(PCAPIN, self.file(pcap([(1.0, one) for one in packets]))))


class ClockTests(ReplayCase):
    """The clock of files."""

    def test_earlier_file(self):
        """A file of an earlier time than the one before it has its own times, in AGGREGATE too."""
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        late = pcap([(5000.0, udp(*ends, TOLD)), (5001.0, udp(*ends, counts(1)))])
        early = pcap([(100.0, udp(*ends, counts(2, number=1))), (99.9, udp(*ends, counts(3, number=2)))])
        self.run_all(self.make(PCAPIN, self.file(late, "1"), self.file(early, "2")))
        rows = [(row["octetDeltaCount"], row["received_ms"]) for row in self.rows()]
        self.assertEqual([(1, 5_001_000), (2, 100_000), (3, 100_000)], rows)
        self.assertEqual([5001.0, 100.0], [batch.now for batch in self.batches])

    def test_no_time(self):
        """Packets without a time have that of the one before them."""
        ends = ("192.0.2.1", "198.51.100.1", (5000, 4739))
        simple = udp(*ends, counts(7))
        octets = pcapng([(9000.0, udp(*ends, TOLD))]) + block("<", 3, struct.pack("<I", len(simple)) + simple)
        self.run_all(self.make(PCAPIN, self.file(octets)))
        self.assertEqual([9_000_000], [row["received_ms"] for row in self.rows()])


class CorpusTests(ReplayCase):
    """Every case of the corpus as a capture, the originals that are captures, and those that are files."""

    def cases(self, transport):
        for path in sorted(shared_path("corpus", "ipfix", "oracle").glob("*.json")):
            oracle = json.loads(path.read_text())
            lines = shared_path("corpus", "ipfix", "messages", path.name + "l").read_text().splitlines()
            messages = [json.loads(line) for line in lines]
            if messages[0]["transport"] == transport:
                yield oracle, messages

    def compare(self, oracle, messages):
        """The records of the reference decode, each by value; sFlow by the numbers in the reference's outline."""
        case, packets = oracle["case"], [bytes.fromhex(one["hex"]) for one in messages]
        if oracle["protocol"] == "sflow5":
            samples = [(d["sub_agent"], s["format"], s.get("sampling_rate"), s.get("sample_pool"))
                       for d in oracle["datagrams"] for s in d["samples"]]  # fmt: skip
            rows = [(row["observationDomainId"], row["templateId"], row.get("samplingInterval"), row.get("samplePool"))
                    for row in self.rows() if "sampleSequence" in row]  # fmt: skip
            self.assertEqual(Counter(samples), Counter(rows), case)
            return
        found = Counter(row for batch in self.batches for row in canonical_rows(batch))
        if oracle["protocol"] == "ipfix":
            expected = Counter(row for _, row in test_corpus.reference(oracle))
        else:
            expected = Counter(row for _, row in test_netflow.reference(oracle, packets))
        found, expected = without_layers(without_our_times(found, expected)), without_layers(expected)
        self.assertEqual((Counter(), Counter()), (found - expected, expected - found), case)
        self.assertEqual(oracle["record_count"], found.total(), case)

    def test_datagrams(self):
        """Those that came over UDP."""
        cases = 0
        for oracle, messages in self.cases("udp"):
            sent = []
            for number, one in enumerate(messages):
                destination = "2001:db8::9" if ":" in one["src"] else "198.51.100.9"
                packet = udp(one["src"], destination, (one["sport"], 4739), bytes.fromhex(one["hex"]))
                sent.append((1000.0 + number, packet))
            form = (pcap, pcapng)[cases % 2]
            self.run_all(self.make(PCAPIN, self.file(form(sent)), session_key="strict"))
            self.compare(oracle, messages)
            cases += 1
        self.assertEqual(113, cases)

    def test_streams(self):
        """Cases of IPFIX over TCP, in segments of an odd size that lie across the messages."""
        cases = 0
        for oracle, messages in self.cases("udp"):
            if oracle["protocol"] != "ipfix" or oracle["malformed_messages"] or oracle["withdrawals"]:
                continue
            if any(int(one["hex"][4:8], 16) * 2 != len(one["hex"]) for one in messages):
                continue  # a datagram with octets behind its message
            sent, reassembly = [], {}
            for one in messages:
                reassembly.setdefault((one["src"], one["sport"]), bytearray()).extend(bytes.fromhex(one["hex"]))
            for (source, port), octets in reassembly.items():
                ends = (source, "2001:db8::9" if ":" in source else "198.51.100.9", (port, 4739))
                sent.append(tcp(*ends, 2**32 - 500, flags=2))
                for at in range(0, len(octets), 777):
                    sent.append(tcp(*ends, 2**32 - 499 + at, bytes(octets[at : at + 777])))
            self.run_all(self.make(PCAPIN, self.file(pcap([(1.0, one) for one in sent]))))
            self.compare(oracle, messages)
            cases += 1
        self.assertGreater(cases, 20)

    def test_captures(self):
        """The captures that the cases were taken from, as their projects have them."""
        with shared_path("corpus", "ipfix", "manifest.csv").open() as file:
            lines = {line["case"]: line["files"].split() for line in csv.DictReader(file)}
        ports, cases = tuple(map(str, range(1, 65536))), 0
        for oracle, messages in self.cases("udp"):
            files = [name for name in lines[oracle["case"]] if name.endswith((".pcap", ".pcapng"))]
            if len(files) != len(lines[oracle["case"]]):
                continue
            paths = [str(shared_path("corpus", "ipfix", *name.split("/"))) for name in files]
            self.run_all(self.make(PCAPIN, *paths, ports=ports, session_key="strict"))
            self.compare(oracle, messages)
            cases += 1
        self.assertGreater(cases, 40)

    def test_files(self):
        """Those that are files of IPFIX."""
        cases = 0
        for oracle, messages in self.cases("file"):
            octets = b"".join(bytes.fromhex(one["hex"]) for one in messages)
            plugin = self.run_all(self.make(IPFIXFILE, self.file(octets)))
            self.compare(oracle, messages)
            self.assertEqual(0, plugin.counters.errors["damaged"], oracle["case"])
            cases += 1
        self.assertEqual(7, cases)


class IpfixFileTests(ReplayCase):
    """Files of RFC 5655."""

    def read(self, *files, **options):
        paths = [self.file(octets, f"f{number}") for number, octets in enumerate(files)]
        return self.run_all(self.make(IPFIXFILE, *paths, **options))

    def test_messages(self):
        """FI-1: Messages one after another; the clock is the Export Time; withdrawals count."""
        withdrawal = message(a_set(2, struct.pack("!HH", 256, 0)), number=2)
        octets = TOLD + counts(1, 2, export_time=5000) + withdrawal + counts(3, number=2)
        plugin = self.read(octets)
        self.assertEqual([1, 2], counts_of(self.rows()))
        self.assertEqual([5_000_000] * 2, [row["received_ms"] for row in self.rows()])
        self.assertEqual({"no_template": 1}, dict(plugin.counters.errors))

    def test_sessions(self):
        """The templates of a file are its own."""
        plugin = self.read(TOLD + counts(1), counts(2))
        self.assertEqual([1], counts_of(self.rows()))
        self.assertEqual({"no_template": 1}, dict(plugin.counters.errors))

    @given(st.data())
    def test_cut(self, data):
        """FI-3: a last Message that is cut is left out, counted and said; all before it are there."""
        parts = [TOLD, *(counts(n, number=n) for n in range(5))]
        whole = b"".join(parts)
        size = data.draw(st.integers(0, len(whole)))
        edges = [sum(map(len, parts[:n])) for n in range(len(parts) + 1)]
        plugin = self.read(whole[:size])
        n = sum(edge <= size for edge in edges[1:])
        self.assertEqual(list(range(max(n - 1, 0))), counts_of(self.rows()))
        self.assertEqual({"cut": 1} if size not in edges else {}, dict(plugin.counters.errors))

    @given(st.lists(st.tuples(st.integers(1, 8), st.binary(min_size=1, max_size=40)), min_size=1, max_size=3))
    def test_damage(self, places):
        """FI-4: octets between Messages are passed over and counted; every Message that is whole is read."""
        parts = [TOLD, *(counts(n, number=n) for n in range(9))]
        garbage = 0
        for place, octets in sorted(places, reverse=True):
            octets = octets.replace(b"\0\x0a", b"xx").replace(b"\0", b"x")
            parts.insert(place, octets)
            garbage += len(octets)
        plugin = self.read(b"".join(parts))
        self.assertEqual(list(range(9)), counts_of(self.rows()))
        self.assertEqual(garbage, plugin.counters.figures["octets_skipped"])

    def test_ends_with_garbage(self):
        """Octets at the end that begin no Message are passed over, and no Message is cut."""
        plugin = self.read(TOLD + counts(1) + b"nonsense" * 5, TOLD + counts(2) + b"nonsense" * 5 + b"\0\x0a")
        self.assertEqual([1, 2], counts_of(self.rows()))
        self.assertEqual({"damaged": 2}, dict(plugin.counters.errors))
        self.assertEqual(40 + 42, plugin.counters.figures["octets_skipped"])

    def test_wrong_length(self):
        """A Message whose length is too large swallows the next one or two, and then it goes on."""
        wrong = bytearray(counts(1))
        wrong[2:4] = struct.pack("!H", 60000)
        plugin = self.read(TOLD + counts(0) + bytes(wrong) + counts(2, number=2) + counts(3, number=3))
        self.assertEqual([0, 2, 3], counts_of(self.rows()))
        self.assertEqual(1, plugin.counters.errors["damaged"])

    def test_work(self):
        """Octets that look like the begin of a Message at many places cost as much as others."""
        unit = struct.pack("!HH", 300, 20) + struct.pack("!HHIII", 10, 16 + 20 * 3000 + 8, 1000, 1, 1)
        reader, octets = FileReader(), b"junk" + 6000 * unit
        self.assertLess(calls(reader.feed, octets) + calls(reader.finish), 5 * len(octets))

    def test_malformed(self):
        """A Message whose Sets are wrong is dropped alone."""
        plugin = self.read(TOLD + message(struct.pack("!HH", 256, 3), bytes(4)) + counts(1))
        self.assertEqual([1], counts_of(self.rows()))
        self.assertEqual(1, plugin.counters.errors["set_length"])

    def test_pattern(self):
        """gzip, and many files by a pattern, in the order of their names."""
        for number in (2, 1, 3):
            octets = message(a_set(2, COUNTER)) + counts(number)
            self.file(gzip.compress(octets) if number == 1 else octets, f"x{number}")
        self.run_all(self.make(IPFIXFILE, str(self.directory / "x*")))
        self.assertEqual([1, 2, 3], counts_of(self.rows()))
