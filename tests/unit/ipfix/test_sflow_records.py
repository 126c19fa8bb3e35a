"""Records beside the packet in sFlow's samples: octets written by hand from sflow.org's structures, and by tshark."""

import ipaddress
import json
import random
import subprocess

from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, require_program, shared_path
from tests.unit.ipfix.test_sflow import TCP, datagram, element, flow_sample, raw, words
from tests.unit.ipfix.wire import Collected, hexed, ipv4, ipv6
from tests.unit.packets import wire as packets
from ulogd_tw.core.keys import NETFLOW7_KEYS, SFLOW_KEYS, SFLOW_RECORD_KEYS, registry
from ulogd_tw.core.resolve import Provided


def text(value):
    """A string of XDR: its length, and octets filled up to four."""
    return words(len(value)) + value + bytes(-len(value) % 4)


def address(value):
    """An address behind its type."""
    return words(1, ipv4(value)) if "." in value else words(2) + ipv6(value).to_bytes(16, "big")


def mac(octets):
    """Six octets, filled up."""
    return hexed(octets) + bytes(2)


def mapped(value):
    """An address of IPv4 as one of IPv6."""
    return 0xFFFF << 32 | ipv4(value)


def gateway(*segments, communities=(), preference=100, source=64501):
    """Record 1003."""
    body = address("203.0.113.2") + words(64500, source, 64502, len(segments))
    body += b"".join(words(kind, len(members), *members) for kind, *members in segments)
    return body + words(len(communities), *communities, preference)


TUNNEL4 = words(64, 17) + words(ipv4("192.0.2.8"), ipv4("192.0.2.9"), 5000, 4789, 0, 0)
TUNNEL6 = words(84, 47) + b"".join(ipv6(a).to_bytes(16, "big") for a in ("2001:db8::8", "2001:db8::9")) + bytes(16)
L2 = words(100) + mac("020000000003") + mac("020000000004") + words(0x0800)
RX = text(b"net") + mac("020000000005") + words(4, 11, 0, 54_000_000, 30, 40, 250)
TX = text(b"net") + mac("020000000005") + words(4, 2, 250, 90, 11, 0, 54_000_000, 100)

