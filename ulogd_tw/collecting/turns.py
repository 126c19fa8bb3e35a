"""Fair shares of the decoder's time, for datagrams that cost more than they should.

While datagrams are cheap nothing waits here. After a wake-up that took too long for its records, datagrams go into a
queue for each exporter, and are decoded in turns. The exporter with the least cost so far comes first, and a turn ends
after a while, so that sockets are read in time. An exporter with expensive datagrams fills its own queue, and loses
those beyond it; the records of others are not lost in the kernel.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from itertools import count

TURN = 0.02
"""Seconds of decoding after which others get their turn."""
_SLICE = 0.004
"""Seconds of one exporter in a row."""
_FIRST = 4
"""Datagrams decoded of a party with unknown cost."""
_DEAR = 0.2e-6
"""Seconds that an octet may cost; ordinary records cost a hundredth, lists of structured data up to half of it."""
_LEAST = 12
"""Octets of a record: flow records have more than twice as many, but an exporter may send 60,000 rows in a datagram."""
_HEAD = 500
"""Octets that a datagram counts for beside its own."""
_LASTING = 5.0
"""Seconds for which turns are kept after the last expensive wake-up."""
_HALF_LIFE = 1.0
"""Seconds in which half of an exporter's past cost is forgotten."""
_UNKNOWN = 0.01
"""The assumed cost of a party without records."""
_MOST_OF_PARTY = 4 << 20
_MOST = 64 << 20
"""Octets that wait: of one party, and of all."""

Item = tuple[Callable[[], None], int]
"""A function to decode a datagram, and its octets."""


@dataclass(slots=True, eq=False)
class _Party:
    """An exporter, or a network of exporters without records yet: its waiting datagrams, and its recent cost.

    `each` is the cost of each datagram the last time, including its records in the plugins below.
    """

    cost: float
    at: float
    items: deque[Item] = field(default_factory=deque)
    octets: int = 0
    each: float = 0.0

    def cost_at(self, now: float) -> float:
        return self.cost * 0.5 ** ((now - self.at) / _HALF_LIFE)


def is_dear(seconds: float, octets: int, datagrams: int, others: float = 0.0, rows: int = 0) -> bool:
    """Whether datagrams took so long that others must have waited, and longer than so much should take.

    Beside the seconds of decoding, those of the `others` below count where there are far more rows than is usual.
    """
    if seconds > TURN and seconds > _DEAR * (octets + _HEAD * datagrams):
        return True
    return seconds + others > TURN and _is_crowded(rows, octets)


def _is_crowded(rows: int, octets: int) -> bool:
    return rows * _LEAST > octets


class Turns:
    """The queues of all parties. `dropped` is called with the octets of each datagram without room.

    `clock` gives seconds for durations, `work_clock` the working time of this process; `done` emits decoded records,
    and returns the working time of others for them, and how many there were.
    """

    def __init__(
        self, clock: Callable[[], float], work_clock: Callable[[], float], done: Callable[[], tuple[float, int]],
        dropped: Callable[[int], None],
    ) -> None:  # fmt: skip
        self._clock = clock
        self._work_clock = work_clock
        self._done = done
        self._dropped = dropped
        self._parties: dict[Hashable, _Party] = {}
        self._until = float("-inf")
        self._octets = 0

    @property
    def taken(self) -> bool:
        """Whether datagrams are decoded in turns now."""
        return bool(self._octets) or self._clock() < self._until

    @property
    def waits(self) -> bool:
        """Whether datagrams wait."""
        return self._octets > 0

    def holds(self, who: Hashable) -> bool:
        """Whether datagrams of this party wait."""
        party = self._parties.get(who)
        return party is not None and bool(party.items)

    def begin(self) -> None:
        """A wake-up was expensive."""
        self._until = self._clock() + _LASTING

    def put(self, who: Hashable, known: bool, decode: Callable[[], None], octets: int) -> None:
        """A datagram waits for the turn of its party; `known`: records have come of it."""
        now = self._clock()
        party = self._parties.get(who)
        if party is None:
            party = self._parties[who] = _Party(0.0 if known else _UNKNOWN, now)
        if party.octets + octets > _MOST_OF_PARTY or self._octets + octets > _MOST:
            self._dropped(octets)
            return
        party.items.append((decode, octets))
        party.octets += octets
        self._octets += octets

    def work(self, seconds: float = TURN) -> None:
        """Decode for so long, whoever has cost least first."""
        now, began = self._clock(), self._work_clock()
        order = count()
        waiting = [(p.cost_at(now), next(order), who) for who, p in self._parties.items() if p.items]
        heapq.heapify(waiting)
        while waiting and self._work_clock() - began < seconds:
            _, _, who = heapq.heappop(waiting)
            party = self._parties[who]
            self._slice(party, min(_SLICE, seconds))
            if party.items:
                heapq.heappush(waiting, (party.cost, next(order), who))
        self._forget(now)

    def _slice(self, party: _Party, seconds: float) -> None:
        """Some datagrams of one party."""
        began = worked = self._work_clock()
        octets = datagrams = 0
        most = max(int(seconds / party.each), 1) if party.each else _FIRST
        while party.items and worked - began < seconds and datagrams < most:
            decode, size = party.items.popleft()
            party.octets -= size
            self._octets -= size
            decode()
            octets, datagrams, worked = octets + size, datagrams + 1, self._work_clock()
        others, rows = self._done()
        spent, now = self._work_clock() - began, self._clock()
        party.cost, party.at, party.each = party.cost_at(now) + spent, now, spent / datagrams
        if spent - others > _DEAR * (octets + _HEAD * datagrams) or _is_crowded(rows, octets):
            self.begin()

    def _forget(self, now: float) -> None:
        for who in [who for who, p in self._parties.items() if not p.items and p.cost_at(now) < _UNKNOWN / 100]:
            del self._parties[who]

    def finish(self, seconds: float) -> int:
        """Turns for at most these seconds; returns the number of datagrams left, which are forgotten."""
        until = self._clock() + seconds
        while self.waits and self._clock() < until:
            self.work()
        left = sum(len(party.items) for party in self._parties.values())
        self._parties.clear()
        self._octets = 0
        return left
