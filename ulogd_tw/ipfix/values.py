"""One field of many records at once: from its octets, as they lie in the records, to a column.

A column of plain numbers comes from a structured NumPy view of the records (`plan`), values of variable length from
their places in a buffer (`varying_values`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, Octets, taken
from ulogd_tw.core.conversions import LAST_MS
from ulogd_tw.core.types import Type
from ulogd_tw.ipfix.template import VARIABLE
from ulogd_tw.kernels import lib
from ulogd_tw.kernels.columns import strings

Values = tuple[Column, np.ndarray | None]
"""A column, and the mask of the rows whose octets are no value of the type (None: all are)."""
Parts = list[tuple[str, int]]
"""NumPy formats and offsets within the field: what has to be read of each record."""
Make = Callable[[list[np.ndarray], int], Values]
"""Makes the column from the arrays of the parts and the number of rows."""

MICROSECOND_BITS = np.uint64(0xFFFFFFFFFFFFF800)
"""dateTimeMicroseconds: the low 11 bits of the fraction are sent as 0 (RFC 7011 section 6.1.9)."""

# Widths that NumPy has no type for, as their pieces from the highest octet down: (octets, octets below it).
_PIECES = {1: (1,), 2: (2,), 3: (1, 2), 4: (4,), 5: (1, 4), 6: (2, 4), 7: (1, 2, 4), 8: (8,)}


def held_type(type_: Type, length: int) -> Type:
    """The type in which an element of `type_` is held when its field has this length (65535: variable).

    Integers of 1 to 8 octets are their own type, or the next wider one where the field is wider; float64 may have 4
    octets (RFC 7011 section 6.2). Any other size is impossible, and held as octetArray. An integer of variable length
    is held in 64 bits.
    """
    if type_.variable:
        return type_
    if length == VARIABLE:
        return types.wide_enough(type_, 8) if type_.integer else type_
    if type_.integer:
        return types.wide_enough(type_, length) if 1 <= length <= 8 else types.OCTETS
    if length == type_.octets or (type_ is types.FLOAT64 and length == 4):
        return type_
    return types.OCTETS


def plan(held: Type, length: int) -> tuple[Parts, Make]:
    """The fields to read for a fixed-length value, and the function that makes the column of type `held` of them."""
    if held.dtype is None:
        return ([(f"V{length}", 0)] if length else []), _octets(length)
    dtype = np.dtype(held.dtype.char)  # NumPy's own object: any other is slow in ufuncs (see core.types)
    if held.kind == "ipv6":
        return [("(2,)>u8", 0)], lambda parts, n: (parts[0].astype(dtype), None)
    if held.kind == "boolean":
        return [("u1", 0)], lambda parts, n: booleans(parts[0])
    if held.kind == "float":
        return [(f">f{length}", 0)], lambda parts, n: (parts[0].astype(dtype), None)
    parts, at = [], 0
    for octets in _PIECES[length]:
        signed = held.kind == "signed" and at == 0
        parts.append((f">{'i' if signed else 'u'}{octets}", at))
        at += octets
    if held.kind == "milliseconds":
        return parts, lambda parts, n: milliseconds(parts[0].astype(dtype))
    if len(parts) == 1:
        return parts, lambda parts, n: (parts[0].astype(dtype), None)
    shifts = [8 * octets for octets in _PIECES[length][1:]]
    return parts, lambda parts, n: (_assembled(parts, shifts, dtype), None)


def _assembled(parts: list[np.ndarray], shifts: list[int], dtype: np.dtype) -> np.ndarray:
    value = parts[0].astype(dtype)
    for part, shift in zip(parts[1:], shifts, strict=True):
        value <<= dtype.type(shift)
        value |= part.astype(dtype)
    return value


def _octets(length: int) -> Make:
    def make(parts: list[np.ndarray], n: int) -> Values:
        data = parts[0].copy().reshape(-1).view(np.uint8) if length else np.zeros(0, np.uint8)
        return Octets(_every(length, n), data), None

    return make


def _every(length: int, n: int) -> np.ndarray:
    """The offsets of `n` strings of one length."""
    offsets = np.arange(n + 1, dtype=np.int64)
    offsets *= length
    return offsets


def finished(held: Type, length: int, column: np.ndarray, n: int) -> Values:
    """The column of `n` rows from what the kernel has read of a fixed-length field: numbers, or octets."""
    if held.dtype is None:
        return Octets(_every(length, n), column), None
    if held.kind == "boolean":
        return booleans(column)
    return milliseconds(column) if held.kind == "milliseconds" else (column, None)


def booleans(octets: np.ndarray) -> Values:
    """1 is true, 2 is false (RFC 7011 section 6.1.5); anything else is no value."""
    true = octets == 1
    wrong = ~(true | (octets == 2))
    return true, wrong if wrong.any() else None


def milliseconds(column: np.ndarray) -> Values:
    """Times of 32-bit seconds, as all other times are, from 1970 to 2106; anything beyond is no value."""
    if not len(column) or column.max() <= LAST_MS:  # one pass without a mask: almost every column
        return column, None
    return column, column > np.uint64(LAST_MS)


def varying_values(held: Type, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Values:
    """The column of a variable-length field: value i is ``octets[starts[i]:starts[i] + lengths[i]]``.

    A number may have any size that a fixed-length field of its type may have; other sizes are no value.
    """
    if held.variable:
        return _gathered(octets, starts, lengths), None
    shape = (len(starts), 2) if held.kind == "ipv6" else len(starts)
    column = np.zeros(shape, held.dtype)
    wrong = np.ones(len(starts), bool)
    for length in np.flatnonzero(np.bincount(lengths, minlength=1)[:17]).tolist():
        if length > held.octets or held_type(held, length) is not held:
            continue
        rows = np.flatnonzero(lengths == length)
        parts, make = plan(held, length)
        view = taken(octets, starts[rows], length).view(_structured(parts, length))
        column[rows], bad = make([view[name] for name in view.dtype.names or ()], len(rows))
        wrong[rows] = False if bad is None else bad
    return column, wrong if wrong.any() else None


_CHUNK = 32768
"""Octets gathered in one step, so that their indices stay in the cache: three times as fast for short strings."""


def _gathered(octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> Octets:
    """As `Octets.gathered`, piece by piece."""
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if lib is not None:
        return Octets(offsets, strings(octets, np.ascontiguousarray(starts, np.int64), offsets))
    total = int(offsets[-1])
    data = np.empty(total, np.uint8)
    shifts = starts - offsets[:-1]
    edges = [*np.searchsorted(offsets, np.arange(0, total, _CHUNK)).tolist(), len(starts)]
    for first, last in pairwise(edges):
        begin, end = int(offsets[first]), int(offsets[last])
        index = np.repeat(shifts[first:last], lengths[first:last])
        index += np.arange(begin, end)
        data[begin:end] = octets[index]
    return Octets(offsets, data)


def _structured(parts: Parts, octets: int) -> np.dtype:
    return np.dtype(
        {
            "names": [str(i) for i in range(len(parts))],
            "formats": [form for form, _ in parts],
            "offsets": [at for _, at in parts],
            "itemsize": octets,
        }
    )