RECORDS = (
    (1003, gateway((2, 64510, 64511), (1, 64520, 64521), communities=(0xFBF40001, 0xFBF40002), preference=150), {
        "bgpNextHopIPv4Address": ipv4("203.0.113.2"), "bgpSourceAsNumber": 64501, "bgpPrevAdjacentAsNumber": 64502,
        "bgpNextAdjacentAsNumber": 64510, "bgpDestinationAsNumber": 64521, "bgpLocalPreference": 150,
        "bgpDestinationAsPath": b"64510 64511 {64520,64521}",
        "bgpDestinationCommunityList":
            b'{"semantic":3,"element":"bgpCommunity","values":["64500:1","64500:2"]}',
    }),
    (1003, gateway(source=0), {
        "bgpNextHopIPv4Address": ipv4("203.0.113.2"), "bgpSourceAsNumber": 64500, "bgpDestinationAsNumber": 64500,
        "bgpPrevAdjacentAsNumber": 64502, "bgpLocalPreference": 100,
    }),
    (1004, words(106) + text(b"alice") + words(106) + text(b"bob"),
     {"userName": b"alice", "destinationUserName": b"bob"}),
    (1004, words(0) + text(b"") + words(106) + text(b"bob"), {"destinationUserName": b"bob"}),
    (1005, words(2) + text(b"/index.html") + text(b"www.example.net"),
     {"urlDirection": 2, "httpRequestTarget": b"/index.html", "httpRequestHost": b"www.example.net"}),
    (1006, address("203.0.113.3") + words(2, 0x000100FF, 0x000201FF) + words(1, 0x000301FF), {
        "mplsTopLabelIPv4Address": ipv4("203.0.113.3"), "mplsTopLabelStackSection": hexed("000100"),
        "mplsLabelStackSection2": hexed("000201"), "mplsOutLabels": b"48",
    }),
    (1007, address("203.0.113.4") + address("2001:db8::4"),
     {"postNATSourceIPv4Address": ipv4("203.0.113.4"), "postNATDestinationIPv6Address": ipv6("2001:db8::4")}),
    (1008, text(b"lsp1") + words(7, 5), {"mplsTunnelName": b"lsp1", "mplsTunnelId": 7, "mplsTunnelCos": 5}),
    (1009, text(b"vc-one") + words(9, 3), {"mplsVcName": b"vc-one", "mplsVcId": 9, "mplsVcLabelCos": 3}),
    (1010, text(b"ftn") + words(24), {"mplsFtnDescription": b"ftn", "mplsFtnMask": 24}),
    (1011, words(24), {"mplsFecPrefixLength": 24}),
    (1012, words(2, 0x81000064, 0x81006065), {"vlanTunnel": b"100 101"}),
    (1014, RX, {"wlanSSID": b"net", "wlanBssid": 0x020000000005, "wlanVersion": 4, "wlanChannelId": 11,
                "wlanSpeed": 54_000_000, "wlanRsni": 30, "wlanRcpi": 40, "wlanPacketDuration": 250}),
    (1015, TX, {"wlanSSID": b"net", "wlanBssid": 0x020000000005, "wlanVersion": 4, "wlanTransmissions": 2,
                "wlanPacketDuration": 250, "wlanRetransmissionDuration": 90, "wlanChannelId": 11,
                "wlanSpeed": 54_000_000, "wlanPower": 100}),
    (1020, words(40000, 443), {"postNAPTSourceTransportPort": 40000, "postNAPTDestinationTransportPort": 443}),
    (1021, L2, {"egressTunnelSourceMacAddress": 0x020000000003, "egressTunnelDestinationMacAddress": 0x020000000004}),
    (1022, L2, {"ingressTunnelSourceMacAddress": 0x020000000003,
                "ingressTunnelDestinationMacAddress": 0x020000000004}),
    (1023, TUNNEL4, {"egressTunnelProtocol": 17, "egressTunnelSource": mapped("192.0.2.8"),
                     "egressTunnelDestination": mapped("192.0.2.9")}),
    (1024, TUNNEL4, {"ingressTunnelProtocol": 17, "ingressTunnelSource": mapped("192.0.2.8"),
                     "ingressTunnelDestination": mapped("192.0.2.9")}),
    (1025, TUNNEL6, {"egressTunnelProtocol": 47, "egressTunnelSource": ipv6("2001:db8::8"),
                     "egressTunnelDestination": ipv6("2001:db8::9")}),
    (1026, TUNNEL6, {"ingressTunnelProtocol": 47, "ingressTunnelSource": ipv6("2001:db8::8"),
                     "ingressTunnelDestination": ipv6("2001:db8::9")}),
    (1027, words(50), {"egressInnerHeaderOffset": 50}),
    (1028, words(50), {"ingressInnerHeaderOffset": 50}),
    (1029, words(5001), {"egressVni": 5001}),
    (1030, words(5002), {"ingressVni": 5002}),
    (1036, words(3), {"egressQueue": 3}),
    (1037, words(7) + text(b"deny") + words(1), {"aclNumber": 7, "aclName": b"deny", "aclDirection": 1}),
    (1038, text(b"tcp_v4_rcv"), {"kernelFunction": b"tcp_v4_rcv"}),
    (1039, words(12345), {"transitDelay": 12345}),
    (1039, words(0xFFFFFFFF), {}),
    (1040, words(4096), {"queueDepth": 4096}),
    (1041, text(b"l3_drops") + text(b"ttl"), {"hardwareTrapGroup": b"l3_drops", "hardwareTrap": b"ttl"}),
    (1042, text(b"no_socket"), {"kernelDropReason": b"no_socket"}),
)  # fmt: skip
"""Format, octets, and the keys that come of them."""


def beside(row, plain):
    """The keys that a row has beyond those of a plain one."""
    return {name: value for name, value in row.items() if name not in plain}


