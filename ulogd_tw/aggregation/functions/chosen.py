"""Functions that choose one of the values: min, max, first, last."""

from __future__ import annotations

import numpy as np

from ulogd_tw.aggregation.functions.base import NUMBERS, Function, widest
from ulogd_tw.aggregation.functions.registry import register
from ulogd_tw.core.columns import Column
from ulogd_tw.core.keys import Key


class _Extreme(Function):
    """One of the ends of the range of the values."""

    kinds = NUMBERS
    bounded = False

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, widest(of.type), (), of.unit)

    def limits(self) -> tuple[object, object]:
        """The least and the greatest number of the type."""
        if self.dtype.kind == "f":
            return -np.inf, np.inf
        return np.iinfo(self.dtype).min, np.iinfo(self.dtype).max

    def take(self, entries: np.ndarray, column: Column) -> None:
        assert self.ufunc is not None
        self.ufunc.at(self.values, entries, self.as_held(column))


@register
class Min(_Extreme):
    """The least value."""

    name = "min"
    help = ""
    merged_by = "min"
    ufunc = np.minimum

    def initial(self) -> object:
        return self.limits()[1]


@register
class Max(_Extreme):
    """The greatest value."""

    name = "max"
    help = ""
    merged_by = "max"
    ufunc = np.maximum

    def initial(self) -> object:
        return self.limits()[0]


class _Place(Function):
    """The value at one end of the order in which rows came."""

    kinds = NUMBERS
    bounded = False

    @classmethod
    def result_key(cls, name: str, of: Key) -> Key:
        return Key(name, widest(of.type), of.elements, of.unit)


@register
class First(_Place):
    """The value that came first."""

    name = "first"
    help = ""
    merged_by = "min"

    def add(self, entries: np.ndarray, column: Column, missing: np.ndarray | None) -> None:
        known = self.seen[np.minimum(entries, self.most)]
        super().add(entries, column, known if missing is None else missing | known)

    def join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        self.values[entries[::-1]] = rows[::-1, 0]

    def take(self, entries: np.ndarray, column: Column) -> None:
        self.values[entries[::-1]] = self.as_held(column)[::-1]


@register
class Last(_Place):
    """The value that came last."""

    name = "last"
    help = ""
    merged_by = "max"

    def join(self, entries: np.ndarray, rows: np.ndarray) -> None:
        older = ~self.seen[entries]
        self.values[entries[older]] = rows[older, 0]

    def take(self, entries: np.ndarray, column: Column) -> None:
        self.values[entries] = self.as_held(column)  # of rows with one entry the last one stays
