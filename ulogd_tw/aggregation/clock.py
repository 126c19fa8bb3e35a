"""Assigns the rows of an AGGREGATE to intervals, and finds intervals that are over."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ulogd_tw.aggregation.flow_time import by_flow_time
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.resolve import Find


class IntervalClock:
    """Intervals of so many seconds, which begin at multiples of it in UTC.

    `time` is that option: rows go by their arrival, by the end of their flow, or are spread over its time; by the
    latter two an interval stays open for `lateness` seconds.
    """

    def __init__(self, find: Find, interval: int, time: str, lateness: int) -> None:
        self._find = find
        self._interval = interval
        self._spread = time == "spread"
        self.by_flow = time != "arrival"
        self._late = lateness if self.by_flow else 0

    def over(self, now: float) -> int:
        """Intervals that begin before this time are over, seconds since 1970."""
        return int(now - self._late) // self._interval * self._interval

    def next(self, now: float) -> float:
        """Seconds until the next interval is over."""
        return self._interval - (now - self._late) % self._interval

    def parts(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        """The batch in parts, each with the start of its interval."""
        now = int(batch.now) // self._interval * self._interval
        end = self._find(batch, "flowEndMilliseconds") if self.by_flow else None
        if end is None:
            yield now, batch
            return
        start = self._find(batch, "flowStartMilliseconds") if self._spread else None
        batch, starts = by_flow_time(batch, start, end, now, self._interval)
        different = np.unique(starts)
        for begin in different.tolist():
            yield begin, batch if len(different) == 1 else batch.take(starts == begin)
