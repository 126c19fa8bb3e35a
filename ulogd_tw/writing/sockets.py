"""Lines of text to a peer: a TCP or Unix stream, reconnected with back-off, or datagrams with a line each."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import defer, endpoints, protocol
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import connectionDone
from zope.interface import implementer

from ulogd_tw.core.errors import PartlyWritten, UlogdError
from ulogd_tw.transports import names
from ulogd_tw.transports.send_queue import SendQueue
from ulogd_tw.writing.text import BUSY, RETRY, TURN, Cut, PendingText, Sink, TextOutput

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before the next attempt to reach a lost peer: doubled each time."""
PIECE = 1 << 16
"""Maximum octets in Twisted's buffer."""
SOONEST_LOOK, LATEST_LOOK = 0.002, 0.05
"""Seconds until the next check for acknowledgements, doubled each time; no event reports them."""
NETWORK_DOWN = {errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EPERM, errno.EACCES}
"""Errors of a UDP socket that concern one datagram only."""


def service_port(name: str, kind: str) -> int:
    """A port of tcp or udp, by its number or the name of its service. ValueError for other texts."""
    try:
        port = int(name) if name.isdecimal() else socket.getservbyname(name, kind)
    except (OSError, ValueError):
        port = 0
    if not 0 < port < 65536:
        raise ValueError(f"{name!r} is neither a port (1 to 65535) nor a known service")
    return port


def sink_for(output: TextOutput, kind: str, host: str, port: int) -> Remote:
    """A sink to a peer by tcp or udp."""
    peer = f"{kind}:[{host}]:{port}" if ":" in host else f"{kind}:{host}:{port}"
    if kind == "udp":
        return Datagrams(output, peer, host, port, output.clock)
    return Stream(output, peer, endpoints.HostnameEndpoint(output.clock, host, port))


class Remote(Sink):
    """A sink with a peer, up or down; while it is down, rows wait."""

    def __init__(self, output: TextOutput, peer: str) -> None:
        super().__init__(output)
        self.peer = peer
        self.up = False
        self._wait = FIRST_WAIT
        self._closing = False
        self._attempt: defer.Deferred[Any] | None = None
        self._next: Any = None

    def attempt(self) -> defer.Deferred[Any]:
        """Try to reach the peer; fires on success."""
        raise NotImplementedError

    def open(self) -> None:
        """An unreachable peer does not prevent the start."""
        self._next = None
        self._attempt = self.attempt()
        self._attempt.addCallbacks(self._reached, self._missed)

    def _reached(self, _: Any) -> None:
        self._attempt = None
        self._wait = FIRST_WAIT
        self.up = True
        self.log.info("{instance}: connected to {peer}", instance=self.output.instance, peer=self.peer)
        self.go_on()

    def _missed(self, failure: Any) -> None:
        self._attempt = None
        if self._closing:
            return
        self.fault(
            "connect", "{peer} cannot be reached: {error}; its rows wait, and attempts follow at up to {longest} s",
            peer=self.peer, error=failure.getErrorMessage(), longest=LONGEST_WAIT,
        )  # fmt: skip
        self.try_again()

    def try_again(self) -> None:
        """Connect after the time of the back-off."""
        if not self._closing and self._next is None and self._attempt is None:
            self._next = self.clock.callLater(self._wait, self.open)
            self._wait = min(2 * self._wait, LONGEST_WAIT)

    def close(self) -> Any:
        self._closing = True
        self.up = False
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._attempt is not None:
            self._attempt.cancel()
        return None


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

    def _give_back(self, rest: PendingText) -> Any:
        self.rest = None
        text = f"{self.output.instance} was stopped before its peer had all"
        assert rest.finished is not None
        rest.finished.errback(PartlyWritten(text, self._kept.rows) if self._kept.rows else UlogdError(text))
        return self.close()

    def close(self) -> defer.Deferred[None]:
        super().close()
        self._end_connection()
        return self._gone


