"""Sending octets to one peer: over a connected UDP socket, or a TCP connection that is made anew when it breaks."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import termios
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, endpoints, error, protocol, threads
from twisted.internet.interfaces import IPushProducer, IWriteDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.transports.url import Url

_IP_MTU, _IPV6_MTU = 14, 24
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2
_TCP_USER_TIMEOUT = 18
UNANSWERED_MS = 120_000
"""Milliseconds after which a connection whose peer acknowledges nothing is broken; the kernel's own are 15 minutes."""
CONNECT_TIMEOUT = 20
SENT, LATER, TOO_LONG, FAILED = "sent", "later", "too_long", "failed"
"""What `DatagramSender.send` did: gave it to the kernel; nothing, there is no room; nothing, it is longer than the path
takes; nothing, see `errors`."""


@implementer(IWriteDescriptor)
class DatagramSender:
    """A connected UDP socket. `ready` is called when it is open, and after a `LATER` when there is room again."""

    def __init__(self, url: Url, reactor: Any, ready: Callable[[], None], retry: float = 60.0) -> None:
        self.url = url
        self.errors: Counter[str] = Counter()
        self.last_error = ""
        self.headers = 28
        """Octets of IP and UDP headers before a message."""
        self._reactor = reactor
        self._ready = ready
        self._retry = retry
        self._socket: socket.socket | None = None
        self._again: Any = None
        self._waits = False
        self._closed = False

    @property
    def is_open(self) -> bool:
        return self._socket is not None

    def open(self) -> None:
        """Find the address and connect; a name is looked up in a thread, and again after `retry` seconds if need be."""
        self._again = None
        try:
            found = _lookup(self.url, socket.SOCK_DGRAM, socket.AI_NUMERICHOST)
        except OSError:
            waiting = threads.deferToThreadPool(
                self._reactor, self._reactor.getThreadPool(), _lookup, self.url, socket.SOCK_DGRAM
            )
            waiting.addCallbacks(self._connect, self._not_found)
        else:
            self._connect(found)

    def _not_found(self, failure: Failure) -> None:
        self._fault("lookup", failure.value)
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
        """What the kernel knows of the path: its route's MTU, or less once a router has said so; None if nothing."""
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
                # That was the ICMP answer to an earlier datagram, told once in place of sending this one.
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
        """The kernel has told of a fault."""
        self._fault(REASONS.get(fault.errno, "send"), fault)
        return FAILED

    def _go_on_waiting(self) -> None:
        if self._waits and self._socket is not None:
            self._reactor.addWriter(self)

    def close(self) -> None:
        self._closed = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._socket is not None:
            if self._waits:
                self._reactor.removeWriter(self)
            self._socket.close()
            self._socket = None


REASONS = {
    errno.ECONNREFUSED: "refused",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.ENOBUFS: "no_buffers",
    errno.EPERM: "forbidden",
    errno.EACCES: "forbidden",
}


def _lookup(url: Url, kind: int, flags: int = 0) -> tuple[int, Any]:
    """Family and socket address of a URL's host. Raises OSError."""
    family, _, _, _, where = socket.getaddrinfo(url.host, url.port, 0, kind, 0, flags)[0]
    return family, where


# --- TCP ------------------------------------------------------------------------------------------------------------