class RecordTests(SynchronousTestCase):
    """Each structure."""

    maxDiff = None

    def setUp(self):
        (self.plain,) = self.rows(datagram(flow_sample(raw(TCP))))

    def rows(self, *octets, **keywords):
        self.found = Collected(reliable=False, **keywords)
        return self.found.rows(*octets)

    def test_each(self):
        """Alone: its keys, none else, and it counts as read."""
        for tag, octets, expected in RECORDS:
            (row,) = self.rows(datagram(flow_sample(raw(TCP), element(tag, octets))))
            self.assertEqual(expected, beside(row, self.plain), tag)
            self.assertEqual(0, self.found.counters.figures["unread_records"], tag)

    def test_together(self):
        """In one datagram, each sample has its own."""
        samples = [flow_sample(raw(TCP), element(tag, octets)) for tag, octets, _ in RECORDS]
        rows = self.rows(datagram(*samples))
        self.assertEqual([expected for *_, expected in RECORDS], [beside(row, self.plain) for row in rows])

    def test_every_cut(self):
        """A record that ends within its fields gives those before; its neighbours are as they were."""
        for tag, octets, expected in RECORDS:
            for size in range(0, len(octets), 4):
                samples = [flow_sample(raw(TCP), element(tag, part)) for part in (octets, octets[:size], octets)]
                first, cut, last = (beside(row, self.plain) for row in self.rows(datagram(*samples)))
                self.assertEqual((expected, expected), (first, last), (tag, size))
                for name in cut:
                    self.assertIn(name, expected, (tag, size))
                    if name not in ("bgpDestinationAsNumber", "bgpSourceAsNumber"):
                        self.assertEqual(expected[name], cut[name], (tag, size))

    def test_labels_of_the_header(self):
        """The labels in the packet's own header go before those of record 1006."""
        octets = TCP[:12] + hexed("8847 000401ff") + TCP[14:]
        record = element(1006, address("203.0.113.3") + words(1, 0x000100FF, 0))
        one, other = self.rows(datagram(flow_sample(raw(octets), record), flow_sample(raw(TCP), record)))
        self.assertEqual((hexed("000401"), hexed("000100")),
                         (one["mplsTopLabelStackSection"], other["mplsTopLabelStackSection"]))  # fmt: skip

    def test_lengths_beyond(self):
        """Counts and lengths that go beyond the record, up to 2**32 - 1."""
        for count in (3, 0x3FFFFFFF, 0x40000000, 0x7FFFFFFF, 0xFFFFFFFC, 0xFFFFFFFF):
            for tag, octets in (
                (1003, address("203.0.113.2") + words(1, 2, 3, count, 2, 1, 64500)),
                (1003, address("203.0.113.2") + words(1, 2, 3, 1, 2, count, 64500)),
                (1003, address("203.0.113.2") + words(1, 2, 3, 0, count, 1)),
                (1004, words(106, count) + b"abc\0"), (1005, words(1, count) + b"a\0\0\0"),
                (1006, address("203.0.113.3") + words(count, 256)), (1012, words(count, 100)),
            ):  # fmt: skip
                rows = self.rows(datagram(flow_sample(raw(TCP), element(tag, octets)), flow_sample(raw(TCP))))
                self.assertEqual(2, len(rows))
                names = {"bgpDestinationAsPath", "bgpDestinationCommunityList", "userName", "vlanTunnel"}
                self.assertEqual(set(), names & set(rows[0]) if count != 3 else set(), (tag, count))

    def test_by_name(self):
        """Each key can be asked for, as by a stack that names it; so can those of NetFlow v7."""
        provided = Provided((), open_=True)
        for key in (*SFLOW_KEYS, *SFLOW_RECORD_KEYS, *NETFLOW7_KEYS):
            self.assertEqual(key, registry.element(*key.element))
            self.assertEqual((key.name,), provided.direct(key.name))
        names = {name for *_, expected in RECORDS for name in expected}
        for tag, octets, expected in RECORDS:
            sent = datagram(flow_sample(raw(TCP), element(tag, octets)))
            wanted = frozenset(column for name in names for column in provided.direct(name))
            self.assertEqual([expected] if expected else [], self.rows(sent, wanted=wanted), tag)

    def test_wanted(self):
        """Only what is asked for."""
        tag, octets, _ = RECORDS[0]
        wanted = frozenset({"bgpDestinationCommunityList"})
        rows = self.rows(datagram(flow_sample(raw(TCP), element(tag, octets)), flow_sample(raw(TCP))), wanted=wanted)
        self.assertEqual([["bgpDestinationCommunityList"], []], [sorted(k for k in row if row[k]) for row in rows])

    @given(st.integers(0, (1 << 32) - 1), st.lists(st.sampled_from(RECORDS), max_size=12))
    def test_any_octets(self, seed, records):
        """Changed anywhere: nothing raises, no row is lost, and the sample behind is as it was."""
        chance = random.Random(seed)
        samples = []
        for tag, octets, _ in records:
            changed = bytearray(octets)
            for _ in range(chance.randrange(3)):
                place = chance.randrange(len(changed) // 4) * 4
                changed[place : place + 4] = words(chance.choice((0, 1, 2, 5, 255, 1 << 31, 0xFFFFFFFF)))
            samples.append(flow_sample(raw(TCP), element(tag, bytes(changed))))
        tag, octets, expected = RECORDS[0]
        samples.append(flow_sample(raw(TCP), element(tag, octets), number=99))
        rows = self.rows(datagram(*samples))
        self.assertEqual(len(samples), len(rows))
        (last,) = (row for row in rows if row["sampleSequence"] == 99)
        self.assertEqual(expected, beside(last, self.plain))


class CorpusTests(SynchronousTestCase):
    """Captures of agents; the values are those that tshark 4.0 prints."""

    def test_gateways(self):
        """Path, communities and preference of two agents."""
        for case, path, communities in (
            ("akvorado-sflow-1140", b"203698 6762 26615", (2583495656, 2583495657, 4259880000, 4259880001, 4259900001)),
            ("tcpdump-sflow-expanded", b"8218 29605 203361", (538574949, 1911619684, 1911669584, 1911671290)),
        ):
            lines = shared_path("corpus", "ipfix", "messages", f"{case}.jsonl").read_text().splitlines()
            rows = Collected(reliable=False).rows(*(bytes.fromhex(json.loads(line)["hex"]) for line in lines))
            (row,) = (row for row in rows if row.get("bgpDestinationAsPath"))
            self.assertEqual((path, 100), (row["bgpDestinationAsPath"], row["bgpLocalPreference"]))
            expected = [f"{number // 65536}:{number % 65536}" for number in communities]
            self.assertEqual(expected, json.loads(row["bgpDestinationCommunityList"])["values"])


class TsharkTests(SynchronousTestCase):
    """tshark as a second opinion of the octets."""

    def test_structures(self):
        """No structure that tshark knows is malformed; texts and addresses of each are there."""
        require_program("tshark")
        known = [one for one in RECORDS if one[0] <= 1015]
        sent = [datagram(flow_sample(raw(TCP), element(tag, octets))) for tag, octets, _ in known]
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(packets.pcap([(1.0, packets.udp("192.0.2.1", "192.0.2.2", (6343, 6343), d)) for d in sent]))
        run = subprocess.run(["tshark", "-r", path, "-V"], capture_output=True, text=True, check=True)
        for (tag, _, expected), said in zip(known, run.stdout.split("InMon sFlow")[1:], strict=True):
            self.assertNotIn("alformed", said, tag)
            for name, value in expected.items():
                if isinstance(value, bytes) and name.isidentifier() and value.isalnum():
                    self.assertIn(value.decode(), said, (tag, name))
                elif name.endswith("IPv4Address"):
                    self.assertIn(str(ipaddress.IPv4Address(value)), said, (tag, name))
                elif isinstance(value, int) and name.startswith(("bgp", "mpls")) and "As" not in name:
                    self.assertIn(f": {value}", said, (tag, name))
