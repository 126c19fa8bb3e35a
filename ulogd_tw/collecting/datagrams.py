"""Datagrams of all listeners: whose they are, and how much of the decoder's time each exporter has."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from ulogd_tw.collecting.input import Collecting
from ulogd_tw.collecting.turns import Turns, is_dear
from ulogd_tw.ipfix.decoder import Decoder
from ulogd_tw.ipfix.exporters import Exporters, network_of
from ulogd_tw.ipfix.session import Session
from ulogd_tw.transports.slab import Slab

_FEW_TEMPLATES = 16
"""Datagrams with templates in one wake-up; where there are more, the time is looked at while they are decoded."""
_AT_ONCE, _LONG_AT_ONCE = 32, 4
"""Datagrams decoded between two looks at the time; the same for datagrams longer than a row of the slab."""


class Place(Protocol):
    """A listener of datagrams, as far as sessions are concerned."""

    place: str
    """The listening address, to identify it."""


class DatagramIntake:
    """Gives the datagrams of a wake-up to a decoder, and the decoded batches to the plugin.

    `now` is the wall clock, `later` calls something after some seconds.
    """

    clock = staticmethod(time.monotonic)
    work_clock = staticmethod(time.thread_time)

    def __init__(
        self, plugin: Collecting, decoder: Decoder, exporters: Exporters, now: Callable[[], float],
        later: Callable[..., Any],
    ) -> None:  # fmt: skip
        self._plugin = plugin
        self._decoder = decoder
        self._exporters = exporters
        self._now = now
        self._later = later
        self._nobody = Session("", 0, reliable=False)
        self._turns = Turns(self.clock, self.work_clock, self._done, self._dropped)
        self._turn_comes = False

    def take(self, listener: Place, slab: Slab) -> None:
        """All datagrams of one wake-up."""
        if self._turns.taken:
            self._put(listener, slab, 0, self._now())
            return
        now, lengths = self._now(), slab.lengths
        long = int(lengths.max()) > slab.stride
        sessions, known = self._sessions(listener, slab, now)
        if not long and known and _templates(slab) <= _FEW_TEMPLATES:
            self._decode(listener, sessions, slab, 0, slab.n, False, now)
            return
        step = _LONG_AT_ONCE if long else _AT_ONCE
        for first in range(0, slab.n, step):
            last = min(first + step, slab.n)
            self._exporters.hear(sessions[first:last])
            if self._decode(listener, sessions[first:last], slab, first, last, True, now):
                self._put(listener, slab, last, now)
                return

    def _sessions(self, listener: Place, slab: Slab, now: float) -> tuple[list[Session], bool]:
        """The session of each datagram; `_nobody` where its sender is not known, and whether all are."""
        words = slab.names.view(np.uint32)
        other = (words[1:] != words[:-1]).any(axis=1)
        starts = [0, *(np.flatnonzero(other) + 1).tolist(), slab.n]
        octets, size, find, place = slab.names.tobytes(), slab.names.shape[1], self._exporters.find, listener.place
        sessions: list[Session] = []
        known = True
        for first, last in pairwise(starts):
            session = find(place, octets[first * size : first * size + size], now)
            known = known and session is not None
            sessions += [session or self._nobody] * (last - first)
        return sessions, known

    def _decode(
        self, listener: Place, sessions: list[Session], slab: Slab, first: int, last: int, singly: bool, now: float
    ) -> bool:
        """Decode some datagrams, and hand on their records. True where they took too long."""
        began, lengths = self.work_clock(), slab.lengths[first:last]
        if singly and (self._nobody in sessions or (lengths > slab.stride).any()):
            for place, session in enumerate(sessions, first):
                if session is self._nobody or session.ended:
                    name, peer = slab.names[place].tobytes(), slab.peer(place)
                    self._feed(listener.place, name, peer, slab.octets(place), now)
                else:
                    self._decoder.feed(session, slab.octets(place), now)
        else:
            self._decoder.feed_slab(sessions, slab.rows[first:last], lengths, now)
        if self._decoder.homes:
            self._unite()
        others, rows = self.hand_on()
        spent = self.work_clock() - began - others
        dear = is_dear(spent, int(lengths.sum()), last - first, others, rows)
        if dear:
            self._turns.begin()
        return dear

    def _feed(self, place: str, name: bytes, peer: tuple[str, int], octets: bytes | memoryview, now: float) -> None:
        """One datagram of a sender that may be known by one before it."""
        session = self._exporters.find(place, name, now)
        if session is None:
            self._plugin.take_newcomer(self._decoder, self._exporters, place, name, peer, octets, now)
        else:
            self._decoder.feed(session, octets, now)

    def hand_on(self) -> tuple[float, int]:
        """Emit all decoded records; returns the seconds of work in the plugins below, and the number of rows."""
        now = self._now()
        batches = self._decoder.drain(now, False)
        began = self.work_clock()
        self._plugin.emit_batches(batches, self._decoder, now)
        return self.work_clock() - began, sum(batch.n for batch in batches)

    def _unite(self) -> None:
        """Sessions whose templates come from another port of their address become one with it."""
        homes = self._decoder.homes[:]
        self._decoder.homes.clear()
        for home, other in homes:
            others = self._exporters.unite(home)
            for session in others:
                self._decoder.merge(home, session)
            if others:
                self._plugin.say(f"unite {home.peer}", self._now(), "{peer}: templates and data come from different "
                                 "ports ({one}, {other}); from now on it is known by its address alone (session_key)",
                                 peer=home.peer, one=home.peer_port, other=other.peer_port)  # fmt: skip

    # in turns

    def _put(self, listener: Place, slab: Slab, first: int, now: float) -> None:
        """The datagrams from this one on wait for the turn of their party."""
        for place in range(first, slab.n):
            name, octets = slab.names[place].tobytes(), bytes(slab.octets(place))
            session = self._exporters.find(listener.place, name, now)
            network = network_of(listener.place, name)
            # Until its first record an exporter is one of its network; what waits there is decoded before the rest.
            own = session is not None and session.has_given and not self._turns.holds(network)
            decode = partial(self._feed, listener.place, name, slab.peer(place), octets, now)
            self._turns.put(session if own else network, own, decode, len(octets))
        self._call_turn()

    def _call_turn(self) -> None:
        """A turn comes when sockets have been read."""
        if self._turns.waits and not self._turn_comes:
            self._turn_comes = True
            self._later(0.0, self._turn)

    def _turn(self) -> None:
        self._turn_comes = False
        try:
            self._turns.work()
        except Exception as error:
            self._plugin.fault(error)
        self._call_turn()

    def _done(self) -> tuple[float, int]:
        if self._decoder.homes:
            self._unite()
        return self.hand_on()

    def _dropped(self, octets: int) -> None:
        self._plugin.counters.messages_received += 1
        self._plugin.counters.octets_received += octets
        self._plugin.counters.errors["limit_work"] += 1
        self._plugin.say("limit_work", self._now(), "datagrams are dropped: decoding those of some exporters takes too "
                         "long")  # fmt: skip

    def finish(self, seconds: float) -> int:
        """At a stop: decode what waits, for so long at most; the datagrams that are left."""
        return self._turns.finish(seconds)


def _templates(slab: Slab) -> int:
    """How many datagrams begin with a Template Set of IPFIX or a Template FlowSet of NetFlow v9."""
    if slab.n <= _FEW_TEMPLATES:
        return 0
    rows = slab.rows[: slab.n]
    version = np.where(rows[:, 0] == 0, rows[:, 1], 0)
    # Set IDs below 256 have 0 in their first octet.
    return int(np.count_nonzero((version == 10) & (rows[:, 16] == 0) | (version == 9) & (rows[:, 20] == 0)))
