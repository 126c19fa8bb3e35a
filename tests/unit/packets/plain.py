"""The headers of one packet, read one field after the other: what `ulogd_tw.packets.headers` must give for many."""

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
    packet = Packet(octets)
    try:
        if link:
            ethernet(packet)
        elif link is not None:
            ip(packet)
    except Cut:
        pass
    return packet.family, packet.found


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
        packet.skip(8 if kind == 44 else (size + 2) * 4 if kind == 51 else (size + 1) * 8)
        if kind == 44 and place >> 3:
            if following not in (*LENGTHS, 44, 51):
                packet.found["protocolIdentifier"] = following
            return
    if following not in (*LENGTHS, 44, 51):
        packet.found["protocolIdentifier"] = following
        transport(packet, following)


def transport(packet, protocol):
    """What stands behind IP."""
    fields = {
        6: (("tcpSequenceNumber", 4, "!I"), ("tcpAcknowledgementNumber", 8, "!I"), ("tcpControlBits", 12, "!H"),
            ("tcpWindowSize", 14, "!H")),
        17: (("udpMessageLength", 4, "!H"),),
        1: (("icmpTypeCodeIPv4", 0, "!H"),),
        58: (("icmpTypeCodeIPv6", 0, "!H"),),
        50: (("IPSecSPI", 0, "!I"),),
    }  # fmt: skip
    if protocol in PORTS:
        ports = packet.number("!H"), packet.number("!H", 2)
        packet.found["sourceTransportPort"], packet.found["destinationTransportPort"] = ports
    for name, offset, form in fields.get(protocol, ()):
        value = packet.number(form, offset)
        packet.found[name] = value & 0xFFF if name == "tcpControlBits" else value
