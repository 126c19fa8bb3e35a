"""Sending messages to one peer over an association that is made anew when it breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer, error, protocol
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.transports import own_flows
from ulogd_tw.transports.attempts import Attempts
from ulogd_tw.transports.sctp import Options, SCTPProtocol, connectSCTP
from ulogd_tw.transports.url import Url


@implementer(IPushProducer)
class SctpSender(SCTPProtocol):
    """One association at a time with one peer; attempts begin at least `reconnect` seconds apart.

    `connected` is called when there is a new association, `ready` when there is room again or all is acknowledged,
    `lost` (with the reason) when it has ended, `failed` when an attempt was in vain. `gave_up` is called with the
    context of each message that was not acknowledged, before `lost`, or when its lifetime is over.
    """

    def __init__(
        self,
        url: Url,
        reactor: Any,
        reconnect: float,
        options: Options,
        connected: Callable[[], None],
        ready: Callable[[], None],
        lost: Callable[[str], None],
        failed: Callable[[str], None],
        gave_up: Callable[[int], None],
    ) -> None:
        self.url = url
        self.is_up = False
        self.has_room = False
        self.unreachable = 0
        """How often the peer seemed not to answer."""
        self._reactor = reactor
        self._attempts = Attempts(reactor, reconnect, self._connect, failed)
        self._options = options
        self._connected, self._ready, self._lost = connected, ready, lost
        self._gave_up = gave_up
        self._closing: defer.Deferred[None] | None = None
        self._flow: own_flows.Flow | None = None

    @property
    def connecting(self) -> bool:
        return self._attempts.under_way

    @property
    def streams(self) -> int:
        """Outbound streams of the association."""
        return self.transport.streams

    def open(self) -> None:
        """Begin to connect."""
        self._attempts.begin()

    def _connect(self) -> defer.Deferred[Any]:
        factory: Any = protocol.Factory.forProtocol(lambda: self)
        factory.noisy = False
        return connectSCTP(self.url.host, self.url.port, factory, self._options, self._reactor)

    # the association

    def connectionMade(self) -> None:
        self._attempts.succeeded()
        if self._attempts.stopped:
            self.transport.abortConnection()
            return
        self.is_up = self.has_room = True
        self._flow = _flow(self.transport)
        own_flows.opened(self._flow)
        self.transport.registerProducer(self, True)
        self._connected()

    def write(self, octets: bytes, stream: int, context: int, lifetime_ms: int = 0, answer_soon: bool = False) -> None:
        self.transport.write(octets, stream, context=context, lifetime_ms=lifetime_ms, answer_soon=answer_soon)

    def all_acknowledged(self) -> bool:
        return not self.transport.buffered and not self.transport.unacknowledged()

    def messageFailed(self, context: int) -> None:
        self._gave_up(context)

    def allAcknowledged(self) -> None:
        if self.is_up:
            self._ready()

    def peerShutDown(self) -> None:
        self.has_room = False
        self.transport.unregisterProducer()

    def pathChanged(self, host: str, reachable: bool) -> None:
        self.unreachable += not reachable

    def pauseProducing(self) -> None:
        self.has_room = False

    def resumeProducing(self) -> None:
        self.has_room = True
        self._ready()

    def stopProducing(self) -> None:
        self.has_room = False

    def connectionLost(self, reason: Failure) -> None:
        if not self.is_up:
            return
        self.is_up = self.has_room = False
        own_flows.closed(self._flow)
        in_order = reason.check(error.ConnectionDone) is not None
        self._lost("closed by the peer" if in_order else reason.getErrorMessage())
        if self._closing is not None:
            self._closing.callback(None)
        elif not self._attempts.stopped:
            self._attempts.again()

    # the end

    def close(self) -> defer.Deferred[None]:
        """Shut down in order, after all that was written; fires when that is done. No more attempts."""
        self._attempts.stop()
        if not self.is_up:
            return defer.succeed(None)
        self._closing = defer.Deferred()
        self.transport.unregisterProducer()
        self.transport.loseConnection()
        return self._closing

    def abort(self) -> None:
        """End the association at once."""
        if self.is_up:
            self.transport.abortConnection()


def _flow(association: Any) -> own_flows.Flow:
    """The flow of an association in the kernel's connection tracking: SCTP, or the UDP around it."""
    ours, theirs = association.getHost(), association.getPeer()
    if theirs.udp_port is None:
        return own_flows.Flow(own_flows.SCTP, ours.host, ours.port, theirs.host, theirs.port)
    return own_flows.Flow(own_flows.UDP, ours.host, ours.udp_port or 0, theirs.host, theirs.udp_port)
