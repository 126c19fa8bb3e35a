"""Messages of ctnetlink: which attributes the kernel sends, and the walk through one message.

The numbers are those of include/uapi/linux/netfilter/nfnetlink_conntrack.h. The walk says where each value lies;
`ulogd_tw.netfilter.layout` remembers that for all messages that are built alike.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from ulogd_tw.core.errors import MessageError
from ulogd_tw.netfilter.attributes import attributes

SUBSYSTEM = 1
"""NFNL_SUBSYS_CTNETLINK, the high octet of the message type."""
MSG_NEW, MSG_GET, MSG_DELETE, MSG_GET_CTRZERO = range(4)
GROUP_NEW, GROUP_UPDATE, GROUP_DESTROY = 1, 2, 3
"""Multicast groups (enum nfnetlink_groups)."""
NEW, UPDATE, DESTROY = 1, 2, 4
"""Events, as in ulogd2's ct.event and event_mask."""
IPV4, IPV6 = 2, 10
"""Address families."""

HEADERS = 20
"""Octets before the attributes: struct nlmsghdr (16) and struct nfgenmsg (4)."""
_HEADERS = struct.Struct("=IHHIIBBH")
_CREATED = 0x400 | 0x200
"""NLM_F_CREATE and NLM_F_EXCL: a NEW message without them is an update or an entry of a dump."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value of a message; `octets` is its size, 0 for variable length. Numbers are in network byte order.

    `family` is that of the messages that can have it, 0 for both.
    """

    name: str
    octets: int
    family: int = 0


def _tuple(prefix: str) -> dict:
    def field(name: str, octets: int, family: int = 0) -> Field:
        return Field(f"{prefix}.{name}", octets, family)

    return {
        1: {
            1: field("src4", 4, IPV4), 2: field("dst4", 4, IPV4),
            3: field("src6", 16, IPV6), 4: field("dst6", 16, IPV6),
        },
        2: {
            1: field("protocol", 1), 2: field("sport", 2), 3: field("dport", 2),
            4: field("icmp_id", 2, IPV4), 5: field("icmp_type", 1, IPV4), 6: field("icmp_code", 1, IPV4),
            7: field("icmpv6_id", 2, IPV6), 8: field("icmpv6_type", 1, IPV6), 9: field("icmpv6_code", 1, IPV6),
        },
        3: field("zone", 2),
    }  # fmt: skip


def _counters(prefix: str) -> dict:
    packets, octets = f"{prefix}.packets", f"{prefix}.octets"
    return {1: Field(packets, 8), 2: Field(octets, 8), 3: Field(packets + "32", 4), 4: Field(octets + "32", 4)}


TREE: dict = {
    1: _tuple("orig"),
    2: _tuple("reply"),
    3: Field("status", 4),
    4: {
        1: {1: Field("tcp.state", 1), 2: Field("tcp.wscale.orig", 1), 3: Field("tcp.wscale.reply", 1),
            4: Field("tcp.flags.orig", 2), 5: Field("tcp.flags.reply", 2)},
        2: {1: Field("dccp.state", 1), 2: Field("dccp.role", 1), 3: Field("dccp.handshake_seq", 8)},
        3: {1: Field("sctp.state", 1), 2: Field("sctp.vtag.orig", 4), 3: Field("sctp.vtag.reply", 4)},
    },
    5: {1: Field("helper", 0)},
    7: Field("timeout", 4),
    8: Field("mark", 4),
    9: _counters("orig"),
    10: _counters("reply"),
    11: Field("use", 4),
    12: Field("id", 4),
    14: _tuple("master"),
    18: Field("zone", 2),
    19: {1: Field("secctx", 0)},
    20: {1: Field("start", 8), 2: Field("stop", 8)},
    22: Field("labels", 0),
    27: Field("event_time", 8),
}  # fmt: skip
"""Attribute type -> field, or the attributes nested in it; all others are stepped over."""


def _fields(tree: dict) -> dict[str, Field]:
    found = {}
    for below in tree.values():
        found |= _fields(below) if isinstance(below, dict) else {below.name: below}
    return found


FIELDS = _fields(TREE)
"""All fields by name."""


@dataclass(frozen=True, slots=True)
class Walked:
    """What a walk found. `heads`: offsets of all attribute headers; `fields`: name -> (offset, length)."""

    family: int
    event: int
    heads: tuple[int, ...]
    fields: dict[str, tuple[int, int]]


def walk(octets: bytes) -> Walked:
    """Where everything lies in one netlink message of ctnetlink, from its nlmsghdr on.

    Raises `MessageError`. Of an attribute that stands twice the last one counts, as in the kernel's nla_parse.
    """
    if len(octets) < HEADERS:
        raise MessageError(f"{len(octets)} octets are too few for ctnetlink", "length")
    length, kind, flags, _, _, family, _, _ = _HEADERS.unpack_from(octets)
    if length != len(octets):
        raise MessageError(f"message of {len(octets)} octets says {length}", "length")
    if kind >> 8 != SUBSYSTEM or kind & 0xFF not in (MSG_NEW, MSG_DELETE):
        raise MessageError(f"message type {kind:#x} is no conntrack entry", "type")
    if family not in (IPV4, IPV6):
        raise MessageError(f"address family {family} is neither IPv4 nor IPv6", "family")
    heads: list[int] = []
    fields: dict[str, tuple[int, int]] = {}
    _step(octets, HEADERS, length, TREE, heads, fields)
    if kind & 0xFF == MSG_DELETE:
        event = DESTROY
    else:
        event = NEW if flags & _CREATED else UPDATE
    return Walked(family, event, tuple(heads), fields)


def _step(octets: bytes, start: int, end: int, tree: dict, heads: list[int], fields: dict) -> None:
    for kind, at, length in attributes(octets, start, end):
        heads.append(at - 4)
        below = tree.get(kind)
        if isinstance(below, dict):
            _step(octets, at, at + length, below, heads, fields)
        # Empty ones are padding where the kernel aligns 64-bit values; before CTA_TIMESTAMP_EVENT (6.14) it is
        # even of type 3, which is CTA_STATUS at that level.
        elif below is not None and length:
            if below.octets not in (0, length):
                raise MessageError(f"{below.name} of {length} octets", "attribute size", at)
            fields[below.name] = (at, length)


def value(octets: bytes, field: str, walked: Walked) -> int | bytes | None:
    """A field of one message: a number, octets (text ends before its first NUL), None where it is not there."""
    if field not in walked.fields:
        return None
    at, length = walked.fields[field]
    payload = octets[at : at + length]
    if FIELDS[field].octets:
        return int.from_bytes(payload, "big")
    return payload if field == "labels" else payload.split(b"\0")[0]
