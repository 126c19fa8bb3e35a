"""Answers to datagrams, sent from the address asked (RFC 1122 section 4.1.3.5).

A socket on all addresses would answer from the address of the route back, unknown to the sender.
"""

from __future__ import annotations

import socket
import struct
from typing import Any, NamedTuple

from ulogd_tw.transports.slab import Slab

_IP_PKTINFO, _IPV6_RECVPKTINFO, _IPV6_PKTINFO = 8, 49, 50
_HEAD = struct.Struct("=Qii")
"""struct cmsghdr."""
CONTROL = 64
"""Octets of the control data requested by `ask`."""


class ReplyPath(NamedTuple):
    """The destination of an answer, and the control data with its source for `sendmsg`."""

    address: tuple[Any, ...]
    ancillary: tuple[tuple[int, int, bytes], ...]


def ask(bound: socket.socket) -> None:
    """Have the kernel tell which of our addresses a datagram was sent to."""
    if bound.family == socket.AF_INET6:
        bound.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        bound.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)


def way(slab: Slab, place: int) -> ReplyPath:
    """The way back of one datagram."""
    told, address = slab.control(place), slab.address(place)
    if len(told) >= _HEAD.size:
        _, level, kind = _HEAD.unpack_from(told)
        body = told[_HEAD.size :]
        if (level, kind) == (socket.IPPROTO_IP, _IP_PKTINFO) and len(body) >= 12:
            return ReplyPath(address, ((level, kind, bytes(4) + body[4:8] + bytes(4)),))
        if (level, kind) == (socket.IPPROTO_IPV6, _IPV6_PKTINFO) and len(body) >= 20:
            # The interface counts only for an address of its link, and the sender's scope names it already.
            return ReplyPath(address, ((level, kind, body[:16] + bytes(4)),))
    return ReplyPath(address, ())
