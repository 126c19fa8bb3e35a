"""Links, addresses and routes from the kernel (rtnetlink(7)).

A link is decoded here, since a service keeps up with them: any part of pyroute2 loads all of it, 9 MB and 0.06 s.
Addresses and routes are for programs of a moment, by pyroute2's message classes. The sockets are `NetlinkPort`, or here
a short-lived one for a program that may wait.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any, NamedTuple

from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.transports.netlink import nlmsg

NETLINK_ROUTE = 0
RTNLGRP_LINK = 1
RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_GETADDR, RTM_GETROUTE = 16, 17, 18, 22, 26
REQUEST, DUMP = 1, 0x300
_IFF_UP = 1
_IFLA_IFNAME = 3
_IFINFOMSG = struct.Struct("=BxHiII")
"""Family, type, index, flags and changed flags of an interface (rtnetlink(7)); its attributes follow."""
_ATTRIBUTE = struct.Struct("=HH")
_TYPE = 0x3FFF
"""Of an attribute, without its flags."""
_ANSWER_OCTETS = 1 << 17
_WAIT_S = 2.0


class Link(NamedTuple):
    """An interface that is there, or (`gone`) no longer; `up` is the administrator's wish."""

    number: int
    name: str
    gone: bool = False
    up: bool = True


Request = tuple[int, int, bytes]
"""Type, flags and payload of a request, as `NetlinkPort.request` takes them."""


def all_links() -> Request:
    """The request for every interface of the namespace."""
    return RTM_GETLINK, REQUEST | DUMP, bytes(_IFINFOMSG.size)


def link(octets: bytes) -> Link | None:
    """An interface from one message, None for other messages. Raises `MessageError`."""
    octets, kind = _whole(octets)
    if kind not in (RTM_NEWLINK, RTM_DELLINK):
        return None
    start = nlmsg.HEADER.size + _IFINFOMSG.size
    if len(octets) < start:
        raise MessageError(f"a message of {plural(len(octets), 'octet')}", "length", 0)
    family, _, index, flags, _ = _IFINFOMSG.unpack_from(octets, nlmsg.HEADER.size)
    name = _name(octets, start)
    if family or name is None:  # of a bridge: that a port has left it
        return None
    return Link(index, name, kind == RTM_DELLINK, bool(flags & _IFF_UP))


def _name(octets: bytes, start: int) -> str | None:
    """IFLA_IFNAME among the attributes from here on. Raises `MessageError`."""
    found = None
    while start < len(octets):
        size, kind = _ATTRIBUTE.unpack_from(octets, start) if len(octets) - start >= _ATTRIBUTE.size else (0, 0)
        if not _ATTRIBUTE.size <= size <= len(octets) - start:
            raise MessageError(f"an attribute of {plural(size, 'octet')}", "attribute length", start)
        if kind & _TYPE == _IFLA_IFNAME:
            found = octets[start + _ATTRIBUTE.size : start + size].partition(b"\0")[0].decode("utf-8", "replace")
        start += size + 3 & ~3
    return found


def links() -> list[Link]:
    """The interfaces of this namespace. Raises OSError."""
    return [found for octets in _asked(all_links()) if (found := link(octets)) is not None]


def addresses() -> set[str]:
    """The addresses of this namespace. Raises OSError."""
    from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

    messages = [_decoded(ifaddrmsg, octets) for octets in _asked(_request(ifaddrmsg(), RTM_GETADDR, DUMP))]
    found = [(_attribute(m, "IFA_LOCAL"), _attribute(m, "IFA_ADDRESS")) for m in messages]
    return {str(local or address) for local, address in found if local or address}


def route_fault(address: str) -> str:
    """Why packets to this address have no way, as the kernel says it; empty where they have one."""
    from pyroute2.netlink.rtnl.rtmsg import rtmsg

    destination = ip_address(address)
    message = rtmsg()
    message["family"] = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    message["dst_len"] = destination.max_prefixlen
    message["attrs"] = [("RTA_DST", str(destination))]
    try:
        _asked(_request(message, RTM_GETROUTE, 0))
    except OSError as error:
        return error.strerror or str(error)
    return ""


def _request(message: Any, kind: int, flags: int) -> Request:
    message.encode()
    return kind, REQUEST | flags, bytes(message.data[nlmsg.HEADER.size :])


def _whole(octets: bytes) -> tuple[bytes, int]:
    """A message as long as it says, and its type. Raises `MessageError`."""
    size, kind = struct.unpack_from("=IH", octets) if len(octets) >= nlmsg.HEADER.size else (0, 0)
    if not nlmsg.HEADER.size <= size <= len(octets):
        raise MessageError(f"a message of {plural(len(octets), 'octet')}", "length", 0)
    return octets[:size], kind


def _decoded(kind: type, octets: bytes) -> Any:
    """The message in these octets. Raises `MessageError`, in place of pyroute2's several exceptions."""
    octets, _ = _whole(octets)
    try:
        message = kind(octets)
        message.decode()
    except Exception as error:
        raise MessageError(f"a message of rtnetlink: {error}") from error
    return message


def _attribute(message: Any, name: str) -> Any:
    """The value of an attribute, which is decoded only here; None where it is not there. Raises `MessageError`."""
    try:
        return message.get_attr(name)
    except Exception as error:
        raise MessageError(f"{name}: {error}") from error


def _asked(request: Request) -> list[bytes]:
    """The kernel's answer to a request, on a socket of this call. Raises OSError."""
    kind, flags, payload = request
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE) as made:
        made.settimeout(_WAIT_S)
        made.bind((0, 0))
        made.send(nlmsg.message(kind, flags, 1, payload))
        return list(_answer(made, bool(flags & DUMP)))


def _answer(made: socket.socket, dump: bool) -> Iterator[bytes]:
    """The messages up to the end of a dump, or the one that there is."""
    while True:
        messages, broken = nlmsg.split([made.recv(_ANSWER_OCTETS)])
        if broken:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        for octets in messages.octets():
            if struct.unpack_from("=H", octets, 4)[0] >= nlmsg.FIRST_TYPE:
                yield octets
                continue
            control = nlmsg.control(octets)
            if control.code:
                raise OSError(-control.code, os.strerror(-control.code))
            if control.kind in (nlmsg.DONE, nlmsg.ERROR):
                return
        if not dump:
            return
