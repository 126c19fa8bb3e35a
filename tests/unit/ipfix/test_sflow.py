"""sFlow version 5: real captures by their outlines and by tshark, and octets written by hand."""

import json
import random
import struct
import subprocess
from collections import Counter
from pathlib import Path

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, require_program, shared_path
from tests.unit.ipfix.wire import Collected, check, hexed, ipv4, ipv6
from ulogd_tw.core.plugin import ALL


def words(*numbers):
    """XDR unsigned integers."""
    return struct.pack(f"!{len(numbers)}I", *numbers)


def element(tag, octets):
    """A sample or record: tag, length, octets, filled up to four."""
    return words(tag, len(octets)) + octets + bytes(-len(octets) % 4)


def datagram(*samples, agent="c0000207", sub_agent=0, number=1, count=None):
    """A datagram of these samples."""
    octets = hexed(agent)
    head = words(5, 1 if len(octets) == 4 else 2) + octets
    return head + words(sub_agent, number, 1000, len(samples) if count is None else count) + b"".join(samples)


def raw(packet, protocol=1, frame=None):
    """The record of a raw packet header."""
    body = words(protocol, len(packet) + 4 if frame is None else frame, 4, len(packet)) + packet
    return element(1, body + bytes(-len(packet) % 4))


def flow_sample(*records, number=1, source=3, rate=100, pool=5000, drops=0, entered=3, left=4, count=None):
    """A flow sample of these records."""
    body = words(number, source, rate, pool, drops, entered, left, len(records) if count is None else count)
    return element(1, body + b"".join(records))


TCP = hexed(
    "020000000001 020000000002 0800 45 10 0028 1234 4000 40 06 0000 c0000201 c6336407"
    "0400 01bb 00000001 00000002 5012 2000 0000 0000"
)
"""From 192.0.2.1 port 1024 to 198.51.100.7 port 443: SYN and ACK, TTL 64, DSCP 4."""
INTERFACE = words(7, 6, 0, 1_000_000_000, 1, 3, 0, 1000, 10, 0xFFFFFFFF, 2, 0, 1, 0xFFFFFFFF, 1, 5, 20, 0, 3, 0, 0, 2)


