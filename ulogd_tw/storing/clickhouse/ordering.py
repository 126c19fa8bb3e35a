"""Sorts rows by the key of a table, which spares the server the work for each insert.

The key is an expression of columns; those understood are columns, and intervals and dates of a time. Rows are left as
they are where it has others. The numbers of all its columns go into one of 64 bits where their ranges allow that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from ulogd_tw.storing.clickhouse.values import Prepared

_INTERVALS = {
    "toStartOfMinute": 60, "toStartOfFiveMinute": 300, "toStartOfFiveMinutes": 300, "toStartOfTenMinutes": 600,
    "toStartOfFifteenMinutes": 900, "toStartOfHour": 3600, "toDate": 86400, "toStartOfDay": 86400,
    "toYYYYMMDD": 86400,
}  # fmt: skip
"""Functions of a time that grow with it, and their seconds; days are those of UTC."""
_TERM = re.compile(r"\s*(?:(\w+)\(\s*)?[`\"]?(\w+)[`\"]?\s*(\))?\s*$")


def terms(key: str) -> list[tuple[str, int]] | None:
    """The columns of a sorting key, each with the seconds of its interval, 0 without one; None for other keys."""
    found = []
    for term in _outer_commas(key.strip()):
        match = _TERM.match(term)
        if match is None or bool(match[1]) != bool(match[3]) or match[1] and match[1] not in _INTERVALS:
            return None
        found.append((match[2], _INTERVALS[match[1]] if match[1] else 0))
    return found


def _outer_commas(key: str) -> list[str]:
    """The parts between commas outside of brackets."""
    found, depth, part = [], 0, ""
    for letter in key:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            found.append(part)
            part = ""
        else:
            part += letter
    return [*found, part] if part.strip() else found


def order(key: Sequence[tuple[str, int]], columns: Mapping[str, Prepared]) -> np.ndarray | None:
    """The order of the rows by a key; None where they have it, or a column of it is no number."""
    arrays: list[np.ndarray] = []
    for name, interval in key:
        column = columns.get(name)
        if column is None:
            continue
        found = _numbers(column, interval)
        if found is None:
            return None
        arrays += found
    arrays = [array for array in arrays if len(array) and array.strides[0] and array.min() != array.max()]
    if not arrays:
        return None
    packed = _packed(arrays)
    if packed is None:
        return np.lexsort(arrays[::-1])
    return None if (packed[1:] >= packed[:-1]).all() else np.argsort(packed)


def _numbers(column: Prepared, interval: int) -> list[np.ndarray] | None:
    values = column.values
    if not isinstance(values, np.ndarray) or column.type.nullable:
        return None
    if values.ndim == 2:
        return None if interval else [values[:, 0].astype(np.uint64), values[:, 1].astype(np.uint64)]
    if interval and not column.type.time:
        return None
    unit = 10**column.type.digits
    return [values // (interval * unit)] if interval else [values]


def _packed(arrays: Sequence[np.ndarray]) -> np.ndarray | None:
    """One number of 64 bits a row in the order of all arrays; None where they need more."""
    found, used = np.zeros(len(arrays[0]), np.uint64), 0
    for array in arrays:
        if array.dtype.kind == "f":
            return None
        low = array.min()
        width = (int(array.max()) - int(low)).bit_length()
        if used + width > 64:
            return None
        found = (found << np.uint64(width)) | (array - low).astype(np.uint64)
        used += width
    return found
