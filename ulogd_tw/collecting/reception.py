"""The reception of a COLLECTOR: Transport Sessions of its listeners, and the two decoders that they feed.

Datagrams may be lost and overtake each other, so their decoder waits for templates, unlike the one of streams.
Listeners and the sessions of peers know a `Reception` only, never the plugin.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from twisted.internet import defer

from ulogd_tw.clocks import WallClock
from ulogd_tw.collecting.datagrams import DatagramIntake, Place
from ulogd_tw.collecting.input import Collecting
from ulogd_tw.collecting.places import Places
from ulogd_tw.collecting.turns import is_dear
from ulogd_tw.core.networks import Network
from ulogd_tw.ipfix.exporters import NOT_ALLOWED, Allowed, Exporters, plain
from ulogd_tw.ipfix.session import Session
from ulogd_tw.transports.gathering import SHORT_S, Terms
from ulogd_tw.transports.slab import Slab

_LONGEST_REST = 5.0
"""Seconds for which a connection is not read, after its messages took long to decode."""
_FED_AT_ONCE = 4 << 20
"""Octets from streams after which batches go on without waiting for more."""


@dataclass(frozen=True)
class Settings:
    """COLLECTOR's options about sessions, under the same names."""

    session_key: str
    max_sessions: int
    max_sessions_of_address: int
    allow: tuple[Network, ...]
    idle_timeout: float
    terms: Terms
    """For how long records may wait for others, with the option `batch_latency`."""
    max_buffered: int
    max_malformed: int
    max_streams: int
    """Connections of each transport: `max_sessions`, or as many as there are file descriptors for."""


class Connection(Protocol):
    """A connection or association of one peer. `lost` is called with the reason when it has ended."""

    peer: tuple[str, int]
    received: Callable[..., None]
    lost: Callable[[str], None]

    def pause(self) -> Any:
        """Read no further."""

    def resume(self) -> Any:
        """Read on."""

    def drain(self, until: float) -> Any:
        """Read what is there already, not after `until` (monotonic clock); a Deferred where that takes time."""

    def close(self) -> Any:
        """End it in order."""


class PeerSession(Protocol):
    """The Transport Session of a connection."""

    session: Session

    def judge(self, now: float, settled: bool = False) -> None:
        """Close after too many malformed messages; `settled`: all that was fed is decoded."""


class BufferingSession(Protocol):
    """The Transport Session of a stream."""

    session: Session
    buffered: int
    """Octets of a message that has not come whole."""

    def give_up(self) -> None:
        """Forget those octets, and close the connection."""


MakeSession = Callable[["Reception", Any, float], PeerSession]


