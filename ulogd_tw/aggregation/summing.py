"""What the rows of a batch add to the entries of a group: counters, times, functions."""

from __future__ import annotations

import numpy as np

from ulogd_tw.aggregation.flow_time import ended, ending, share
from ulogd_tw.aggregation.group_table import FIRST, FLOWS, LAST, NEVER, SUMS, Group
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.flow_end import ACTIVE
from ulogd_tw.core.resolve import Find


class Summing:
    """Adds rows to groups; `find` gives their columns. `aged`: groups note when their first row came."""

    def __init__(self, find: Find, counters: Counters, aged: bool) -> None:
        self.find = find
        self.counters = counters
        self.aged = aged

    def add(self, group: Group, entries: np.ndarray, batch: Batch, new: slice) -> None:
        """Add the values of the rows to their entries, of which those in `new` are new."""
        self.counters.rows_merged += ended(batch)
        if self.aged and new.stop > new.start:
            group.born(new, int(batch.now * 1000))
        if not batch.n:
            return
        places = entries * group.table.stride
        counting = ending(batch)
        flows = np.ones(batch.n, np.uint64) if counting is None else counting.astype(np.uint64)
        group.add(FLOWS, entries, places, flows)
        self._sums(group, entries, places, batch, new)
        self._times(group, places, batch)
        for state in group.states:
            found = self.find(batch, state.spec.of)
            if found is not None:
                others = found.missing if counting is None else _either(found.missing, ~counting)
                state.add(entries, found.values, others)

    def _sums(self, group: Group, entries: np.ndarray, places: np.ndarray, batch: Batch, new: slice) -> None:
        """Add the counters, and note which of them the rows have."""
        seen = 0
        partly = None
        for place, (key, delta, total) in enumerate(SUMS):
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

    def _counts(self, batch: Batch, delta: str, total: str) -> tuple[np.ndarray | None, np.ndarray | None]:
        """What one counter adds, and what is missing: the delta, else the total of the flow's last record."""
        deltas = self.find(batch, delta)
        if deltas is not None and deltas.missing is None:
            return deltas.numbers.astype(np.uint64, copy=False), None
        totals = self.find(batch, total)
        if totals is None:
            return (None, None) if deltas is None else (deltas.numbers.astype(np.uint64), deltas.missing)
        values = totals.numbers.astype(np.uint64, copy=False)
        missing = totals.missing
        reason = self.find(batch, "flowEndReason")
        if reason is not None and (interim := reason.known(reason.numbers == ACTIVE)).any():
            missing = interim if missing is None else missing | interim
        if deltas is not None and deltas.missing is not None:
            values = np.where(deltas.missing, values, deltas.numbers.astype(np.uint64))
            missing = None if missing is None else missing & deltas.missing
        return values, missing

    def _times(self, group: Group, places: np.ndarray, batch: Batch) -> None:
        start = self.find(batch, "flowStartMilliseconds")
        if start is not None:
            values = start.filled(NEVER)
            np.minimum.at(group.table.flat, places + group.places[FIRST], values.astype(np.uint64, copy=False))
        end = self.find(batch, "flowEndMilliseconds")
        if end is not None:
            values = end.filled(0)
            np.maximum.at(group.table.flat, places + group.places[LAST], values.astype(np.uint64, copy=False))


def _either(missing: np.ndarray | None, others: np.ndarray) -> np.ndarray:
    return others if missing is None else missing | others