class LineByLine(Sink):
    """One datagram a line. A line too long for a datagram is dropped as ``too_long``."""

    def send(self, line: bytes | memoryview) -> bool:
        """Send a line with its end; False if it must wait."""
        raise NotImplementedError

    def send_waiting(self) -> bool:
        until = self.clock.seconds() + TURN
        assert self.rest is not None
        while line := self.rest.record():
            if not self.send(line):
                return False
            self.rest.sent(len(line))
            if self.clock.seconds() > until:
                self.later(0)
                return False
        return True

    def too_long(self, peer: str) -> None:
        self.fault("too_long", "{peer}: a line is longer than a datagram: dropped", peer=peer)
        self.output.counters.dropped["too_long"] += 1


class Datagrams(LineByLine, Remote, protocol.DatagramProtocol):
    """UDP: about 0.2 M lines a second, one system call each.

    The kernel reports an absent peer only with the next datagram; the earlier rows count as written.
    """

    noisy = False
    transport: Any = None

    def __init__(self, output: TextOutput, peer: str, host: str, port: int, reactor: Any) -> None:
        super().__init__(output, peer)
        self.host = host
        self.port = port
        self.reactor = reactor
        self._address = ""
        self._looking: Any = None

    @defer.inlineCallbacks
    def attempt(self) -> Any:
        found = names.numeric(self.host, self.port, socket.SOCK_DGRAM)
        if found is None:
            (found, *_) = yield names.lookup(self.reactor, self.host, self.port, socket.SOCK_DGRAM)
            self._follow()
        self._connect(found[1][0])

    def _connect(self, address: str) -> None:
        self._address = address
        self.reactor.listenUDP(0, self, interface="::" if ":" in address else "", maxPacketSize=65536)
        self.transport.connect(address, self.port)

    def _follow(self) -> None:
        if not self._closing:
            self._looking = self.clock.callLater(names.AGAIN, self._look_again)

    def _look_again(self) -> None:
        """Look the name up again; where nobody answers, its host is taken to be where it was."""
        self._looking = None
        looked = names.lookup(self.reactor, self.host, self.port, socket.SOCK_DGRAM)
        looked.addCallbacks(self._compare, lambda _: None).addCallback(lambda _: self._follow())

    def _compare(self, addresses: list[names.Address]) -> None:
        """Go where the name is now, if that is elsewhere."""
        if not self._closing and self._address not in [where[0] for _, where in addresses]:
            self.transport.stopListening()
            self._connect(addresses[0][1][0])

    def send_waiting(self) -> bool:
        return self.up and super().send_waiting()

    def send(self, line: bytes | memoryview) -> bool:
        try:
            self.transport.write(bytes(line))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                self.later(BUSY)
                return False
            if error.errno in NETWORK_DOWN:
                self.fault("connection", "{peer}: {error}", peer=self.peer, error=error.strerror)
                self.output.counters.dropped["write"] += 1
            else:  # Twisted's MessageLengthError has no errno
                self.too_long(self.peer)
        return True

    def connectionRefused(self) -> None:
        """ICMP reported an unused port: an earlier datagram is lost."""
        self.fault("connection", "{peer}: no program listens there", peer=self.peer)

    def close(self) -> Any:
        super().close()
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None
        return self.transport.stopListening() if self.transport is not None else None


class UnixDatagrams(LineByLine):
    """Datagrams to another process's Unix socket: about 0.3 M lines a second, without line ends.

    While nobody listens or the socket is full, rows wait for the next attempt.
    """

    def __init__(self, output: TextOutput, path: str) -> None:
        super().__init__(output)
        self.path = path
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connects with the first line: an unreachable peer does not prevent the start."""

    def reopen(self) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> defer.Deferred[None] | None:
        self._disconnect()
        return None

    def send(self, line: bytes | memoryview) -> bool:
        try:
            if self._socket is None:
                self._socket = _connected(self.path)
            self._socket.send(line[:-1])
        except BlockingIOError:
            self.later(BUSY)
            return False
        except OSError as error:
            if error.errno != errno.EMSGSIZE:
                self._missed(error)
                return False
            self.too_long(self.path)
        return True

    def _missed(self, error: OSError) -> None:
        self._disconnect()
        self.fault("connection", "{path}: {error}; its rows wait; next attempt every {retry} s",
                   path=self.path, error=error.strerror, retry=RETRY)  # fmt: skip
        self.later(RETRY)


def _connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made
