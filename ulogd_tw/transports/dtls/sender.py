"""Sending messages to one peer over DTLS: an association in which both ends accepted each other's certificate."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from twisted.internet.interfaces import IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from ulogd_tw.transports.dtls.layer import HANDSHAKE_OCTETS, OVERHEAD, client, is_unknown
from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.tls.credentials import Credentials
from ulogd_tw.transports.tls.sender import HANDSHAKE_SECONDS
from ulogd_tw.transports.udp_sender import FAILED, LATER, SENT, TOO_LONG, UdpSender, one_by_one
from ulogd_tw.transports.url import Url

_MOST_READS = 64
BURST, BREATH = 64, 0.004
"""Datagrams at once, and seconds until the next: messages waiting for an association would otherwise overflow the
receiver's buffer, often 208 KB with 2.3 KB a datagram."""


class DtlsSender:
    """As `UdpSender`, with one association at a time; attempts begin at least `reconnect` seconds apart.

    The association ends when the peer says so, when its host reports a closed port (ICMP), or when the peer reports an
    unknown association. The last two can be forged, and then cost a handshake. Without any of these, a new association
    is made every `rehandshake` seconds beside the old one. The old one stays in use until the new one replaces it;
    without an answer the peer is gone.

    `connected` is called for a new association, `ready` when there is room again, `lost` (with the reason) at its end,
    `failed` after a failed attempt.
    """

    def __init__(
        self,
        url: Url,
        reactor: Any,
        reconnect: float,
        connected: Callable[[], None],
        ready: Callable[[], None],
        lost: Callable[[str], None],
        failed: Callable[[str], None],
        credentials: Credentials,
        rehandshake: float,
    ) -> None:
        self.url = url
        self.reactor = reactor
        self.credentials = credentials
        self.errors: Counter[str] = Counter()
        self.ready = ready
        self._connected, self._lost, self._failed = connected, lost, failed
        self._reconnect = reconnect
        self._rehandshake = rehandshake
        self._current: DtlsEnd | None = None
        self._next: DtlsEnd | None = None
        self._last_attempt = float("-inf")
        self._again: Any = None
        self._burst, self._burst_at = 0, float("-inf")
        self._breath: Any = None
        self._closed = False

    @property
    def is_open(self) -> bool:
        return self._current is not None

    @property
    def connecting(self) -> bool:
        return self._next is not None

    @property
    def protocol(self) -> str:
        """DTLS version and cipher suite of the association."""
        return self._current.protocol if self._current is not None else ""

    @property
    def last_error(self) -> str:
        """Of the association that is up: why something could not be sent."""
        return self._current.last_error if self._current is not None else ""

    @property
    def headers(self) -> int:
        """Octets before and behind a message in its packet: of IP, UDP and the record."""
        end = self._current or self._next
        return (end.headers if end is not None else 28) + OVERHEAD

    def path_mtu(self) -> int | None:
        """As `UdpSender.path_mtu`."""
        return self._current.path_mtu() if self._current is not None else None

    def open(self) -> None:
        """Begin a handshake."""
        self._again = None
        if not self._closed and self._next is None:
            self._last_attempt = self.reactor.seconds()
            self._next = DtlsEnd(self)
            self._next.open()

    def send(self, message: Any) -> str:
        """Send one message in a datagram, as `UdpSender.send`; `LATER` too where the association is over."""
        if self._current is None or not self._may_send():
            return LATER
        return self._current.seal(message)

    def send_all(self, messages: np.ndarray) -> tuple[int, int, str]:
        """As `UdpSender.send_all`."""
        return one_by_one(self.send, messages)

    def _may_send(self) -> bool:
        """Whether the burst has room; where it has none `ready` is called when the next one begins."""
        now = self.reactor.seconds()
        if now - self._burst_at >= BREATH or now < self._burst_at:
            self._burst, self._burst_at = 0, now
        if self._burst >= BURST:
            if self._breath is None:
                self._breath = self.reactor.callLater(BREATH, self._go_on)
            return False
        self._burst += 1
        return True

    def _go_on(self) -> None:
        self._breath = None
        if self._current is not None:
            self.ready()

    def close(self) -> None:
        """End the association in order. No more attempts."""
        self._closed = True
        self._schedule(None)
        if self._breath is not None:
            self._breath.cancel()
            self._breath = None
        for end in (self._current, self._next):
            if end is not None:
                end.close()
        self._current = self._next = None

    def _schedule(self, wait: float | None) -> None:
        """Open again after so many seconds, whatever was meant before."""
        if self._again is not None and self._again.active():
            self._again.cancel()
        self._again = None if wait is None else self.reactor.callLater(max(wait, 0), self.open)

    # what ends say

    def risen(self, end: DtlsEnd) -> None:
        """Its handshake has ended: it takes the place of the one before."""
        former, self._current, self._next = self._current, end, None
        if former is not None:
            former.close()
        self._schedule(self._rehandshake or None)
        self._connected()

    def fallen(self, end: DtlsEnd, why: str) -> None:
        """There is no association, or no longer."""
        end.close()
        if self._closed:
            return
        if end is self._next:
            self._next = None
            if self._current is None:
                self._failed(why)
            else:
                former, self._current = self._current, None
                former.close()
                self._lost(f"no new association in its place: {why}")
        elif end is self._current:
            self._current = None
            self._lost(why)
        if self._next is None and self._current is None:
            self._schedule(self._last_attempt + self._reconnect - self.reactor.seconds())


