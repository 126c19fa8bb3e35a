"""COLLECTOR: a Collecting Process (RFC 7011): IPFIX over UDP and TCP, NetFlow v9 and v5 over UDP, into batches."""

from __future__ import annotations

import errno
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from twisted.internet import defer, reactor
from twisted.logger import Logger

from ulogd_tw.core.errors import MessageError, StartError
from ulogd_tw.core.keys import CONTEXT, Key
from ulogd_tw.core.options import Option, octets, positive, seconds, words
from ulogd_tw.core.plugin import FLOW, Input
from ulogd_tw.ipfix.decoder import Decoder, Event
from ulogd_tw.ipfix.message import Framer
from ulogd_tw.ipfix.session import Session
from ulogd_tw.transports.listen import StreamConnection, StreamListener
from ulogd_tw.transports.slab import Slab
from ulogd_tw.transports.udp import UdpListener
from ulogd_tw.transports.url import Url, parse

_LATER = {"tls": 4740, "dtls": 4740, "sctp": 4739}
_EVENTS = {
    "domain": "is a new exporter",
    "no_template": "template {template} has not come yet; its records are left out until it does",
    "template_changed": "template {template} is another one now, {detail}",
    "malformed": "a message is malformed and dropped: {detail}",
    "limit": "template {template} is refused: {detail}",
    "sequence_gap": "sequence numbers show a loss of {detail}",
    "sequence_reset": "sequence numbers begin anew: the exporter has restarted, or another one uses its address",
}
"""What the log says about an exporter; that templates come and go is no news."""
_LINES_A_MINUTE = 100
"""Log lines about exporters: forged source addresses must not fill the log."""
_FED_AT_ONCE = 4 << 20
"""Octets from streams after which batches go on without waiting for `batch_latency`."""


