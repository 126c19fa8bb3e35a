"""Columns under construction: some rows bring a value, the other rows are missing."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from ulogd_tw.core.columns import Column, Octets, numbers, take


class ColumnSet:
    """Columns of `n` rows by name, with masks of missing rows. Names outside `wanted` are not kept."""

    __slots__ = ("n", "wanted", "columns", "missing")

    def __init__(self, n: int, wanted: Container[str]) -> None:
        self.n = n
        self.wanted = wanted
        self.columns: dict[str, Column] = {}
        self.missing: dict[str, np.ndarray] = {}

    def put(self, name: str, values: np.ndarray, rows: np.ndarray | None = None, form: str = "I") -> None:
        """Add a column, or complete one, by `values` of `rows`: a mask, places, or None for all.

        `form` is the type of the column, a character of NumPy. Without rows nothing is added.
        """
        if name not in self.wanted:
            return
        dtype = np.dtype(form)
        if rows is None:
            self.columns[name] = np.ascontiguousarray(values, dtype=dtype)
            self.missing.pop(name, None)
            return
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        if not len(rows):
            return
        before = self.columns.get(name)
        mask: np.ndarray | None
        if before is None:
            column, mask = np.zeros((self.n, *values.shape[1:]), dtype), np.ones(self.n, bool)
        else:
            column, mask = numbers(before).copy(), self.missing.pop(name, None)
        column[rows] = values
        self.columns[name] = column
        if mask is not None:
            mask[rows] = False
            if mask.any():
                self.missing[name] = mask

    def put_octets(self, name: str, values: Octets, rows: np.ndarray) -> None:
        """As `put`, a column of octet strings; `rows` are places."""
        if name not in self.wanted or not len(rows):
            return
        starts, lengths, data = np.zeros(self.n, np.int64), np.zeros(self.n, np.int64), values.data
        mask = np.ones(self.n, bool)
        if isinstance(before := self.columns.get(name), Octets):
            starts[:], lengths[:] = before.offsets[:-1] + len(data), before.lengths
            data, mask = np.concatenate((data, before.data)), self.missing.pop(name, np.zeros(self.n, bool)).copy()
        starts[rows], lengths[rows], mask[rows] = values.offsets[:-1], values.lengths, False
        self.columns[name] = Octets.gathered(data, starts, lengths)
        if mask.any():
            self.missing[name] = mask

    def take(self, other: ColumnSet, rows: np.ndarray) -> None:
        """Add rows of all columns of another set; there must be as many rows as this set has."""
        for name, column in other.columns.items():
            missing = other.missing.get(name)
            mask = missing[rows] if missing is not None else None
            if mask is not None and mask.all():
                continue
            column = take(column, rows)
            if name in self.columns and mask is not None:
                self.put(name, numbers(column)[~mask], ~mask, numbers(column).dtype.char)
                continue
            self.columns[name] = column
            self.missing.pop(name, None)
            if mask is not None and mask.any():
                self.missing[name] = mask
