"""Listening for associations as a Collecting Process does it: connections that can be paused and drained."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, error, protocol, reactor
from twisted.python.failure import Failure

from ulogd_tw.transports.sctp import Options, SCTPProtocol, listenSCTP
from ulogd_tw.transports.url import Url

DRAIN_SECONDS = 2.0
"""How long a peer may take to send what it has when we shut the association down."""


class SctpConnection(SCTPProtocol):
    """One association. Its user sets `received` (octets, stream), `restarted` and `lost` (why it ended)."""

    def __init__(self, connected: Callable[[SctpConnection], None]) -> None:
        self._connected = connected
        self.received: Callable[[bytes, int], None] = lambda octets, stream: None
        self.restarted: Callable[[], None] = lambda: None
        self.lost: Callable[[str], None] = lambda reason: None
        self.peer: tuple[str, int] = ("", 0)
        self._draining: defer.Deferred[None] | None = None

    def connectionMade(self) -> None:
        self.peer = self.transport.getPeer()[:2]
        self._connected(self)

    def messageReceived(self, octets: bytes, stream: int, ppid: int) -> None:
        self.received(octets, stream)

    def associationRestarted(self) -> None:
        self.restarted()

    def connectionLost(self, reason: Failure) -> None:
        clean = reason.check(error.ConnectionDone)
        self.lost("closed in order" if clean else reason.getErrorMessage())
        if self._draining is not None:
            self._draining.callback(None)

    def pause(self) -> None:
        """Read no further; the window closes and the peer waits."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        self.transport.resumeProducing()

    def drain(self, until: float) -> defer.Deferred[None]:
        """Shut down in order, and take what the peer still sends; fires when the association is over."""
        self._draining = defer.Deferred()
        self.transport.resumeProducing()
        self.transport.loseConnection()
        return self._draining.addTimeout(min(DRAIN_SECONDS, max(until - time.monotonic(), 0.01)), reactor).addErrback(
            self._abort
        )

    def _abort(self, failure: Failure) -> None:
        failure.trap(defer.TimeoutError)
        self._draining = None
        self.transport.abortConnection()

    def close(self) -> None:
        self.transport.loseConnection()


class SctpListener:
    """One listening port. `begin` starts to accept."""

    lost = unread = 0

    def __init__(self, port: Any) -> None:
        self._port = port

    @classmethod
    def bind(cls, url: Url, options: Options, connected: Callable[[SctpConnection], None]) -> list[SctpListener]:
        """Raises OSError and `SctpUnavailable`."""
        factory: Any = protocol.Factory.forProtocol(lambda: SctpConnection(connected))
        factory.noisy = False
        return [cls(listenSCTP(url.port, factory, url.host, options, reactor, begin=False))]

    def begin(self) -> None:
        self._port.begin()

    def catch_up(self) -> None:
        """Nothing waits: connections are read as they bring something."""

    def drain(self, until: float) -> None:
        """Take what the kernel already holds."""
        self._port.drain()

    def poll(self) -> None:
        """Nothing to look after."""

    def close(self) -> None:
        self._port.close()