class COLLECTOR(Input):
    """Receives IPFIX on any number of addresses. It gives whatever Information Elements the exporters' templates have.

    NetFlow v9 and v5 are received on the same UDP ports. Fields of v9 have IANA's names where IANA has the number, else
    v9's own, such as username; fields of v5 have its own, from srcaddr to dst_mask, and are found by IANA's names too.
    flowStartMilliseconds and flowEndMilliseconds are made of the exporter's uptime. observationDomainId is the Source
    ID of v9, and engine type * 256 + engine ID of v5, where templateId is 5.

    A Transport Session is one TCP connection, or one source address and port of UDP to one listening address.
    """

    name = "COLLECTOR"
    otype = FLOW
    provides = CONTEXT
    open_keys = True
    listens = True
    options = (
        Option("listen", words, ("udp:4739", "tcp:4739"), "addresses: udp:PORT, tcp:PORT, udp:127.0.0.1:4739, "
               "udp:[::1]:4739; no host means all IPv4 and IPv6 addresses"),
        Option("batch_latency", seconds, 0.004, "seconds that a small batch waits to grow"),
        Option("receive_buffer", octets, 64 << 20, "octets of kernel buffer for each UDP socket"),
        Option("max_sessions", positive, 10_000, "Transport Sessions kept at once; a further exporter is refused"),
        Option("idle_timeout", seconds, 1800.0, "seconds without a message after which a UDP session and its templates "
               "are forgotten, and a TCP connection is closed"),
        Option("max_malformed", positive, 3, "malformed messages in a row after which a TCP connection is closed"),
    )  # fmt: skip
    log = Logger()

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._urls: list[Url] = []
        self._listeners: list[UdpListener | StreamListener] = []
        self._datagrams: Decoder | None = None
        self._streams: Decoder | None = None
        self._sessions: OrderedDict[tuple[Any, ...], Session] = OrderedDict()
        self._connections: dict[StreamConnection, _Connection] = {}
        self._nobody = Session("", 0, reliable=False)
        self._fed = 0
        self._drain_later: Any = None
        self._paused = False
        self._said: dict[str, float] = {}
        self._minute, self._lines = 0.0, 0
        self.counters.more["log_lines_left_out"] = 0
        self.counters.more["sessions"] = lambda: len(self._sessions) + len(self._connections)
        self.counters.more["datagrams_lost"] = lambda: sum(listener.lost for listener in self._listeners)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not self.config.listen:
            yield "listen", 'names no address, such as "udp:4739 tcp:4739"'
        for text in self.config.listen:
            try:
                url = parse(text)
            except ValueError as error:
                yield "listen", str(error)
                continue
            if url.scheme in _LATER:
                yield "listen", f"{text}: {url.scheme} is not there yet; udp and tcp are"

    def keys(self) -> Iterable[Key]:
        return CONTEXT

    # start and stop

    def open(self) -> None:
        """Bind every address; `StartError` where one is taken or not allowed."""
        self._urls = [parse(text) for text in self.config.listen]
        self._datagrams = Decoder(self.wanted, self.counters)
        self._streams = Decoder(self.wanted, self.counters)
        try:
            for url in self._urls:
                if url.scheme == "udp":
                    self._listeners += UdpListener.bind(
                        url, self._received, self.config.receive_buffer, self.config.batch_latency
                    )
                else:
                    self._listeners += StreamListener.bind(url, self._connected)
        except OSError as error:
            self._close()
            raise StartError(f"listen on {url}: {error.strerror or error}", _remedy(error, url)) from None

    def begin(self) -> None:
        for listener in self._listeners:
            listener.begin()

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Take no more, read what the kernel already has, and hand all of it on."""
        for listener in self._listeners:
            listener.drain()
        for connection in list(self._connections):
            connection.drain()
        self._hand_on()
        yield self._close()

    def _close(self) -> defer.Deferred[Any]:
        closing = [defer.maybeDeferred(listener.close) for listener in self._listeners]
        self._listeners = [listener for listener in self._listeners if isinstance(listener, UdpListener)]
        for connection in list(self._connections):
            connection.close()
        return defer.DeferredList(closing, consumeErrors=True)

    # UDP

    def _received(self, listener: UdpListener, slab: Slab) -> None:
        """All datagrams of one wake-up."""
        try:
            self._feed(listener, slab)
        except Exception as error:
            self.fault(error)

    def _feed(self, listener: UdpListener, slab: Slab) -> None:
        now = time.time()
        names = slab.names
        same = (names[1:] == names[:-1]).all(axis=1)
        starts = [0, *(np.flatnonzero(~same) + 1).tolist(), slab.n]
        rows, lengths = slab.rows[: slab.n], slab.lengths
        sessions: list[Session] = []
        for first, last in zip(starts, starts[1:], strict=False):
            session = self._session(listener, names[first].tobytes(), slab, first, now)
            sessions += [session] * (last - first)
        if (lengths > slab.stride).any() or self._nobody in sessions:
            self._feed_one_by_one(sessions, slab, lengths.tolist(), now)
        else:
            self._datagrams.feed_slab(sessions, rows, lengths, now)
        self._emit(self._datagrams, False, now)

    def _feed_one_by_one(self, sessions: list[Session], slab: Slab, lengths: list[int], now: float) -> None:
        """For datagrams longer than a row of the slab, and where some session was refused."""
        for place, session in enumerate(sessions):
            if session is self._nobody:
                self.counters.messages_received += 1
                self.counters.octets_received += lengths[place]
            else:
                self._datagrams.feed(session, slab.octets(place), now)

    def _session(self, listener: UdpListener, name: bytes, slab: Slab, place: int, now: float) -> Session:
        """The session of a datagram's sender; `_nobody` where no more are allowed."""
        key = (listener, name)
        session = self._sessions.get(key)
        if session is None:
            session = self._new_session(key, slab.peer(place), now)
            if session is self._nobody:
                return session
        session.last_received = now
        self._sessions.move_to_end(key)
        return session

    def _new_session(self, place: tuple[Any, ...], peer: tuple[Any, ...], now: float) -> Session:
        self._forget_idle(now)
        if len(self._sessions) + len(self._connections) >= self.config.max_sessions:
            self._refused(peer, now)
            return self._nobody
        session = self._sessions[place] = Session(_plain(peer[0]), peer[1], reliable=False)
        return session

    def _refused(self, peer: tuple[Any, ...], now: float) -> None:
        self.counters.errors["limit_sessions"] += 1
        self._say("limit_sessions", now, "{peer} is refused: {n} sessions are open (max_sessions)",
                  peer=peer[0], n=self.config.max_sessions)  # fmt: skip

    def _forget_idle(self, now: float) -> None:
        """End UDP sessions that have been silent for `idle_timeout`; the oldest stand first."""
        while self._sessions:
            place, session = next(iter(self._sessions.items()))
            if now - session.last_received < self.config.idle_timeout:
                return
            del self._sessions[place]
            self._datagrams.forget(session)

    # TCP

    def _connected(self, connection: StreamConnection) -> None:
        now = time.time()
        if len(self._sessions) + len(self._connections) >= self.config.max_sessions:
            self._refused(connection.peer, now)
            connection.close()
            return
        self._connections[connection] = _Connection(self, connection, now)
        self._say(f"connected {connection.peer}", now, "{peer} has connected", peer=_where(connection.peer))
        if self._paused:
            connection.pause()

    def _hand_on_soon(self, octets_fed: int) -> None:
        """Let a batch from streams grow for `batch_latency`, unless it is large already."""
        self._fed += octets_fed
        if self._fed >= _FED_AT_ONCE:
            self._hand_on()
        elif self._drain_later is None:
            self._drain_later = reactor.callLater(self.config.batch_latency, self._hand_on)

    def _hand_on(self) -> None:
        later, self._drain_later = self._drain_later, None
        if later is not None and later.active():
            later.cancel()
        self._fed = 0
        try:
            self._emit(self._streams, True, time.time())
        except Exception as error:
            self.fault(error)

    def pause(self) -> None:
        """TCP exporters wait; UDP goes on, and the queue counts what it cannot take."""
        self._paused = True
        for connection in self._connections:
            connection.pause()

    def resume(self) -> None:
        self._paused = False
        for connection in self._connections:
            connection.resume()

    # both

    def _emit(self, decoder: Decoder, held: bool, now: float) -> None:
        for batch in decoder.drain(now, held):
            self.emit(batch)
        if decoder.events:
            for event in decoder.events:
                self._log_event(event, now)
            decoder.events.clear()

    def _log_event(self, event: Event, now: float) -> None:
        """One line for a change of an exporter's state, at most one a minute of a kind and exporter."""
        text = _EVENTS.get(event.kind)
        if text is None:
            return
        peer = event.session.peer
        self._say(f"{event.kind} {peer}", now, "{peer}, domain {domain}: " + text, peer=peer, domain=event.domain,
                  template=event.template, detail=event.detail)  # fmt: skip

    def _say(self, kind: str, now: float, text: str, **fields: Any) -> None:
        """Log it, unless it was said within the last minute, or a minute has brought too many lines already."""
        if now - self._minute >= 60:
            self._minute, self._lines = now, 0
        if now - self._said.get(kind, -60.0) < 60:
            return
        if self._lines >= _LINES_A_MINUTE:
            self.counters.more["log_lines_left_out"] += 1
            return
        self._lines += 1
        if len(self._said) > 1000:
            self._said.clear()
        self._said[kind] = now
        self.log.info("{instance}: " + text, instance=self.instance, **fields)

    def wake(self, now: float) -> float | None:
        self._forget_idle(now)
        for connection, state in list(self._connections.items()):
            if now - state.session.last_received >= self.config.idle_timeout:
                connection.close()
        for listener in self._listeners:
            listener.look()
        return 1.0