class SampleTests(SynchronousTestCase):
    """Octets written by hand from the sFlow specification."""

    def rows(self, *octets, wanted=ALL, **keywords):
        self.found = Collected(wanted, reliable=False, **keywords)
        return self.found.rows(*octets)

    def test_flow_sample(self):
        """SF-1, SF-4: a raw header, one packet of the frame's octets, with rate, source and interfaces."""
        (row,) = self.rows(datagram(flow_sample(raw(TCP, frame=1518))))
        self.assertEqual(
            {
                "exporterIPv4Address": ipv4("192.0.2.7"), "sourceMacAddress": 0x020000000002,
                "destinationMacAddress": 0x020000000001, "ethernetType": 0x0800, "ipVersion": 4,
                "sourceIPv4Address": ipv4("192.0.2.1"), "destinationIPv4Address": ipv4("198.51.100.7"),
                "protocolIdentifier": 6, "sourceTransportPort": 1024, "destinationTransportPort": 443,
                "tcpSequenceNumber": 1, "tcpAcknowledgementNumber": 2, "tcpControlBits": 0x12, "tcpWindowSize": 0x2000,
                "ipClassOfService": 0x10, "ipTTL": 64, "ipTotalLength": 40, "fragmentIdentification": 0x1234,
                "fragmentFlags": 0x40, "fragmentOffset": 0, "octetDeltaCount": 1518, "packetDeltaCount": 1,
                "sampleSequence": 1, "sampleSourceType": 0, "sampleSourceIndex": 3, "samplingInterval": 100,
                "samplePool": 5000, "sampleDrops": 0, "ingressInterface": 3, "egressInterface": 4,
                "flowStartMilliseconds": 2_000_000, "flowEndMilliseconds": 2_000_000,
            },
            row,
        )  # fmt: skip
        self.assertEqual({}, self.found.errors)

    def test_context(self):
        """The sub-agent is the domain, the format of the sample the template."""
        found = Collected(reliable=False)
        (batch,) = found.batches(datagram(flow_sample(raw(TCP)), sub_agent=9))
        (row,) = batch.rows()
        self.assertEqual(
            (9, 1, b"data", 2_000_000, ipv4("192.0.2.1")),
            tuple(row[k] for k in ("observationDomainId", "templateId", "record_kind", "received_ms", "exporter")),
        )
        self.assertNotIn("export_time", row)

    def test_interfaces(self):
        """SF-3: indices, discarded packets, several interfaces, and what is not known; plain and expanded."""
        unknown = 0x3FFFFFFF
        rows = self.rows(
            datagram(*(flow_sample(raw(TCP), entered=e, left=o) for e, o in ((unknown, unknown), (1, 1 << 30 | 257),
                                                                          (2, 2 << 30 | 5))))
        )  # fmt: skip
        names = ("ingressInterface", "egressInterface", "dropReason", "outputInterfaces")
        self.assertEqual([(None,) * 4, (1, None, 257, None), (2, None, None, 5)],
                         [tuple(row.get(name) for name in names) for row in rows])  # fmt: skip
        expanded = element(3, words(1, 0, 1_073_741_900, 100, 0, 0, 0, 1_073_741_900, 1, 256, 1) + raw(TCP))
        (row,) = self.rows(datagram(expanded))
        self.assertEqual((1_073_741_900, None, 256), tuple(row.get(name) for name in names[:3]))
        self.assertEqual(1_073_741_900, row["sampleSourceIndex"])

    def test_scaled(self):
        """scale_sampled=1: counts times the rate of the sample; a rate of 0 is none."""
        octets = datagram(flow_sample(raw(TCP, frame=100), rate=1000), flow_sample(raw(TCP, frame=100), rate=0))
        rows = self.rows(octets, scale=True)
        got = [(row["octetDeltaCount"], row["packetDeltaCount"], row["sampling_factor"]) for row in rows]
        self.assertEqual([(100_000, 1000, 1000.0), (100, 1, 1.0)], got)
        rows = self.rows(octets, wanted=frozenset({"sampling_factor", "octetDeltaCount"}))
        self.assertEqual([{"octetDeltaCount": 100, "sampling_factor": 1000.0},
                          {"octetDeltaCount": 100, "sampling_factor": 1.0}], rows)  # fmt: skip

    def test_decoded_by_the_agent(self):
        """Records of Ethernet, IPv4 and IPv6 in the place of a raw header, and with one."""
        four = element(3, words(84, 17, ipv4("192.0.2.1"), ipv4("198.51.100.7"), 53, 1025, 0, 8))
        ends = b"".join(ipv6(text).to_bytes(16, "big") for text in ("2001:db8::1", "2001:db8::2"))
        six = element(4, words(200, 6) + ends + words(80, 1026, 0x12, 0))
        ether = element(2, words(64) + hexed("020000000002 0000 020000000001 0000") + words(0x88CC))
        rows = self.rows(datagram(flow_sample(four), flow_sample(six), flow_sample(ether), flow_sample(raw(TCP), four)))
        by_size = {row["octetDeltaCount"]: row for row in rows}
        self.assertEqual({84, 200, 64, len(TCP) + 4}, set(by_size))
        self.assertEqual((ipv4("192.0.2.1"), 17, 53, 1025, 8, None),
                         tuple(by_size[84].get(n) for n in ("sourceIPv4Address", "protocolIdentifier",
                               "sourceTransportPort", "destinationTransportPort", "ipClassOfService",
                               "tcpControlBits")))  # fmt: skip
        self.assertEqual((ipv6("2001:db8::2"), 80, 0x12),
                         tuple(by_size[200][n] for n in ("destinationIPv6Address", "sourceTransportPort",
                                                         "tcpControlBits")))  # fmt: skip
        self.assertEqual((0x020000000002, 0x020000000001, 0x88CC),
                         tuple(by_size[64][n] for n in ("sourceMacAddress", "destinationMacAddress",
                                                        "ethernetType")))  # fmt: skip
        self.assertEqual(1024, by_size[len(TCP) + 4]["sourceTransportPort"])

    def test_frame_of_the_agent(self):
        """Record 2 gives the frame's octets and addresses to a packet of record 3, but not to one with a raw header."""
        four = element(3, words(84, 17, ipv4("192.0.2.1"), ipv4("198.51.100.7"), 53, 1025, 0, 8))
        ether = element(2, words(102) + hexed("020000000003 0000 020000000004 0000") + words(0x0800))
        rows = self.rows(datagram(flow_sample(four, ether), flow_sample(raw(TCP), ether, four)))
        got = {row["sourceMacAddress"]: (row["octetDeltaCount"], row["ethernetType"], row["protocolIdentifier"])
               for row in rows}  # fmt: skip
        self.assertEqual({0x020000000003: (102, 0x0800, 17), 0x020000000002: (len(TCP) + 4, 0x0800, 6)}, got)

    def test_two_headers(self):
        """Of several records of one kind the first counts."""
        rows = self.rows(datagram(flow_sample(raw(TCP, frame=100), raw(TCP, frame=200), raw(TCP, frame=300))))
        self.assertEqual([100], [row["octetDeltaCount"] for row in rows])

    def test_no_packet(self):
        """A sample that says nothing of its packet is one packet of unknown length."""
        (row,) = self.rows(datagram(flow_sample()))
        self.assertEqual((1, None, 100), tuple(row.get(n) for n in ("packetDeltaCount", "octetDeltaCount",
                                                                    "samplingInterval")))  # fmt: skip

    def test_labels(self):
        """header_protocol 13: a label stack, and IP below it; several packets of different depths."""
        top, bottom = words(100 << 12 | 1 << 9 | 5), words(200 << 12 | 0x100 | 5)
        stacks = (bottom, top + bottom)
        rows = self.rows(datagram(*(flow_sample(raw(stack + TCP[14:], protocol=13)) for stack in stacks)))
        self.assertEqual(
            [(hexed("000c81"), None, 443), (hexed("000642"), hexed("000c81"), 443)],
            [tuple(row.get(n) for n in ("mplsTopLabelStackSection", "mplsLabelStackSection2",
                                        "destinationTransportPort")) for row in rows],
        )  # fmt: skip

    def test_tunnels(self):
        """With tunnels=inner the packet inside GRE, of IPv6 in IP and of Ethernet over MPLS; octets are the frame's."""
        inner = TCP[14:]
        gre = hexed("4500 0040 0001 0000 40 2f 0000 cb007101 cb007102 0000 0800") + inner
        pseudowire = TCP[:12] + hexed("8847 000101ff 00000000") + TCP
        sent = datagram(*(flow_sample(raw(p, frame=1078)) for p in (TCP[:14] + gre, pseudowire, TCP)))
        addresses = [row.get("sourceIPv4Address") for row in self.rows(sent)]
        self.assertEqual({ipv4("203.0.113.1"), None, ipv4("192.0.2.1")}, set(addresses))
        rows = sorted(self.rows(sent, inner=True), key=lambda row: row.get("tunnel.protocol", 0))
        expected = ((None, None, None), (47, None, 0xFFFFCB007101), (137, 16, None))
        for row, tunnel in zip(rows, expected, strict=True):
            self.assertEqual((ipv4("192.0.2.1"), 1024, 1078), (row["sourceIPv4Address"], row["sourceTransportPort"],
                                                                 row["octetDeltaCount"]))  # fmt: skip
            found = (row.get("tunnel.protocol"), row.get("tunnel.id"), row.get("tunnel.source"))
            self.assertEqual(tunnel, found)

    def test_short_records(self):
        """A record that ends before what it should have: nothing is taken of the next one."""
        router = element(1002, words(2, 0x20010DB8, 0, 0))
        gateway = element(1003, words(2, 0x20010DB8, 0, 0, 9, 64500))
        path = element(1003, words(1, 0x01020304, 64500, 64501, 64502, 1, 2, 5, 64503))
        (row, other) = self.rows(datagram(flow_sample(router, gateway, raw(TCP)), flow_sample(path, raw(TCP))))
        found = {k: v for k, v in row.items() if "Hop" in k or "Prefix" in k or "bgp" in k}
        self.assertEqual({"bgpNextHopIPv6Address": 0x20010DB8 << 96 | 9}, found)
        found = {k: v for k, v in other.items() if "bgp" in k}
        self.assertEqual({"bgpNextHopIPv4Address": 0x01020304, "bgpSourceAsNumber": 64501,
                          "bgpPrevAdjacentAsNumber": 64502, "bgpDestinationAsNumber": 64500}, found)  # fmt: skip

    def test_agents(self):
        """Agents of both families behind one sender, in one wake-up."""
        found = Collected(reliable=False)
        six = "20010db8000000000000000000000001"
        rows = found.rows(*(datagram(flow_sample(raw(TCP)), agent=agent) for agent in ("c0000207", six, "c0000208")))
        agents = [(row.get("exporterIPv4Address"), row.get("exporterIPv6Address")) for row in rows]
        expected = {(0xC0000207, None), (0xC0000208, None), (None, ipv6("2001:db8::1"))}
        self.assertEqual((3, expected), (len(agents), set(agents)))

    def test_switch_router_gateway(self):
        """VLANs, next hop, prefixes, and the last AS of the path as the destination's."""
        switch = element(1001, words(10, 1, 20, 2))
        router = element(1002, words(1, ipv4("203.0.113.1"), 24, 16))
        path = (2, 2, 2, 64503, 64504, 1, 1, 64505)
        gateway = element(1003, words(1, ipv4("203.0.113.2"), 64500, 64501, 64502, *path, 0, 7))
        (row,) = self.rows(datagram(flow_sample(raw(TCP), switch, router, gateway)))
        self.assertEqual(
            {
                "vlanId": 10, "dot1qPriority": 1, "postVlanId": 20, "ipNextHopIPv4Address": ipv4("203.0.113.1"),
                "sourceIPv4PrefixLength": 24, "destinationIPv4PrefixLength": 16,
                "bgpNextHopIPv4Address": ipv4("203.0.113.2"), "bgpSourceAsNumber": 64501,
                "bgpPrevAdjacentAsNumber": 64502, "bgpNextAdjacentAsNumber": 64503, "bgpDestinationAsNumber": 64505,
                "bgpDestinationAsPath": b"64503 64504 {64505}", "bgpLocalPreference": 7,
            },
            {k: v for k, v in row.items() if "vlan" in k.lower() or "Hop" in k or "Prefix" in k or "bgp" in k
             or k == "dot1qPriority"},
        )  # fmt: skip
        six = element(1002, words(2) + ipv6("2001:db8::9").to_bytes(16, "big") + words(64, 48))
        (row,) = self.rows(datagram(flow_sample(raw(TCP), six)))
        self.assertEqual(ipv6("2001:db8::9"), row["ipNextHopIPv6Address"])

    def test_counters(self):
        """An options record of an interface; what the agent does not count is missing."""
        ethernet = words(1, 2, *[0xFFFFFFFF] * 11)
        sample = element(2, words(5, 7, 2) + element(1, INTERFACE) + element(2, ethernet))
        found = Collected(reliable=False)
        (batch,) = found.batches(datagram(sample))
        (row,) = batch.rows()
        self.assertEqual(
            (b"options", 7, 1_000_000_000, 1000, 10, None, 2, None, 1 << 32 | 5, 20, 2, 1, 2, None),
            tuple(row.get(n) for n in ("record_kind", "ifIndex", "ifSpeed", "ifInOctets", "ifInUcastPkts",
                  "ifInMulticastPkts", "ifInBroadcastPkts", "ifInUnknownProtos", "ifOutOctets", "ifOutUcastPkts",
                  "ifPromiscuousMode", "dot3StatsAlignmentErrors", "dot3StatsFCSErrors", "dot3StatsSymbolErrors")),
        )  # fmt: skip

    def test_discarded(self):
        """A discarded packet with its reason."""
        sample = element(5, words(1, 0, 3, 7, 3, 4, 291, 1) + raw(TCP))
        (row,) = self.rows(datagram(sample))
        self.assertEqual((291, 7, 3, 443), tuple(row[n] for n in ("dropReason", "sampleDrops", "ingressInterface",
                                                                  "destinationTransportPort")))  # fmt: skip

    def test_unknown(self):
        """SF-2: samples and records of other kinds are passed over by their length; samples are counted."""
        strange = element(4300 << 12 | 1, words(1, 2, 3, 4))
        (row,) = self.rows(datagram(strange, flow_sample(element(2001, b"abcde"), raw(TCP)), strange))
        self.assertEqual(443, row["destinationTransportPort"])
        self.assertEqual({"sample_format": 2}, self.found.errors)
        self.assertEqual(1, self.found.counters.figures["unread_records"])
        self.rows(datagram(element(2, words(1, 3, 2) + element(1, INTERFACE) + element(7, b"1234"))))
        self.assertEqual(1, self.found.counters.figures["unread_records"])

    def test_losses(self):
        """Datagrams by their number, of each agent and sub-agent its own; and what the agent could not sample."""
        found = Collected(reliable=False)
        for number, drops in ((1, 10), (2, 10), (5, 25), (6, 5)):
            found.rows(datagram(flow_sample(raw(TCP), drops=drops), number=number))
        found.rows(datagram(flow_sample(raw(TCP), drops=4), number=900, sub_agent=1))
        found.rows(datagram(flow_sample(raw(TCP), drops=4), number=7, agent="c0000208"))
        self.assertEqual({"sequence": 2}, dict(found.counters.lost))
        self.assertEqual(15, found.counters.figures["exporter_dropped_samples"])
        self.assertEqual({}, found.errors)
        found.decoder.forget(found.session)
        self.assertEqual({}, found.decoder._sflow._drops)

    def test_malformed(self):
        """Lengths that cannot be cost their sample, and a cut what stands behind it; the next datagram is read."""
        good, whole = datagram(flow_sample(raw(TCP)), number=2), flow_sample(raw(TCP))
        for octets, reason, kept in (
            (datagram(whole)[:-4], "record", 0),
            (datagram(whole, count=2), "record", 1),
            (datagram(whole, whole, whole)[:-4], "record", 2),
            (datagram(flow_sample(raw(TCP), count=5)), "record", 0),
            (datagram(whole, flow_sample(raw(TCP), count=5), whole), "record", 2),
            (datagram(whole, element(1, words(1, 2)), whole), "record", 2),
            (datagram(flow_sample(words(1, 0xFFFFFFFC)), whole), "record", 1),
            (datagram(count=0xFFFFFFFF), "length", 0),
            (words(5, 3) + bytes(40), "length", 0),
            (words(5, 1), "length", 0),
        ):
            rows = self.rows(octets, good)
            found = (len(rows), {k: v for k, v in self.found.errors.items() if v})
            self.assertEqual((1 + kept, {reason: 1}), found, octets)
            self.assertEqual(1, self.found.decoder.malformed)

    def test_no_agent(self):
        """An agent that does not tell its address (type 0) is known by who sent the datagram."""
        octets = words(5, 0, 7, 1, 1000, 1) + flow_sample(raw(TCP))
        (batch,) = Collected(reliable=False).batches(octets)
        (row,) = batch.rows()
        self.assertEqual((7, ipv4("192.0.2.1")), (row["observationDomainId"], row["exporter"]))
        self.assertNotIn("exporterIPv4Address", row)

    def test_wanted(self):
        """Only what is asked for."""
        rows = self.rows(datagram(flow_sample(raw(TCP))), wanted=frozenset({"octetDeltaCount", "sourceTransportPort"}))
        self.assertEqual([{"sourceTransportPort": 1024, "octetDeltaCount": len(TCP) + 4}], rows)


