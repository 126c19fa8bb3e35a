"""Finds the ends of flows among packets: the rules of a flow cache, for many packets of many flows at once.

A packet begins a new flow if `idle` has passed since the flow's last packet, or `active` since its first. After a FIN
or RST, a new flow also begins with a SYN, or when `linger` has passed. The result depends on the flow's packets only,
never on the time of reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.flow_end import ACTIVE, ENDED, IDLE

FIN, SYN, RST = 1, 2, 4
CONTROL = 0xFFF
"""The bits of tcpControlBits."""
REVERSE = 16
"""Bits by which the flags of the second direction are shifted."""
_ANY_FIN, _ANY_RST = FIN | FIN << REVERSE, RST | RST << REVERSE
_ANY_SYN = SYN | SYN << REVERSE
_CLOSING = _ANY_FIN | _ANY_RST
_ROUNDS = 16
"""Number of breaks in a flow found for all flows together; further breaks in a batch are found one by one."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Times in microseconds. `both`: a flow has two directions, and each sends a FIN of its own."""

    idle: int
    active: int
    linger: int
    both: bool

    def closed(self, flags: np.ndarray) -> np.ndarray:
        """A mask of the flows closed by the flags of their packets."""
        if not self.both:
            return (flags & np.uint64(_CLOSING)) != 0
        fins = flags & np.uint64(_ANY_FIN)
        return (fins == _ANY_FIN) | ((flags & np.uint64(_ANY_RST)) != 0)

    def over(self, start: np.ndarray, last: np.ndarray, flags: np.ndarray) -> np.ndarray:
        """The end time of each flow if no further packet comes."""
        quiet = np.where(self.closed(flags), min(self.linger, self.idle), self.idle)
        return np.minimum(last + quiet, start + self.active)

    def reasons(self, start: np.ndarray, last: np.ndarray, flags: np.ndarray) -> np.ndarray:
        """The reason of the end for each flow: the first to apply."""
        timed = np.where(last + self.idle <= start + self.active, np.uint8(IDLE), np.uint8(ACTIVE))
        return np.where(self.closed(flags), np.uint8(ENDED), timed)


@dataclass(slots=True)
class Packets:
    """Packets sorted by flow and then by time: flow i has packets ``starts[i]`` up to ``starts[i + 1]``.

    `flags` are TCP's control bits (0 for others), separate for each direction.
    """

    starts: np.ndarray
    times: np.ndarray
    flags: np.ndarray

    @property
    def ends(self) -> np.ndarray:
        return np.append(self.starts[1:], len(self.times))


@dataclass(slots=True)
class Known:
    """The state of the flow of each run of packets before them; `flags` 0: the flow is new."""

    start: np.ndarray
    last: np.ndarray
    flags: np.ndarray


def first_packets(rules: Rules, packets: Packets, known: Known) -> tuple[np.ndarray, np.ndarray]:
    """The packets at the beginning of each part of a run, and a mask of runs that continue a known flow."""
    return _Breaks(rules, packets, known).find()


