"""The aggregation process of one instance (RFC 7015): rows come in, groups go out interval by interval.

A row passes these steps: its totals become differences (`total_counters`), its span is found (`spans`), its interval is
found (`clock`), it is added to a table (`open_intervals`). Finished tables go through the window to the emission queue
(`emission`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ulogd_tw.aggregation.checkpoints import Checkpoints
from ulogd_tw.aggregation.clock import IntervalClock
from ulogd_tw.aggregation.emission import EmissionQueue
from ulogd_tw.aggregation.expiry import Expiry
from ulogd_tw.aggregation.group_table import MemoryPool
from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.open_intervals import OpenIntervals
from ulogd_tw.aggregation.parts import Part
from ulogd_tw.aggregation.settings import Settings
from ulogd_tw.aggregation.state_file import Snapshot, copied, described
from ulogd_tw.aggregation.summing import Summing
from ulogd_tw.aggregation.total_counters import KINDS
from ulogd_tw.aggregation.uncounted import Uncounted
from ulogd_tw.aggregation.window import Window
from ulogd_tw.core.amounts import Amounts
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.resolve import Find


class AggregationProcess:
    """Adds up batches by `settings`; `find` gives their columns.

    Batches of the columns that `wanted` names go to `emit`. All times are seconds since 1970.
    """

    def __init__(
        self,
        instance: str,
        settings: Settings,
        find: Find,
        counters: Counters,
        emit: Callable[[Batch], None],
        wanted: Callable[[Settings], frozenset[str]],
    ) -> None:
        self.settings = settings
        self.counters = counters
        amounts = Amounts(find)
        self._summing = Summing(find, amounts, counters, bool(settings.age))
        self._pool = MemoryPool()
        kind = KINDS.get(settings.totals)
        self._totals = None if kind is None else kind(find, amounts, settings.max_keys)
        self._uncounted = Uncounted(instance, find, amounts, counters)
        by_itself = settings.age or settings.change
        self._expiry = (
            Expiry(find, settings.key, settings.age, settings.change, settings.max_keys) if by_itself else None
        )
        self._clock = IntervalClock(find, settings.interval, settings.time, settings.lateness)
        self.intervals = OpenIntervals(self.new_table, settings.max_keys, settings.overflow)
        self.window = Window(settings.interval, settings.window, self.new_table) if settings.window else None
        self.queue = EmissionQueue(emit, wanted, self._emitted)
        self.checkpoints: Checkpoints | None = None
        self.closed = 0
        """Intervals that began before were handed on."""
        self._now = 0.0
        self._taken = False
        """Whether it has the intervals of a predecessor in this process."""
        self._add_figures()

    def _add_figures(self) -> None:
        figures = self.counters.figures
        figures["keys"] = lambda: sum(len(table) for table in [*self.intervals, *self.panes])
        figures["memory_octets"] = self._memory
        totals = self._totals
        if totals is not None:
            figures["rows_joined"] = lambda: totals.joined
            figures["totals_assumed"] = lambda: totals.assumed

    def new_table(self, start: int, settings: Settings | None = None) -> IntervalTable:
        """An empty table of the interval that begins then; with other `settings` one for groups of an earlier run."""
        return IntervalTable(start, settings or self.settings, self._summing, self._pool)

    @property
    def panes(self) -> list[IntervalTable]:
        """Intervals that are over and part of a window still to come."""
        return [] if self.window is None else self.window.panes

    def tables(self) -> list[IntervalTable]:
        """All tables, including those under emission."""
        return [*self.intervals, *self.panes, *(table for table, _ in self.queue)]

    def starts(self) -> list[int]:
        """The begins of all intervals of which rows are here, in seconds."""
        return [*self.queue.starts, *(table.start for table in [*self.intervals, *self.panes, *self.intervals.outs])]

    def _memory(self) -> int:
        """Octets of memory in use."""
        totals = 0 if self._totals is None else self._totals.nbytes
        return totals + sum(table.nbytes for table in self.tables())

    @property
    def holds(self) -> bool:
        """Whether there are rows in it."""
        return bool(self.intervals or self.queue or self.intervals.relocation is not None)

    # rows in

    def add(self, batch: Batch) -> None:
        """Add the rows up."""
        self._now = batch.now
        self._uncounted.look(batch)
        if self._totals is not None:
            batch = self._totals.differenced(batch)
        if self._expiry is not None:
            self._expire(batch.now)
            batch = self._expiry.spanned(batch)
        if self.settings.age:
            self._add(0, batch)
            return
        if not self._clock.by_flow:
            self._close(self._clock.over(batch.now))
        for start, part in self._clock.parts(batch):
            if start < self.closed:
                self.counters.figures["rows_late"] += part.n
            self._add(start, part)
        if self._clock.by_flow:
            self._close(self._clock.over(batch.now))

    def merge(self, part: Part) -> None:
        """Add what another process has added up, by `AddingProcess` with the same settings."""
        self._now = max(self._now, part.now)
        if part.start < self.closed:
            self.counters.figures["rows_late"] += part.flows
        self.intervals.merge(part)
        if self.intervals.outs:
            self._hand_on(part.now)

    def _add(self, start: int, batch: Batch) -> None:
        """Add rows to their interval, and hand on the tables that make room for them."""
        self.intervals.add(start, batch)
        if self.intervals.outs:
            self._hand_on(batch.now)

    def _expire(self, now: float) -> None:
        """Let groups go out whose time has come."""
        if self._expiry is not None and self.intervals.relocation is None:
            self.intervals.relocation = self._expiry.poll(list(self.intervals), now)
        self._relocate(now)

    def _relocate(self, now: float) -> None:
        """Move a slice of the groups, and emit those that leave."""
        self.intervals.relocate()
        self._hand_on(now)

    def _hand_on(self, now: float) -> None:
        """Hand on the tables that go out before their time."""
        for table in self.intervals.take_outs():
            self.queue.add(table, now)
        self._bound()

    # rows out

    def _close(self, until: int, now: float | None = None) -> None:
        """Emit all intervals that began before `until`, or the windows that end until then."""
        for table in self.intervals.close(until):
            if self.window is None:
                self.queue.add(table, now)
            else:
                self.window.add(table)
        if self.window is not None:
            for whole in self.window.until(self.closed, until):
                self.queue.add(whole, now)
        self.closed = max(self.closed, until)
        self._bound()

    def _close_all(self) -> None:
        """Hand on everything: there will be no rows."""
        if self.settings.age:
            for table in self.intervals.close():
                self.queue.add(table, self._now)
        elif self.intervals:
            self._close(max(self.intervals.tables) + self.settings.interval)

    def _bound(self) -> None:
        intervals = max(self.settings.window // self.settings.interval, 1)
        if self.queue and self.queue.rows > self.settings.max_keys * intervals:
            self.queue.send(all_=True)  # the outputs below count rows without room; nothing here grows without bound

    def _finish_moving(self) -> None:
        """Move all groups that still have to be moved."""
        self.intervals.finish()
        self._hand_on(self._now)

    def end(self) -> None:
        """Hand on everything, as no row will come."""
        self._finish_moving()
        self._close_all()

    def flush(self) -> None:
        """Emit everything; with a state file write open intervals there instead."""
        self._finish_moving()
        if self.checkpoints is not None:
            self.queue.send(all_=True)
            snapshot = self.snapshot()
            if snapshot is not None and self.checkpoints.save(snapshot):
                self.intervals.close()
                return
        self._close_all()
        self.queue.send(all_=True)
        if self.checkpoints is not None:  # what an earlier writing holds is emitted now
            self.checkpoints.discard()

    def hand_on(self) -> None:
        """Emit everything, and leave nothing in a state file."""
        self._finish_moving()
        self._close_all()
        self.queue.send(all_=True)
        if self.checkpoints is not None:
            self.checkpoints.discard()

    def wake(self, now: float | None, paused: bool) -> float:
        """Close finished intervals and emit a slice; returns seconds until the next call.

        `now` is None for a replayed file: its rows close intervals themselves. While `paused` nothing is emitted.
        """
        if now is not None and not self.settings.age:
            self._close_over(now)
        if now is not None and self._expiry is not None and self.intervals.relocation is None:
            self._now = now
            self._expire(now)
        else:
            self._relocate(self._now)
        if paused:
            self.queue.prepare()
        else:
            self.queue.send()
        if self.queue:
            return 0.05 if paused else 0.0
        if self.intervals.relocation is not None:
            return 0.0
        return 1.0 if now is None else min(self._clock.next(now), 1.0) + 0.001

    def _close_over(self, now: float) -> None:
        """Close intervals whose time is over."""
        until = self._clock.over(now)
        over = any(table.start < until for table in self.intervals)
        if over or self.panes and until > self.closed:
            self._close(until, now)

    def clock_set(self, now: float) -> None:
        """The wall clock was set to `now`: groups that would wait for a time far ahead are emitted at once."""
        if self.checkpoints is not None:
            self.checkpoints.clock_set()
        if self._expiry is not None:
            self._expiry.clock_set()
        until = self._clock.over(now)
        starts = [table.start for table in [*self.intervals, *self.panes]]
        if self.settings.age:
            self._finish_moving()
            self._close_all()
        elif until < self.closed or any(start > now for start in starts):
            self._finish_moving()
            if starts:
                self._close(max(starts) + max(self.settings.interval, self.settings.window))
            self.closed = until

    def peek(self, names: frozenset[str]) -> Iterator[Batch]:
        """The present groups of all open intervals, and of a window's, in slices.

        Groups are not moved meanwhile, unless new ones need their room: such groups can come twice.
        """
        self.intervals.readers += 1
        try:
            for table in [*self.panes, *self.intervals]:
                yield from table.peek(float(table.start), names)
        finally:
            self.intervals.readers -= 1

    # state

    def restore(self, checkpoints: Checkpoints) -> None:
        """Continue with the groups of a state file, and save there from now on. Raises `StartError`.

        Groups of other settings are emitted next. After `take` the file has nothing new.
        """
        self.checkpoints = checkpoints
        if self._taken:
            checkpoints.take()
            return
        found = checkpoints.open(self.new_table)
        if found.former is None:
            self._go_on(found)
        else:
            self._let_go(found)

    def give(self) -> tuple[dict[str, Any], Snapshot] | None:
        """The open intervals for `take` of another process of the same settings; finished ones are emitted."""
        self._finish_moving()
        self.queue.send(all_=True)
        snapshot = self.snapshot()
        return None if snapshot is None else (described(self.settings), snapshot)

    def take(self, state: tuple[dict[str, Any], Snapshot]) -> bool:
        """Go on with open intervals from `give`; False where they are of other settings, or do not fit."""
        settings, snapshot = state
        if settings != described(self.settings) or snapshot.groups > self.settings.max_keys:
            return False
        tables = [(copied(table, self.new_table), now) for table, now in snapshot.tables]
        self._go_on(Snapshot(tables, snapshot.closed))
        self._taken = True
        return True

    def _let_go(self, snapshot: Snapshot) -> None:
        """Emit groups of other settings; a pane that was part of a window has been emitted with it."""
        for table, now in snapshot.tables:
            if now is None and table.settings.window and table.start < snapshot.closed:
                continue
            self.queue.add(table, now if now is not None else table.clock)

    def _go_on(self, snapshot: Snapshot) -> None:
        self.closed = snapshot.closed
        for table, now in snapshot.tables:
            if now is not None or table.start in self.intervals.tables:
                self.queue.add(table, now)
            elif self.window is not None and table.start < self.closed:
                self.window.add(table)
            else:
                self.intervals.tables[table.start] = table

    def snapshot(self) -> Snapshot | None:
        """The contents for a state file; None while entries of a table are moved, or groups of other settings go."""
        if self.intervals.relocation is not None:
            return None
        if any(table.unmoved or table.settings is not self.settings for table, _ in self.queue):
            return None
        tables: list[tuple[IntervalTable, float | None]] = [(table, None) for table in [*self.panes, *self.intervals]]
        return Snapshot([*tables, *self.queue], self.closed)

    def checkpoint(self, now: float) -> None:
        """Write the state file when it is time."""
        if self.checkpoints is not None:
            self.checkpoints.wake(now, self.snapshot)

    def _emitted(self, table: IntervalTable) -> None:
        """The rows of this table are handed on now."""
        if self.checkpoints is not None:
            self.checkpoints.emitted(table, self.closed)

    def stop(self) -> Any:
        """Let go of the state file; a Deferred where that takes time."""
        return None if self.checkpoints is None else self.checkpoints.close()
