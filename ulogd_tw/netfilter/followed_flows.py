"""The flows alive in the kernel, as of its last dump; finds flows that ended without an event.

A dump is read into a new table while the previous one stays: `begin`, `add` for each part, `finish`. A flow in the old
table has ended if the dump lacks it and no event reported its end. Events come at any time (`born`, `ended`). The rows
of a dump are kept as columns of the wanted keys, to report the end of a flow without an event. Counters in reported
rows hold the increase since the previous row of the flow.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import repeated
from ulogd_tw.core.flow_end import ACTIVE
from ulogd_tw.core.key_table import KeyTable
from ulogd_tw.core.keys import ulogd_keys
from ulogd_tw.netfilter.ctnetlink import DESTROY

_TUPLE = ("ct.id", "orig.ip.saddr", "orig.ip.daddr", "orig.ip.protocol", "orig.l4.sport", "orig.l4.dport")
_START = "flowStartMilliseconds"
_COUNTERS = ("orig.raw.pktlen", "orig.raw.pktcount", "reply.raw.pktlen", "reply.raw.pktcount")
_DELTAS = ("octetDeltaCount", "packetDeltaCount", "reverseOctetDeltaCount", "reversePacketDeltaCount")
"""The same numbers under other names."""
FOLLOWED = frozenset({*_TUPLE, _START})
"""Keys needed in batches to follow flows; `REPORTED` too for reports of active flows."""
REPORTED = frozenset(_COUNTERS)
(END_REASON,) = ulogd_keys("flowEndReason")

_STATE, _SINCE, _TOLD = 1, 2, 3
"""Words of an entry after its key: the bits below; ms of the last report; the four counters at that time."""
_ENDED, _SEEN = np.uint64(1), np.uint64(2)
"""Bits: an event or a row reported its end; the present dump contains it too."""
_JOINED_ROWS, _JOINED_PARTS = 8192, 64
"""Small parts are joined from this number of rows or of parts on."""
_32 = np.uint64(32)
FACTORS = 12
"""Secret odd numbers of an identity, so that nobody can choose flows that share one."""


def _plain(batch: Batch, name: str) -> np.ndarray:
    """A column with 0 for missing values."""
    column = batch.columns[name]
    mask = batch.missing.get(name)
    if mask is None:
        return column
    return np.where(mask if column.ndim == 1 else mask[:, None], column.dtype.type(0), column)


class _Table:
    """Flows by identity, each with the words of `_STATE` and so on, and their rows in parts of equal schema."""

    def __init__(self, most: int, expected: int, words: int) -> None:
        self.keys = KeyTable(1, most, expected, words)
        self.ended = 0
        self._parts: list[tuple[np.ndarray, Batch]] = []
        self._small: dict[Schema, list[tuple[np.ndarray, Batch]]] = {}

    @property
    def alive(self) -> int:
        return self.keys.n - self.ended

    def find(self, identities: np.ndarray) -> np.ndarray:
        """The entry of each flow, 0 for unknown flows."""
        return self.keys.entries([identities], 0)

    def places(self, entries: np.ndarray, word: int) -> np.ndarray:
        """The place of a word of these entries in `keys.flat`."""
        return entries * self.keys.stride + word

    def mark(self, entries: np.ndarray, bit: np.uint64) -> None:
        """Set a bit of these entries. Entry 0 is none."""
        entries = entries[entries != 0]
        states = self.places(entries, _STATE)
        before = self.keys.flat[states]
        if bit == _ENDED:
            self.ended += len(np.unique(entries[before & _ENDED == 0]))
        self.keys.flat[states] = before | bit

    def has(self, entries: np.ndarray, bit: np.uint64) -> np.ndarray:
        """A mask of the entries with the bit; entry 0 has none."""
        return (entries != 0) & (self.keys.flat[self.places(entries, _STATE)] & bit != 0)

    def told(self, entries: np.ndarray) -> list[np.ndarray]:
        """The four counters last reported for each entry, 0 for entry 0."""
        flat, known = self.keys.flat, entries != 0
        return [np.where(known, flat[self.places(entries, _TOLD + place)], np.uint64(0)) for place in range(4)]

    def since(self, entries: np.ndarray) -> np.ndarray:
        """ms of the last report of each entry."""
        return self.keys.flat[self.places(entries, _SINCE)]

    def enter(self, identities: np.ndarray, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Entries for flows, 0 for flows without room; and the rows of new flows, in order."""
        before = self.keys.n
        entries = self.keys.entries([identities])
        for word in range(1, self.keys.stride):
            self.keys.column(word, before + 1)[:] = 0
        rows = np.flatnonzero(entries > before)
        if len(rows):
            kept, first = np.unique(entries[rows], return_index=True)
            rows = rows[first]
            self._keep(kept, batch.take(rows))
        return entries, rows

    def _keep(self, entries: np.ndarray, batch: Batch) -> None:
        if batch.n >= _JOINED_ROWS // 8:
            self._parts.append((entries, batch))
            return
        small = self._small.setdefault(batch.schema, [])
        small.append((entries, batch))
        if len(small) >= _JOINED_PARTS or sum(len(part) for part, _ in small) >= _JOINED_ROWS:
            del self._small[batch.schema]
            self._parts.append(_joined(small))

    def left(self) -> Iterator[tuple[np.ndarray, Batch]]:
        """Entries and rows of the flows without any bit set, a part at a time."""
        for entries, batch in [*self._parts, *map(_joined, self._small.values())]:
            alone = self.keys.flat[self.places(entries, _STATE)] == 0
            if alone.any():
                yield entries[alone], batch if alone.all() else batch.take(alone)

    def living(self) -> Iterator[tuple[Batch, np.ndarray]]:
        """Rows of the flows that are alive, each with the words of its report, a part at a time."""
        for entries, batch in [*self._parts, *map(_joined, self._small.values())]:
            alive = ~self.has(entries, _ENDED)
            words = [self.keys.flat[self.places(entries[alive], word)] for word in range(_SINCE, self.keys.stride)]
            if alive.any():
                found = np.stack(words, axis=1) if words else np.zeros((int(alive.sum()), 0), np.uint64)
                yield batch if alive.all() else batch.take(alive), found


