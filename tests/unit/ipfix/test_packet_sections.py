"""Packets inside records: octets written by hand, as Junos, IOS-XR and PSAMP exporters send them."""

import random
import struct

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.ipfix import wire
from tests.unit.ipfix.wire import Collected, a_set, hexed, ipv4, ipv6, message, options_template, template, varying
from tests.unit.packets import frames, plain

MACS = "020000000002 020000000001"
TCP = "c738 01bb 00000001 00000001 5018 03e8 0000 0000"
IP = "4500 0028 0001 0000 40 06 8e8a c000020a c6336407" + TCP
"""From 192.0.2.10 port 51000 to 198.51.100.7 port 443, of 40 octets."""
FIVE = {
    "sourceIPv4Address": ipv4("192.0.2.10"), "destinationIPv4Address": ipv4("198.51.100.7"), "protocolIdentifier": 6,
    "sourceTransportPort": 51000, "destinationTransportPort": 443,
}  # fmt: skip
PORTS = {"sourceTransportPort", "destinationTransportPort"}
SIX = "60000000 0014 06 40 20010db8000000000000000000000001 20010db8000000000000000000000002" + TCP
COUNTS = frozenset({"octetDeltaCount", "packetDeltaCount"})


def junos(*records, fields=((10, 4), (14, 4), (312, 2), (315, 65535)), **keywords):
    """A Message with a template, and one with these records of it."""
    return message(a_set(2, template(1000, *fields))), message(a_set(1000, *records), **keywords)


def frame(octets, size=1514):
    """A record of Junos' template."""
    return struct.pack("!IIH", 7, 8, size) + varying(octets)


