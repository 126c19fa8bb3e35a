"""Messages of rtnetlink about links (rtnetlink(7)): number and name of an interface."""

from __future__ import annotations

import struct
from typing import NamedTuple

from ulogd_tw.core.errors import MessageError
from ulogd_tw.netfilter.attributes import attributes

RTM_NEWLINK, RTM_DELLINK = 16, 17
RTNLGRP_LINK = 1
_HEAD = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_IFLA_IFNAME = 3


class Link(NamedTuple):
    """An interface that is there, or (`gone`) no longer."""

    index: int
    name: str
    gone: bool


def link(octets: bytes) -> Link | None:
    """What one message says, None for other messages. Raises `MessageError`."""
    if len(octets) < _HEAD.size + _LINK.size:
        raise MessageError(f"a message of {len(octets)} octets", "length", 0)
    _, kind, *_ = _HEAD.unpack_from(octets)
    family, _, index, *_ = _LINK.unpack_from(octets, _HEAD.size)
    if kind not in (RTM_NEWLINK, RTM_DELLINK) or family != 0:  # of a bridge: that a port has left it
        return None
    for attribute, start, length in attributes(octets, _HEAD.size + _LINK.size, len(octets)):
        if attribute == _IFLA_IFNAME:
            name = octets[start : start + length].rstrip(b"\0").decode("utf-8", "replace")
            return Link(index, name, kind == RTM_DELLINK)
    return None
