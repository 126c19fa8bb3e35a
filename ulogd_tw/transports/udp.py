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

from ulogd_tw.transports.descriptors import descriptors, name_of_bound
from ulogd_tw.transports.gathering import Gathering, Terms
from ulogd_tw.transports.receive_buffer import enlarge
from ulogd_tw.transports.slab import Slab
from ulogd_tw.transports.stream_listener import bind_all
from ulogd_tw.transports.url import Url

reactor: Any = _reactor
_SO_MEMINFO = 55
_MEMINFO = struct.Struct("=9I")
_MEMINFO_HELD, _MEMINFO_DROPS = 0, 8
"""Indexes of SK_MEMINFO_RMEM_ALLOC and SK_MEMINFO_DROPS in SO_MEMINFO (include/uapi/linux/sock_diag.h)."""
MOST_AT_ONCE = 2048
"""Datagrams of one wake-up; more stay in the kernel for the next one, so that other sockets get their turn."""
_FEWEST = 64
_TURN = 0.02
"""Seconds of work that a wake-up may take; where what stands below is slow, it gets fewer datagrams."""
_STRIDE = 2048
"""Octets of a row of the slab: a datagram that a network carries whole fits; larger ones go on in the spill."""

Received = Callable[["UdpListener", Slab], None]
"""Takes the listener and its slab, whose rows are valid until it returns."""


class Watch:
    """Is told how far a listener has come; this one does not look."""

    def read(self, datagrams: int) -> None:
        """So many datagrams have been read."""

    def hand(self) -> None:
        """All that were read are handed over next."""

    def handed(self, datagrams: int) -> None:
        """They have been handed over."""


@implementer(IReadDescriptor)
class UdpListener:
    """One bound socket. When a wake-up found few datagrams it is left alone for a while; see `gathering`."""

    control = 0
    """Octets that the kernel may tell about each datagram."""
    spared = 19
    """Under load it is left alone for so many times as long as the last read took."""
    work_clock = staticmethod(time.thread_time)
    """Time without the processor does not count: fewer datagrams at once would make it more."""
    longest_s = float("inf")
    has_meminfo = True
    keeps = True

    def __init__(self, bound: socket.socket, received: Received, terms: Terms) -> None:
        self._socket = bound
        self._received = received
        host, port = bound.getsockname()[:2]
        self.place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        """The listening address, to identify it."""
        self.buffer = bound.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        """Octets of receive buffer that the kernel gave (it counts its own overhead too)."""
        self._slab = Slab(MOST_AT_ONCE, _STRIDE, 65536 - _STRIDE, self.control)
        self.most = MOST_AT_ONCE
        """Datagrams of the next read."""
        self.kept = 0
        """Datagrams that were read and not handed over."""
        self.gathering = Gathering(self, terms, reactor, self.spared)
        self.unread = 0
        """Datagrams that were left at the end."""
        self.lost = 0
        """Datagrams that the kernel dropped because the buffer of this socket was full."""
        self._lost_before = 0
        """Those that a former owner of the socket has counted."""
        self.watch = Watch()
        self._name = ""

    @classmethod
    def bind(cls, url: Url, received: Received, buffer: int, terms: Terms) -> list[UdpListener]:
        """Bind a URL: one socket, or one for IPv4 and one for IPv6 where it has no host. Raises OSError."""
        listeners = []
        for bound in bind_all(url, socket.SOCK_DGRAM):
            name = name_of_bound(bound)
            for kept in [name, *descriptors.beside(name)]:  # of workers that there were, each with its part
                one = bound if kept == name else descriptors.take(kept)
                if one is not None:
                    enlarge(one, buffer)
                    listener = cls(one, received, terms)
                    listener._announce(kept)
                    listeners.append(listener)
        return listeners

    def _announce(self, name: str) -> None:
        """A reload or a restart hands the socket on."""
        self._name = name
        descriptors.opened(name, self)

    def begin(self) -> None:
        notes = descriptors.notes(self._name)
        if notes is not None:
            self._lost_before = notes["drops"] if "drops" in notes else self._memory()[_MEMINFO_DROPS]
        self.gathering.begin()

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return "udp"

    def connectionLost(self, reason: Any) -> None:
        self.close()

    def doRead(self) -> None:
        self.gathering.turn()

    def read_once(self) -> int:
        """Read once, and hand over; how many datagrams there were."""
        began = self.work_clock()
        count = self._read()
        self._fit(count, self.work_clock() - began)
        return count

    def _fit(self, count: int, spent: float) -> None:
        """The next read brings half as many datagrams where this one took longer than `_TURN`; or twice as many."""
        if spent > _TURN:
            self.most = max(min(count, self.most) // 2, _FEWEST)
        elif count == self.most and spent < _TURN / 2:
            self.most = min(2 * self.most, MOST_AT_ONCE)

    def keep(self) -> int:
        """Read without handing over; how many datagrams are kept now."""
        before = self.kept
        try:
            self.kept = self._slab.receive(self._socket.fileno(), self.most, self.kept)
        except OSError as fault:
            if fault.errno != errno.ECONNREFUSED:  # the echo of an ICMP error; nothing was lost
                raise
        self.watch.read(self.kept - before)
        return self.kept

    def _read(self) -> int:
        """Read as many datagrams as the slab holds and hand over all; how many there were."""
        count, self.kept = self.keep(), 0
        if count:
            self.watch.hand()
            self._received(self, self._slab)
            self.watch.handed(count)
        return count

    def _leave(self) -> int:
        """Read datagrams without handing them over; how many there were."""
        self.most = self._slab.count
        count, self.kept = self._slab.receive(self._socket.fileno(), self.most, self.kept), 0
        self.unread += count
        return count

    def held(self) -> int:
        """Octets that the kernel holds for it."""
        return self._memory()[_MEMINFO_HELD]

    def poll(self) -> None:
        """Read the kernel's count of drops."""
        self.lost = (self._memory()[_MEMINFO_DROPS] - self._lost_before) & 0xFFFFFFFF

    def _memory(self) -> tuple[int, ...]:
        return _MEMINFO.unpack(self._socket.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size))

    def catch_up(self) -> None:
        self.gathering.catch_up()

    def drain(self, until: float) -> None:
        """Read what the kernel already holds, and no more afterwards; after `until` it is only counted."""
        self.gathering.end()
        # a peer that sends without end shall not keep us: the kernel's buffer holds no more than this
        most = max(self.buffer // 256, MOST_AT_ONCE)
        while most > 0:
            count = self._read() if time.monotonic() < until else self._leave()
            if count < self.most:
                break
            most -= count
        self.poll()
        descriptors.note(self._name, drops=self.lost + self._lost_before)

    def close(self) -> None:
        self.gathering.end()
        self._socket.close()
