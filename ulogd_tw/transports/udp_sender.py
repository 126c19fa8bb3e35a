"""Sending datagrams to one peer over a connected UDP socket."""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.internet.interfaces import IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.transports import names, own_flows
from ulogd_tw.transports.url import Url

_IP_MTU, _IPV6_MTU = 14, 24
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
SENT, LATER, TOO_LONG, FAILED = "sent", "later", "too_long", "failed"
"""Results of `UdpSender.send`: given to the kernel; no room; longer than the path allows; failed, see `errors`."""


@implementer(IWriteDescriptor)
class UdpSender:
    """A connected UDP socket. `ready` is called when it is open, and after a `LATER` when there is room again.

    `moved` is called before `ready` when the name has another address, and so the socket another peer.
    """

    follows = True
    """Whether the name is looked up again while the socket is open, as its host may have moved."""

    def __init__(
        self,
        url: Url,
        reactor: Any,
        ready: Callable[[], None],
        retry: float = 60.0,
        moved: Callable[[], None] = lambda: None,
    ) -> None:
        self.url = url
        self._moved = moved
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self.headers = 28
        """Octets of IP and UDP headers before a message."""
        self._reactor = reactor
        self._ready = ready
        self._retry = retry
        self._socket: socket.socket | None = None
        self._flow: own_flows.Flow | None = None
        self._again: Any = None
        self._waits = False
        self._closed = False

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def open(self) -> None:
        """Find the address and connect; a name is looked up in a thread, and again after `retry` seconds if need be."""
        self._again = None
        found = names.numeric(self.url.host, self.url.port, socket.SOCK_DGRAM)
        if found is not None:
            self._connect(found)
        else:
            self._lookup().addCallbacks(self._found, self._not_found)

    def _lookup(self) -> defer.Deferred[list[names.Address]]:
        return names.lookup(self._reactor, self.url.host, self.url.port, socket.SOCK_DGRAM)

    def _found(self, addresses: list[names.Address]) -> None:
        self._connect(addresses[0])
        if self.follows and self._socket is not None:
            self._again = self._reactor.callLater(names.AGAIN, self._look_again)

    def _look_again(self) -> None:
        """Look the name up again; where nobody answers, its host is taken to be where it was."""
        self._again = None
        self._lookup().addCallbacks(self._compare, lambda _: None).addCallback(lambda _: self._follow())

    def _follow(self) -> None:
        if not self._closed and self._again is None:
            self._again = self._reactor.callLater(names.AGAIN, self._look_again)

    def _compare(self, addresses: list[names.Address]) -> None:
        """Go where the name is now, if that is elsewhere."""
        if self._closed or self._socket is None:
            return
        if self._socket.getpeername()[0] not in [where[0] for _, where in addresses]:
            self._let_go()
            self._moved()
            self._connect(addresses[0])

    def _not_found(self, failure: Failure) -> None:
        self._fault("lookup", failure.value or OSError("not found"))
        if not self._closed:
            self._again = self._reactor.callLater(self._retry, self.open)

    def _connect(self, found: tuple[int, Any]) -> None:
        if self._closed:
            return
        family, where = found
        self.headers = 48 if family == socket.AF_INET6 else 28
        try:
            self._socket = self._make_socket(family, where)
        except OSError as fault:  # no route, no such family
            self._not_found(Failure(fault))
            return
        ours, theirs = self._socket.getsockname(), self._socket.getpeername()
        self._flow = own_flows.opened(own_flows.between(own_flows.UDP, ours, theirs))
        self._ready()

    make = staticmethod(socket.socket)

    def _make_socket(self, family: int, where: Any) -> socket.socket:
        made = self.make(family, socket.SOCK_DGRAM)
        try:
            made.setblocking(False)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
            else:
                made.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
            made.connect(where)
        except OSError:
            made.close()
            raise
        return made

    def path_mtu(self) -> int | None:
        """The kernel's knowledge of the path: its route's MTU, or less after a router's report; None if unknown."""
        if self._socket is None:
            return None
        six = self._socket.family == socket.AF_INET6
        try:
            if six:
                return self._socket.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
            return self._socket.getsockopt(socket.IPPROTO_IP, _IP_MTU)
        except OSError:
            return None

    def send(self, octets: Any) -> str:
        """Send one datagram: `SENT`, `LATER`, `TOO_LONG` or `FAILED`."""
        assert self._socket is not None
        for _ in range(2):
            try:
                self._socket.send(octets)
                return SENT
            except BlockingIOError:
                self._wait()
                return LATER
            except OSError as fault:
                if fault.errno == errno.EMSGSIZE:
                    return TOO_LONG
                self._told_of(fault)
                if fault.errno != errno.ECONNREFUSED:
                    break
                # That was the ICMP answer to an earlier datagram, reported once instead of sending this one.
        return FAILED

    def _fault(self, reason: str, fault: BaseException) -> None:
        self.errors[reason] += 1
        self.last_error = str(fault)

    def _wait(self) -> None:
        if not self._waits:
            self._waits = True
            self._reactor.addWriter(self)

    def doWrite(self) -> None:
        self._waits = False
        self._reactor.removeWriter(self)
        self._ready()

    def fileno(self) -> int:
        return self._socket.fileno() if self._socket is not None else -1

    def logPrefix(self) -> str:
        return str(self.url)

    def connectionLost(self, reason: Any) -> None:
        """Nothing is lost: the reactor takes an ICMP error of a datagram (EPOLLERR) for the end of a connection."""
        if self._socket is None:
            return
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._told_of(OSError(number, os.strerror(number)))
        self._go_on_waiting()

    def _told_of(self, fault: OSError) -> str:
        """The kernel has reported a fault."""
        self._fault(REASONS.get(fault.errno or 0, "send"), fault)
        return FAILED

    def _go_on_waiting(self) -> None:
        if self._waits and self._socket is not None:
            self._reactor.addWriter(self)

    def close(self) -> None:
        self._closed = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._let_go()

    def _let_go(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            if self._waits:
                self._waits = False
                self._reactor.removeWriter(self)
            self._socket.close()
            self._socket = None
            own_flows.closed(self._flow)


REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENOBUFS: "no_buffers",
    errno.EPERM: "forbidden",
    errno.EACCES: "forbidden",
}
