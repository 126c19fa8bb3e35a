"""Functions of how values are spread: mean, variance, stddev."""

from __future__ import annotations

import numpy as np

from ulogd_tw.aggregation.functions.base import NUMBERS, Function
from ulogd_tw.aggregation.functions.registry import register
from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.keys import Key

_ORIGIN, _COUNT, _MEAN, _SQUARES = range(4)
"""Places of a state of `Variance`."""
_EXACT = np.uint64(0xFFFFFFFFFFFFF800)
"""The bits of a 64-bit integer always held exactly by a float64."""


@register
class Mean(Function):
    """The mean: a sum and a count."""

    name = "mean"
    help = ""
    kinds = NUMBERS
    merged_by = "avg"
    bounded = False
    width = 2
    ufunc = np.add

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, types.FLOAT64, (), of.unit)

    def take(self, entries: np.ndarray, column: Column) -> None:
        np.add.at(self.values, 2 * entries, numbers(column).astype(np.float64))
        np.add.at(self.values, 2 * entries + 1, 1.0)

    def result(self, first: int, stop: int) -> np.ndarray:
        pairs = self.values[2 * first : 2 * stop].reshape(-1, 2)
        return pairs[:, 0] / np.maximum(pairs[:, 1], 1)


@register
class Variance(Function):
    """The population variance, by parts (Chan, Golub and LeVeque 1979).

    A state is an origin near the first value, the number of values, their mean and the sum of the squares of their
    distances from the mean. The mean counts from the origin, so large values with small differences keep all digits of
    these.
    """

    name = "variance"
    help = "of all rows, divided by their number"
    kinds = NUMBERS
    merged_by = "avg"
    bounded = False
    width = 4
    state_type = "d"

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, types.FLOAT64, (), f"{of.unit}^2" if of.unit else "")

    def take(self, entries: np.ndarray, column: Column) -> None:
        values = numbers(column)
        different, first, place = np.unique(entries, return_index=True, return_inverse=True)
        states = self.values.reshape(-1, self.width)
        new = states[different, _COUNT] == 0
        states[different[new], _ORIGIN] = _origins(values[first[new]])
        parts = np.empty((len(different), self.width))
        parts[:, _ORIGIN] = states[different, _ORIGIN]
        _describe(parts, _distances(values, parts[place, _ORIGIN]), place)
        self._join(different, parts)

    def join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        if entries[0] == entries[-1]:
            rows, entries = _united(rows), entries[:1]
        self._join(entries, rows)

    def _join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        """Join a state to each of different entries."""
        states = self.values.reshape(-1, self.width)
        states[entries] = _joined(states[entries], rows)

    def result(self, first: int, stop: int) -> np.ndarray:
        states = self.values[self.width * first : self.width * stop].reshape(-1, self.width)
        return states[:, _SQUARES] / np.maximum(states[:, _COUNT], 1)


@register
class Stddev(Variance):
    """The square root of the variance, in the unit of the values."""

    name = "stddev"
    help = "the root of variance"

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, types.FLOAT64, (), of.unit)

    def result(self, first: int, stop: int) -> np.ndarray:
        return np.sqrt(super().result(first, stop))


def _origins(values: np.ndarray) -> np.ndarray:
    """A float near each value, for exact distances."""
    if values.dtype.kind == "f" or values.dtype.itemsize < 8:
        return values.astype(np.float64)
    return (values.view(np.uint64) & _EXACT).view(values.dtype).astype(np.float64)


def _distances(values: np.ndarray, origins: np.ndarray) -> np.ndarray:
    """How far each value is above its origin; of 64-bit integers without rounding before the subtraction."""
    narrow = values.dtype.kind == "f" or values.dtype.itemsize < 8
    limits = None if narrow else np.iinfo(values.dtype)
    if limits is None or (origins < limits.min).any() or (origins >= float(limits.max)).any():
        return values - origins  # these origins come from a batch that held the key in another type
    whole = origins.astype(values.dtype)
    above = values >= whole
    values, whole = values.view(np.uint64), whole.view(np.uint64)
    far = np.where(above, values - whole, whole - values).astype(np.float64)
    return np.where(above, far, -far)


def _describe(parts: np.ndarray, distances: np.ndarray, place: np.ndarray) -> None:
    """Set count, mean and squares of each part from the distances of its values."""
    n = len(parts)
    counts = np.bincount(place, minlength=n)
    means = np.bincount(place, distances, n) / counts
    rest = distances - means[place]
    squares = np.bincount(place, rest * rest, n) - np.bincount(place, rest, n) ** 2 / counts
    parts[:, _COUNT], parts[:, _MEAN], parts[:, _SQUARES] = counts, means, np.maximum(squares, 0)


def _united(rows: np.ndarray) -> np.ndarray:
    """One state of several, pair by pair, so that rounding grows with the logarithm of their number."""
    while len(rows) > 1:
        even = len(rows) // 2 * 2
        rows = np.concatenate((_joined(rows[0:even:2], rows[1:even:2]), rows[even:]))
    return rows


def _joined(states: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The states of `states` and `rows` together, row by row; a state of no values has no say."""
    counts = np.maximum(states[:, _COUNT] + rows[:, _COUNT], 1)
    empty = states[:, _COUNT] == 0
    origins = np.where(empty, rows[:, _ORIGIN], states[:, _ORIGIN])
    further = (rows[:, _ORIGIN] - origins) + rows[:, _MEAN] - np.where(empty, 0, states[:, _MEAN])
    share = rows[:, _COUNT] / counts
    found = np.empty_like(states)
    found[:, _ORIGIN], found[:, _COUNT] = origins, states[:, _COUNT] + rows[:, _COUNT]
    found[:, _MEAN] = np.where(empty, rows[:, _MEAN], states[:, _MEAN] + further * share)
    together = states[:, _SQUARES] + rows[:, _SQUARES] + further * further * (states[:, _COUNT] * share)
    found[:, _SQUARES] = np.where(empty, rows[:, _SQUARES], together)
    return found
