"""Listening for DTLS over UDP: one socket, and an association for each sender with proven identity."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet import reactor

from ulogd_tw.transports.dtls.layer import (
    HANDSHAKE_OCTETS,
    UNKNOWN,
    CookieExchange,
    DtlsLayer,
    Hello,
    is_hello,
    is_record,
    is_stray,
    read_hello,
)
from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.gathering import SHORT_S, Terms
from ulogd_tw.transports.reply_path import CONTROL, ReplyPath, ask, way
from ulogd_tw.transports.slab import Slab
from ulogd_tw.transports.tls.credentials import Credentials
from ulogd_tw.transports.udp import UdpListener
from ulogd_tw.transports.url import Url

PLAIN, GARBAGE, STRAY, TOO_MANY = "tls_plain", "tls_garbage", "dtls_unknown", "limit_greetings"
"""Reasons to ignore a datagram of a sender without association: IPFIX without DTLS; other data; records of an unknown
association, as after a restart of this service; more hellos or strays than are answered."""
_IPFIX = b"\x00\x0a"
_ALERT, _APPLICATION = 21, 23


class DtlsGate:
    """Holds senders until their handshake has ended: bounded in number, time and work.

    A sender costs no memory before it returns the cookie for its address. Senders without cookie are answered up to
    `greetings` times a second, senders with a valid one always, so a flood of forged senders keeps nobody out.

    connected    takes an association after its handshake
    refused      takes the peer and the reason of a refusal, for a proven address
    passed_over  takes the peer, possibly forged, and one of the reasons above
    admits       whether an address may send at all
    settled      called after each wake-up, when all its messages are handed over
    """

    def __init__(
        self,
        credentials: Credentials,
        connected: Callable[[Association], None],
        refused: Callable[[tuple[str, int], TlsError], None],
        passed_over: Callable[[tuple[str, int], str], None],
        most: int,
        seconds: float,
        greetings: int,
        admits: Callable[[tuple[str, int]], bool] = lambda peer: True,
        settled: Callable[[], None] = lambda: None,
        clock: Any = reactor,
    ) -> None:
        self.credentials = credentials
        self.connected, self.refused = connected, refused
        self.clock = clock
        self.of_host: Counter[str] = Counter()
        """Associations of each address."""
        self._passed_over, self._admits, self._settled = passed_over, admits, settled
        self._cookies = CookieExchange(credentials, HANDSHAKE_OCTETS)
        self._most = most
        self._seconds = seconds
        self._rate = greetings
        self._allowance: float = greetings
        self._counted_at = 0.0
        self._unfinished: dict[Association, Any] = {}

    def __len__(self) -> int:
        """Handshakes that have begun and not ended."""
        return len(self._unfinished)

    @property
    def associations(self) -> int:
        return self.of_host.total()

    def bind(self, url: Url, buffer: int, terms: Terms) -> list[DtlsListener]:
        """Sockets behind this gate, as `UdpListener.bind` makes them. Raises OSError."""
        bind: Any = DtlsListener.bind  # what UdpListener says of itself
        return bind(url, self.received, buffer, terms)

    def received(self, listener: DtlsListener, slab: Slab) -> None:
        """All datagrams of one wake-up; one Python step each, 15 us with OpenSSL's work."""
        names, waits = slab.names, []
        for place in range(slab.n):
            name = names[place].tobytes()
            datagram = slab.octets(place)
            if not listener.take(name, datagram):
                waits.append((place, name, datagram))
        for place, name, datagram in waits:  # known senders come first
            self._greet(listener, slab, place, name, datagram)
        # the next step of a handshake shall not wait
        listener.longest_s = SHORT_S if waits or listener.unfinished else float("inf")
        self._settled()

    # those without an association

    def _greet(self, listener: DtlsListener, slab: Slab, place: int, name: bytes, datagram: bytes) -> None:
        hello, now = read_hello(datagram), self.clock.seconds()
        if hello is not None and self._cookies.knows(name, hello, now):
            if not listener.is_again(name, hello, datagram):
                self._begin(listener, slab, place, name, hello, datagram)
            return
        peer = slab.peer(place)
        if hello is None and not is_stray(datagram):
            self._passed_over(peer, _kind(datagram))
        elif not self._may_answer(now):
            self._passed_over(peer, TOO_MANY)
        elif hello is None:
            self._passed_over(peer, STRAY)
            listener.send(UNKNOWN, way(slab, place))
        elif self._admits(peer):
            listener.send(self._cookies.ask(name, datagram, now), way(slab, place))

    def _may_answer(self, now: float) -> bool:
        """Whether one more may be answered now; what was not used within a second is over."""
        self._allowance = min(self._allowance + (now - self._counted_at) * self._rate, self._rate)
        self._counted_at = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True

    def _begin(
        self, listener: DtlsListener, slab: Slab, place: int, name: bytes, hello: Hello, datagram: bytes
    ) -> None:
        """A handshake begins; one that the same sender has begun before is over."""
        layer, answers = self._cookies.admit(name, datagram, self.clock.seconds())
        back, peer = way(slab, place), slab.peer(place)
        for answer in answers:
            listener.send(answer, back)
        if layer is None:
            self._passed_over(peer, GARBAGE)
            return
        if former := listener.unfinished.get(name):
            former.leave("begun anew")
        association = Association(self, listener, name, back, peer, layer, hello)
        while len(self._unfinished) >= self._most:
            oldest = next(iter(self._unfinished))
            oldest.refuse(TlsError(f"more than {self._most} handshakes began after its own", "tls_limit"))
        late = TlsError(f"its handshake did not end within {self._seconds:g} s", "tls_timeout")
        listener.unfinished[name] = association
        self._unfinished[association] = self.clock.callLater(self._seconds, association.refuse, late)
        association.go_on()

    def leave(self, association: Association) -> None:
        """Its handshake has ended in some way."""
        timer = self._unfinished.pop(association, None)
        if timer is not None and timer.active():
            timer.cancel()


