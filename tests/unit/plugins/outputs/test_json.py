"""JSON: ulogd2's objects, those of collected records, and peers that come and go."""

import json
import os
import socket
import termios
from ipaddress import ip_address
from types import SimpleNamespace

import numpy as np
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, shared_path
from tests.unit.writing.text_rows import GOLDEN, batch_of, in_zone, plugin, printed
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import repeated
from ulogd_tw.core.errors import PartlyWritten, UlogdError
from ulogd_tw.core.keys import Key, known, registry
from ulogd_tw.core.options import Options
from ulogd_tw.core.plugin import ALL
from ulogd_tw.plugins.outputs.json import JSON
from ulogd_tw.transports import send_queue
from ulogd_tw.writing.datagrams import Datagrams
from ulogd_tw.writing.objects import name_of
from ulogd_tw.writing.remote import FIRST_WAIT
from ulogd_tw.writing.streams import PIECE, Stream

FLOW_LINE = (
    '{"timestamp": "2026-11-23T00:10:39", "dvc": "Netfilter", "orig.ip.protocol": 6, "orig.l4.sport": 19999, '
    '"orig.raw.pktlen": 60, "ct.mark": 0, "ct.id": 3204679213, "flow.end.usec": 178757, "src_ip": "10.77.0.1", '
    '"dest_ip": "10.77.0.2", "reply.ip.saddr.str": "10.77.0.2", "reply.ip.daddr.str": "10.77.0.1"}'
)
"""From ulogd2's first line in golden/out/flow.json."""

KEY_OF = {
    "src_ip": "ip.saddr", "dest_ip": "ip.daddr", "reply.ip.saddr.str": "reply.ip.saddr",
    "reply.ip.daddr.str": "reply.ip.daddr",
}  # fmt: skip
"""Our keys for some members of ulogd2's objects."""


def objects(case, batches, **options):
    """The objects that JSON writes for these batches."""
    return [json.loads(line) for line in printed(case, JSON, batches, **options).splitlines()]


def row_of(golden, ports="tcp", orig=""):
    """The row of which ulogd2 made this object."""
    row = {}
    for name, value in golden.items():
        if name in ("timestamp", "@timestamp", "@version", "dvc"):
            continue
        if name == "action":
            name, value = "raw.label", {"allowed": 1, "blocked": 0}[value]
        name = KEY_OF.get(name, name)
        name = {"src_port": f"{ports}.sport", "dest_port": f"{ports}.dport"}.get(name, name)
        row[orig + name if name in ("ip.saddr", "ip.daddr") else name] = value
    return row


def seconds(golden):
    """The time of an object in UTC."""
    stamp = golden.get("timestamp", golden.get("@timestamp"))
    return np.datetime64(stamp, "us").astype(int) / 1e6


def collected(n, **columns):
    """`n` collected records: the context that all share, and columns by their elements' names."""
    shared = {
        "exporter": int(ip_address("192.0.2.1")), "exporter_port": 2055, "observationDomainId": 7, "templateId": 256,
        "record_kind": b"data", "received_ms": 1795392639178,
    }  # fmt: skip
    keys = [known(name) if name != "exporter" else known(name).typed(types.IPV4) for name in shared]
    found = {k.name: repeated(v, n, k.type.dtype) for k, v in zip(keys, shared.values(), strict=True)}
    for name, values in columns.items():
        keys.append(known(name))
        found[name] = np.array(values, keys[-1].type.dtype)
    return Batch(Schema(keys), found, n=n, now=1795392640.0)


