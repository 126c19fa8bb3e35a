"""Reverse Information Elements (RFC 5103): one record for both directions of a flow."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.ipfix.wire import Collected, a_set, hexed, ipv4, message, template
from ulogd_tw.core.keys import registry

REVERSE = 29305

BIFLOW = (
    (150, 4), (150, 4, REVERSE), (8, 4), (12, 4), (7, 2), (11, 2), (4, 1), (85, 4), (85, 4, REVERSE), (86, 4),
    (86, 4, REVERSE),
)  # fmt: skip
"""The fields of RFC 5103's example: both starts, the five-tuple, both totals of octets and packets."""
RECORD = hexed(
    "43e0e910" "43e0e911" "c0000202" "c0000203" "8002" "0050" "06" "00004650" "0001f400" "00000041" "0000006e"
)  # fmt: skip
"""192.0.2.2 port 32770 asks 192.0.2.3 port 80: 65 packets of 18000 octets, and a second later 110 of 128000 back."""

NOT_REVERSIBLE = (
    148, 145, 149, 137, 130, 131, 173, 211, 212, 213, 214, 215, 216, 217, 40, 41, 42, 163, 164, 165, 166, 167, 168,
    210, 239,
)  # fmt: skip
"""RFC 5103 section 6.1: identifiers, configuration and statistics of processes, padding, biflowDirection."""


class ReverseTests(SynchronousTestCase):
    """Reverse elements in templates and records."""

    def test_record(self):
        """BI-1: the reverse of IANA's element n is element n of enterprise 29305."""
        octets = hexed(
            "0002" "0040" "0100" "000b" "00960004" "8096000400007279" "00080004" "000c0004" "00070002" "000b0002"
            "00040001" "00550004" "8055000400007279" "00560004" "8056000400007279"
        )  # fmt: skip
        (row,) = Collected().rows(message(octets, a_set(256, RECORD)))
        self.assertEqual(
            {
                "flowStartSeconds": 1138813200, "reverseFlowStartSeconds": 1138813201,
                "sourceIPv4Address": ipv4("192.0.2.2"), "destinationIPv4Address": ipv4("192.0.2.3"),
                "sourceTransportPort": 32770, "destinationTransportPort": 80, "protocolIdentifier": 6,
                "octetTotalCount": 18000, "reverseOctetTotalCount": 128000, "packetTotalCount": 65,
                "reversePacketTotalCount": 110,
            },
            row,
        )  # fmt: skip

    def test_every_element(self):
        """BI-1: every reversible element has its reverse, with its type; other enterprises have no such rule."""
        for ident, key in registry.iana.items():
            if ident in NOT_REVERSIBLE:
                continue
            reverse = registry.element(REVERSE, ident)
            self.assertEqual(f"reverse{key.name[0].upper()}{key.name[1:]}", reverse.name)
            self.assertEqual((key.type, ((REVERSE, ident),)), (reverse.type, reverse.elements))
        self.assertEqual("e65000id1", registry.element(65000, 1).name)

    def test_not_reversible(self):
        """BI-2: the reverse of an element that has none is unknown: its octets are kept and mean nothing."""
        for ident in NOT_REVERSIBLE:
            rows = Collected().rows(message(a_set(2, template(256, (ident, 2, REVERSE), (4, 1))), a_set(256, b"ab\6")))
            self.assertEqual([{f"e29305id{ident}": b"ab", "protocolIdentifier": 6}], rows)

    def test_without_direction(self):
        """BI-3: a record of both directions that has nothing to tell them apart is kept as it is."""
        fields = (4, 1), (85, 4), (85, 4, REVERSE)
        found = Collected()
        rows = found.rows(message(a_set(2, template(256, *fields)), a_set(256, hexed("060000000100000002"))))
        self.assertEqual([{"protocolIdentifier": 6, "octetTotalCount": 1, "reverseOctetTotalCount": 2}], rows)
        self.assertEqual({}, found.errors)
