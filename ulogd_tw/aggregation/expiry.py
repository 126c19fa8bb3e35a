"""When groups of an AGGREGATE go out by themselves: at an age, or when a key of them has changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ulogd_tw.aggregation.group_table import SPAN
from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.relocation import Leave
from ulogd_tw.aggregation.spans import Spans
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.resolve import Find

_LOOKS = 8
"""In the time of an age."""
_SECONDS_A_KEY = 3e-6
"""Between two looks because of changes, so that they take a twentieth of a core at most."""


class Expiry:
    """Groups go out `age` seconds after their first row (0: never), or when the key `change` has another value.

    `find` gives the columns of the keys `keys` of a group; spans of at most `max_keys` groups are followed. Every
    eighth of `age`, or each second, all groups are gone through where some have to go.
    """

    def __init__(self, find: Find, keys: Sequence[str], age: float, change: str, max_keys: int) -> None:
        self._find = find
        self._age = age
        self._due: float | None = None
        self._change = change
        self._others = [name for name in keys if name != change]
        self._spans = Spans(max_keys) if change else None

    def spanned(self, batch: Batch) -> Batch:
        """The batch with the span of each row, where it is asked for."""
        if self._spans is None:
            return batch
        group = [self._find(batch, name) for name in self._others]
        return batch.with_columns({SPAN: self._spans.of(group, self._find(batch, self._change), batch.n)})

    def clock_set(self) -> None:
        """The clock was set: the next look is at once."""
        self._due = None

    def poll(self, tables: Sequence[IntervalTable], now: float) -> Leave[IntervalTable] | None:
        """The pass in which groups go out, if it is time for one; `now` in seconds since 1970."""
        keys = sum(map(len, tables))
        every = self._age / _LOOKS if self._age else max(1.0, keys * _SECONDS_A_KEY)
        if self._due is not None and now < self._due:
            return None
        self._due = now + every
        limit = int((now - self._age + every) * 1000) if self._age else None
        ended = self._spans is not None and self._spans.any_ended
        if not keys or not ended and (limit is None or all(table.born_after(limit) for table in tables)):
            return None
        return Leave(tables, limit, self._ended())

    def _ended(self) -> np.ndarray:
        return np.zeros(0, np.uint64) if self._spans is None else self._spans.ended()
