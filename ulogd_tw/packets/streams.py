"""What packets carry: datagrams of UDP put together from fragments, and the octets of TCP connections in order."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field

MOST_FRAGMENTED = 256
"""Datagrams that wait for fragments at once."""
MOST_DATAGRAM = 65535
FRAGMENT_SECONDS = 30.0
"""For so long fragments wait (RFC 8200 section 4.5: 60 s)."""
MOST_HELD = 4 << 20
"""Octets of a connection that came before what is in front of them."""
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
        if offset + len(octets) > MOST_DATAGRAM:
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
    """One direction of a TCP connection (RFC 9293): segments in any order and repeated, octets in order."""

    def __init__(self) -> None:
        self._next: int | None = None
        self._held: dict[int, bytes] = {}
        self._held_octets = 0

    @property
    def holds(self) -> bool:
        """Whether octets wait for what is in front of them."""
        return bool(self._held)

    def take(self, sequence: int, octets: bytes, syn: bool = False) -> bytes | None:
        """The octets that go on with this segment, b"" for none; None when some are lost and it goes on behind them."""
        if syn:
            sequence = (sequence + 1) & _MASK
        if self._next is None or syn:
            self._next = sequence
            self._held.clear()
            self._held_octets = 0
        if self._before(sequence):
            behind = (self._next - sequence) & _MASK
            octets, sequence = octets[behind:], self._next
        if not octets:
            return b""
        if sequence != self._next:
            if len(octets) > len(self._held.get(sequence, b"")):
                self._held_octets += len(octets) - len(self._held.get(sequence, b""))
                self._held[sequence] = octets
            if self._held_octets <= MOST_HELD:
                return b""
            self._next = min(self._held, key=lambda s: (s - self._next) & _MASK)  # what is missing does not come
            return None
        return octets + self._follow(len(octets))

    def _before(self, sequence: int) -> bool:
        return (sequence - self._next) & _MASK >= _HALF

    def _follow(self, taken: int) -> bytes:
        """Octets that were held and go on now."""
        self._next = (self._next + taken) & _MASK
        found = []
        while self._held:
            first = min(self._held, key=lambda s: (s - self._next + _HALF) & _MASK)
            if first != self._next and not self._before(first):
                break
            octets = self._held.pop(first)
            self._held_octets -= len(octets)
            octets = octets[(self._next - first) & _MASK :]
            found.append(octets)
            self._next = (self._next + len(octets)) & _MASK
        return b"".join(found)

    def resume(self) -> bytes:
        """After None: the octets behind the gap."""
        return self._follow(0)
