"""The TCP connections of a capture: segments into the Messages of their sessions, over what the capture lacks."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator

from ulogd_tw.ipfix.files import FileReader
from ulogd_tw.ipfix.session import Session
from ulogd_tw.packets.exports import FIN, RST, SYN, Sent
from ulogd_tw.packets.streams import Stream

GAP_SECONDS = 10.0
"""For so long a connection waits for a segment; what the capture has missed never comes."""
MOST_HELD = 4 << 20
"""Octets of a connection that wait for a segment."""
MOST_BUFFERED = 64 << 20
"""Octets of all connections that wait, for a segment or for the end of their Message."""
IDLE_SECONDS = 1800.0
"""A connection whose end is not in the capture is forgotten then."""

_Ends = tuple[bytes, int, bytes, int]


class Connection:
    """The direction of a connection that goes to a collector."""

    def __init__(self, sent: Sent) -> None:
        self.session = Session(str(ipaddress.ip_address(sent.source)), sent.source_port, reliable=True)
        self.session.last_received = sent.time
        self.first = sent.sequence
        self.stream = Stream()
        self.reader = FileReader()
        self.ending = False
        self.since = sent.time
        """When it went on last, or began to wait."""
        self.buffered = self.damages = self.skipped = 0
        if not sent.flags & SYN:
            self.reader.lose()


class Connections:
    """Gives Messages to `feed` and sessions that are over to `forget`; what is lost is counted in `errors`.

    Where octets are missing, the next plausible Message is looked for, as in a file that is damaged (RFC 5655 section
    7): ``segments_missing`` counts the places, ``octets_skipped`` in `more` what was passed over, ``framing`` places
    where no Message begins though nothing is missing, ``cut`` connections that end within a Message.
    """

    def __init__(
        self, feed: Callable[[Session, bytes], None], forget: Callable[[Session], None], errors: Counter[str],
        more: dict, most: int,
    ) -> None:  # fmt: skip
        self._feed, self._forget = feed, forget
        self._errors, self._more = errors, more
        self._most = most
        self._open: dict[_Ends, Connection] = {}
        self._buffered = 0

    def __len__(self) -> int:
        return len(self._open)

    def sessions(self) -> Iterator[Session]:
        """Those that are not over."""
        return (connection.session for connection in self._open.values())

    def take(self, sent: Sent) -> bool:
        """Take a segment; False where it is the first of a connection too many."""
        ends = (sent.source, sent.source_port, sent.destination, sent.destination_port)
        connection = self._open.get(ends)
        if connection is not None and _another(connection, sent):
            self._end(ends)
            connection = None
        if connection is None:
            if not sent.octets and not sent.flags & SYN:
                return True
            if len(self._open) >= self._most:
                return False
            connection = self._open[ends] = Connection(sent)
        connection.session.last_received = sent.time
        if not connection.stream.held:
            connection.since = sent.time
        octets = connection.stream.take(sent.sequence, sent.octets, bool(sent.flags & SYN))
        if octets:
            self._go_on(connection, octets, sent.time)
        connection.ending |= bool(sent.flags & (FIN | RST))
        self._account(connection)
        if connection.ending and not connection.stream.held:
            self._end(ends)
        elif self._too_much(connection, sent.time):
            self._skip(connection, sent.time)
        return True

    def _too_much(self, connection: Connection, now: float) -> bool:
        held = connection.stream.held
        late = now - connection.since >= GAP_SECONDS
        return held > 0 and (late or held > MOST_HELD or self._buffered > MOST_BUFFERED)

    def _go_on(self, connection: Connection, octets: bytes, now: float) -> None:
        connection.since = now
        self._give(connection, connection.reader.feed(octets))

    def _give(self, connection: Connection, messages: list[bytes]) -> None:
        for message in messages:
            self._feed(connection.session, message)
        reader = connection.reader
        if reader.damages > connection.damages:
            self._errors["framing"] += reader.damages - connection.damages
        self._more["octets_skipped"] += reader.skipped - connection.skipped
        connection.damages, connection.skipped = reader.damages, reader.skipped

    def _skip(self, connection: Connection, now: float) -> None:
        """Go on behind a gap."""
        self._errors["segments_missing"] += 1
        connection.reader.lose()
        self._go_on(connection, connection.stream.skip(), now)
        self._account(connection)

    def _account(self, connection: Connection) -> None:
        buffered = connection.stream.held + connection.reader.waiting
        self._buffered += buffered - connection.buffered
        connection.buffered = buffered

    def _end(self, ends: _Ends) -> None:
        connection = self._open.pop(ends)
        while connection.stream.held:
            self._skip(connection, connection.since)
        self._give(connection, connection.reader.finish())
        if connection.reader.waiting:
            self._errors["cut"] += 1
        self._buffered -= connection.buffered
        self._forget(connection.session)

    def look(self, now: float) -> None:
        """Time has passed: gaps that are too old, connections that are over or silent."""
        for ends, connection in list(self._open.items()):
            while self._too_much(connection, now):
                self._skip(connection, now)
            silent = now - connection.session.last_received
            if connection.ending and not connection.stream.held or silent >= IDLE_SECONDS:
                self._end(ends)

    def end(self) -> None:
        """No more will come."""
        for ends in list(self._open):
            self._end(ends)


def _another(connection: Connection, sent: Sent) -> bool:
    """Whether a segment is of a new connection between the same ports."""
    if sent.flags & SYN:
        return sent.sequence != connection.first
    return connection.stream.foreign(sent.sequence)
