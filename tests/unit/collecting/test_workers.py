"""Workers of a COLLECTOR, seen from the service: messages, counters, the choice of a socket, what each knows."""

import pickle
import socket
import struct

from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.core.doubles import KEEP
from ulogd_tw.collecting.workers.link import Line, Link
from ulogd_tw.collecting.workers.pool import Pool
from ulogd_tw.collecting.workers.sockets import SharedSockets, program, share
from ulogd_tw.collecting.workers.totals import Totals
from ulogd_tw.core.graph import Node
from ulogd_tw.plugins.inputs.collector import COLLECTOR


class Transport:
    """Keeps what is written."""

    def __init__(self):
        self.octets = b""

    def writeSequence(self, pieces):
        self.octets += b"".join(pieces)

    def pauseProducing(self):
        pass

    def resumeProducing(self):
        pass


class LinkTests(SynchronousTestCase):
    """Messages behind their lengths."""

    @given(st.lists(st.text(max_size=300), max_size=20), st.data())
    def test_any_cut(self, texts, data):
        """Octets may come in any pieces; messages come whole, in order, and before the end."""
        sender, clock, found = Link(Clock(), None, None), Clock(), []
        sender.makeConnection(Transport())
        for text in texts:
            sender.send(Line("info", text))
        octets = sender.transport.octets
        cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=10)))
        receiver = Link(clock, found.append, lambda: found.append("lost"))
        receiver.makeConnection(Transport())
        for first, last in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            receiver.dataReceived(octets[first:last])
        receiver.connectionLost()
        clock.pump([0.1] * 30)
        self.assertEqual([*(Line("info", text) for text in texts), "lost"], found)

    def test_turns(self):
        """Messages that take long leave the reactor its turns."""
        clock, found = Clock(), []

        def slow(message):
            found.append(message)
            clock.rightNow += 0.015

        octets = b"".join(struct.pack("<Q", len(p)) + p for p in map(pickle.dumps, range(5)))
        link = Link(clock, slow, lambda: found.append("lost"))
        link.makeConnection(Transport())
        link.dataReceived(octets)
        link.connectionLost()
        self.assertEqual([0, 1], found)
        clock.pump([0] * 3)
        self.assertEqual([0, 1, 2, 3, 4, "lost"], found)


def run(octets, packet):
    """What instructions of classic BPF return for an IP packet: those that `program` uses, by their codes."""
    a = x = 0
    for code, _, _, k in struct.iter_unpack("=HBBI", octets):
        if code == 0x20:  # ld [k]
            at = k - 2**32 + 0x100000
            (a,) = struct.unpack_from("!I", packet, at)
        elif code == 0x07:  # tax
            x = a
        elif code == 0xAC:  # xor x
            a ^= x
        elif code == 0xA4:  # xor #k
            a ^= k
        elif code == 0x24:  # mul #k
            a = a * k & 0xFFFFFFFF
        elif code == 0x74:  # rsh #k
            a >>= k
        elif code == 0x94:  # mod #k
            a %= k
        elif code == 0x16:  # ret a
            return a
        else:
            raise AssertionError(f"code {code:#x}")
    raise AssertionError("no end")


class ChoiceTests(SynchronousTestCase):
    """Which socket a sender has."""

    @given(st.ip_addresses(), st.integers(1, 64))
    def test_program(self, address, count):
        """The kernel's program and `share` choose alike."""
        family, head = (socket.AF_INET, bytes(12)) if address.version == 4 else (socket.AF_INET6, bytes(8))
        packet = head + address.packed + bytes(16)
        self.assertEqual(run(program(count, family), packet), share(str(address), count))

    @given(st.ip_addresses(v=4), st.integers(1, 64))
    def test_mapped(self, address, count):
        """An IPv4 address has the same socket when it comes in an IPv6 packet."""
        self.assertEqual(share(str(address), count), share(f"::ffff:{address}", count))

    def test_spread(self):
        """Neighbours, and addresses that differ in any one bit, are spread evenly."""
        for count in (2, 3, 8):
            for group in (
                [f"10.0.{i // 256}.{i % 256}" for i in range(1024)],
                [f"2001:db8:{i:x}::1" for i in range(1024)],
                [f"10.{i % 256}.{i // 256}.1" for i in range(1024)],
            ):
                numbers = [share(address, count) for address in group]
                for number in range(count):
                    self.assertLess(abs(numbers.count(number) / 1024 - 1 / count), 0.05, (count, group[1]))


