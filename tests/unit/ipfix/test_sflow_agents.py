"""What sFlow agents in the field send: other links and orders, samples of every form, wrong lengths, vendors."""

import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.support import require_program
from tests.unit.ipfix.test_sflow import INTERFACE, TCP, datagram, element, flow_sample, raw, words
from tests.unit.ipfix.wire import Collected, hexed, ipv4, ipv6
from tests.unit.packets import wire as packets

IP = TCP[14:]
SIX = hexed("60000000 0014 06 40 20010db8000000000000000000000001 20010db8000000000000000000000002") + IP[20:]
MAC = "020000000001"
LINKS = (
    (7, "0021", IP), (7, "ff03 0021", IP), (7, "ff03 0057", SIX), (7, "21", IP), (7, "0281 000101ff", IP),
    (14, "ff03 0021", IP), (14, "0f00 0800", IP), (14, "8f00 86dd", SIX), (14, "0021", IP),
    (9, "aaaa03 000000 0800", IP), (9, "aaaa03 000000 86dd", SIX), (10, "", IP), (11, "", IP), (12, "", SIX),
    (11, "", SIX), (13, "000101ff", IP), (5, "1841 03cc", IP), (5, "1841 038e", SIX),
    (5, "1841 0300 80 000000 0800", IP), (5, "1841 0800", IP),
    (15, "0801 0000" + MAC * 3 + "0000 aaaa03 000000 0800", IP),
    (15, "8802 0000" + MAC * 3 + "0000 0000 aaaa03 000000 86dd", SIX),
    (15, "8803 0000" + MAC * 3 + "0000" + MAC + "0000 aaaa03 000000 0800", IP),
    (15, "8882 0000" + MAC * 3 + "0000 0000 00000000 aaaa03 000000 0800", IP),
)  # fmt: skip
"""header_protocol, what stands before the packet, the packet."""


class LinkTests(SynchronousTestCase):
    """Headers of other links than Ethernet."""

    def rows(self, *octets, **keywords):
        self.found = Collected(reliable=False, **keywords)
        return self.found.rows(*octets)

    def test_each(self):
        """The packet behind each is found, alone and all in one datagram."""
        samples = [flow_sample(raw(hexed(link) + packet, protocol), number=place)
                   for place, (protocol, link, packet) in enumerate(LINKS)]  # fmt: skip
        together = {row["sampleSequence"]: row for row in self.rows(datagram(*samples))}
        for place, (protocol, link, packet) in enumerate(LINKS):
            (row,) = self.rows(datagram(samples[place]))
            self.assertEqual(row, together[place], (protocol, link))
            expected = ("sourceIPv4Address", ipv4("192.0.2.1")) if packet is IP else (
                "sourceIPv6Address", ipv6("2001:db8::1")
            )  # fmt: skip
            self.assertEqual((expected[1], 443), (row.get(expected[0]), row.get("destinationTransportPort")), link)

    def test_every_cut(self):
        """Cut anywhere: there is a row, and nothing of a neighbour."""
        for protocol, link, packet in LINKS:
            octets = hexed(link) + packet
            for size in range(len(octets)):
                rows = self.rows(datagram(flow_sample(raw(octets[:size], protocol)), flow_sample(raw(TCP))))
                self.assertEqual(2, len(rows))
                at_ip = size - len(hexed(link))
                known = any("sourceIPv4Address" in row or "sourceIPv6Address" in row for row in rows[:1])
                self.assertLessEqual(known, at_ip >= 20 or rows[0].get("sourceTransportPort") == 1024, (protocol, size))

    def test_no_packet(self):
        """Frames of 802.11 that are protected or carry no data, token ring, and numbers beyond the list."""
        for protocol, link in (
            (15, "0841 0000" + MAC * 3 + "0000 aaaa03 000000 0800"), (15, "8000 0000" + MAC * 3 + "0000"),
            (15, "c802 0000" + MAC * 3 + "0000 0000 aaaa03 000000 0800"), (2, ""), (3, ""), (19, ""), (0xFFFFFFFF, ""),
            (7, "c021"), (7, ""), (9, "aaaa03 00000c 2000"), (5, "1841 0308"),
        ):  # fmt: skip
            (row,) = self.rows(datagram(flow_sample(raw(hexed(link) + IP, protocol))))
            self.assertEqual((1, None), (row["packetDeltaCount"], row.get("sourceIPv4Address")), (protocol, link))

    def test_tunnels(self):
        """Behind PPP too, with tunnels=inner."""
        gre = hexed("4500 0040 0001 0000 40 2f 0000 cb007101 cb007102 0000 0800") + IP
        (row,) = self.rows(datagram(flow_sample(raw(hexed("ff03 0021") + gre, 7))), inner=True)
        self.assertEqual((ipv4("192.0.2.1"), 47), (row["sourceIPv4Address"], row["tunnel.protocol"]))

    def test_tshark(self):
        """tshark reads the same addresses behind PPP, Frame Relay, MPLS and IP."""
        require_program("tshark")
        some = [one for one in LINKS if one[0] in (7, 11, 12, 13) and one[1] != "21" and one[2][:1] == IP[:1]]
        path = self.mktemp()
        sent = [datagram(flow_sample(raw(hexed(link) + packet, protocol))) for protocol, link, packet in some]
        with open(path, "wb") as file:
            file.write(packets.pcap([(1.0, packets.udp("192.0.2.8", "192.0.2.9", (6343, 6343), d)) for d in sent]))
        run = subprocess.run(["tshark", "-r", path, "-T", "fields", "-e", "ip.src"], capture_output=True, text=True,
                             check=True)  # fmt: skip
        self.assertEqual(["192.0.2.8,192.0.2.1"] * len(some), run.stdout.split())


