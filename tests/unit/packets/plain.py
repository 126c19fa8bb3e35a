"""The headers of one packet, read one field after the other: what `ulogd_tw.packets.headers` must give for many."""

import contextlib
import struct

from tests.unit.packets.frames import TAGS

PORTS = (6, 17, 33, 132, 136)
LENGTHS = (0, 43, 60, 135, 139, 140)


class Cut(Exception):
    """The packet ends before what should be read."""


class Packet:
    """The octets of one packet and what was read of them."""

    def __init__(self, octets):
        self.octets, self.at, self.found, self.family = octets, 0, {}, 0
        self.keys = {}

    def number(self, form, offset=0):
        """A number, `offset` octets from here."""
        size = struct.calcsize(form)
        here = self.octets[self.at + offset : self.at + offset + size]
        if len(here) < size:
            raise Cut
        (value,) = struct.unpack(form, here)
        return value

    def left(self):
        return len(self.octets) - self.at

    def skip(self, size):
        self.at = min(self.at + size, len(self.octets))


def read(octets, link):
    """(family, fields) of a packet that begins with Ethernet, with IP (`link` false) or with neither (None)."""
    packet = walked(octets, link)
    return packet.family if packet.family in (4, 6) else 0, packet.found


def read_keys(octets, link):
    """(family, ulogd2's keys); the family of ARP is its EtherType."""
    packet = walked(octets, link)
    return packet.family, packet.keys


def walked(octets, link):
    """The packet when all that is there has been read."""
    packet = Packet(octets)
    try:
        if link:
            ethernet(packet)
        elif link is not None:
            ip(packet)
    except Cut:
        pass
    return packet


def ethernet(packet):
    """The frame's header and what stands behind it."""
    if packet.left() < 14:
        return
    found = packet.found
    found["destinationMacAddress"] = int.from_bytes(packet.octets[:6], "big")
    found["sourceMacAddress"] = int.from_bytes(packet.octets[6:12], "big")
    kind = packet.number("!H", 12)
    packet.skip(14)
    kind = tags(packet, kind)
    if kind < 0x600 and packet.left() >= 8:
        if packet.octets[packet.at : packet.at + 6] == bytes.fromhex("aaaa03000000"):
            kind = packet.number("!H", 6)
        packet.skip(8)
    if kind >= 0x600 and kind not in TAGS:
        found["ethernetType"] = kind
    if kind == 0x8864:
        protocol = packet.number("!H", 6)
        packet.skip(8)
        kind = {0x21: 0x0800, 0x57: 0x86DD}.get(protocol)
    if kind in (0x8847, 0x8848):
        for depth in range(10):
            entry = packet.number("!I")
            name = f"mplsLabelStackSection{depth + 1}" if depth else "mplsTopLabelStackSection"
            found[name] = struct.pack("!I", entry)[:3]
            packet.skip(4)
            if entry & 0x100:
                ip(packet)
                return
    elif kind == 0x0800:
        ipv4(packet)
    elif kind == 0x86DD:
        ipv6(packet)
    elif kind == 0x0806:
        arp(packet)


def arp(packet):
    """ARP, with addresses where they are those of Ethernet and IPv4."""
    packet.family, keys = 0x0806, packet.keys
    if packet.left() < 8:
        return
    keys["arp.hwtype"], keys["arp.protocoltype"] = packet.number("!H"), packet.number("!H", 2)
    keys["arp.operation"] = packet.number("!H", 6)
    if packet.number("!H", 4) == 0x0604 and packet.left() >= 28:
        keys |= {"arp.saddr": packet.number("!I", 14), "arp.daddr": packet.number("!I", 24),
                 "arp.shwaddr": packet.number("6s", 8), "arp.dhwaddr": packet.number("6s", 18)}  # fmt: skip


def tags(packet, kind):
    """VLAN tags; the EtherType behind them."""
    for depth in range(4):
        if kind not in TAGS or packet.left() < 4:
            break
        tag = packet.number("!H")
        if depth == 0:
            packet.found["vlanId"] = packet.found["dot1qVlanId"] = tag & 0xFFF
            packet.found["dot1qPriority"] = tag >> 13
        if depth == 1:
            packet.found["dot1qCustomerVlanId"] = tag & 0xFFF
            packet.found["dot1qCustomerPriority"] = tag >> 13
        kind = packet.number("!H", 2)
        packet.skip(4)
    return kind


