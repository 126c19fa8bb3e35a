"""Columns as Python values: for databases and queries."""

from __future__ import annotations

from typing import Any

import numpy as np

from ulogd_tw.core import columns
from ulogd_tw.core.columns import Coded, Column, Octets
from ulogd_tw.core.keys import Key
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.readable import readable
from ulogd_tw.core.text import FEW, PLAIN, clean, one_value, python_value


def canonical_list(column: Column, key: Key, missing: np.ndarray | None = None) -> list[Any]:
    """The canonical values of a column as Python has them: int, float, bool, str; None where `missing`."""
    column, key = readable(column, key)
    if len(column) > 1 and one_value(column):
        found = [_values(columns.take(column, slice(0, 1)), key)[0]] * len(column)
    else:
        found = _values(column, key)
    if missing is not None:
        for row in np.flatnonzero(missing).tolist():
            found[row] = None
    return found


def _values(column: Column, key: Key) -> list[Any]:
    kind = key.type.kind
    if isinstance(column, Coded):
        read = clean if kind in ("string", "list") else bytes.hex
        different = np.empty(len(column.values), object)
        different[:] = [read(v) for v in column.values]
        return different.take(column.codes).tolist()
    if isinstance(column, Octets):
        return _text_values(column) if kind in ("string", "list") else _rendered_values(column, key)
    if key.type.numeric:
        return column.tolist()
    if len(column) <= FEW:
        return [python_value(v, kind) for v in column.tolist()]
    return _rendered_values(column, key)


def _text_values(column: Octets) -> list[str]:
    raw = column.to_list()
    if column.data.max(initial=0) < 128:
        return [v.rstrip(b"\0").decode("ascii") for v in raw]
    return [clean(v) for v in raw]


def _rendered_values(column: Column, key: Key) -> list[str]:
    """Texts of many rows: rendered together as lines, then cut into strings."""
    if not len(column):
        return []
    field = ColumnField(b"", column, None, key, PLAIN)
    found: list[str] = []
    for octets, _ in Lines(b"\n", b"", b"").render([field], len(column)):
        found += octets.decode("ascii").split("\n")[:-1]
    return found
