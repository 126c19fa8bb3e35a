"""What an AGGREGATE hands on: whole tables, which become batches and go out in slices."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.keys import Key
from ulogd_tw.plugins.filters.busiest import busiest
from ulogd_tw.plugins.filters.tally import Tally

if TYPE_CHECKING:
    from ulogd_tw.plugins.filters.aggregate import AGGREGATE

INTERVAL_START = Key("interval_start", types.SECONDS, unit="seconds")
EMITTED_AT_ONCE = 16384
"""Rows handed on in one turn of the reactor, so that a million of them do not stop it."""


class Leaving:
    """Tables of one instance that wait to go out, oldest first."""

    def __init__(self, plugin: AGGREGATE) -> None:
        self._plugin = plugin
        self._tallies: deque[tuple[Tally, float]] = deque()
        self._batches: deque[Batch] = deque()

    def __bool__(self) -> bool:
        return bool(self._batches or self._tallies)

    def __iter__(self) -> Iterator[tuple[Tally, float]]:
        return iter(self._tallies)

    @property
    def rows(self) -> int:
        """How many rows wait, at most."""
        return sum(len(tally) for tally, _ in self._tallies) + sum(batch.n for batch in self._batches)

    def add(self, tally: Tally, now: float | None) -> None:
        """Hand on a table; `now` is the clock of its batches, None: the start of its interval."""
        self._tallies.append((tally, float(tally.start) if now is None else now))

    def prepare(self) -> None:
        """Move a slice of the first table that has entries to be moved, while nothing may be emitted."""
        next((tally.move() for tally, _ in self._tallies if tally.unmoved), None)

    def send(self, all_: bool = False) -> None:
        """Emit a slice, or all of it. What comes first may have entries that still have to be moved."""
        while self:
            if not self._batches:
                tally = self._tallies[0][0]
                while tally.unmoved:
                    tally.move()
                    if not all_:
                        return
                self._open()
                continue
            batch = self._batches.popleft()
            part = batch if all_ or batch.n <= EMITTED_AT_ONCE else batch.take(slice(0, EMITTED_AT_ONCE))
            if part.n < batch.n:
                self._batches.appendleft(batch.take(slice(part.n, batch.n)))
            self._plugin.emit(part)
            if not all_:
                return

    def _open(self) -> None:
        """Make batches of the first table."""
        tally, now = self._tallies.popleft()
        plugin, config = self._plugin, self._plugin.config
        plugin.emitted(tally)
        batches = list(tally.batches(INTERVAL_START, now))
        if config.top and batches:
            batches = busiest(batches, config.by, config.top)
        self._batches.extend(batches)
