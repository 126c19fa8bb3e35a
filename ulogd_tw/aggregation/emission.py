"""What an AGGREGATE hands on: whole tables, which become batches and go out in slices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.top import TopGroups
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.keys import Key

if TYPE_CHECKING:
    from ulogd_tw.plugins.filters.aggregate import AGGREGATE

INTERVAL_START = Key("interval_start", types.SECONDS, unit="seconds")
EMITTED_AT_ONCE = 16384
"""Rows handed on in one turn of the reactor, so that a million of them do not stop it."""
_END = object()


class EmissionQueue:
    """Tables of one instance that wait to go out, oldest first."""

    def __init__(self, plugin: AGGREGATE) -> None:
        self._plugin = plugin
        self._tallies: deque[tuple[IntervalTable, float]] = deque()
        self._going: tuple[IntervalTable, Iterator[Batch | None]] | None = None

    def __bool__(self) -> bool:
        return bool(self._going or self._tallies)

    def __iter__(self) -> Iterator[tuple[IntervalTable, float]]:
        """Those of which no row has gone out yet, with the clock of their batches."""
        return iter(self._tallies)

    @property
    def rows(self) -> int:
        """How many rows wait, at most."""
        return sum(len(tally) for tally, _ in self._tallies) + (len(self._going[0]) if self._going else 0)

    def add(self, tally: IntervalTable, now: float | None) -> None:
        """Hand on a table; `now` is the clock of its batches, None: the start of its interval."""
        self._tallies.append((tally, float(tally.start) if now is None else now))

    def prepare(self) -> None:
        """Move a slice of the first table that has entries to be moved, while nothing may be emitted."""
        next((tally.move() for tally, _ in self._tallies if tally.unmoved), None)

    def send(self, all_: bool = False) -> None:
        """Emit a slice, or all of it. What comes first may have entries that still have to be moved."""
        while self:
            if self._going is not None:
                self._send_slice()
            elif self._tallies[0][0].unmoved:
                self._tallies[0][0].move()
            else:
                tally, now = self._tallies.popleft()
                self._plugin.emitted(tally)
                self._going = tally, self._batches(tally, now)
                continue
            if not all_:
                return

    def _send_slice(self) -> None:
        batch = next(self._going[1], _END)
        if batch is _END:
            self._going = None
        elif batch is not None:
            self._plugin.emit(batch)

    def _batches(self, tally: IntervalTable, now: float) -> Iterator[Batch | None]:
        """What goes out of a table, with None where nothing does yet."""
        slices = tally.batches(INTERVAL_START, now, EMITTED_AT_ONCE)
        top = self._plugin.config.top
        if not top:
            yield from slices
            return
        busiest = TopGroups(self._plugin.config.by, top)
        for batch in slices:
            busiest.add(batch)
            yield None
        yield from busiest.batches()
