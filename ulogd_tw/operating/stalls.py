"""Measures how late the reactor is: whatever holds it holds everything."""

from __future__ import annotations

from typing import Any

from twisted.application import service
from twisted.internet import reactor

from ulogd_tw.core.histogram import Histogram

LOOK_SECONDS = 0.1
BOUNDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Stalls(service.Service):
    """A timer ten times a second; `late` has how much later than asked for it came. Only while somebody can ask."""

    def __init__(self, clock: Any = reactor) -> None:
        self._clock = clock
        self._timer: Any = None
        self.late = Histogram(BOUNDS)

    def summary(self) -> dict[str, int]:
        """How often it was looked at, and how often it was late."""
        upto = dict(self.late.buckets())
        looks = upto["+Inf"]
        return {"looks": looks, "over_50ms": looks - upto["0.05"], "over_250ms": looks - upto["0.25"]}

    def startService(self) -> None:
        super().startService()
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look, self._clock.seconds() + LOOK_SECONDS)

    def _look(self, due: float) -> None:
        now = self._clock.seconds()
        self.late.observe(now - due)
        self._timer = self._clock.callLater(LOOK_SECONDS, self._look, now + LOOK_SECONDS)

    def stopService(self) -> None:
        super().stopService()
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
