"""Messages of ctnetlink: which attributes the kernel sends, and the walk through one message.

The numbers are those of include/uapi/linux/netfilter/nfnetlink_conntrack.h. The walk finds the place of each value;
`ulogd_tw.netfilter.layout` keeps these places for all messages of the same layout.
"""

from __future__ import annotations

import struct

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.netfilter.grammar import HEADERS, IPV4, IPV6, Field, Grammar, Hash, Walked, fields_of, step

SUBSYSTEM = 1
"""NFNL_SUBSYS_CTNETLINK, the high octet of the message type."""
MSG_NEW, MSG_GET, MSG_DELETE, MSG_GET_CTRZERO = range(4)
GROUP_NEW, GROUP_UPDATE, GROUP_DESTROY = 1, 2, 3
"""Multicast groups (enum nfnetlink_groups)."""
NEW, UPDATE, DESTROY = 1, 2, 4
"""Events, as in ulogd2's ct.event and event_mask."""
_HEADERS = struct.Struct("=IHHIIBBH")
_CREATED = 0x400 | 0x200
"""NLM_F_CREATE and NLM_F_EXCL: a NEW message without them is an update or an entry of a dump."""


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
"""Attribute type -> field, or the attributes nested in it; other attributes are skipped."""


FIELDS = fields_of(TREE)
"""All fields by name."""


def walk(octets: bytes) -> Walked:
    """The places of all values in one ctnetlink message, from its nlmsghdr on.

    Raises `MessageError`. Of a repeated attribute the last one counts, as in the kernel's nla_parse.
    """
    if len(octets) < HEADERS:
        raise MessageError(f"{plural(len(octets), 'octet is', 'octets are')} too few for ctnetlink", "length")
    length, kind, flags, _, _, family, _, _ = _HEADERS.unpack_from(octets)
    if length != len(octets):
        raise MessageError(f"message of {plural(len(octets), 'octet')} says {length}", "length")
    if kind >> 8 != SUBSYSTEM or kind & 0xFF not in (MSG_NEW, MSG_DELETE):
        raise MessageError(f"message type {kind:#x} is not a conntrack entry", "type")
    if family not in (IPV4, IPV6):
        raise MessageError(f"address family {family} is neither IPv4 nor IPv6", "family")
    heads: list[int] = []
    fields: dict[str, tuple[int, int]] = {}
    step(octets, HEADERS, length, TREE, heads, fields)
    if kind & 0xFF == MSG_DELETE:
        event = DESTROY
    else:
        event = NEW if flags & _CREATED else UPDATE
    return Walked(family, event, tuple(heads), fields)


_HASH = Hash(words=((0, 0x9E3779B1), (1, 0x85EBCA6B), (4, 0xC2B2AE35)))
"""Of the length, the type and flags, and the family."""

GRAMMAR = Grammar(
    FIELDS,
    walk,
    fixed=((0, 8), (16, 4)),
    key=lambda octets: octets[:8] + octets[16:20],
    hashed=_HASH,
    octets=320,
    layouts=512,
)
"""Events and entries of dumps. Real systems have up to 3 layouts of one length, type and family."""


def value(octets: bytes, field: str, walked: Walked) -> int | bytes | None:
    """A field of one message: a number, octets (text ends before its first NUL), or None without the field."""
    if field not in walked.fields:
        return None
    at, length = walked.fields[field]
    payload = octets[at : at + length]
    if FIELDS[field].octets:
        return int.from_bytes(payload, "big")
    return payload if field == "labels" else payload.split(b"\0")[0]
