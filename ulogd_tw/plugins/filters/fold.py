"""Which groups of full tables of an AGGREGATE stay, and which are folded into the rest: the smaller half, by octets.

A fold stops nothing for long: new rows go to new tables at once, and the entries of the old ones follow in slices.
The bound between large and small is the median of all groups, or of a sample of them; of those that are just as large
as it a part stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ulogd_tw.plugins.filters.tally import Tally

AT_ONCE = 32768
"""Entries that are moved with a batch, or in a turn of the reactor: about 10 ms."""
SAMPLE = 131_072
"""Groups of which the median is taken, at most twice as many: some milliseconds."""


class Fold:
    """One time of folding. `room` is that for old groups among the new ones: more than half, as a sample may err."""

    def __init__(self, tallies: Sequence[Tally], max_keys: int) -> None:
        self.room = 3 * max_keys // 4
        self._tallies = list(tallies)
        keys = sum(tally.keys for tally in tallies)
        sizes = np.concatenate([s for tally in tallies for s in tally.sizes(max(keys // SAMPLE, 1))])
        keep = max_keys // 2 * len(sizes) // max(keys, 1)
        place = min(len(sizes) - keep, len(sizes) - 1)
        self._bound = np.partition(sizes, place)[place]
        larger = int(np.count_nonzero(sizes > self._bound))
        ties = int(np.count_nonzero(sizes == self._bound))
        self._part = max(keep - larger, 0) / ties
        for tally in tallies:
            tally.begin_fold()

    def keeps(self, octets: np.ndarray) -> np.ndarray:
        """A mask of the groups with these octets that may stay."""
        keep = octets > self._bound
        ties = np.flatnonzero(octets == self._bound)
        keep[ties[: int(len(ties) * self._part)]] = True
        return keep

    @property
    def unfolded(self) -> int:
        """Entries that have to be looked at."""
        return sum(tally.unfolded for tally in self._tallies)

    def step(self) -> bool:
        """Move a slice of entries; False when nothing is left to do."""
        for tally in self._tallies:
            if tally.fold(self):
                return True
        return False
