"""What exporters of NetFlow v9 in the field do that RFC 3954 does not say, each with the records that must come out."""

import struct

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.test_netflow import v9
from tests.unit.ipfix.wire import Collected, a_set, hexed, ipv4, template

FIELDS = ((8, 4), (12, 4), (1, 4), (2, 4), (7, 2), (11, 2), (4, 1))
TOLD = a_set(0, template(256, *FIELDS))
RECORD = hexed("c0000201 c6336407 000003e8 0000000a 0400 0035 11")
"""21 octets: from 192.0.2.1 port 1024 to 198.51.100.7 port 53."""
ROW = {"sourceIPv4Address": ipv4("192.0.2.1"), "destinationIPv4Address": ipv4("198.51.100.7"),
       "octetDeltaCount": 1000, "packetDeltaCount": 10, "sourceTransportPort": 1024,
       "destinationTransportPort": 53, "protocolIdentifier": 17}  # fmt: skip


def declared(ident, body, length):
    """A FlowSet whose length may lie."""
    return struct.pack("!HH", ident, length) + body


class QuirkTests(SynchronousTestCase):
    """Records come out whole; what is wrong costs nothing else."""

    def rows(self, *packets, errors=()):
        found = Collected(reliable=False)
        rows = found.rows(*packets)
        self.assertEqual(dict(errors), {k: v for k, v in found.errors.items() if v})
        return rows

    def test_count(self):
        """The count of the header may be of FlowSets, of records, 0 or anything."""
        for count in (0, 1, 2, 3, 30, 0xFFFF):
            sent = v9(TOLD, a_set(256, RECORD, RECORD), count=count)
            self.assertEqual([ROW, ROW], self.rows(sent), count)

    def test_padding(self):
        """No padding although the records are odd, and more than to the next multiple of four."""
        for fill in range(21):
            sent = v9(TOLD, a_set(256, RECORD, bytes(fill)), a_set(256, RECORD, RECORD, bytes(fill)))
            self.assertEqual([ROW] * 3, self.rows(sent), fill)

    def test_padding_that_is_not_sent(self):
        """A length that counts up to three octets of fill at the end of the packet, which are not there."""
        for missing in (1, 2, 3):
            sent = v9(TOLD, declared(256, RECORD * 2, 4 + 42 + missing))
            self.assertEqual([ROW, ROW], self.rows(sent), missing)
        for missing in (4, 100):
            sent = v9(TOLD, a_set(256, RECORD), declared(256, RECORD, 4 + 21 + missing))
            self.assertEqual([ROW], self.rows(sent, errors={"set_length": 1}), missing)

    def test_fill(self):
        """Zeros at the end of the packet, as Palo Alto sends them, and fewer than four octets of anything."""
        for fill in (bytes(4), bytes(40), bytes(1000), b"\1\2\3"):
            self.assertEqual([ROW], self.rows(v9(TOLD, a_set(256, RECORD), fill)), fill)

    def test_order(self):
        """Data before its template, in one packet or by several; templates between data."""
        data = a_set(256, RECORD)
        self.assertEqual([ROW, ROW], self.rows(v9(data, TOLD, data), errors={"no_template": 1}))
        self.assertEqual([ROW, ROW], self.rows(v9(data), v9(TOLD, data, number=1), errors={"no_template": 1}))
        self.assertEqual([ROW, ROW], self.rows(v9(TOLD, data, TOLD, data, TOLD)))

    def test_template_fill(self):
        """Octets behind the last template of a FlowSet: fewer than four, or zeros."""
        for fill in (bytes(1), bytes(2), b"\1\2\3", bytes(4), bytes(8), bytes(20)):
            sent = v9(a_set(0, template(256, *FIELDS), fill), a_set(256, RECORD))
            self.assertEqual([ROW], self.rows(sent), fill)

    def test_unknown_flowsets(self):
        """Ids from 2 to 255 are passed over."""
        for ident in (2, 3, 4, 255):
            sent = v9(a_set(ident, b"abcdefgh"), TOLD, a_set(256, RECORD), a_set(ident, b""))
            self.assertEqual([ROW], self.rows(sent, errors={"set_id": 2}), ident)

    def test_wide_fields(self):
        """Counters and interfaces of 8 octets, ports of 4: the same values."""
        fields = ((8, 4), (12, 4), (1, 8), (2, 8), (7, 4), (11, 4), (4, 1))
        record = hexed("c0000201 c6336407 00000000000003e8 000000000000000a 00000400 00000035 11")
        sent = v9(a_set(0, template(256, *fields)), a_set(256, record))
        self.assertEqual([ROW], self.rows(sent))

    def test_empty(self):
        """A header alone, a FlowSet without records, one with less than a record."""
        self.assertEqual([], self.rows(v9()))
        self.assertEqual([ROW], self.rows(v9(TOLD, a_set(256), a_set(256, RECORD[:20]), a_set(256, RECORD))))
