"""Links, addresses and routes from the kernel (rtnetlink(7)), by pyroute2's message classes.

pyroute2 is imported by the first call: any part of it loads all of it, 9 MB and 0.06 s, and a service without these
questions need not pay for it. The sockets are `NetlinkPort`, or here a short-lived one for a program that may wait.
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
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    return _request(ifinfmsg(), RTM_GETLINK, DUMP)


def link(octets: bytes) -> Link | None:
    """An interface from one message, None for other messages. Raises `MessageError`."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    message = _decoded(ifinfmsg, octets)
    kind = message["header"]["type"]
    if kind not in (RTM_NEWLINK, RTM_DELLINK) or message["family"]:  # of a bridge: that a port has left it
        return None
    name = _attribute(message, "IFLA_IFNAME")
    if name is None:
        return None
    if isinstance(name, bytes):  # no UTF-8
        name = name.rstrip(b"\0").decode("utf-8", "replace")
    return Link(message["index"], name, kind == RTM_DELLINK, bool(message["flags"] & _IFF_UP))


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


def _decoded(kind: type, octets: bytes) -> Any:
    """The message in these octets. Raises `MessageError`, in place of pyroute2's several exceptions."""
    if len(octets) < nlmsg.HEADER.size or struct.unpack_from("=I", octets)[0] > len(octets):
        raise MessageError(f"a message of {plural(len(octets), 'octet')}", "length", 0)
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
