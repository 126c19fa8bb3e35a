"""SQL expressions over one source of rows: its times, keys of groups, sums, and the steps of a series.

A source is a table with the columns of a store, some of which may be absent. All times are in milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from ulogd_tw.core.derived_keys import parse
from ulogd_tw.core.flow_end import ACTIVE
from ulogd_tw.core.quantities import QUANTITIES, Quantity
from ulogd_tw.flows.errors import QuestionError
from ulogd_tw.flows.questions import Offsets, derived, sides
from ulogd_tw.flows.stores import FLOWS, INTERVAL_START, Store
from ulogd_tw.flows.times import DAY_MS
from ulogd_tw.storing.stored_columns import ARRIVAL, END, START

_DESTROY = 4
"""The event of conntrack at the end of a connection."""


def quoted(name: str) -> str:
    """A name in a statement."""
    return '"' + name.replace('"', '""') + '"'


class Expressions:
    """The expressions for one store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def column(self, name: str) -> str:
        """The value of a key: that of the first of its columns that has one; NULL where there is none."""
        found = [quoted(column) for column in self.store.find(name)]
        if len(found) < 2:
            return found[0] if found else "NULL::UBIGINT"
        return f"coalesce({', '.join(found)})"

    def _plain(self, name: str) -> str:
        return quoted(name) if name in self.store.types else "NULL::UBIGINT"

    # times

    @property
    def time(self) -> str:
        """The time of a row: its end, else its arrival; of a roll-up the begin of its interval."""
        if self.store.rollup is not None:
            return f"({self._plain(INTERVAL_START)}::UBIGINT * 1000)"
        return self.end

    @property
    def end(self) -> str:
        """The end of a flow, or its arrival."""
        return f"coalesce({self._plain(ARRIVAL.name)}, {self._plain(END)})"

    @property
    def start(self) -> str:
        """The start of a flow; its time where it has none."""
        return f"coalesce({self._plain(START)}, {self.end})"

    # sums

    def amounts(self, names: Iterable[str]) -> list[str]:
        """What each row adds to these sums."""
        quantities = {quantity.name: quantity for quantity in QUANTITIES}
        return [self._flows() if name == FLOWS else self._quantity(quantities[name]) for name in names]

    def _flows(self) -> str:
        return "1::UINTEGER" if self.store.rollup is None else self._plain(FLOWS)

    def _quantity(self, quantity: Quantity) -> str:
        """The first counter with a value. Totals of flows that go on do not count, as a later record has them."""
        found = []
        active = self.column("flowEndReason") if self.store.find("flowEndReason") else ""
        for counter in quantity.counters:
            columns = [quoted(name) for name in self.store.find(counter.name)]
            for value in columns:
                total = counter.total and active
                worth = f"CASE WHEN {active} = {ACTIVE} THEN NULL ELSE {value} END" if total else value
                found.append(f"WHEN {value} IS NOT NULL THEN {worth}")
        if not found:
            return "NULL::UBIGINT"
        return _only(found) or f"CASE {' '.join(found)} END"

    def ended(self) -> str:
        """Which rows are flows that may be counted, as AGGREGATE has it; empty where all are."""
        if self.store.rollup is not None:
            return ""
        found = []
        if (event := self.column("ct.event")) and self.store.find("ct.event"):
            active = f" OR {self.column('flowEndReason')} = {ACTIVE}" if self.store.find("flowEndReason") else ""
            found.append(f"({event} IS NULL OR {event} = {_DESTROY}{active})")
        if self.store.find("record_kind"):
            found.append(f"{self.column('record_kind')} IS DISTINCT FROM 'options'")
        return " AND ".join(found)

    # keys of groups

    def key(self, name: str) -> str:
        """A key of groups: ``sourceAddress/24:48`` is made of the key, unless it is a column itself."""
        both = sides(name)
        if len(both) == 2:
            first, second = map(self.key, both)
            return f"unnest(CASE WHEN {first} IS DISTINCT FROM {second} THEN [{first}, {second}] ELSE [{first}] END)"
        if name in self.store.keys:
            return self.column(name)
        found = derived(name)
        base = self.column(self.base(name))
        if found.prefixes is not None:
            return _prefix(base, *found.prefixes)
        return f"({base} - {base} % {found.step})" if found.step else base

    def base(self, name: str) -> str:
        """The key of the store from which a key of groups can be made. Raises `QuestionError`."""
        found = base_of(self.store, name)
        if found is None:
            have = ", ".join(self.store.keys)
            raise QuestionError(f"the store {self.store.name} has no key {derived(name).base}; it has {have}")
        return found