class CorpusTests(SynchronousTestCase):
    """The sixteen captures."""

    def cases(self):
        for path in sorted(shared_path("corpus", "ipfix", "oracle").glob("*.json")):
            oracle = json.loads(path.read_text())
            if oracle["protocol"] == "sflow5":
                lines = shared_path("corpus", "ipfix", "messages", path.name + "l").read_text().splitlines()
                yield oracle, [bytes.fromhex(json.loads(line)["hex"]) for line in lines]

    def test_outlines(self):
        """Every sample of every datagram, with its sequence, source, rate, pool, drops and interfaces."""
        cases = samples = 0
        for oracle, octets in self.cases():
            found = Collected(reliable=False)
            expected, got = Counter(), Counter()
            for one in oracle["datagrams"]:
                for sample in one["samples"]:
                    if sample["format"] == 5:  # the outline leaves a discarded packet's fields out
                        sample |= {"sequence": 2, "source_type": 0, "source_index": 1, "drops": 256}
                    expected[one["sub_agent"], sample["format"], sample["sequence"], sample["source_type"],
                             sample["source_index"], sample.get("sampling_rate"), sample.get("sample_pool"),
                             sample.get("drops")] += 1  # fmt: skip
            for batch in found.batches(*octets):
                if "srcaddr" in batch.schema:
                    continue  # packets of NetFlow v5 beside those of sFlow
                for row in batch.rows():
                    got[row["observationDomainId"], row["templateId"], row["sampleSequence"], row["sampleSourceType"],
                        row["sampleSourceIndex"], row.get("samplingInterval"), row.get("samplePool"),
                        row.get("sampleDrops")] += 1  # fmt: skip
            self.assertEqual(expected, got, oracle["case"])
            self.assertEqual(set(), set(found.errors) - {"sequence_reset"}, oracle["case"])
            cases += 1
            samples += sum(expected.values())
        self.assertEqual((16, 172), (cases, samples))

    def test_interfaces(self):
        """Input and output as the outline has them."""
        for oracle, octets in self.cases():
            expected = Counter(
                (s["sequence"], s["input"], s["output"]) for d in oracle["datagrams"] for s in d["samples"]
                if s["format"] in (1, 3)
            )  # fmt: skip
            got = Counter()
            for batch in Collected(reliable=False).batches(*octets):
                for row in batch.rows():
                    if row.get("templateId") in (1, 3) and row["record_kind"] == b"data":
                        left = row.get("egressInterface")
                        if "dropReason" in row:
                            left = row["dropReason"] | (0 if row["templateId"] == 3 else 1 << 30)
                        if "outputInterfaces" in row:
                            left = row["outputInterfaces"] | (0 if row["templateId"] == 3 else 2 << 30)
                        left = 0x3FFFFFFF if left is None else left
                        got[row["sampleSequence"], row.get("ingressInterface", 0x3FFFFFFF), left] += 1
            self.assertEqual(expected, got, oracle["case"])

    def test_headers(self):
        """Addresses, ports, protocol and TTL of the sampled packets as tshark has them."""
        (tshark,) = require_program("tshark")
        fields = ("ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "tcp.srcport", "tcp.dstport", "ip.ttl")
        compared = 0
        cases = list(self.cases())
        by_tshark = self.by_tshark(tshark, [octets for _, octets in cases], fields)
        for (oracle, octets), expected in zip(cases, by_tshark, strict=True):
            got = [Counter() for _ in fields]
            for batch in Collected(reliable=False).batches(*octets):
                for row in batch.rows():
                    if "srcaddr" in row or row["record_kind"] != b"data":
                        continue
                    tcp = row.get("protocolIdentifier") == 6
                    values = [row.get("sourceIPv4Address"), row.get("destinationIPv4Address"),
                              row.get("sourceIPv6Address"), row.get("destinationIPv6Address"),
                              row.get("sourceTransportPort") if tcp else None,
                              row.get("destinationTransportPort") if tcp else None,
                              row.get("ipTTL") if row.get("ipVersion") == 4 else None]  # fmt: skip
                    for counter, value in zip(got, values, strict=True):
                        if value is not None:
                            counter[value] += 1
            self.assertEqual(expected, got, oracle["case"])
            compared += sum(map(Counter.total, got))
        self.assertEqual(66, compared)

    def by_tshark(self, tshark, cases, fields):
        """For each case the values of each field in the sampled headers; the outer packet's are left out."""
        datagrams = [(number, octets) for number, case in enumerate(cases) for octets in case]
        capture = Path(self.mktemp())
        with capture.open("wb") as file:
            file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101))
            for _, octets in datagrams:
                udp = struct.pack("!HHHH", 6343, 6343, 8 + len(octets), 0) + octets
                packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 99, 17, 0, b"\x7f\0\0\1",
                                     b"\x7f\0\0\1") + udp  # fmt: skip
                file.write(struct.pack("=IIII", 0, 0, len(packet), len(packet)) + packet)
        command = [tshark, "-r", capture, "-d", "udp.port==6343,sflow", "-T", "fields", "-E", "occurrence=a",
                   "-E", "aggregator=;", "-o", "ip.defragment:false", "-o", "sflow.enable_dissection:true"]  # fmt: skip
        for name in fields:
            command += ["-e", name]
        lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
        found = [[Counter() for _ in fields] for _ in cases]
        for (number, octets), line in zip(datagrams, lines, strict=True):
            if octets[:4] != b"\0\0\0\5":
                continue
            for place, (counter, column) in enumerate(zip(found[number], line.split("\t"), strict=True)):
                values = column.split(";") if column else []
                if fields[place] in ("ip.src", "ip.dst", "ip.ttl"):
                    values = values[1:]
                read = ipv4 if place < 2 else ipv6 if place < 4 else int
                counter.update(map(read, values))
        return found


