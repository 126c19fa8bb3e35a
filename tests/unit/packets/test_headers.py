"""Headers of packets: row by row, at every cut, and as tshark has them."""

import functools
import ipaddress
import os
import random
import struct
import subprocess
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given, require_program, shared_path
from tests.unit.packets import frames, plain, wire
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.keys import known
from ulogd_tw.core.plugin import ALL
from ulogd_tw.packets import headers

KINDS = {True: headers.ETHERNET, False: headers.IP, None: 0}
seeds = st.integers(0, (1 << 32) - 1)


def decoded(packets, wanted=ALL):
    """(family, fields) of each packet (octets, link), which stand one behind the other with nothing between."""
    octets = np.frombuffer(b"".join(packet for packet, _ in packets), np.uint8)
    lengths = np.array([len(packet) for packet, _ in packets], np.int64)
    first = np.array([KINDS[link] for _, link in packets], np.int64)
    rows = [None] * len(packets)
    for found in headers.decode(octets, np.cumsum(lengths) - lengths, lengths, first, wanted):
        for name, column in found.columns.items():
            if (dtype := known(name).type.dtype) is not None:
                assert column.dtype.char == dtype.char, name
        schema = Schema([known(name) for name in found.columns])
        batch = Batch(schema, found.columns, found.missing, n=len(found.rows), now=0.0)
        several = batch.rows() if found.columns else [{}] * len(found.rows)
        for place, row in zip(found.rows.tolist(), several, strict=True):
            assert rows[place] is None
            rows[place] = (found.family, dict(row))
    return rows


def frame(kind, packet, tags=b""):
    """An Ethernet frame."""
    return bytes.fromhex("020000000001020000000002") + tags + struct.pack("!H", kind) + packet


