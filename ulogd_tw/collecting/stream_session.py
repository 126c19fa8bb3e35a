"""Transport Sessions over TCP and TLS (RFC 7011 section 10.4): a connection, cut into Messages by their length."""

from __future__ import annotations

import time
from typing import Any

from ulogd_tw.core.errors import MessageError
from ulogd_tw.ipfix.exporters import plain
from ulogd_tw.ipfix.message import Framer
from ulogd_tw.ipfix.session import Session
from ulogd_tw.transports.stream_listener import StreamConnection


class StreamSession:
    """One TCP connection: a Transport Session, cut into messages by their length."""

    def __init__(self, collector: Any, connection: StreamConnection, now: float) -> None:
        self.collector = collector
        self.connection = connection
        self.session = Session(plain(connection.peer[0]), connection.peer[1], reliable=True)
        self.session.last_received = now
        self._framer = Framer()
        self._buffered = 0
        self._bad = self._trail = self._fed = self._settled = 0
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
            messages, broken = error.before, error
        counters, feed = collector.counters, collector._streams.feed
        for message in messages:
            before = self.session.malformed
            feed(self.session, message, now)
            self._trail = 0 if self.session.malformed == before else self._trail + 1
        self._fed += len(messages)
        collector._unsettled.add(self)
        if broken is not None:
            counters.errors["framing"] += 1
            collector.say(f"framing {self.session.peer}", now, "{peer} is closed: {error}",
                          peer=where(self.connection.peer), error=broken)  # fmt: skip
            self.connection.close()
        else:
            self._keep(now)
            self.judge(now)
        collector._hand_on_soon(len(data))

    def _keep(self, now: float) -> None:
        """Account for the octets of a message that has not come whole."""
        collector, waiting = self.collector, self._framer.waiting
        collector.buffered += waiting - self._buffered
        self._buffered = waiting
        if collector.buffered > collector.config.max_buffered:
            collector.counters.errors["limit_buffered"] += 1
            collector.say("limit_buffered", now, "{peer} is closed: its incomplete messages exceed "
                          "max_buffered octets", peer=where(self.connection.peer))  # fmt: skip
            self.connection.close()

    def judge(self, now: float, settled: bool = False) -> None:
        """Close after too many malformed messages in a row. `settled`: all that was fed is decoded.

        Records of variable length may turn out malformed only then.
        """
        found = self.session.malformed - self._settled
        streak = self._bad + found if found >= self._fed else self._trail
        if settled:
            self._bad, self._fed, self._settled = streak, 0, self.session.malformed
        if streak >= self.collector.config.max_malformed:
            self.collector.say(f"closed {self.session.peer}", now, "{peer} is closed: {n} malformed messages in a row",
                               peer=where(self.connection.peer), n=streak)  # fmt: skip
            self.connection.close()

    def lost(self, reason: str) -> None:
        """The connection has ended; its templates end with it (RFC 7011 section 8)."""
        collector = self.collector
        if self._framer.waiting:
            collector.counters.errors["cut"] += 1
        collector.buffered -= self._buffered
        self._buffered = 0
        if collector._connections.pop(self.connection, None) is not None:
            collector._exporters.streams -= 1
            collector._hand_on()
            collector._streams.forget(self.session)
            collector.say_left(self.connection, reason)


def where(peer: tuple[Any, ...]) -> str:
    """A peer as HOST:PORT."""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
