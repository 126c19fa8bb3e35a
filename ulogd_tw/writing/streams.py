"""Lines of text to a peer over a TCP or Unix stream, connected again when it is lost."""

from __future__ import annotations

from typing import Any

from twisted.internet import defer, endpoints, protocol
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import connectionDone
from zope.interface import implementer

from ulogd_tw.core.errors import PartlyWritten, UlogdError
from ulogd_tw.transports.send_queue import SendQueue
from ulogd_tw.writing.remote import Remote
from ulogd_tw.writing.text import Cut, PendingText, TextOutput

PIECE = 1 << 16
"""Maximum octets in Twisted's buffer."""
SOONEST_LOOK, LATEST_LOOK = 0.002, 0.05
"""Seconds until the next check for acknowledgements, doubled each time; no event reports them."""


def tcp(output: TextOutput, peer: str, host: str, port: int) -> Stream:
    """A sink to a port of a host."""
    return Stream(output, peer, endpoints.HostnameEndpoint(output.clock, host, port))


def unix(output: TextOutput, path: str) -> Stream:
    """A sink to a Unix socket of streams."""
    return Stream(output, path, endpoints.UNIXClientEndpoint(output.clock, path))


@implementer(IPullProducer)
class _Connection(protocol.Protocol):
    """Notifies its sink when our kernel has taken everything, and when the connection ends."""

    transport: Any

    def __init__(self, sink: Stream) -> None:
        self.sink = sink
        self.written = 0
        """Octets written to this connection."""
        self._known = 0
        self._queue: SendQueue | None = None

    def connectionMade(self) -> None:
        self._queue = SendQueue(self.transport)
        self.transport.registerProducer(self, False)

    def write(self, octets: bytes) -> None:
        """Write to the connection."""
        self.written += len(octets)
        self.transport.write(octets)

    def acknowledged(self) -> int:
        """Octets that the peer's kernel has; if unknown, those taken by our kernel."""
        queue = self._queue
        if queue is not None:
            waiting = queue.in_kernel()
            if waiting is not None:
                self._known = max(self._known, self.written - queue.buffered - waiting)
            elif queue.handle is None:
                self._known = self.written - queue.buffered
        return self._known

    def resumeProducing(self) -> None:
        self.sink.drained(self)

    def stopProducing(self) -> None:
        """The connection ends; `connectionLost` follows."""

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.acknowledged()
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        self.sink.lost(self, reason)


def _piece(octets: bytes | memoryview, cut: Cut) -> bytes:
    """As many whole records as a piece has, one at least."""
    size = PIECE
    while size < len(octets):
        text = bytes(octets[:size])
        if end := cut(text, size)[0]:
            return text[:end]
        size *= 2
    return bytes(octets)


class _Unacknowledged:
    """Records of one batch given to connections, from the first one that its peer's kernel does not have as a whole."""

    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._text = bytearray()
        self._start = 0
        """Beginning of `_text` among the octets written to the present connection."""
        self.rows = 0
        """Rows of the batch that arrived."""

    def __len__(self) -> int:
        return len(self._text)

    def begin(self) -> bytes:
        """A new connection: what has to be written to it first."""
        self._start = 0
        text = bytes(self._text)
        self._text.clear()
        return text

    def add(self, octets: bytes) -> None:
        """These were written."""
        self._text += octets

    def settle(self, acknowledged: int) -> None:
        """So many octets of the connection have arrived."""
        arrived = acknowledged - self._start
        if arrived <= 0:
            return
        end, rows = self._cut(self._text, arrived)
        self.rows += rows
        self._start += end
        del self._text[:end]


