"""Adds the rows of a batch to the entries of a group: counters, times, functions."""

from __future__ import annotations

import numpy as np

from ulogd_tw.aggregation.flow_time import ended, ending, share
from ulogd_tw.aggregation.group_table import ADDED, FIRST, FLOWS, LAST, NEVER, SUMS, Group
from ulogd_tw.core.amounts import Amount, Amounts
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import numbers
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.flow_end import ACTIVE
from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Find

_ADDED = tuple(key.name for key in ADDED)


class Summing:
    """Adds rows to groups; `find` gives their columns. `aged`: groups note when their first row came."""

    def __init__(self, find: Find, amounts: Amounts, counters: Counters, aged: bool) -> None:
        self.find = find
        self.counters = counters
        self.aged = aged
        self._amounts = amounts

    def add(self, group: Group, entries: np.ndarray, batch: Batch, new: slice) -> None:
        """Add the values of the rows to their entries; the entries in `new` are new."""
        self.counters.rows_merged += ended(batch)
        if self.aged and new.stop > new.start:
            group.born(new, int(batch.now * 1000))
        if not batch.n:
            return
        counting = ending(batch)
        flows = {FLOWS: None if counting is None else counting.astype(np.uint64)}
        group.add(entries, flows | self._sums(group, entries, batch, new) | self._times(batch))
        for state in group.states:
            found = self.find(batch, state.spec.of)
            if found is not None:
                others = found.missing if counting is None else _either(found.missing, ~counting)
                state.add(entries, found.values, others)

    def saturated(self, sums: int) -> None:
        """So many sums have stopped at the limit of 64 bits."""
        self.counters.figures["sums_saturated"] += sums

    def _sums(self, group: Group, entries: np.ndarray, batch: Batch, new: slice) -> dict[Key, np.ndarray | None]:
        """The counters of the rows; it is noted which of them they have."""
        found: dict[Key, np.ndarray | None] = {}
        seen = 0
        partly = None
        for place, counters in enumerate(self._amounts.carried(batch).counters):
            amount = self._amount(batch, place) if counters else None
            if amount is None:
                continue
            values, missing = amount.values, amount.missing
            if missing is None:
                seen |= 1 << place
            else:
                values = np.where(missing, np.uint64(0), values)
                bit = np.where(missing, np.uint64(0), np.uint64(1 << place))
                partly = bit if partly is None else partly | bit
            found[SUMS[place]] = share(batch, values)
        group.see(seen, partly, entries, new)
        return found

    def _amount(self, batch: Batch, place: int) -> Amount | None:
        """The amounts of the rows for the sum at this place of `SUMS`."""
        added = batch.columns.get(_ADDED[place])
        if added is not None:
            return Amount(numbers(added), batch.missing.get(_ADDED[place]))
        found = self._amounts.of(batch, place)
        return found if found is None or found.totals is None else self._final(batch, found)

    def _final(self, batch: Batch, found: Amount) -> Amount:
        """The amount without totals of records of active flows: a later record contains them."""
        reason = self.find(batch, "flowEndReason")
        if reason is None or found.totals is None:
            return found
        interim = reason.known(reason.numbers == ACTIVE) & found.totals
        if not interim.any():
            return found
        return Amount(found.values, interim if found.missing is None else found.missing | interim)

    def _times(self, batch: Batch) -> dict[Key, np.ndarray | None]:
        """The first and the last time of the flow of each row."""
        found: dict[Key, np.ndarray | None] = {}
        for key, name, none in ((FIRST, "flowStartMilliseconds", NEVER), (LAST, "flowEndMilliseconds", np.uint64(0))):
            time = self.find(batch, name)
            if time is not None:
                values = time.numbers if time.missing is None else np.where(time.missing, none, time.numbers)
                found[key] = values.astype(np.uint64, copy=False)
        return found


def _either(missing: np.ndarray | None, others: np.ndarray) -> np.ndarray:
    return others if missing is None else missing | others