def base_of(store: Store, name: str) -> str | None:
    """The key of a store from which a key of groups can be made; None where there is none.

    It is the key itself, or one that is rounded less.
    """
    wanted = derived(name)
    if name in store.keys or store.find(wanted.base):
        return name if name in store.keys else wanted.base
    return next((key for key in store.keys if "/" in key and _rounds_less(key, name)), None)


def _rounds_less(key: str, name: str) -> bool:
    had, wanted = parse(key), derived(name)
    if had.base != wanted.base:
        return False
    if had.prefixes and wanted.prefixes:
        return all(bits >= fewer for bits, fewer in zip(had.prefixes, wanted.prefixes, strict=True))
    return bool(had.step and wanted.step and wanted.step % had.step == 0)


def _only(cases: list[str]) -> str:
    """The value of a single case that is its own condition; empty for others."""
    if len(cases) > 1 or "CASE" in cases[0]:
        return ""
    return cases[0].partition(" THEN ")[2]


def _prefix(address: str, four: int, six: int) -> str:
    """An address without the bits behind a prefix, of either family."""
    number = f"{address}::UHUGEINT"
    masks = [(1 << 128) - (1 << 128 - bits) for bits in (96 + four, six)]
    by_four, by_six = (f"({number} & {mask}::UHUGEINT)::UUID" for mask in masks)
    return f"CASE WHEN {number} >> 32 = {0xFFFF}::UHUGEINT THEN {by_four} ELSE {by_six} END"


# steps of a series


def step_of(time: str, every: int, offsets: Offsets) -> str:
    """The begin of the step of a time; steps are multiples since 1970, those of days since a local midnight."""
    if every % DAY_MS:
        return f"({time} - {time} % {every})::BIGINT"
    cases = [
        f"WHEN {time} >= {since} THEN {_day_of(time, every, offsets[: at + 1])}"
        for at, (since, _) in reversed(list(enumerate(offsets)))
    ]
    return f"CASE {' '.join(cases)} ELSE {_day_of(time, every, offsets[:1])} END"


def step_after(begin: str, every: int, offsets: Offsets) -> str:
    """The begin of the step after that with this begin; days of 23 and 25 hours are steps too."""
    if every % DAY_MS:
        return f"({begin} + {every})"
    return step_of(f"({begin} + {every + DAY_MS // 2})", every, offsets)


def _day_of(time: str, every: int, offsets: Offsets) -> str:
    """The begin of the days of a time after the last of these changes of local time; it may be before it."""
    shift = offsets[-1][1] * 1000
    local = f"({time}::BIGINT + {shift})"
    midnight = f"({local} - ({local} % {every} + {every}) % {every})"
    first = next((at for at, (since, _) in enumerate(offsets) if since > offsets[-1][0] - every - 2 * DAY_MS), 0)
    oldest, *changes = offsets[max(first - 1, 0) :]
    cases = [
        f"WHEN {midnight} >= {since + ahead * 1000} THEN {midnight} - {ahead * 1000}"
        for since, ahead in reversed(changes)
    ]
    before = f"{midnight} - {oldest[1] * 1000}"
    return f"(CASE {' '.join(cases)} ELSE {before} END)" if cases else f"({before})"


def share(amount: str, start: str, end: str, begin: str, stop: str) -> str:
    """The part of an amount that belongs to [begin, stop), as if octets had come evenly from start to end.

    Parts are whole numbers, and those of all steps add up to the amount, as `aggregation.flow_time` has it.
    """
    whole = f"({end}::HUGEINT - {start}::HUGEINT + 1)"
    return f"({_over(amount, whole, start, stop)} - {_over(amount, whole, start, begin)})"


def _over(amount: str, whole: str, start: str, moment: str) -> str:
    """How much of an amount is over at a moment."""
    gone = f"greatest(0, least({whole}, {moment}::HUGEINT - {start}::HUGEINT))"
    return f"({amount} // {whole} * {gone} + {amount} % {whole} * {gone} // {whole})"