class HeadersTests(SynchronousTestCase):
    """Many packets at once."""

    def same(self, packets, expected, got):
        """Row by row: the difference of two long lists takes very long to print."""
        self.assertEqual(len(expected), len(got))
        for packet, one, other in zip(packets, expected, got, strict=True):
            self.assertEqual(one, other, packet)

    @given(st.lists(seeds, max_size=30))
    def test_row_by_row(self, several):
        """Each packet of many has what it has when it is read alone, field by field."""
        packets = [frames.any_packet(random.Random(seed)) for seed in several]
        self.same(packets, [plain.read(*packet) for packet in packets], decoded(packets))

    @given(seeds)
    def test_every_cut(self, seed):
        """A packet cut anywhere: what is not there is missing, and nothing is taken of the packet behind it."""
        packet, link = frames.any_packet(random.Random(seed))
        cuts = [(packet[:size], link) for size in range(len(packet) + 1)]
        self.same(cuts, [plain.read(*cut) for cut in cuts], decoded(cuts))
        whole = plain.read(packet, link)[1]
        for _, found in decoded(cuts):
            self.assertLessEqual(set(found.items()), set(whole.items()))

    @given(st.lists(seeds, max_size=10), st.frozensets(st.sampled_from(sorted(headers.names()))))
    def test_wanted(self, several, wanted):
        """Only what is wanted is made, and it is the same."""
        packets = [frames.any_packet(random.Random(seed)) for seed in several]
        expected = [
            (family, {name: value for name, value in found.items() if name in wanted})
            for family, found in decoded(packets)
        ]
        self.same(packets, expected, decoded(packets, wanted))

    def test_unknown_beginning(self):
        """What begins with nothing that is known has no columns."""
        self.assertEqual([(0, {}), (0, {})], decoded([(bytes(60), None), (b"", True)]))
        self.assertEqual([], decoded([]))

    def test_other_tags(self):
        """Tags of virtual interfaces, 802.1BR, TrustSec, 802.1ah and MACsec are passed over, VLANs behind them too."""
        packet = wire.udp("192.0.2.1", "192.0.2.2", (1024, 53), b"abc")
        inner = "020000000003020000000004"
        for octets, vlan in (
            ("8926 80010002", None), ("8926 80010002 8100 2064", 100), ("893f 000000640000", None),
            ("8909 010100010007", None), ("8100 0005 8909 010100010007", 5), ("88e7 00001388" + inner, None),
            ("88a8 0007 88e7 00001388" + inner + "8100 0064", 100), ("88e5 0200 00000001", None),
            ("88e5 2200 00000001 0200000000010001", None),
        ):  # fmt: skip
            head = bytes.fromhex("020000000001020000000002" + octets)
            whole = head + b"\x08\0" + packet
            ((family, found),) = decoded([(whole, True)])
            self.assertEqual((4, vlan, 53), (family, found.get("vlanId"), found["destinationTransportPort"]), octets)
            for size in range(len(head) + 2):
                self.assertEqual([0, 4], [row[0] for row in decoded([(whole[:size], True), (whole, True)])])
        encrypted = bytes.fromhex("020000000001020000000002 88e5 0e00 00000001 0800") + packet
        self.assertEqual(0, decoded([(encrypted, True)])[0][0])

    def test_labels_in_ppp(self):
        """MPLS over PPP (RFC 3032 section 4.1) in PPPoE, protocols 0281 and 0283, as labels right behind Ethernet."""
        packet = wire.udp("192.0.2.1", "192.0.2.2", (1024, 53), b"abc")
        label = struct.pack("!I", 100 << 12 | 1 << 8 | 64)
        whole = [frame(0x8864, struct.pack("!BBHHH", 0x11, 0, 1, len(packet) + 6, ppp) + label + packet)
                 for ppp in (0x0281, 0x0283)]  # fmt: skip
        rows = decoded([(octets, True) for octets in (*whole, frame(0x8847, label + packet), frame(0x0800, packet))])
        self.assertEqual([(4, 53)] * 4, [(family, found["destinationTransportPort"]) for family, found in rows])
        labels = [bytes(found.get("mplsTopLabelStackSection", b"")) for _, found in rows]
        self.assertEqual([label[:3]] * 3 + [b""], labels)

    def test_two_security_headers(self):
        """The Authentication Header and the ESP behind it each have an SPI: the outer one stands, RFC 4302 3.1.2."""
        secured = struct.pack("!IHBB32s", 6 << 28, 24 + 8, 51, 64, bytes(32)) + struct.pack(
            "!BBHII12sII", 50, 4, 0, 0xA1, 1, bytes(12), 0xE5, 1
        )
        plain_esp = struct.pack("!IHBB32s", 6 << 28, 8, 50, 64, bytes(32)) + struct.pack("!II", 0xE5, 1)
        found = [columns for _, columns in decoded([(secured, False), (plain_esp, False)])]
        self.assertEqual([0xA1, 0xE5], [columns["IPSecSPI"] for columns in found])

    def test_fragments_behind_other_headers(self):
        """Fragment headers at different places in the chain of different packets."""
        piece = struct.pack("!BBHI", 17, 0, 8 << 3 | 1, 77)
        direct = struct.pack("!IHBB32s", 6 << 28, 8, 44, 64, bytes(32)) + piece
        behind = struct.pack("!IHBB32s", 6 << 28, 16, 0, 64, bytes(32)) + bytes((44, 0, 1, 4, 0, 0, 0, 0)) + piece
        for _, found in decoded([(direct, False), (behind, False)]):
            self.assertEqual((8, 0x20, 77, 17), tuple(found[name] for name in (
                "fragmentOffset", "fragmentFlags", "fragmentIdentification", "protocolIdentifier")))  # fmt: skip
            self.assertNotIn("sourceTransportPort", found)