class _Breaks:
    """One call of `first_packets`."""

    def __init__(self, rules: Rules, packets: Packets, known: Known) -> None:
        self.rules, self.packets, self.known = rules, packets, known
        self.n = len(packets.times)
        self.ends = packets.ends
        self.alive = known.flags != 0
        times, starts = packets.times, packets.starts
        self.gap = np.empty(self.n, np.int64)
        np.subtract(times[1:], times[:-1], out=self.gap[1:])
        self.gap[starts] = np.where(self.alive, times[starts] - known.last, 0)

    def find(self) -> tuple[np.ndarray, np.ndarray]:
        rules, starts, times = self.rules, self.packets.starts, self.packets.times
        last = times[self.ends - 1]
        self.until = np.where(self.alive, self.known.start, times[starts]) + rules.active
        hard = self.gap.max() >= rules.idle
        active = (last >= self.until).any()
        closing = bool(np.bitwise_or.reduce(self.packets.flags) & np.uint64(_CLOSING))
        closing = closing or bool((self.known.flags & np.uint64(_CLOSING)).any())
        if not (hard or active or closing):
            return starts, self.alive
        first = np.full(len(starts), self.n)
        after = np.full(self.n, self.n)
        if hard:
            self._idle(first, after)
        if active:
            self._active(first, after)
        if closing:
            self._closing(first, after)
        return self._follow(first, after)

    # each of these lowers `first`, the first break in each run, and `after`, the one behind a flow that begins here

    def _idle(self, first: np.ndarray, after: np.ndarray) -> None:
        following = _next(self.gap >= self.rules.idle)
        np.minimum(first, following[self.packets.starts], out=first)
        np.minimum(after, following[1:], out=after)

    def _active(self, first: np.ndarray, after: np.ndarray) -> None:
        times, starts = self.packets.times, self.packets.starts
        over = times >= np.repeat(self.until, self.ends - starts)
        np.minimum(first, _next(over)[starts], out=first)
        # One clock for all runs; a pause that ends the flow anyway need not count in full, and so nothing overflows.
        clock = np.cumsum(np.minimum(self.gap, self.rules.idle))
        np.minimum(after, np.searchsorted(clock, clock + self.rules.active), out=after)

    def _closing(self, first: np.ndarray, after: np.ndarray) -> None:
        """After the closing packet of a flow: the first SYN, or the first packet after a pause."""
        flags = self.packets.flags
        soft = _next((self.gap >= self.rules.linger) | ((flags & np.uint64(_ANY_SYN)) != 0))
        if self.rules.both:
            fins = [_next((flags & np.uint64(fin)) != 0) for fin in (FIN, FIN << REVERSE)]
            reset = _next((flags & np.uint64(_ANY_RST)) != 0)
            closed = np.minimum(reset, np.maximum(*fins))
            seen = [self._from(f, fin) for f, fin in zip(fins, (FIN, FIN << REVERSE), strict=True)]
            began = np.minimum(self._from(reset, _ANY_RST), np.maximum(*seen))
        else:
            closed = _next((flags & np.uint64(_CLOSING)) != 0)
            began = self._from(closed, _CLOSING)
        np.minimum(first, soft[np.minimum(began + 1, self.n)], out=first)
        np.minimum(after, soft[np.minimum(closed[:-1] + 1, self.n)], out=after)

    def _from(self, following: np.ndarray, bits: int) -> np.ndarray:
        """The first packet of each run with such bits; the one before the run if the known flow has had them."""
        starts = self.packets.starts
        return np.where((self.known.flags & np.uint64(bits)) != 0, starts - 1, following[starts])

    def _follow(self, first: np.ndarray, after: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """From break to break in each run."""
        starts = self.packets.starts
        begins = np.zeros(self.n, bool)
        begins[starts] = True
        inside = first < self.ends
        here, ends = first[inside], self.ends[inside]
        for _ in range(_ROUNDS):
            if not len(here):
                break
            begins[here] = True
            here = after[here]
            inside = here < ends
            here, ends = here[inside], ends[inside]
        if len(here):
            _walk(here.tolist(), ends.tolist(), after.tolist(), begins)
        return np.flatnonzero(begins), self.alive & (first != starts)


def _walk(here: list[int], ends: list[int], after: list[int], begins: np.ndarray) -> None:
    """The same, one by one: 0.1 us a break, for the few flows with many breaks."""
    found = []
    for place, end in zip(here, ends, strict=True):
        while place < end:
            found.append(place)
            place = after[place]
    begins[found] = True


def _next(mask: np.ndarray) -> np.ndarray:
    """For each place the first place from there on with `mask` True; one element more than `mask`, for the end."""
    n = len(mask)
    found = np.full(n + 1, n)
    found[:-1][mask] = np.flatnonzero(mask)
    return np.minimum.accumulate(found[::-1])[::-1]
