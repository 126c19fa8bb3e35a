"""The output IPFIX: what records say, and how sessions over UDP and TCP behave, on memory transports with a Clock."""

import errno
import os
import socket
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from twisted.internet import error
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.exporting.doubles import V4, V6, Reader, exporter, flows
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.options import Options
from ulogd_tw.exporting import kept_sequences
from ulogd_tw.exporting.collector import Collector
from ulogd_tw.exporting.udp import BREATH, BURST
from ulogd_tw.peers import targets
from ulogd_tw.plugins.outputs.ipfix import IPFIX
from ulogd_tw.transports import send_queue
from ulogd_tw.transports.udp_sender import UdpSender

START, END = 1700000000250, 1700000005999


def address(pair):
    """One number."""
    return pair[0] << 64 | pair[1]


class FakeSocket:
    """A connected UDP socket: keeps datagrams, and raises what is in `faults` first (None: no fault)."""

    old = False
    """Whether the kernel has never heard of segments."""

    def __init__(self, family, kind):
        self.family, self.sent, self.faults, self.mtu, self.open, self.longest = family, [], [], 1500, True, 65507
        self.inbox = []
        self.calls, self.refused = 0, 0

    def setblocking(self, flag): ...

    def setsockopt(self, *arguments): ...

    def connect(self, where):
        self.where = where

    def getsockname(self):
        """Where the kernel has bound it."""
        return ("192.0.2.200", 40000)

    def getpeername(self):
        """Where it is connected to."""
        return self.where

    def getsockopt(self, level, name):
        if level == socket.IPPROTO_UDP:
            if self.old:
                raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
            return 0
        if self.mtu is None:
            raise OSError(errno.ENOTCONN, "not connected")
        return self.mtu

    def send(self, octets):
        if self.faults and (fault := self.faults.pop(0)):
            raise OSError(fault, os.strerror(fault))
        if len(octets) > self.longest:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        self.sent.append(bytes(octets))
        return len(octets)

    def sendmsg(self, buffers, ancillary):
        """Many datagrams at once, as udp_send_skb of Linux cuts them."""
        ((level, kind, size),) = ancillary
        assert (level, kind) == (socket.IPPROTO_UDP, 103)
        (octets,), length = map(bytes, buffers), int.from_bytes(size, sys.byteorder)
        if self.faults and (fault := self.faults.pop(0)):
            raise OSError(fault, os.strerror(fault))
        if self.refused:
            raise OSError(self.refused, os.strerror(self.refused))
        if length > self.longest:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        assert length < len(octets) <= min(64 * length, 65507), len(octets)
        self.calls += 1
        self.sent += [octets[at : at + length] for at in range(0, len(octets), length)]
        return len(octets)

    def recv(self, size):
        """What is in `inbox`: octets, or the number of a fault."""
        if not self.inbox:
            raise BlockingIOError
        found = self.inbox.pop(0)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        return found

    def fileno(self):
        return 99

    def close(self):
        self.open = False


class FakeHandle:
    """A TCP socket of a kernel that has been acknowledged all but `unacknowledged` octets."""

    family = socket.AF_INET

    def __init__(self):
        self.file = open(os.devnull)
        self.fileno = self.file.fileno

    def setsockopt(self, *arguments): ...


class Transport(StringTransport):
    """A TCP transport that gives everything to its kernel at once."""

    dataBuffer, offset, _tempDataLen = b"", 0, 0
    streaming = None

    def __init__(self):
        super().__init__()
        self.handle = FakeHandle()
        self.aborted = False

    def getHandle(self):
        return self.handle

    def setTcpKeepAlive(self, flag): ...

    def abortConnection(self):
        self.aborted = True

    def taken(self):
        """What was written since the last time."""
        octets = self.value()
        self.clear()
        return octets


class ExporterCase(SynchronousTestCase):
    """An exporter in a world of memory."""

    def setUp(self):
        self.reactor = MemoryReactorClock()
        self.sockets, self.transports, self.plugins = [], [], []
        self.addCleanup(self.end)
        self.unacknowledged = 0
        self.patch(UdpSender, "make", staticmethod(self.make_socket))
        self.patch(send_queue.fcntl, "ioctl", self.ioctl)

    def make_socket(self, family, kind):
        self.sockets.append(FakeSocket(family, kind))
        return self.sockets[-1]

    def ioctl(self, descriptor, request, words):
        words[0] = self.unacknowledged

    ahead = 0.0
    """Seconds by which the wall clock was set."""

    def exporter(self, *batches, **options):
        plugin = exporter(*[b.schema for b in batches], **options)
        plugin.reactor, plugin.clock = self.reactor, lambda: 1700000010 + self.ahead + self.reactor.seconds()
        plugin.open()
        self.plugins.append(plugin)
        return plugin

    def end(self):
        """Stop every exporter; nothing of them is left."""
        stopping = [plugin.stop() for plugin in self.plugins]
        for transport in list(self.transports):
            self.lose(transport)
        self.reactor.pump([1.0] * 8)
        for stopped in stopping:
            self.successResultOf(stopped)
        self.plugins.clear()
        self.assertEqual([], [c for c in self.reactor.getDelayedCalls() if c.active()])
        self.assertTrue(all(not made.open for made in self.sockets))

    def figures(self, plugin, place=0):
        return list(plugin.counters.as_dict()["collectors"].values())[place]

    def tick(self, plugin, seconds=1.0):
        """Let time pass as the service does, until the bursts over UDP are over."""
        self.reactor.advance(seconds)
        plugin.wake(plugin.clock())
        self.all_bursts(plugin)

    def all_bursts(self, plugin):
        """Let so much time pass that the datagrams over UDP have left."""
        while any(getattr(collector, "_breath", None) for collector in plugin.collectors):
            self.reactor.advance(BREATH)

    # TCP

    def connect(self, place=-1):
        """Accept the newest attempt to connect."""
        host, port, factory, *_ = self.reactor.tcpClients[place]
        transport = Transport()
        self.addCleanup(transport.handle.file.close)
        transport.wire = factory.buildProtocol(None)
        transport.wire.makeConnection(transport)
        self.transports.append(transport)
        return transport

    def lose(self, transport, reason=None):
        if transport in self.transports:
            self.transports.remove(transport)
            transport.wire.connectionLost(Failure(reason or error.ConnectionLost()))

    def refuse(self, place=-1):
        host, port, factory, *_ = self.reactor.tcpClients[place]
        factory.clientConnectionFailed(None, Failure(error.ConnectionRefusedError()))


