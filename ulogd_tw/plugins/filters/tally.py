"""The tables of one interval of an AGGREGATE: groups of equal keys and what is added up for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, repeated
from ulogd_tw.core.keys import Key
from ulogd_tw.core.packing import Dictionary, Packing, packed_type
from ulogd_tw.core.resolve import Found
from ulogd_tw.core.table import KeyTable
from ulogd_tw.plugins.filters.functions import FUNCTIONS, Wish
from ulogd_tw.plugins.filters.spread import ending, share

if TYPE_CHECKING:
    from ulogd_tw.core.plugin import Plugin, Wanted

FLOWS = Key("flows", types.UNSIGNED64, ((0, 3),), "flows", "deltaCounter")
PACKETS = Key("packets", types.UNSIGNED64, ((0, 2),), "packets", "deltaCounter")
OCTETS = Key("octets", types.UNSIGNED64, ((0, 1),), "octets", "deltaCounter")
FIRST = Key("first_ms", types.MILLISECONDS, ((0, 152),), "milliseconds")
LAST = Key("last_ms", types.MILLISECONDS, ((0, 153),), "milliseconds")
REPLY_PACKETS = Key("reply_packets", types.UNSIGNED64, ((29305, 2),), "packets", "deltaCounter")
REPLY_OCTETS = Key("reply_octets", types.UNSIGNED64, ((29305, 1),), "octets", "deltaCounter")
VALUES = (FLOWS, PACKETS, OCTETS, FIRST, LAST, REPLY_PACKETS, REPLY_OCTETS)

_SUMS = (
    (PACKETS, "packetDeltaCount", "packetTotalCount"),
    (OCTETS, "octetDeltaCount", "octetTotalCount"),
    (REPLY_PACKETS, "reversePacketDeltaCount", "reversePacketTotalCount"),
    (REPLY_OCTETS, "reverseOctetDeltaCount", "reverseOctetTotalCount"),
)
_ACTIVE_TIMEOUT = 2
"""The flowEndReason of a record that is not the flow's last (RFC 5102 section 5.11.3)."""
_SEEN = "seen"
_VALUES = (FLOWS, PACKETS, OCTETS, FIRST, LAST, _SEEN)
"""What stands behind the key in a row of a table; with the 13 octets of an IPv4 5-tuple a row is one cache line."""
_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)
OTHER = "other"
PEEKED_AT_ONCE = 32768
"""Entries that are copied in one turn of the reactor: some milliseconds."""


class Overflow(Enum):
    """What a new key does when the table is full."""

    EMIT = "emit"
    OTHER = "other"
    REFUSE = "refuse"


