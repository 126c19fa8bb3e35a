"""Listening stream sockets: TCP connections as octets with a peer, which can be paused and drained."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import defer, error, protocol, reactor
from twisted.logger import Logger
from twisted.python.failure import Failure

from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.transports.addresses import Address
from ulogd_tw.transports.descriptors import bound_name, descriptors, name_of_bound
from ulogd_tw.transports.url import Url

_FREEBIND, _IPV6_FREEBIND = 15, 78
"""IP_FREEBIND and IPV6_FREEBIND (linux/in.h, linux/in6.h)."""
_UNTIL_IT_IS_GONE = (0.01, 0.05, 0.1, 0.2, 0.4)
"""Seconds between attempts to bind an address that a former socket had, at the start only."""
_log = Logger()
_limited = RateLimitedLog(time.monotonic)

_MOST_READS = 64
"""Reads of a connection when it is drained at a stop: 4 MB, by default the most that a kernel keeps for it."""


class StreamConnection(protocol.Protocol):
    """One connection. Its user sets `received` (octets) and `lost` (why it ended)."""

    transport: Any

    def __init__(self, connected: Callable[[StreamConnection], None]) -> None:
        self._connected = connected
        self.received: Callable[[bytes], None] = lambda data: None
        self.lost: Callable[[str], None] = lambda reason: None
        self.peer: tuple[str, int] = ("", 0)
        self._octets = 0

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.peer = (peer.host, peer.port)
        self.transport.setTcpKeepAlive(True)
        self._connected(self)

    def dataReceived(self, data: bytes) -> None:
        self._octets += len(data)
        self.received(data)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        clean = reason.check(error.ConnectionDone)
        self.lost("closed by the peer" if clean else reason.getErrorMessage())

    def pause(self) -> None:
        """Read no further; the kernel's window fills and the peer waits."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()

    def drain(self, until: float) -> None:
        """Read what the kernel already holds, as long as there is time (monotonic clock)."""
        for _ in range(_MOST_READS):
            before = self._octets
            if time.monotonic() >= until:
                return
            if self.transport.disconnected or self.transport.doRead() is not None or self._octets == before:
                return

    def close(self) -> None:
        self.transport.loseConnection()


class StreamListener:
    """One bound TCP socket. `begin` starts to accept."""

    lost = unread = 0

    def __init__(self, port: Any) -> None:
        self._port = port
        descriptors.opened(name_of_bound(port.socket), self)

    def fileno(self) -> int:
        """The descriptor that accepts; -1 when it is closed."""
        return self._port.fileno() if self._port.connected else -1

    @classmethod
    def bind(
        cls,
        url: Url,
        connected: Callable[[StreamConnection], None],
        make: Callable[[Callable[[StreamConnection], None]], StreamConnection] = StreamConnection,
    ) -> list[StreamListener]:
        """Bind a URL: one socket, or one for IPv4 and one for IPv6 where it has no host. Raises OSError.

        `make` gives the object of a new connection, which calls `connected` once its user may have it.
        """
        factory = protocol.Factory.forProtocol(lambda: make(connected))
        factory.noisy = False
        listeners = []
        for bound in bind_all(url, socket.SOCK_STREAM):
            bound.listen(1024)
            port = reactor.adoptStreamPort(bound.fileno(), bound.family, factory)
            bound.close()
            port.stopReading()
            listeners.append(cls(port))
        return listeners

    def begin(self) -> None:
        self._port.startReading()

    def catch_up(self) -> None:
        """Nothing waits: connections are read as they bring something."""

    def drain(self, until: float) -> None:
        """Accept waiting connections."""
        self._port.doRead()

    def poll(self) -> None:
        """Nothing to look after."""

    def close(self) -> defer.Deferred[Any]:
        return defer.maybeDeferred(self._port.stopListening)


def bind_all(url: Url, kind: socket.SocketKind, protocol: int = 0, shared: str | None = None) -> list[socket.socket]:
    """Bound sockets for a URL: one, or one for IPv4 and one for IPv6 where it has no host. Raises OSError.

    `shared`: others may have the same address (SO_REUSEPORT); it stands behind the names of these sockets.
    """
    hosts = [url.host] if url.host else ["0.0.0.0", "::"]
    found: list[socket.socket] = []
    for host in hosts:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            found.append(bind_socket(family, kind, host, url.port, protocol, shared))
        except OSError as fault:
            if found and fault.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                continue  # a host without IPv6
            for bound in found:
                bound.close()
            raise
    return found


def is_ours(host: str) -> bool:
    """Whether an interface has this address now. Names and what is no address are taken to be ours."""
    try:
        found = socket.getaddrinfo(host, 0, 0, socket.SOCK_DGRAM, 0, socket.AI_NUMERICHOST)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as made:
            made.bind(found[4])
    except OSError as error:
        return error.errno != errno.EADDRNOTAVAIL
    return True


def _bind(bound: socket.socket, where: Any) -> None:
    """Bind, also to an address that no interface has: what is sent to it comes as soon as one has."""
    try:
        _bind_patiently(bound, where)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL:
            raise
        level, option = (
            (socket.IPPROTO_IPV6, _IPV6_FREEBIND) if bound.family == socket.AF_INET6 else (socket.IPPROTO_IP, _FREEBIND)
        )
        bound.setsockopt(level, option, 1)
        bound.bind(where)
        text = "no interface has {host} yet; listening begins as soon as one has it"
        _limited.say(_log.warn, where[0], text, host=where[0])


def _bind_patiently(bound: socket.socket, where: Any) -> None:
    """Bind; a socket of the former process with this address among others is given up first.

    The copies that systemd has of it go a moment later.
    """
    try:
        bound.bind(where)
        return
    except OSError as error:
        address = Address(bound.type, bound.family, *where[:2])
        if error.errno != errno.EADDRINUSE or not descriptors.give_up(address):
            raise
    for pause in _UNTIL_IT_IS_GONE:
        with suppress(OSError):
            bound.bind(where)
            return
        time.sleep(pause)
    bound.bind(where)


def bind_socket(
    family: socket.AddressFamily, kind: socket.SocketKind, host: str, port: int, protocol: int = 0,
    shared: str | None = None,
) -> socket.socket:  # fmt: skip
    """A non-blocking bound socket, perhaps one that was handed on; an IPv6 one takes IPv6 only. Raises OSError."""
    where = socket.getaddrinfo(host, port, family, 0, 0, socket.AI_PASSIVE)[0][4]
    if kept := descriptors.take(bound_name(kind, protocol, where) + (shared or "")):
        kept.setblocking(False)
        if shared is not None:
            kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        return kept
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setblocking(False)
        if shared is not None:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _bind(bound, where)
    except OSError:
        bound.close()
        raise
    return bound
