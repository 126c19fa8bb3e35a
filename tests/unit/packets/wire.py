"""Packets and capture files written with struct alone."""

import ipaddress
import struct


def udp(source, destination, ports, octets):
    """A packet of IPv4 or IPv6 with a datagram of UDP, without checksums."""
    return ip(source, destination, 17, struct.pack("!HHHH", *ports, 8 + len(octets), 0) + octets)


def tcp(source, destination, ports, sequence, octets=b"", flags=0x10):
    """A packet with a segment of TCP."""
    head = struct.pack("!HHIIHHHH", *ports, sequence & 0xFFFFFFFF, 1, 0x5000 | flags, 1000, 0, 0)
    return ip(source, destination, 6, head + octets)


def ip(source, destination, protocol, payload, fragment=0, ident=7):
    """A packet of the family of its addresses. `fragment` is the word of IPv4."""
    ends = [ipaddress.ip_address(text).packed for text in (source, destination)]
    if len(ends[0]) == 4:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, fragment, 64, protocol, 0)
    else:
        head = struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64)
    return head + b"".join(ends) + payload


def ethernet(packet, tags=b""):
    """A frame with this packet."""
    kind = b"\x08\0" if packet[0] >> 4 == 4 else b"\x86\xdd"
    return bytes(12) + tags + kind + packet


def pcap(packets, link=101, order="<", nanoseconds=False):
    """A file of (time, packet)."""
    parts = [struct.pack(f"{order}IHHiIII", 0xA1B23C4D if nanoseconds else 0xA1B2C3D4, 2, 4, 0, 0, 65535, link)]
    for time, packet in packets:
        part = round(time % 1 * (1e9 if nanoseconds else 1e6))
        parts.append(struct.pack(f"{order}IIII", int(time), part, len(packet), len(packet)) + packet)
    return b"".join(parts)


def block(order, kind, body):
    """A block of pcapng."""
    body += bytes(-len(body) % 4)
    length = struct.pack(f"{order}I", 12 + len(body))
    return struct.pack(f"{order}I", kind) + length + body + length


def pcapng(packets, link=101, order="<", resolution=None):
    """A file of one section and interface. `resolution` is the octet of if_tsresol."""
    options = b"" if resolution is None else struct.pack(f"{order}HHB3xHH", 9, 1, resolution, 0, 0)
    units = 1e6 if resolution is None else 2 ** (resolution & 127) if resolution & 128 else 10**resolution
    parts = [
        block(order, 0x0A0D0D0A, struct.pack(f"{order}IHHq", 0x1A2B3C4D, 1, 0, -1)),
        block(order, 1, struct.pack(f"{order}HHI", link, 0, 65535) + options),
        block(order, 5, bytes(12)),
    ]
    for time, packet in packets:
        ticks = round(time * units)
        head = struct.pack(f"{order}IIIII", 0, ticks >> 32, ticks & 0xFFFFFFFF, len(packet), len(packet))
        parts.append(block(order, 6, head + packet))
    return b"".join(parts)
