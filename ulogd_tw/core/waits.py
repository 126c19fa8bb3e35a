"""How long rows wait in a queue: measured by batch, without a mark on the rows."""

from __future__ import annotations

from collections import deque

from ulogd_tw.core.histogram import Histogram

_MOMENT = 0.01
"""Seconds within which rows count as come together."""


class Waits:
    """When the rows of a queue came, the oldest first; `latency` has how long those that are gone have waited.

    Rows are taken to leave in the order in which they came, which is nearly so. `now` is a steady clock.
    """

    def __init__(self) -> None:
        self.latency = Histogram()
        self._came: deque[list[float]] = deque()

    def come(self, rows: int, now: float) -> None:
        """Rows have come; those of the same moment are one entry."""
        if self._came and now - self._came[-1][1] < _MOMENT:
            self._came[-1][0] += rows
        elif rows:
            self._came.append([rows, now])

    def go(self, rows: int, now: float) -> None:
        """The oldest rows are written, or given up."""
        while rows > 0 and self._came:
            there, came = self._came[0]
            if there > rows:
                self._came[0][0] -= rows
                return
            rows -= int(there)
            self.latency.observe(now - came)
            self._came.popleft()

    def oldest(self, now: float) -> float:
        """Seconds for which the oldest row has waited; 0 where none waits."""
        return now - self._came[0][1] if self._came else 0.0

    def clear(self) -> None:
        """No row waits any more, and none of them was written."""
        self._came.clear()