class SectionTests(SynchronousTestCase):
    """What comes of a section."""

    maxDiff = None

    def rows(self, *messages, wanted=wire.ALL, **keywords):
        self.found = Collected(wanted, **keywords)
        return self.found.rows(*messages)

    def keys(self, row, *names):
        return {name: row[name] for name in names if name in row}

    def test_frame(self):
        """PS-1: the 5-tuple of a dataLinkFrameSection, and octets of the IP packet (1500 of a frame of 1514)."""
        (row,) = self.rows(*junos(frame(hexed(MACS + "0800" + IP))))
        self.assertEqual(FIVE, self.keys(row, *FIVE))
        expected = {"octetDeltaCount": 1500, "packetDeltaCount": 1, "dataLinkFrameSize": 1514, "ingressInterface": 7,
                    "ipTotalLength": 40, "sourceMacAddress": 0x020000000001, "tcpControlBits": 0x18}  # fmt: skip
        self.assertEqual(expected, self.keys(row, *expected))

    def test_packet(self):
        """ipHeaderPacketSection of fixed length, with its padding, and the rate in the record."""
        octets = hexed("00000007" + IP + "00" * 24 + "000003e8")
        sent = junos(octets, fields=((10, 4), (313, 64), (34, 4)))
        (row,) = self.rows(*sent, scale=True)
        self.assertEqual(FIVE, self.keys(row, *FIVE))
        self.assertEqual((40_000, 1000, 1000.0), tuple(row[n] for n in (*sorted(COUNTS), "sampling_factor")))

    def test_tags_and_labels(self):
        """VLAN tags and MPLS labels before IP are columns, and no octets of the packet."""
        tagged = frame(hexed(MACS + "88a8 0064 8100 60c8 86dd" + SIX), 1522)
        labelled = frame(hexed(MACS + "8847 000100ff 000201ff" + IP), 1522)
        one, other = self.rows(*junos(labelled, tagged))
        self.assertEqual((FIVE, 1500), (self.keys(one, *FIVE), one["octetDeltaCount"]))
        self.assertEqual(("000100", "000201"), (one["mplsTopLabelStackSection"].hex(),
                                                one["mplsLabelStackSection2"].hex()))  # fmt: skip
        self.assertNotIn("vlanId", one)
        expected = {"vlanId": 100, "dot1qCustomerVlanId": 200, "dot1qCustomerPriority": 3, "octetDeltaCount": 1500,
                    "sourceIPv6Address": ipv6("2001:db8::1"), "destinationTransportPort": 443}  # fmt: skip
        self.assertEqual(expected, self.keys(other, *expected))
        self.assertNotIn("mplsTopLabelStackSection", other)

    def test_families(self):
        """A batch is of one family, and its rows find their addresses."""
        four, six = frame(hexed(MACS + "0800" + IP)), frame(hexed(MACS + "86dd" + SIX))
        batches = Collected().batches(*junos(four, six, four))
        self.assertEqual([(2, False), (1, True)], [(batch.n, batch.schema.ipv6) for batch in batches])
        (batch,) = Collected().batches(*junos(six, six))
        self.assertEqual((2, False), (batch.n, "sourceIPv4Address" in batch.schema))

    def test_octets(self):
        """The size of the frame says how long a packet is, but for padding and check sequence."""
        told = hexed(MACS + "0800" + IP)
        segmented = hexed(MACS + "0800" + IP.replace("0028", "0000", 1))
        jumbo = hexed(MACS + "86dd" + SIX.replace("0014", "0000", 1))
        arp = hexed(MACS + "0806 0001 0800 06 04 0001")
        for octets, size, expected in (
            (told, 1514, 1500), (told, 60, 40), (told, 64, 40), (told, 58, 40), (told, 54, 40), (told, 0, 40),
            (told, 20, 40), (segmented, 9014, 9000), (segmented, 0, 40), (jumbo, 65535, 65521), (jumbo, 0, 60),
            (arp, 60, 60), (arp, 0, None),
        ):  # fmt: skip
            (row,) = self.rows(*junos(frame(octets, size)))
            self.assertEqual((expected, 1), (row.get("octetDeltaCount"), row["packetDeltaCount"]), (octets, size))

    def test_own_fields(self):
        """A template's own counters and addresses go before what the section says."""
        fields = ((1, 4), (2, 4), (8, 4), (21, 4), (22, 4), (313, 65535))
        octets = hexed("000004d2 00000005 cb007101 00000001 00000002") + varying(hexed(IP))
        (row,) = self.rows(*junos(octets, fields=fields))
        self.assertEqual((1234, 5, ipv4("203.0.113.1"), ipv4("198.51.100.7")),
                         (row["octetDeltaCount"], row["packetDeltaCount"], row["sourceIPv4Address"],
                          row["destinationIPv4Address"]))  # fmt: skip
        self.assertNotIn("flowStartMilliseconds", row)
        (row,) = self.rows(*junos(hexed("00000640") + varying(hexed(IP)), fields=((352, 4), (313, 65535))))
        self.assertNotIn("octetDeltaCount", row)

    def test_sizes_and_offsets(self):
        """PS-2: sectionExportedOctets ends a field of fixed length; a section may begin in the middle of a packet."""
        fields = ((409, 2), (410, 2), (408, 2), (315, 64))
        whole = hexed(MACS + "0800" + IP)
        for offset, size, kind, names in (
            (0, 54, 1, set(FIVE)), (0, 54, 0, set(FIVE)), (0, 64, 1, set(FIVE)), (0, 34, 1, set(FIVE) - PORTS),
            (0, 33, 1, set()), (14, 54, 1, set()), (0, 54, 2, set()), (0, 54, 3, set()),
        ):  # fmt: skip
            octets = struct.pack("!HHH", offset, size, kind) + whole.ljust(64, b"\0")
            (row,) = self.rows(*junos(octets, fields=fields))
            self.assertEqual(names, set(self.keys(row, *FIVE)), (offset, size, kind))
            self.assertEqual(None if offset or kind > 1 else 1, row.get("packetDeltaCount"))

    def test_nothing_readable(self):
        """Of a section that holds no packet nothing is made; its neighbours are as they were."""
        whole = frame(hexed(MACS + "0800" + IP))
        rows = self.rows(*junos(whole, frame(b""), frame(bytes(13)), whole))
        self.assertEqual([1, None, None, 1], [row.get("packetDeltaCount") for row in rows])
        self.assertEqual({"ingressInterface", "egressInterface", "dataLinkFrameSize", "dataLinkFrameSection"},
                         {name for row in rows[1:3] for name, value in row.items() if value is not None})  # fmt: skip
        (row,) = self.rows(*junos(varying(b"abcd"), fields=((313, 65535),)))
        self.assertEqual({"ipHeaderPacketSection": b"abcd"}, row)

    def test_cisco(self):
        """NetFlow v9's layer2packetSection, with its offset and size; its other fields count."""
        fields = ((1, 4), (2, 4), (102, 2), (103, 2), (104, 64))
        body = hexed("00000640 00000001 0000 0036" + MACS + "0800" + IP).ljust(76, b"\0")
        sets = a_set(0, template(300, *fields)), a_set(300, body)
        sent = struct.pack("!HHIIII", 9, 2, 1000, 1000, 0, 1) + b"".join(sets)
        (row,) = self.rows(sent)
        self.assertEqual((FIVE, 1600), (self.keys(row, *FIVE), row["octetDeltaCount"]))

    def test_netflow9(self):
        """dataLinkFrameSection of NetFlow v9, of fixed length with padding; the length of the frame as 242 says it."""
        fields = ((242, 2), (315, 96))
        body = struct.pack("!H", 1514) + hexed(MACS + "0800" + IP).ljust(96, b"\0")
        sets = a_set(0, template(300, *fields)), a_set(300, body)
        (row,) = self.rows(struct.pack("!HHIIII", 9, 2, 1000, 1000, 0, 1) + b"".join(sets))
        self.assertEqual((FIVE, 1500), (self.keys(row, *FIVE), row["octetDeltaCount"]))

    def test_wireless(self):
        """A frame of 802.11, by dataLinkFrameType: without its header and that of LLC."""
        octets = hexed("8802 0000" + "020000000001" * 3 + "0000 0000 aaaa03 000000 0800" + IP)
        sent = struct.pack("!HH", 2, 1534) + varying(octets)
        (row,) = self.rows(*junos(sent, fields=((408, 2), (312, 2), (315, 65535))))
        self.assertEqual((FIVE, 1500), (self.keys(row, *FIVE), row["octetDeltaCount"]))

    def test_labels_and_payload(self):
        """mplsLabelStackSection, and what stands below it in mplsPayloadPacketSection or in the same section."""
        fields = ((316, 65535), (317, 65535))
        (row,) = self.rows(*junos(varying(hexed("000101ff")) + varying(hexed(IP)), fields=fields))
        self.assertEqual((FIVE, 40), (self.keys(row, *FIVE), row["octetDeltaCount"]))
        self.assertEqual("000101", row["mplsTopLabelStackSection"].hex())
        (row,) = self.rows(*junos(varying(hexed("000101ff" + IP)), fields=fields[:1]))
        self.assertEqual(FIVE, self.keys(row, *FIVE))

    def test_payload(self):
        """PS-4: ipPayloadPacketSection begins behind the header of IP: it stays octets."""
        (row,) = self.rows(*junos(varying(hexed(TCP)), fields=((314, 65535),)))
        self.assertEqual({"ipPayloadPacketSection": hexed(TCP)}, row)

    def test_times(self):
        """PS-3: A packet was seen at the observation time, in whatever unit, or when its record came."""
        for element, length, value, expected in (
            (323, 8, 1700000000123, 1700000000123), (322, 4, 1700000000, 1700000000000),
            (324, 8, (1700000000 + 2208988800) << 32 | 1 << 31, 1700000000500),
            (325, 8, (1700000000 + 2208988800) << 32 | 1 << 31, 1700000000500),
        ):  # fmt: skip
            octets = value.to_bytes(length, "big") + varying(hexed(IP))
            wanted = frozenset({"flowStartMilliseconds", "flowEndMilliseconds"})
            (row,) = self.rows(*junos(octets, fields=((element, length), (313, 65535))), wanted=wanted)
            self.assertEqual({"flowStartMilliseconds": expected, "flowEndMilliseconds": expected}, row)
        (row,) = self.rows(*junos(frame(hexed(MACS + "0800" + IP))))
        self.assertEqual(2_000_000, row["flowStartMilliseconds"])

    def test_psamp(self):
        """A PSAMP packet report (RFC 5476): its Selection Sequence names selectors, and these tell their rates."""
        told = message(
            a_set(3, options_template(258, 1, (301, 8), (302, 8)),
                  options_template(259, 1, (302, 8), (304, 2), (305, 4), (306, 4))),
            a_set(258, struct.pack("!QQ", 5, 7)), a_set(259, struct.pack("!QHII", 7, 1, 1, 999)),
        )  # fmt: skip
        report = struct.pack("!QQH", 5, 1_700_000_000_123, 1514) + varying(hexed(MACS + "0800" + IP))
        fields = ((301, 8), (323, 8), (312, 2), (315, 65535))
        sent = message(a_set(2, template(256, *fields)), a_set(256, report), number=2)
        row = self.rows(told, sent, scale=True)[-1]
        expected = {"octetDeltaCount": 1_500_000, "packetDeltaCount": 1000, "flowEndMilliseconds": 1_700_000_000_123}
        self.assertEqual(expected | FIVE, self.keys(row, *expected, *FIVE))

    def test_wanted(self):
        """Only what is asked for is made, and what is read for it is not given."""
        sent = junos(frame(hexed(MACS + "0800" + IP)))
        (row,) = self.rows(*sent, wanted=frozenset({"octetDeltaCount", "destinationTransportPort"}))
        self.assertEqual({"octetDeltaCount": 1500, "destinationTransportPort": 443}, row)
        (row,) = self.rows(*sent, wanted=frozenset({"ingressInterface"}))
        self.assertEqual({"ingressInterface": 7}, row)

    def test_tunnels(self):
        """With tunnels=inner the packet inside, and the ends of the tunnel; octets without all that is around it."""
        outer = "4500 0050 0001 0000 40 2f 0000 cb007101 cb007102 0000 0800"
        sent = junos(frame(hexed(MACS + "0800" + outer + IP)))
        (row,) = self.rows(*sent)
        self.assertEqual((ipv4("203.0.113.1"), 47, 1500), (row["sourceIPv4Address"], row["protocolIdentifier"],
                                                            row["octetDeltaCount"]))  # fmt: skip
        (row,) = self.rows(*sent, inner=True)
        self.assertEqual((FIVE, 1476), (self.keys(row, *FIVE), row["octetDeltaCount"]))
        self.assertEqual((47, 0xFFFFCB007101), (row["tunnel.protocol"], row["tunnel.source"]))

    @given(st.integers(0, (1 << 32) - 1), st.integers(1, 30), st.integers(0, 1600), st.booleans())
    def test_as_alone(self, seed, n, most, inner):
        """Sections of many packets, cut anywhere: each row is what its packet is alone, by the plain reader too."""
        chance = random.Random(seed)
        packets = [frames.ethernet(chance, chance.random() < 0.5)[: chance.randrange(most + 1)] for _ in range(n)]
        found = Collected(inner=inner).rows(*junos(*(frame(packet, 0) for packet in packets)))
        alone = [Collected(inner=inner).rows(*junos(frame(packet, 0)))[0] for packet in packets]
        key = repr
        self.assertEqual(sorted(map(key, map(sorted_items, alone))), sorted(map(key, map(sorted_items, found))))
        if not inner:
            for packet, row in zip(packets, alone, strict=True):
                _, expected = plain.read(packet, True)
                for name in FIVE:
                    self.assertEqual(expected.get(name), row.get(name), (name, packet.hex()))


def sorted_items(row):
    """A row as something that can be compared and sorted."""
    return sorted((name, value.hex() if isinstance(value, bytes) else value) for name, value in row.items())