class FormatTests(SynchronousTestCase):
    """The objects."""

    def setUp(self):
        in_zone(self, "UTC")

    def test_a_flow_of_ulogd2(self):
        """The members and values of ulogd2 with IP2STR, of which no plugin is needed now."""
        wanted = json.loads(FLOW_LINE)
        batch = batch_of([row_of(wanted, orig="orig.")], seconds(wanted))
        self.assertEqual(objects(self, [batch]), [wanted])

    def test_line(self):
        """The separators are compact, the head comes first, then the order of the keys."""
        batch = batch_of([{"orig.ip.saddr": "fd77::1", "orig.l4.sport": 80, "reply.ip.saddr": "fd77::2"}], 1795392639.7)
        line = (
            '{"timestamp":"2026-11-23T00:10:39","dvc":"Netfilter","src_ip":"fd77::1","orig.l4.sport":80,'
            '"reply.ip.saddr.str":"fd77::2"}\n'
        )
        self.assertEqual(printed(self, JSON, [batch]), line)

    def test_no_name_is_a_value_and_an_object(self):
        """No name goes on with a dot where another one ends, of keys that stand together or ever could."""
        names = ["exporter", "exporter.net", "exporter.net.site", "src.net", "src.net.site", "src.as", "src.as.name",
                 "mark", "mark.name", "sourceIPv4Address"]  # fmt: skip
        keys = [Key(name, types.STRING) for name in names]
        written = [name_of(key, names) for key in keys]
        self.assertEqual(["exporter", "exporter_net", "exporter_net_site", "src.net", "src.net_site", "src.as",
                          "src.as_name", "mark", "mark_name", "sourceIPv4Address"], written)  # fmt: skip
        self.assertEqual("src.net_site", name_of(Key("src.net.site", types.STRING)))
        self.assertEqual("x.y_z", name_of(Key("x.y.z", types.STRING), ["x.y"]))
        printable = [key for name in registry.names() if (key := known(name)).type.kind != "octets"]
        every = {name_of(key) for key in printable}
        found = {name for name in every if any(other.startswith(f"{name}.") for other in every)}
        self.assertEqual(set(), found)

    def test_golden_flows(self):
        """Every flow of ulogd2, by event, by poll, without a table, with IPv6: the same members and values."""
        for name in ("flow.json", "flow_nohash.json", "flow_poll.json", "flow_sigusr2.json"):
            wanted = [json.loads(line) for line in shared_path(*GOLDEN, name).read_text().splitlines()]
            batches = [batch_of([row_of(w, orig="orig.")], seconds(w)) for w in wanted]
            self.assertEqual(objects(self, batches), wanted)
        wanted = [json.loads(line) for line in shared_path(*GOLDEN, "flow_eventv1.json").read_text().splitlines()]
        batches = [batch_of([row_of(w, orig="orig.")], seconds(w)) for w in wanted]
        self.assertEqual(objects(self, batches, eventv1=True, device="golden"), wanted)

    def test_golden_packets(self):
        """Every packet of ulogd2: microseconds in the time, booleans as 0 and 1, src_port of each protocol, action."""
        for name, options in (("pkt.json", {}), ("pkt_eventv1_label.json", {"eventv1": True, "boolean_label": True})):
            wanted = [json.loads(line) for line in shared_path(*GOLDEN, name).read_text().splitlines()]
            rows = [row_of(w, "udp" if "udp.len" in w else "tcp") for w in wanted]
            self.assertEqual(objects(self, [batch_of([row]) for row in rows], **options), wanted)
            alike = [i for i, row in enumerate(rows) if row.keys() == rows[0].keys()]
            many = batch_of([rows[i] for i in alike] * 20)
            self.assertEqual(objects(self, [many], **options), [wanted[i] for i in alike] * 20)

    def test_golden_sums(self):
        """NFACCT's objects; the time is that of the counter."""
        wanted = [json.loads(line) for line in shared_path(*GOLDEN, "acct.json").read_text().splitlines()]
        self.assertEqual(objects(self, [batch_of([row_of(w)]) for w in wanted]), wanted)

    def test_zone(self):
        """The time is local, and its offset follows, also a negative one with minutes."""
        for zone, stamp in (("IST-5:30", "2026-11-23T05:40:39+0530"), ("NST3:30", "2026-11-22T20:40:39-0330")):
            in_zone(self, zone)
            batch = batch_of([{"ct.id": 1}] * 50, 1795392639.0)
            self.assertEqual({o["timestamp"] for o in objects(self, [batch])}, {stamp})

    def test_packet_without_microseconds(self):
        """In one batch some rows have microseconds, some only seconds, some no time: these get that of output."""
        for n in (2, 60):
            batch = batch_of([{"oob.time.sec": 1795392639, "oob.time.usec": 17 + i} for i in range(n)], 1795392700.0)
            rows = np.arange(n)
            batch.missing.update({"oob.time.usec": rows > 0, "oob.time.sec": rows == 1})
            stamps = [o["timestamp"] for o in objects(self, [batch])]
            self.assertEqual(stamps[:2], ["2026-11-23T00:10:39.000017", "2026-11-23T00:11:40"])
            self.assertEqual(set(stamps[2:]), {"2026-11-23T00:10:39"} if n > 2 else set())

    def test_same_name_twice(self):
        """With IP2STR above, and with ports of two protocols in one batch, a name stands once in an object."""
        row = {"orig.ip.saddr": "10.0.0.1", "ct.id": 5, "orig.ip.saddr.str": "10.0.0.1"}
        self.assertEqual(printed(self, JSON, [batch_of([row])]).count("src_ip"), 1)
        for n in (3, 60):
            batch = batch_of([{"tcp.sport": 100 + i, "udp.sport": 200 + i} for i in range(n)])
            rows = np.arange(n)
            batch.missing.update({"tcp.sport": rows % 3 != 0, "udp.sport": rows % 3 == 2})
            found = printed(self, JSON, [batch], timestamp=False).splitlines()
            wanted = [{0: {"src_port": 100 + i}, 1: {"src_port": 200 + i}, 2: {}}[i % 3] for i in range(n)]
            self.assertEqual([json.loads(line) for line in found], [{"dvc": "Netfilter"} | w for w in wanted])
            self.assertLessEqual(max(line.count("src_port") for line in found), 1)

    def test_collected(self):
        """Collected records have their context, then their fields, and no head; times are numbers."""
        batch = collected(2, sourceIPv4Address=[1, 2], octetDeltaCount=[10, 1 << 63])
        line = (
            '{"exporter":"192.0.2.1","exporter_port":2055,"observationDomainId":7,"templateId":256,"record_kind":"data",'
            '"received_ms":1795392639178,"sourceIPv4Address":"0.0.0.%d","octetDeltaCount":%d}\n'
        )
        self.assertEqual(printed(self, JSON, [batch]), line % (1, 10) + line % (2, 1 << 63))

    def test_collected_with_head(self):
        """What the administrator writes counts: then they have a timestamp and the device too."""
        batch = collected(1, octetDeltaCount=[1])
        found = objects(self, [batch], timestamp=True, device="x")[0]
        self.assertEqual(list(found)[:3], ["timestamp", "dvc", "exporter"])
        self.assertEqual(found["timestamp"], "2026-11-23T00:10:40")
        self.assertEqual(list(objects(self, [batch], timestamp=False)[0])[0], "exporter")

    def test_booleans(self):
        """IPFIX booleans are true and false, ulogd2's are 1 and 0."""
        batch = batch_of([{"tcp.syn": 1, "dataRecordsReliability": 1}, {"tcp.syn": 0, "dataRecordsReliability": 0}])
        text = printed(self, JSON, [batch], timestamp=False)
        self.assertEqual(
            text,
            '{"dvc":"Netfilter","tcp.syn":1,"dataRecordsReliability":true}\n'
            '{"dvc":"Netfilter","tcp.syn":0,"dataRecordsReliability":false}\n',
        )

    @given(st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode)), min_size=1, max_size=8))
    def test_any_string(self, values):
        """Whatever a peer sends as a string, each row is one line that is JSON, in rows few and many."""
        rows = [{"interfaceName": "", "ct.id": i} for i in range(len(values))]
        batch = batch_of(rows)
        batch.columns["interfaceName"] = type(batch.columns["interfaceName"]).of(values)
        wanted = [v.rstrip(b"\0").decode("utf-8", "replace") for v in values]
        found = [json.loads(line)["interfaceName"] for line in printed(self, JSON, [batch]).split("\n")[:-1]]
        self.assertEqual(found, wanted)
        many = batch.take(np.tile(np.arange(len(values)), 40))
        found = [json.loads(line)["interfaceName"] for line in printed(self, JSON, [many]).split("\n")[:-1]]
        self.assertEqual(found, wanted * 40)

    def test_no_row(self):
        """An empty batch writes nothing."""
        self.assertEqual(printed(self, JSON, [collected(0, octetDeltaCount=[])]), "")

    def test_options(self):
        """A port that is none is a mistake; every key is asked for."""
        out = JSON("j", Options(JSON.all_options(), {"mode": "tcp", "port": "no-such-service"}))
        self.assertEqual([option for option, _ in out.mistakes()], ["port"])
        self.assertEqual(list(JSON("j", Options(JSON.all_options(), {"mode": "udp", "port": "syslog"})).mistakes()), [])
        self.assertIs(out.requests(frozenset()), ALL)


