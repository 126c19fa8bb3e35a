"""When a socket is read again after a read, so that rows come together: one clock for UDP, netlink and packet rings.

A wake-up with all its processing costs about a millisecond at any size. While traffic is small a socket is left alone
for as long as the plugins below have patience, at most a quarter of a second, or one where an aggregate keeps the rows.
Meanwhile its buffer is looked at so often that a burst at line rate cannot fill it.

Where the buffer is too small for that time at the present rate, a source is read before, and keeps what it has read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from ulogd_tw.core.patience import AT_ONCE, Ends
from ulogd_tw.core.plugin import Input
from ulogd_tw.transports import resting
from ulogd_tw.transports.resting import Resting

LONGEST_S = 0.25
"""The longest wait of rows that somebody may be looking for."""
LONGEST_KEPT_S = 1.0
"""The longest wait of rows that an aggregate keeps anyway."""
SHORT_S = 0.004
"""The wait under load, in a small buffer, and where no plugin below has a wish."""
SMALL_OCTETS = 1 << 20
"""A smaller buffer is never left alone for longer than `SHORT_S`."""
FASTEST = 200_000 * 2304
"""Octets a second of the fastest burst: more full Ethernet frames than one core takes, as the kernel counts them."""
BURST = 10
"""A buffer must hold so many times the rate of the last second during a wait."""
_BURST_UNDER_LOAD = 6
"""The same under load: more makes batches smaller and records dearer, less leaves no room for a pause of 20 ms."""
_LONGER, _LONGEST = 4, 24
"""Waits under load as multiples of the short one, at most: by the rows of a read, and by its time."""
_IDLE = 19
"""A source is idle if it was left alone for so many times as long as its last read took."""
_MOST_READS = 64
"""Reads that catch up: a peer that sends without end shall not keep us."""
_MUCH = 16
"""A read that finds this part of the buffer full tells the rate of a burst."""
_SOON_S = 0.001
"""The shortest wait of rows that are kept."""
_BEFORE_END_S = 0.005
"""So long before the end of an interval no wait is left: timers come a millisecond late."""


class Source(resting.Source, Protocol):
    """A socket of the reactor; its `doRead` is `Gathering.turn`."""

    @property
    def most(self) -> int:
        """Rows of one read."""

    @property
    def longest_s(self) -> float:
        """The longest wait for its own sake: a peer may be waiting for an answer."""

    @property
    def keeps(self) -> bool:
        """Whether it can keep rows: then they no longer fill the buffer, and wait to be handed over with others."""

    @property
    def kept(self) -> int:
        """Rows that are kept."""

    def keep(self) -> int:
        """Read, and keep; the number of rows that are kept then, at most `most`."""

    def read_once(self) -> int:
        """Read, and hand over with those kept; the number of rows, `most` where more may be there."""


class HandsOverAll:
    """A source without kept rows: each read hands over what it brings."""

    keeps = False
    kept = 0

    def keep(self) -> int:
        """Nothing."""
        return 0


@dataclass(frozen=True, slots=True)
class Terms:
    """What an input and the plugins below it say about waits.

    bound   the longest wait, an option of the administrator; None: no bound of its own
    exact   True: such a bound holds in any buffer, and does not grow under load
    usual   the wait where no plugin below has a wish
    """

    bound: float | None = None
    exact: bool = False
    usual: float = SHORT_S
    wish: Callable[[], float | None] = lambda: None
    longest: Callable[[], float] = lambda: LONGEST_S
    ends: Callable[[], Iterable[Ends]] = tuple
    wall: Callable[[], float] = time.time

    @classmethod
    def of(
        cls, plugin: Input, bound: float | None, wall: Callable[[], float], usual: float = SHORT_S, exact: bool = True
    ) -> Terms:
        """The terms of an input with this value of its option."""

        def longest() -> float:
            return LONGEST_KEPT_S if plugin.wish.kept else LONGEST_S

        return cls(bound, exact, usual, plugin.may_wait, longest, lambda: plugin.wish.ends, wall)

    def most(self) -> float:
        """Seconds that rows may wait now."""
        wish = self.wish()
        if self.bound is not None:
            return self.bound if wish is None else min(wish, self.bound)
        return min(self.usual if wish is None else wish, self.longest())

    def before_end(self, seconds: float) -> float:
        """These seconds, or those until shortly before the next end of an interval; 0 then."""
        if ends := self.ends():
            now = self.wall()
            seconds = min(seconds, *(end.next(now) - _BEFORE_END_S for end in ends))
        return max(seconds, 0.0)


class _Rate:
    """Rows and octets of the last second."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._last = self._present = (0.0, 0.0)
        self.burst = 0.0
        """Octets a second before the last read, if they were many: a burst counts before its second is over."""

    def add(self, now: float, rows: int, octets: int) -> None:
        span = now - self._since
        if span >= 1.0:
            self._last = self._present[0] / span, self._present[1] / span
            self._present, self._since = (0.0, 0.0), now
        self._present = self._present[0] + rows, self._present[1] + octets

    @property
    def rows(self) -> float:
        return max(self._last[0], self._present[0], 1.0)

    @property
    def octets(self) -> float:
        return max(self._last[1], self._present[1], self.burst, 1.0)


