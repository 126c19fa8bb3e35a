"""ctnetlink messages written from the kernel's headers, and the rules for one row: what the codec is held against.

Nothing here uses the code under test. Little-endian hosts only, as is all CI.
"""

import gzip
import struct

import numpy as np

from tests.support import shared_path

NEW, UPDATE, DESTROY = (0x100, 0x600), (0x100, 0), (0x102, 0)
"""(nlmsg_type, nlmsg_flags): IPCTNL_MSG_CT_NEW with NLM_F_CREATE|NLM_F_EXCL, without, IPCTNL_MSG_CT_DELETE."""


def attr(kind, payload):
    """struct nlattr, padded."""
    return struct.pack("<HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def nest(kind, *inside):
    """An attribute of attributes."""
    return attr(kind | 0x8000, b"".join(inside))


def be(octets, number):
    """A number in network byte order."""
    return number.to_bytes(octets, "big")


def message(event, family, *attributes, sequence=0, port=0):
    """struct nlmsghdr, struct nfgenmsg, attributes."""
    body = struct.pack(">BBH", family, 0, 0) + b"".join(attributes)
    return struct.pack("<IHHII", 16 + len(body), *event, sequence, port) + body


def flow_tuple(kind, source, destination, protocol, *detail):
    """CTA_TUPLE_ORIG (1) or _REPLY (2)."""
    first = 1 if len(source) == 4 else 3
    return nest(
        kind,
        nest(1, attr(first, source), attr(first + 1, destination)),
        nest(2, attr(1, be(1, protocol)), *detail),
    )


def ports(source, destination):
    """CTA_PROTO_SRC_PORT and _DST_PORT."""
    return attr(2, be(2, source)), attr(3, be(2, destination))


def counters(kind, packets, octets):
    """CTA_COUNTERS_ORIG (9) or _REPLY (10)."""
    return nest(kind, attr(1, be(8, packets)), attr(2, be(8, octets)))


def corpus():
    """The recorded events of a Linux 6.18."""
    raw = gzip.decompress(shared_path("corpus", "netlink", "ctnetlink.bin.gz").read_bytes())
    found, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        found.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    return found


def slab(messages, stride=512):
    """Rows as a read gives them: what lies behind a message is not zero but what was there before."""
    rows = np.full((len(messages), stride), 0xA5, np.uint8)
    for row, octets in zip(rows, messages, strict=True):
        row[: len(octets)] = np.frombuffer(octets, np.uint8)
    return rows, np.array([len(m) for m in messages], np.int64)


# --- one row at a time ----------------------------------------------------------------------------------------------


def _tree(octets):
    """Attributes as {type: payload}, the last one of a type counting."""
    found, at = {}, 0
    while at < len(octets):
        length, kind = struct.unpack_from("<HH", octets, at)
        if length > 4:
            found[kind & 0x3FFF] = octets[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def _dig(octets, *path):
    for kind in path:
        if octets is None:
            return None
        octets = _tree(octets).get(kind)
    return octets


def _int(octets):
    return None if octets is None else int.from_bytes(octets, "big")


def _text(octets):
    return None if octets is None else octets.split(b"\0")[0]


def row(octets, now):
    """The row of one message as ulogd2's rules and ours have it; absent keys are left out."""
    attributes, family = octets[20:], octets[16]
    v4 = family == 2
    kind, flags = struct.unpack_from("<HH", octets, 4)
    event = 4 if kind & 0xFF == 2 else 1 if flags & 0x600 else 2

    def number(*path):
        return _int(_dig(attributes, *path))

    found = {"oob.family": family, "oob.protocol": 0, "ct.event": event, "ct.mark": number(8) or 0}
    for side, top, count in (("orig", 1, 9), ("reply", 2, 10)):
        found[f"{side}.ip.saddr"] = number(top, 1, 1 if v4 else 3)
        found[f"{side}.ip.daddr"] = number(top, 1, 2 if v4 else 4)
        found[f"{side}.ip.protocol"] = number(top, 2, 1)
        found[f"{side}.l4.sport"] = number(top, 2, 2)
        found[f"{side}.l4.dport"] = number(top, 2, 3)
        packets, volume = number(count, 1), number(count, 2)
        found[f"{side}.raw.pktcount"] = number(count, 3) if packets is None else packets
        found[f"{side}.raw.pktlen"] = number(count, 4) if volume is None else volume
        deltas = ("octetDeltaCount", "packetDeltaCount")
        for name, key in zip(deltas, ("pktlen", "pktcount"), strict=True):
            reverse = f"reverse{name[0].upper()}{name[1:]}"
            found[name if side == "orig" else reverse] = found[f"{side}.raw.{key}"]
    word = "icmp" if v4 else "icmpv6"
    for name, place in (("id", 4), ("type", 5), ("code", 6)):
        found[f"{word}.{name}"] = number(1, 2, place if v4 else place + 3)
    start, stop, at = number(20, 1), number(20, 2), number(27)
    received = int(now * 1e6) * 1000
    if start is None and event == 1:
        start = received if at is None else at
    if stop is None and event == 4:
        stop = received if at is None else at
    for edge, upper, ns in (("start", "Start", start), ("end", "End", stop)):
        if ns is not None:
            found[f"flow.{edge}.sec"] = ns // 10**9 & 0xFFFFFFFF
            found[f"flow.{edge}.usec"] = ns // 1000 % 10**6
            found[f"flow{upper}Milliseconds"] = ns // 10**6
    found["observationTimeMilliseconds"] = None if at is None else at // 10**6
    found["postNATSourceAddress"] = found["reply.ip.daddr"]
    found["postNATDestinationAddress"] = found["reply.ip.saddr"]
    found["postNAPTSourceTransportPort"] = found["reply.l4.dport"]
    found["postNAPTDestinationTransportPort"] = found["reply.l4.sport"]
    found |= {"ct.id": number(12), "ct.status": number(3), "ct.timeout": number(7), "ct.use": number(11)}
    zones = [number(18), number(1, 3), number(2, 3)]
    found["ct.zone"] = next((zone for zone in zones if zone is not None), 0)
    found["orig.zone"], found["reply.zone"] = zones[1:]
    found["ct.labels"] = _dig(attributes, 22)
    found["ct.helper"], found["ct.secctx"] = _text(_dig(attributes, 5, 1)), _text(_dig(attributes, 19, 1))
    found["ct.tcp.state"] = number(4, 1, 1)
    found["ct.tcp.wscale.orig"], found["ct.tcp.wscale.reply"] = number(4, 1, 2), number(4, 1, 3)
    for side, place in (("orig", 4), ("reply", 5)):
        both = _dig(attributes, 4, 1, place)
        found[f"ct.tcp.flags.{side}"] = None if both is None else both[0]
    found["ct.dccp.state"], found["ct.dccp.role"] = number(4, 2, 1), number(4, 2, 2)
    found["ct.dccp.handshake_seq"] = number(4, 2, 3)
    found["ct.sctp.state"] = number(4, 3, 1)
    found["ct.sctp.vtag.orig"], found["ct.sctp.vtag.reply"] = number(4, 3, 2), number(4, 3, 3)
    found["ct.master.saddr"] = number(14, 1, 1 if v4 else 3)
    found["ct.master.daddr"] = number(14, 1, 2 if v4 else 4)
    found["ct.master.protocol"] = number(14, 2, 1)
    found["ct.master.sport"], found["ct.master.dport"] = number(14, 2, 2), number(14, 2, 3)
    return {name: value for name, value in found.items() if value is not None}


# --- any message ----------------------------------------------------------------------------------------------------

_NUMBERS = {3: 4, 7: 4, 8: 4, 11: 4, 12: 4, 18: 2, 27: 8}
_PROTO = {1: 1, 2: 2, 3: 2, 4: 2, 5: 1, 6: 1, 7: 2, 8: 1, 9: 1}
_STATES = {1: {1: 1, 2: 1, 3: 1, 4: 2, 5: 2}, 2: {1: 1, 2: 1, 3: 8}, 3: {1: 1, 2: 4, 3: 4}}


def any_message(random):
    """A message that the kernel's header allows, made with this random.Random: any order, some unknown attributes."""

    def some(kinds):
        return random.sample(sorted(kinds), random.randint(0, len(kinds)))

    def numbers(sizes):
        return b"".join(attr(kind, random.randbytes(sizes[kind])) for kind in some(sizes))

    def top(kind):
        if kind in _NUMBERS:
            return attr(kind, random.randbytes(_NUMBERS[kind]))
        if kind in (1, 2, 14):
            addresses = {1: 4, 2: 4} if family == 2 else {3: 16, 4: 16}
            parts = {1: nest(1, numbers(addresses)), 2: nest(2, numbers(_PROTO)), 3: attr(3, random.randbytes(2))}
            return nest(kind, *(parts[part] for part in some(parts)))
        if kind in (9, 10):
            return nest(kind, numbers({1: 8, 2: 8, 3: 4, 4: 4}))
        if kind == 20:
            return nest(kind, numbers({1: 8, 2: 8}))
        if kind == 4:
            return nest(kind, *(nest(part, numbers(_STATES[part])) for part in some(_STATES)))
        if kind in (5, 19):
            word = bytes(random.choices(b"abcdefg", k=random.randint(0, 9))) + b"\0"
            return nest(kind, attr(1, word))
        if kind == 22:
            return attr(kind, random.randbytes(random.randint(1, 20)))
        return attr(kind, random.randbytes(random.randint(0, 9)))

    family = random.choice((2, 10))
    known = [*_NUMBERS, 1, 2, 14, 9, 10, 20, 4, 5, 19, 22, random.randint(28, 200)]
    return message(random.choice((NEW, UPDATE, DESTROY)), family, *map(top, some(known)))