class Peer:
    """An endpoint whose connections the test makes and ends."""

    def __init__(self):
        self.attempts = []

    def connect(self, factory):
        self.attempts.append((defer.Deferred(), factory))
        return self.attempts[-1][0]

    def accept(self):
        """The peer takes the latest attempt."""
        waiting, factory = self.attempts[-1]
        protocol = factory.buildProtocol(None)
        transport = Transport()
        transport.protocol = protocol
        protocol.makeConnection(transport)
        waiting.callback(protocol)
        return transport


class Transport(StringTransport):
    """A connection whose kernel takes `room` octets more."""

    room = 0
    handle = None

    def getHandle(self):
        return self.handle

    @property
    def dataBuffer(self):
        return self.value()[self.taken :]

    taken = offset = _tempDataLen = 0

    def take(self, octets):
        """The kernel takes so many; when nothing is left, more is asked for."""
        self.taken = min(self.taken + octets, len(self.value()))
        if self.taken == len(self.value()) and self.producer is not None:
            self.producer.resumeProducing()

    def end(self):
        """The connection is lost."""
        self.protocol.connectionLost(Failure(ConnectionDone()))

    def loseConnection(self):
        super().loseConnection()
        self.end()

    abortConnection = loseConnection


def flows(n, first=1):
    """A batch of small rows."""
    return batch_of([{"ct.id": i} for i in range(first, first + n)])


