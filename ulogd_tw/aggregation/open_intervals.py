"""The open intervals of an AGGREGATE, which share max_keys, and how room is made for new keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ulogd_tw.aggregation.group_table import Slice
from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.parts import Part
from ulogd_tw.aggregation.relocation import Evict, Fold, Relocation
from ulogd_tw.aggregation.settings import Overflow
from ulogd_tw.core.batch import Batch

_MAKES_ROOM = {Overflow.FOLD: Fold, Overflow.EVICT: Evict}


class OpenIntervals:
    """Tables by the start of their interval, at most `max_keys` groups in all.

    Groups emitted early are left in `outs`, for the caller to take.
    """

    def __init__(self, new_table: Callable[[int], IntervalTable], max_keys: int, overflow: Overflow) -> None:
        self._new_table = new_table
        self._max_keys = max_keys
        self._overflow = overflow
        self.tables: dict[int, IntervalTable] = {}
        self.relocation: Relocation | None = None
        """The pass over the groups that goes on; see `relocation`."""
        self.readers = 0
        """Peeks that go on: groups stay where they are meanwhile, unless new ones need their room."""
        self.outs: list[IntervalTable] = []

    def __len__(self) -> int:
        return len(self.tables)

    def __iter__(self) -> Iterator[IntervalTable]:
        """The tables, oldest interval first."""
        return iter([table for _, table in sorted(self.tables.items())])

    @property
    def keys(self) -> int:
        """Groups of all tables, without those of the rest."""
        return sum(table.keys for table in self.tables.values())

    def add(self, start: int, batch: Batch) -> None:
        """Merge rows into the table of their interval, making room as `overflow` says."""
        rest: Batch | None = batch
        while rest is not None:
            table = self._table(start)
            rest = table.add(rest, self._room_of(table))
            if rest is not None or self.relocation is not None:
                self._make_room(0 if rest is None else rest.n)

    def merge(self, part: Part) -> None:
        """Merge the groups of an interval of another process, making room as for rows."""
        packing = part.packing
        rest: Slice | None = part.groups
        while rest is not None:
            table = self._table(part.start)
            rest = table.merge(part.present, packing, rest, self._room_of(table))
            if rest is not None or self.relocation is not None:
                self._make_room(0 if rest is None else len(rest))

    def _table(self, start: int) -> IntervalTable:
        """The table of this interval, a new one where there is none."""
        table = self.tables.get(start)
        if table is None:
            table = self.tables[start] = self._new_table(start)
        return table

    def _room_of(self, table: IntervalTable) -> int:
        """Groups that this table may have."""
        return self._max_keys - (self.keys - table.keys if len(self.tables) > 1 else 0)

    def _make_room(self, rest: int) -> None:
        """Make room for so many rows or groups that found none."""
        if rest and self.relocation is None and self._overflow in _MAKES_ROOM:
            self.relocation = _MAKES_ROOM[self._overflow](list(self.tables.values()), self._max_keys)
        self.relocate(rest)
        if rest and self._overflow is Overflow.EMIT:  # these rows begin a new table
            self.outs.extend(self.close())

    def close(self, until: int | None = None) -> list[IntervalTable]:
        """Take the tables of the intervals that began before `until`, or all; oldest first."""
        starts = sorted(start for start in self.tables if until is None or start < until)
        return [self.tables.pop(start) for start in starts]

    def relocate(self, wanted: int = 0, anyway: bool = False) -> None:
        """Move a slice of the groups, or as much as makes room for so many; none while there are readers."""
        if self.relocation is None or self.readers and not anyway and self.keys + wanted <= self._max_keys:
            return
        while self.relocation.step() and self.keys + wanted > self._max_keys:
            pass
        if not self.relocation.unmoved:
            self.outs.extend(self.relocation.outs.values())
            self.relocation = None

    def finish(self) -> None:
        """Move all groups that still have to be moved."""
        while self.relocation is not None:
            self.relocate(anyway=True)

    def take_outs(self) -> list[IntervalTable]:
        """The tables that go out before their time, once."""
        outs, self.outs = self.outs, []
        return outs
