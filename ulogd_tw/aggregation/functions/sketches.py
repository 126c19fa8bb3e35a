"""Functions with approximate results, by sketches of a fixed size: distinct and quantile."""

from __future__ import annotations

import numpy as np

from ulogd_tw.aggregation.functions.base import KINDS, NUMBERS, Function
from ulogd_tw.aggregation.functions.registry import register
from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, numbers
from ulogd_tw.core.hashes import hashes
from ulogd_tw.core.keys import Key

REGISTERS = 256
"""Of a HyperLogLog (Flajolet et al. 2007): a standard error of 6.5 %, and less where few values differ."""
_PER_OCTAVE = 8
"""Buckets of a quantile for each power of two: an error of 4.4 %."""
BUCKETS = 64 * _PER_OCTAVE + 1
_AT_ONCE = 2048
_ALPHA = 0.7213 / (1 + 1.079 / REGISTERS)


@register
class Distinct(Function):
    """How many values differ. A HyperLogLog: for each of the registers the greatest rank of a hash."""

    name = "distinct"
    help = "how many values, to 6.5 %"
    kinds = KINDS
    merged_by = "max"
    bounded = True
    width = REGISTERS
    state_type = "B"
    ufunc = np.maximum

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, types.UNSIGNED64)

    def take(self, entries: np.ndarray, column: Column) -> None:
        hashed = hashes(column, self.spec.of_key.type.text)
        rest = (hashed >> np.uint64(4)) & np.uint64((1 << 52) - 1)  # as many bits as a float holds exactly
        ranks = (53 - np.frexp(rest.astype(np.float64))[1]).astype(np.uint8)
        np.maximum.at(self.values, entries * REGISTERS + (hashed >> np.uint64(56)).view(np.int64), ranks)

    def result(self, first: int, stop: int) -> np.ndarray:
        registers = self.values[first * REGISTERS : stop * REGISTERS].reshape(-1, REGISTERS)
        found = np.empty(stop - first, np.uint64)
        for at in range(0, stop - first, _AT_ONCE):
            part = registers[at : at + _AT_ONCE]
            estimate = _ALPHA * REGISTERS**2 / np.ldexp(1.0, -part.astype(np.int32)).sum(axis=1)
            empty = (part == 0).sum(axis=1)
            linear = REGISTERS * np.log(REGISTERS / np.maximum(empty, 1))
            few = (estimate <= 2.5 * REGISTERS) & (empty > 0)
            found[at : at + _AT_ONCE] = np.rint(np.where(few, linear, estimate))
        return found


@register
class Quantile(Function):
    """The value below which a share of all lies.

    A histogram with buckets of equal ratio, as DDSketch has them (Masson et al. 2019); below 1 is one bucket.
    """

    name = "quantile"
    help = "to 4.4 %"
    kinds = NUMBERS
    merged_by = "max"
    bounded = True
    argument = "0.95"
    argument_name = "share"
    width = BUCKETS
    state_type = "I"
    ufunc = np.add

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, types.FLOAT64, (), of.unit)

    @classmethod
    def read_argument(cls, text: str) -> float:
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0 <= share <= 1:
            raise ValueError(f"{text!r} is not a number between 0 and 1, such as 0.95")
        return share

    def take(self, entries: np.ndarray, column: Column) -> None:
        values = np.maximum(numbers(column).astype(np.float64), 0.5)
        buckets = np.clip(np.floor(np.log2(values) * _PER_OCTAVE) + 1, 0, BUCKETS - 1).astype(np.int64)
        np.add.at(self.values, entries * BUCKETS + buckets, np.uint32(1))

    def result(self, first: int, stop: int) -> np.ndarray:
        assert self.spec.argument is not None
        counts = self.values[first * BUCKETS : stop * BUCKETS].reshape(-1, BUCKETS)
        found = np.empty(stop - first, np.float64)
        for at in range(0, stop - first, _AT_ONCE):
            sums = counts[at : at + _AT_ONCE].cumsum(axis=1, dtype=np.uint64)
            rank = np.maximum(np.ceil(self.spec.argument * sums[:, -1]), 1)
            bucket = (sums < rank[:, None]).sum(axis=1)
            found[at : at + _AT_ONCE] = np.where(bucket == 0, 0.0, np.exp2((bucket - 0.5) / _PER_OCTAVE))
        return found
