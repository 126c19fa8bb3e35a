"""The TCP connections of a capture: segments into the Messages of their sessions, over what the capture lacks."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Iterator

from ulogd_tw.ipfix.files import FileReader
from ulogd_tw.ipfix.session import Session
from ulogd_tw.packets.payloads import FIN, RST, SYN, Sent
from ulogd_tw.packets.reassembly import Held, Stream

GAP_SECONDS = 10.0
"""For so long a connection waits for a segment; what the capture has missed never comes."""
IDLE_SECONDS = 1800.0
"""A connection whose end is not in the capture is forgotten then."""

_Ends = tuple[bytes, int, bytes, int]


class Connection:
    """The direction of a connection that goes to a collector."""

    def __init__(self, sent: Sent, held: Held) -> None:
        self.session = Session(str(ipaddress.ip_address(sent.source)), sent.source_port, reliable=True)
        self.session.last_received = sent.time
        self.first = sent.sequence
        self.stream = Stream(held)
        self.reader = FileReader()
        self.ending = False
        self.since = sent.time
        """When it went on last, or began to wait."""
        self.damages = self.skipped = 0
        if not sent.flags & SYN:
            self.reader.lose()


class Connections:
    """Gives Messages to `feed` and ended sessions to `forget`; losses are counted in `errors`.

    After missing octets, the next plausible Message is searched, as in a damaged file (RFC 5655 section 7):
    ``segments_missing`` counts the places, ``octets_skipped`` in `more` the octets skipped, ``framing`` places without
    the beginning of a Message although nothing is missing, ``cut`` connections that end within a Message.
    """

    def __init__(
        self, feed: Callable[[Session, bytes], None], forget: Callable[[Session], None], errors: Counter[str],
        more: dict, room: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._feed, self._forget = feed, forget
        self._errors, self._more = errors, more
        self._room = room
        self._open: dict[_Ends, Connection] = {}
        self.held = Held()
        """Octets waiting for missing segments."""

    def __len__(self) -> int:
        return len(self._open)

    def sessions(self) -> Iterator[Session]:
        """The sessions still open."""
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
            if not self._room():
                return False
            connection = self._open[ends] = Connection(sent, self.held)
        connection.session.last_received = sent.time
        if not connection.stream.holds:
            connection.since = sent.time
        sequence = sent.sequence + bool(sent.flags & SYN)  # one that is sent again begins nothing
        octets = connection.stream.take(sequence & 0xFFFFFFFF, sent.octets)
        if octets:
            self._go_on(connection, octets, sent.time)
        connection.ending |= bool(sent.flags & (FIN | RST))
        while self._given_up(connection, sent.time):
            self._skip(connection, sent.time)
        if connection.ending and not connection.stream.holds:
            self._end(ends)
        return True

    def _given_up(self, connection: Connection, now: float) -> bool:
        """Whether missing segments are given up."""
        stream = connection.stream
        return stream.full or stream.holds and now - connection.since >= GAP_SECONDS

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
        self._go_on(connection, connection.stream.resume(), now)

    def _end(self, ends: _Ends) -> None:
        connection = self._open.pop(ends)
        while connection.stream.holds:
            self._skip(connection, connection.since)
        self._give(connection, connection.reader.finish())
        if connection.reader.waiting:
            self._errors["cut"] += 1
        self._forget(connection.session)

    def expire(self, now: float) -> None:
        """Time has passed: handle old gaps, and ended or silent connections."""
        for ends, connection in list(self._open.items()):
            while self._given_up(connection, now):
                self._skip(connection, now)
            silent = now - connection.session.last_received
            if connection.ending and not connection.stream.holds or silent >= IDLE_SECONDS:
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