def _kind(datagram: bytes) -> str:
    """The reason to ignore a datagram without an answer."""
    if datagram[:2] == _IPFIX:
        return PLAIN
    return STRAY if is_record(datagram) and not is_hello(datagram) else GARBAGE


class Association:
    """The messages of one exporter's port; its user sets `received` (takes a message) and `lost` (takes the reason of
    the end)."""

    def __init__(
        self, gate: DtlsGate, listener: DtlsListener, name: bytes, back: ReplyPath, peer: tuple[str, int],
        layer: DtlsLayer, hello: Hello,
    ) -> None:  # fmt: skip
        self.received: Callable[[bytes], None] = lambda message: None
        self.lost: Callable[[str], None] = lambda reason: None
        self.peer = peer
        self.name = name
        self.hello = hello
        self.gate = gate
        self._listener = listener
        self._back = back
        self._layer = layer
        self._timer: Any = None
        self._up = self._ended = False

    @property
    def fellows(self) -> int:
        """Associations of its address that are up, itself among them."""
        return self.gate.of_host[self.peer[0]]

    def take(self, datagram: bytes) -> bool:
        """Take a datagram of its sender; whether there was something in it for us."""
        messages = self._layer.take(datagram)
        if not messages or not self._up or self._layer.ended:
            self.go_on()
        for message in messages:
            if not self._ended:
                self.received(message)
        return bool(messages)

    def go_on(self) -> None:
        """Send what OpenSSL has to say, and see where the association stands."""
        layer = self._layer
        self._flush()
        if self._ended:
            return
        if layer.fault is not None:
            self.refuse(layer.fault)
        elif layer.secured and not self._up:
            self._rise()
        if layer.ended:
            self._leave_in_order("closed by the peer")
        elif not self._ended:
            self._wait()

    def _rise(self) -> None:
        """The handshake has ended: it takes the place of the association that its sender had before (section 4.2.8)."""
        self._up = True
        self.gate.leave(self)
        listener = self._listener
        del listener.unfinished[self.name]
        if former := listener.associations.get(self.name):
            former.leave("begun anew by the peer")
        listener.associations[self.name] = self
        self.gate.of_host[self.peer[0]] += 1
        self.gate.connected(self)

    def _wait(self) -> None:
        """Until its last flight has to be sent again."""
        self._stop_timer()
        left = self._layer.timeout()
        if left is not None:
            self._timer = self.gate.clock.callLater(left, self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._layer.expire()
        self.go_on()

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _flush(self) -> None:
        for datagram in self._layer.datagrams():
            self._listener.send(datagram, self._back)

    # the end

    def refuse(self, fault: TlsError) -> None:
        """End it; the peer gets the alert that OpenSSL has made of it."""
        if not self._ended:
            self.gate.refused(self.peer, fault)
            self.leave(str(fault))

    def close(self) -> None:
        """End it in order."""
        if not self._ended:
            self._leave_in_order("closed by us")

    def _leave_in_order(self, reason: str) -> None:
        self._layer.close()
        self._flush()
        self.leave(reason)

    def leave(self, reason: str) -> None:
        """Forget it; nothing is said to the peer."""
        if self._ended:
            return
        self._ended = True
        self._stop_timer()
        self.gate.leave(self)
        listener = self._listener
        known = listener.associations if self._up else listener.unfinished
        if known.get(self.name) is self:
            del known[self.name]
        if self._up:
            host = self.peer[0]
            self.gate.of_host[host] -= 1
            if not self.gate.of_host[host]:
                del self.gate.of_host[host]
            self.lost(reason)

    # as a connection of a stream

    def pause(self) -> None:
        """Nothing: what a sender of datagrams is not asked for comes all the same."""

    resume = pause

    def drain(self, until: float) -> None:
        """Nothing to do: its messages come with those of the listener."""


class DtlsListener(UdpListener):
    """One bound socket and its associations by sender: established ones, and those in their handshake."""

    control = CONTROL
    spared = 0
    keeps = False

    def __init__(self, bound: socket.socket, received: Any, terms: Terms) -> None:
        ask(bound)
        super().__init__(bound, received, terms)
        self.associations: dict[bytes, Association] = {}
        self.unfinished: dict[bytes, Association] = {}

    def send(self, octets: bytes, back: ReplyPath) -> None:
        """Answer a sender. A datagram without room is lost, as on any path."""
        with suppress(OSError):
            self._socket.sendmsg((octets,), back.ancillary, 0, back.address)

    def take(self, name: bytes, datagram: bytes) -> bool:
        """Give a datagram to its association; False where there is none for it.

        Beside one that is up its sender may have begun another handshake: messages and alerts can be of either one.
        """
        known, fresh = self.associations.get(name), self.unfinished.get(name)
        if known is None and fresh is None or is_hello(datagram):
            return False
        kind = datagram[0] if datagram else 0
        if known is not None and (fresh is None or kind in (_ALERT, _APPLICATION)) and known.take(datagram):
            return True
        if fresh is not None:
            fresh.take(datagram)
        return True

    def is_again(self, name: bytes, hello: Hello, datagram: bytes) -> bool:
        """Whether a ClientHello is that of a handshake here, sent again: then it is no new one."""
        fresh = self.unfinished.get(name)
        if fresh is not None and fresh.hello.random == hello.random:
            fresh.take(datagram)
            return True
        known = self.associations.get(name)
        return known is not None and known.hello.random == hello.random

    def close(self) -> None:
        for association in (*self.unfinished.values(), *self.associations.values()):
            association.close()
        super().close()
