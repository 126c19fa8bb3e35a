"""Lines of text to a peer: a TCP or Unix stream, reconnected with back-off, or datagrams with a line each."""

from __future__ import annotations

import errno
import socket
from typing import Any

from twisted.internet import defer, endpoints, protocol, threads
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import connectionDone
from zope.interface import implementer

from ulogd_tw.writing.text import BUSY, RETRY, TURN, Sink, TextOutput

FIRST_WAIT, LONGEST_WAIT = 1.0, 30.0
"""Seconds before the next attempt to reach a lost peer: doubled each time."""
PIECE = 1 << 16
"""Maximum octets in Twisted's buffer; only these must be recovered when a connection ends."""
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
    """Notifies its sink when the peer's kernel has taken everything, and when the connection ends."""

    def __init__(self, sink: Stream) -> None:
        self.sink = sink

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.sink.drained(self)

    def stopProducing(self) -> None:
        """The connection ends; `connectionLost` follows."""

    def unsent(self) -> int:
        """Octets still held by Twisted when the connection ended (its buffers have no public name)."""
        kept = len(getattr(self.transport, "dataBuffer", b"")) - getattr(self.transport, "offset", 0)
        return kept + getattr(self.transport, "_tempDataLen", 0)

    def connectionLost(self, reason: Any = connectionDone) -> None:
        self.sink.lost(self, reason)


class Stream(Remote):
    """A TCP or Unix connection.

    After a loss it resumes with the first line not completely taken by our kernel: no line is torn on the new
    connection or sent twice. Octets held by the two kernels are lost with the old connection; TCP does not report them.
    """

    def __init__(self, output: TextOutput, peer: str, endpoint: Any) -> None:
        super().__init__(output, peer)
        self.endpoint = endpoint
        self._connection: _Connection | None = None
        self._flying = 0
        self._gone: defer.Deferred[None] = defer.succeed(None)

    def attempt(self) -> defer.Deferred[Any]:
        factory = protocol.Factory.forProtocol(lambda: _Connection(self))
        factory.noisy = False
        return self.endpoint.connect(factory).addCallback(self._connected)

    def _connected(self, connection: _Connection) -> None:
        self._connection = connection
        self._gone = defer.Deferred()

    def pump(self) -> bool:
        if not self.up or self._flying:
            return False
        octets = bytes(self.rest.octets()[:PIECE])
        if octets:
            self._flying = len(octets)
            self._connection.transport.write(octets)
        return not octets

    def drained(self, connection: _Connection) -> None:
        """The kernel has taken all; write more."""
        if connection is self._connection and self._flying:
            self.rest.sent(self._flying)
            self._flying = 0
            self.go_on()

    def lost(self, connection: _Connection, reason: Any) -> None:
        """The connection ended: go back to the beginning of a line, and connect again."""
        if connection is not self._connection:
            return
        self._connection, self.up = None, False
        if self._flying:
            self.rest.sent(self._flying - min(connection.unsent(), self._flying))
            self.rest.step_back()
            self._flying = 0
        if not self._closing:
            self.fault("connection", "{peer}: {error}", peer=self.peer, error=reason.getErrorMessage())
            self.try_again()
        gone, self._gone = self._gone, defer.succeed(None)
        gone.callback(None)

    def reopen(self) -> None:
        """SIGHUP: connect again, as ulogd2 does; the present piece is written first."""
        if self._connection is not None:
            self._connection.transport.unregisterProducer()
            self._connection.transport.loseConnection()

    def stop(self) -> Any:
        """As `Sink.stop`; a piece not taken by the peer is given up with the connection."""
        if self._flying:
            self._closing = True
            self._connection.transport.abortConnection()
            return self._gone.addCallback(lambda _: super(Stream, self).stop())
        return super().stop()

    def close(self) -> defer.Deferred[None]:
        super().close()
        if self._connection is not None:
            self._connection.transport.unregisterProducer()
            self._connection.transport.loseConnection()
        return self._gone


class LineByLine(Sink):
    """One datagram a line. A line too long for a datagram is dropped as ``too_long``."""

    def send(self, line: bytes) -> bool:
        """Send a line with its end; False if it must wait."""
        raise NotImplementedError

    def pump(self) -> bool:
        until = self.clock.seconds() + TURN
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

    def __init__(self, output: TextOutput, peer: str, host: str, port: int, reactor: Any) -> None:
        super().__init__(output, peer)
        self.host = host
        self.port = port
        self.reactor = reactor

    @defer.inlineCallbacks
    def attempt(self) -> Any:
        found = yield threads.deferToThread(socket.getaddrinfo, self.host, self.port, type=socket.SOCK_DGRAM)
        address = found[0][4][0]
        self.reactor.listenUDP(0, self, interface="::" if ":" in address else "", maxPacketSize=65536)
        self.transport.connect(address, self.port)

    def pump(self) -> bool:
        return self.up and super().pump()

    def send(self, line: bytes) -> bool:
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

    def send(self, line: bytes) -> bool:
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
