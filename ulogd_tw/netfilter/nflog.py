"""nfnetlink_log: the attributes of a logged packet, the walk through a message, and the requests.

The numbers are those of include/uapi/linux/netfilter/nfnetlink_log.h.
"""

from __future__ import annotations

import struct

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.netfilter import ctnetlink
from ulogd_tw.netfilter.attributes import attribute
from ulogd_tw.netfilter.grammar import HEADERS, IPV4, IPV6, Field, Grammar, Hash, Parts, Walked, fields_of, step
from ulogd_tw.netfilter.requests import NLM_F_ACK, NLM_F_REQUEST, Request

SUBSYSTEM = 4
"""NFNL_SUBSYS_ULOG, the high octet of the message type."""
MSG_PACKET, MSG_CONFIG = 0, 1
FAMILIES = (1, 2, 3, 5, 7, 10)
"""NFPROTO_INET, IPV4, ARP, NETDEV, BRIDGE, IPV6: the family of the rule that logged the packet."""
PREFIX, PAYLOAD = 10, 9

TREE: dict = {
    1: Parts(4, ((0, Field("packet", 4)),)),
    2: Field("nfmark", 4),
    3: Parts(16, ((0, Field("time.sec", 8)), (8, Field("time.usec", 8)))),
    4: Field("indev", 4),
    5: Field("outdev", 4),
    8: Parts(12, ((0, Field("hw.addrlen", 2)), (4, Field("hw.addr", 8)))),
    PAYLOAD: Field("payload", 0),
    PREFIX: Field("prefix", 0),
    11: Field("uid", 4),
    12: Field("seq", 4),
    13: Field("seq.global", 4),
    14: Field("gid", 4),
    15: Field("hwtype", 2),
    16: Field("hwheader", 0),
    17: Field("hwlen", 2),
    18: ctnetlink.TREE,
    20: {1: Field("vlan.proto", 2), 2: Field("vlan.tci", 2)},
}
"""Attribute type -> field, struct, or the attributes nested in it; other attributes are skipped.

``packet`` is hw_protocol (16 bits), hook (8), padding (8).
"""

FIELDS = fields_of(TREE)
_HEADERS, _ATTRIBUTE = struct.Struct("=IHHIIBBH"), struct.Struct("=HH")


def walk(octets: bytes) -> Walked:
    """The places of all values in one message with a logged packet, from its nlmsghdr on. Raises `MessageError`.

    The prefix is fixed by a rule, so it belongs to the layout. The payload may have any length if it is the last
    attribute.
    """
    if len(octets) < HEADERS:
        raise MessageError(f"{plural(len(octets), 'octet is', 'octets are')} too few for nfnetlink_log", "length")
    length, kind, _, _, _, family, _, _ = _HEADERS.unpack_from(octets)
    if length != len(octets):
        raise MessageError(f"message of {plural(len(octets), 'octet')} says {length}", "length")
    if kind != SUBSYSTEM << 8 | MSG_PACKET:
        raise MessageError(f"message type {kind:#x} is not a logged packet", "type")
    if family not in FAMILIES:
        raise MessageError(f"{family} is not a family of firewall rules", "family")
    heads: list[int] = []
    fields: dict[str, tuple[int, int]] = {}
    step(octets, HEADERS, length, TREE, heads, fields)
    if "packet" not in fields:
        raise MessageError("logged packet without its header", "attribute missing")
    last = heads[-1]
    open_at = last if fields.get("payload", (0, 0))[0] == last + 4 else 0
    same = {}
    if "prefix" in fields:
        at, size = fields["prefix"]
        same["prefix"] = octets[at : at + size].split(b"\0")[0]
    return Walked(family, 0, tuple(heads), fields, open_at, same)


def _key(octets: bytes) -> bytes:
    size, kind = _ATTRIBUTE.unpack_from(octets, 28) if len(octets) >= 32 else (0, 0)
    return octets[4:8] + octets[16:20] + octets[28 : 28 + (size if kind == PREFIX else 4)]


_HASH = Hash(
    words=((1, 0x9E3779B1), (4, 0x85EBCA6B), (7, 0xC2B2AE35)),
    text=PREFIX,
    of_text=((8, 0x27D4EB2F), (9, 0x165667B1), (10, 0xD3A2646D)),
)
"""Of the type, family and group, the second attribute's header and, for a prefix, its first twelve octets."""

GRAMMAR = Grammar(FIELDS, walk, fixed=((4, 4), (16, 4)), key=_key, hashed=_HASH, octets=128, layouts=4096)
"""Logged packets. A rule set has one layout for each combination of prefix, direction, socket and mark."""


# --- requests ---------------------------------------------------------------------------------------------------------

BIND, UNBIND, PF_BIND, PF_UNBIND = 1, 2, 3, 4
COPY_META, COPY_PACKET = 1, 2
SEQ, SEQ_GLOBAL, CONNTRACK = 1, 2, 4
"""Flags of NFULA_CFG_FLAGS."""


def _config(family: int, group: int, *attributes: bytes) -> Request:
    head = struct.pack(">BBH", family, 0, group)
    return Request(SUBSYSTEM << 8 | MSG_CONFIG, NLM_F_REQUEST | NLM_F_ACK, head + b"".join(attributes))


def bind(
    group: int,
    *,
    copy_octets: int,
    flags: int,
    buffer_octets: int,
    threshold: int = 0,
    timeout_cs: int = 0,
    ours: bool = False,
) -> Request:
    """Request for a group with all its settings in one step, so that no packet is logged with other settings.

    copy_octets     octets of each packet, 0 for none
    buffer_octets   maximum length of a datagram with several packets
    threshold       packets after which it is sent, 0: the kernel's 100
    timeout_cs      1/100 s after which it is sent, 0: the kernel's 1 s
    ours            the group belongs to this socket already; only its settings change
    """
    mode = COPY_PACKET if copy_octets else COPY_META
    parts = [] if ours else [attribute(1, bytes([BIND]))]
    parts += [
        attribute(2, struct.pack(">IBx", copy_octets, mode)),
        attribute(3, struct.pack(">I", buffer_octets)),
        attribute(6, struct.pack(">H", flags)),
    ]
    if timeout_cs:
        parts.append(attribute(4, struct.pack(">I", timeout_cs)))
    if threshold:
        parts.append(attribute(5, struct.pack(">I", threshold)))
    return _config(0, group, *parts)


def unbind(group: int) -> Request:
    """Give a group back; the kernel sends the packets gathered so far."""
    return _config(0, group, attribute(1, bytes([UNBIND])))


def system_logging(family: int, bound: bool) -> Request:
    """Make nfnetlink_log, or nothing, the kernel's own logger of packets of this family."""
    return _config(family, 0, attribute(1, bytes([PF_BIND if bound else PF_UNBIND])))


SYSTEM_FAMILIES = (IPV4, IPV6, 7)
"""AF_INET, AF_INET6, AF_BRIDGE."""
