"""Passes over the entries of an AGGREGATE's open tables: some groups stay, the others are merged or emitted.

Nothing stops for long: new rows go to new tables at once, and the entries of the old ones follow in slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar

import numpy as np

from ulogd_tw.aggregation.group_table import BORN, LAST, OCTETS, Group, Slice
from ulogd_tw.core.keys import Key

AT_ONCE = 32768
"""Entries that are moved with a batch, or in a turn of the reactor: about 10 ms."""
SAMPLE = 131_072
"""Groups of which the median is taken, at most twice as many: some milliseconds."""


class Table(Protocol):
    """The interface of tables for a pass, implemented in `interval`."""

    def __len__(self) -> int: ...

    @property
    def keys(self) -> int:
        """Groups without the rest."""

    @property
    def unmoved(self) -> int:
        """Entries that have to be moved."""

    def begin_moving(self, moving: Relocation) -> None:
        """Start with new tables; `move` goes through the old ones."""

    def move(self) -> int:
        """Move a slice of entries; how many there were."""

    def sample(self, place: Key, step: int) -> list[np.ndarray]:
        """A value of every `step`-th group."""

    def beside(self: _Table) -> _Table:
        """An empty table of the same interval."""


_Table = TypeVar("_Table", bound=Table)


class Relocation(Generic[_Table]):
    """One pass over `tables` that decides which groups stay; at most `room` do.

    The other groups go to the rest, or into the tables `outs` if a subclass sets `emits`.
    """

    joins = True
    """Whether a group stays after all where rows of it have come meanwhile."""
    whole = False
    """Whether the rest under NULL keys is gone through too."""

    emits = False
    """Whether groups that do not stay go out; else they are added to the rest."""

    def __init__(self, tables: Sequence[_Table], room: int) -> None:
        self.room = room
        self._tables = list(tables)
        self.outs: dict[_Table, _Table] = {}
        """For each table the one of its groups that go out."""
        for table in tables:
            table.begin_moving(self)

    def stays(self, source: Group, piece: Slice) -> np.ndarray:
        """A mask of the entries of a piece of `source` that may stay groups."""
        raise NotImplementedError

    @property
    def unmoved(self) -> int:
        """Entries that have to be looked at."""
        return sum(table.unmoved for table in self._tables)

    def step(self) -> bool:
        """Move a slice of entries; False when nothing is left to do."""
        return any(table.move() for table in self._tables)

    def out(self, table: _Table) -> _Table | None:
        """Where the groups of a table go out, if they do."""
        if not self.emits:
            return None
        if table not in self.outs:
            self.outs[table] = table.beside()
        return self.outs[table]


class Halving(Relocation[_Table]):
    """Removes the half of all groups with the smaller values at `place`.

    The bound is the median of all groups, or of a sample; of groups equal to it a part stays.
    """

    place = OCTETS

    def __init__(self, tables: Sequence[_Table], max_keys: int) -> None:
        keys = sum(table.keys for table in tables)
        step = max(keys // SAMPLE, 1)
        values = np.concatenate([s for table in tables for s in table.sample(self.place, step)])
        keep = max_keys // 2 * len(values) // max(keys, 1)
        place = min(len(values) - keep, len(values) - 1)
        self._bound = np.partition(values, place)[place]
        larger = int(np.count_nonzero(values > self._bound))
        ties = int(np.count_nonzero(values == self._bound))
        self._part = max(keep - larger, 0) / ties
        super().__init__(tables, 3 * max_keys // 4)  # more than half, as a sample may err

    def stays(self, source: Group, piece: Slice) -> np.ndarray:
        values = piece.value(self.place)
        keep = values > self._bound
        ties = np.flatnonzero(values == self._bound)
        keep[ties[: int(len(ties) * self._part)]] = True
        return keep


class Fold(Halving[_Table]):
    """Groups with few octets are added to the rest."""


class Evict(Halving[_Table]):
    """Groups whose last flow ended longest ago go out."""

    place = LAST
    emits = True


class Leave(Relocation[_Table]):
    """Removes groups that began before `limit` (milliseconds), or whose span (see `spans`) has ended."""

    joins = False
    whole = True
    emits = True

    def __init__(self, tables: Sequence[_Table], limit: int | None, ended: np.ndarray) -> None:
        self._limit = limit
        self._ended = ended
        super().__init__(tables, sum(len(table) for table in tables) + 1)

    def stays(self, source: Group, piece: Slice) -> np.ndarray:
        keep = np.ones(len(piece), bool)
        if self._limit is not None and BORN in piece.more:
            keep &= piece.more[BORN] > np.uint64(self._limit)
        if len(self._ended):
            spans = source.spans(piece)
            if spans is not None:
                keep &= ~np.isin(spans, self._ended)
        return keep
