"""nfnetlink_log messages: recorded ones, ones of any kind, and the rules for one row, which the codec is held against.

Nothing here uses the code under test. Little-endian hosts only, as is all CI. ``nflog.bin.gz`` has datagrams of a Linux
6.18, each behind its length in 32 bits: pings, refused TCP and UDP over IPv4 and IPv6, ARP, one packet with a VLAN tag,
logged by nft rules of the families inet (hooks input and output), arp and netdev, with both kinds of sequence numbers.
"""

import gzip
import struct
from pathlib import Path

import numpy as np

from tests.support import shared_path
from tests.unit.netfilter.messages import _dig, _int, _text, any_message, attr, be, nest
from tests.unit.netfilter.messages import row as connection

CONNECTION = ("ct.mark", "ct.id", "ct.status", "ct.zone", "ct.helper", "ct.labels", "orig.ip.saddr", "reply.l4.dport")
"""Keys of the connection that `row` has where one is attached."""


def packet(family, *attributes, group=5):
    """struct nlmsghdr, struct nfgenmsg, attributes."""
    body = struct.pack(">BBH", family, 0, group) + b"".join(attributes)
    return struct.pack("<IHHII", 16 + len(body), 0x400, 0, 0, 0) + body


def header(protocol, hook):
    """NFULA_PACKET_HDR."""
    return attr(1, struct.pack(">HBx", protocol, hook))


def _datagrams(octets):
    found, at = [], 0
    while at < len(octets):
        (length,) = struct.unpack_from("<I", octets, at)
        found.append(octets[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def recorded():
    """The datagrams beside this module."""
    return _datagrams(gzip.decompress(Path(__file__).with_name("nflog.bin.gz").read_bytes()))


def corpus():
    """The datagrams of the shared corpus: UDP over IPv4, one rule."""
    return _datagrams(gzip.decompress(shared_path("corpus", "netlink", "nflog.bin.gz").read_bytes()))


def cut(datagram):
    """The messages of a datagram, without netlink's own."""
    found, at = [], 0
    while at < len(datagram):
        length, kind = struct.unpack_from("<IH", datagram, at)
        if kind >= 16:
            found.append(datagram[at : at + length])
        at += (length + 3) & ~3
    return found


def together(messages, gap=0):
    """Octets with all messages, their starts and lengths; what lies between and behind is not zero."""
    starts, octets = [], bytearray()
    for message in messages:
        octets += b"\xa5" * (4 * gap)
        starts.append(len(octets))
        octets += message + b"\xa5" * (-len(message) % 4)
    octets += b"\xa5" * 8
    lengths = np.array([len(message) for message in messages], np.int64)
    return np.frombuffer(bytes(octets), np.uint8), np.array(starts, np.int64), lengths


def row(octets, now, label=0):
    """The row of one message by ulogd2's rules; absent keys are left out."""
    attributes, family = octets[20:], octets[16]

    def number(*path):
        return _int(_dig(attributes, *path))

    head, time, hardware = (_dig(attributes, kind) for kind in (1, 3, 8))
    microseconds = int(now * 1e6)
    found = {
        "oob.family": family, "raw.label": label, "raw.pktcount": 1, "oob.mark": number(2) or 0,
        "oob.hook": head[2], "oob.protocol": int.from_bytes(head[:2], "big"), "oob.prefix": _text(_dig(attributes, 10)),
        "oob.time.sec": int.from_bytes(time[4:8], "big") if time else microseconds // 10**6,
        "oob.time.usec": int.from_bytes(time[12:16], "big") if time else microseconds % 10**6,
        "oob.ifindex_in": number(4) or None, "oob.ifindex_out": number(5) or None,
        "oob.uid": number(11), "oob.gid": number(14), "oob.seq.local": number(12), "oob.seq.global": number(13),
    }  # fmt: skip
    payload = _dig(attributes, 9)
    if payload is not None:
        found |= {"raw.pkt": payload, "raw.pktlen": len(payload)}
    if number(17):
        found |= {"raw.mac_len": number(17), "raw.mac": _dig(attributes, 16), "raw.type": number(15)}
    if hardware:
        length = int.from_bytes(hardware[:2], "big")
        found |= {"raw.mac.addrlen": length, "raw.mac.saddr": hardware[4:12][:length]}
    tag = number(20, 2)
    if tag is not None:
        found |= {"dot1qVlanId": tag & 0xFFF, "dot1qPriority": tag >> 13}
    tracked = _dig(attributes, 18)
    if tracked is not None and _dig(tracked, 12) is not None:
        event = struct.pack("<IHHII", 20 + len(tracked), 0x102, 0, 0, 0) + bytes((family, 0, 0, 0)) + tracked
        values = connection(event, now)
        found |= {key: values[key] for key in CONNECTION if key in values and (family in (2, 10) or key[-4:] != "addr")}
    return {key: value for key, value in found.items() if value is not None}


_SIZES = {2: 4, 3: 16, 4: 4, 5: 4, 8: 12, 11: 4, 12: 4, 13: 4, 14: 4, 15: 2, 17: 2}


def any_packet(random):
    """A message with any attributes in any order, the payload mostly last, as the kernel writes them."""

    def top(kind):
        if kind in _SIZES:
            octets = random.randbytes(_SIZES[kind]) if random.random() < 0.9 else bytes(_SIZES[kind])
            return attr(kind, be(2, random.randint(0, 12)) + octets[2:] if kind == 8 else octets)
        if kind == 10:
            return attr(kind, random.choice((b"in: \0", b"out: \0", b"forward \xff and more\0", b"\0", b"no end")))
        if kind == 18:
            return nest(kind, any_message(random)[20:])
        if kind == 20:
            return nest(kind, attr(2, random.randbytes(2)), attr(1, b"\x81\0"))
        return attr(kind, random.randbytes(random.choice((0, 1, 14, 30))))

    kinds = [kind for kind in (*_SIZES, 10, 16, 18, 20, 99) if random.random() < 0.4]
    if random.random() < 0.3:
        random.shuffle(kinds)
    attributes = [header(random.randrange(65536), random.randrange(256)), *map(top, kinds)]
    if random.random() < 0.9:
        place = len(attributes) if random.random() < 0.8 else random.randint(0, len(attributes))
        attributes.insert(place, attr(9, random.randbytes(random.choice((1, 20, 60, 61, 62, 63, 1500)))))
    return packet(random.choice((1, 2, 3, 5, 7, 10)), *attributes, group=random.choice((5, 6)))