@implementer(IReadDescriptor)
class DtlsEnd(UdpSender):
    """One association over a socket of its own, from the look-up of its host to its end."""

    follows = False  # each association looks the name up

    def __init__(self, owner: DtlsSender) -> None:
        super().__init__(owner.url, owner.reactor, self._writable)
        self.errors = owner.errors
        self.protocol = ""
        self._owner = owner
        self._layer: Any = None
        self._timer: Any = None
        self._deadline: Any = None

    @property
    def _up(self) -> bool:
        return bool(self.protocol)

    def _not_found(self, failure: Failure) -> None:
        self._fault("lookup", failure.value or OSError("not found"))
        self._owner.fallen(self, failure.getErrorMessage())

    def _writable(self) -> None:
        """The socket is there, or has room again."""
        if self._layer is None:
            self._begin()
        elif self._up:
            self._owner.ready()

    def _begin(self) -> None:
        self._layer = client(self._owner.credentials, HANDSHAKE_OCTETS)
        self._reactor.addReader(self)
        self._deadline = self._reactor.callLater(HANDSHAKE_SECONDS, self._is_late)
        self._layer.take(b"")
        self._go_on()

    def _is_late(self) -> None:
        why = f" ({self.last_error})" if self.last_error else ""
        self._break_off(TlsError(f"the handshake did not end within {HANDSHAKE_SECONDS:g} s{why}", "tls_timeout"))

    # the handshake

    def doRead(self) -> None:
        for _ in range(_MOST_READS):
            if self._socket is None:
                return
            try:
                datagram = self._socket.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError as fault:
                self._told_of(fault)
                return
            self._take(datagram)

    def _take(self, datagram: bytes) -> None:
        """A collector has nothing to say but DTLS's own messages (RFC 7011 section 10.3)."""
        if self._up and is_unknown(datagram):
            self.errors["dtls_unknown"] += 1
            self._owner.fallen(self, "the collector does not know the association; it has begun anew")
            return
        self._layer.take(datagram)
        self._go_on()

    def _go_on(self) -> None:
        """Send what OpenSSL has to say, and see where the association stands."""
        layer = self._layer
        self._flush()
        if self._socket is None:
            return
        if layer.fault is not None:
            self._break_off(layer.fault)
        elif layer.ended:
            self._peer_ends()
        elif layer.secured and not self._up:
            self._stop_timers()
            self.protocol = layer.described()
            self.last_error = ""
            self._owner.risen(self)
        elif not self._up:
            self._wait_for_answer()

    def _peer_ends(self) -> None:
        if self._up:
            self._owner.fallen(self, "closed by the peer")
        else:
            self._break_off(TlsError("closed by the peer before it accepted our certificate", "tls_closed"))

    def _break_off(self, fault: TlsError) -> None:
        self.errors[fault.reason] += 1
        self._owner.fallen(self, str(fault))

    def _wait_for_answer(self) -> None:
        """Until the last flight has to be sent again."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        left = self._layer.timeout()
        self._timer = None if left is None else self._reactor.callLater(left, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._layer.expire()
        self._go_on()

    def _stop_timers(self) -> None:
        for timer in (self._timer, self._deadline):
            if timer is not None and timer.active():
                timer.cancel()
        self._timer = self._deadline = None

    # datagrams

    def _flush(self) -> None:
        """Send what waits in OpenSSL; what has no room is lost, and sent again when it is time."""
        for datagram in self._layer.datagrams():
            if self._socket is not None:
                self._put(datagram)

    def seal(self, message: Any) -> str:
        """Send one message: `SENT`, `LATER`, `TOO_LONG` or `FAILED`."""
        octets = self._layer.sealed(message)
        if self._layer.fault is not None:
            self._break_off(self._layer.fault)
            return LATER
        return self._put(octets)

    def _put(self, octets: bytes) -> str:
        assert self._socket is not None
        try:
            self._socket.send(octets)
            return SENT
        except BlockingIOError:
            self._wait()
            return LATER
        except OSError as fault:
            return TOO_LONG if fault.errno == errno.EMSGSIZE else self._told_of(fault)

    def _told_of(self, fault: OSError) -> str:
        """As in the base class; a closed port (ICMP), reported for an earlier datagram, ends the association."""
        super()._told_of(fault)
        if not self._up or fault.errno != errno.ECONNREFUSED:
            return FAILED
        self._owner.fallen(self, "refused: nobody listens there")
        return LATER

    def _go_on_waiting(self) -> None:
        super()._go_on_waiting()
        if self._socket is not None:
            self._reactor.addReader(self)

    def close(self) -> None:
        """Say the end, if the peer can hear it, and forget everything."""
        self._stop_timers()
        if self._socket is not None:
            if self._layer is not None and self._up:
                self._layer.close()
                self.protocol = ""
                self._flush()
            self._reactor.removeReader(self)
        super().close()
