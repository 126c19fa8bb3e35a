"""The emission of an AGGREGATE: whole tables become batches and go out in slices."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.settings import Settings
from ulogd_tw.aggregation.top import TopGroups
from ulogd_tw.core.batch import Batch

EMITTED_AT_ONCE = 16384
"""Rows handed on in one turn of the reactor, so that a million of them do not stop it."""


class EmissionQueue:
    """Tables waiting for emission, oldest first.

    `emit` gets batches of the columns `wanted` at that time of tables with these settings; for each interval only the
    groups of the option `top`. `before` is called with a table before its first row goes out.
    """

    def __init__(
        self,
        emit: Callable[[Batch], None],
        wanted: Callable[[Settings], frozenset[str]],
        before: Callable[[IntervalTable], None],
    ) -> None:
        self._emit = emit
        self._wanted = wanted
        self._before = before
        self._tables: deque[tuple[IntervalTable, float]] = deque()
        self._going: tuple[IntervalTable, Iterator[Batch | None]] | None = None

    def __bool__(self) -> bool:
        return bool(self._going or self._tables)

    def __iter__(self) -> Iterator[tuple[IntervalTable, float]]:
        """The tables of which no row has gone out yet, with the clock of their batches."""
        return iter(self._tables)

    @property
    def starts(self) -> list[int]:
        """The begins of the intervals of which not all rows have gone out."""
        return [table.start for table in ([self._going[0]] if self._going else []) + [table for table, _ in self]]

    @property
    def rows(self) -> int:
        """How many rows wait, at most."""
        return sum(len(table) for table, _ in self._tables) + (len(self._going[0]) if self._going else 0)

    def add(self, table: IntervalTable, now: float | None = None) -> None:
        """Hand on a table; `now` is the clock of its batches, None: the start of its interval."""
        self._tables.append((table, float(table.start) if now is None else now))

    def prepare(self) -> None:
        """Move a slice of the first table that has entries to be moved, while nothing may be emitted."""
        next((table.move() for table, _ in self._tables if table.unmoved), None)

    def send(self, all_: bool = False) -> None:
        """Emit a slice, or all of it. The first table may have entries that still have to be moved."""
        while self:
            if self._going is not None:
                self._send_slice(self._going[1])
            elif self._tables[0][0].unmoved:
                self._tables[0][0].move()
            else:
                table, now = self._tables.popleft()
                self._before(table)
                self._going = table, self._batches(table, now)
                continue
            if not all_:
                return

    def _send_slice(self, batches: Iterator[Batch | None]) -> None:
        for batch in batches:
            if batch is not None:
                self._emit(batch)
            return
        self._going = None

    def _batches(self, table: IntervalTable, now: float) -> Iterator[Batch | None]:
        """The batches of a table, with None for a pause."""
        settings = table.settings
        slices = table.batches(now, EMITTED_AT_ONCE, self._wanted(settings))
        if not settings.top:
            yield from slices
            return
        largest = TopGroups(settings.by, settings.top)
        for batch in slices:
            largest.add(batch)
            yield None
        yield from largest.batches()
