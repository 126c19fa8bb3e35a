"""The tables of one interval of an AGGREGATE: groups of equal keys and what is added up for each."""

from __future__ import annotations

from collections.abc import Iterator
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

if TYPE_CHECKING:
    from ulogd_tw.core.plugin import Plugin

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
_NEVER = np.uint64(0xFFFFFFFFFFFFFFFF)
_OTHER = "other"


class Overflow(Enum):
    """What a new key does when the table is full."""

    EMIT = "emit"
    OTHER = "other"
    REFUSE = "refuse"


class _Group:
    """One table: the rows whose present keys are the same, held in the same types."""

    def __init__(self, present: tuple[Key, ...], dictionaries: dict[str, Dictionary], capacity: int, expected: int):
        self.packing = Packing(present, dictionaries)
        self.table = KeyTable(self.packing.words, capacity, expected)
        self.sums = {key: np.empty(capacity, np.uint64) for key, *_ in _SUMS}
        self.flows = np.empty(capacity, np.uint64)
        self.first = np.empty(capacity, np.uint64)
        self.last = np.empty(capacity, np.uint64)
        self.seen = np.empty(capacity, np.uint8)
        """Bit i: the sum of `_SUMS[i]` had a value at least once; without one it is NULL."""
        self._used = 0

    def begin(self) -> None:
        """Set the values of entries that are new."""
        new = slice(self._used, self.table.n)
        for column in (*self.sums.values(), self.flows, self.last, self.seen):
            column[new] = 0
        self.first[new] = _NEVER
        self._used = self.table.n


class Tally:
    """All groups of one interval, at most as many as their caller allows."""

    def __init__(self, plugin: Plugin, overflow: Overflow, expected: dict[object, int]) -> None:
        self._plugin = plugin
        self._names: tuple[str, ...] = plugin.key_names
        self._overflow = overflow
        self._expected = expected
        """Entries of the last interval by kind of group, to size the next one's tables."""
        self._capacity: int = plugin.config.max_keys + 1  # one more for the rest of overflow=other
        self._groups: dict[object, _Group] = {}
        self._dictionaries = {name: Dictionary(self._capacity) for name in self._names}

    def __len__(self) -> int:
        return sum(group.table.n for group in self._groups.values())

    @property
    def nbytes(self) -> int:
        """Octets of memory in use."""
        values = 8 * (len(_SUMS) + 3) + 1
        return sum(group.table.nbytes + values * group.table.n for group in self._groups.values())

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

    def _group(self, found: dict[str, Found]) -> _Group:
        present = tuple(Key(name, packed_type(name, f.key), f.key.elements) for name, f in found.items())
        group = self._groups.get(present)
        if group is None:
            expected = self._expected.get(present, 0)
            group = self._groups[present] = _Group(present, self._dictionaries, self._capacity, expected)
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
        group.begin()
        beyond = entries < 0
        if not beyond.any():
            self._merge(group, entries, batch)
            return None
        self._merge(group, entries[~beyond], batch.take(~beyond))
        rest = batch.take(beyond)
        if self._overflow is Overflow.EMIT:
            return rest
        if self._overflow is Overflow.REFUSE:
            counters.dropped["max_keys"] += rest.n
            return None
        other = self._groups.get(_OTHER)
        if other is None:
            other = self._groups[_OTHER] = _Group((), self._dictionaries, 1, 1)
        entries = other.table.entries([np.zeros(rest.n, np.uint64)])
        other.begin()
        counters.more["rows_other"] = counters.more.get("rows_other", 0) + rest.n
        self._merge(other, entries, rest)
        return None

    def _merge(self, group: _Group, entries: np.ndarray, batch: Batch) -> None:
        """Add the values of the rows to their entries."""
        self._plugin.counters.rows_merged += batch.n
        if not batch.n:
            return
        np.add.at(group.flows, entries, np.ones(batch.n, np.uint64))
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
                bit = np.where(missing, np.uint8(0), np.uint8(1 << place))
                partly = bit if partly is None else partly | bit
            np.add.at(group.sums[key], entries, values)
        if partly is not None:
            np.bitwise_or.at(group.seen, entries, partly)
        if seen and not ((group.seen.take(entries) & seen) == seen).all():
            group.seen[entries] |= np.uint8(seen)
        self._times(group, entries, batch)

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

    def _times(self, group: _Group, entries: np.ndarray, batch: Batch) -> None:
        start = self._plugin.find(batch, "flowStartMilliseconds")
        if start is not None:
            values = start.values if start.missing is None else np.where(start.missing, _NEVER, start.values)
            np.minimum.at(group.first, entries, values.astype(np.uint64, copy=False))
        end = self._plugin.find(batch, "flowEndMilliseconds")
        if end is not None:
            values = end.values if end.missing is None else np.where(end.missing, np.uint64(0), end.values)
            np.maximum.at(group.last, entries, values.astype(np.uint64, copy=False))

    def batches(self, interval_key: Key, start: int, now: float) -> Iterator[Batch]:
        """The rows of this interval, a batch for each kind of group; ends the tally."""
        for present, group in self._groups.items():
            if not group.table.n:
                continue
            if present != _OTHER:
                self._expected[present] = group.table.n
            yield self._batch(group, interval_key, start, now)
        self._groups = {}

    def _batch(self, group: _Group, interval_key: Key, start: int, now: float) -> Batch:
        n = group.table.n
        keys = group.packing.unpack([w[:n] for w in group.table.words])
        by_name = {key.name: (key, column) for key, column in keys.items()}
        wanted = self._plugin.wanted
        columns: dict[Key, Column] = {}
        for name in self._names:
            if name in by_name:
                columns[by_name[name][0]] = by_name[name][1]
        missing: dict[str, np.ndarray] = {}
        seen = group.seen[:n]
        sums = {key: place for place, (key, *_) in enumerate(_SUMS)}
        for key in VALUES:
            if key.name not in wanted:
                continue
            if key in sums:
                column = group.sums[key][:n]
                absent = (seen & (1 << sums[key])) == 0
            else:
                column = {FLOWS: group.flows, FIRST: group.first, LAST: group.last}[key][:n]
                absent = column == (_NEVER if key is FIRST else 0)
            if absent.all():
                continue
            columns[key] = column
            if absent.any():
                missing[key.name] = absent
        if interval_key.name in wanted:
            columns[interval_key] = repeated(start, n, np.dtype("I"))
        schema = Schema(list(columns))
        return Batch(schema, {k.name: c for k, c in columns.items()}, missing, n=n, now=now)
