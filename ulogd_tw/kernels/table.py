"""Keys to entries of a table, and the sums of entries (table.c)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ulogd_tw.kernels import ffi, lib

GROW, CROWDED = 1, 2
"""Why not all rows were reached: the index is half full, or some key has no slot within reach."""
ADD, LEAST, GREATEST = 0, 1, 2
"""What is done with the value of a row."""
Sum = tuple[int, int, np.ndarray | None]
"""Place of a sum in its entry, `ADD` or another, and the values of the rows (uint64); None: 1 each."""


class Entries:
    """Looks up keys in one table: entries of `stride` words in `flat`, whose key has as many words as `factors`."""

    def __init__(self, flat: np.ndarray, stride: int, capacity: int, low: int) -> None:
        self._table = table = ffi.new("ut_table *")
        self._flat = ffi.from_buffer("uint64_t[]", flat)
        table.flat, table.stride, table.capacity, table.low = self._flat, stride, capacity, low
        self._held: list[Any] = []

    def hash_by(self, seed: int, factors: Sequence[int], reach: int) -> None:
        """These secrets are in use, and keys are at most `reach` slots from their own one."""
        self._factors = ffi.new("uint64_t[]", factors)
        table = self._table
        table.seed, table.factors, table.words, table.reach = seed, self._factors, len(factors), reach

    def use(self, index: np.ndarray, old: np.ndarray | None) -> None:
        """The slots are in this index, and those of entries not yet moved in `old`."""
        table = self._table
        self._held = [ffi.from_buffer("uint8_t[]", index, require_writable=True)]
        table.index, table.mask, table.slot_octets = self._held[0], len(index) - 1, index.itemsize
        table.old = ffi.NULL
        if old is not None:
            self._held.append(ffi.from_buffer("uint8_t[]", old))
            table.old, table.old_mask = self._held[1], len(old) - 1

    def find(
        self, words: Sequence[np.ndarray], first: int, n: int, limit: int, out: np.ndarray
    ) -> tuple[int, int, int]:
        """The entries of the rows from `first` on, in `out`; new keys get new ones after the `n` that there are.

        Returns the first row that was not reached, why, and how many entries there are.
        """
        table = self._table
        table.n = n
        keep = [ffi.from_buffer("uint64_t[]", word) for word in words]
        rows = lib.ut_entries(
            table, ffi.new("uint64_t *[]", keep), first, len(out), limit, ffi.from_buffer("int64_t[]", out)
        )
        return rows, table.stopped, table.n


def add(
    flat: np.ndarray, stride: int, n: int, entries: np.ndarray, sums: Sequence[Sum], bounds: dict[int, int]
) -> bool:
    """Add the values of rows to the sums of their entries, of which there are `n`.

    `bounds`: what no sum is beyond, by their place; it is kept up to date. False, and nothing is done, if a sum might
    pass the limit of 64 bits.
    """
    what = ffi.new("ut_sum[]", len(sums))
    keep = []
    for one, (place, kind, values) in zip(what, sums, strict=True):
        one.place, one.kind, one.bound = place, kind, bounds.get(place, 0)
        if values is not None:
            keep.append(ffi.from_buffer("uint64_t[]", values))
            one.values = keep[-1]
    octets = ffi.from_buffer("uint64_t[]", flat)
    done = lib.ut_add(octets, len(octets), stride, n, ffi.from_buffer("int64_t[]", entries), len(entries), what,
                      len(what))  # fmt: skip
    assert done >= 0, "an entry is none of the table"
    if done:
        bounds.update((one.place, one.bound) for one in what if one.kind == ADD)
    return bool(done)
