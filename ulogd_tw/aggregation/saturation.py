"""Sums in 64 bits that stop at their limits, where NumPy's would begin anew at the other end."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_SAFE = (1 << 63) - 1
"""The largest value that all types of sums can hold."""
_FEW = 16
"""Values that Python looks at faster than NumPy."""


class Adder:
    """Adds to one column of sums. As long as no sum can have reached its limit, that costs a look at the values."""

    def __init__(self) -> None:
        self._bound = 0
        """No sum of the column is beyond this, or below it times -1."""
        self.report: Callable[[int], None] = _nobody
        """Called with the number of sums that stopped at a limit."""

    def begin(self, bound: int) -> None:
        """The column has sums, none of them beyond this."""
        self._bound = bound

    def add(self, sums: np.ndarray, places: np.ndarray, values: np.ndarray) -> None:
        """Add each value to the sum at its place; `values` are of the type of the sums."""
        if len(values):
            self._bound += _largest(values) * len(values)
        if self._bound <= _SAFE or sums.dtype.kind == "f":
            np.add.at(sums, places, values)
        else:
            stopped = _add(sums, places, values)
            if stopped:
                self.report(stopped)


def _nobody(sums: int) -> None:
    pass


def _largest(values: np.ndarray) -> int:
    """The largest absolute value."""
    if values.dtype.kind == "f":
        return 0
    if len(values) <= _FEW:
        return max(map(abs, values.tolist()))
    largest = int(np.maximum.reduce(values))
    return largest if values.dtype.kind == "u" else max(largest, -int(np.minimum.reduce(values)))


def _add(sums: np.ndarray, places: np.ndarray, values: np.ndarray) -> int:
    """As `Adder.add`; how many sums stopped at a limit.

    The sum in 64 bits is right but for a multiple of 2**64, and one in floating point says for which.
    """
    limits = np.iinfo(sums.dtype)
    whole, half = float(int(limits.max) + 1), limits.max // 2
    different, place = np.unique(places, return_inverse=True)
    nearly = sums[different].astype(np.float64)
    nearly += np.bincount(place, values.astype(np.float64), len(different))
    np.add.at(sums, places, values)
    found = sums[different]
    above = (nearly >= 1.25 * whole) | (nearly >= 0.75 * whole) & (found <= half)
    sums[different[above]] = limits.max
    if limits.min == 0:
        return int(np.count_nonzero(above))
    below = (nearly <= -1.25 * whole) | (nearly <= -0.75 * whole) & (found > 0)
    sums[different[below]] = limits.min
    return int(np.count_nonzero(above | below))


def total(values: np.ndarray) -> tuple[int, bool]:
    """The sum of unsigned values, and whether it stopped at the limit of 64 bits."""
    whole = int((values >> np.uint64(32)).sum()) << 32
    whole += int((values & np.uint64(0xFFFFFFFF)).sum())
    limit = int(np.iinfo(np.uint64).max)
    return min(whole, limit), whole > limit
