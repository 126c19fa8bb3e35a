"""AGGREGATE: rows of equal keys added up in memory, one row a key and interval."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ulogd_tw.aggregation import derived_keys, expiry, functions, top
from ulogd_tw.aggregation.checkpoints import Checkpoints
from ulogd_tw.aggregation.counts import AGGREGATION
from ulogd_tw.aggregation.emission import INTERVAL_START, EmissionQueue
from ulogd_tw.aggregation.flow_time import by_flow_time
from ulogd_tw.aggregation.group_table import SPAN, VALUES, MemoryPool
from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.relocation import Evict, Fold, Overflow, Relocation
from ulogd_tw.aggregation.total_counters import ASKS, Totals
from ulogd_tw.aggregation.window import Window
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.flow_rows import only_ends
from ulogd_tw.core.keys import FIVE_TUPLE, Key, known, nearest, registry
from ulogd_tw.core.options import Option, number, one_of, positive, seconds, text, whole_seconds
from ulogd_tw.core.plugin import FLOW, PACKET, Aggregator, Wanted
from ulogd_tw.core.resolve import Found

_MAKES_ROOM = {Overflow.FOLD: Fold, Overflow.EVICT: Evict}


class AGGREGATE(Aggregator):
    """Adds up flows with equal keys: octets, packets, flows, first start and last end, one row a key and interval.

    Octets are octetDeltaCount, else octetTotalCount of final records, else NULL; packets alike. A row that lacks a
    key groups under NULL. Conntrack rows other than the end of a flow, and options records, are filtered out.
    """

    name = "AGGREGATE"
    itype = FLOW | PACKET
    otype = FLOW
    counts = AGGREGATION
    options = (
        Option("key", text, "5tuple", "names of the keys that make a group, with commas; behind an address "
               "may stand a prefix, sourceAddress/24:48 (IPv6 behind the colon), and behind a number or time what it "
               "is rounded down to multiples of, sourceTransportPort/1024; 5tuple: " + ",".join(FIVE_TUPLE)),
        Option("functions", text, "", "further columns, each NAME=FUNCTION(KEY): sum, count, min, max, first, last, "
               "or (of bits), mean, distinct (how many values, to 6.5 %) and quantile(KEY,0.95) (to 4.4 %); without a "
               "NAME it is FUNCTION_KEY"),
        Option("top", number, 0, "groups of an interval that are handed on at most, those with the greatest value of "
               "by; all others become one row without keys, so that sums stay right. 0: all groups"),
        Option("by", text, "octets", "the column that top looks at: flows, packets, octets, or one of functions"),
        Option("max_sketches", positive, 16384, "groups of an interval that have a distinct or quantile, the first "
               "ones: 256 octets and 2 kB each; others have none"),
        Option("interval", whole_seconds, 60, "seconds; intervals begin at multiples of it in UTC"),
        Option("time", one_of("arrival", "flow", "spread"), "arrival", "what puts a row into an interval: when it "
               "arrived, or when its flow ended; spread: octets and packets are divided among all intervals of the "
               "flow's time, and flows and functions count in the last one"),
        Option("lateness", positive, 60, "time=flow and time=spread: seconds for which an interval stays open after "
               "its end"),
        Option("window", number, 0, "seconds, a multiple of interval: each row has the sums of so long a time, and at "
               "the end of each interval there is one; interval_start is that of the window. 0: of the interval alone"),
        Option("age", seconds, 0, "time after its first row when a group goes out at the latest, instead of "
               "intervals; interval_start is when that row came. 0: there are intervals"),
        Option("change", text, "", "one of the keys of key: when a row has another value of it than the last one of "
               "the same other keys, the group with the former value goes out, and a return to it is a new group"),
        Option("totals", one_of("last", "difference"), "last", "of records that have octetTotalCount and no "
               "octetDeltaCount, packets alike; last: what the last record of a flow says is added; difference: what "
               "each record says more than the one before it, for which the last totals of max_keys flows are kept"),
        Option("max_keys", positive, 1_000_000, "keys kept at most, over all open intervals"),
        Option("overflow", one_of("emit", "other", "refuse", "fold", "evict"), "emit", "what a new key beyond max_keys "
               "does: emit the table early (then a key can have several rows an interval; with window as fold), count "
               "under NULL keys (other), be refused, or make room: half of the groups, those with fewest octets, "
               "count under NULL keys (fold), or those whose last flow ended longest ago go out (evict)"),
        Option("state_file", text, "", "file in which open intervals are kept over a restart, instead of being emitted "
               "early at the stop; of an instance that stands in several stacks the second has #2 behind the name"),
        Option("checkpoint", seconds, 60, "time between two writings of state_file: a crash costs at most so much; 0: "
               "it is written at the stop only"),
    )  # fmt: skip
    may_use = ("octetDeltaCount", "octetTotalCount", "packetDeltaCount", "packetTotalCount", "reverseOctetDeltaCount",
               "reverseOctetTotalCount", "reversePacketDeltaCount", "reversePacketTotalCount", "flowEndReason",
               "flowStartMilliseconds", "flowEndMilliseconds", "ct.event", "record_kind")  # fmt: skip

    def __init__(self, instance: str, config=None) -> None:
        super().__init__(instance, config)
        chosen = self.config.key.replace("5tuple", ",".join(FIVE_TUPLE))
        self.key_names = tuple(dict.fromkeys(name.strip() for name in chosen.split(",") if name.strip()))
        self._mistakes: list[tuple[str, str]] = []
        self._derived = {
            name: found for name in self.key_names if (found := self._read("key", derived_keys.parse, name))
        }
        self.wishes = self._read("functions", functions.parse, self.config.functions) or []
        self._open: dict[int, IntervalTable] = {}
        self.closed = 0
        self.spares = MemoryPool()
        self._leaving = EmissionQueue(self)
        self._moving: Relocation | None = None
        self._window = Window(self) if self.config.window else None
        self._departures = expiry.Expiry(self) if self.config.age or self.config.change else None
        self._totals = Totals(self.find, self.config.max_keys) if self.config.totals == "difference" else None
        self._overflow = Overflow(self.config.overflow)
        if self._window is not None and self._overflow is Overflow.EMIT:
            self._overflow = Overflow.FOLD
        self._state: Checkpoints | None = None
        self._now = 0.0
        self._paused = False
        self._asked = 0
        self._expected: dict[object, int] = {}
        self.counters.figures["keys"] = lambda: sum(len(tally) for tally in [*self._open.values(), *self._panes])
        self.counters.figures["memory_octets"] = lambda: sum(part.nbytes for part in self._held)
        if self._totals is not None:
            self.counters.figures["rows_joined"] = lambda: self._totals.joined

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not self.key_names:
            yield "key", "names no key"
        for name in self.key_names:
            base = name.partition("/")[0]
            if known(base.partition("@")[0]) is None:
                near = nearest(base, registry.names())
                yield "key", f"nobody knows the key {base}" + (f"; did you mean {near}?" if near else "")
        yield from (m for m in self._mistakes if m[0] != "key" or known(m[1].partition("/")[0].partition("@")[0]))
        ranking = [key.name for key in (*VALUES, *(wish.key for wish in self.wishes)) if key.type.numeric]
        if self.config.by not in ranking:
            yield "by", f"{self.config.by} is none of {', '.join(ranking)}"
        if self.config.top < 0:
            yield "top", "must be 0 or more"
        yield from expiry.mistakes(self.config, self.key_names)
        taken = {*self.key_names, *(key.name for key in VALUES), INTERVAL_START.name}
        for wish in self.wishes:
            if wish.name in taken:
                yield "functions", f"{wish.name} is a column already; choose another name: NAME={wish.function}(...)"

    def keys(self) -> Iterable[Key]:
        named = [found.key for found in self._derived.values()]
        return (*named, *VALUES, *(wish.key for wish in self.wishes), INTERVAL_START)

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        needed = dict.fromkeys((found.base for found in self._derived.values()), True)
        needed |= {wish.of: True for wish in self.wishes if wish.name in wanted}
        may = (*self.may_use, *(ASKS if self._totals is not None else ()))
        return needed | {name: False for name in may if name not in needed}

    def find(self, batch: Batch, name: str) -> Found | None:
        if name == SPAN.name:
            return Found(batch.columns[name], None, SPAN)
        found = self._derived.get(name)
        return super().find(batch, name) if found is None else found.find(super().find, batch)

    def _read(self, option: str, parse: Callable[[str], Any], text: str) -> Any:
        """What a text of an option means; None, and a mistake noted, where it is wrong."""
        try:
            return parse(text)
        except ValueError as error:
            self._mistakes.append((option, str(error)))
            return None

    def open(self) -> None:
        if self.source is not None:
            self.source.seconds_apart = True
        if self.config.state_file:
            self._state = Checkpoints(self)
            restored, self.closed = self._state.open()
            for tally, now in restored:
                if now is not None or tally.start in self._open:
                    self._leaving.add(tally, now)
                elif self._window is not None and tally.start < self.closed:
                    self._window.add(tally)
                else:
                    self._open[tally.start] = tally

    def stop(self) -> Any:
        return None if self._state is None else self._state.close()

    # rows in

    def process(self, batch: Batch) -> None:
        batch = only_ends(self.counters, self.find, batch)
        if batch.n:
            self._now = batch.now
            if self._totals is not None:
                batch = self._totals.differenced(batch)
            if self._departures is not None:
                self._look(batch.now)
                batch = self._departures.spanned(batch)
            for start, part in self._by_interval(batch):
                self._add(start, part)

    def _by_interval(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        """The batch in parts, each with the start of its interval."""
        if self.config.age:
            yield 0, batch
            return
        now = int(batch.now) // self.config.interval * self.config.interval
        by_flow = self.config.time != "arrival"
        end = self.find(batch, "flowEndMilliseconds") if by_flow else None
        if end is None:
            if not by_flow:
                self._close(now)
            yield now, batch
            return
        start = self.find(batch, "flowStartMilliseconds") if self.config.time == "spread" else None
        batch, starts = by_flow_time(batch, start, end, now, self.config.interval)
        different = np.unique(starts)
        for start in different.tolist():
            part = batch if len(different) == 1 else batch.take(starts == start)
            if start < self.closed:
                self.counters.figures["rows_late"] += part.n
            yield start, part
        self._close(int(batch.now - self.config.lateness) // self.config.interval * self.config.interval)

    def _add(self, start: int, batch: Batch) -> None:
        """Merge rows into the tally of their interval, making room as `overflow` says."""
        while True:
            tally = self._open.get(start)
            if tally is None:
                tally = self._open[start] = self.new_tally(start)
            others = sum(t.keys for t in self._open.values()) - tally.keys
            left = tally.add(batch, self.config.max_keys - others)
            if left is not None and self._moving is None and self._overflow in _MAKES_ROOM:
                self._moving = _MAKES_ROOM[self._overflow](list(self._open.values()), self.config.max_keys)
            if self._moving is not None:
                self._go_on_moving(0 if left is None else left.n)
            if left is None:
                return
            if self._overflow is Overflow.EMIT:  # the rows that found no room begin a new table
                for early in sorted(self._open):
                    self._leaving.add(self._open.pop(early), batch.now)
            batch = left

    def new_tally(self, start: int) -> IntervalTable:
        """An empty one, of the interval that begins then."""
        return IntervalTable(self, self._overflow, self._expected, start)

    def _look(self, now: float) -> None:
        """Let groups go out whose time has come."""
        if self._moving is None:
            self._moving = self._departures.look(list(self._open.values()), now)
            if self._moving is not None:
                self._go_on_moving()

    def _go_on_moving(self, wanted: int = 0, anyway: bool = False) -> None:
        """Move a slice of the groups, or as much as makes room for so many; none while they are asked."""
        if self._asked and not anyway and self._keys() + wanted <= self.config.max_keys:
            return
        while self._moving.step() and self._keys() + wanted > self.config.max_keys:
            pass
        if self._moving.unmoved:
            return
        for out in (self._moving.outs or {}).values():
            self._leaving.add(out, self._now)
        self._moving = None
        self._bound()

    def _keys(self) -> int:
        return sum(tally.keys for tally in self._open.values())

    # rows out

    def _close(self, until: int, now: float | None = None) -> None:
        """Hand on all intervals that began before `until`, or the windows that end until then."""
        for start in sorted(s for s in self._open if s < until):
            tally = self._open.pop(start)
            if self._window is None:
                self._leaving.add(tally, now)
            else:
                self._window.add(tally)
        if self._window is not None:
            for whole in self._window.until(self.closed, until):
                self._leaving.add(whole, now)
        self.closed = max(self.closed, until)
        self._bound()

    def _close_all(self) -> None:
        """Hand on everything: there will be no rows."""
        if self.config.age:
            for start in list(self._open):
                self._leaving.add(self._open.pop(start), self._now)
        elif self._open:
            self._close(max(self._open) + self.config.interval)

    def _bound(self) -> None:
        intervals = max(self.config.window // self.config.interval, 1)
        if self._leaving.rows > self.config.max_keys * intervals:
            self._leaving.send(all_=True)  # what lies below counts what it cannot take; here nothing grows unbounded

    def emitted(self, tally: IntervalTable) -> None:
        """The rows of this table are handed on now."""
        if self._state is not None:
            self._state.emitted(tally)

    @property
    def columns(self) -> list[str]:
        """The names of the columns that `peek` can give."""
        return [key.name for key in self.keys()]

    @property
    def together(self) -> dict[str, str]:
        """The SQL function that makes one value of those of a group in several rows, by column that is no key."""
        wishes = {wish.name: functions.TOGETHER[wish.function] for wish in self.wishes}
        return dict.fromkeys(top.SUMS, "sum") | wishes

    def peek(self, names: frozenset[str]) -> Iterator[Batch]:
        """The groups of all open intervals, and of those of a window, as they are now, in slices.

        Groups are not moved meanwhile, but where new ones need their room: those can be told twice.
        """
        self._asked += 1
        try:
            for tally in [*self._panes, *(tally for _, tally in sorted(self._open.items()))]:
                yield from tally.peek(INTERVAL_START, float(tally.start), names)
        finally:
            self._asked -= 1

    @property
    def holds(self) -> bool:
        return bool(self._open or self._leaving or self._moving is not None)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def wake(self, now: float) -> float | None:
        """Close intervals whose time is over, and send a slice of what goes out.

        The rows of a file that is replayed close intervals themselves: what time it is now means nothing to them. At
        its end all intervals are over.
        """
        source = self.source
        if source is not None and source.own_clock:
            if source.at_end and self.holds:
                self._finish_moving()
                self._close_all()
        elif self.config.age == 0:
            self._close_over(now)
        if self._moving is not None:
            self._go_on_moving()
        elif self._departures is not None and (source is None or not source.own_clock):
            self._now = now
            self._look(now)
        if self._paused:
            self._leaving.prepare()
        else:
            self._leaving.send()
        if self._state is not None:
            self._state.wake(now)
        if self._leaving:
            return 0.05 if self._paused else 0.0
        if self._moving is not None:
            return 0.0
        return min(self.config.interval - (now - self._late) % self.config.interval, 1.0) + 0.001

    @property
    def _late(self) -> int:
        return self.config.lateness if self.config.time != "arrival" else 0

    def _close_over(self, now: float) -> None:
        """Close intervals whose time is over."""
        until = int(now - self._late) // self.config.interval * self.config.interval
        over = any(start < until for start in self._open)
        if over or self._panes and until > self.closed:
            self._close(until, now)

    def _finish_moving(self) -> None:
        while self._moving is not None:
            self._go_on_moving(anyway=True)

    @property
    def kept(self) -> tuple[list[tuple[IntervalTable, float | None]], int] | None:
        """What a state file has to have: tallies, with the clock of those that wait to go out, and what is closed.

        None while entries of a table are moved.
        """
        if self._moving is not None or any(tally.unmoved for tally, _ in self._leaving):
            return None
        return [*((tally, None) for tally in [*self._panes, *self._open.values()]), *self._leaving], self.closed

    @property
    def _panes(self) -> list[IntervalTable]:
        """Intervals that are over, of which a window still has to come."""
        return [] if self._window is None else self._window.panes

    @property
    def _held(self) -> Iterator[IntervalTable | Totals]:
        yield from self._open.values()
        yield from self._panes
        yield from (tally for tally, _ in self._leaving)
        if self._totals is not None:
            yield self._totals

    def flush(self) -> None:
        self._finish_moving()
        if self._state is not None:
            self._leaving.send(all_=True)
            if self._state.save():
                self._open = {}
                return
        self._close_all()
        self._leaving.send(all_=True)
