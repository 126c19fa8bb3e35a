"""AGGREGATE: rows of equal keys added up in memory, one row a key and interval."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.keys import Key, known, nearest, registry
from ulogd_tw.core.options import Option, number, one_of, positive, seconds, text
from ulogd_tw.core.plugin import FLOW, PACKET, Aggregator, Wanted
from ulogd_tw.core.resolve import Found
from ulogd_tw.plugins.ends import only_ends
from ulogd_tw.plugins.filters import derived, functions
from ulogd_tw.plugins.filters.busiest import busiest
from ulogd_tw.plugins.filters.checkpoints import Checkpoints
from ulogd_tw.plugins.filters.fold import Fold
from ulogd_tw.plugins.filters.groups import VALUES
from ulogd_tw.plugins.filters.spread import spread
from ulogd_tw.plugins.filters.tally import Overflow, Tally

FIVE_TUPLE = (
    "sourceAddress",
    "destinationAddress",
    "protocolIdentifier",
    "sourceTransportPort",
    "destinationTransportPort",
)
INTERVAL_START = Key("interval_start", types.SECONDS, unit="seconds")
EMITTED_AT_ONCE = 16384
"""Rows handed on in one turn of the reactor, so that a million of them do not stop it."""


class AGGREGATE(Aggregator):
    """Adds up flows with equal keys: octets, packets, flows, first start and last end, one row a key and interval.

    Octets are octetDeltaCount, else octetTotalCount of final records, else NULL; packets alike. A row that lacks a
    key groups under NULL. Conntrack rows other than the end of a flow, and options records, are filtered out.
    """

    name = "AGGREGATE"
    itype = FLOW | PACKET
    otype = FLOW
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
        Option("interval", positive, 60, "seconds; intervals begin at multiples of it in UTC"),
        Option("time", one_of("arrival", "flow", "spread"), "arrival", "what puts a row into an interval: when it "
               "arrived, or when its flow ended; spread: octets and packets are divided among all intervals of the "
               "flow's time, and flows and functions count in the last one"),
        Option("lateness", positive, 60, "time=flow and time=spread: seconds for which an interval stays open after "
               "its end"),
        Option("max_keys", positive, 1_000_000, "keys kept at most, over all open intervals"),
        Option("overflow", one_of("emit", "other", "refuse", "fold"), "emit", "what a new key beyond max_keys does: "
               "emit the table early (then a key can have several rows an interval), count under NULL keys (other), be "
               "refused, or make room (fold): half of the groups, those with fewest octets, count under NULL keys"),
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
        self._derived = {name: found for name in self.key_names if (found := self._read("key", derived.parse, name))}
        self.wishes = self._read("functions", functions.parse, self.config.functions) or []
        self._open: dict[int, Tally] = {}
        self.closed = 0
        self._leaving: deque[tuple[Tally, float]] = deque()
        self._outgoing: deque[Batch] = deque()
        self._outgoing_rows = 0
        self._fold: Fold | None = None
        self._state: Checkpoints | None = None
        self._paused = False
        self._expected: dict[object, int] = {}
        self.counters.more["keys"] = lambda: sum(len(tally) for tally in self._open.values())
        self.counters.more["memory_octets"] = lambda: sum(tally.nbytes for tally in self._open.values())
        self.counters.more["rows_late"] = 0

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
        return needed | {name: False for name in self.may_use if name not in needed}

    def find(self, batch: Batch, name: str) -> Found | None:
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
                if now is None and tally.start not in self._open:
                    self._open[tally.start] = tally
                else:
                    self._leaving.append((tally, float(tally.start) if now is None else now))
                    self._outgoing_rows += len(tally)

    def stop(self) -> Any:
        return None if self._state is None else self._state.close()

    # rows in

    def process(self, batch: Batch) -> None:
        batch = only_ends(self, batch)
        if batch.n:
            for start, part in self._by_interval(batch):
                self._add(start, part)

    def _by_interval(self, batch: Batch) -> Iterator[tuple[int, Batch]]:
        """The batch in parts, each with the start of its interval."""
        now = int(batch.now) // self.config.interval * self.config.interval
        by_flow = self.config.time != "arrival"
        end = self.find(batch, "flowEndMilliseconds") if by_flow else None
        if end is None:
            if not by_flow:
                self._close(now)
            yield now, batch
            return
        batch, starts = self._starts(batch, end, now)
        different = np.unique(starts)
        for start in different.tolist():
            part = batch if len(different) == 1 else batch.take(starts == start)
            if start < self.closed:
                self.counters.more["rows_late"] += part.n
            yield start, part
        self._close(int(batch.now - self.config.lateness) // self.config.interval * self.config.interval)

    def _starts(self, batch: Batch, end: Found, now: int) -> tuple[Batch, np.ndarray]:
        """The rows, perhaps one for each interval of a flow, and the start of the interval of each, in seconds."""
        length = self.config.interval * 1000
        ends = end.values if end.missing is None else np.where(end.missing, np.uint64(now * 1000), end.values)
        start = self.find(batch, "flowStartMilliseconds") if self.config.time == "spread" else None
        if start is None:
            return batch, (ends // np.uint64(length) * np.uint64(length) // np.uint64(1000)).astype(np.int64)
        missing = [found.missing for found in (start, end) if found.missing is not None]
        starts = np.where(np.logical_or.reduce(missing), ends, start.values) if missing else start.values
        batch, begins = spread(batch, starts, ends, length)
        return batch, begins // 1000

    def _add(self, start: int, batch: Batch) -> None:
        """Merge rows into the tally of their interval, making room as `overflow` says."""
        while True:
            tally = self._open.get(start)
            if tally is None:
                tally = self._open[start] = self.new_tally(start)
            others = sum(t.keys for t in self._open.values()) - tally.keys
            left = tally.add(batch, self.config.max_keys - others)
            if left is not None and self._fold is None and self.config.overflow == "fold":
                self._fold = Fold(list(self._open.values()), self.config.max_keys)
            if self._fold is not None:
                self._go_on_folding(0 if left is None else left.n)
            if left is None:
                return
            if self.config.overflow == "emit":  # the rows that found no room begin a new table
                for early in sorted(self._open):
                    self._emit_tally(early, batch.now)
            batch = left

    def new_tally(self, start: int) -> Tally:
        """An empty one, of the interval that begins then."""
        return Tally(self, Overflow(self.config.overflow), self._expected, start)

    def _go_on_folding(self, wanted: int = 0) -> None:
        """Fold a slice, or as much as makes room for so many groups."""
        most = self.config.max_keys
        going = True
        while going:
            going = self._fold.step()
            if sum(t.keys for t in self._open.values()) + wanted <= most:
                break
        if not self._fold.unfolded:
            self._fold = None

    # rows out

    def _close(self, until: int, now: float | None = None) -> None:
        """Hand on all intervals that began before `until`."""
        for start in sorted(s for s in self._open if s < until):
            self._emit_tally(start, now)
        self.closed = max(self.closed, until)
        if self._outgoing_rows > self.config.max_keys:
            self._send(all_=True)  # what lies below counts what it cannot take; here nothing grows without bound

    def _emit_tally(self, start: int, now: float | None) -> None:
        tally = self._open.pop(start)
        self._leaving.append((tally, float(start) if now is None else now))
        self._outgoing_rows += len(tally)

    def _send(self, all_: bool = False) -> None:
        """Emit what goes out, one slice, or all of it."""
        while self._outgoing or self._leaving:
            if not self._outgoing:
                tally, now = self._leaving[0]
                while tally.unfolded:
                    self._fold.step()
                    if not all_:
                        return
                self._leaving.popleft()
                self._outgoing_rows -= len(tally)
                if self._state is not None:
                    self._state.emitted(tally)
                batches = list(tally.batches(INTERVAL_START, now))
                if self.config.top and batches:
                    batches = busiest(batches, self.config.by, self.config.top)
                self._outgoing.extend(batches)
                self._outgoing_rows += sum(batch.n for batch in self._outgoing)
                continue
            batch = self._outgoing.popleft()
            part = batch if all_ or batch.n <= EMITTED_AT_ONCE else batch.take(slice(0, EMITTED_AT_ONCE))
            if part.n < batch.n:
                self._outgoing.appendleft(batch.take(slice(part.n, batch.n)))
            self._outgoing_rows -= part.n
            self.emit(part)
            if not all_:
                return

    @property
    def columns(self) -> list[str]:
        """The names of the columns that `peek` can give."""
        return [key.name for key in self.keys()]

    def peek(self, names: frozenset[str]) -> Iterator[Batch]:
        """The groups of all open intervals as they are now, in slices, with the columns of these names."""
        for start, tally in sorted(self._open.items()):
            yield from tally.peek(INTERVAL_START, float(start), names)

    @property
    def holds(self) -> bool:
        return bool(self._open or self._leaving or self._outgoing)

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def wake(self, now: float) -> float | None:
        """Close intervals whose time is over, and send a slice of what goes out.

        The rows of a file that is replayed close intervals themselves: what time it is now means nothing to them. At
        its end all intervals are over.
        """
        length = self.config.interval
        late = self.config.lateness if self.config.time != "arrival" else 0
        source = self.source
        if source is not None and source.own_clock:
            if source.at_end and self._open:
                self._close(max(self._open) + 1)
        elif self._open and min(self._open) + length + late <= now:
            self._close(int(now - late) // length * length, now)
        if self._fold is not None:
            self._go_on_folding()
        if (self._outgoing or self._leaving) and not self._paused:
            self._send()
        if self._state is not None:
            self._state.wake(now)
        if self._outgoing or self._leaving:
            return 0.05 if self._paused else 0.0
        if self._fold is not None:
            return 0.0
        return min(length - (now - late) % length, 1.0) + 0.001

    @property
    def kept(self) -> tuple[list[tuple[Tally, float | None]], int] | None:
        """What a state file has to have: tallies, with the clock of those that wait to go out, and what is closed.

        None while a table is folded.
        """
        if self._fold is not None:
            return None
        return [*((tally, None) for tally in self._open.values()), *self._leaving], self.closed

    def flush(self) -> None:
        if self._state is not None:
            self._send(all_=True)
            while self._fold is not None:
                self._go_on_folding()
            if self._state.save():
                self._open = {}
                return
        for start in sorted(self._open):
            self._emit_tally(start, None)
        self._send(all_=True)
