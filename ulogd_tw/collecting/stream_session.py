"""Transport Sessions over TCP and TLS (RFC 7011 section 10.4): a connection, cut into Messages by their length."""

from __future__ import annotations

import time

from ulogd_tw.collecting.reception import Connection, Reception, where
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.plurals import plural
from ulogd_tw.ipfix.exporters import plain
from ulogd_tw.ipfix.message import Framer
from ulogd_tw.ipfix.session import Session


def _nothing(_: object) -> None:
    """For a connection that has ended: it knows its session no more."""


class StreamSession:
    """One connection: a Transport Session, cut into messages by their length."""

    def __init__(self, reception: Reception, connection: Connection, now: float) -> None:
        self.session = Session(plain(connection.peer[0]), connection.peer[1], reliable=True)
        self.session.last_received = now
        self._reception = reception
        self._connection = connection
        self._framer = Framer()
        self.buffered = 0
        self._bad = self._trail = self._fed = self._settled = 0
        connection.received = self.received
        connection.lost = self.lost

    def received(self, data: bytes) -> None:
        """Octets of the stream have come."""
        try:
            self._feed(data)
        except Exception as error:
            self._reception.fault(error)

    def _feed(self, data: bytes) -> None:
        reception, now = self._reception, self._reception.now()
        self.session.last_received = now
        broken = None
        try:
            messages = self._framer.feed(data)
        except MessageError as error:
            messages, broken = error.before, error
        began, feed = time.thread_time(), reception.streams.feed
        for message in messages:
            before = self.session.malformed
            feed(self.session, message, now)
            self._trail = 0 if self.session.malformed == before else self._trail + 1
        self._fed += len(messages)
        if broken is not None:
            self._break_off(broken)
        else:
            self._keep()
            self.judge(now)
        reception.fed(self, len(data))
        reception.rest(self._connection, time.thread_time() - began, len(data))

    def _break_off(self, broken: MessageError) -> None:
        """Where one message ends and the next begins is not known any more."""
        self._reception.counters.errors["framing"] += 1
        self._close(f"framing {self.session.peer}", "{error}", error=broken)

    def _keep(self) -> None:
        """Account for the octets of a message that has not come whole."""
        more, self.buffered = self._framer.waiting - self.buffered, self._framer.waiting
        if more:
            self._reception.hold(self, more)

    def give_up(self) -> None:
        """All connections hold too many octets of messages that have not come whole, and this one holds most."""
        self._reception.counters.errors["limit_buffered"] += 1
        self._framer = Framer()
        self._keep()
        self._close(
            "limit_buffered", "incomplete messages exceed max_buffered octets, and its address has most of them"
        )

    def judge(self, now: float, settled: bool = False) -> None:
        """Close after too many malformed messages in a row. `settled`: all that was fed is decoded.

        Records of variable length may turn out malformed only then.
        """
        found = self.session.malformed - self._settled
        streak = self._bad + found if found >= self._fed else self._trail
        if settled:
            self._bad, self._fed, self._settled = streak, 0, self.session.malformed
        if streak >= self._reception.settings.max_malformed:
            self._close(
                f"closed {self.session.peer}", "{malformed} in a row", malformed=plural(streak, "malformed message")
            )

    def _close(self, kind: str, why: str, **fields: object) -> None:
        self._reception.say(kind, "{peer} is closed: " + why, peer=where(self._connection.peer), **fields)
        self._connection.close()

    def lost(self, reason: str) -> None:
        """The connection has ended; its templates end with it (RFC 7011 section 8)."""
        reception = self._reception
        if self._framer.waiting:
            reception.counters.errors["cut"] += 1
        self._framer = Framer()
        self._keep()
        if reception.forget(self._connection, self.session):
            reception.say_left(self._connection, reason)
        self._connection.received, self._connection.lost = _nothing, _nothing