class AgentTests(SynchronousTestCase):
    """Forms of samples and records."""

    def rows(self, *octets, **keywords):
        self.found = Collected(reliable=False, **keywords)
        return self.found.rows(*octets)

    def test_expanded(self):
        """Expanded samples (Cumulus, Mellanox, OVS): interfaces with their formats, unknown ones are missing."""
        for entered, left, expected in (
            ((0, 7), (0, 8), {"ingressInterface": 7, "egressInterface": 8}),
            ((0, 0x3FFFFFFF), (1, 262), {"dropReason": 262}),
            ((0, 7), (2, 5), {"ingressInterface": 7, "outputInterfaces": 5}),
            ((0, 0x80000001), (0, 0x40000002), {"ingressInterface": 0x80000001, "egressInterface": 0x40000002}),
        ):  # fmt: skip
            sample = element(3, words(1, 0, 7, 100, 5000, 0, *entered, *left, 1) + raw(TCP))
            (row,) = self.rows(datagram(sample))
            names = ("ingressInterface", "egressInterface", "dropReason", "outputInterfaces")
            self.assertEqual(expected, {name: row[name] for name in names if name in row})
            self.assertEqual((3, 100), (self._format(sample), row["samplingInterval"]))

    def _format(self, sample):
        (batch,) = Collected(reliable=False).batches(datagram(sample))
        return int(batch.columns["templateId"][0])

    def test_records_of_vendors(self):
        """Records and samples with an enterprise number are passed over and counted; neighbours are read."""
        record, sample = element(4413 << 12 | 1, words(1, 2, 3)), element(1991 << 12 | 1, words(1, 2))
        rows = self.rows(datagram(sample, flow_sample(record, raw(TCP), record), sample))
        self.assertEqual(["192.0.2.1"], [str(_address(row["sourceIPv4Address"])) for row in rows])
        figures = self.found.counters.figures
        self.assertEqual((2, 2), (figures["unread_records"], self.found.errors["sample_format"]))

    def test_order_of_records(self):
        """The raw header may stand behind the others, counters in any order and with unknown ones between."""
        switch = element(1001, words(10, 1, 20, 2))
        one, other = self.rows(datagram(flow_sample(switch, raw(TCP)), flow_sample(raw(TCP), switch)))
        self.assertEqual(one, other)
        ethernet, unknown = element(2, words(*range(1, 14))), element(1001, words(*range(7)))
        for records in ((ethernet, unknown, element(1, INTERFACE)), (element(1, INTERFACE), unknown, ethernet)):
            (row,) = self.rows(datagram(element(2, words(5, 7, 3) + b"".join(records))))
            self.assertEqual((7, 2), (row["ifIndex"], row["dot3StatsFCSErrors"]))

    def test_padding(self):
        """Lengths that are no multiple of four, with the fill that XDR asks for; a header longer than its record."""
        for size in range(54, 58):
            packet = TCP + bytes(size - len(TCP))
            record = words(1, 4 * 4 + size) + words(1, size + 4, 4, size) + packet + bytes(-size % 4)
            rows = self.rows(datagram(flow_sample(record), flow_sample(raw(TCP))))
            self.assertEqual([443, 443], [row["destinationTransportPort"] for row in rows])
        record = element(1, words(1, 1518, 4, 0xFFFFFFFF) + TCP)
        (row,) = self.rows(datagram(flow_sample(record)))
        self.assertEqual((443, 1518), (row["destinationTransportPort"], row["octetDeltaCount"]))

    def test_octets(self):
        """Octets are those of the frame on the wire, whatever was stripped or captured; 0 is not known."""
        for frame, stripped, captured, expected in ((1518, 4, 54, 1518), (1514, 0, 54, 1514), (64, 4, 54, 64),
                                                    (0, 0, 54, None), (9018, 4, 20, 9018)):  # fmt: skip
            record = element(1, words(1, frame, stripped, captured) + TCP[:captured])
            (row,) = self.rows(datagram(flow_sample(record)))
            self.assertEqual((expected, 1), (row.get("octetDeltaCount"), row["packetDeltaCount"]))

    def test_rate(self):
        """A rate of 0 scales by nothing; the biggest one fits."""
        for rate, expected in ((0, 1), (1, 1), (0xFFFFFFFF, 0xFFFFFFFF)):
            (row,) = self.rows(datagram(flow_sample(raw(TCP, frame=1000), rate=rate)), scale=True)
            self.assertEqual((1000 * expected, expected), (row["octetDeltaCount"], row["packetDeltaCount"]))

    def test_vlans(self):
        """The tag in the header and what the switch says: the header's octets stay, the switch completes."""
        tagged = TCP[:12] + hexed("8100 2064") + TCP[12:]
        switch = element(1001, words(0xFFFFFFFF, 0xFFFFFFFF, 300, 0xFFFFFFFF))
        (row,) = self.rows(datagram(flow_sample(raw(tagged), switch)))
        self.assertEqual((100, 100, 300, 1), tuple(row[name] for name in ("vlanId", "dot1qVlanId", "postVlanId",
                                                                         "dot1qPriority")))  # fmt: skip

    def test_trailing(self):
        """Octets behind the last sample or record (fill of some agents) change nothing."""
        (plain,) = self.rows(datagram(flow_sample(raw(TCP))))
        sample = flow_sample(raw(TCP))
        longer = words(1, len(sample) - 8 + 8) + sample[8:] + bytes(8)
        for octets in (datagram(sample) + bytes(12), datagram(sample) + b"abc", datagram(longer)):
            self.assertEqual([plain], self.rows(octets))
            self.assertEqual({}, {k: v for k, v in self.found.errors.items() if v})

    def test_nothing_sampled(self):
        """A datagram without samples, and samples without records, are no fault."""
        self.assertEqual([], self.rows(datagram()))
        (row,) = self.rows(datagram(flow_sample()))
        self.assertEqual((1, None), (row["packetDeltaCount"], row.get("octetDeltaCount")))
        self.assertEqual({}, self.found.errors)


def _address(number):
    return ".".join(str(number >> shift & 255) for shift in (24, 16, 8, 0))