packets = st.builds(
    lambda tag, protocol, tail: TCP[:12] + tag + b"\x08\0" + TCP[14:23] + bytes([protocol]) + TCP[24:] + tail,
    st.sampled_from((b"", b"\x81\0\0\x05", b"\x88\xa8\0\x06\x81\0\0\x07")),
    st.sampled_from((1, 6, 17, 47, 132)),
    st.binary(max_size=9),
)
records = st.one_of(
    packets.map(raw),
    st.just(element(1001, words(10, 1, 20, 2))),
    st.just(element(1002, words(1, 99, 24, 16))),
    st.just(element(3, words(84, 17, 1, 2, 53, 1025, 0, 8))),
    st.binary(max_size=10).map(lambda octets: element(77, octets)),
)
samples = st.one_of(
    st.lists(records, max_size=4).map(lambda found: flow_sample(*found)),
    st.lists(records, max_size=3).map(
        lambda found: element(3, words(1, 0, 9, 10, 0, 0, 0, 3, 0, 4, len(found)) + b"".join(found))
    ),
    st.just(element(2, words(5, 7, 1) + element(1, INTERFACE))),
    st.binary(max_size=10).map(lambda octets: element(999, octets)),
)
datagrams = st.lists(samples, max_size=5).map(lambda found: datagram(*found))