def flow_lines(n, first=1):
    """How they look with timestamp=0."""
    return [b'{"dvc":"Netfilter","ct.id":%d}\n' % i for i in range(first, first + n)]


class StreamTests(SynchronousTestCase):
    """mode=tcp and mode=unix."""

    def setUp(self):
        self.out = plugin(JSON, self.mktemp(), timestamp=False)
        self.out.sink.close()
        self.peer = Peer()
        self.out.sink = Stream(self.out, "tcp:peer", self.peer)
        self.out.open()

    def test_written_when_the_kernel_has_it(self):
        """Rows count as written when nothing of them waits in this process any more."""
        transport = self.peer.accept()
        waiting = self.out.write(flows(40))
        self.assertNoResult(waiting)
        transport.take(1 << 20)
        self.successResultOf(waiting)
        self.assertEqual(transport.value(), b"".join(flow_lines(40)))
        self.out.stop()

    def test_peer_away(self):
        """Rows wait for a peer that is not there yet; attempts are made with back-off."""
        waiting = self.out.write(flows(2))
        for wait in (FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT):
            self.peer.attempts[-1][0].errback(ConnectionRefusedError())
            before = len(self.peer.attempts)
            self.out.clock.advance(wait * 0.99)
            self.assertEqual(len(self.peer.attempts), before)
            self.out.clock.advance(wait * 0.02)
            self.assertEqual(len(self.peer.attempts), before + 1)
        transport = self.peer.accept()
        transport.take(1 << 20)
        self.successResultOf(waiting)
        self.assertEqual(transport.value(), b"".join(flow_lines(2)))
        self.assertEqual(self.out.counters.errors["connect"], 3)

    def test_lost_within_a_line(self):
        """The new connection begins with the line that the old one did not take as a whole."""
        lines = flow_lines(40)
        old = self.peer.accept()
        waiting = self.out.write(flows(40))
        old.take(len(b"".join(lines[:10])) + 5)
        old.end()
        self.out.clock.advance(FIRST_WAIT)
        new = self.peer.accept()
        new.take(1 << 20)
        self.successResultOf(waiting)
        self.assertEqual(new.value(), b"".join(lines[10:]))

    def test_stopped_while_away(self):
        """The batch stays in the queue; nothing is tried any more, and the stop ends."""
        waiting = self.out.write(flows(2))
        self.successResultOf(self.out.stop())
        self.failureResultOf(waiting, UlogdError)
        self.assertEqual(self.out.clock.getDelayedCalls(), [])
        self.assertEqual(self.out.counters.dropped.total(), 0)

    def test_stopped_while_slow(self):
        """Rows that the peer has not taken go back to the queue, which spools or counts them."""
        transport = self.peer.accept()
        waiting = self.out.write(flows(40))
        transport.take(len(b"".join(flow_lines(10))) + 5)
        self.successResultOf(self.out.stop())
        self.assertEqual(10, self.failureResultOf(waiting, PartlyWritten).value.rows)
        self.assertEqual({}, dict(self.out.counters.dropped))
        self.assertEqual(self.out.clock.getDelayedCalls(), [])

    def test_stopped_after_a_loss(self):
        """A stop between two connections ends too."""
        self.peer.accept().end()
        waiting = self.out.write(flows(2))
        self.successResultOf(self.out.stop())
        self.failureResultOf(waiting, UlogdError)
        self.assertEqual(self.out.clock.getDelayedCalls(), [])

    def test_reopen(self):
        """SIGHUP connects anew."""
        self.peer.accept().take(0)
        self.out.reopen()
        self.out.clock.advance(FIRST_WAIT)
        self.assertEqual(len(self.peer.attempts), 2)


