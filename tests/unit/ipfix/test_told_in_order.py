"""What options records tell is true from the record after them on, also of records of the same read and Message."""

import struct

import numpy as np
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.test_netflow import record5, v5, v9, v9_options
from tests.unit.ipfix.test_options_records import DESCRIBE, described, options
from tests.unit.ipfix.wire import Collected, a_set, message, template, varying

FLOW = template(256, (1, 4))
RATED = frozenset({"octetDeltaCount", "sampling_factor"})
RATE = options(300, (144, 4), (34, 4))


def rate(interval):
    """An options record: the Exporting Process samples one packet of so many."""
    return a_set(300, struct.pack("!II", 1, interval))


def flow(octets):
    """A Data Record of FLOW."""
    return a_set(256, struct.pack("!I", octets))


class OrderTests(SynchronousTestCase):
    """Rates, names and types, in one read."""

    def rated(self, *messages, found=None):
        """(octets, factor) of each Data Record that comes out."""
        found = found or Collected(RATED)
        rows = [row for row in found.rows(*messages) if "octetDeltaCount" in row]
        return [(row["octetDeltaCount"], row["sampling_factor"]) for row in rows]

    def test_rate(self):
        """Each record has the rate that was told last before it."""
        messages = [message(a_set(2, FLOW), RATE), message(flow(1)), message(rate(10), number=1)]
        messages += [message(flow(2), number=2)]
        messages += [message(rate(20), number=3), message(flow(3), number=4), message(flow(4), number=5)]
        messages += [message(rate(10), number=6), message(flow(5), number=7)]
        self.assertEqual([(1, 1), (2, 10), (3, 20), (4, 20), (5, 10)], self.rated(*messages))

    def test_in_one_message(self):
        """Also where the options record is a Set of the Message that it is about, or comes with its template."""
        fields = a_set(2, FLOW)
        for sets in ([RATE, fields, flow(1), rate(10), flow(2)], [fields, flow(1), RATE, rate(10), flow(2)]):
            self.assertEqual([(1, 1), (2, 10)], self.rated(message(*sets)))
        found = Collected(RATED)
        found.feed(message(RATE, a_set(2, FLOW)))
        several = message(flow(1), rate(10), flow(2), rate(30), flow(3))
        self.assertEqual([(1, 1), (2, 10), (3, 30)], self.rated(several, found=found))
        self.assertEqual(({}, 0), (found.errors, found.lost))

    def test_repeated(self):
        """A table that comes again and again changes nothing, and is not decoded before its time."""
        found = Collected(RATED)
        found.feed(message(RATE, a_set(2, FLOW)))
        self.assertEqual([(1, 10)], self.rated(message(rate(10)), message(flow(1), number=1), found=found))
        drained = []
        found.decoder.intake.flush = drained.append
        for i in range(1, 9):
            found.feed(message(rate(10), number=2 * i), message(flow(i), number=2 * i + 1))
        self.assertEqual([], drained)
        self.assertEqual(0, found.lost)

    def test_bounded(self):
        """An exporter that changes its mind with each record does not have each decoded by itself."""
        found = Collected(RATED)
        found.feed(message(RATE, a_set(2, FLOW)))
        flushed = []
        real = found.decoder.intake.flush
        found.decoder.intake.flush = lambda now: (flushed.append(now), real(now))
        messages = [message(rate(2 + i) if i % 2 else flow(i), number=i) for i in range(1000)]
        self.assertEqual(500, len(self.rated(*messages, found=found)))
        self.assertEqual(64, len(flushed))
        self.assertEqual((0, {}), (found.lost, found.errors))

    def test_slab(self):
        """Messages that come together in an array."""
        found = Collected(RATED, reliable=False)
        found.feed(message(RATE, a_set(2, FLOW)))
        sent = [message(rate(i) if i % 10 == 5 else flow(i), number=i) for i in range(60)]
        rows = np.array([np.frombuffer(octets.ljust(64, b"\0"), np.uint8) for octets in sent])
        lengths = np.array(list(map(len, sent)))
        found.decoder.feed_slab(60 * [found.session], rows, lengths, 2000.0)
        expected = [(i, (i - 5) // 10 * 10 + 5 if i > 5 else 1) for i in range(60) if i % 10 != 5]
        self.assertEqual(expected, sorted(self.rated(found=found)))

    def test_walked(self):
        """Messages of several Sets and lengths that come together, which are walked Set by Set."""
        found = Collected(RATED, reliable=False)
        found.feed(message(RATE, a_set(2, FLOW)))
        sent, number = [], 0
        for i in range(60):
            sets = [rate(i)] if i == 30 else [flow(i)] * (1 + i % 3)
            sent.append(message(*sets, number=number))
            number += len(sets)
        rows = np.array([np.frombuffer(octets.ljust(64, b"\0"), np.uint8) for octets in sent])
        lengths = np.array(list(map(len, sent)))
        found.decoder.feed_slab(60 * [found.session], rows, lengths, 2000.0)
        expected = [(i, 30 if i > 30 else 1) for i in range(60) if i != 30 for _ in range(1 + i % 3)]
        self.assertEqual(expected, sorted(self.rated(found=found)))
        self.assertEqual(0, found.lost)

    def test_numbers(self):
        """Records of variable length around an options record in one Message are counted once."""
        found = Collected(RATED)
        found.feed(message(RATE, a_set(2, template(256, (1, 4), (82, 65535)))))
        record = struct.pack("!I", 7) + varying(b"lo")
        several = message(a_set(256, record), rate(10), a_set(256, record, record))
        self.assertEqual(
            [(7, 1), (7, 10), (7, 10), (7, 10)], self.rated(several, message(a_set(256, record), number=4), found=found)
        )
        self.assertEqual((0, {}), (found.lost, found.errors))
        self.assertNotIn("sequence_gap", found.kinds)

    def test_types(self):
        """ADD-2: records behind the description of their elements, in one read, one Message or Messages of each."""
        fields = a_set(2, template(256, (5, 4, 32473), (6, 65535, 32473)))
        told = a_set(300, described(32473, 5, 3, 3, b"myCount"), described(32473, 6, 13, 0, b"myName"))
        data = a_set(256, *(struct.pack("!I", i) + varying(b"abc") for i in range(100)))
        parts = [
            [message(DESCRIBE, told, fields, data)],
            [message(fields, DESCRIBE, told, data)],
            [message(DESCRIBE), message(told), message(fields, number=2), message(data, number=2)],
            [message(fields), message(DESCRIBE), message(told), message(data, number=2)],
        ]
        for messages in parts:
            for reliable in (True, False):
                found = Collected(reliable=reliable)
                rows = [row for row in found.rows(*messages) if "myCount" in row]
                self.assertEqual([(i, b"abc") for i in range(100)], [(row["myCount"], row["myName"]) for row in rows])
                self.assertEqual(({}, 0), (found.errors, found.lost))

    def test_before(self):
        """Records in front of the description stay what they were."""
        found = Collected()
        fields, data = a_set(2, template(256, (5, 4, 32473))), a_set(256, struct.pack("!I", 77))
        told = a_set(300, described(32473, 5, 3, 3, b"myCount"))
        rows = found.rows(message(fields, data), message(DESCRIBE, told, data, number=1))
        self.assertEqual([{"e32473id5": b"\0\0\0\x4d"}, {"myCount": 77}], [rows[0], rows[-1]])

    def test_names(self):
        """A name of an interface."""
        found = Collected(frozenset({"ingressInterfaceName"}))
        told = options(300, (10, 4), (82, 4)), a_set(2, template(256, (10, 4)))
        name = a_set(300, struct.pack("!I4s", 7, b"eth7"))
        data = a_set(256, struct.pack("!I", 7))
        rows = found.rows(message(*told, data, name, data))
        self.assertEqual([{}, {"ingressInterfaceName": b"eth7"}], [rows[0], rows[-1]])

    def test_netflow9(self):
        """Packets of v9."""
        found = Collected(RATED)
        sampler = v9_options(300, [(1, 4)], [(34, 4)])
        packet = v9(a_set(1, sampler), a_set(0, FLOW), flow(1), a_set(300, struct.pack("!II", 0, 10)), flow(2))
        again = v9(a_set(300, struct.pack("!II", 0, 20)), flow(3), number=1)
        self.assertEqual([(1, 1), (2, 10), (3, 20)], self.rated(packet, again, found=found))

    def test_netflow5(self):
        """The header of a packet of v5 names the rate of its own records."""
        packets = [v5(record5(octets=i), number=i, sampling=1 << 14 | 10 * (i + 1)) for i in range(3)]
        rows = Collected(frozenset({"sampling_factor"})).rows(*packets)
        self.assertEqual([10, 20, 30], [row["sampling_factor"] for row in rows])
