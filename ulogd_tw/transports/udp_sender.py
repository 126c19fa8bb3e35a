"""Sending datagrams to one peer over a connected UDP socket."""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from twisted.internet import defer
from twisted.internet.interfaces import IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.transports import names, own_flows
from ulogd_tw.transports.url import Url

_IP_MTU, _IPV6_MTU = 14, 24
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
_SOL_UDP, _UDP_SEGMENT = 17, 103
_MOST_SEGMENTS, _MOST_OCTETS = 64, 65507
"""Datagrams that Linux takes in one call (UDP_MAX_SEGMENTS; 128 since 6.9), and their octets."""
_NOT_SEGMENTED = (errno.EIO, errno.EINVAL, errno.EMSGSIZE, errno.EOPNOTSUPP)
"""No checksums by the interface (Linux before 6.11), or IPsec; a segment longer than the path takes; all too long."""
SENT, LATER, TOO_LONG, FAILED = "sent", "later", "too_long", "failed"
"""Results of `UdpSender.send`: given to the kernel; no room; longer than the path allows; failed, see `errors`."""


def one_by_one(send: Callable[[Any], str], datagrams: np.ndarray) -> tuple[int, int, str]:
    """Send the rows, until there is no room or one is too long: how many are done, how many of these failed, and the
    last result. One Python step a datagram, 5 us with the system call."""
    failed, result = 0, SENT
    for done, datagram in enumerate(datagrams):
        result = send(datagram)
        if result in (LATER, TOO_LONG):
            return done, failed, result
        failed += result != SENT
    return len(datagrams), failed, result


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
        self._segments = False
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
        self._segments = _segments(self._socket)
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

    def send_all(self, datagrams: np.ndarray) -> tuple[int, int, str]:
        """Send the rows, datagrams of one length, as `one_by_one`; many with one system call where the kernel can."""
        n, length = datagrams.shape
        done = failed = 0
        result = SENT
        while done < n and result not in (LATER, TOO_LONG):
            at_once = min(_MOST_SEGMENTS, _MOST_OCTETS // length) if self._segments else n
            part = datagrams[done : done + at_once]
            if self._segments and len(part) > 1 and (result := self._send_segments(part, length)) != FAILED:
                done += len(part) if result == SENT else 0
                continue
            sent, wrong, result = one_by_one(self.send, part)
            done, failed = done + sent, failed + wrong
        return done, failed, result

    def _send_segments(self, part: np.ndarray, length: int) -> str:
        """Send all of these with one call: `SENT`, `LATER`, or `FAILED` where each has to be tried by itself."""
        assert self._socket is not None
        try:
            self._socket.sendmsg([part.reshape(-1).data], [(_SOL_UDP, _UDP_SEGMENT, struct.pack("=H", length))])
        except BlockingIOError:
            self._wait()
            return LATER
        except OSError as fault:
            if fault.errno not in _NOT_SEGMENTED:
                self._told_of(fault)
            elif (self.path_mtu() or _MOST_OCTETS) >= length + self.headers:  # else the path has become narrower
                self._segments = False
            return FAILED
        return SENT

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


def _segments(made: socket.socket) -> bool:
    """Whether the kernel knows UDP_SEGMENT (Linux 4.18); an older one would send all as one datagram."""
    try:
        made.getsockopt(_SOL_UDP, _UDP_SEGMENT)
    except OSError:
        return False
    return True


REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENOBUFS: "no_buffers",
    errno.EPERM: "forbidden",
    errno.EACCES: "forbidden",
}
