"""The tables of one interval of an AGGREGATE: groups of equal keys and what is added up for each."""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from ulogd_tw.aggregation.flow_time import ended
from ulogd_tw.aggregation.group_table import (
    BORN,
    FIRST,
    FLOWS,
    NEVER,
    SEEN,
    SPAN,
    SUMS,
    VALUES,
    Group,
    MemoryPool,
    Slice,
)
from ulogd_tw.aggregation.relocation import AT_ONCE, Relocation
from ulogd_tw.aggregation.settings import Overflow, Settings
from ulogd_tw.aggregation.summing import Summing
from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, repeated
from ulogd_tw.core.keys import Key
from ulogd_tw.core.packing import Dictionary, Packing, packed_type
from ulogd_tw.core.resolve import Found
from ulogd_tw.core.types import Type

INTERVAL_START = Key("interval_start", types.SECONDS, unit="seconds")
OTHER = "other"
"""The group of the rows that found no room, all under NULL keys."""
Present = tuple[Key, ...] | str
"""The identity of a group table: its present keys, or `OTHER`."""
PEEKED_AT_ONCE = 32768
"""Entries that are copied in one turn of the reactor: some milliseconds."""
_MOST_PRESENTS = 256
"""Kinds of columns whose keys are kept at hand."""
_MORE_STRINGS = 1 << 20


