"""How the entries of open tables of an AGGREGATE are gone through: which stay, and what becomes of the others.

Nothing is stopped for long: new rows go to new tables at once, and the entries of the old ones follow in slices.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from ulogd_tw.aggregation.group_table import BORN, LAST, OCTETS, Group, Slice

if TYPE_CHECKING:
    from ulogd_tw.aggregation.interval import IntervalTable

AT_ONCE = 32768
"""Entries that are moved with a batch, or in a turn of the reactor: about 10 ms."""
SAMPLE = 131_072
"""Groups of which the median is taken, at most twice as many: some milliseconds."""


class Overflow(Enum):
    """What a new key does when the table is full."""

    EMIT = "emit"
    OTHER = "other"
    REFUSE = "refuse"
    FOLD = "fold"
    EVICT = "evict"

    @property
    def waits(self) -> bool:
        """Whether rows that find no room are tried again when there is some."""
        return self in (Overflow.EMIT, Overflow.FOLD, Overflow.EVICT)


class Relocation:
    """One time of going through `tallies`. `room` is that for old groups among the new ones."""

    joins = True
    """Whether a group that should not stay does so where rows of it have come meanwhile."""
    whole = False
    """Whether the rest under NULL keys is gone through too."""

    def __init__(self, tallies: Sequence[IntervalTable], room: int) -> None:
        self.room = room
        self._tallies = list(tallies)
        self.outs: dict[IntervalTable, IntervalTable] | None = None
        """The groups of a tally that go out; None: those that do not stay are added to the rest."""
        for tally in tallies:
            tally.begin_moving(self)

    def stays(self, source: Group, piece: Slice) -> np.ndarray:
        """A mask of the entries of a piece of `source` that may stay groups."""
        raise NotImplementedError

    @property
    def unmoved(self) -> int:
        """Entries that have to be looked at."""
        return sum(tally.unmoved for tally in self._tallies)

    def step(self) -> bool:
        """Move a slice of entries; False when nothing is left to do."""
        return any(tally.move() for tally in self._tallies)

    def out(self, tally: IntervalTable) -> IntervalTable | None:
        """Where the groups of a tally go out, if they do."""
        if self.outs is None:
            return None
        if tally not in self.outs:
            self.outs[tally] = tally.beside()
        return self.outs[tally]


class Halving(Relocation):
    """The half of all groups with the smaller values at `place` does not stay.

    The bound is the median of all groups, or of a sample of them; of those that are just as large a part stays.
    """

    place = OCTETS

    def __init__(self, tallies: Sequence[IntervalTable], max_keys: int) -> None:
        keys = sum(tally.keys for tally in tallies)
        step = max(keys // SAMPLE, 1)
        values = np.concatenate([s for tally in tallies for s in tally.sample(self.place, step)])
        keep = max_keys // 2 * len(values) // max(keys, 1)
        place = min(len(values) - keep, len(values) - 1)
        self._bound = np.partition(values, place)[place]
        larger = int(np.count_nonzero(values > self._bound))
        ties = int(np.count_nonzero(values == self._bound))
        self._part = max(keep - larger, 0) / ties
        super().__init__(tallies, 3 * max_keys // 4)  # more than half, as a sample may err

    def stays(self, source: Group, piece: Slice) -> np.ndarray:
        values = piece.value(self.place)
        keep = values > self._bound
        ties = np.flatnonzero(values == self._bound)
        keep[ties[: int(len(ties) * self._part)]] = True
        return keep


class Fold(Halving):
    """Groups with few octets are added to the rest."""


class Evict(Halving):
    """Groups whose last flow ended longest ago go out."""

    place = LAST

    def __init__(self, tallies: Sequence[IntervalTable], max_keys: int) -> None:
        super().__init__(tallies, max_keys)
        self.outs = {}


class Leave(Relocation):
    """Groups that began before `limit` (milliseconds), or whose span (see `spans`) has ended, go out."""

    joins = False
    whole = True

    def __init__(self, tallies: Sequence[IntervalTable], limit: int | None, ended: np.ndarray) -> None:
        self._limit = limit
        self._ended = ended
        super().__init__(tallies, sum(len(tally) for tally in tallies) + 1)
        self.outs = {}

    def stays(self, source: Group, piece: Slice) -> np.ndarray:
        keep = np.ones(len(piece), bool)
        if self._limit is not None and BORN in piece.more:
            keep &= piece.more[BORN] > np.uint64(self._limit)
        if len(self._ended):
            spans = source.spans(piece)
            if spans is not None:
                keep &= ~np.isin(spans, self._ended)
        return keep