def ip(packet):
    """Either family, by the version."""
    version = packet.number("!B") >> 4
    if version == 4:
        ipv4(packet)
    elif version == 6:
        ipv6(packet)


def ipv4(packet):
    """IPv4 and what it carries."""
    if packet.left() < 20 or packet.number("!B") >> 4 != 4:
        return
    packet.family = 4
    size, length = (packet.number("!B") & 15) * 4, packet.number("!H", 2)
    fragment, protocol = packet.number("!H", 6), packet.number("!B", 9)
    packet.found |= {
        "ipVersion": 4, "ipClassOfService": packet.number("!B", 1), "ipTotalLength": length,
        "fragmentIdentification": packet.number("!H", 4), "fragmentFlags": fragment >> 13 << 5,
        "fragmentOffset": fragment & 0x1FFF, "ipTTL": packet.number("!B", 8), "protocolIdentifier": protocol,
        "sourceIPv4Address": packet.number("!I", 12), "destinationIPv4Address": packet.number("!I", 16),
    }  # fmt: skip
    packet.keys |= {
        "ip.saddr": packet.number("!I", 12), "ip.daddr": packet.number("!I", 16), "ip.protocol": protocol,
        "ip.tos": packet.number("!B", 1), "ip.ttl": packet.number("!B", 8), "ip.totlen": length, "ip.ihl": size // 4,
        "ip.csum": packet.number("!H", 10), "ip.id": packet.number("!H", 4), "ip.fragoff": fragment,
    }  # fmt: skip
    if length >= size:
        packet.octets = packet.octets[: packet.at + length]
    packet.skip(size)
    if size >= 20 and not fragment & 0x1FFF:
        transport(packet, protocol)


def ipv6(packet):
    """IPv6, its extension headers, and what it carries."""
    if packet.left() < 40 or packet.number("!B") >> 4 != 6:
        return
    packet.family = 6
    first, length, following = packet.number("!I"), packet.number("!H", 4), packet.number("!B", 6)
    packet.found |= {
        "ipVersion": 6, "ipClassOfService": first >> 20 & 255, "flowLabelIPv6": first & 0xFFFFF,
        "ipTotalLength": length + 40, "ipTTL": packet.number("!B", 7),
    }  # fmt: skip
    for name, offset in (("sourceIPv6Address", 8), ("destinationIPv6Address", 24)):
        packet.found[name] = packet.number("!Q", offset) << 64 | packet.number("!Q", offset + 8)
        packet.keys["ip.saddr" if offset == 8 else "ip.daddr"] = packet.found[name]
    packet.keys |= {
        "ip6.payloadlen": length, "ip6.priority": first >> 20 & 255, "ip6.flowlabel": first & 0xFFFFF,
        "ip6.hoplimit": packet.number("!B", 7),
    }  # fmt: skip
    if length:
        packet.octets = packet.octets[: packet.at + 40 + length]
    packet.skip(40)
    for _ in range(8):
        second = following == 44 and "fragmentOffset" in packet.found
        if following not in (*LENGTHS, 44, 51) or packet.left() < 8 or second:
            break
        kind, following, size = following, packet.number("!B"), packet.number("!B", 1)
        if kind == 44:
            place = packet.number("!H", 2)
            packet.found["fragmentOffset"] = place >> 3
            packet.found["fragmentFlags"] = 0x20 if place & 1 else 0
            packet.found["fragmentIdentification"] = packet.number("!I", 4)
            packet.keys["ip6.fragoff"], packet.keys["ip6.fragid"] = place & 0xFFF8, packet.number("!I", 4)
        if kind == 51:
            packet.found.setdefault("IPSecSPI", packet.number("!I", 4))
            packet.keys.setdefault("ahesp.spi", packet.number("!I", 4))
        packet.skip(8 if kind == 44 else (size + 2) * 4 if kind == 51 else (size + 1) * 8)
        if kind == 44 and place >> 3:
            if following not in (*LENGTHS, 44, 51):
                packet.found["protocolIdentifier"] = following
                packet.keys["ip.protocol"] = packet.keys["ip6.nexthdr"] = following
            return
    if following not in (*LENGTHS, 44, 51):
        packet.found["protocolIdentifier"] = following
        packet.keys["ip.protocol"] = packet.keys["ip6.nexthdr"] = following
        transport(packet, following)


