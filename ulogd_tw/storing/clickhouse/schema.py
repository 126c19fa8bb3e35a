"""The statements that make the tables: rows sorted by time and exporter, partitions by time, roll-ups as views.

A roll-up of one interval is a table of sums and a view that adds each insert to it; each is made from the roll-up
before it. Inserts that are repeated are left out by their token in the table and in all that depends on it, as long as
it is among the last `WINDOW` inserts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ulogd_tw.core.options import LONGEST_S, seconds
from ulogd_tw.storing.clickhouse.types import codec_for, parsed

WINDOW = 10_000
"""Inserts whose tokens a table knows: some hours of one insert a second."""
TIME = "time"
"""The column with the time of a row: its end, or its arrival where the end is missing or odd."""
TIME_TYPE = "DateTime64(3, 'UTC')"
LEAST_VERSION = (24, 8)
"""The first release in which a repeated insert is left out by its token in dependent views too."""
_DAY_S = 86400
_PARTITIONS = (
    (3 * _DAY_S, f"toStartOfHour({TIME})"), (90 * _DAY_S, f"toYYYYMMDD({TIME})"), (600 * _DAY_S, f"toMonday({TIME})"),
    (2900 * _DAY_S, f"toYYYYMM({TIME})"),
)  # fmt: skip
"""Partitions by the time for which rows are kept: fewer than the 100 that one insert may have."""
OLDEST_S = 2900 * _DAY_S
"""Where all rows are kept, the age from which on a flow's own time is an odd one."""
COUNT = "flows"
"""The column of a roll-up with the number of rows."""


@dataclass(frozen=True, slots=True)
class Rollup:
    """A roll-up: its name behind that of the table, its interval, and how long it is kept (0: for ever)."""

    name: str
    interval_s: int
    retain_s: float = 0.0


def rollups(words: Sequence[str]) -> tuple[Rollup, ...]:
    """Intervals with or without the time for which they are kept, such as ``1m:7d 5m:90d 1h``; each after smaller ones.

    Raises ValueError.
    """
    found: list[Rollup] = []
    for word in words:
        name, _, retain = word.partition(":")
        interval = seconds(name)
        if interval != int(interval) or not 1 <= interval <= _DAY_S or _DAY_S % interval:
            raise ValueError(f"{name} does not divide a day into whole seconds; write an interval such as 1m, 5m or 1h")
        if found and interval % found[-1].interval_s or found and interval == found[-1].interval_s:
            raise ValueError(f"{name} is no multiple of {found[-1].name} before it; write them from small to large")
        found.append(Rollup(name, int(interval), min(seconds(retain), LONGEST_S) if retain else 0.0))
    return tuple(found)


