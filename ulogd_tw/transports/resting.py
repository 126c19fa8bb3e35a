"""Looks at the buffer of a socket that is left alone, without the reactor's timers: so a hundred a second cost little.

A wake-up of an idle process costs 20 us. Python code that is not in the processor's caches costs as much again, and a
timer of Twisted 50 us more.
"""

from __future__ import annotations

import select
from typing import Any, Protocol

from ulogd_tw.kernels import lib

_FULL = 0.75
"""The part of the buffer that the fastest burst may fill until a look; the rest is for the time that a read takes."""
_OVER_S = 0.0005
"""A wait is over so long before its end: timers are not more exact."""
_MOST_S = 1e6


class Source(Protocol):
    """A socket or a ring."""

    @property
    def buffer(self) -> int:
        """Octets that the kernel may keep for it, as the kernel counts them."""

    @property
    def has_meminfo(self) -> bool:
        """Whether what it holds is told by SO_MEMINFO."""

    def fileno(self) -> int:
        """Its descriptor."""

    def held(self) -> int:
        """Octets that its buffer holds now, as the kernel counts them."""


class Resting:
    """Rests for a reactor, looking at the buffer of a source, while the reactor has nothing to do."""

    def __init__(self, reactor: Any, source: Source) -> None:
        self._reactor, self._source = reactor, source
        self.room = 0.0
        """Seconds in which the fastest burst fills the buffer."""
        # An epoll is itself readable while a descriptor of it is ready, such as the one for signals and threads.
        self._events: Any = getattr(reactor, "_poller", None)
        self._ready: Any = None
        if hasattr(self._events, "fileno"):
            self._ready = select.poll()
            self._ready.register(self._events, select.POLLIN)

    def step(self, left: float, held: int = 0) -> float:
        """Seconds until the next look, with so many left: it finds the buffer three quarters full at most."""
        return min(left, self.room * (_FULL - held / self._source.buffer))

    def rest(self, left: float) -> float:
        """Look again and again for so many seconds: 0 where they are over or the buffer is a quarter full.

        Else the seconds until the next look: the reactor has work, now or in this time, or it cannot be awaited here.
        """
        due = 0.0
        if self._ready is not None:
            due = min(_MOST_S if (due := self._reactor.timeout()) is None else due, _MOST_S)
            if lib is not None and self._source.has_meminfo:
                numbers = self._source.buffer, *(int(s * 1e9) for s in (min(self.room, _MOST_S), left, due))
                return lib.ut_rest(self._events.fileno(), self._source.fileno(), *numbers) / 1e9
        return self._rest(left, due)

    def _rest(self, left: float, due: float) -> float:
        clock, source = self._reactor.seconds, self._source
        end, stop = (now := clock()) + left, now + due
        while (left := end - now) > _OVER_S and (held := source.held()) * 4 < source.buffer:
            at = now + (step := self.step(left, held))
            if at > stop:
                return step
            work, now = self._ready.poll(max(int(step * 1000), 1)), clock()
            if work:
                return max(at - now, 1e-9)
        return 0.0
