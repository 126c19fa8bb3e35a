"""Packets made with struct alone from a source of chance: link layers, tags, labels, IP with all it may carry."""

import struct

TAGS = (0x8100, 0x88A8, 0x9100, 0x9200)
EXTENSIONS = (0, 43, 44, 51, 60, 135)


def octets(chance, most, least=0):
    """So many octets of anything."""
    return chance.randbytes(chance.randint(least, most))


def transport(chance, protocol):
    """A header of this protocol and a little behind it."""
    ports = struct.pack("!HH", chance.randrange(1 << 16), chance.randrange(1 << 16))
    tail = octets(chance, 6)
    if protocol == 6:
        return ports + chance.randbytes(8) + struct.pack("!HHHH", 0x5000 | chance.randrange(512), 9, 0, 0) + tail
    if protocol in (17, 136):
        return ports + struct.pack("!HH", 8 + len(tail), 0) + tail
    if protocol == 132:
        return ports + chance.randbytes(8) + tail
    if protocol == 33:
        return ports + struct.pack("!BBHBBHI", 6, 0, 0, 4 << 1 | 1, 0, 0, 1) + chance.randbytes(8) + tail
    return chance.randbytes(8) + tail


def ipv4(chance, whole=False):
    """An IPv4 packet; `whole` ones are no fragments, and say their true length."""
    protocol = chance.choice((1, 6, 6, 17, 17, 33, 47, 50, 51, 58, 132, 136, chance.randrange(256)))
    options = b"\1" * (4 * chance.choice((0, 0, 1, 3, 10)))
    body = transport(chance, protocol)
    fragment = chance.choice((0, 0x4000)) if whole else chance.choice((0, 0, 0x4000, 0x2000, 0x2005, 7, 0x1FFF))
    length = 20 + len(options) + len(body)
    if not whole:
        length = chance.choice((length, length, length, 0, length - 3, length + 9, 19, chance.randrange(1 << 16)))
    ihl = 5 + len(options) // 4
    if not whole and chance.random() < 0.05:
        ihl = chance.randrange(16)
    head = struct.pack(
        "!BBHHHBBH8s", 0x40 | ihl, chance.randrange(256), length, chance.randrange(1 << 16), fragment,
        chance.randrange(256), protocol, 0, chance.randbytes(8),
    )  # fmt: skip
    return head + options + body


def extension(chance, kind, following):
    """One extension header of IPv6, or AH."""
    if kind == 44:
        place = chance.choice((0, 0, 1, 0x1FFF)) << 3 | chance.randrange(2)
        return struct.pack("!BBHI", following, 0, place, chance.randrange(1 << 32))
    units = chance.choice((0, 0, 1, 2))
    if kind == 51:
        return bytes((following, units + 1)) + bytes(2) + chance.randbytes(8 + 4 * units)
    if kind == 43:
        return bytes((following, units, 200, 0)) + chance.randbytes(4 + 8 * units)
    return bytes((following, units)) + b"\1" + bytes((3 + 8 * units,)) + bytes(4 + 8 * units)


def ipv6(chance, whole=False):
    """An IPv6 packet with up to ten extension headers, few and in their usual order in `whole` ones."""
    protocol = chance.choice((1, 6, 6, 17, 17, 33, 47, 50, 58, 59, 132, 136))
    if whole:
        kinds = [kind for kind in (0, 60, 43, 51) if chance.random() < 0.25]
    else:
        kinds = [chance.choice(EXTENSIONS) for _ in range(chance.choice((0, 0, 0, 1, 2, 3, 10)))]
    body = b""
    chain = [*kinds, protocol]
    for kind, following in zip(chain, chain[1:], strict=False):
        body += extension(chance, kind, following)
    body += transport(chance, protocol)
    length = len(body)
    if not whole:
        length = chance.choice((length, length, length, 0, length - 3, length + 9, chance.randrange(1 << 16)))
    first = 6 << 28 | chance.randrange(1 << 28)
    return struct.pack("!IHBB32s", first, max(length, 0), chain[0], chance.randrange(256), chance.randbytes(32)) + body


def ip(chance, whole=False):
    """A packet of either family."""
    return chance.choice((ipv4, ipv6))(chance, whole)


def labels(chance, most):
    """A label stack, mostly with its bottom."""
    count = chance.randint(1, most)
    words = [chance.randrange(1 << 32) & ~0x100 for _ in range(count)]
    words[-1] |= 0x100
    return struct.pack(f"!{count}I", *words)


def ethernet(chance, whole=False):
    """A frame with tags, and behind them any of what may stand there, with padding."""
    kinds = [chance.choice(TAGS) for _ in range(chance.choice((0, 0, 1, 2, 4, 5)))]
    if whole:
        kinds = chance.choice(((), (0x8100,), (0x8100, 0x8100), (0x88A8, 0x8100)))
    tags = b"".join(struct.pack("!HH", kind, chance.randrange(1 << 16)) for kind in kinds)
    kind = chance.choice(("ip", "ip", "ip", "labels", "arp", *(() if whole else ("snap", "pppoe", "length", "any"))))
    packet = ip(chance, whole)
    number = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    if kind == "labels":
        number, packet = chance.choice((0x8847, 0x8848)), labels(chance, 3 if whole else 12) + packet
    elif kind == "arp":
        number, packet = 0x0806, struct.pack("!HHBBH20s", 1, 0x0800, 6, 4, 1, chance.randbytes(20))
    elif kind == "snap":
        number, packet = chance.randrange(0x600), hexed("aaaa03 000000") + struct.pack("!H", number) + packet
    elif kind == "pppoe":
        ppp = chance.choice((0x21 if number == 0x0800 else 0x57, 0xC021))
        number, packet = 0x8864, struct.pack("!BBHHH", 0x11, 0, 1, len(packet) + 2, ppp) + packet
    elif kind == "length":
        number = chance.randrange(0x600)
    elif kind == "any":
        number = chance.randrange(1 << 16)
    return chance.randbytes(12) + tags + struct.pack("!H", number) + packet + bytes(chance.choice((0, 0, 9)))


def hexed(text):
    """Octets of hexadecimal text."""
    return bytes.fromhex(text)


def any_packet(chance):
    """(octets, whether it begins with Ethernet); some have wrong octets, some are nothing but chance."""
    link = chance.random() < 0.7
    packet = ethernet(chance) if link else ip(chance)
    if chance.random() < 0.1:
        packet = octets(chance, 80)
    if packet and chance.random() < 0.2:
        place = chance.randrange(len(packet))
        packet = packet[:place] + chance.randbytes(1) + packet[place + 1 :]
    return packet, link
