"""Totals of flows that are told again and again, made into what was counted since the last time.

A flow is known by the exporter and its domain, and by whatever of addresses, ports, protocol, interfaces, VLAN, flow
id and direction its records have. Its totals begin anew where they are smaller than the last ones, where it started
after the last record's end, and after a record that was its last (flowEndReason, RFC 5102 section 5.11.3).
"""

from __future__ import annotations

import secrets

import numpy as np

from ulogd_tw.aggregation.group_table import SUMS
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.flow_end import ACTIVE
from ulogd_tw.core.hashes import of_rows
from ulogd_tw.core.key_table import KeyTable
from ulogd_tw.core.keys import known
from ulogd_tw.core.resolve import Find, Found

IDENTITY = ("exporter", "exporter_port", "observationDomainId", "flowId", "sourceAddress", "destinationAddress",
            "protocolIdentifier", "sourceTransportPort", "destinationTransportPort", "ingressInterface", "vlanId",
            "flowDirection")  # fmt: skip
START, END, REASON = "flowStartMilliseconds", "flowEndMilliseconds", "flowEndReason"
ASKS = (*IDENTITY, START, END, REASON)
_END = 1 + len(SUMS)
"""Place of the last record's end in a row of a table; totals stand between it and the hash. 0: there was no record."""


DELTAS = {name: key for _, name, _ in SUMS if (key := known(name)) is not None}
"""The keys that differences are put in."""


