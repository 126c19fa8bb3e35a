"""The last totals of flows, and the records of a batch in the order of their flows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.amounts import Amount
from ulogd_tw.core.key_table import KeyTable
from ulogd_tw.core.keys import SUMS

_END_BITS = np.uint64(44)
_LAST_END = np.uint64((1 << 44) - 1)
"""Milliseconds until 2527."""
_END = 1 + len(SUMS)
"""Place of the last record's end in a row of a table; totals stand between it and the hash. 0: there was no record."""


@dataclass(slots=True)
class RowTotals:
    """The totals of rows: their `values`, a mask of the rows `there`, and the amount that counts in each row."""

    values: np.ndarray
    there: np.ndarray
    chosen: Amount


class RememberedFlows:
    """The last totals of at most `most` flows; beyond that, the oldest ones are forgotten.

    There are two tables: a full new one becomes the old one, and flows reported again move to the new one.
    """

    def __init__(self, most: int) -> None:
        self.at_once = max(most // 2, 1)
        """Rows of one call at most."""
        self._tables: tuple[KeyTable, KeyTable] | None = None
        """The new and the old one, once there are totals."""

    @property
    def nbytes(self) -> int:
        """Octets of memory in use."""
        return 0 if self._tables is None else sum(table.nbytes for table in self._tables)

    def _empty(self) -> KeyTable:
        return KeyTable(1, self.at_once, values=_END)

    def remembers(self, hashes: np.ndarray) -> np.ndarray:
        """Which of the flows with these hashes are remembered."""
        found = np.zeros(len(hashes), bool)
        for table in self._tables or ():
            entries = table.entries([hashes], 0)
            found |= (entries > 0) & (table.flat.take(entries * table.stride + _END) > 0)
        return found

    def runs(self, hashes: np.ndarray) -> Runs:
        """The rows of the flows with these hashes, with the totals remembered."""
        new, old = self._tables or (self._empty(), self._empty())
        before = new.n
        entries = new.entries([hashes])
        _copy(old, new, before)
        if not entries.all():
            old, new = new, self._empty()
            entries = new.entries([hashes])
            _copy(old, new, 0)
        self._tables = new, old
        return Runs(entries, new)


def _copy(old: KeyTable, new: KeyTable, before: int) -> None:
    """Set the values of the entries of `new` beyond `before` from the same flows in `old`."""
    rows = new.flat[(before + 1) * new.stride : (new.n + 1) * new.stride].reshape(-1, new.stride)
    if len(rows):
        known = old.entries([np.ascontiguousarray(rows[:, 0])], 0)
        values = old.flat.reshape(-1, old.stride)
        rows[:, 1:] = np.where(known[:, None] > 0, values[known, 1:], np.uint64(0))


class Runs:
    """Rows in the order of their flows. In a run of rows totals go on from one to the next; `anew` rows begin one."""

    def __init__(self, entries: np.ndarray, table: KeyTable) -> None:
        self._order = np.argsort(entries, kind="stable")
        entries = entries[self._order]
        self._flat, self._rows = table.flat, entries * table.stride
        self.first = np.append(True, entries[1:] != entries[:-1])
        """The first row of each flow."""
        self._last = np.append(self.first[1:], True)
        self.unseen = self.first & (self._flat.take(self._rows + _END) == 0)
        """The first row of each flow that was not remembered."""
        self.anew = self.unseen.copy()
        self._begin_runs()

    def _begin_runs(self) -> None:
        """The first row of its run, for each row."""
        starts = np.where(self.first | self.anew, np.arange(len(self.first)), 0)
        self._run = np.maximum.accumulate(starts)

    def sorted(self, column: np.ndarray) -> np.ndarray:
        """A column in the order of the flows."""
        return column[self._order]

    def begin_anew(self, rows: np.ndarray) -> None:
        """Totals begin anew at these rows (a mask in the order of the flows) too."""
        self.anew |= rows
        self._begin_runs()

    def ended_before(self, ends: np.ndarray) -> np.ndarray:
        """The end of the record before each row, of these `ends` in the order of the flows."""
        return np.where(self.first, self._flat.take(self._rows + _END), np.roll(ends, 1))

    def ended_earlier(self, ends: np.ndarray) -> np.ndarray:
        """The rows that end before an earlier row of their flow, by `ends` in the order of the flows; 0: no end."""
        flow = np.cumsum(self.first).astype(np.uint64) << _END_BITS
        latest = np.maximum.accumulate(flow | np.minimum(self.ended_before(ends), _LAST_END))
        return (ends > 0) & (flow | np.minimum(ends, _LAST_END) < latest)

    def note_ends(self, ends: np.ndarray) -> None:
        """Remember the ends of the last records."""
        self._flat[self._rows[self._last] + _END] = np.maximum(ends[self._last], 1)

    def note_latest(self, ends: np.ndarray) -> None:
        """Remember the latest end of each flow."""
        places = self._rows + _END
        np.maximum.at(self._flat, places, np.maximum(ends, np.uint64(1)))

    def forget(self, rows: np.ndarray) -> None:
        """Forget the flows whose last row is one of these (a mask in the order of the flows)."""
        self._flat[self._rows[self._last & rows] + _END] = 0

    def fallen(self, totals: Mapping[int, RowTotals]) -> np.ndarray:
        """The rows of which any total is smaller than before, in the order of the flows."""
        found = np.zeros(len(self.first), bool)
        for place, total in totals.items():
            values, there, before, _ = self._compared(place + 1, total)
            found |= there & (values < before)
        return found

    def behind(self, totals: Mapping[int, RowTotals], rows: np.ndarray) -> np.ndarray:
        """Of these rows those of which any total is smaller than the one before, other than of these rows."""
        found = np.zeros(len(rows), bool)
        for place, total in (self.without(totals, rows) if rows.any() else {}).items():
            values, _, before, _ = self._compared(place + 1, total)
            found |= rows & self.sorted(totals[place].there) & (values < before)
        return found

    def without(self, totals: Mapping[int, RowTotals], rows: np.ndarray) -> dict[int, RowTotals]:
        """The totals, but for these rows (a mask in the order of the flows), which add nothing."""
        if not rows.any():
            return dict(totals)
        kept = np.empty_like(rows)
        kept[self._order] = ~rows
        return {place: RowTotals(one.values, one.there & kept, one.chosen) for place, one in totals.items()}

    def differences(
        self, place: int, total: RowTotals, joins: np.ndarray | None = None, final: np.ndarray | None = None
    ) -> np.ndarray:
        """The amount of each row for the sum at this place, in the order of the batch; the last totals are remembered.

        Rows with a counter other than a total keep their value. Counts of the flows at `joins` from before are left
        out, and totals restart after `final` rows (masks in the order of the flows).
        """
        values, there, before, now = self._compared(place + 1, total)
        added = np.where(there, values - before, np.uint64(0))
        if joins is not None:
            added[joins] = 0
        if final is not None:
            now[final] = 0
        self._flat[self._rows[self._last] + place + 1] = now[self._last]
        found = np.empty_like(added)
        found[self._order] = added
        counted = total.chosen.totals
        return total.chosen.values if counted is None else np.where(counted, found, total.chosen.values)

    def _compared(self, place: int, total: RowTotals) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The values, the rows where they are totals, the total before each row, and the one then."""
        values, there = self.sorted(total.values), self.sorted(total.there)
        latest = np.maximum.accumulate(np.where(there, np.arange(len(values)), -1))
        earlier = np.append(-1, latest[:-1])
        begin = np.where(self.anew[self._run], np.uint64(0), self._flat.take(self._rows + place))
        before = np.where(earlier >= self._run, values[earlier], begin)
        return values, there, before, np.where(latest >= self._run, values[latest], begin)
