"""Functions that add up: sum, count, or."""

from __future__ import annotations

import numpy as np

from ulogd_tw.aggregation.functions.base import KINDS, NUMBERS, WHOLE_NUMBERS, Function, widest
from ulogd_tw.aggregation.functions.registry import register
from ulogd_tw.core import types
from ulogd_tw.core.columns import Column
from ulogd_tw.core.keys import Key


class _OfElement(Function):
    """A function whose result is still a value of the element, and can be exported as one."""

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, widest(of.type), of.elements, of.unit)


@register
class Sum(_OfElement):
    """The sum of all values; one of integers stops at the limits of 64 bits."""

    name = "sum"
    help = ""
    kinds = NUMBERS
    merged_by = "sum"
    bounded = False

    def take(self, entries: np.ndarray, column: Column) -> None:
        self.adder.add(self.values, entries, self.as_held(column))

    def join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        self.adder.add(self.values, entries, rows[:, 0])


@register
class Count(Function):
    """The number of rows that have a value."""

    name = "count"
    help = "rows that have the key"
    kinds = KINDS
    merged_by = "sum"
    bounded = False
    ufunc = np.add

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, types.UNSIGNED64)

    def take(self, entries: np.ndarray, column: Column) -> None:
        np.add.at(self.values, entries, np.uint64(1))


@register
class Or(_OfElement):
    """The bits that any value has."""

    name = "or"
    help = "all bits, as of tcpControlBits"
    kinds = WHOLE_NUMBERS
    merged_by = "max"
    bounded = False
    ufunc = np.bitwise_or

    def take(self, entries: np.ndarray, column: Column) -> None:
        np.bitwise_or.at(self.values, entries, self.as_held(column))