class Totals:
    """The last totals of at most `most` flows; when there are more, those are forgotten that were not told for longest.

    There are two tables: when the new one is full it becomes the old one, and what is told again moves on.
    """

    def __init__(self, find: Find, most: int) -> None:
        self._find = find
        self._most = max(most // 2, 1)
        self._secret = np.uint64(secrets.randbits(64))
        self._new, self._old = self._empty(), self._empty()
        self._since: float | None = None
        self.joined = 0
        """Rows of flows that had begun before the first row came: what they had counted until then is left out."""

    def _empty(self) -> KeyTable:
        return KeyTable(1, self._most, values=_END)

    @property
    def nbytes(self) -> int:
        """Octets of memory in use."""
        return self._new.nbytes + self._old.nbytes

    def differenced(self, batch: Batch) -> Batch:
        """The batch with deltas where it has totals only."""
        if self._since is None:
            self._since = batch.now
        since = int(self._since * 1000)
        if not any(self._find(batch, total) for _, _, total in SUMS):
            return batch
        slices = [slice(first, first + self._most) for first in range(0, batch.n, self._most)]
        parts = [self._differenced(batch if len(slices) == 1 else batch.take(part), since) for part in slices]
        return parts[0] if len(parts) == 1 else Batch.joined(parts)

    def _differenced(self, batch: Batch, since: int) -> Batch:
        """As `differenced`, for no more rows than a table has room for."""
        entries = self._entries(batch)
        found_totals = {place: self._find(batch, total) for place, (_, _, total) in enumerate(SUMS, 1)}
        totals = {place: found for place, found in found_totals.items() if found is not None}
        records = _Records(batch, self._find, entries, self._new, since)
        records.begin_anew(totals)
        self.joined += int(np.count_nonzero(records.joins))
        columns, missing = {}, {}
        for place, found in totals.items():
            name = SUMS[place - 1][1]
            values, delta = records.differences(place, found), self._find(batch, name)
            if delta is not None and delta.missing is None:
                continue
            absent = found.missing if found.missing is not None else np.zeros(batch.n, bool)
            if delta is not None and delta.missing is not None:
                values = np.where(delta.missing, values, delta.numbers.astype(np.uint64))
                absent = absent & delta.missing
            columns[DELTAS[name]] = values
            if absent.any():
                missing[name] = absent
        return batch.with_columns(columns, missing)

    def _entries(self, batch: Batch) -> np.ndarray:
        """The entry of each row's flow in the new table, which has what the old one had of it."""
        hashed = of_rows((self._find(batch, name) for name in IDENTITY), batch.n, self._secret)
        before = self._new.n
        entries = self._new.entries([hashed])
        self._begin(before)
        if not entries.all():
            self._old, self._new = self._new, self._empty()
            entries = self._new.entries([hashed])
            self._begin(0)
        return entries

    def _begin(self, before: int) -> None:
        """Set the values of the entries beyond `before`."""
        stride = self._new.stride
        rows = self._new.flat[(before + 1) * stride : (self._new.n + 1) * stride].reshape(-1, stride)
        if len(rows):
            known_ = self._old.entries([np.ascontiguousarray(rows[:, 0])], 0)
            old = self._old.flat.reshape(-1, stride)
            rows[:, 1:] = np.where(known_[:, None] > 0, old[known_, 1:], np.uint64(0))


class _Records:
    """The rows of a batch in the order of their flows, and where the totals of a flow begin anew."""

    def __init__(self, batch: Batch, find: Find, entries: np.ndarray, table: KeyTable, since: int) -> None:
        self._order = order = np.argsort(entries, kind="stable")
        entries = entries[order]
        self._flat, self._rows = table.flat, entries * table.stride
        self._first = first = np.append(True, entries[1:] != entries[:-1])
        self._last = np.append(first[1:], True)
        starts = self._column(find(batch, START), 0)
        ends = self._column(find(batch, END), int(batch.now * 1000))
        reasons = self._column(find(batch, REASON), 0)
        self._final = (reasons != 0) & (reasons != ACTIVE)
        before = np.where(first, self._flat.take(self._rows + _END), np.roll(ends, 1))
        unseen = first & (before == 0)
        self._anew = unseen | (starts > before) | ~first & np.roll(self._final, 1)
        self._runs()
        joins = unseen & (reasons == ACTIVE) & (starts < since) & (starts > 0)
        self.joins = joins
        self._flat[self._rows[self._last] + _END] = np.maximum(ends[self._last], 1)

    def _runs(self) -> None:
        """The first row of those whose totals go on from one to the next, for each row."""
        self._run = np.maximum.accumulate(np.where(self._first | self._anew, np.arange(len(self._first)), 0))

    def begin_anew(self, totals: dict[int, Found]) -> None:
        """All totals of a flow begin anew where one of them is smaller than it was."""
        for place, total in totals.items():
            values, there, before, _ = self._compared(place, total)
            self._anew |= there & (values < before)
        self._runs()

    def _column(self, found: Found | None, nothing: int) -> np.ndarray:
        """The values in order, `nothing` where there is none."""
        if found is None:
            return np.full(len(self._order), nothing, np.uint64)
        return found.filled(nothing).astype(np.uint64)[self._order]

    def differences(self, place: int, total: Found) -> np.ndarray:
        """What each row adds to the total at this place of a flow, in the order of the batch; and note the last one."""
        values, there, before, now = self._compared(place, total)
        added = np.where(there, values - before, np.uint64(0))
        added[self.joins] = 0
        now[self._final] = 0
        self._flat[self._rows[self._last] + place] = now[self._last]
        found = np.empty_like(added)
        found[self._order] = added
        return found

    def _compared(self, place: int, total: Found) -> tuple[np.ndarray, ...]:
        """The totals, where there is one, what it was before each row, and what it is then."""
        values = self._column(total, 0)
        there = np.ones(len(values), bool) if total.missing is None else ~total.missing[self._order]
        latest = np.maximum.accumulate(np.where(there, np.arange(len(values)), -1))
        earlier = np.append(-1, latest[:-1])
        begin = np.where(self._anew[self._run], np.uint64(0), self._flat.take(self._rows + place))
        before = np.where(earlier >= self._run, values[earlier], begin)
        return values, there, before, np.where(latest >= self._run, values[latest], begin)
