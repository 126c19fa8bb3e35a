"""Two clocks: a steady one for every duration, and the wall clock, which can be set, for stamps and intervals."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_LEAST_STEP = 0.5
"""Seconds from which a difference is a step. NTP slews by 0.05 % or so, which is less in the time between two looks."""


def make_steady(reactor: Any) -> None:
    """Let a reactor count seconds by the monotonic clock; before anything is scheduled.

    Twisted takes the wall clock. Set back an hour, all its timers would stand still for that hour.
    """
    reactor.seconds = time.monotonic


class WallClock:
    """Seconds since 1970, with notice of steps: whoever sets the clock, and a machine that was asleep."""

    def __init__(self, wall: Callable[[], float] = time.time, steady: Callable[[], float] = time.monotonic) -> None:
        self._wall = wall
        self._steady = steady
        self._ahead = wall() - steady()

    def now(self) -> float:
        """Seconds since 1970."""
        return self._wall()

    def step(self) -> float:
        """Seconds by which the clock was set since the last call; 0 where it was not."""
        ahead = self._wall() - self._steady()
        step, self._ahead = ahead - self._ahead, ahead
        return step if abs(step) >= _LEAST_STEP else 0.0