def _joined(parts: list[tuple[np.ndarray, Batch]]) -> tuple[np.ndarray, Batch]:
    return np.concatenate([entries for entries, _ in parts]), Batch.joined([batch for _, batch in parts])


class Flows:
    """The followed flows, at most `most`.

    With `births` a flow's beginning may come as an event without start time. With `active_ms`, dumps report flows this
    long after their beginning or last report.
    """

    def __init__(self, most: int, births: bool = False, active_ms: int = 0) -> None:
        self.most = most
        self.beyond = 0
        """Flows of the last dump without room."""
        self._births = births
        self._identity = _TUPLE if births else (*_TUPLE, _START)
        self._active_ms = active_ms
        self._words = 6 if active_ms else 1
        self._now: _Table | None = None
        self._next: _Table | None = None
        self._late: list[np.ndarray] = []
        self._learning = self._zeroing = False
        self.factors = [secrets.randbits(64) | 1 for _ in range(FACTORS)]
        """The secret of the identities; that of an earlier run where its flows go on."""
        self.changes = 0
        """Grows with each flow that begins or ends."""
        self.on_end: Callable[[np.ndarray], None] = lambda identities: None
        """Takes the identities of flows whose end is reported next."""

    def __len__(self) -> int:
        """Number of flows alive, as far as is known."""
        return self._now.alive if self._now is not None else 0

    def __bool__(self) -> bool:
        """Whether events matter: flows are followed, or a dump is being read."""
        return self._next is not None or bool(self._now is not None and self._now.alive)

    @property
    def crowded(self) -> bool:
        """Whether a dump would make room: a table keeps ended flows until the next dump."""
        table = self._now
        return table is not None and table.keys.n > self.most // 2 and table.ended > table.alive

    def _identities(self, batch: Batch) -> np.ndarray:
        """64 bits to identify a flow: its id in the kernel has 32 bits, and two flows may share it."""
        found = np.zeros(batch.n, np.uint64)
        factors = map(np.uint64, self.factors)
        for name in self._identity:
            column = _plain(batch, name)
            for word in column.T if column.ndim == 2 else (column,):
                found ^= found >> _32
                found += (word.astype(np.uint64) + np.uint64(1)) * next(factors)
        found ^= found >> _32
        return found * np.uint64(self.factors[-1])

    # --- a dump -----------------------------------------------------------------------------------------------------

    def begin(self, learn: bool = True, zeroing: bool = False) -> None:
        """A dump begins. Without `learn` only flows already followed stay. `zeroing`: the dump resets counters."""
        self._next = _Table(self.most, len(self), self._words)
        self._late = []
        self._learning, self._zeroing = learn, zeroing
        self.beyond = 0

    def add(self, batch: Batch, now_ms: int) -> Batch | None:
        """Add rows of the dump. Returns rows to report for active flows, with counters since the previous row."""
        identities = self._identities(batch)
        known, alive = self._find(identities)
        if not alive.all():
            batch, identities, known = batch.take(alive), identities[alive], known[alive]
        told = self._since_told(batch, known) if self._zeroing else None
        if self._zeroing:
            batch = _replaced(batch, {name: repeated(0, batch.n, np.uint64) for name in (*_COUNTERS, *_DELTAS)})
        if not self._learning:
            old = known != 0
            batch, identities, known = batch.take(old), identities[old], known[old]
        entries, fresh = self._next.enter(identities, batch)
        self.beyond += int(np.count_nonzero(entries == 0))
        if self._active_ms and len(fresh):
            entries, batch, identities = entries[fresh], batch.take(fresh), identities[fresh]
            self._carry(entries, batch, known[fresh], now_ms)
            if not self._zeroing:
                return self._due(entries, batch, identities, now_ms)
        return told

    def _find(self, identities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The old entries of flows in the dump, and a mask of flows still alive.

        A flow whose end was reported by an event is not alive, even if the kernel had it in its table a moment longer.
        """
        table = self._now
        if table is None:
            return np.zeros(len(identities), np.int64), np.ones(len(identities), bool)
        known = table.find(identities)
        table.mark(known, _SEEN)
        return known, ~table.has(known, _ENDED)

    def _since_told(self, batch: Batch, known: np.ndarray) -> Batch:
        """The increase of each flow's counters since its previous row."""
        return _less(batch, self._now.told(known)) if self._active_ms and known.any() else batch

    def _carry(self, entries: np.ndarray, batch: Batch, known: np.ndarray, now_ms: int) -> None:
        """Copy the time and counters of the last report from the old table to new entries."""
        table = self._next
        start = _plain(batch, _START)
        since = np.where((start == 0) | (start > np.uint64(now_ms)), np.uint64(now_ms), start)
        if self._zeroing:
            since[:] = now_ms
        elif known.any():
            since = np.where(known == 0, since, self._now.since(known))
            for place, told in enumerate(self._now.told(known)):
                table.keys.flat[table.places(entries, _TOLD + place)] = told
        table.keys.flat[table.places(entries, _SINCE)] = since

    def _due(self, entries: np.ndarray, batch: Batch, identities: np.ndarray, now_ms: int) -> Batch | None:
        """The rows of flows with an old enough last report and packets since then."""
        table = self._next
        due = table.since(entries) + np.uint64(self._active_ms) <= now_ms
        moved = np.zeros(batch.n, bool)
        for name, before in zip(_COUNTERS, table.told(entries), strict=True):
            moved |= batch.columns[name] != before
            if name in batch.missing:
                due &= ~batch.missing[name]
        # Flows whose end was reported by an event meanwhile are complete.
        due &= moved & ~np.isin(identities, np.concatenate(self._late) if self._late else [])
        if not due.any():
            return None
        entries, batch = entries[due], batch.take(due)
        told = self._without_told(table, entries, batch)
        for place, name in enumerate(_COUNTERS):
            table.keys.flat[table.places(entries, _TOLD + place)] = batch.columns[name]
        table.keys.flat[table.places(entries, _SINCE)] = now_ms
        return told

    def finish(self) -> Iterator[Batch]:
        """The dump is complete: returns the rows of vanished flows, as ends, a part at a time."""
        old, self._now, self._next = self._now, self._next, None
        for identities in self._late:
            self._now.mark(self._now.find(identities), _ENDED)
        self._late = []
        self.changes += 1
        return self._gone(old) if old is not None else iter(())

    def _gone(self, table: _Table) -> Iterator[Batch]:
        for entries, batch in table.left():
            self.on_end(self._identities(batch))
            yield self._without_told(table, entries, _as_end(batch))

    def abandon(self) -> None:
        """The dump failed: the old table stays."""
        self._next = None
        self._late = []
        if self._now is not None:
            states = self._now.keys.column(_STATE)
            states &= ~_SEEN

    # --- over a restart ---------------------------------------------------------------------------------------------

    def living(self) -> Iterator[tuple[Batch, np.ndarray]]:
        """The flows that are alive, for `restore`: rows, and uint64 (n, words) for each; a part at a time.

        Flows that begin or end meanwhile may be in it or not.
        """
        for table in (self._now, self._next if self._births else None):
            if table is not None:
                yield from table.living()

    def restore(self, batch: Batch, words: np.ndarray) -> None:
        """Flows of an earlier run, before the first dump is read. Raises KeyError where they cannot be followed."""
        if self._now is None:
            self._now = _Table(self.most, batch.n, self._words)
        table = self._now
        entries, fresh = table.enter(self._identities(batch), batch)
        for place in range(min(self._words - 1, words.shape[1])):
            table.keys.flat[table.places(entries[fresh], _SINCE + place)] = words[fresh, place]

    def forget(self, identities: np.ndarray) -> None:
        """Restored flows whose end the earlier run has reported."""
        if self._now is not None:
            self._now.mark(self._now.find(identities), _ENDED)

    # --- events -----------------------------------------------------------------------------------------------------

    def born(self, batch: Batch) -> None:
        """Flows that have begun, by events."""
        table = self._next or self._now
        if table is not None and batch.n:
            self.changes += 1
            entries, fresh = table.enter(self._identities(batch), batch)
            self.beyond += int(np.count_nonzero(entries == 0))
            if self._active_ms and len(fresh):
                table.keys.flat[table.places(entries[fresh], _SINCE)] = _plain(batch, _START)[fresh]

    def clock_set(self, step_ms: int) -> None:
        """The wall clock was set by so much: the time since a flow was reported stays as it was."""
        for table in (self._now, self._next):
            if table is not None and self._active_ms:
                since = table.keys.column(_SINCE)
                moved = since.astype(np.int64) + step_ms
                since[:] = np.where(since == 0, 0, np.maximum(moved, 1)).astype(np.uint64)

    def ended(self, batch: Batch) -> Batch:
        """Flows that have ended, by events; returns them with the counts since the previous row."""
        identities = self._identities(batch)
        self.changes += 1
        self.on_end(identities)
        if self._next is not None:
            self._late.append(identities)
        for table in (self._now, self._next):
            if table is not None:
                table.mark(table.find(identities), _ENDED)
        return self._rest(batch, identities) if self._active_ms else batch

    def _rest(self, batch: Batch, identities: np.ndarray) -> Batch:
        """The counts since the last report; the present dump may have made that report."""
        tables = [table for table in (self._next, self._now) if table is not None]
        for table in tables:
            entries = table.find(identities)
            batch = self._without_told(table, entries, batch)
            identities = np.where(entries == 0, identities, np.uint64(0))
        return batch

    def _without_told(self, table: _Table, entries: np.ndarray, batch: Batch) -> Batch:
        if not self._active_ms:
            return batch
        told = table.told(entries)
        reported = np.logical_or.reduce([column != 0 for column in told])
        return _from(_less(batch, told), table.since(entries), reported) if reported.any() else batch


def _replaced(batch: Batch, columns: dict[str, np.ndarray], missing: dict[str, np.ndarray] | None = None) -> Batch:
    """The same batch with other values in some columns; columns not in the batch are left out."""
    columns = {name: column for name, column in columns.items() if name in batch.columns}
    masks = {name: mask for name, mask in batch.missing.items() if name not in (missing or {})}
    masks |= {name: mask for name, mask in (missing or {}).items() if name in batch.columns}
    return Batch(batch.schema, batch.columns | columns, masks, n=batch.n, now=batch.now, held=batch.held)


def _less(batch: Batch, told: list[np.ndarray]) -> Batch:
    """The counters minus the counters reported before; a smaller counter was set to 0 meanwhile."""
    found = {}
    for counter, delta, before in zip(_COUNTERS, _DELTAS, told, strict=True):
        if counter in batch.columns:
            column = batch.columns[counter]
            found[counter] = found[delta] = np.where(column >= before, column - before, column)
    return _replaced(batch, found)


def _times(ms: np.ndarray, edge: str) -> dict[str, np.ndarray]:
    thousand = np.uint64(1000)
    return {
        f"flow.{edge}.sec": (ms // thousand).astype(np.uint32),
        f"flow.{edge}.usec": (ms % thousand * thousand).astype(np.uint32),
        f"flow{edge.title()}Milliseconds": ms,
    }


def _from(batch: Batch, since_ms: np.ndarray, rows: np.ndarray) -> Batch:
    """These rows begin at the end of the previous report."""
    found, missing = {}, {}
    for name, column in _times(since_ms, "start").items():
        if name in batch.columns:
            found[name] = np.where(rows, column, batch.columns[name])
            if name in batch.missing:
                missing[name] = batch.missing[name] & ~rows
    return _replaced(batch, found, missing)


def _as_end(batch: Batch) -> Batch:
    """The last known rows of flows as their ends, without an end time."""
    return _replaced(batch, {"ct.event": repeated(DESTROY, batch.n, np.uint32)})


def interim(batch: Batch, now_ms: int, with_reason: bool) -> Batch:
    """Reports of active flows up to now; flowEndReason marks them as not the last."""
    times = _times(repeated(now_ms, batch.n, np.uint64), "end")
    empty = {name: np.zeros(batch.n, bool) for name in times if name in batch.missing}
    batch = _replaced(batch, times, empty)
    if not with_reason:
        return batch
    return batch.with_columns({END_REASON: repeated(ACTIVE, batch.n, np.uint8)})