class IntervalTable:
    """All groups of the interval that begins at `start` (seconds since 1970), at most as many as the caller allows.

    `summing` finds the columns of rows and adds them up; `pool` has what earlier tables left.
    """

    def __init__(self, start: int, settings: Settings, summing: Summing, pool: MemoryPool) -> None:
        self.start = start
        self.ident = secrets.token_hex(8)
        """Its name, which no other table of any run has."""
        self.settings = settings
        """Those of its groups, which another AGGREGATE may have had in an earlier run."""
        self._summing = summing
        self._counters = summing.counters
        self._pool = pool
        self._names = settings.key
        self._inner = (SPAN.name,) if settings.change else ()
        self._capacity = settings.max_keys + 1  # one more for the rest of overflow=other
        self.groups: dict[Present, Group] = {}
        self._keys: dict[tuple[str, Type], Key] = {}
        self._presents: dict[tuple[str | Key, ...], tuple[Key, ...]] = {}
        """By the names and keys of columns, the keys of their group."""
        """The keys of groups: one for each name and type, with the elements that came first."""
        self.dictionaries = self._new_dictionaries()
        self.moves = 0
        """How often its entries were moved; a copy made before such a move is of no use."""
        self._moving: Relocation[Any] | None = None
        self._old: deque[tuple[Present, Group, int]] = deque()
        """Tables with entries on the move to the tables of the same keys in `groups`, each with the first entry left.
        """
        self._sources: deque[IntervalTable] = deque()
        self.gone = False
        """Whether its rows were emitted."""

    def __len__(self) -> int:
        return sum(group.table.n for group in self.groups.values()) + self.unmoved

    @property
    def keys(self) -> int:
        """Groups without the one of the rest."""
        other = self.groups.get(OTHER)
        return len(self) - (0 if other is None else other.table.n)

    @property
    def unmoved(self) -> int:
        """Entries that still have to be moved."""
        return sum(group.table.n + 1 - first for _, group, first in self._old) + sum(map(len, self._sources))

    @property
    def flows(self) -> int:
        """The rows that its groups sum up, without those of entries on the move."""
        return sum(int(group.values(FLOWS, 1, group.table.n + 1).sum()) for group in self.groups.values())

    @property
    def nbytes(self) -> int:
        """Octets of memory in use."""
        return sum(group.nbytes for group in [*self.groups.values(), *(group for _, group, _ in self._old)])

    def born_after(self, limit: int) -> bool:
        """Whether the first row of every group came after this time, milliseconds since 1970."""
        columns = (group.values(BORN, 1, group.table.n + 1) for group in self.groups.values() if group.table.n)
        return all(int(column.min()) > limit for column in columns)

    @property
    def clock(self) -> float:
        """The clock of its batches where nobody knows better: its start, or the first row of its newest group."""
        columns = [group.values(BORN, 1, group.table.n + 1) for group in self.groups.values() if BORN in group.more]
        return max([float(self.start), *(int(column.max()) / 1000 for column in columns if len(column))])

    def _new_dictionaries(self) -> dict[str, Dictionary]:
        most = self._capacity
        if self.settings.overflow.waits:
            most = 2 * most + _MORE_STRINGS  # rows that find no room at first have their strings in it too
        return {name: Dictionary(most) for name in self._names}

    def add(self, batch: Batch, max_keys: int) -> Batch | None:
        """Merge the rows; with overflow=emit, fold and evict, rows without room are returned."""
        left = []
        for part, found in self._by_presence(batch):
            rest = self._add(part, found, max_keys)
            if rest is not None:
                left.append(rest)
        return Batch.joined(left) if left else None

    def _by_presence(self, batch: Batch) -> Iterator[tuple[Batch, dict[str, Found]]]:
        """Rows with the same missing keys together, with the keys present."""
        found = self._keys_of(batch, (*self._names, *self._inner))
        masks = {name: f.missing for name, f in found.items() if f.missing is not None and f.missing.any()}
        if not masks:
            yield batch, found
            return
        pattern = np.zeros(batch.n, np.uint64)
        for place, mask in enumerate(masks.values()):
            pattern |= mask.astype(np.uint64) << np.uint64(place)
        for value in np.unique(pattern).tolist():
            part = batch.take(pattern == np.uint64(value))
            absent = {name for place, name in enumerate(masks) if value >> place & 1}
            yield part, self._keys_of(part, [name for name in found if name not in absent])

    def _keys_of(self, batch: Batch, names: Iterable[str]) -> dict[str, Found]:
        """The columns of these keys in the batch, as far as it has them."""
        found = {name: self._summing.find(batch, name) for name in names}
        return {name: f for name, f in found.items() if f is not None}

    def _group(self, found: dict[str, Found]) -> Group:
        columns: tuple[str | Key, ...] = (*found, *[f.key for f in found.values()])
        present = self._presents.get(columns)
        if present is None:
            made = tuple(Key(name, packed_type(name, f.key), f.key.elements) for name, f in found.items())
            present = self._same_keys(made)
            if len(self._presents) < _MOST_PRESENTS:
                self._presents[columns] = present
        return self.groups.get(present) or self.table(present, self._pool.expected(present))

    def _same_keys(self, present: tuple[Key, ...]) -> tuple[Key, ...]:
        """The keys under which equal names and types stand here, whatever element they came by."""
        return tuple([self._keys.setdefault((key.name, key.type), key) for key in present])

    def table(self, present: Present, expected: int = 0) -> Group:
        """The group of these present keys, a new one for about so many entries if there is none."""
        if isinstance(present, str):
            return self._other()
        present = self._same_keys(present)
        group = self.groups.get(present)
        if group is None:
            group = self.groups[present] = self._new(present, self._capacity, expected)
        return group

    def _new(self, present: tuple[Key, ...], capacity: int, expected: int) -> Group:
        settings = self.settings
        most = settings.max_sketches
        group = Group(present, self.dictionaries, capacity, expected, settings.functions, most, self._pool)
        group.report_saturated(self._summing.saturated)
        return group

    def _add(self, batch: Batch, found: dict[str, Found], max_keys: int) -> Batch | None:
        group = self._group(found)
        words, fits = group.packing.pack({name: f.values for name, f in found.items()}, batch.n)
        if fits is not None:
            no_room = any(dictionary.full for dictionary in self.dictionaries.values())
            self._turn_away(batch.take(~fits), "max_keys" if no_room else "key_range")
            batch, words = batch.take(fits), [w[fits] for w in words]
        room = max(max_keys - (self.keys - group.table.n), 0)
        entries = group.table.entries(words, room)
        new = group.begin()
        if entries.all():
            self._summing.add(group, entries, batch, new)
            return None
        beyond = entries == 0
        self._summing.add(group, entries[~beyond], batch.take(~beyond), new)
        rest = batch.take(beyond)
        if self.settings.overflow.waits:
            return rest
        self._turn_away(rest, "max_keys")
        return None

    def merge(self, present: Present, packing: Packing, piece: Slice, max_keys: int) -> Slice | None:
        """Merge groups of another process, as `add` merges rows: those without room are returned, or go to the rest.

        `packing` is that of their keys.
        """
        if isinstance(present, str):
            self._other().merge(np.ones(len(piece), np.int64), piece)
            return None
        into = self.table(present, len(piece))
        words, fits = into.packing.again(piece.words, packing)
        if fits is not None and not fits.all():
            self._turn_groups_away(piece.take(~fits))
            piece, words = piece.take(fits), [w[fits] for w in words]
        entries = into.table.entries(words, max(max_keys - (self.keys - into.table.n), 0))
        into.begin()
        beyond = entries == 0
        into.merge(entries[~beyond], piece.take(~beyond))
        rest = piece.take(beyond)
        if not len(rest) or self.settings.overflow.waits:
            return rest if len(rest) else None
        self._turn_groups_away(rest)
        return None

    def _turn_groups_away(self, rest: Slice) -> None:
        """Drop groups without room, or add them to the rest: their rows were counted as merged before."""
        if self.settings.overflow is not Overflow.REFUSE:
            self._other().merge(np.ones(len(rest), np.int64), rest)
            self._counters.figures["rows_other"] += int(rest.value(FLOWS).sum())
            return
        flows = int(rest.value(FLOWS).sum())
        self._counters.dropped["max_keys"] += flows
        self._counters.rows_merged -= flows

    def _turn_away(self, rest: Batch, reason: str) -> None:
        """Drop rows, or count them under NULL keys."""
        counters = self._counters
        if reason != "max_keys" or self.settings.overflow is Overflow.REFUSE:
            counters.dropped[reason] += ended(rest)
            return
        other = self._other()
        entries = np.ones(rest.n, np.int64)
        counters.figures["rows_other"] += ended(rest)
        if self.settings.age:
            other.born(entries, int(rest.now * 1000))
        self._summing.add(other, entries, rest, slice(2, 2))

    def _other(self) -> Group:
        """The group of the rest, which has one entry."""
        other = self.groups.get(OTHER)
        if other is None:
            other = self.groups[OTHER] = self._new((), 1, 1)
            other.table.entries([np.zeros(1, np.uint64)])
            other.begin()
            other.see(0, None, np.empty(0, np.int64), slice(1, 2))
        return other

    # moving entries from table to table

    def sample(self, place: Key, step: int) -> list[np.ndarray]:
        """A value of every `step`-th group."""
        return [g.table.column(g.places[place])[::step] for present, g in self.groups.items() if present != OTHER]

    def beside(self) -> IntervalTable:
        """An empty one of the same interval."""
        return IntervalTable(self.start, self.settings, self._summing, self._pool)

    def begin_moving(self, moving: Relocation[Any]) -> None:
        """Start with new tables; the entries of the present ones follow with `move`."""
        self.moves += 1
        self._moving = moving
        for present in [present for present in self.groups if moving.whole or present != OTHER]:
            group = self.groups.pop(present)
            if group.table.n:
                self._old.append((present, group, 1))
        self.dictionaries = self._new_dictionaries()

    def unite(self, others: Iterable[IntervalTable]) -> None:
        """The entries of other tables, newest ones first, follow with `move`; these keep them."""
        self._sources.extend(others)

    def move(self) -> int:
        """Move a slice of the entries of the old tables; how many there were."""
        if not self._old and self._sources:
            source = self._sources[0]
            if source.unmoved:
                return source.move()
            self._sources.popleft()
            self._old.extend((present, group, 1) for present, group in source.groups.items())
        if not self._old:
            return 0
        present, group, first = self._old.popleft()
        stop = min(first + AT_ONCE, group.table.n + 1)
        if stop <= group.table.n:
            self._old.appendleft((present, group, stop))
        if stop > first:
            self.take(present, group, group.piece(first, stop), self._moving)
        return stop - first

    def take(self, present: Present, source: Group, piece: Slice, moving: Relocation[Any] | None = None) -> None:
        """Merge a piece of another table; `moving` chooses the groups to keep here; None: all of it."""
        stays = np.ones(len(piece), bool) if moving is None else moving.stays(source, piece)
        if present == OTHER:
            if stays.any():
                self._other().merge(np.ones(int(stays.sum()), np.int64), piece.take(stays))
            self._part_with(present, source, piece.take(~stays), moving)
            return
        into = self.table(present, source.table.n)
        words, fits = into.packing.again(piece.words, source.packing)
        if fits is not None:
            stays &= fits
        entries = np.zeros(len(piece), np.int64)
        room = into.table.capacity if moving is None else into.table.n + moving.room
        entries[stays] = into.table.entries([w[stays] for w in words], room)
        rest = entries == 0
        if rest.any() and (moving is None or moving.joins):
            entries[rest] = into.table.entries([w[rest] for w in words], 0)
        new = into.begin()
        if moving is not None:
            moving.room -= new.stop - new.start
        rest = entries == 0
        into.merge(entries[~rest], piece.take(~rest))
        self._part_with(present, source, piece.take(rest), moving)

    def _part_with(self, present: Present, source: Group, piece: Slice, moving: Relocation[Any] | None) -> None:
        """Let entries that do not stay go out, or add them to the rest."""
        if not len(piece):
            return
        out = None if moving is None else moving.out(self)
        if out is None:
            self._fold_into_other(piece)
        else:
            out.take(present, source, piece)

    def _fold_into_other(self, piece: Slice) -> None:
        more = self._counters.figures
        more["groups_folded"] += len(piece)
        more["rows_other"] += int(piece.value(FLOWS).sum())
        self._other().merge(np.ones(len(piece), np.int64), piece)

    # rows out

    def batches(self, now: float, at_once: int, wanted: frozenset[str]) -> Iterator[Batch]:
        """The rows of this interval with the `wanted` columns, in slices, by kind of group; ends the table."""
        self.gone = True
        self._pool.expect({p: group.table.n for p, group in self.groups.items() if p != OTHER and group.table.n})
        while self.groups:
            present = next(iter(self.groups))
            group = self.groups[present]
            for first in range(1, group.table.n + 1, at_once):
                stop = min(first + at_once, group.table.n + 1)
                yield self._batch(group, now, wanted, first, stop)
            self._pool.take(self.groups.pop(present))

    def peek(self, now: float, wanted: frozenset[str]) -> Iterator[Batch]:
        """The rows of this interval as they are now, with the `wanted` columns only, in slices; the table goes on."""
        # what is moved meanwhile is given once: where it was
        parts = [*((group, 1) for group in self.groups.values()), *((group, first) for _, group, first in self._old)]
        found = [(group, begin, group.table.n + 1) for group, begin in parts]
        for group, *_ in found:
            group.readers += 1
        try:
            for group, begin, stop in found:
                for first in range(begin, stop, PEEKED_AT_ONCE):
                    yield self._batch(group, now, wanted, first, min(first + PEEKED_AT_ONCE, stop))
        finally:
            for group, *_ in found:
                group.readers -= 1

    def _batch(self, group: Group, now: float, wanted: frozenset[str], first: int, stop: int) -> Batch:
        """The entries from `first` up to `stop`."""
        words = [group.table.column(place, first)[: stop - first] for place in range(group.packing.words)]
        by_name = {key.name: (key, column) for key, column in group.packing.unpack(words).items()}
        columns: dict[Key, Column] = {}
        for name in self._names:
            if name in by_name and name in wanted:
                columns[by_name[name][0]] = by_name[name][1]
        missing: dict[str, np.ndarray] = {}
        for key, column, absent in self._worked_out(group, wanted, first, stop):
            if not absent.all():
                columns[key] = column
                if absent.any():
                    missing[key.name] = absent
        if INTERVAL_START.name in wanted:
            columns[INTERVAL_START] = self._starts(group, first, stop)
        schema = Schema(list(columns))
        return Batch(schema, {k.name: c for k, c in columns.items()}, missing, n=stop - first, now=now)

    def _starts(self, group: Group, first: int, stop: int) -> Column:
        """Of the interval; where groups have an age, when the first row of each came. Seconds since 1970."""
        if BORN in group.more:
            return (group.values(BORN, first, stop) // np.uint64(1000)).astype(np.uint32)
        return repeated(self.start, stop - first, np.dtype("I"))

    def _worked_out(
        self, group: Group, wanted: frozenset[str], first: int, stop: int
    ) -> Iterator[tuple[Key, np.ndarray, np.ndarray]]:
        """Key, column and mask of the missing rows of each value of these entries."""
        seen = group.values(SEEN, first, stop)
        sums = {key: place for place, key in enumerate(SUMS)}
        for key in VALUES:
            if key.name in wanted:
                column = group.values(key, first, stop)
                nothing = NEVER if key is FIRST else 0
                yield key, column, (seen & np.uint64(1 << sums[key])) == 0 if key in sums else column == nothing
        for state in group.states:
            if state.spec.name in wanted:
                column, absent = state.results(first, stop)
                key = state.spec.key
                yield key, column.astype(key.type.dtype), absent