def transport(packet, protocol):
    """What stands behind IP."""
    with contextlib.suppress(Cut):
        for name, offset, form, change in KEYS.get(protocol, ()):
            value = change(packet.number(form, offset), packet)
            if value is not None:
                packet.keys.setdefault(name, value)
    fields = {
        6: (("tcpSequenceNumber", 4, "!I"), ("tcpAcknowledgementNumber", 8, "!I"), ("tcpControlBits", 12, "!H"),
            ("tcpWindowSize", 14, "!H")),
        17: (("udpMessageLength", 4, "!H"),),
        1: (("icmpTypeCodeIPv4", 0, "!H"),),
        58: (("icmpTypeCodeIPv6", 0, "!H"),),
        50: (("IPSecSPI", 0, "!I"),),
        51: (("IPSecSPI", 4, "!I"),),
    }  # fmt: skip
    if protocol in PORTS:
        packet.found["sourceTransportPort"] = packet.number("!H")
        packet.found["destinationTransportPort"] = packet.number("!H", 2)
    for name, offset, form in fields.get(protocol, ()):
        value = packet.number(form, offset)
        packet.found.setdefault(name, value & 0xFFF if name == "tcpControlBits" else value)


def same(value, packet):
    """The value itself."""
    return value


def bit(mask):
    """Whether one of these bits is set."""
    return lambda value, packet: bool(value & mask)


def of_types(types, code=None):
    """The value, in whole messages of these types of ICMP."""

    def change(value, packet):
        right = packet.number("!B") in types and code in (None, packet.number("!B", 1))
        return value if right and packet.left() >= 8 else None

    return change


def urgent(value, packet):
    """The urgent pointer, where the flag is set."""
    return value if packet.number("!B", 13) & 0x20 else None


PORT = ("sport", 0, "!H", same), ("dport", 2, "!H", same)
KEYS = {
    6: (
        *((f"tcp.{name}", *rest) for name, *rest in PORT),
        ("tcp.seq", 4, "!I", same), ("tcp.ackseq", 8, "!I", same), ("tcp.offset", 12, "!B", lambda v, p: v >> 4),
        ("tcp.reserved", 12, "!B", lambda v, p: v & 15), ("tcp.res1", 12, "!B", bit(15)),
        ("tcp.fin", 13, "!B", bit(1)), ("tcp.syn", 13, "!B", bit(2)), ("tcp.rst", 13, "!B", bit(4)),
        ("tcp.psh", 13, "!B", bit(8)), ("tcp.ack", 13, "!B", bit(16)), ("tcp.urg", 13, "!B", bit(32)),
        ("tcp.res2", 13, "!B", bit(0xC0)), ("tcp.window", 14, "!H", same), ("tcp.csum", 16, "!H", same),
        ("tcp.urgp", 18, "!H", urgent),
    ),
    17: (*((f"udp.{name}", *rest) for name, *rest in PORT), ("udp.len", 4, "!H", same), ("udp.csum", 6, "!H", same)),
    132: (*((f"sctp.{name}", *rest) for name, *rest in PORT), ("sctp.csum", 8, "!I", same)),
    1: (
        ("icmp.type", 0, "!B", same), ("icmp.code", 1, "!B", same), ("icmp.csum", 2, "!H", same),
        ("icmp.gateway", 4, "!I", of_types((5,))), ("icmp.parameter", 4, "!B", of_types((12,))),
        ("icmp.echoid", 4, "!H", of_types((0, 8))), ("icmp.echoseq", 6, "!H", of_types((0, 8))),
        ("icmp.fragmtu", 6, "!H", of_types((3,), 4)),
    ),
    58: (
        ("icmpv6.type", 0, "!B", same), ("icmpv6.code", 1, "!B", same), ("icmpv6.csum", 2, "!H", same),
        ("icmpv6.echoid", 4, "!H", of_types((128, 129))), ("icmpv6.echoseq", 6, "!H", of_types((128, 129))),
    ),
    50: (("ahesp.spi", 0, "!I", same),),
    51: (("ahesp.spi", 4, "!I", same),),
}  # fmt: skip
"""ulogd2's keys of each protocol: name, offset, form, and what becomes of the number."""