@implementer(IPushProducer)
class StreamSender(protocol.Protocol):
    """One TCP connection at a time to one peer; attempts begin at least `reconnect` seconds apart.

    `connected` is called when there is a new connection, `ready` when there is room again, `lost` (with the reason, and
    the octets that the peer's kernel had acknowledged) when it has ended, `failed` when an attempt was in vain.
    Between `connected` and `lost` octets may be written, best while `has_room`.
    """

    def __init__(
        self,
        url: Url,
        reactor: Any,
        reconnect: float,
        connected: Callable[[], None],
        ready: Callable[[], None],
        lost: Callable[[str, int], None],
        failed: Callable[[str], None],
    ) -> None:
        self.url = url
        self.is_up = False
        self.has_room = False
        self.written = 0
        """Octets written to this connection."""
        self._reactor = reactor
        self._reconnect = reconnect
        self._connected, self._ready, self._lost, self._failed = connected, ready, lost, failed
        self._attempt: defer.Deferred[Any] | None = None
        self._last_attempt = float("-inf")
        self._again: Any = None
        self._twin: int | None = None
        self._closing: defer.Deferred[None] | None = None
        self._stopped = False

    @property
    def connecting(self) -> bool:
        return self._attempt is not None

    def open(self) -> None:
        """Begin to connect."""
        self._again = None
        self._last_attempt = self._reactor.seconds()
        factory = protocol.Factory.forProtocol(lambda: self)
        factory.noisy = False
        self._attempt = self._endpoint().connect(factory)
        self._attempt.addErrback(self._refused)

    def _endpoint(self) -> Any:
        host, port = self.url.host, self.url.port
        if ":" in host:
            return endpoints.TCP6ClientEndpoint(self._reactor, host, port, CONNECT_TIMEOUT)
        if host.replace(".", "").isdecimal():
            return endpoints.TCP4ClientEndpoint(self._reactor, host, port, CONNECT_TIMEOUT)
        return endpoints.HostnameEndpoint(self._reactor, host, port, CONNECT_TIMEOUT)

    def _refused(self, failure: Failure) -> None:
        self._attempt = None
        if self._stopped:
            return
        self._failed(failure.getErrorMessage())
        self._later()

    def _later(self) -> None:
        wait = self._last_attempt + self._reconnect - self._reactor.seconds()
        self._again = self._reactor.callLater(max(wait, 0), self.open)

    # the connection

    def connectionMade(self) -> None:
        self._attempt = None
        if self._stopped:
            self.transport.abortConnection()
            return
        self.written = 0
        self._settle_socket()
        self._begin()

    def _begin(self) -> None:
        """There is a TCP connection: octets may be written."""
        self.is_up = self.has_room = True
        self.transport.registerProducer(self, True)
        self._connected()

    def _settle_socket(self) -> None:
        self.transport.setTcpKeepAlive(True)
        handle = self.transport.getHandle() if hasattr(self.transport, "getHandle") else None
        if handle is not None:
            handle.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, UNANSWERED_MS)
            # Twisted closes its socket before it says so; this one still tells what was acknowledged.
            self._twin = os.dup(handle.fileno())

    def write(self, octets: bytes) -> None:
        self.written += len(octets)
        self.transport.write(octets)

    def acknowledged(self, shut: bool = False) -> int:
        """Octets of this connection that the peer's kernel has; `shut` once our FIN is sent, which counts as one."""
        waiting = self._unacknowledged(shut)
        return 0 if waiting is None else self.written - waiting

    def _unacknowledged(self, shut: bool) -> int | None:
        """Octets given to the transport that the peer's kernel does not have; None where nobody knows."""
        if self._twin is None:
            return None
        waiting = array.array("i", [0])
        try:
            fcntl.ioctl(self._twin, termios.TIOCOUTQ, waiting)  # the same number as SIOCOUTQ
        except OSError:
            return None
        return _buffered(self.transport) + waiting[0] - (shut and waiting[0] > 0)

    def pauseProducing(self) -> None:
        self.has_room = False

    def resumeProducing(self) -> None:
        self.has_room = True
        self._ready()

    def stopProducing(self) -> None:
        self.has_room = False

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        in_order = reason.check(error.ConnectionDone) is not None
        acknowledged = self.acknowledged(shut=in_order)
        if self._twin is not None:
            os.close(self._twin)
            self._twin = None
        text = self._why("closed by the peer" if in_order else reason.getErrorMessage())
        was_up, self.is_up, self.has_room = self.is_up, False, False
        if was_up:
            self._lost(text, acknowledged)
        elif not self._stopped:
            self._failed(text)
        if self._closing is not None:
            self._closing.callback(None)
        elif not self._stopped:
            self._later()

    def _why(self, text: str) -> str:
        """Why the connection has ended, where the kernel says this."""
        return text

    # the end

    def close(self) -> defer.Deferred[None]:
        """Close in order, after all that was written; fires when that is done. No more attempts."""
        self._stopped = True
        if self._again is not None:
            self._again.cancel()
            self._again = None
        if self._attempt is not None:
            self._attempt.cancel()
        if not self.is_up:
            return defer.succeed(None)
        self._closing = defer.Deferred()
        self._take_leave()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        return self._closing

    def _take_leave(self) -> None:
        """Say what is to be said at the end of an orderly connection; TCP's FIN needs no more."""

    def abort(self) -> None:
        """End the connection at once."""
        if self.is_up:
            self.transport.abortConnection()


def _buffered(transport: Any) -> int:
    """Octets that Twisted has not given to the kernel; it has no public name for that."""
    return len(transport.dataBuffer) - transport.offset + transport._tempDataLen
