"""Flows that last through several intervals: a row for each of them, with its part of the counters.

A counter is divided by time, as if octets had come evenly; the parts of a flow add up to the whole.
"""

from __future__ import annotations

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import numbers
from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Found

BEFORE, UNTIL, WHOLE = (Key(f"spread.{name}", types.UNSIGNED64) for name in ("before", "until", "whole"))
"""How much of a flow's time is over when an interval begins and when it ends, and all of it, in equal units."""
ENDS = Key("spread.ends", types.BOOLEAN)
"""Whether the flow ends in an interval."""
MOST_INTERVALS = 1440
"""Of one flow: of a longer one the time before the last of them is in the first of them."""
AHEAD_MS = 86_400_000
"""How far the end of a flow may be after its arrival. Stores of flows have the same bound."""
_MOST_UNITS = 1 << 32
"""Of a flow's time, so that products stay below 64 bits."""


def by_flow_time(batch: Batch, start: Found | None, end: Found, now: int, interval: int) -> tuple[Batch, np.ndarray]:
    """The rows, with `start` one for each interval of a flow, and where the interval of each row begins, in seconds.

    A flow without an end counts as one that ended `now`, and so does one that ends more than a day later, as in a store
    of flows: its interval would stay open until then.
    """
    length = interval * 1000
    ends = end.filled(now * 1000)
    ends = np.where(ends > np.uint64(now * 1000 + AHEAD_MS), np.uint64(now * 1000), ends)
    if start is None:
        return batch, (ends // np.uint64(length) * np.uint64(length) // np.uint64(1000)).astype(np.int64)
    missing = [found.missing for found in (start, end) if found.missing is not None]
    starts = np.where(np.logical_or.reduce(missing), ends, start.numbers) if missing else start.numbers
    batch, begins = spread(batch, starts, ends, length)
    return batch, begins // 1000


def spread(batch: Batch, start: np.ndarray, end: np.ndarray, length: int) -> tuple[Batch, np.ndarray]:
    """A row for each interval that a flow touches, and where these begin.

    `start` and `end` are milliseconds, `length` those of an interval. A flow that ends before it starts is in the
    interval of its end.
    """
    start = np.minimum(start, end).astype(np.int64)
    end = end.astype(np.int64)
    last = end // length
    first = np.maximum(start // length, last - (MOST_INTERVALS - 1))
    count = last - first + 1
    if (count == 1).all():
        return batch, last * length
    rows = np.repeat(np.arange(batch.n), count)
    place = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    begins = (np.repeat(first, count) + place) * length
    whole = end - start + 1
    starts = start[rows]
    before = np.where(place == 0, 0, begins - starts)
    until = np.where(place == count[rows] - 1, whole[rows], begins + length - starts)
    shift = 0
    while int(whole.max()) >> shift >= _MOST_UNITS:
        shift += 1
    before, until, all_ = ((column >> shift).astype(np.uint64) for column in (before, until, whole[rows]))
    all_ = np.maximum(all_, np.uint64(1))
    ends = place == count[rows] - 1
    units = {BEFORE: before, UNTIL: np.where(ends, all_, until), WHOLE: all_, ENDS: ends}
    return batch.take(rows).with_columns(units), begins


def share(batch: Batch, values: np.ndarray) -> np.ndarray:
    """The parts of these counters that belong to the intervals of the rows."""
    if WHOLE.name not in batch.columns:
        return values
    whole = batch.columns[WHOLE.name]
    each, rest = values // whole, values % whole
    before, until = batch.columns[BEFORE.name], batch.columns[UNTIL.name]
    return (each * until + rest * until // whole) - (each * before + rest * before // whole)


def ending(batch: Batch) -> np.ndarray | None:
    """The rows with the last interval of their flow, which count it; None where all are."""
    ends = batch.columns.get(ENDS.name)
    return None if ends is None else numbers(ends)


def ended(batch: Batch) -> int:
    """How many flows these rows count as."""
    ends = ending(batch)
    return batch.n if ends is None else int(np.count_nonzero(ends))
