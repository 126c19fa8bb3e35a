"""AGGREGATE: sums rows with equal keys in memory, one row for each key and interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ulogd_tw.aggregation import AggregationProcess, Checkpoints, Settings, divided, functions, top, uncounted
from ulogd_tw.aggregation.counts import AGGREGATION
from ulogd_tw.aggregation.group_table import FLOWS, SPAN, VALUES
from ulogd_tw.aggregation.interval import INTERVAL_START
from ulogd_tw.aggregation.parts import Part
from ulogd_tw.aggregation.settings import Overflow
from ulogd_tw.aggregation.state_file import described
from ulogd_tw.aggregation.total_counters import EVERY_ASK
from ulogd_tw.core import derived_keys
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.flow_rows import only_ends
from ulogd_tw.core.keys import FIVE_TUPLE, Key, known, nearest, registry
from ulogd_tw.core.options import Option, entries, number, one_of, positive, seconds, text, whole_seconds
from ulogd_tw.core.paths import output_file
from ulogd_tw.core.patience import Ends, of_interval
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, Aggregator, Plugin, Wanted
from ulogd_tw.core.quantities import NAMES
from ulogd_tw.core.resolve import Found

_OFTEN = ("flowEndReason", "flowStartMilliseconds", "flowEndMilliseconds", "ct.event", "record_kind")
"""Keys that it may need in every row."""
_SOON = 0.05
"""Seconds until it looks again whether workers have handed on all rows of an interval."""
REST = 10.0
"""In state_dir, large intervals are written for a tenth of the time at most."""


class AGGREGATE(Aggregator):
    """Sums flows with equal keys: octets, packets, flows, first start and last end, one row a key and interval.

    Octets are octetDeltaCount, or the first other counter of octets in a record (octetTotalCount, initiatorOctets,
    postOctetDeltaCount and others), else NULL; packets alike. A row without a key groups under NULL. Conntrack rows
    other than the end of a flow, and options records, are filtered out.
    """

    name = "AGGREGATE"
    itype = FLOW | PACKET
    otype = FLOW
    weighs = True
    keeps_rows = True
    counts = AGGREGATION
    options = (
        Option("key", text, "5tuple", "Keys that make a group, separated by commas. An address may have a prefix "
               "length, sourceAddress/24:48 (IPv6 after the colon); a number or time may be rounded down to a "
               "multiple, sourceTransportPort/1024. 5tuple stands for " + ",".join(FIVE_TUPLE) + "."),
        Option("functions", text, "", functions.option_text()),
        Option("top", number, 0, "Maximum number of groups emitted for each interval, those with the greatest value of "
               "by. All other groups become one row without keys, so that sums stay right. 0: all groups."),
        Option("by", text, "octets", "Column that ranks groups for top: flows, packets, octets or a column of "
               "functions."),
        Option("max_sketches", entries, 16384, "Maximum number of groups in an interval with distinct or quantile "
               "columns (256 octets and 2 kB each). Further groups have no value there."),
        Option("interval", whole_seconds, 60, "Length of an interval in seconds; intervals begin at multiples of it "
               "in UTC."),
        Option("time", one_of("arrival", "flow", "spread"), "arrival", "Time that decides about the interval of a row. "
               "arrival: its arrival; flow: the end of its flow; spread: octets and packets are divided among all "
               "intervals of the flow's time, and flows and functions count in the last one."),
        Option("lateness", positive, 60, "Seconds for which an interval stays open after its end, with time=flow and "
               "time=spread."),
        Option("window", number, 0, "Length of a sliding window in seconds, a multiple of interval: rows at the end of "
               "each interval then hold the sums over the window, and interval_start is its beginning. 0: sums of the "
               "interval alone."),
        Option("age", seconds, 0, "Seconds after its first row when a group is emitted, instead of at the end of "
               "intervals; interval_start is then the time of this row. 0: groups are emitted at the end of "
               "intervals."),
        Option("change", text, "", "One of the keys of key, such as ct.mark: when its value changes while the other "
               "keys are equal, the group with the former value is emitted at once. A return to the former value "
               "begins a new group."),
        Option("totals", one_of("auto", "last", "difference"), "auto", "Meaning of octetTotalCount and "
               "packetTotalCount in records without delta counters. auto: a record counts its increase over the "
               "previous one of the same flow, else in full; last: only the last record of a flow counts; difference: "
               "each record counts its increase over the previous one. Totals of max_keys flows are remembered."),
        Option("max_keys", entries, 1_000_000, "Maximum number of groups in memory, over all open intervals."),
        Option("overflow", one_of("emit", "other", "refuse", "fold", "evict"), "emit", "Action for a new group beyond "
               "max_keys. emit: emit all groups early (with window: as fold); other: count the row under NULL keys; "
               "refuse: drop the row; fold: merge the half of the groups with the fewest octets under NULL keys; "
               "evict: emit the half of the groups with the oldest last flow."),
        Option("state_file", output_file, "", "File that keeps open intervals over a restart. For an instance in "
               "several stacks the second file has #2 appended. Empty: open intervals are emitted early at a stop."),
        Option("checkpoint", seconds, 60, "Seconds between two writings of state_file, and the most that a crash can "
               "cost. 0: it is written at a stop only."),
    )  # fmt: skip
    may_use = (*NAMES, *_OFTEN)

    def __init__(self, instance: str, config=None) -> None:
        super().__init__(instance, config)
        chosen = self.config.key.replace("5tuple", ",".join(FIVE_TUPLE))
        self.key_names = tuple(dict.fromkeys(name.strip() for name in chosen.split(",") if name.strip()))
        self.watched: frozenset[str] = frozenset()
        """Further columns that go out, for rules of alerts."""
        self._paused = False
        self.arrived: Callable[[], float] = lambda: math.inf
        """Rows that came before this time are here, seconds since 1970: those of worker processes come later."""
        self._checkpoints: Checkpoints | None = None
        self._mistakes: list[tuple[str, str]] = []
        self._derived = {
            name: found for name in self.key_names if (found := self._read("key", derived_keys.parse, name))
        }
        self._made = {SPAN.name, *(name for name, derived in self._derived.items() if derived.changes)}
        wanted = self._read("functions", functions.parse, self.config.functions) or []
        self.settings = Settings.of(self.config, self.key_names, wanted)
        self.aggregation = AggregationProcess(
            instance, self.settings, self.find, self.counters, self._emit, self._columns_out
        )

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not self.key_names:
            yield "key", 'must name at least one key, such as key="sourceAddress"'
        for name in self.key_names:
            base = name.partition("/")[0]
            if known(base.partition("@")[0]) is None:
                near = nearest(base, registry.names())
                hint = f"did you mean {near}?" if near else "--check prints the keys of each input"
                if len(base.split()) > 1:
                    hint = f"write commas between keys: {','.join(base.split())}"
                yield "key", f"there is no key {base}; {hint}"
        yield from (m for m in self._mistakes if m[0] != "key" or known(m[1].partition("/")[0].partition("@")[0]))
        ranking = [key.name for key in (*VALUES, *self._function_keys()) if key.type.numeric]
        if self.config.by not in ranking:
            near = {"bytes": "octets", "pkts": "packets"}.get(self.config.by)
            meant = f"; did you mean {near}?" if near else ""
            yield "by", f"{self.config.by} is none of {', '.join(ranking)}{meant}"
        yield from self.settings.mistakes()
        taken = {*self.key_names, *(key.name for key in VALUES), INTERVAL_START.name}
        for spec in self.settings.functions:
            if spec.name in taken:
                name = spec.function.name
                yield "functions", f"{spec.name} is a column already; choose another name: NAME={name}(...)"

    def _function_keys(self) -> list[Key]:
        """The keys of the columns of functions."""
        return [spec.key for spec in self.settings.functions]

    def keys(self) -> Iterable[Key]:
        named = [found.key for found in self._derived.values()]
        return (*named, *VALUES, *self._function_keys(), INTERVAL_START)

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        needed = dict.fromkeys((found.base for found in self._derived.values()), True)
        needed |= {spec.of: True for spec in self.settings.functions if spec.name in wanted}
        asks = EVERY_ASK.get(self.settings.totals, ())
        seldom = (*NAMES, *uncounted.ASKS, *asks)
        self.seldom = frozenset(name for name in seldom if name not in (*needed, *_OFTEN))
        return needed | {name: False for name in (*self.may_use, *uncounted.ASKS, *asks) if name not in needed}

    def patience(self) -> float | None:
        return of_interval(self.settings.age or self.settings.interval)

    def interval_ends(self) -> Iterable[Ends]:
        settings = self.settings
        late = settings.lateness if settings.time != "arrival" else 0
        return () if settings.age else (Ends(settings.interval, late),)

    def find(self, batch: Batch, name: str) -> Found | None:
        if name not in self._made:
            return self.sources.find(batch, name)
        if name == SPAN.name:
            return Found(batch.columns[name], None, SPAN)
        return self._derived[name].find(super().find, batch)

    def _read(self, option: str, parse: Callable[[str], Any], text: str) -> Any:
        """The meaning of an option's text; None, and a mistake noted, if it is wrong."""
        try:
            return parse(text)
        except ValueError as error:
            self._mistakes.append((option, str(error)))
            return None

    def open(self) -> None:
        if self.source is not None:
            self.source.seconds_apart = True
        if self._checkpoints is None and self.settings.state_file:
            _, number, of_stack = self.instance.partition("#")
            self._keep(self.settings.state_file + number + of_stack, self.settings.checkpoint, "state_file")
        if self._checkpoints is not None:
            self.aggregation.restore(self._checkpoints)

    def _keep(self, path: str, every: float, kind: str) -> None:
        self._checkpoints = Checkpoints(
            self.instance, path, every, self.settings, self.counters, self._report, kind=kind,
            rest=0.0 if kind == "state_file" else REST,
        )  # fmt: skip

    def keep_state(self, directory: Path, every: float) -> None:
        """Open intervals go to a file; the one of state_file goes before it."""
        if not self.settings.state_file:
            self._keep(str(directory / "intervals"), every, "state")

    def kept(self) -> dict[str, Any]:
        return {} if self._checkpoints is None else self._checkpoints.described()

    def held_rows(self) -> int:
        return sum(table.flows for table in self.aggregation.tables())

    def give_state(self) -> Any:
        """Its open intervals; rows whose time has come are emitted."""
        return self.aggregation.give()

    def take_state(self, state: Any) -> bool:
        return self.aggregation.take(state)

    def continued_by(self, other: Plugin | None) -> bool:
        if self._checkpoints is None:
            return True
        return isinstance(other, AGGREGATE) and self._state_of() == other._state_of()

    def _state_of(self) -> tuple[Any, ...]:
        """On what it depends whether another instance finds and takes its open intervals."""
        return described(self.settings), self.settings.state_file, self.keeps_state or bool(self.settings.state_file)

    def stop(self) -> Any:
        return self.aggregation.stop()

    def process(self, batch: Batch) -> None:
        batch = only_ends(self.counters, self.find, batch)
        if batch.n:
            self.aggregation.add(batch)

    @property
    def divided(self) -> bool:
        """Whether workers may add up rows for it."""
        return divided(self.settings)

    def merge(self, part: Part) -> None:
        """Take what a worker has added up; the worker has counted the rows."""
        self.aggregation.merge(part)

    def _emit(self, batch: Batch) -> None:
        self.emit(batch)  # which the stack sets later

    def _report(self, error: Exception) -> None:
        self.fault(error)  # likewise

    def _columns_out(self, settings: Settings) -> frozenset[str]:
        """The names of the columns that go out of groups with these settings: the key goes whole.

        Of an earlier run's groups all functions go out too.
        """
        asked = [key.name for key in self.keys()] if self.wanted is ALL else self.wanted
        by = (settings.by,) if settings.top else ()
        weight = (FLOWS.name,) if self.ledger is not None else ()
        former = () if settings is self.settings else tuple(spec.name for spec in settings.functions)
        return frozenset((*asked, *settings.key, *by, *weight, *former, *self.watched))

    @property
    def columns(self) -> list[str]:
        """The names of the columns that `peek` can give."""
        return [key.name for key in self.keys()]

    @property
    def together(self) -> dict[str, str]:
        """For each value column, the SQL aggregate that combines a group's rows of several intervals."""
        merged = {spec.name: spec.function.merged_by for spec in self.settings.functions}
        return dict.fromkeys(top.SUMS, "sum") | merged

    @property
    def rollup(self) -> dict[str, Any]:
        """What its rows are, for a store of them. `whole`: a row stands for one group."""
        found = self.settings
        merges = found.top or found.overflow in (Overflow.OTHER, Overflow.FOLD, Overflow.REFUSE)
        return {
            "interval": found.interval if not (found.age or found.window) else None,
            "by": list(self.key_names),
            "time": found.time,
            "lateness": found.lateness,
            "whole": not merges,
        }

    @property
    def emitting(self) -> bool:
        """Whether groups are on their way out, which `peek` does not give any more."""
        return bool(self.aggregation.queue or self.aggregation.intervals.outs)

    def starts(self) -> list[int]:
        """The begins of all intervals of which groups are still here, in seconds."""
        return self.aggregation.starts()

    def peek(self, names: frozenset[str]) -> Iterator[Batch]:
        """The present groups of all open intervals, and of a window's, in slices."""
        return self.aggregation.peek(names)

    @property
    def holds(self) -> bool:  # type: ignore[override]
        return self.aggregation.holds

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False

    def clock_set(self, now: float, step: float) -> None:
        if self.source is None or not self.source.own_clock:
            self.aggregation.clock_set(now)

    def wake(self, now: float) -> float | None:
        """Let time pass; the rows of a file that is replayed have their own, and at its end all intervals are over."""
        replayed = self.source is not None and self.source.own_clock
        if replayed and self.source is not None and self.source.at_end and self.holds:
            self.aggregation.end()
        there = min(now, self.arrived())
        wait = self.aggregation.wake(None if replayed else there, self._paused)
        self.aggregation.checkpoint(now)
        return wait if there == now else min(wait, _SOON)

    def hand_on(self) -> None:
        self.aggregation.hand_on()

    def flush(self) -> None:
        self.aggregation.flush()