class Group:
    """One table: the rows whose present keys are the same, held in the same types.

    The values of an entry stand behind its key: flows, packets, octets, first, last, and the bits of what was seen:
    bit i says that the sum `_SUMS[i]` had a value at least once; without one it is NULL. Sums of the reply direction,
    which few inputs have, are columns of their own, made when the first ones come.
    """

    def __init__(
        self, present: tuple[Key, ...], dictionaries: dict[str, Dictionary], capacity: int, expected: int,
        wishes: Sequence[Wish], most: int,
    ):  # fmt: skip
        self.packing = Packing(present, dictionaries)
        self.table = KeyTable(self.packing.words, capacity, expected, len(_VALUES))
        self.places = {name: self.packing.words + place for place, name in enumerate(_VALUES)}
        self.states = [FUNCTIONS[wish.function](wish, capacity, most) for wish in wishes]
        self.reply: dict[Key, np.ndarray] = {}
        self.seen_by_all: int | None = None
        """The bits that every entry has; None while there is no entry."""
        self._used = 0

    def begin(self) -> slice:
        """Set the values of entries that are new, and give their numbers."""
        first, self._used = self._used + 1, self.table.n
        for name, place in self.places.items():
            self.table.column(place, first)[:] = _NEVER if name is FIRST else 0
        for column in self.reply.values():
            column[first : self._used + 1] = 0
        for state in self.states:
            state.begin(first, self._used + 1)
        return slice(first, self._used + 1)

    def restore(self, rows: np.ndarray) -> None:
        """Take entries of an earlier run into the empty group."""
        self.table.restore(rows)
        self._used = self.table.n
        if self._used:
            self.seen_by_all = int(np.bitwise_and.reduce(self.table.column(self.places[_SEEN])))

    def restore_reply(self, name: str, column: np.ndarray) -> None:
        """Take a column of the reply direction of an earlier run. KeyError for a name that is none."""
        key = {key.name: key for key, *_ in _SUMS}[name]
        self.reply[key] = np.empty(self.table.capacity + 1, np.uint64)
        self.reply[key][: self.table.n + 1] = column

    def values(self, key: Key, first: int, stop: int) -> np.ndarray:
        """The column of a value over the entries from `first` up to `stop`, a copy."""
        if key in self.places:
            return self.table.column(self.places[key], first)[: stop - first].copy()
        column = self.reply.get(key)
        return np.zeros(stop - first, np.uint64) if column is None else column[first:stop].copy()

    def add(self, key: Key, entries: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
        """Add to a sum; `places` is where the rows of the entries begin."""
        if key in self.places:
            np.add.at(self.table.flat, places + self.places[key], values)
            return
        if key not in self.reply:
            self.reply[key] = np.empty(self.table.capacity + 1, np.uint64)
            self.reply[key][: self.table.n + 1] = 0
        np.add.at(self.reply[key], entries, values)

    def see(self, bits: int, partly: np.ndarray | None, places: np.ndarray, new: slice) -> None:
        """Note which sums these rows had: `bits` all of them, `partly` (a mask of bits a row) some."""
        column = self.places[_SEEN]
        if new.stop > new.start:
            self.table.column(column, new.start)[:] = bits
        if self.seen_by_all is None:
            self.seen_by_all = bits
        elif bits & ~self.seen_by_all:
            np.bitwise_or.at(self.table.flat, places + column, np.uint64(bits))
        if new.stop > new.start:
            self.seen_by_all &= bits
        if partly is not None:
            np.bitwise_or.at(self.table.flat, places + column, partly)


class Tally:
    """All groups of one interval, at most as many as their caller allows."""

    def __init__(self, plugin: Plugin, overflow: Overflow, expected: dict[object, int]) -> None:
        self._plugin = plugin
        self._names: tuple[str, ...] = plugin.key_names
        self._overflow = overflow
        self._expected = expected
        """Entries of the last interval by kind of group, to size the next one's tables."""
        self._capacity: int = plugin.config.max_keys + 1  # one more for the rest of overflow=other
        self.groups: dict[object, Group] = {}
        self.dictionaries = {name: Dictionary(self._capacity) for name in self._names}

    def __len__(self) -> int:
        return sum(group.table.n for group in self.groups.values())

    @property
    def nbytes(self) -> int:
        """Octets of memory in use."""
        return sum(
            g.table.nbytes + 8 * len(g.reply) * g.table.n + sum(state.nbytes(g.table.n) for state in g.states)
            for g in self.groups.values()
        )

    def add(self, batch: Batch, max_keys: int) -> Batch | None:
        """Merge the rows; with overflow=emit, those for which there was no room come back."""
        left = []
        for part, found in self._by_presence(batch):
            rest = self._add(part, found, max_keys)
            if rest is not None:
                left.append(rest)
        return Batch.joined(left) if left else None

    def _by_presence(self, batch: Batch) -> Iterator[tuple[Batch, dict[str, Found]]]:
        """Rows that lack the same keys together, with the keys that they have."""
        found = {name: self._plugin.find(batch, name) for name in self._names}
        found = {name: f for name, f in found.items() if f is not None}
        masked = [name for name, f in found.items() if f.missing is not None and f.missing.any()]
        if not masked:
            yield batch, found
            return
        pattern = np.zeros(batch.n, np.uint64)
        for place, name in enumerate(masked):
            pattern |= found[name].missing.astype(np.uint64) << np.uint64(place)
        for value in np.unique(pattern).tolist():
            part = batch.take(pattern == np.uint64(value))
            absent = {name for place, name in enumerate(masked) if value >> place & 1}
            yield part, {n: self._plugin.find(part, n) for n in found if n not in absent}

    def _group(self, found: dict[str, Found]) -> Group:
        present = tuple(Key(name, packed_type(name, f.key), f.key.elements) for name, f in found.items())
        group = self.groups.get(present)
        if group is None:
            expected = self._expected.get(present, 0)
            group = self.groups[present] = self._new(present, self._capacity, expected)
        return group

    def _new(self, present: tuple[Key, ...], capacity: int, expected: int) -> Group:
        plugin = self._plugin
        return Group(present, self.dictionaries, capacity, expected, plugin.wishes, plugin.config.max_sketches)

    def restored(self, present: object, n: int, rows: np.ndarray) -> Group:
        """A group of an earlier run with n entries."""
        other = present == OTHER
        group = self.groups[present] = self._new(() if other else present, 1 if other else self._capacity, n)
        group.restore(rows)
        return group

    def _add(self, batch: Batch, found: dict[str, Found], max_keys: int) -> Batch | None:
        group = self._group(found)
        counters = self._plugin.counters
        words, fits = group.packing.pack({name: f.values for name, f in found.items()}, batch.n)
        if fits is not None:
            counters.dropped["key_range"] += batch.n - int(np.count_nonzero(fits))
            batch, words = batch.take(fits), [w[fits] for w in words]
        room = max(max_keys - (len(self) - group.table.n), 0)
        entries = group.table.entries(words, room)
        new = group.begin()
        if entries.all():
            self._merge(group, entries, batch, new)
            return None
        beyond = entries == 0
        self._merge(group, entries[~beyond], batch.take(~beyond), new)
        rest = batch.take(beyond)
        if self._overflow is Overflow.EMIT:
            return rest
        if self._overflow is Overflow.REFUSE:
            counters.dropped["max_keys"] += rest.n
            return None
        other = self.groups.get(OTHER)
        if other is None:
            other = self.groups[OTHER] = self._new((), 1, 1)
        entries = other.table.entries([np.zeros(rest.n, np.uint64)])
        new = other.begin()
        counters.more["rows_other"] = counters.more.get("rows_other", 0) + rest.n
        self._merge(other, entries, rest, new)
        return None

    def _merge(self, group: Group, entries: np.ndarray, batch: Batch, new: slice) -> None:
        """Add the values of the rows to their entries, of which those in `new` are new."""
        self._plugin.counters.rows_merged += batch.n
        if not batch.n:
            return
        places = entries * group.table.stride
        counting = ending(batch)
        flows = np.ones(batch.n, np.uint64) if counting is None else counting.astype(np.uint64)
        group.add(FLOWS, entries, places, flows)
        seen = 0
        partly = None
        for place, (key, delta, total) in enumerate(_SUMS):
            values, missing = self._counts(batch, delta, total)
            if values is None:
                continue
            if missing is None:
                seen |= 1 << place
            else:
                values = np.where(missing, np.uint64(0), values)
                bit = np.where(missing, np.uint64(0), np.uint64(1 << place))
                partly = bit if partly is None else partly | bit
            group.add(key, entries, places, share(batch, values))
        group.see(seen, partly, places, new)
        self._times(group, places, batch)
        for state in group.states:
            found = self._plugin.find(batch, state.wish.of)
            if found is not None:
                others = found.missing if counting is None else _either(found.missing, ~counting)
                state.add(entries, found.values, others)

    def _counts(self, batch: Batch, delta: str, total: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What one counter adds: the delta, else the total where the record is the flow's last; and what is missing."""
        deltas = self._plugin.find(batch, delta)
        if deltas is not None and deltas.missing is None:
            return deltas.values.astype(np.uint64, copy=False), None
        totals = self._plugin.find(batch, total)
        if totals is None:
            return (None, None) if deltas is None else (deltas.values.astype(np.uint64), deltas.missing)
        values = totals.values.astype(np.uint64, copy=False)
        missing = totals.missing
        reason = self._plugin.find(batch, "flowEndReason")
        if reason is not None and (reason.values == _ACTIVE_TIMEOUT).any():
            interim = reason.values == _ACTIVE_TIMEOUT
            missing = interim if missing is None else missing | interim
        if deltas is not None:
            values = np.where(deltas.missing, values, deltas.values.astype(np.uint64))
            missing = None if missing is None else missing & deltas.missing
        return values, missing

    def _times(self, group: Group, places: np.ndarray, batch: Batch) -> None:
        start = self._plugin.find(batch, "flowStartMilliseconds")
        if start is not None:
            values = start.values if start.missing is None else np.where(start.missing, _NEVER, start.values)
            np.minimum.at(group.table.flat, places + group.places[FIRST], values.astype(np.uint64, copy=False))
        end = self._plugin.find(batch, "flowEndMilliseconds")
        if end is not None:
            values = end.values if end.missing is None else np.where(end.missing, np.uint64(0), end.values)
            np.maximum.at(group.table.flat, places + group.places[LAST], values.astype(np.uint64, copy=False))

    def batches(self, interval_key: Key, start: int, now: float) -> Iterator[Batch]:
        """The rows of this interval, a batch for each kind of group; ends the tally."""
        plugin = self._plugin
        wanted = frozenset((*plugin.wanted, *self._names, *((plugin.config.by,) if plugin.config.top else ())))
        for present, group in self.groups.items():
            if not group.table.n:
                continue
            if present != OTHER:
                self._expected[present] = group.table.n
            yield self._batch(group, interval_key, start, now, wanted, 1, group.table.n + 1)
        self.groups = {}

    def peek(self, interval_key: Key, start: int, now: float, wanted: Wanted) -> Iterator[Batch]:
        """The rows of this interval as they are now, with the `wanted` columns only, in slices; the tally goes on."""
        for group in list(self.groups.values()):
            stop = group.table.n + 1
            for first in range(1, stop, PEEKED_AT_ONCE):
                yield self._batch(group, interval_key, start, now, wanted, first, min(first + PEEKED_AT_ONCE, stop))

    def _batch(
        self, group: Group, interval_key: Key, start: int, now: float, wanted: Wanted, first: int, stop: int
    ) -> Batch:
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
        if interval_key.name in wanted:
            columns[interval_key] = repeated(start, stop - first, np.dtype("I"))
        schema = Schema(list(columns))
        return Batch(schema, {k.name: c for k, c in columns.items()}, missing, n=stop - first, now=now)

    def _worked_out(
        self, group: Group, wanted: Wanted, first: int, stop: int
    ) -> Iterator[tuple[Key, np.ndarray, np.ndarray]]:
        """Key, column and mask of the missing rows of each value of these entries."""
        seen = group.values(_SEEN, first, stop)
        sums = {key: place for place, (key, *_) in enumerate(_SUMS)}
        for key in VALUES:
            if key.name in wanted:
                column = group.values(key, first, stop)
                nothing = _NEVER if key is FIRST else 0
                yield key, column, (seen & np.uint64(1 << sums[key])) == 0 if key in sums else column == nothing
        for state in group.states:
            if state.wish.name in wanted:
                column, absent = state.results(first, stop)
                key = state.wish.key
                yield key, column.astype(key.type.dtype), absent


def _either(missing: np.ndarray | None, others: np.ndarray) -> np.ndarray:
    return others if missing is None else missing | others