class _Connection:
    """One TCP connection: a Transport Session, cut into messages by their length."""

    def __init__(self, collector: COLLECTOR, connection: StreamConnection, now: float) -> None:
        self.collector = collector
        self.connection = connection
        self.session = Session(_plain(connection.peer[0]), connection.peer[1], reliable=True)
        self.session.last_received = now
        self._framer = Framer()
        self._bad = 0
        connection.received = self.received
        connection.lost = self.lost

    def received(self, data: bytes) -> None:
        try:
            self._feed(data)
        except Exception as error:
            self.collector.fault(error)

    def _feed(self, data: bytes) -> None:
        collector, now = self.collector, time.time()
        self.session.last_received = now
        broken = None
        try:
            messages = self._framer.feed(data)
        except MessageError as error:
            messages, broken = error.messages, error
        counters, feed = collector.counters, collector._streams.feed
        for message in messages:
            before = collector._streams.malformed
            feed(self.session, message, now)
            self._bad = 0 if collector._streams.malformed == before else self._bad + 1
        if broken is not None:
            counters.errors["framing"] += 1
            collector._say(f"framing {self.session.peer}", now, "{peer} is closed: {error}",
                           peer=_where(self.connection.peer), error=broken)  # fmt: skip
            self.connection.close()
        elif self._bad >= collector.config.max_malformed:
            collector._say(f"malformed {self.session.peer}", now, "{peer} is closed: {n} malformed messages in a row",
                           peer=_where(self.connection.peer), n=self._bad)  # fmt: skip
            self.connection.close()
        collector._hand_on_soon(len(data))

    def lost(self, reason: str) -> None:
        """The connection has ended; its templates end with it (RFC 7011 section 8)."""
        collector = self.collector
        if self._framer.waiting:
            collector.counters.errors["cut"] += 1
        if collector._connections.pop(self.connection, None) is not None:
            collector._hand_on()
            collector._streams.forget(self.session)
            collector._say(f"left {self.connection.peer}", time.time(), "{peer} has left: {reason}",
                           peer=_where(self.connection.peer), reason=reason)  # fmt: skip


def _plain(host: str) -> str:
    """An address without its scope and without the IPv6 form of an IPv4 one."""
    host = host.partition("%")[0]
    return host[7:] if host.startswith("::ffff:") and "." in host else host


def _where(peer: tuple[Any, ...]) -> str:
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"


def _remedy(error: OSError, url: Url) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"another program has it: ss -lnp 'sport = :{url.port}'"
    if error.errno == errno.EACCES:
        return "ports below 1024 need CAP_NET_BIND_SERVICE"
    return ""