class Stream(Remote):
    """A TCP or Unix connection.

    A batch is written when the peer's kernel has all of it (of a Unix socket: when the peer has read it). Undelivered
    octets of a lost connection are sent again on the next one, from the beginning of a line; a line that arrived
    without an acknowledgement comes twice. Octets never read from the peer's kernel are lost; TCP does not report them.
    """

    def __init__(self, output: TextOutput, peer: str, endpoint: Any) -> None:
        super().__init__(output, peer)
        self.endpoint = endpoint
        self._connection: _Connection | None = None
        self._flying = False
        self._cut = output.cut
        self._kept = _Unacknowledged(output.cut)
        self._unsent = b""
        """Octets to send before the rest."""
        self._pause = SOONEST_LOOK
        self._reopening = False
        self._gone: defer.Deferred[None] = defer.succeed(None)

    def attempt(self) -> defer.Deferred[Any]:
        factory = protocol.Factory.forProtocol(lambda: _Connection(self))
        factory.noisy = False
        return self.endpoint.connect(factory).addCallback(self._connected)

    def _connected(self, connection: _Connection) -> None:
        self._connection = connection
        self._flying = False
        self._unsent = self._kept.begin() + self._unsent
        self._gone = defer.Deferred()

    def write(self, rest: PendingText) -> defer.Deferred[None] | None:
        self._kept.rows = 0
        return super().write(rest)

    def send_waiting(self) -> bool:
        connection = self._connection
        if not self.up or connection is None or self._flying or self.rest is None:
            return False
        self._kept.settle(connection.acknowledged())
        if self._reopening and not self._kept:
            self._end_connection()
            return False
        octets = b"" if self._reopening else self._next_octets()
        if octets:
            self._flying = True
            self._pause = SOONEST_LOOK
            self._kept.add(octets)
            connection.write(octets)
            return False
        if not self._kept:
            return True
        self.later(self._pause)
        self._pause = min(2 * self._pause, LATEST_LOOK)
        return False

    def _next_octets(self) -> bytes:
        """The next piece; empty where all is written."""
        if self._unsent:
            octets = _piece(self._unsent, self._cut)
            self._unsent = self._unsent[len(octets) :]
            return octets
        assert self.rest is not None
        octets = _piece(self.rest.octets(), self._cut)
        self.rest.sent(len(octets))
        return octets

    def drained(self, connection: _Connection) -> None:
        """Our kernel has taken all; write more."""
        if connection is self._connection and self._flying:
            self._flying = False
            self.go_on()

    def lost(self, connection: _Connection, reason: Any) -> None:
        """The connection ended: connect again."""
        if connection is not self._connection:
            return
        self._connection, self.up, self._flying, self._reopening = None, False, False, False
        self._kept.settle(connection.acknowledged())
        if not self._closing:
            self.fault("connection", "{peer}: {error}", peer=self.peer, error=reason.getErrorMessage())
            self.try_again()
        gone, self._gone = self._gone, defer.succeed(None)
        gone.callback(None)

    def reopen(self) -> None:
        """SIGHUP: connect again, as ulogd2 does, when the present piece has arrived."""
        if self.rest is None:
            self._end_connection()
        else:
            self._reopening = self._connection is not None

    def _end_connection(self) -> None:
        if self._connection is not None:
            self._connection.transport.unregisterProducer()
            self._connection.transport.loseConnection()

    def stop(self) -> Any:
        """Give up what has not arrived: it goes back to the queue."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rest, connection = self.rest, self._connection
        if rest is None or rest.finished is None:
            return self.close()
        if connection is not None:
            self._kept.settle(connection.acknowledged())
            connection.transport.unregisterProducer()
            connection.transport.abortConnection()
        return self._gone.addCallback(lambda _: self._give_back(rest))

    def _give_back(self, rest: PendingText) -> None:
        """To the queue, once there is no connection; then nothing is left to wait for."""
        self.rest = None
        text = f"{self.output.instance} was stopped before its peer had all"
        assert rest.finished is not None
        rest.finished.errback(PartlyWritten(text, self._kept.rows) if self._kept.rows else UlogdError(text))
        self.close()

    def close(self) -> defer.Deferred[None]:
        super().close()
        self._end_connection()
        return self._gone
