"""A listening UDP socket that hands over all datagrams of one wake-up together."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.interfaces import IReadDescriptor
from zope.interface import implementer

from ulogd_tw.transports.slab import Slab
from ulogd_tw.transports.stream_listener import bind_all
from ulogd_tw.transports.url import Url

reactor: Any = _reactor
_SO_RCVBUFFORCE = 33
_SO_MEMINFO = 55
_MEMINFO_DROPS = 8
"""Index of SK_MEMINFO_DROPS among the 32-bit words of SO_MEMINFO (include/uapi/linux/sock_diag.h)."""
MOST_AT_ONCE = 2048
"""Datagrams of one wake-up; more stay in the kernel for the next one, so that other sockets get their turn."""
_FEWEST = 64
_TURN = 0.02
"""Seconds that a wake-up may take; where what stands below is slow, it gets fewer datagrams."""
_LONGER = 4
_LONGEST = 24
_KEPT_OCTETS = 2304
"""Octets of buffer that the kernel counts for a datagram of a full Ethernet frame."""
_FASTEST = 200_000
"""Datagrams a second that a pause must not lose: more than one core takes."""
_STRIDE = 2048
"""Octets of a row of the slab: a datagram that a network carries whole fits; larger ones go on in the spill."""

Received = Callable[["UdpListener", Slab], None]
"""Takes the listener and its slab, whose rows are valid until it returns."""


@implementer(IReadDescriptor)
class UdpListener:
    """One bound socket. When a wake-up found few datagrams it is not read for `latency`, so that more come together."""

    control = 0
    """Octets that the kernel may tell about each datagram."""
    spared = 19
    """How many times as long as a read took there is none, as long as that is not beyond `_LONGEST` times `latency`."""

    def __init__(self, bound: socket.socket, received: Received, latency: float) -> None:
        self._socket = bound
        self._received = received
        self._latency = latency
        host, port = bound.getsockname()[:2]
        self.place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        """The listening address, to identify it."""
        self._room = self.buffer / _KEPT_OCTETS / _FASTEST
        self._slab = Slab(MOST_AT_ONCE, _STRIDE, 65536 - _STRIDE, self.control)
        self._most = MOST_AT_ONCE
        self._again: Any = None
        self._reading = False
        self.unread = 0
        """Datagrams that were left at the end."""
        self.lost = 0
        """Datagrams that the kernel dropped because the buffer of this socket was full."""

    @classmethod
    def bind(cls, url: Url, received: Received, buffer: int, latency: float) -> list[UdpListener]:
        """Bind a URL: one socket, or one for IPv4 and one for IPv6 where it has no host. Raises OSError."""
        listeners = []
        for bound in bind_all(url, socket.SOCK_DGRAM):
            _set_buffer(bound, buffer)
            listeners.append(cls(bound, received, latency))
        return listeners

    @property
    def buffer(self) -> int:
        """Octets of receive buffer that the kernel gave (it counts its own overhead too)."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def begin(self) -> None:
        self._reading = True
        reactor.addReader(self)

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "udp"

    def connectionLost(self, reason: Any) -> None:
        self.close()

    def doRead(self) -> None:
        began, most = time.perf_counter(), self._most
        count = self._read()
        spent = time.perf_counter() - began
        self._fit(count, spent)
        if count < most and self._latency and self._reading:
            reactor.removeReader(self)
            self._again = reactor.callLater(self._pause(count, spent), self._resume)

    def _fit(self, count: int, spent: float) -> None:
        """The next read brings half as many datagrams where this one took longer than `_TURN`; or twice as many."""
        if spent > _TURN:
            self._most = max(min(count, self._most) // 2, _FEWEST)
        elif count == self._most and spent < _TURN / 2:
            self._most = min(2 * self._most, MOST_AT_ONCE)

    def _pause(self, count: int, spent: float) -> float:
        """Seconds until the next read: `latency`, and up to four times that under load.

        The pause grows until reading takes a twentieth of the time, but at most to 24 times `latency`: a wake-up with
        all its processing costs 1 to 2 ms at any size, so longer pauses make a record cheaper. Datagrams arriving
        meanwhile must fit into the kernel's buffer.
        """
        while_much = self._latency * min(1 + count // 16, _LONGER)
        return min(max(while_much, min(self.spared * spent, _LONGEST * self._latency)), self._room)

    def _resume(self) -> None:
        self._again = None
        if self._reading:
            reactor.addReader(self)

    def _read(self) -> int:
        """Read as many datagrams as the slab holds and hand them over; how many there were."""
        try:
            count = self._slab.receive(self._socket.fileno(), self._most)
        except OSError as fault:
            if fault.errno != errno.ECONNREFUSED:  # the echo of an ICMP error; nothing was lost
                raise
            return 0
        if count:
            self._received(self, self._slab)
        return count

    def _leave(self) -> int:
        """Read datagrams without handing them over; how many there were."""
        self._most = self._slab.count
        count = self._slab.receive(self._socket.fileno(), self._most)
        self.unread += count
        return count

    def poll(self) -> None:
        """Read the kernel's count of drops."""
        memory = self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, 36)
        self.lost = struct.unpack_from("=I", memory, 4 * _MEMINFO_DROPS)[0]

    def drain(self, until: float) -> None:
        """Read what the kernel already holds, and no more afterwards; after `until` it is only counted."""
        self._reading = False
        reactor.removeReader(self)
        # a peer that sends without end shall not keep us: the kernel's buffer holds no more than this
        most = max(self.buffer // 256, MOST_AT_ONCE)
        while most > 0:
            count = self._read() if time.monotonic() < until else self._leave()
            if count < self._most:
                break
            most -= count
        self.poll()

    def close(self) -> None:
        self._reading = False
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._socket.fileno() >= 0:
            reactor.removeReader(self)
            self._socket.close()


def _set_buffer(bound: socket.socket, octets: int) -> None:
    """The largest receive buffer we may have: beyond net.core.rmem_max only with CAP_NET_ADMIN."""
    try:
        bound.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, octets)
    except PermissionError:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, octets)
