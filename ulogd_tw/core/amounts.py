"""The octets and packets of rows, from whichever of the counters of `quantities` carries them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.quantities import QUANTITIES, Counter
from ulogd_tw.core.resolve import Find, Found


@dataclass(slots=True)
class Amount:
    """A quantity of the rows of a batch: `values` (uint64), masks of the rows without it and of those with a total.

    A mask is None where it has no row.
    """

    values: np.ndarray
    missing: np.ndarray | None = None
    totals: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> Amount:
        """The amount of these rows."""
        missing = None if self.missing is None else self.missing[rows]
        return Amount(self.values[rows], missing, None if self.totals is None else self.totals[rows])


@dataclass(slots=True)
class Carried:
    """The counters of a schema, for each of `QUANTITIES`, and whether any is a total."""

    counters: tuple[tuple[Counter, ...], ...]
    totals: bool


class Amounts:
    """Reads quantities of batches; which counters a batch has is looked up once for each schema."""

    MOST_SCHEMAS = 1024

    def __init__(self, find: Find) -> None:
        self._find = find
        self._carried: Bounded[Schema, Carried] = Bounded(self.MOST_SCHEMAS)
        self._last: tuple[Schema, Carried] | None = None

    def carried(self, batch: Batch) -> Carried:
        """The counters that the batch has."""
        if self._last is not None and self._last[0] is batch.schema:
            return self._last[1]
        found = self._carried.get(batch.schema)
        if found is None:
            found = self._carried[batch.schema] = self._look(batch)
        self._last = batch.schema, found
        return found

    def _look(self, batch: Batch) -> Carried:
        """As `carried`, of a schema that comes for the first time."""
        found = tuple(
            tuple(counter for counter in quantity.counters if self._find(batch, counter.name) is not None)
            for quantity in QUANTITIES
        )
        return Carried(found, any(counter.total for counters in found for counter in counters))

    def of(self, batch: Batch, place: int) -> Amount | None:
        """The quantity at this place of `QUANTITIES`; None where no counter of the batch carries it."""
        counters = self.carried(batch).counters[place]
        return amount(self._find, batch, counters) if counters else None

    def everywhere(self, batch: Batch, place: int) -> bool:
        """Whether surely every row has this quantity, at a glance."""
        counters = self.carried(batch).counters[place]
        found = self._find(batch, counters[0].name) if counters else None
        return found is not None and found.missing is None


def amount(find: Find, batch: Batch, counters: Iterable[Counter]) -> Amount | None:
    """The quantity of each row, from the first of these counters that has a value there; None where none has."""
    found: Amount | None = None
    for counter in counters:
        column = find(batch, counter.name)
        if column is None:
            continue
        found = _of(column, counter) if found is None else _filled(found, column, counter)
        if found.missing is None:
            return found
    return found


def _of(column: Found, counter: Counter) -> Amount:
    values = column.numbers.astype(np.uint64, copy=False)
    missing = column.missing if column.missing is not None and column.missing.any() else None
    if not counter.total:
        return Amount(values, missing)
    return Amount(values, missing, np.ones(len(values), bool) if missing is None else ~missing)


def _filled(found: Amount, column: Found, counter: Counter) -> Amount:
    """The values missing in `found`, from another column."""
    assert found.missing is not None
    fills = found.missing if column.missing is None else found.missing & ~column.missing
    values = np.where(fills, column.numbers.astype(np.uint64), found.values)
    missing = found.missing & ~fills
    totals = found.totals
    if counter.total and fills.any():
        totals = fills if totals is None else totals | fills
    return Amount(values, missing if missing.any() else None, totals)
