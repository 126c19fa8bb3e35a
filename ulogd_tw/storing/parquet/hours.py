"""The time of rows in a store, and the hours that they belong to.

A row belongs to the hour of its end. Without an end, or with an odd one, its time is that of its arrival, which is then
stored beside its own times: more than a day after the arrival, longer before it than rows are kept, or in one of more
hours than one write may have.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.resolve import Find, Found
from ulogd_tw.storing.stored_columns import END, START

HOUR_MS = 3_600_000
AHEAD_MS = 86_400_000
"""So long after its arrival a flow may end, for clocks that are wrong."""
MOST_HOURS = 64
"""Hours of one write: a peer with random times must not make files without end."""
LAST_MS = 253_402_300_799_000
"""The end of the year 9999, beyond which no date is written."""


@dataclass(slots=True)
class Times:
    """Of the rows of a batch: `time` and `start` in ms since 1970, and a mask of those whose time is the arrival."""

    time: np.ndarray
    start: np.ndarray
    odd: np.ndarray
    arrival: int

    @property
    def hours(self) -> np.ndarray:
        """The hour of each row since 1970."""
        return self.time // np.uint64(HOUR_MS)

    @property
    def bounds(self) -> tuple[int, int]:
        """The first hour and the last one."""
        return int(self.time.min()) // HOUR_MS, int(self.time.max()) // HOUR_MS

    def arrive(self, rows: np.ndarray) -> None:
        """The time of these rows is their arrival."""
        own = self.start == self.time
        self.time = np.where(rows, np.uint64(self.arrival), self.time)
        self.start = np.where(rows & own, self.time, self.start)
        self.odd = self.odd | rows


def times(batch: Batch, find: Find, retain: float | None) -> Times:
    """The times of a batch; `retain` in seconds, None for rows that are kept forever."""
    arrival = min(max(int(batch.now * 1000), 0), LAST_MS)
    end = find(batch, END)
    odd = _odd(end, batch.n, arrival, retain)
    time = np.full(batch.n, arrival, np.uint64)
    if end is not None and not odd.all():
        time = np.where(odd, time, end.numbers.astype(np.uint64))
    start = find(batch, START)
    begun = time if start is None else start.filled(time).astype(np.uint64)
    return Times(time, begun, odd, arrival)


def _odd(end: Found | None, n: int, arrival: int, retain: float | None) -> np.ndarray:
    """A mask of the rows without an end, or with one far from their arrival."""
    if end is None:
        return np.ones(n, bool)
    odd = end.numbers > np.uint64(min(arrival + AHEAD_MS, LAST_MS))
    if retain is not None:
        odd |= end.numbers < np.uint64(max(arrival - int(retain * 1000), 0))
    return odd if end.missing is None else odd | end.missing


def few_hours(found: list[Times]) -> None:
    """Let rows arrive that lie outside the `MOST_HOURS` hours with the most rows of a write."""
    bounds = [times.bounds for times in found]
    if max(last for _, last in bounds) - min(first for first, _ in bounds) < MOST_HOURS:
        return
    hours, counts = np.unique(np.concatenate([times.hours for times in found]), return_counts=True)
    if len(hours) <= MOST_HOURS:
        return
    kept = hours[np.argsort(counts, kind="stable")[-(MOST_HOURS - 1) :]]
    for times in found:
        times.arrive(~np.isin(times.hours, kept))
