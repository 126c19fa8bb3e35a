"""Listening for TLS over TCP: connections that are handed on once the handshake has ended and the peer is verified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer, error, protocol, reactor
from twisted.python.failure import Failure

from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.stream_listener import StreamConnection, StreamListener
from ulogd_tw.transports.tls.credentials import Credentials
from ulogd_tw.transports.tls.layer import Layer
from ulogd_tw.transports.url import Url

Connected = Callable[[StreamConnection], None]


class HandshakeGate:
    """Where connections wait until their handshake has ended: bounded in number and time.

    `admits` says whether a peer may begin one. `refused` takes the peer and why it is none of ours. Where there are
    `most` handshakes already, the oldest makes room: whoever floods us must be faster than a good peer's handshake.
    """

    def __init__(
        self,
        credentials: Credentials,
        refused: Callable[[tuple[str, int], TlsError], None],
        most: int,
        seconds: float,
        admits: Callable[[tuple[str, int]], bool] = lambda peer: True,
        clock: Any = reactor,
    ) -> None:
        self.credentials = credentials
        self.refused = refused
        self.admits = admits
        self._most = most
        self._seconds = seconds
        self._clock = clock
        self._unfinished: dict[TlsConnection, Any] = {}

    def __len__(self) -> int:
        return len(self._unfinished)

    def bind(self, url: Url, connected: Connected) -> list[Any]:
        """Sockets behind this gate, as `StreamListener.bind` makes them. Raises OSError."""
        listeners: list[Any] = TlsListener.bind(url, connected, lambda connected: TlsConnection(self, connected))
        for listener in listeners:
            listener.gate = self
        return listeners

    def enter(self, connection: TlsConnection) -> Layer:
        """A handshake begins."""
        while len(self._unfinished) >= self._most:
            oldest = next(iter(self._unfinished))
            oldest.refuse(TlsError(f"more than {self._most} handshakes began after its own", "tls_limit"))
        late = TlsError(f"its handshake did not end within {self._seconds:g} s", "tls_timeout")
        self._unfinished[connection] = self._clock.callLater(self._seconds, connection.refuse, late)
        return self.credentials.layer()

    def leave(self, connection: TlsConnection) -> None:
        """Its handshake has ended in some way."""
        timer = self._unfinished.pop(connection, None)
        if timer is not None and timer.active():
            timer.cancel()

    def close(self) -> None:
        """End all that are not finished."""
        for connection in list(self._unfinished):
            self.leave(connection)
            connection.close()


class TlsConnection(StreamConnection):
    """One connection; its user knows it from the end of the handshake on, and sees plain octets."""

    def __init__(self, gate: HandshakeGate, connected: Connected) -> None:
        super().__init__(connected)
        self._gate = gate
        self._layer: Any = None
        """The `Layer` of TLS, while there is one."""
        self._up = False
        self._ended = ""

    def connectionMade(self) -> None:
        peer = self.transport.getPeer()
        self.peer = (peer.host, peer.port)
        if not self._gate.admits(self.peer):
            self._ended = "not admitted"
            self.transport.abortConnection()
            return
        self.transport.setTcpKeepAlive(True)
        self._layer = self._gate.enter(self)

    def dataReceived(self, data: bytes) -> None:
        self._octets += len(data)
        layer = self._layer
        if layer is None or self._ended:
            return
        plain = layer.feed(data)
        self._flush()
        if layer.secured and not self._up:
            self._up = True
            self._gate.leave(self)
            self._connected(self)
        if plain and not self.transport.disconnecting:
            self.received(plain)
        if layer.fault is not None:
            self.refuse(layer.fault)
        elif layer.ended:
            self._ended = "closed by the peer"
            layer.close()
            self._flush()
            self.transport.loseConnection()

    def _flush(self) -> None:
        if octets := self._layer.outgoing():
            self.transport.write(octets)

    def refuse(self, fault: TlsError) -> None:
        """End it; the peer gets the alert that OpenSSL has made of it."""
        if self._ended:
            return
        self._ended = str(fault)
        self._gate.leave(self)
        self._gate.refused(self.peer, fault)
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._gate.leave(self)
        in_order = reason.check(error.ConnectionDone) is not None
        if not self._ended and not self._up:
            self._ended = "closed in the handshake"
            self._gate.refused(self.peer, TlsError("it closed the connection during the handshake", "tls_closed"))
        if self._up:
            cut = "closed by the peer without TLS's close_notify" if in_order else reason.getErrorMessage()
            self.lost(self._ended or cut)
        self._layer = None

    def close(self) -> None:
        if self._layer is not None and self._up and not self._ended:
            self._layer.close()
            self._flush()
        self._ended = self._ended or "closed by us"
        self.transport.loseConnection()


class TlsListener(StreamListener):
    """One bound socket whose connections go through a gate."""

    gate: HandshakeGate

    def close(self) -> defer.Deferred[Any]:
        self.gate.close()
        return super().close()
