"""Reassembles the contents of packets: UDP datagrams from fragments, and the octets of TCP connections in order."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from heapq import heappop, heappush

MOST_FRAGMENTED = 256
"""Datagrams that wait for fragments at once."""
MOST_DATAGRAM = 65535
FRAGMENT_SECONDS = 30.0
"""Seconds for which fragments wait (RFC 8200 section 4.5: 60 s)."""
MOST_HELD = 4 << 20
"""Maximum octets of a connection waiting for missing octets before them."""
MOST_HELD_IN_ALL = 64 << 20
"""The same limit for all connections of a capture."""
HELD_SEGMENT = 128
"""Memory for each held segment beside its octets."""
FARTHEST = 64 << 20
"""Minimum distance, in octets, of a segment of another connection on the same ports. No TCP window is as large."""
_HALF = 1 << 31
_MASK = 0xFFFFFFFF


class Fragments:
    """Puts datagrams together (RFC 791, RFC 8200). Datagrams waiting too long count as ``fragments`` in `errors`.

    A datagram with overlapping pieces or an impossible length counts so too: RFC 5722 section 4 drops it.
    """

    def __init__(self, errors: Counter[str]) -> None:
        self._errors = errors
        self._waiting: OrderedDict[tuple, _Parts] = OrderedDict()

    def take(self, key: tuple, offset: int, more: bool, octets: bytes, now: float) -> bytes | None:
        """Add a fragment (`offset` in octets) of the datagram `key`; returns the datagram when it is complete."""
        while self._waiting:
            oldest, parts = next(iter(self._waiting.items()))
            if len(self._waiting) <= MOST_FRAGMENTED and now - parts.since <= FRAGMENT_SECONDS:
                break
            del self._waiting[oldest]
            self._errors["fragments"] += 1
        parts = self._waiting.get(key)
        if parts is None:
            parts = self._waiting[key] = _Parts(now)
        parts.put(offset, more, octets)
        if not parts.wrong and not parts.complete:
            return None
        del self._waiting[key]
        whole = None if parts.wrong else parts.joined()
        if whole is None:
            self._errors["fragments"] += 1
        return whole


@dataclass(slots=True)
class _Parts:
    since: float
    pieces: dict[int, bytes] = field(default_factory=dict)
    octets: int = 0
    size: int = -1
    wrong: bool = False

    def put(self, offset: int, more: bool, octets: bytes) -> None:
        """Add a piece; a repeated piece replaces the first one."""
        if octets:
            self.octets += len(octets) - len(self.pieces.get(offset, b""))
            self.pieces[offset] = octets
        if not more:
            self.size = offset + len(octets)
        self.wrong = max(offset + len(octets), self.octets) > MOST_DATAGRAM

    @property
    def complete(self) -> bool:
        """Whether the expected number of octets is there."""
        return 0 <= self.size <= self.octets

    def joined(self) -> bytes | None:
        """The datagram, if each octet is there exactly once."""
        whole = []
        at = 0
        for offset in sorted(self.pieces):
            if offset != at:
                return None
            whole.append(self.pieces[offset])
            at += len(whole[-1])
        return b"".join(whole) if at == self.size else None


class Held:
    """Octets held by all connections together."""

    octets = 0


class Stream:
    """One direction of a TCP connection (RFC 9293): segments in any order and repeated, octets in order.

    While it is `full`, the caller must call `resume`; at its end, `drop`.
    """

    def __init__(self, held: Held | None = None) -> None:
        self._next: int | None = None  # not modulo 2**32, as all places here
        self._held: dict[int, bytes] = {}
        self._order: list[int] = []
        self._octets = 0
        self._in_all = held or Held()

    @property
    def holds(self) -> bool:
        """Whether octets wait for missing ones before them."""
        return bool(self._held)

    @property
    def full(self) -> bool:
        """Whether more octets wait than allowed: the missing ones are lost."""
        return self.holds and (self._octets > MOST_HELD or self._in_all.octets > MOST_HELD_IN_ALL)

    def take(self, sequence: int, octets: bytes, syn: bool = False) -> bytes:
        """The octets in order that this segment completes, b"" for none."""
        if syn:
            sequence = (sequence + 1) & _MASK
        if self._next is None or syn:
            self.drop()
            self._next = sequence
        behind = self._behind(sequence)
        if behind < 0:
            self._hold(self._next - behind, octets)
            return b""
        octets = octets[behind:]
        self._next += len(octets)
        return octets + self._follow() if octets else b""

    def foreign(self, sequence: int) -> bool:
        """Whether a segment is so far away that it belongs to another connection."""
        return self._next is not None and abs(self._behind(sequence)) >= FARTHEST

    def _behind(self, sequence: int) -> int:
        return ((self._next - sequence + _HALF) & _MASK) - _HALF

    def resume(self) -> bytes:
        """Give up the missing octets: returns the octets after the first gap."""
        if self._order:
            self._next = self._order[0]
        return self._follow()

    def drop(self) -> None:
        """Forget waiting octets."""
        self._count(-self._octets)
        self._held.clear()
        self._order.clear()

    def _hold(self, place: int, octets: bytes) -> None:
        known = self._held.get(place)
        if known is None and octets:
            heappush(self._order, place)
            self._count(HELD_SEGMENT)
        if len(octets) > len(known or b""):
            self._count(len(octets) - len(known or b""))
            self._held[place] = octets

    def _count(self, octets: int) -> None:
        self._octets += octets
        self._in_all.octets += octets

    def _follow(self) -> bytes:
        """Held octets that are now in order."""
        found = []
        while self._order and self._order[0] <= self._next:
            place = heappop(self._order)
            octets = self._held.pop(place)
            self._count(-HELD_SEGMENT - len(octets))
            found.append(octets[self._next - place :])
            self._next += len(found[-1])
        return b"".join(found)