@dataclass(frozen=True)
class Schema:
    """What is to be made: a table of a database, and its `columns` with their types by name.

    `by`, `sums`, `distinct`: the columns of roll-ups. `cluster`: its name, empty for one server.
    """

    database: str
    table: str
    columns: Mapping[str, str]
    order: Sequence[str] = ()
    retain_s: float = 0.0
    rollups: Sequence[Rollup] = ()
    by: Sequence[str] = ()
    sums: Sequence[str] = ()
    distinct: Sequence[str] = ()
    cluster: str = ""
    replicated: bool = False
    distributed: bool = False
    counted: str = field(default="")
    """The column of the table with the number of rows that each row stands for; empty for 1."""

    def statements(self) -> Iterator[str]:
        """All statements, none of which changes what is there."""
        yield self._table(self.table, self._column_lines(self.columns), "MergeTree", self._order(), self.retain_s)
        yield from self._spread(self.table, "rand()")
        yield from self.rollup_statements()

    def rollup_names(self) -> list[str]:
        """The tables and views of roll-ups."""
        tables = [f"{self.table}_{rollup.name}" for rollup in self.rollups]
        return [*tables, *(f"{self._local(name)}_view" for name in tables)]

    def rollup_statements(self) -> Iterator[str]:
        """Those for the roll-ups."""
        source = self._local(self.table)
        for place, rollup in enumerate(self.rollups):
            name = f"{self.table}_{rollup.name}"
            yield self._table(name, self._rollup_lines(), self._rollup_engine(), [TIME, *self.by], rollup.retain_s)
            view = self._name(f"{self._local(name)}_view")
            select = self._select(rollup, source, first=not place)
            to = self._name(self._local(name))
            yield f"CREATE MATERIALIZED VIEW IF NOT EXISTS {view}{self._on} TO {to} AS {select}"
            yield from self._spread(name, "rand()")
            source = self._local(name)

    @property
    def _on(self) -> str:
        return f" ON CLUSTER {quoted(self.cluster)}" if self.cluster else ""

    def _name(self, table: str) -> str:
        return f"{quoted(self.database)}.{quoted(table)}" if self.database else quoted(table)

    def _local(self, table: str) -> str:
        """The table that has the rows of one server."""
        return f"{table}_local" if self.distributed else table

    def _table(self, table: str, lines: Iterable[str], engine: str, order: Sequence[str], retain_s: float) -> str:
        key = ", ".join(order)
        engine = f"Replicated{engine}" if self.replicated else engine
        window = "replicated_deduplication_window" if self.replicated else "non_replicated_deduplication_window"
        ttl = f"\nTTL toDateTime({TIME}) + INTERVAL {int(retain_s)} SECOND" if retain_s else ""
        return (
            f"CREATE TABLE IF NOT EXISTS {self._name(self._local(table))}{self._on} (\n  " + ",\n  ".join(lines)
            + f"\n) ENGINE = {engine}\nPARTITION BY {partition_by(retain_s)}\nORDER BY ({key}){ttl}"
            f"\nSETTINGS {window} = {WINDOW}, ttl_only_drop_parts = 1"
        )  # fmt: skip

    def _spread(self, table: str, by: str) -> Iterator[str]:
        """The table over those of all servers."""
        if self.distributed:
            names = ", ".join(map(text_literal, (self.cluster, self.database, self._local(table))))
            yield (
                f"CREATE TABLE IF NOT EXISTS {self._name(table)}{self._on} AS {self._name(self._local(table))} "
                f"ENGINE = Distributed({names}, {by})"
            )

    def _order(self) -> list[str]:
        return [f"toStartOfFiveMinutes({TIME})", *(quoted(name) for name in self.order)]

    @staticmethod
    def _column_lines(columns: Mapping[str, str]) -> list[str]:
        return [column_line(name, type_name) for name, type_name in columns.items()]

    # roll-ups

    def _rollup_lines(self) -> list[str]:
        summed = "SimpleAggregateFunction(sum, UInt64)" if self.distinct else "UInt64"
        return [
            f"{quoted(TIME)} DateTime('UTC') CODEC(DoubleDelta, ZSTD(1))",
            *(column_line(name, self._plain(name)) for name in self.by),
            *(f"{quoted(name)} {summed}" for name in (*self.sums, COUNT)),
            *(f"{quoted(distinct_name(name))} AggregateFunction(uniq, {self._plain(name)})" for name in self.distinct),
        ]

    def _plain(self, name: str) -> str:
        """The type of a column where nothing is missing: keys of a table cannot be."""
        return re.sub(r"Nullable\((.*?)\)$|Nullable\((\w+)\)", lambda found: found[1] or found[2], self.columns[name])

    def _rollup_engine(self) -> str:
        if self.distinct:
            return "AggregatingMergeTree"
        return f"SummingMergeTree(({', '.join(quoted(name) for name in (*self.sums, COUNT))}))"

    def _select(self, rollup: Rollup, source: str, first: bool) -> str:
        by = "".join(f", {self._value(name, first)} AS {quoted(name)}" for name in self.by)
        sums = "".join(f", sum({self._value(name, first)}) AS {quoted(name)}" for name in self.sums)
        count = f"sum(s.{quoted(self.counted if first else COUNT)})" if self.counted or not first else "count()"
        distinct = "".join(f", {self._different(name, first)}" for name in self.distinct)
        places = ", ".join(map(str, range(1, len(self.by) + 2)))
        return (
            f"SELECT toStartOfInterval(toDateTime(s.{TIME}, 'UTC'), INTERVAL {rollup.interval_s} SECOND) AS {TIME}{by}"
            f"{sums}, {count} AS {quoted(COUNT)}{distinct} FROM {self._name(source)} AS s GROUP BY {places}"
        )

    def _different(self, name: str, first: bool) -> str:
        """The sketch of different values of a column."""
        made = quoted(distinct_name(name))
        return f"uniqState({self._value(name, True)}) AS {made}" if first else f"uniqMergeState(s.{made}) AS {made}"

    def _value(self, name: str, first: bool) -> str:
        if not first or not parsed(self.columns[name]).nullable:
            return f"s.{quoted(name)}"
        return f"ifNull(s.{quoted(name)}, defaultValueOfTypeName({text_literal(self._plain(name))}))"


def distinct_name(column: str) -> str:
    """The column of a roll-up with the different values of a column, for uniqMerge()."""
    return f"distinct_{column}"


def quoted(name: str) -> str:
    """An identifier, in quotes where it needs them."""
    if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        return name
    return "`" + name.replace("\\", "\\\\").replace("`", "\\`") + "`"


def text_literal(text: str) -> str:
    """A text in a statement."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def column_line(name: str, type_name: str) -> str:
    """One column of a new table."""
    return f"{quoted(name)} {type_name} {codec_for(type_name)}".rstrip()


def partition_by(retain_s: float) -> str:
    """Partitions that are some hundredths of the time for which rows are kept, at most years."""
    return next((words for longest, words in _PARTITIONS if (retain_s or OLDEST_S) <= longest), f"toYear({TIME})")
