"""Requests to ctnetlink: dump, get, delete. Each is the type, the flags and the payload of one netlink message.

The transport adds the netlink header with the sequence number. ctnetlink ignores unknown attributes.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from ulogd_tw.netfilter.attributes import attribute, nest
from ulogd_tw.netfilter.ctnetlink import MSG_DELETE, MSG_GET, MSG_GET_CTRZERO, SUBSYSTEM
from ulogd_tw.netfilter.grammar import IPV4, IPV6

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
TCP, UDP, UDPLITE, SCTP, DCCP, ICMP, ICMPV6, GRE = 6, 17, 136, 132, 33, 1, 58, 47
_WITH_PORTS = {TCP, UDP, UDPLITE, SCTP, DCCP, GRE}


@dataclass(frozen=True, slots=True)
class Request:
    """A netlink message without its header."""

    kind: int
    flags: int
    payload: bytes

    @property
    def dumps(self) -> bool:
        """True if the answer is many messages and NLMSG_DONE; else it is one message and an acknowledgement."""
        return self.flags & NLM_F_DUMP == NLM_F_DUMP


@dataclass(frozen=True, slots=True)
class Tuple:
    """One direction of a flow: addresses of one family, protocol, and the protocol's identifiers.

    `sport` and `dport` for protocols with ports (GRE: its keys); `icmp` is (identifier, type, code).
    """

    source: ipaddress.IPv4Address | ipaddress.IPv6Address
    destination: ipaddress.IPv4Address | ipaddress.IPv6Address
    protocol: int
    sport: int = 0
    dport: int = 0
    icmp: tuple[int, int, int] | None = None

    @property
    def family(self) -> int:
        return IPV4 if self.source.version == 4 else IPV6

    def attribute(self, kind: int) -> bytes:
        """The nested attribute CTA_TUPLE_ORIG (1) or CTA_TUPLE_REPLY (2)."""
        first = 1 if self.family == IPV4 else 3
        addresses = nest(1, attribute(first, self.source.packed), attribute(first + 1, self.destination.packed))
        parts = [attribute(1, bytes([self.protocol]))]
        if self.protocol in _WITH_PORTS:
            parts += [attribute(2, struct.pack(">H", self.sport)), attribute(3, struct.pack(">H", self.dport))]
        elif self.icmp is not None:
            first = 4 if self.protocol == ICMP else 7
            identifier, type_, code = self.icmp
            parts += [attribute(first, struct.pack(">H", identifier))]
            parts += [attribute(first + 1, bytes([type_])), attribute(first + 2, bytes([code]))]
        return nest(kind, addresses, nest(2, *parts))


def _request(message: int, flags: int, family: int, *attributes: bytes) -> Request:
    # struct nfgenmsg: family, version NFNETLINK_V0, resource id.
    head = struct.pack(">BBH", family, 0, 0)
    return Request(SUBSYSTEM << 8 | message, NLM_F_REQUEST | flags, head + b"".join(attributes))


def dump(family: int = 0, zero: bool = False) -> Request:
    """Request for all entries, of one family or of all (0); with `zero` their counters are set to 0 when read."""
    return _request(MSG_GET_CTRZERO if zero else MSG_GET, NLM_F_DUMP, family)


def get(flow: Tuple, zone: int = 0, zero: bool = False) -> Request:
    """Request for the entry with `flow` as original direction. For an unknown one the answer is ENOENT."""
    return _request(MSG_GET_CTRZERO if zero else MSG_GET, NLM_F_ACK, flow.family, flow.attribute(1), *_zone(zone))


def delete(flow: Tuple, ident: int | None = None, zone: int = 0) -> Request:
    """Request to delete one entry; with `ident` (ct.id) only the entry with this id."""
    # CTA_ID is compared as it was sent to us, in network byte order.
    which = (attribute(12, struct.pack(">I", ident)),) if ident is not None else ()
    return _request(MSG_DELETE, NLM_F_ACK, flow.family, flow.attribute(1), *_zone(zone), *which)


def flush(family: int = 0) -> Request:
    """Request to delete all entries, of one family (kernels from 4.20 on) or of all."""
    return _request(MSG_DELETE, NLM_F_ACK, family)


def _zone(zone: int) -> tuple[bytes, ...]:
    return (attribute(18, struct.pack(">H", zone)),) if zone else ()
