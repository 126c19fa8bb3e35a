"""Sending octets to one peer over a TCP connection, which is made anew when it breaks."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, endpoints, error, protocol
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.transports import own_flows
from ulogd_tw.transports.attempts import Attempts
from ulogd_tw.transports.send_queue import SendQueue
from ulogd_tw.transports.url import Url

_TCP_USER_TIMEOUT = 18
UNANSWERED_MS = 120_000
"""Milliseconds without acknowledgement after which a connection is broken; the kernel's default is 15 minutes."""
CONNECT_TIMEOUT = 20


@implementer(IPushProducer)
class TcpSender(protocol.Protocol):
    """One TCP connection at a time to one peer; attempts begin at least `reconnect` seconds apart.

    `connected` is called when there is a new connection, `ready` when there is room again, `lost` (with the reason, and
    the octets that the peer's kernel had acknowledged) when it has ended, `failed` when an attempt was in vain.
    Between `connected` and `lost` octets may be written, best while `has_room`.
    """

    transport: Any

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
        self._attempts = Attempts(reactor, reconnect, self._connect, failed)
        self._connected, self._ready, self._lost, self._failed = connected, ready, lost, failed
        self._sent: SendQueue | None = None
        self._flow: own_flows.Flow | None = None
        self._closing: defer.Deferred[None] | None = None

    @property
    def connecting(self) -> bool:
        return self._attempts.under_way

    def open(self) -> None:
        """Begin to connect."""
        self._attempts.begin()

    def _connect(self) -> defer.Deferred[Any]:
        factory = protocol.Factory.forProtocol(lambda: self)
        factory.noisy = False
        return self._endpoint().connect(factory)

    def _endpoint(self) -> Any:
        host, port = self.url.host, self.url.port
        if ":" in host:
            return endpoints.TCP6ClientEndpoint(self._reactor, host, port, CONNECT_TIMEOUT)
        if host.replace(".", "").isdecimal():
            return endpoints.TCP4ClientEndpoint(self._reactor, host, port, CONNECT_TIMEOUT)
        return endpoints.HostnameEndpoint(self._reactor, host, port, CONNECT_TIMEOUT)

    # the connection

    def connectionMade(self) -> None:
        self._attempts.succeeded()
        if self._attempts.stopped:
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
        ours, theirs = self.transport.getHost(), self.transport.getPeer()
        self._flow = own_flows.opened(
            own_flows.between(own_flows.TCP, (ours.host, ours.port), (theirs.host, theirs.port))
        )
        self._sent = SendQueue(self.transport)
        if self._sent.handle is not None:
            self._sent.handle.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, UNANSWERED_MS)

    def write(self, octets: bytes) -> None:
        self.written += len(octets)
        self.transport.write(octets)

    def acknowledged(self, shut: bool = False) -> int:
        """Octets of this connection that the peer's kernel has; `shut` once our FIN is sent, which counts as one."""
        waiting = self._unacknowledged(shut)
        return 0 if waiting is None else self.written - waiting

    def _unacknowledged(self, shut: bool) -> int | None:
        """Octets given to the transport that the peer's kernel does not have; None where nobody knows."""
        waiting = None if self._sent is None else self._sent.in_kernel()
        if self._sent is None or waiting is None:
            return None
        return self._sent.buffered + waiting - (shut and waiting > 0)

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
        own_flows.closed(self._flow)
        if self._sent is not None:
            self._sent.close()
            self._sent = None
        text = self._why("closed by the peer" if in_order else reason.getErrorMessage())
        was_up, self.is_up, self.has_room = self.is_up, False, False
        if was_up:
            self._lost(text, acknowledged)
        elif not self._attempts.stopped:
            self._failed(text)
        if self._closing is not None:
            self._closing.callback(None)
        elif not self._attempts.stopped:
            self._attempts.again()

    def _why(self, text: str) -> str:
        """Why the connection has ended, where the kernel says this."""
        return text

    # the end

    def close(self) -> defer.Deferred[None]:
        """Close in order, after all that was written; fires when that is done. No more attempts."""
        self._attempts.stop()
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
