"""Which listening addresses are taken: by sockets of this process, or by those of another program."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_ANY = ("0.0.0.0", "::")


class Address(NamedTuple):
    """A bound address: kind of socket, family, host and port."""

    kind: int
    family: int
    host: str
    port: int

    def overlaps(self, other: Address) -> bool:
        """Whether only one socket can have both: the same one, or one of them stands for all of its family."""
        same = self.host == other.host or self.host in _ANY or other.host in _ANY
        return same and (self.kind, self.family, self.port) == (other.kind, other.family, other.port)


def of_process() -> set[Address]:
    """The addresses on which this process listens, or gets datagrams."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.family not in (socket.AF_INET, socket.AF_INET6):
                continue
            if one.type == socket.SOCK_DGRAM or one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                host, port = one.getsockname()[:2]
                found.add(Address(one.type, one.family, host, port))
    return found


def wanted(kind: int, host: str, port: int) -> Iterator[Address]:
    """The addresses of a listening socket: of both families where it has no host. Raises OSError."""
    for one in [host] if host else _ANY:
        family = socket.AF_INET6 if ":" in one else socket.AF_INET
        where = socket.getaddrinfo(one, port, family, 0, 0, socket.AI_PASSIVE)[0][4]
        yield Address(kind, family, str(where[0]), port)


def refused(address: Address) -> OSError | None:
    """Why this address cannot be bound now; None where it can be, or where its interface may still come."""
    try:
        with socket.socket(address.family, address.kind) as one:
            if address.kind == socket.SOCK_STREAM:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if address.family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address.host, address.port))
    except OSError as error:
        return error if error.errno in (errno.EADDRINUSE, errno.EACCES) else None
    return None


def taken(kind: int, host: str, port: int, own: set[Address]) -> OSError | None:
    """Why another socket than our `own` keeps a new one from this address; None where nothing does."""
    try:
        addresses = list(wanted(kind, host, port))
    except OSError:  # a name that is not known now
        return None
    others = (address for address in addresses if not any(address.overlaps(one) for one in own))
    return next((found for found in map(refused, others) if found is not None), None)
