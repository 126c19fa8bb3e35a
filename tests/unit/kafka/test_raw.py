"""Messages of exporters as they came: rows of a COLLECTOR, messages of Kafka, and back."""

import socket
import struct

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix.wire import a_set, message, template
from ulogd_tw.collecting.messages import Passing
from ulogd_tw.core.columns import strings
from ulogd_tw.ipfix.session import Session
from ulogd_tw.kafka.intake import CameSlab, MessageIntake
from ulogd_tw.kafka.raw import Came, MistakenMessage
from ulogd_tw.plugins.inputs.collector import COLLECTOR
from ulogd_tw.plugins.inputs.kafka import KAFKA

try:
    from hypothesis import strategies
except ImportError:
    strategies = None

TEMPLATE = a_set(2, template(256, (8, 4), (1, 8)))


def flow(number, learns=False):
    """A message with one record of so many octets."""
    record = a_set(256, struct.pack("!IQ", 0x0A000001, number))
    return message(*((TEMPLATE, record) if learns else (record,)), number=number)


def passing():
    """The decoder of a COLLECTOR with decode=0."""
    return Passing(frozenset(), COLLECTOR("col1").counters)


def batch_of(octets, peer="10.0.0.1", port=4711, now=1.5, reliable=False):
    """The rows of these messages."""
    decoder = passing()
    session = Session(peer, port, reliable=reliable)
    for one in octets:
        decoder.feed(session, one, now)
    return decoder.drain(now)[0]


class PassingTests(SynchronousTestCase):
    """decode=0."""

    def test_rows(self):
        """A row has the message as it came, its exporter, and when it came."""
        (row,) = batch_of([flow(1)], now=2.25).rows()
        expected = {"exporter": 0x0A000001, "exporter_port": 4711, "received_ms": 2250, "carrier": b"datagram",
                    "message": flow(1)}  # fmt: skip
        self.assertEqual(expected, row)

    def test_slab(self):
        """Datagrams that come together are rows in their order, families apart."""
        decoder, four, six = passing(), Session("10.0.0.1", 1, reliable=False), Session("::1", 2, reliable=False)
        octets = [flow(1), flow(2, True), flow(3)]
        rows = np.zeros((3, 104), np.uint8)
        for place, one in enumerate(octets):
            rows[place, : len(one)] = list(one)
        decoder.feed_slab([four, six, four], rows, np.array(list(map(len, octets))), 1.0)
        found = {batch.schema["exporter"].type.name: strings(batch.columns["message"]).to_list()
                 for batch in decoder.drain(1.0)}  # fmt: skip
        self.assertEqual({"ipv4Address": [octets[0], octets[2]], "ipv6Address": [octets[1]]}, found)
        self.assertEqual((3, 2, 1), (decoder.counters.messages_received, four.messages, six.messages))

    def test_garbage(self):
        """What no exporter sends makes no session."""
        decoder, session = passing(), Session("10.0.0.1", 1, reliable=False)
        decoder.feed(session, b"GET / HTTP/1.0", 1.0)
        self.assertEqual((1, []), (session.malformed, decoder.drain(1.0)))

    def test_configured(self):
        """The option makes it so, and the keys are those of messages."""
        plugin = COLLECTOR("col1")
        plugin.config.decode = False
        again = COLLECTOR("col1", plugin.config)
        self.assertEqual(
            ["exporter", "exporter_port", "received_ms", "carrier", "message"], [k.name for k in again.keys()]
        )
        self.assertFalse(again.open_keys)
        self.assertIsInstance(again.decoder(), Passing)


class CameTests(SynchronousTestCase):
    """The form of many in a message."""

    def test_octets(self):
        """The octets are as the document says."""
        octets = Came.of(batch_of([b"\0\x0aAB", b"\0\x0aCDE"], port=0x1234, now=0.258, reliable=True)).written()
        address = bytes(10) + b"\xff\xff" + bytes([10, 0, 0, 1])
        expected = (
            b"UTWM" + bytes([1, 0, 0, 0]) + bytes([0, 0, 0, 2]) + bytes([0, 0, 0, 4, 0, 0, 0, 5])
            + bytes([0, 0, 0, 0, 0, 0, 1, 2]) * 2 + b"\x12\x34" * 2 + b"\1\1" + address * 2 + b"\0\x0aAB\0\x0aCDE"
        )  # fmt: skip
        self.assertEqual(expected, octets)

    @given(strategies and strategies.lists(strategies.binary(max_size=80), max_size=20))
    def test_back(self, bodies):
        """What was written is read."""
        octets = [b"\0\x0a" + body for body in bodies]
        if octets:
            found = Came.read(Came.of(batch_of(octets, "2001:db8::1", 9)).written())
            self.assertEqual(octets, found.octets.to_list())
            self.assertEqual(("2001:db8::1", 9), CameSlab(found).peer(0))

    @given(strategies and strategies.binary(max_size=60))
    def test_anything(self, octets):
        """Other octets are a mistake, and nothing worse."""
        for some in (octets, b"UTWM\1\0\0\0" + octets, b"UTWM\2\0\0\0" + octets):
            try:
                Came.read(some)
            except MistakenMessage:
                continue

    def test_cut(self):
        """A message that was cut anywhere is a mistake."""
        whole = Came.of(batch_of([flow(1), flow(2)])).written()
        for length in range(len(whole)):
            self.assertRaises(MistakenMessage, Came.read, whole[:length])

    def test_names(self):
        """Senders are as the kernel writes them."""
        found = Came.of(batch_of([flow(1)], "192.0.2.1", 4739)).names()[0].tobytes()
        self.assertEqual(struct.pack("=H", socket.AF_INET) + struct.pack("!H4s20x", 4739, bytes([192, 0, 2, 1])), found)


class IntakeTests(SynchronousTestCase):
    """Decoding what came, and what is known of exporters."""

    def intake(self):
        plugin = KAFKA("in1")
        plugin.wanted = frozenset({"octetDeltaCount", "exporter"})
        batches = []
        plugin.emit = batches.append
        plugin.fault = self.raised
        return MessageIntake(plugin, plugin.config, lambda *_: None), batches

    def raised(self, error):
        raise error

    @staticmethod
    def octets(batches):
        return [value for batch in batches for value in batch.columns["octetDeltaCount"].tolist()]

    def test_decoded(self):
        """Messages of a partition are decoded in their order, a long one and one of another exporter between."""
        intake, batches = self.intake()
        long = message(*[a_set(256, *[struct.pack("!IQ", 1, 7)] * 200)], number=2)
        intake.take(0, Came.of(batch_of([flow(1, True), long, flow(202)])))
        intake.take(0, Came.of(batch_of([flow(5, True)], "10.0.0.2")))
        self.assertEqual(sorted([1, *[7] * 200, 202, 5]), sorted(self.octets(batches)))
        self.assertTrue(all(batch.held for batch in batches))

    def test_next_owner(self):
        """The next owner of a partition decodes the next record with what the one before knew."""
        first, _ = self.intake()
        first.take(3, Came.of(batch_of([flow(1, True)])))
        states = first.changed()
        self.assertEqual([3], [partition for partition, _, _ in states])
        self.assertEqual([], first.changed())
        second, batches = self.intake()
        self.assertEqual(0, second.restore([octets for _, _, octets in states], 2.0))
        second.take(3, Came.of(batch_of([flow(2)])))
        self.assertEqual([2], self.octets(batches))

    def test_spoiled_state(self):
        """What cannot be read is counted, and the rest is known."""
        self.assertEqual(2, self.intake()[0].restore([b"", b"x\x9c"], 1.0))
