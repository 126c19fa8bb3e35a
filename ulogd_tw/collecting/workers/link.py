"""The connection between the service and a worker: pickled messages, each behind its length.

Both ends are this program. To the worker go words of `Order`; from it come `Rows`, `Part`s of intervals and `Told`.
"""

from __future__ import annotations

import pickle
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet import protocol

from ulogd_tw.core.batch import Batch

_LENGTH = struct.Struct("<Q")
_TURN_S = 0.02
"""Seconds of work with messages in one turn of the reactor."""
_MOST_WAITING = 64
"""Messages that wait here for their turn, before the other end has to wait."""


@dataclass(frozen=True)
class Order:
    """What a worker shall do: ``pause``, ``resume``, ``reopen``, ``now`` (hand on all it has), ``stop``.

    ``taken``: what it told up to this number is taken. ``tap``: show the rows of the instances `idents` from now on.
    """

    word: str
    seconds: float = 0.0
    number: int = 0
    idents: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shown:
    """Rows of an instance of the worker, for somebody who looks at them; not all, where there are many."""

    ident: str
    batch: Batch


@dataclass(frozen=True)
class Rows:
    """A batch for the instance `ident` of the service."""

    ident: str
    batch: Batch


@dataclass(frozen=True)
class Parts:
    """A part of an interval for the AGGREGATE `ident`."""

    ident: str
    part: Any


@dataclass(frozen=True)
class Told:
    """The state of a worker: rows that came before `until`, seconds since 1970, have been handed on.

    number     of this message
    counters   ident of an instance -> its counters, as in `stats_file`
    held       ident of an AGGREGATE -> rows counted there that are still in the worker's tables
    exporters, templates   as the COLLECTOR lists them; None: as before
    """

    until: float
    number: int
    counters: dict[str, dict[str, Any]]
    held: dict[str, int] = field(default_factory=dict)
    exporters: list[dict[str, Any]] | None = None
    templates: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Known:
    """What is known of exporters over UDP, as the lines of `collecting.exporter_lines`.

    From a worker: of its exporters, with numbers if it ends. To a new one, as its first message: of all its exporters.
    """

    lines: list[dict[str, Any]]


@dataclass(frozen=True)
class Line:
    """A line for the log."""

    level: str
    text: str


@dataclass(frozen=True)
class Happened:
    """An event for administrators."""

    kind: str
    text: str
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """The last message of a worker.

    It waits until the service has closed the connection: a socket that is closed with unread octets in it makes the
    other end forget what it has not read yet.
    """


class Link(protocol.Protocol):
    """One end. `received` takes the messages, in order; `lost` is called when the other end is gone."""

    transport: Any

    def __init__(self, clock: Any, received: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._clock = clock
        self._received, self._lost = received, lost
        self._pieces: list[bytes] = []
        self._octets = 0
        self._wanted = _LENGTH.size
        self._body = False
        self._inbox: deque[bytes] = deque()
        self._turn: Any = None
        self._ended = False

    def send(self, message: Any) -> int:
        """Send one message, and give its octets; the transport keeps what the other end does not take yet."""
        octets = pickle.dumps(message, 5)
        if self.connected:
            self.transport.writeSequence([_LENGTH.pack(len(octets)), octets])
        return len(octets)

    def dataReceived(self, data: bytes) -> None:
        self._pieces.append(data)
        self._octets += len(data)
        if self._octets >= self._wanted:
            self._cut()
        if self._inbox and self._turn is None:
            self._work()
        if len(self._inbox) > _MOST_WAITING:
            self.transport.pauseProducing()

    def _cut(self) -> None:
        """Put whole messages into the inbox."""
        octets, at = b"".join(self._pieces), 0
        while len(octets) - at >= self._wanted:
            piece = octets[at : at + self._wanted]
            at += self._wanted
            if self._body:
                self._inbox.append(piece)
                self._body, self._wanted = False, _LENGTH.size
            else:
                self._body, (self._wanted,) = True, _LENGTH.unpack(piece)
        self._pieces, self._octets = [octets[at:]], len(octets) - at

    def _work(self) -> None:
        """Take messages for a while; the others have their turn later."""
        self._turn = None
        until = self._clock.seconds() + _TURN_S
        while self._inbox:
            self._received(pickle.loads(self._inbox.popleft()))
            if self._clock.seconds() >= until:
                break
        if self._inbox:
            self._turn = self._clock.callLater(0, self._work)
        elif self._ended:
            self._lost()
        else:
            self.transport.resumeProducing()

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self._ended = True
        if not self._inbox:
            self._lost()