PROTOCOLS = {
    "frame", "eth_maybefcs", "eth", "ethertype", "vlan", "ieee8021ad", "mpls", "arp", "ip", "ipv6", "ipv6.hopopts",
    "ipv6.routing", "ipv6.dstopts", "ipv6.fraghdr", "ah", "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6",
}  # fmt: skip
"""What tshark shall look at: no applications, which may carry headers of other packets."""
FIELDS = {
    "sourceMacAddress": "eth.src", "destinationMacAddress": "eth.dst",
    "sourceIPv4Address": "ip.src", "destinationIPv4Address": "ip.dst",
    "sourceIPv6Address": "ipv6.src", "destinationIPv6Address": "ipv6.dst", "flowLabelIPv6": "ipv6.flow",
    "udpMessageLength": "udp.length", "tcpControlBits": "tcp.flags", "tcpSequenceNumber": "tcp.seq_raw",
    "tcpAcknowledgementNumber": "tcp.ack_raw", "tcpWindowSize": "tcp.window_size_value",
}  # fmt: skip
EITHER = {
    "ipTTL": ("ip.ttl", "ipv6.hlim"), "ipClassOfService": ("ip.dsfield", "ipv6.tclass"),
    "sourceTransportPort": ("tcp.srcport", "udp.srcport", "sctp.srcport", "dccp.srcport"),
    "destinationTransportPort": ("tcp.dstport", "udp.dstport", "sctp.dstport", "dccp.dstport"),
    "ipTotalLength": ("ip.len", "ipv6.plen"), "fragmentIdentification": ("ip.id", "ipv6.fraghdr.ident"),
    "fragmentOffset": ("ip.frag_offset", "ipv6.fraghdr.offset"),
    "icmpTypeCodeIPv4": ("icmp.type", "icmp.code"), "icmpTypeCodeIPv6": ("icmpv6.type", "icmpv6.code"),
}  # fmt: skip
"""What tshark calls it; of several the one that is there, and of ICMP both."""
LABELS = ("mplsTopLabelStackSection", *(f"mplsLabelStackSection{n}" for n in range(2, 11)))


class TsharkTests(SynchronousTestCase):
    """What tshark reads in the same packets."""

    def test_made(self):
        """Packets of every kind."""
        self.compare([frames.ethernet(random.Random(seed), whole=True) for seed in range(1000)])

    def test_captured(self):
        """The packets of the captures, as they came."""
        packets = []
        for path in sorted(shared_path("corpus", "ipfix", "files").rglob("*.pcap")):
            packets += captured(path.read_bytes())[:300]
        self.assertGreater(len(packets), 500)
        self.compare(packets)

    def compare(self, packets):
        """All fields of all packets are as tshark has them."""
        names = [*FIELDS.values(), *(name for several in EITHER.values() for name in several),
                 "ip.proto", "mpls.label", "mpls.exp", "mpls.bottom", "vlan.etype", "eth.type",
                 "vlan.id", "vlan.priority", "ieee8021ad.id", "ieee8021ad.priority"]  # fmt: skip
        rows = read_by_tshark(self, packets, names)
        got = decoded([(packet, True) for packet in packets])
        for packet, tshark, (family, found) in zip(packets, rows, got, strict=True):
            said = expected(tshark, family, found)
            ours = {name: found[name] for name in said | dict.fromkeys(found) if name in found and name in COMPARED}
            self.assertEqual(said, ours, packet.hex())


def read_by_tshark(case, packets, names):
    """The values of each field in each packet of Ethernet, as tshark has them: a list of texts each."""
    (tshark,) = require_program("tshark")
    path = Path(case.mktemp())
    path.write_bytes(wire.pcap([(0, packet) for packet in packets], link=1))
    command = [tshark, "-n", "-r", path, "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=;"]
    for option in ("ip.defragment:false", "ipv6.defragment:false", "tcp.desegment_tcp_streams:false"):
        command += ["-o", option]
    for name in names:
        command += ["-e", name]
    lines = _run_tshark(case, command).split("\n")
    case.assertEqual(len(packets), len(lines) - 1)
    return [
        {name: column.split(";") if column else [] for name, column in zip(names, line.split("\t"), strict=True)}
        for line in lines[:-1]
    ]


