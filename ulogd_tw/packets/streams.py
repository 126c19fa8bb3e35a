"""What packets carry: datagrams of UDP put together from fragments, and the octets of TCP connections in order."""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass, field

MOST_FRAGMENTED = 256
"""Datagrams that wait for fragments at once."""
MOST_DATAGRAM = 65535
FRAGMENT_SECONDS = 30.0
"""For so long fragments wait (RFC 8200 section 4.5: 60 s)."""
MOST_PIECES = 1024
"""Fragments of a datagram at most; 119 suffice for the smallest MTU of IPv4 that is in use (576)."""
SEGMENT_COST = 100
"""Octets of memory that a segment takes that waits, besides its own."""
FARTHEST = 64 << 20
"""Octets between segments that are of one connection, sent again or out of order: fewer. No window is as large."""
_HALF = 1 << 31
_MASK = 0xFFFFFFFF


class Fragments:
    """Puts datagrams together (RFC 791, RFC 8200). What waits too long is counted as ``fragments`` in `errors`."""

    def __init__(self, errors: Counter[str]) -> None:
        self._errors = errors
        self._waiting: OrderedDict[tuple, _Parts] = OrderedDict()

    def take(self, key: tuple, offset: int, more: bool, octets: bytes, now: float) -> bytes | None:
        """A fragment (`offset` in octets) of the datagram `key`; the datagram when it is whole."""
        while self._waiting:
            oldest, parts = next(iter(self._waiting.items()))
            if len(self._waiting) <= MOST_FRAGMENTED and now - parts.since <= FRAGMENT_SECONDS:
                break
            del self._waiting[oldest]
            self._errors["fragments"] += 1
        parts = self._waiting.get(key)
        if parts is None:
            parts = self._waiting[key] = _Parts(now)
        if offset + len(octets) > MOST_DATAGRAM or len(parts.pieces) >= MOST_PIECES:
            del self._waiting[key]
            self._errors["fragments"] += 1
            return None
        parts.pieces[offset] = octets
        if not more:
            parts.size = offset + len(octets)
        whole = parts.joined()
        if whole is not None:
            del self._waiting[key]
        return whole


@dataclass(slots=True)
class _Parts:
    since: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    size: int = -1

    def joined(self) -> bytes | None:
        """The datagram, if nothing of it is missing."""
        if self.size < 0 or sum(map(len, self.pieces.values())) < self.size:
            return None
        whole = b""
        for offset in sorted(self.pieces):
            if offset > len(whole):
                return None
            whole = whole[:offset] + self.pieces[offset]
        return whole[: self.size] if len(whole) >= self.size else None


class Stream:
    """One direction of a TCP connection (RFC 9293): segments in any order and repeated, octets in order.

    `held` says how many octets of memory those segments take that wait for what is in front of them.
    """

    def __init__(self) -> None:
        self.held = 0
        self._next: int | None = None
        self._place = 0
        self._waiting: list[tuple[int, bytes]] = []

    def take(self, sequence: int, octets: bytes, syn: bool = False) -> bytes:
        """The octets that go on with this segment; none where what is in front of them has not come."""
        if syn:
            sequence = (sequence + 1) & _MASK
        if self._next is None:
            self._next = sequence
        ahead = self._ahead(sequence)
        if ahead > 0:
            if octets:
                heapq.heappush(self._waiting, (self._place + ahead, octets))
                self.held += len(octets) + SEGMENT_COST
            return b""
        octets = octets[-ahead:]
        if not octets:
            return b""
        return octets + self._follow(len(octets))

    def foreign(self, sequence: int) -> bool:
        """Whether a segment is so far away that it is of another connection."""
        return self._next is not None and abs(self._ahead(sequence)) >= FARTHEST

    def skip(self) -> bytes:
        """What is missing does not come: the octets behind the gap. Something must be held."""
        return self._follow(self._waiting[0][0] - self._place)

    def _ahead(self, sequence: int) -> int:
        return ((sequence - self._next + _HALF) & _MASK) - _HALF

    def _follow(self, taken: int) -> bytes:
        """Octets that were held and go on now."""
        found, place, waiting = [], self._place + taken, self._waiting
        while waiting and waiting[0][0] <= place:
            begin, octets = heapq.heappop(waiting)
            self.held -= len(octets) + SEGMENT_COST
            octets = octets[place - begin :]
            found.append(octets)
            place += len(octets)
        self._next = (self._next + place - self._place) & _MASK
        self._place = place
        return b"".join(found)