class Gathering:
    """Reads a source when the reactor says that there is something, and leaves it alone after a read.

    `spared`: under load the wait is so many times as long as the last read took.
    """

    work_clock = staticmethod(time.perf_counter)

    def __init__(self, source: Source, terms: Terms, reactor: Any, spared: int = 0) -> None:
        self.terms = terms
        self._source, self._reactor, self._spared = source, reactor, spared
        self._resting = Resting(reactor, source)
        self._reads = False
        self._timer: Any = None
        self._until = 0.0
        self._room = 0.0
        self._left_at = self._arrived = self._empty_at = self._since = float("-inf")
        """`_since`: when the buffer was empty, before what is not handed over has come."""
        self._spent = 0.0
        """Seconds that the last rows handed over took."""
        self._rate = _Rate(0.0)

    @property
    def waits(self) -> bool:
        """Whether the source is left alone now."""
        return self._timer is not None

    def begin(self) -> None:
        """Read from now on."""
        if self._reads:
            return
        self._reads = True
        self._room = self._resting.room = self._source.buffer / FASTEST
        self._rate = _Rate(self._reactor.seconds())
        self._reactor.addReader(self._source)

    def end(self) -> None:
        """Read no more."""
        self._cancel()
        if self._reads:
            self._reads = False
            self._reactor.removeReader(self._source)

    def hurry(self) -> None:
        """The present wait is over."""
        if self._timer is not None:
            self._cancel()
            self._reactor.addReader(self._source)

    def _cancel(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def catch_up(self) -> None:
        """Read what has come until now; the present wait is over."""
        self.hurry()
        for _ in range(_MOST_READS if self._reads else 0):
            most = self._source.most
            if self._source.read_once() < most:
                return

    def turn(self) -> None:
        """One read, and the wait after it."""
        source, arrived = self._source, self._reactor.seconds()
        held, most, before = source.held(), source.most, source.kept
        keeps = self._may_keep(arrived, held) and source.keep() < most
        rows = source.kept if keeps else self._hand_over()
        idle = arrived - self._left_at >= _IDLE * self._spent
        self._left_at = now = self._reactor.seconds()
        if rows < most:
            self._empty_at = now
        if not keeps:
            self._since = self._empty_at
        self._rate.add(now, rows - before, held)
        gap, self._arrived = arrived - self._arrived, arrived
        if gap >= SHORT_S:  # what comes during a read says little
            self._rate.burst = held / gap if held * _MUCH > source.buffer else 0.0
        wait = self.wait(rows - before, self._spent, held, idle) if self._reads and 0 < rows < most else 0.0
        if keeps:
            wait = min(max(wait, _SOON_S), self._left(now))
        if keeps or wait > 0:
            self._reactor.removeReader(source)
            self._until = now + wait
            self._look_after(wait if self.terms.bound is not None else self._resting.step(wait))

    def _hand_over(self) -> int:
        """Read, and hand over all rows."""
        began = self.work_clock()
        rows = self._source.read_once()
        self._spent = self.work_clock() - began
        return rows

    def _may_keep(self, now: float, held: int) -> bool:
        """Whether what is read now may wait for more: not in a burst."""
        source = self._source
        return source.keeps and self._reads and held * 4 < source.buffer and self._left(now) > SHORT_S

    def _left(self, now: float) -> float:
        """Seconds until the oldest row must be handed over."""
        most = min(self.terms.most(), self._source.longest_s)
        return self.terms.before_end(self._since + most - now)

    def _look_after(self, seconds: float) -> None:
        self._timer = self._reactor.callLater(seconds, self._look)

    def _look(self) -> None:
        """Rest until the wait is over, or until the reactor has other work."""
        self._timer = None
        if step := self._resting.rest(self._until - self._reactor.seconds()):
            self._look_after(step)
        else:
            self._reactor.addReader(self._source)
            if self._source.kept:
                self.turn()

    # how long

    def wait(self, rows: int, spent: float, held: int, idle: bool) -> float:
        """Seconds until the next read, after one of `rows` in `spent` seconds with `held` octets in the buffer."""
        terms, most, load = self.terms, self.terms.most(), self._under_load(rows, spent)
        if most <= AT_ONCE:
            found = 0.0 if idle else load
        elif terms.bound is None:
            full = held * 4 >= self._source.buffer  # a burst
            found = 0.0 if full else max(self._calm(most), load)
        else:
            found = most if terms.exact else min(max(most, load), self._room)
        return terms.before_end(min(found, self._source.longest_s))

    def _calm(self, most: float) -> float:
        """The part of `most` that the buffer allows."""
        source = self._source
        if source.buffer < SMALL_OCTETS:
            most = min(most, SHORT_S, self._room)
        # More rows than one read takes do not become cheaper.
        return min(most, self._held_for(BURST), source.most / self._rate.rows)

    def _under_load(self, rows: int, spent: float) -> float:
        """The short wait, up to four times that for many rows, and `spared` times what the read took.

        That time is at most 24 short waits, and no longer than the buffer takes a burst at line rate, or six times the
        present rate (ten times, where rows are kept).
        """
        bound, short = self.terms.bound, SHORT_S
        if bound is not None:
            short = min(bound, SHORT_S if self.terms.exact else max(self.terms.most(), SHORT_S))
            if self.terms.exact:
                return short
        while_much = short * min(1 + rows // 16, _LONGER)
        keeps = self._source.keeps and self.terms.most() > SHORT_S  # then handing over takes longer, a wait costs less
        times = BURST if keeps else _BURST_UNDER_LOAD
        room = self._room if bound is not None else min(self._room, self._held_for(times))
        return min(max(while_much, min(self._spared * spent, _LONGEST * short)), room)

    def _held_for(self, times: float) -> float:
        """Seconds for which the buffer holds so many times the present rate."""
        return self._source.buffer / (times * self._rate.octets)