def _run_tshark(case, command):
    """What it prints, with all protocols but `PROTOCOLS` disabled."""
    home = Path(case.mktemp())
    home.mkdir()
    environment = os.environ | {"WIRESHARK_CONFIG_DIR": str(home)}
    run = functools.partial(subprocess.run, capture_output=True, text=True, check=True, timeout=120, env=environment)
    every = run([command[0], "-G", "protocols"]).stdout.splitlines()
    others = {line.split("\t")[2] for line in every} - PROTOCOLS
    (home / "disabled_protos").write_text("".join(f"{name}\n" for name in sorted(others)))
    return run(command).stdout


COMPARED = {*FIELDS, *EITHER, *LABELS, "protocolIdentifier", "ethernetType", "dot1qVlanId", "dot1qPriority",
            "dot1qCustomerVlanId", "dot1qCustomerPriority"}  # fmt: skip


def expected(tshark, family, found):
    """tshark's values of one packet under our names; of each field the first, which is the outermost packet's."""
    said = {name: value(tshark[field][0]) for name, field in FIELDS.items() if tshark[field]}
    for name, several in EITHER.items():
        there = [value(tshark[field][0]) for field in several if tshark[field]]
        if there:
            said[name] = there[0] << 8 | there[1] if "icmp" in name else there[0]
    if found.get("protocolIdentifier") == 136:  # the coverage of its checksum
        said.pop("udpMessageLength", None)
    if family == 6:
        said["ipTotalLength"] += 40
        if tshark["ip.proto"]:  # IPv4 inside of IPv6
            for name in ("sourceIPv4Address", "destinationIPv4Address"):
                said.pop(name)
    for ours, theirs in (("VlanId", "id"), ("Priority", "priority")):
        tags = tshark[f"ieee8021ad.{theirs}"] + tshark[f"vlan.{theirs}"]
        said |= {f"{name}{ours}": value(tag) for name, tag in zip(("dot1q", "dot1qCustomer"), tags, strict=False)}
    if kinds := tshark["eth.type"] + tshark["vlan.etype"]:
        said["ethernetType"] = value(kinds[-1])
    parts = zip(tshark["mpls.label"], tshark["mpls.exp"], tshark["mpls.bottom"], strict=True)
    for name, (label, traffic_class, bottom) in zip(LABELS, parts, strict=False):
        entry = value(label) << 4 | value(traffic_class) << 1 | (bottom in ("1", "True"))
        said[name] = entry.to_bytes(3, "big")
    if tshark["ip.proto"] and family == 4:
        said["protocolIdentifier"] = value(tshark["ip.proto"][0])
    elif "protocolIdentifier" in found:
        said["protocolIdentifier"] = found["protocolIdentifier"]
    return said


def value(text):
    """A number of tshark's text of it."""
    if text.count(":") == 5 and len(text) == 17:
        return int(text.replace(":", ""), 16)
    if ":" in text or text.count(".") == 3:
        return int(ipaddress.ip_address(text))
    return int(text, 0)


def captured(octets):
    """The packets of a capture of Ethernet, whole ones, as pcap has them."""
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">", b"\x4d\x3c\xb2\xa1": "<"}.get(octets[:4])
    if order is None or struct.unpack_from(order + "I", octets, 20)[0] != 1:
        return []
    place, packets = 24, []
    while place + 16 <= len(octets):
        taken, length = struct.unpack_from(order + "II", octets, place + 8)
        if taken == length:
            packets.append(octets[place + 16 : place + 16 + taken])
        place += 16 + taken
    return packets


def captured_raw(octets):
    """The packets of a capture in this machine's order, whatever its link."""
    place, packets = 24, []
    while place + 16 <= len(octets):
        (size,) = struct.unpack_from("<I", octets, place + 8)
        packets.append(octets[place + 16 : place + 16 + size])
        place += 16 + size
    return packets
