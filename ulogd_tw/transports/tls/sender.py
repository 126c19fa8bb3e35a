"""Sending octets to one peer over TLS: a TCP connection in which both ends accepted each other's certificate."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, protocol
from twisted.python.failure import Failure

from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.tcp_sender import TcpSender
from ulogd_tw.transports.tls.credentials import Credentials
from ulogd_tw.transports.url import Url

HANDSHAKE_SECONDS = 10.0
"""How long a peer may take for a handshake."""
_RECORD = 1 << 14
"""Maximum octets of a TLS record: repeated data begins at an unacknowledged record."""


class TlsSender(TcpSender):
    """As `TcpSender`; it is up, and takes octets, when both ends have accepted each other.

    With TLS 1.2 that is the end of the handshake. With TLS 1.3 a client is through before the server has seen its
    certificate: it is up at the server's first session ticket, or, as a server need not send any, `settle` seconds
    after the handshake without an alert.
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
        credentials: Credentials,
        settle: float,
    ) -> None:
        super().__init__(url, reactor, reconnect, connected, ready, lost, failed)
        self.errors: Counter[str] = Counter()
        self.protocol = ""
        """TLS version and cipher suite of the connection."""
        self._credentials = credentials
        self._settle = settle
        self._layer: Any = None
        self._timer: Any = None
        self._fault: TlsError | None = None
        self._sealed = self._has = 0
        self._marks: deque[tuple[int, int]] = deque()
        """(octets given to the transport, octets written before they were sealed), after each record."""

    @property
    def connecting(self) -> bool:
        return super().connecting or (self._layer is not None and not self.is_up)

    def _begin(self) -> None:
        self._sealed = self._has = 0
        self._marks.clear()
        self._fault = None
        self._layer = self._credentials.layer()
        late = TlsError(f"the handshake did not end within {HANDSHAKE_SECONDS:g} s", "tls_timeout")
        self._timer = self._reactor.callLater(HANDSHAKE_SECONDS, self._break_off, late)
        self.dataReceived(b"")

    def dataReceived(self, data: bytes) -> None:
        layer = self._layer
        if layer is None or self._fault is not None:
            return
        secured = layer.secured
        layer.feed(data)  # a collector has nothing to say but TLS's own messages (RFC 7011 section 10.4)
        self._flush()
        if layer.fault is not None:
            self._break_off(layer.fault)
        elif layer.ended:
            self._peer_ends()
        elif self.is_up:
            pass
        elif layer.accepted:
            self._accepted()
        elif layer.secured and not secured:
            self._stop_timer()
            self._timer = self._reactor.callLater(self._settle, self._accepted)

    def _accepted(self) -> None:
        self._stop_timer()
        self.protocol = self._layer.described()
        super()._begin()

    def _flush(self) -> None:
        octets = self._layer.outgoing()
        if octets:
            self._sealed += len(octets)
            self.transport.write(octets)

    def _break_off(self, fault: TlsError) -> None:
        """End the connection; the peer gets the alert that OpenSSL has made of the fault."""
        self._fault = fault
        self.errors[fault.reason] += 1
        self._leave()

    def _peer_ends(self) -> None:
        if not self.is_up:
            self._break_off(TlsError("closed by the peer before it accepted our certificate", "tls_closed"))
        else:
            self._layer.close()
            self._flush()
            self._leave()

    def _leave(self) -> None:
        self._stop_timer()
        if self.is_up:
            self.has_room = False
            self.transport.unregisterProducer()
        self.transport.loseConnection()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    # octets

    def write(self, octets: bytes) -> None:
        for start in range(0, len(octets), _RECORD):
            part = octets[start : start + _RECORD]
            self.written += len(part)
            self._layer.write(part)
            self._flush()
            self._marks.append((self._sealed, self.written))
        if self._layer.fault is not None and self._fault is None:
            self._break_off(self._layer.fault)

    def acknowledged(self, shut: bool = False) -> int:
        """Octets written in records that the peer's kernel has completely."""
        waiting = self._unacknowledged(shut)
        if waiting is not None:
            while self._marks and self._marks[0][0] <= self._sealed - waiting:
                self._has = self._marks.popleft()[1]
        return self._has

    # the end

    def _why(self, text: str) -> str:
        if self._fault is not None:
            return str(self._fault)
        if self._layer is not None and not self.is_up and not self._attempts.stopped:
            self.errors["tls_closed"] += 1
            state = "before it has accepted our certificate" if self._layer.secured else "within the TLS handshake"
            return f"{text} {state}"
        return text

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        self._stop_timer()
        super().connectionLost(reason)
        self._layer = None
        self.protocol = ""

    def _take_leave(self) -> None:
        self._layer.close()
        self._flush()

    def close(self) -> defer.Deferred[None]:
        if self._layer is None or self.is_up:
            return super().close()
        self._attempts.stop()
        self._stop_timer()
        self._closing = defer.Deferred()
        self.transport.abortConnection()
        return self._closing