def plain(found):
    """All rows of a decoder, in any order."""
    rows = Counter()
    for batch in found.decoder.drain(2000.0):
        check(batch)
        rows.update(tuple(sorted(row.items(), key=str)) for row in batch.rows())
    return rows


class PropertyTests(SynchronousTestCase):
    """Any datagram."""

    @given(st.lists(datagrams, max_size=12))
    def test_batch_equals_one_by_one(self, sent):
        """All datagrams of a wake-up together give what each gives by itself."""
        together, single = Collected(reliable=False).feed(*sent), Collected(reliable=False)
        expected = Counter()
        for octets in sent:
            expected += plain(single.feed(octets))
        self.assertEqual(expected, plain(together))
        self.assertEqual(single.errors, together.errors)

    @given(st.lists(datagrams, min_size=1, max_size=12), st.randoms(use_true_random=False))
    def test_cut_and_changed(self, sent, chance: random.Random):
        """Cuts and wrong octets anywhere: nothing raises, other datagrams are there, and each bad one is counted."""
        wrong = []
        for octets in sent:
            octets = bytearray(octets[: chance.randrange(len(octets) + 1)])
            for _ in range(chance.randrange(4)):
                if octets[8:]:
                    octets[chance.randrange(4, len(octets))] = chance.randrange(256)
            wrong.append(bytes(octets))
        good = datagram(flow_sample(raw(TCP), number=0xABCDEF))
        found = Collected(reliable=False).feed(*wrong[: len(wrong) // 2], good, *wrong[len(wrong) // 2 :])
        rows = [dict(row) for row in plain(found).elements()]
        self.assertTrue(any(row.get("sampleSequence") == 0xABCDEF for row in rows))
        self.assertLessEqual(len(rows), sum(map(len, wrong)) // 8 + 1)