class Reception:
    """Gives datagrams and streams of listeners to the decoders, and the decoded batches to the plugin.

    Times are the wall clock's; when it is set, remembered times keep their age.
    """

    def __init__(self, plugin: Collecting, settings: Settings, reactor: Any, clock: WallClock) -> None:
        self.settings = settings
        self.counters = plugin.counters
        self._clock = clock
        self.datagrams = plugin.decoder()
        self.streams = plugin.decoder()
        self.exporters = Exporters(
            settings.session_key, settings.max_sessions, settings.max_sessions_of_address, Allowed(settings.allow),
            settings.idle_timeout,
        )  # fmt: skip
        plugin.make_room_by(self.datagrams, self.exporters, self._clock.now)
        self.connections: dict[Connection, PeerSession] = {}
        self._resting: dict[Connection, Any] = {}
        self._places: dict[str, Places] = {}
        self._places_of: dict[Connection, Places] = {}
        self._plugin = plugin
        self._reactor = reactor
        self._intake = DatagramIntake(plugin, self.datagrams, self.exporters, self.now, reactor.callLater)
        self._buffered = 0
        self._held: dict[str, int] = {}
        self._buffering: dict[BufferingSession, None] = {}
        self._fed = 0
        self._unsettled: set[PeerSession] = set()
        self._drain_later: Any = None
        self._paused = False

    def now(self) -> float:
        """Seconds since 1970."""
        if step := self._clock.step():
            self.datagrams.clock_set((session for session in self.sessions() if not session.reliable), step)
            self.streams.clock_set((session for session in self.sessions() if session.reliable), step)
        return self._clock.now()

    # what sessions say

    def fault(self, error: Exception) -> None:
        """An error of ours."""
        self._plugin.fault(error)

    def say(self, kind: str, text: str, **fields: Any) -> None:
        """A line of the log, once a minute for each kind."""
        self._plugin.say(kind, self.now(), text, **fields)

    def refused(self, peer: tuple[Any, ...], reason: str) -> None:
        """A sender or connection is not taken, for one of the reasons of `exporters`; counted and said."""
        self._plugin.refused(peer, reason, self.now())

    # datagrams

    def take_slab(self, listener: Place, slab: Slab) -> None:
        """All datagrams of one wake-up."""
        try:
            self._intake.take(listener, slab)
        except Exception as error:
            self.fault(error)

    def forget_idle(self, now: float) -> None:
        """End UDP sessions that have been silent for `idle_timeout`."""
        for session in self.exporters.forget_idle(now):
            self.datagrams.forget(session)

    def hand_on_datagrams(self) -> None:
        """Emit all records received in datagrams."""
        self._plugin.emit_all(self.datagrams, False, self.now())

    # connections and associations

    def connected(self, connection: Connection, make: MakeSession, transport: str) -> None:
        """Take a connection, and say so."""
        if self.take_connection(connection, make, transport):
            self.say_connected(connection)

    def take_connection(self, connection: Connection, make: MakeSession, transport: str) -> bool:
        """A connection or association becomes a Transport Session, unless there is no room for it."""
        host = plain(connection.peer[0])
        places = self._places.setdefault(
            transport, Places(self.settings.max_streams, self.settings.max_sessions_of_address)
        )
        room = places.room_for(host) if self.exporters.allows(connection.peer[0]) else NOT_ALLOWED
        if isinstance(room, str):
            self.refused(connection.peer, room)
            connection.close()
            return False
        if room is not None:
            self._evict(cast("Connection", room))
        state = self.connections[connection] = make(self, connection, self.now())
        self._places_of[connection] = places
        places.take(connection, host, state.session)
        if self._paused:
            connection.pause()
        return True

    def renewed(self, connection: Connection, session: Session) -> None:
        """An association has begun anew, with another session."""
        if (places := self._places_of.get(connection)) is not None:
            places.leave(connection)
            places.take(connection, session.peer, session)

    def _evict(self, connection: Connection) -> None:
        """Close a connection that makes room for another one; its place is free at once."""
        self._places_of.pop(connection).leave(connection)
        self._plugin.evicted(connection.peer[0], self.now())
        connection.close()

    def say_connected(self, connection: Connection) -> None:
        """A new peer, in the log."""
        self.say(f"connected {connection.peer}", "{peer} has connected", peer=where(connection.peer))

    def say_left(self, connection: Connection, reason: str) -> None:
        """A peer that is gone, in the log."""
        self.say(
            f"left {connection.peer}", "{peer} has disconnected: {reason}", peer=where(connection.peer), reason=reason
        )

    def forget(self, connection: Connection, session: Session) -> bool:
        """A connection has ended: what it brought goes on, and its session ends; False where it has none any more."""
        if self.connections.pop(connection, None) is None:
            return False
        if (later := self._resting.pop(connection, None)) is not None:
            later.cancel()
        if (places := self._places_of.pop(connection, None)) is not None:
            places.leave(connection)
        self.end_session(session)
        return True

    def end_session(self, session: Session) -> None:
        """Emit the records of a session; its templates are forgotten (RFC 7011 section 8)."""
        if session.reliable:
            self.hand_on_streams()
            self.streams.forget(session)
        else:
            self.hand_on_datagrams()
            self.datagrams.forget(session)

    def hold(self, state: BufferingSession, octets: int) -> None:
        """Account for octets of messages that have not come whole, or less than before.

        Beyond the bound the largest of the address that holds most is closed, again and again.
        """
        host = state.session.peer
        held = self._held.pop(host, 0) + octets
        if held:
            self._held[host] = held
        self._buffering.pop(state, None)
        if state.buffered:
            self._buffering[state] = None
        self._buffered += octets
        while self._buffered > self.settings.max_buffered and self._held:
            largest = max(self._held, key=self._held.__getitem__)
            of_host = (one for one in self._buffering if one.session.peer == largest)
            max(of_host, key=lambda one: one.buffered).give_up()

    def rest(self, connection: Connection, seconds: float, octets: int) -> None:
        """The messages of a connection took long to decode: if too long, others come first for a while."""
        if not is_dear(seconds, octets, 1) or connection in self._resting:
            return
        connection.pause()
        pause = min(seconds * (1 + len(self._resting)), _LONGEST_REST)
        self._resting[connection] = self._reactor.callLater(pause, self._rested, connection)

    def _rested(self, connection: Connection) -> None:
        if self._resting.pop(connection, None) is not None and not self._paused and connection in self.connections:
            connection.resume()

    def fed(self, state: PeerSession, octets: int) -> None:
        """A stream has brought something: batches may grow for a while, unless they are large already."""
        self._unsettled.add(state)
        self._fed += octets
        if self._fed >= _FED_AT_ONCE:
            self.hand_on_streams()
        elif self._drain_later is None:
            terms = self.settings.terms
            wait = terms.most() if terms.bound is not None else max(terms.most(), SHORT_S)
            self._drain_later = self._reactor.callLater(terms.before_end(wait), self.hand_on_streams)

    def hand_on_streams(self) -> None:
        """Emit all records received in streams."""
        later, self._drain_later = self._drain_later, None
        if later is not None and later.active():
            later.cancel()
        self._fed = 0
        try:
            now = self.now()
            self._plugin.emit_all(self.streams, True, now)
            unsettled, self._unsettled = self._unsettled, set()
            for state in unsettled:
                state.judge(now, settled=True)
        except Exception as error:
            self.fault(error)

    # the plugin

    def pause(self) -> None:
        """Connections wait; datagrams go on."""
        self._paused = True
        for connection in self.connections:
            connection.pause()

    def resume(self) -> None:
        """Connections are read again."""
        self._paused = False
        for connection in self.connections:
            if connection not in self._resting:
                connection.resume()

    @property
    def open_sessions(self) -> int:
        """How many sessions there are."""
        return len(self.exporters) + len(self.connections)

    def sessions(self) -> Iterator[Session]:
        """All sessions that are open now."""
        yield from self.exporters
        for state in self.connections.values():
            yield state.session

    def expire(self) -> None:
        """Forget what is too old: sessions, templates, sets that wait; close silent connections."""
        now = self.now()
        self.forget_idle(now)
        self.datagrams.expire((session for session in self.sessions() if not session.reliable), now)
        self.streams.expire((), now)
        self.hand_on_datagrams()  # sets that waited without need
        self.hand_on_streams()
        for connection, state in list(self.connections.items()):
            if now - state.session.last_received >= self.settings.idle_timeout:
                connection.close()

    @defer.inlineCallbacks
    def drain(self, until: float) -> Any:
        """At a stop: read what the kernel has of all connections; what was decoded goes on.

        After `until` (of the monotonic clock) what has come is not decoded any more, but counted.
        """
        draining: list[defer.Deferred[Any]] = []
        for connection in list(self.connections):
            draining.append(defer.maybeDeferred(connection.drain, until))
        yield defer.DeferredList(draining)
        left = self._intake.finish(until - time.monotonic())
        self.counters.figures["datagrams_unread"] += left
        self.datagrams.end()
        self.streams.end()
        self.hand_on_streams()
        self.hand_on_datagrams()

    def close(self) -> None:
        """End all connections."""
        for connection in list(self.connections):
            connection.close()


def where(peer: tuple[Any, ...]) -> str:
    """A peer as HOST:PORT."""
    return f"[{peer[0]}]:{peer[1]}" if ":" in peer[0] else f"{peer[0]}:{peer[1]}"