class RecordsCase(ExporterCase):
    """Batches go out, and another reader sees their records."""

    def records(self, *batches, **options):
        """(template id, {element: number}) of all that goes out, original and reply directions."""
        plugin = self.exporter(*batches, collectors=("udp:192.0.2.1",), **options)
        for batch in batches:
            self.assertIsNone(plugin.write(batch))
        self.tick(plugin)
        reader = Reader()
        for datagram in self.sockets[-1].sent:
            reader.message(datagram)
        self.assertEqual(([], 0), (reader.gaps, reader.unreadable))
        self.plugin, self.reader = plugin, reader
        self.end()
        return reader.records

    def collected(self, n, **columns):
        """A batch as COLLECTOR gives it."""
        keys = [known(name) for name in columns]
        held = {k.name: np.broadcast_to(np.asarray(columns[k.name], k.type.dtype), n) for k in keys}
        return Batch(Schema(keys), held, n=n, now=0)


class RecordsTests(RecordsCase):
    """What the records of a flow say."""

    def test_two_directions(self):
        """A connection is two records with one flowId and the times, counters and tuple of its direction."""
        (ident, original), (reply_ident, reply) = self.records(flows(1))
        self.assertEqual((256, 256), (ident, reply_ident))
        common = {4: 6, 152: START, 153: END, 136: 3, 148: 100}
        self.assertEqual({8: V4["a"], 12: V4["b"], 7: 1024, 11: 443, 1: 1000, 2: 10, 61: 0} | common, original)
        self.assertEqual({8: V4["b"], 12: V4["a"], 7: 443, 11: 1024, 1: 2**32, 2: 20, 61: 1} | common, reply)
        self.assertEqual([8, 12, 7, 11, 4, 1, 2, 152, 153, 136, 148, 61], list(original))

    def test_ipv6(self):
        """IPv6 has templates of its own."""
        (ident, original), (_, reply) = self.records(flows(1, six=True))
        a, b = address(V6["a"]), address(V6["b"])
        self.assertEqual((257, a, b), (ident, original[27], original[28]))
        self.assertEqual((b, a), (reply[27], reply[28]))
        self.assertFalse({8, 12} & set(original))

    def test_nat(self):
        """A translated connection has what it was translated to, in the view of each direction; others have not."""
        batch = flows(3, reply__ip__daddr=[V4["a"], V4["nat"], V4["a"]], reply__l4__dport=[1024, 1025, 7777])
        records = self.records(batch)
        self.assertEqual([256, 258, 258, 256, 258, 258], [ident for ident, _ in records])
        snat, ports = records[1][1], records[2][1]
        self.assertEqual((V4["nat"], V4["b"], 1025, 443), tuple(snat[e] for e in (225, 226, 227, 228)))
        self.assertEqual((V4["a"], V4["b"], 7777, 443), tuple(ports[e] for e in (225, 226, 227, 228)))
        back = records[4][1]
        self.assertEqual((V4["b"], V4["nat"], 443, 1025), tuple(back[e] for e in (8, 12, 7, 11)))
        self.assertEqual((V4["b"], V4["a"], 443, 1025), tuple(back[e] for e in (225, 226, 227, 228)))

    def test_nat_of_ipv6(self):
        """IPv6 translation has elements 281 and 282; a difference in the low half is seen."""
        (ident, original), _ = self.records(flows(1, six=True, reply__ip__daddr=[V6["nat"]]))
        self.assertEqual((259, address(V6["nat"]), address(V6["b"])), (ident, original[281], original[282]))

    def test_missing_values(self):
        """What the kernel did not give is left out of the record, in each direction, and is never 0."""
        # elements, a key without which they go, and in how many directions
        groups = (
            ({1}, "orig.raw.pktlen", 1), ({2}, "orig.raw.pktcount", 1), ({152}, "flow.start.sec", 2),
            ({153}, "flow.end.usec", 2), ({148}, "ct.id", 2), ({4}, "orig.ip.protocol", 2),
            ({7, 11}, "orig.l4.dport", 2),
        )  # fmt: skip
        everything = {8, 12, 7, 11, 4, 1, 2, 152, 153, 136, 148, 61}
        for elements, key, ways in groups:
            for batch, rows in ((flows(2, missing={key: np.array([False, True])}), 1), (flows(2, without=(key,)), 2)):
                found = [set(record) for _, record in self.records(batch)]
                self.assertEqual(rows * ways, found.count(everything - elements), key)
                self.assertEqual(4 - rows * ways, found.count(everything), key)

    def test_reply_without_packets(self):
        """A flow that nobody answered has no reply record; one whose packets nobody counted has."""
        uncounted = {"reply.raw.pktcount": np.array([False, False, True])}
        records = self.records(flows(3, reply__raw__pktcount=[5, 0, 0], missing=uncounted))
        found = sorted((record[61], record[148]) for _, record in records)
        self.assertEqual([(0, 100), (0, 101), (0, 102), (1, 100), (1, 102)], found)
        self.assertEqual(1, self.plugin.counters.figures["replies_without_packets"])
        self.assertEqual(5, self.plugin.counters.figures["records_encoded"])

    def test_icmp(self):
        """ICMP has type and code in place of ports; the reply's type is the answer to the query."""
        mask = np.array([False, True])
        ports = dict.fromkeys(("orig.l4.sport", "orig.l4.dport", "reply.l4.sport", "reply.l4.dport"), ~mask)
        batch = flows(2, orig__ip__protocol=[1, 17], icmp__type=8, icmp__code=3,
                      missing=ports | {"icmp.type": mask, "icmp.code": mask})  # fmt: skip
        records = self.records(batch)
        of_icmp = [(ident, r) for ident, r in records if r[4] == 1]
        self.assertEqual([(268, 8 << 8 | 3), (268, 0 << 8 | 3)], [(ident, r[32]) for ident, r in of_icmp])
        self.assertFalse({7, 11} & set(of_icmp[0][1]))
        self.assertEqual([256, 256], [ident for ident, r in records if r[4] == 17])
        self.assertTrue(all(32 not in r for _, r in records if r[4] == 17))

    def test_icmpv6(self):
        """An echo of ICMPv6 is 128, its answer 129."""
        without = ("orig.l4.sport", "orig.l4.dport", "reply.l4.sport", "reply.l4.dport")
        batch = flows(1, six=True, orig__ip__protocol=58, icmpv6__type=128, icmpv6__code=0, without=without)
        self.assertEqual([(269, 128 << 8), (269, 129 << 8)], [(ident, r[139]) for ident, r in self.records(batch)])

    def test_why_flows_ended(self):
        """TCP that was closed: end of flow; UDP: idle timeout; TCP of an unknown state: not said."""
        state = np.array([7, 8, 3, 0, 0], np.uint8)
        batch = flows(5, orig__ip__protocol=[6, 6, 6, 6, 17], ct__tcp__state=state,
                      missing={"ct.tcp.state": np.array([0, 0, 0, 1, 1], bool)})  # fmt: skip
        reasons = {r[148]: r.get(136) for _, r in self.records(batch)}
        self.assertEqual({100: 3, 101: 3, 102: 1, 103: None, 104: 1}, reasons)

    def test_only_ends_of_flows(self):
        """Events NEW and UPDATE are left out and counted."""
        records = self.records(flows(4, ct__event=[1, 4, 2, 4]))
        self.assertEqual({101, 103}, {r[148] for _, r in records})
        self.assertEqual(2, self.plugin.counters.rows_filtered)

    def test_rows_of_another_exporter(self):
        """A row without a reply tuple is one record; its totals stay totals, its ports are not taken for ICMP."""
        batch = self.collected(
            2, sourceIPv4Address=[1, 2], destinationIPv4Address=3, protocolIdentifier=[6, 1], sourceTransportPort=4,
            destinationTransportPort=5, octetTotalCount=6, packetTotalCount=7, flowStartSeconds=1700000000,
            icmpTypeCodeIPv4=[0, 0x0800], flowEndReason=2,
        )  # fmt: skip
        (ident, tcp), (_, icmp) = self.records(batch, fields="uniflow")
        self.assertEqual({8: 1, 12: 3, 7: 4, 11: 5, 4: 6, 85: 6, 86: 7, 152: 1700000000000, 136: 2}, tcp)
        self.assertEqual({8: 2, 12: 3, 4: 1, 85: 6, 86: 7, 152: 1700000000000, 136: 2, 32: 0x0800}, icmp)
        self.assertEqual(256 + 2048 + 128 + 256 + 512, ident)

    def test_deltas_of_another_exporter(self):
        """Delta counters stay delta counters."""
        ((_, record),) = self.records(self.collected(
            1, sourceIPv4Address=1, destinationIPv4Address=2, octetDeltaCount=5, packetDeltaCount=1, octetTotalCount=99,
        ), fields="uniflow")  # fmt: skip
        self.assertEqual({8: 1, 12: 2, 1: 5, 2: 1}, record)

    def test_rows_with_nothing_to_say(self):
        """A row without any value that a record may have is dropped and counted."""
        self.assertEqual([], self.records(self.collected(3, ingressInterface=1), fields="uniflow"))
        self.assertEqual(3, self.plugin.counters.dropped["no_fields"])

    def test_large_batches(self):
        """A batch of more rows than are encoded at once arrives whole."""
        records = self.records(flows(10_000))
        for direction in (0, 1):
            self.assertEqual(list(range(100, 10_100)), [r[148] for _, r in records if r[61] == direction])

    @given(st.lists(st.tuples(*[st.booleans()] * 9), min_size=1, max_size=12), st.booleans())
    def test_as_row_by_row(self, rows, six):
        """Whatever rows lack, each gives the records that it gives alone."""
        names = ("orig.raw.pktlen", "reply.raw.pktcount", "flow.start.sec", "flow.end.sec", "ct.id", "orig.l4.sport",
                 "reply.l4.dport", "ct.tcp.state", "orig.raw.pktcount")  # fmt: skip
        masks = {name: np.array([row[i] for row in rows]) for i, name in enumerate(names)}
        places = V6 if six else V4
        nat = [places["nat" if row[0] ^ row[4] else "a"] for row in rows]
        packets = [row[2] for row in rows]
        batch = flows(len(rows), six=six, missing=masks, reply__ip__daddr=nat, reply__raw__pktcount=packets)
        together = self.records(batch)
        alone = [record for i in range(len(rows)) for record in self.records(batch.take(slice(i, i + 1)))]

        def in_order(records):
            return sorted((ident, tuple(r.items())) for ident, r in records)

        self.assertEqual(in_order(alone), in_order(together))


