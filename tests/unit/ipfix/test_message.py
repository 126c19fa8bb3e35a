"""Messages, Sets and streams as RFC 7011 section 3 has them, in octets written out."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.wire import (
    COUNTER,
    Collected,
    a_set,
    counts,
    counts_of,
    hexed,
    message,
    template,
    without_context,
)
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.session import Session

WHOLE = hexed(
    "000a" "0034" "59e8aa40" "00000011" "0000002a"  # version 10, 52 octets, 2017-10-19 13:36:00 UTC, 17, domain 42
    "0002" "0014" "0100" "0003" "0008" "0004" "0007" "0002" "0004" "0001"  # 256: source address, source port, protocol
    "0100" "0010" "c0000201" "01bb" "06" "0000000000"
)  # fmt: skip
"""A message of a template and a record, with five octets of padding."""


class HeaderTests(SynchronousTestCase):
    """The Message Header."""

    def test_fields(self):
        """MSG-1: version, length, export time, sequence number and domain, 16 octets in network byte order."""
        found = Collected()
        (batch,) = found.batches(WHOLE)
        (row,) = batch.rows()
        context = ("export_time", "observationDomainId", "templateId")
        self.assertEqual((1508420160, 42, 256), tuple(row[name] for name in context))
        expected = {"sourceIPv4Address": 0xC0000201, "sourceTransportPort": 443, "protocolIdentifier": 6}
        self.assertEqual(expected, without_context(row))
        # The number was 17 and the message had one record: 18 is next.
        found.feed(message(number=20, domain=42))
        self.assertEqual(2, found.lost)
        for place, octet in ((0, 1), (1, 9), (1, 11), (2, 1), (3, 0x35)):
            wrong = Collected().feed(WHOLE[:place] + bytes([octet]) + WHOLE[place + 1 :])
            self.assertEqual(1, wrong.decoder.malformed, (place, octet))

    def test_domain_0(self):
        """MSG-6: domain 0, of messages that concern no particular one, is a domain like any other."""
        found = Collected()
        rows = found.batches(
            message(a_set(2, COUNTER), domain=0), message(a_set(2, template(256, (2, 4))), domain=1),
            counts(5, domain=0), counts(6, domain=1),
        )  # fmt: skip
        found = [(row["observationDomainId"], without_context(row)) for batch in rows for row in batch.rows()]
        self.assertEqual([(0, {"octetDeltaCount": 5}), (1, {"packetDeltaCount": 6})], found)

    def test_streams(self):
        """MSG-7: numbers are followed for each session and each of its domains."""
        counters = Counters("test")
        decoder = Decoder(ALL, counters)
        sessions = [Session("192.0.2.1", port, reliable=True) for port in (1, 2)]
        streams = [(session, domain) for session in sessions for domain in (7, 8)]
        numbers = dict(zip(streams, (0, 1000, 5, 1 << 31), strict=True))
        for (session, domain), number in numbers.items():
            decoder.feed(session, message(a_set(2, COUNTER), number=number, domain=domain), 1.0)
        for turn in range(3):
            for (session, domain), number in numbers.items():
                decoder.feed(session, counts(1, 2, number=number + 2 * turn, domain=domain), 1.0)
        self.assertEqual(({}, {}), (dict(counters.lost), dict(counters.errors)))
        decoder.feed(sessions[1], counts(1, number=8 + 4, domain=7), 1.0)
        self.assertEqual({"sequence": 1}, dict(counters.lost))


class SetTests(SynchronousTestCase):
    """Sets one after another."""

    def test_by_length(self):
        """SET-1: the next Set is where the length of this one says, header included, whatever stands in it."""
        # What is in the unknown set looks like a header of a template set; the padding of the next like a data set.
        octets = message(a_set(99, hexed("00020008010000010001")), a_set(2, COUNTER, hexed("000000")),
                         a_set(256, hexed("00000001"), hexed("0100ff")), a_set(256, hexed("00000002")))  # fmt: skip
        self.assertEqual([1, 2], counts_of(Collected().rows(octets)))

    def test_kinds(self):
        """SET-2: 2 and 3 have templates, 256 and more data; a set of id 2 is no data of a template of that number."""
        octets = hexed(
            "000a0038" "00000000" "00000000" "00000001"
            "0002" "000c" "0100" "0001" "0001" "0004"
            "0003" "000e" "ffff" "0001" "0001" "0091" "0002"
            "0100" "0008" "00000001"
            "ffff" "0006" "0100"
        )  # fmt: skip
        batches = Collected().batches(octets)
        found = [(row["templateId"], row["record_kind"], without_context(row)) for b in batches for row in b.rows()]
        expected = [(256, b"data", {"octetDeltaCount": 1}), (65535, b"options", {"templateId#2": 256})]
        self.assertEqual(expected, found)

    def test_padding(self):
        """SET-5: padding in template, options template and data sets, also of other octets than zero."""
        octets = message(
            a_set(2, COUNTER, hexed("000000")), a_set(3, hexed("0101" "0001" "0001" "0091" "0002"), hexed("0000")),
            a_set(256, hexed("00000001"), hexed("fffeff")), a_set(257, hexed("0100"), hexed("ab")),
        )  # fmt: skip
        found = Collected()
        self.assertEqual([{"octetDeltaCount": 1}, {"templateId#2": 256}], found.rows(octets))
        self.assertEqual({}, found.errors)

    def test_no_length_stalls(self):
        """SET-7: lengths from 0 to 3, and beyond the message, end it; nothing of it is taken, the next one is."""
        for length in (0, 1, 2, 3, 9, 0x7FFF, 0xFFFF):
            found = Collected()
            wrong = a_set(300, b"1234")[:2] + length.to_bytes(2, "big") + b"1234"
            rows = found.rows(message(a_set(2, COUNTER)), message(a_set(256, bytes(4)), wrong), counts(1, 2))
            self.assertEqual([1, 2], counts_of(rows), length)
            self.assertEqual({"set_length": 1}, found.errors)