class KnownTests(SynchronousTestCase):
    """What a worker is told of exporters."""

    def known(self, workers, parts, before):
        """(worker, peer, whether a number is known) of each line that a worker gets."""
        pool = Pool("col1", None, lambda ident: None, Clock(), None, None)
        pool.sockets = sockets = SharedSockets(workers, 0)
        sockets.parts, sockets.parts_before = parts, before
        peers = [f"192.0.2.{i}" for i in range(64)]
        pool.known = [
            line for peer in peers for line in ({"peer": peer}, {"domain": 1, "expected": 5}, {"template": 256})
        ]
        found = []
        for number in range(workers):
            lines = pool.known_by(number)
            found += [(number, lines[i]["peer"], "expected" in lines[i + 1]) for i in range(0, len(lines), 3)]
        return found

    def test_same_number(self):
        """Each exporter is known to one worker, with its Sequence Number."""
        found = self.known(3, 3, 3)
        self.assertEqual(
            [(share(f"192.0.2.{i}", 3), True) for i in range(64)],
            [(n, k) for n, _, k in sorted(found, key=lambda one: int(one[1].rpartition(".")[2]))],
        )

    def test_fewer(self):
        """Two workers read three sockets: each exporter stays in its socket."""
        found = self.known(2, 3, 3)
        self.assertEqual(64, len(found))
        self.assertEqual({(share(peer, 3) % 2) for _, peer, _ in found}, {0, 1})
        self.assertTrue(all(number == share(peer, 3) % 2 and known for number, peer, known in found))

    def test_more(self):
        """Where an exporter gets another socket, the old one's worker has its number, and the new one the templates."""
        found = self.known(2, 2, 1)
        moved = [peer for number, peer, known in found if not known]
        self.assertEqual({f"192.0.2.{i}" for i in range(64) if share(f"192.0.2.{i}", 2) == 1}, set(moved))
        self.assertEqual({(0, True)}, {(number, known) for number, _, known in found if number == 0})


class TotalsTests(SynchronousTestCase):
    """Counters of workers in those of the service."""

    def setUp(self):
        self.collector, self.output = Node(COLLECTOR("col1"), "col1", None), Node(KEEP("keep"), "keep", None)
        self.totals = Totals({"col1": self.collector, "keep": self.output}.get)
        self.figures = self.collector.plugin.counters

    def told(self, worker, rows, **more):
        """A worker tells its numbers."""
        twin = COLLECTOR("col1")
        twin.counters.rows_received = twin.counters.rows_emitted = rows
        for name, value in more.items():
            twin.counters.figures[name] = value
        self.totals.take(worker, {"col1": twin.counters.as_dict()})

    def test_sums(self):
        """Numbers and reasons grow by what each worker adds; a new worker begins at 0."""
        self.told(0, 5)
        self.told(1, 7)
        self.told(0, 9)
        self.assertEqual(16, self.figures.rows_received)
        self.totals.forget(0)
        self.told(0, 3)
        self.assertEqual((19, 19), (self.figures.rows_received, self.figures.rows_emitted))

    def test_figures(self):
        """Gauges are those of the workers that are there, counts of the dead stay, the smallest buffer counts."""
        self.told(0, 0, sessions=4, datagrams_lost=10, log_lines_left_out=1, receive_buffer_octets=8)
        self.told(1, 0, sessions=5, datagrams_lost=1, log_lines_left_out=2, receive_buffer_octets=4)
        shown = self.figures.as_dict()
        self.assertEqual((9, 11, 3, 4), tuple(shown[n] for n in (
            "sessions", "datagrams_lost", "log_lines_left_out", "receive_buffer_octets")))  # fmt: skip
        self.totals.forget(0)
        self.told(0, 0, sessions=1, datagrams_lost=2)
        shown = self.figures.as_dict()
        self.assertEqual((6, 13, 3), tuple(shown[n] for n in ("sessions", "datagrams_lost", "log_lines_left_out")))