class UdpTests(ExporterCase):
    """Sessions over UDP."""

    def start(self, **options):
        self.batch = flows(100)
        return self.exporter(self.batch, collectors=("udp:192.0.2.1",), **options)

    def test_path(self):
        """UDP-1: datagrams are as long as the path takes; 512 where nobody knows; never over 1500 or `mtu`."""
        for mtu, option, longest in ((1500, None, 1472), (65536, None, 1472), (None, None, 484), (1280, None, 1252),
                                     (1500, 576, 548)):  # fmt: skip
            plugin = self.start(mtu=option)
            self.sockets[-1].mtu = mtu
            plugin.collectors[0]._measure()
            plugin.write(self.batch)
            lengths = [len(d) for d in self.sockets[-1].sent]
            self.assertTrue(longest - 60 < max(lengths) <= longest, (mtu, max(lengths)))

    def test_datagrams_that_are_too_long(self):
        """EMSGSIZE: the path is measured again and the same records go out in shorter datagrams, each once."""
        plugin = self.start()
        plugin.write(self.batch)
        made = self.sockets[0]
        made.mtu, made.longest = 1000, 972
        plugin.write(self.batch)
        made.mtu, made.longest = 1500, 484  # a path that the kernel knows nothing of
        plugin.write(self.batch)
        self.tick(plugin)
        reader = Reader()
        for datagram in made.sent:
            reader.message(datagram)
        self.assertEqual([], reader.gaps)
        self.assertEqual(600, len(reader.records))
        self.assertEqual({100 + i: 6 for i in range(100)},
                         {i: sum(r[148] == i for _, r in reader.records) for i in range(100, 200)})  # fmt: skip
        self.assertEqual(600, self.figures(plugin)["records_sent"])

    def test_templates(self):
        """UDPT-1, UDPT-2: a template goes out twice, alone, before its first data, and again as time passes."""
        plugin = self.start(template_refresh=60.0)
        plugin.write(flows(1))
        self.tick(plugin)
        made = self.sockets[0]
        reader = Reader()
        for datagram in made.sent:
            reader.message(datagram)
        self.assertEqual([[2], [2]], reader.kinds[:2])
        self.assertIn([256], reader.kinds[2:])
        before = sum(kinds == [2] for kinds in reader.kinds)
        made.sent.clear()
        for _ in range(180):
            self.tick(plugin)
        for datagram in made.sent:
            reader.message(datagram)
        self.assertEqual(before + 3, sum(kinds == [2] for kinds in reader.kinds))
        self.assertEqual(2, len(reader.records))
        self.assertEqual([], reader.gaps)

    def test_templates_by_packets(self):
        """template_packets counts datagrams."""
        plugin = self.start(template_refresh=1e9, template_packets=4)
        plugin.write(flows(1))
        self.tick(plugin)
        self.sockets[0].sent.clear()
        for _ in range(8):
            plugin.write(flows(1))
            self.tick(plugin)
        kinds = [d[16:18] for d in self.sockets[0].sent]
        self.assertEqual((8, 2), (kinds.count(b"\1\0"), kinds.count(b"\0\2")))

    def test_send_template(self):
        """always: before every message; never: not at all."""
        for option, expected in (("always", 3 + 1), ("never", 0)):
            plugin = self.start(send_template=option)
            for _ in range(3):
                plugin.write(flows(2))
                plugin.flush()
            kinds = [d[16:18] for d in self.sockets[-1].sent]
            self.assertEqual((3, expected), (kinds.count(b"\1\0"), kinds.count(b"\0\2")), option)

    def test_refused(self):
        """ECONNREFUSED tells of an earlier datagram: counted, this one is sent, and the templates again soon."""
        plugin = self.start()
        plugin.write(flows(1))
        self.tick(plugin)
        made = self.sockets[0]
        made.sent.clear()
        made.faults = [errno.ECONNREFUSED]
        plugin.write(flows(1))
        self.tick(plugin)
        self.assertEqual([b"\1\0", b"\0\2"], [d[16:18] for d in made.sent])
        figures = self.figures(plugin)
        self.assertEqual(({"refused": 1}, {}, 4), (figures["errors"], figures["dropped"], figures["records_sent"]))

    def test_faults(self):
        """A datagram that the kernel does not take is counted in records, and leaves a gap in the sequence."""
        plugin = self.start()
        plugin.write(flows(1))
        self.tick(plugin)
        made = self.sockets[0]
        made.faults = [errno.EPERM]
        plugin.write(flows(5))
        self.tick(plugin)
        plugin.write(flows(1))
        self.tick(plugin)
        reader = Reader()
        for datagram in made.sent:
            reader.message(datagram)
        self.assertEqual([10], reader.gaps)
        self.assertEqual({"send_error": 10}, self.figures(plugin)["dropped"])

    def many(self, **facts):
        """(socket, reader, figures) after rows for many datagrams, to a kernel of these facts."""
        self.plugin = plugin = self.start()
        made = self.sockets[-1]
        vars(made).update(facts)
        plugin.write(flows(3000))
        self.tick(plugin)
        reader = Reader()
        for datagram in made.sent:
            reader.message(datagram)
        return made, reader, self.figures(plugin)

    def test_segments(self):
        """Datagrams of one length are given to the kernel together, where it can cut them apart; they are the same."""
        with mock.patch.object(FakeSocket, "old", True):
            alone, reader, figures = self.many()
        self.assertEqual((0, 6000, [], 6000), (alone.calls, len(reader.records), reader.gaps, figures["records_sent"]))
        together, _, again = self.many()
        without_time = [[d[:4] + d[8:] for d in made.sent] for made in (alone, together)]
        self.assertEqual(*without_time)
        self.assertEqual(figures, again)
        self.assertGreater(len(together.sent), 20 * together.calls)

    def test_bursts(self):
        """Datagrams leave in bursts that the usual buffer of a collector has room for; a long queue in larger ones."""
        plugin = self.start()
        made = self.sockets[0]
        plugin.write(flows(3000))
        first = len(made.sent)
        self.assertLessEqual(first, BURST + 2)  # and the template, twice
        self.reactor.advance(BREATH)
        self.assertEqual(first + BURST, len(made.sent))
        plugin.write(flows(100_000))
        self.assertEqual(first + BURST, len(made.sent))
        waiting = self.figures(plugin)["octets_waiting"]
        self.reactor.advance(BREATH)
        self.assertEqual(waiting // (16 * 1472), len(made.sent) - first - BURST)
        stopping = plugin.stop()
        for _ in range(200):
            self.reactor.advance(BREATH)
        self.reactor.advance(0.1)
        self.successResultOf(stopping)
        reader = Reader()
        for datagram in made.sent:
            reader.message(datagram)
        self.assertEqual((206_000, []), (len(reader.records), reader.gaps))
        self.assertEqual([], self.reactor.getDelayedCalls())

    def test_segments_refused(self):
        """An interface or a path that takes no segments gets each datagram by itself, and is not asked again."""
        for fault in (errno.EIO, errno.EINVAL, errno.EOPNOTSUPP):
            made, reader, figures = self.many(refused=fault)
            self.assertEqual((0, 6000, []), (made.calls, len(reader.records), reader.gaps))
            self.assertEqual(({}, {}), (figures["errors"], figures["dropped"]))
            self.assertFalse(self.plugin.collectors[0].sender._segments)

    def test_segments_of_a_narrow_path(self):
        """A path that has become narrower refuses segments with EINVAL: they are cut anew, and still sent together."""
        made, reader, figures = self.many(mtu=600, longest=572)
        self.assertEqual((6000, []), (len(reader.records), reader.gaps))
        self.assertEqual(572, figures["message_octets"])
        self.assertGreater(made.calls, 0)
        self.assertTrue(self.plugin.collectors[0].sender._segments)

    def test_segments_and_faults(self):
        """A fault of many costs no more than the datagram that has it by itself."""
        made, reader, figures = self.many(faults=[None, None, None, errno.ECONNREFUSED])
        self.assertEqual((6000, [], {"refused": 1}), (len(reader.records), reader.gaps, figures["errors"]))
        made, reader, figures = self.many(faults=[None, None, None, errno.EPERM, errno.EPERM])
        lost = figures["dropped"]["send_error"]
        self.assertEqual((6000 - lost, [lost]), (len(reader.records), reader.gaps))
        self.assertLess(lost, 40)

    def test_segments_without_room(self):
        """Where the buffer is full all of them wait."""
        made, reader, figures = self.many(faults=[None, None, None, *[errno.EAGAIN] * 50])
        self.assertEqual(6000, figures["records_sent"] + figures["records_waiting"])
        self.assertGreater(figures["records_waiting"], 0)
        made.faults = []
        self.plugin.collectors[0].sender.doWrite()
        self.tick(self.plugin)
        reader = Reader()
        for datagram in made.sent:
            reader.message(datagram)
        self.assertEqual((6000, []), (len(reader.records), reader.gaps))

    def test_no_room(self):
        """Where the kernel's buffer is full datagrams wait for it, bounded, and the newest are kept."""
        plugin = self.start(collector_octets=5000)
        plugin.write(flows(1))
        self.tick(plugin)
        made = self.sockets[0]
        made.sent.clear()
        made.faults = [errno.EAGAIN] * 2
        plugin.write(flows(100))
        waiting = self.figures(plugin)
        self.assertLessEqual(waiting["octets_waiting"], 5000)
        self.assertEqual(set(), set(made.sent))
        self.assertEqual([plugin.collectors[0].sender], list(self.reactor.getWriters()))
        made.faults = []
        plugin.collectors[0].sender.doWrite()
        self.tick(plugin)
        reader = Reader()
        reader.templates = {256: [(8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (1, 8), (2, 8), (152, 8), (153, 8),
                                  (136, 1), (148, 8), (61, 1)]}  # fmt: skip
        reader._next = 2
        for datagram in made.sent:
            reader.message(datagram)
        dropped = self.figures(plugin)["dropped"]["queue_full"]
        self.assertGreater(dropped, 0)
        self.assertEqual([dropped], reader.gaps)
        self.assertEqual(200, dropped + len(reader.records))
        self.assertEqual([], list(self.reactor.getWriters()))

    def test_several_collectors(self):
        """UDP-4: Each gets everything, cut for its own path, with its own sequence."""
        batch = flows(500)
        plugin = self.exporter(batch, collectors=("udp:192.0.2.1", "udp:192.0.2.2:9995", "udp:[2001:db8::1]"))
        self.assertEqual([("192.0.2.1", 4739), ("192.0.2.2", 9995), ("2001:db8::1", 4739, 0, 0)],
                         [made.where for made in self.sockets])  # fmt: skip
        self.sockets[1].mtu = 576
        plugin.collectors[1]._measure()
        plugin.write(batch)
        self.tick(plugin)
        records = []
        for made in self.sockets:
            reader = Reader()
            for datagram in made.sent:
                reader.message(datagram)
            self.assertEqual([], reader.gaps)
            records.append(sorted(tuple(r.items()) for _, r in reader.records))
        self.assertEqual((1000, records[0], records[0]), (len(records[0]), records[1], records[2]))
        self.assertEqual([1472, 548, 1452], [self.figures(plugin, i)["message_octets"] for i in range(3)])

    def test_flush(self):
        """A message that is not full goes out `flush` seconds later, with the time at which it goes."""
        plugin = self.start(flush=2.0)
        plugin.wake(plugin.clock())
        plugin.write(flows(1))
        self.assertEqual([], self.sockets[0].sent)
        self.tick(plugin)
        self.assertEqual([], self.sockets[0].sent)
        self.tick(plugin)
        data = [d for d in self.sockets[0].sent if d[16:18] == b"\1\0"]
        self.assertEqual([1700000012], [int.from_bytes(d[4:8], "big") for d in data])

    def test_stop_sends_all(self):
        """A stop sends what is in messages that are not full."""
        plugin = self.start()
        plugin.write(flows(1))
        self.successResultOf(plugin.stop())
        self.assertEqual(2, self.figures(plugin)["records_sent"])
        self.assertEqual("closed", self.figures(plugin)["state"])


class TcpTests(ExporterCase):
    """Sessions over TCP."""

    def start(self, *collectors, **options):
        self.batch = flows(100)
        return self.exporter(self.batch, collectors=collectors or ("tcp:192.0.2.1",), **options)

    def read(self, transport, reader=None):
        reader = reader or Reader()
        reader.stream(transport.taken())
        self.assertEqual([], reader.gaps)
        self.assertEqual(0, reader.unreadable)
        return reader

    def test_templates_first(self):
        """MSG-8, TCP-3: On a new connection all templates come first; what waited follows, from sequence number 0."""
        plugin = self.start()
        plugin.write(self.batch)
        self.tick(plugin)
        self.assertEqual(200, self.figures(plugin)["records_waiting"])
        reader = self.read(self.connect())
        self.assertEqual([2], reader.kinds[0])
        self.assertEqual((0, 200), (reader.headers[0]["sequence"], len(reader.records)))
        figures = self.figures(plugin)
        names = ("state", "connects", "records_sent", "records_waiting")
        self.assertEqual(("connected", 1, 200, 0), tuple(figures[name] for name in names))

    def test_new_templates(self):
        """A template that comes up later goes out once, before its data."""
        plugin = self.start()
        transport = self.connect()
        for six in (False, True, False, True):
            batch = flows(1, six=six)
            plugin.write(batch)
            plugin.flush()
        self.assertEqual([[2], [256], [2], [257], [256], [257]], self.read(transport).kinds)

    def test_attempts(self):
        """TCP-2: Attempts begin `reconnect` seconds apart, also when a connection was refused at once or lost soon."""
        plugin = self.start(reconnect=60.0)
        attempts = self.reactor.tcpClients
        self.refuse()
        self.assertIn("refused", self.figures(plugin)["last_error"])
        self.reactor.advance(59)
        self.assertEqual(1, len(attempts))
        self.reactor.advance(1)
        self.assertEqual(2, len(attempts))
        transport = self.connect()
        self.reactor.advance(10)
        self.lose(transport)
        self.assertEqual("waiting", self.figures(plugin)["state"])
        self.reactor.advance(49)
        self.assertEqual(2, len(attempts))
        self.reactor.advance(1)
        self.assertEqual(3, len(attempts))
        self.lose(self.connect())
        self.assertEqual(2, self.figures(plugin)["connects"])

    def test_resent_after_a_break(self):
        """What the peer's kernel had not acknowledged is sent again, whole messages, in a session from 0; no more."""
        plugin = self.start(reconnect=1.0, mtu=600)
        transport = self.connect()
        self.unacknowledged = 10**9
        plugin.write(flows(97))
        plugin.flush()
        first = self.read(transport)
        data = [h["length"] for h, k in zip(first.headers, first.kinds, strict=True) if k != [2]]
        self.unacknowledged = data[-1] + data[-2] + 1  # a part of the third message from the end is missing too
        self.lose(transport)
        self.unacknowledged = 0
        resent = self.figures(plugin)["records_resent"]
        plugin.write(flows(1))
        plugin.flush()
        self.reactor.advance(1)
        second = self.read(self.connect())
        self.assertEqual(first.records[-resent:], second.records[:resent])
        self.assertEqual(resent + 2, len(second.records))
        size = sum(octets for _, octets in second.templates[256])
        self.assertEqual(resent, sum((length - 20) // size for length in data[-3:]))
        self.assertEqual(196, self.figures(plugin)["records_sent"])

    def test_acknowledged_is_not_resent(self):
        """After an orderly end nothing that was acknowledged is sent again, though our own FIN is not."""
        plugin = self.start(reconnect=1.0)
        transport = self.connect()
        plugin.write(self.batch)
        plugin.flush()
        self.unacknowledged = 1
        self.lose(transport, error.ConnectionDone())
        self.unacknowledged = 0
        self.assertEqual((0, 200), tuple(self.figures(plugin)[k] for k in ("records_resent", "records_sent")))

    def test_slow_collector(self):
        """MSG-5, TCP-2: a transport that is full gets no more; the queue drops its oldest; the gap is exactly that."""
        plugin = self.start("tcp:192.0.2.1", "udp:192.0.2.2", collector_octets=20_000, mtu=1000)
        transport = self.connect()
        plugin.write(self.batch)
        transport.producer.pauseProducing()
        for _ in range(5):
            self.assertIsNone(plugin.write(self.batch))
            self.assertLessEqual(self.figures(plugin)["octets_waiting"], 20_000)
        plugin.flush()
        dropped = self.figures(plugin)["dropped"]["queue_full"]
        self.assertGreater(dropped, 0)
        self.assertEqual({}, self.figures(plugin, 1)["dropped"])
        transport.producer.resumeProducing()
        reader = Reader()
        reader.stream(transport.taken())
        self.assertEqual([dropped], reader.gaps)
        self.assertEqual(1200, dropped + len(reader.records))

    def test_all_full(self):
        """When no collector can take more, write waits, drops nothing, and goes on when one has room."""
        plugin = self.start("tcp:192.0.2.1", "tcp:192.0.2.2", collector_octets=10_000, mtu=1000)
        waiting = plugin.write(self.batch)
        self.assertNoResult(waiting)
        first = self.connect(0)
        self.successResultOf(waiting)
        self.assertIsNone(plugin.write(self.batch))
        plugin.flush()
        self.assertEqual(400, len(self.read(first).records))
        self.assertEqual({}, self.figures(plugin)["dropped"])
        self.assertGreater(self.figures(plugin, 1)["dropped"]["queue_full"], 0)

    def test_memory_of_acknowledged(self):
        """What the peer has acknowledged is no longer kept."""
        plugin = self.start()
        transport = self.connect()
        self.unacknowledged = 10**9
        plugin.write(self.batch)
        plugin.flush()
        self.assertGreater(self.figures(plugin)["octets_unacknowledged"], 10_000)
        self.unacknowledged = 0
        self.tick(plugin)
        self.assertEqual(0, self.figures(plugin)["octets_unacknowledged"])
        self.assertEqual(200, len(self.read(transport).records))

    def test_stop(self):
        """A stop sends all, waits until the peer has it, and closes in order; the log has no warning of it."""
        said = []
        self.patch(Collector, "log", Logger("x", observer=said.append))
        plugin = self.start()
        transport = self.connect()
        plugin.write(self.batch)
        self.unacknowledged = 10
        stopping = plugin.stop()
        self.reactor.pump([0.02] * 10)
        self.assertFalse(transport.disconnecting)
        self.unacknowledged = 0
        self.reactor.pump([0.02])
        self.assertTrue(transport.disconnecting)
        self.assertNoResult(stopping)
        self.lose(transport, error.ConnectionDone())
        self.successResultOf(stopping)
        self.assertEqual(200, len(self.read(transport).records))
        self.assertEqual({}, self.figures(plugin)["dropped"])
        self.assertEqual([], [formatEvent(event) for event in said if event["log_level"] >= LogLevel.warn])

    def test_stop_is_bounded(self):
        """A peer that takes nothing is given up after 5 s; what it did not get is counted."""
        plugin = self.start()
        transport = self.connect()
        transport.producer.pauseProducing()
        plugin.write(self.batch)
        stopping = plugin.stop()
        self.reactor.pump([0.02] * 260)
        self.assertTrue(transport.aborted)
        self.lose(transport)
        self.successResultOf(stopping)
        self.assertEqual({"stop_timeout": 200}, self.figures(plugin)["dropped"])

    def test_stop_while_away(self):
        """A collector that is away is not waited for."""
        plugin = self.start()
        self.refuse()
        plugin.write(self.batch)
        self.successResultOf(plugin.stop())
        self.assertEqual({"stop_timeout": 200}, self.figures(plugin)["dropped"])
        self.flushLoggedErrors()

    def test_stop_lets_a_waiting_write_go(self):
        """The queue before the output gets its answer."""
        plugin = self.start(collector_octets=1000, mtu=1000)
        self.refuse()
        waiting = plugin.write(self.batch)
        self.successResultOf(plugin.stop())
        self.successResultOf(waiting)


class OptionsTests(SynchronousTestCase):
    """Mistakes, each named; ulogd2's options."""

    def mistakes(self, **options):
        return list(IPFIX("exp1", Options(IPFIX.all_options(), options)).mistakes())

    def test_mistakes(self):
        """Every wrong option is reported."""
        for options, option, reason in (
            ({}, "collectors", "must name a collector"),
            ({"collectors": ("192.0.2.1",)}, "collectors", "does not begin with"),
            ({"collectors": ("dtls:192.0.2.1",)}, "cert", "must be given for TLS"),
            ({"collectors": ("sctps:192.0.2.1",)}, "collectors", "DTLS over SCTP is not supported"),
            ({"collectors": ("udp:4739",)}, "collectors", "has no host"),
            ({"collectors": ("udp:a", "udp:a:4739")}, "collectors", "twice"),
            ({"host": "a", "oid": 0}, "oid", "Observation Domain"),
            ({"host": "a", "oid": 2**32}, "oid", "Observation Domain"),
            ({"host": "a", "mtu": 255}, "mtu", "256"),
            ({"host": "a", "mtu": 65536}, "mtu", "65535"),
            ({"host": "a", "port": 65536}, "port", "65535"),
            ({"host": "a", "flush": 0.0}, "flush", "more than 0"),
        ):
            found = self.mistakes(**options)
            self.assertTrue(any(o == option and reason in text for o, text in found), (options, found))

    def test_of_sections(self):
        """Mistakes of a collector's section, and what it lacks, name it; its exporter's remain the exporter's."""
        for own, common, options in (
            ({"url": "tls:192.0.2.1"}, {}, {"[collector:main] ca", "[collector:main] cert"}),
            ({"url": "tls:192.0.2.1"}, {"ca": "/none"}, {"ca", "[collector:main] cert"}),
            ({"url": "tls:192.0.2.1", "ca": "/none"}, {}, {"[collector:main] ca", "[collector:main] cert"}),
            ({"url": "udp:4739"}, {}, {"[collector:main] url"}),
            ({}, {}, {"[collector:main] url"}),
        ):
            config = Options(IPFIX.all_options(), {"collectors": ("main",), **common})
            config.sections["main"] = Options(IPFIX.section_options, own)
            found = IPFIX("exp1", config).mistakes()
            self.assertEqual(options, {option for option, _ in found}, (own, common))

    def test_all_in_one_run(self):
        """Several mistakes come together."""
        self.assertEqual(3, len(self.mistakes(collectors=("x", "udp:1"), oid=0)))

    def test_ulogd2(self):
        """host, port and proto name a collector; tcp is the default."""
        for options, url in (
            ({"host": "192.0.2.1"}, "tcp:192.0.2.1:4739"),
            ({"host": "192.0.2.1", "port": 9995, "proto": "udp"}, "udp:192.0.2.1:9995"),
            ({"host": "::1"}, "tcp:[::1]:4739"),
        ):
            self.assertEqual([], self.mistakes(**options))
            plugin = IPFIX("exp1", Options(IPFIX.all_options(), options))
            self.assertEqual([url], [str(t.url) for t in targets.targets(plugin.config)])

    def test_least_mtu(self):
        """The least mtu has room for the longest record, over UDP and IPv6."""
        from ulogd_tw.ipfix import uniflow

        longest = max(uniflow.template(bits).least_octets for bits in range(8))
        self.assertLessEqual(48 + 20 + longest, 256)


class StateTests(ExporterCase):
    """Sequence Numbers over UDP outlive a restart, with state_dir."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.directory = Path(folder.name)

    def exporter(self, *batches, **options):
        with mock.patch.object(IPFIX, "open", lambda plugin: None):
            plugin = super().exporter(*batches, **options)
        plugin.keep_state(self.directory, 1.0)
        plugin.open()
        return plugin

    def numbers(self, version="10", killed=True, url="udp:192.0.2.1"):
        """The Sequence Numbers of the messages of one run, which writes 20 rows."""
        batch = flows(20)
        plugin = self.exporter(batch, collectors=(url,), version=version, send_template="never")
        plugin.write(batch)
        self.tick(plugin)
        at = {"10": 8, "9": 12, "5": 16}[version]
        found = [int.from_bytes(octets[at : at + 4], "big") for octets in self.sockets[-1].sent]
        if killed:
            self.plugins.remove(plugin)
            self.sockets.clear()
        else:
            self.end()
        return found

    def test_records_of_ipfix(self):
        """A second run goes on: 20 connections are 40 records; after a kill, and after a stop."""
        self.assertEqual(0, self.numbers()[0])
        self.assertEqual(40, self.numbers(killed=False)[0])
        self.assertEqual(80, self.numbers()[0])

    def test_packets_of_netflow9(self):
        packets = len(self.numbers("9"))
        self.assertEqual(packets, self.numbers("9")[0])

    def test_of_each_collector(self):
        """Another collector begins at 0."""
        self.numbers()
        self.assertEqual(0, self.numbers(url="udp:192.0.2.2")[0])

    def test_damage(self):
        """Said and counted; numbers begin at 0."""
        self.numbers()
        path = self.directory / "sequences"
        for octets in (b"", b"\xff" * 5000, path.read_bytes()[:30], path.read_bytes().replace(b'on": 1', b'on": 2')):
            path.write_bytes(octets)
            self.assertRaises(ValueError, kept_sequences.load, str(path))
            self.assertEqual(0, self.numbers()[0])

    def test_a_spool_without_the_option(self):
        """Messages of an absent collector wait in the state directory."""
        plugin = self.exporter(flows(1), collectors=("udp:192.0.2.1",))
        self.assertEqual(str(self.directory / "spool"), plugin.kept()["spool"])
        self.assertTrue((self.directory / "spool").is_dir())
        self.assertIsNone(self.exporter(flows(1), collectors=("udp:192.0.2.1",), version="9").collectors[0].spool)