class AcknowledgedTests(SynchronousTestCase):
    """What the peer's kernel has, as ours tells it (SIOCOUTQ)."""

    def setUp(self):
        self.out = plugin(JSON, self.mktemp(), timestamp=False)
        self.out.sink.close()
        self.peer = Peer()
        self.out.sink = Stream(self.out, "tcp:peer", self.peer)
        self.unacknowledged = 0
        self.patch(send_queue.fcntl, "ioctl", self.ioctl)
        null = open(os.devnull)
        self.addCleanup(null.close)
        self.patch(Transport, "handle", SimpleNamespace(fileno=null.fileno, family=socket.AF_INET))
        self.out.open()

    def ioctl(self, number, request, waiting):
        self.assertEqual(termios.TIOCOUTQ, request)
        waiting[0] = self.unacknowledged

    def test_written_when_the_peer_has_it(self):
        """Rows count as written when the peer's kernel has all of them, not when ours has."""
        transport = self.peer.accept()
        self.unacknowledged = 7
        waiting = self.out.write(flows(40))
        transport.take(1 << 20)
        self.out.clock.pump([0.1] * 20)
        self.assertNoResult(waiting)
        self.unacknowledged = 0
        self.out.clock.advance(0.1)
        self.successResultOf(waiting)
        self.out.stop()
        self.assertEqual([], self.out.clock.getDelayedCalls())

    def test_sent_again(self):
        """A new connection gets what the old peer's kernel did not have, from the beginning of a line, in order."""
        lines = flow_lines(20_000)
        old = self.peer.accept()
        self.unacknowledged = 1 << 20
        waiting = self.out.write(flows(20_000))
        while len(old.value()) < 3 * PIECE:
            old.take(1 << 20)
        arrived = len(b"".join(lines[:9])) + 4
        self.unacknowledged = old.taken - arrived
        old.end()
        self.out.clock.advance(FIRST_WAIT)
        self.unacknowledged = 0
        new = self.peer.accept()
        while not waiting.called:
            new.take(1 << 20)
        self.successResultOf(waiting)
        self.assertEqual(b"".join(lines[9:]), new.value())

    def test_stop(self):
        """What has not arrived at a stop goes back to the queue, however much our kernel has."""
        transport = self.peer.accept()
        waiting = self.out.write(flows(40))
        self.unacknowledged = len(b"".join(flow_lines(40)[25:])) + 3
        transport.take(1 << 20)
        self.out.stop()
        self.assertEqual(24, self.failureResultOf(waiting, PartlyWritten).value.rows)

    def test_reopen(self):
        """SIGHUP waits until the present piece has arrived, and the rest goes over the new connection."""
        old = self.peer.accept()
        waiting = self.out.write(flows(20_000))
        self.unacknowledged = 5
        self.out.reopen()
        old.take(1 << 20)
        self.out.clock.advance(1.0)
        self.assertFalse(old.disconnecting)
        self.unacknowledged = 0
        self.out.clock.advance(1.0)
        self.assertTrue(old.disconnecting)
        self.out.clock.advance(FIRST_WAIT)
        new = self.peer.accept()
        while not waiting.called:
            new.take(1 << 20)
        self.assertEqual(b"".join(flow_lines(20_000)), old.value() + new.value())


class DatagramTests(SynchronousTestCase):
    """mode=udp."""

    def setUp(self):
        self.out = plugin(JSON, self.mktemp(), timestamp=False)
        self.out.sink.close()
        self.sink = self.out.sink = Datagrams(self.out, "udp:peer", "192.0.2.1", 514, None)
        self.sent = []
        self.sink.up = True
        self.sink.transport = self

    def write(self, datagram):
        """As the transport of a connected UDP port."""
        if len(datagram) > 100:
            raise OSError(90, "Message too long")
        self.sent.append(datagram)

    def stopListening(self):
        pass

    def test_a_line_each(self):
        """Every row is a datagram, in batches few and many."""
        for n in (2, 60):
            self.sent.clear()
            self.assertIsNone(self.out.write(flows(n)))
            self.assertEqual(self.sent, flow_lines(n))

    def test_too_long(self):
        """A row that no datagram can hold is dropped and counted; the others go."""
        batch = batch_of([{"oob.prefix": "x" * size} for size in (1, 200, 2)])
        self.out.write(batch)
        self.assertEqual(len(self.sent), 2)
        self.assertEqual(dict(self.out.counters.dropped), {"too_long": 1})
