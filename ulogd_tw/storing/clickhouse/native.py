"""ClickHouse's Native format: blocks of columns, each with its name, its type and its values.

A block is the number of columns and of rows, then each column (clickhouse.com/docs/interfaces/formats/Native). Numbers
in it are little-endian; counts and lengths of strings are varints (LEB128), 7 bits an octet. Nullable columns have an
octet a row before their values, 1 where a value is missing. A LowCardinality column has its different values, and the
place of each row's value among them. Values are arrays throughout; no step is made for a row.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ulogd_tw.core.columns import Coded, Octets, places, scatter

Buffer = bytes | memoryview
_SHARED_DICTIONARIES = 1
"""The version of serialized LowCardinality columns."""
_ADDITIONAL_KEYS, _NEW_DICTIONARY = 1 << 9, 1 << 10
"""Flags of a block of such a column: its different values are in the block, and replace those of blocks before."""
_CODES = (np.dtype("<u1"), np.dtype("<u2"), np.dtype("<u4"))
"""Types of the places, by their number in the flags."""


@dataclass(frozen=True, slots=True)
class NativeColumn:
    """A column of a block, with the octets of its values behind each other."""

    name: str
    type: str
    values: tuple[Buffer, ...]

    @property
    def octets(self) -> int:
        """Octets of the values."""
        return sum(map(len, self.values))


def varint(number: int) -> bytes:
    """A number in 7 bits an octet, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def text(value: str) -> bytes:
    """A name in a block."""
    octets = value.encode()
    return varint(len(octets)) + octets


def block(columns: Sequence[NativeColumn], rows: int) -> list[Buffer]:
    """The octets of one block, in pieces to be sent one after the other."""
    found: list[Buffer] = [varint(len(columns)) + varint(rows)]
    for column in columns:
        found.append(text(column.name) + text(column.type))
        found += column.values
    return found


def raw(values: np.ndarray) -> Buffer:
    """The octets of an array, which is little-endian but for addresses."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def nulls(missing: np.ndarray | None, rows: int) -> Buffer:
    """The flags before the values of a Nullable column."""
    return bytes(rows) if missing is None else raw(missing.astype(np.uint8))


def strings(column: Octets | Coded) -> Buffer:
    """Strings, each behind its length."""
    if isinstance(column, Coded):
        written = Octets.of([varint(len(value)) + value for value in column.values])
        return raw(written.take(np.asarray(column.codes, np.int64)).data)
    buffer, starts, lengths = places(column)
    lengths = np.asarray(lengths, np.int64)
    sizes = _varint_sizes(lengths)
    ends = np.cumsum(sizes + lengths)
    out = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    begins = ends - lengths
    _put_varints(out, begins - sizes, lengths, sizes)
    if len(lengths):
        scatter(out, begins, buffer, np.asarray(starts, np.int64), lengths)
    return raw(out)


def _varint_sizes(numbers: np.ndarray) -> np.ndarray:
    sizes = np.ones(len(numbers), np.int64)
    largest = int(numbers.max()) if len(numbers) else 0
    bound = 1 << 7
    while largest >= bound:
        sizes += numbers >= bound
        bound <<= 7
    return sizes


def _put_varints(out: np.ndarray, at: np.ndarray, numbers: np.ndarray, sizes: np.ndarray) -> None:
    """Write numbers at their places: first all first octets, then the second ones of those that have two, and so on."""
    rest = numbers
    while len(at):
        more = sizes > 1
        out[at] = (rest & 0x7F).astype(np.uint8) | (more.astype(np.uint8) << 7)
        if not more.any():
            return
        at, rest, sizes = at[more] + 1, rest[more] >> 7, sizes[more] - 1


def fixed(column: Octets | Coded, size: int) -> Buffer:
    """Strings of a FixedString column, with NULs behind shorter ones; longer ones are cut."""
    buffer, starts, lengths = places(column)
    out = np.zeros(len(lengths) * size, np.uint8)
    if len(lengths):
        to = np.arange(len(lengths), dtype=np.int64) * size
        scatter(out, to, buffer, np.asarray(starts, np.int64), np.minimum(lengths, size).astype(np.int64))
    return raw(out)


def low_cardinality(column: Coded, missing: np.ndarray | None, nullable: bool) -> tuple[Buffer, ...]:
    """Strings as their different values and the place of each row's value.

    Of a nullable column the first place is that of NULL; of another one, `missing` is left to the values.
    """
    values: Iterable[bytes] = column.values
    codes = np.asarray(column.codes)
    if nullable:
        values = (b"", *column.values)
        codes = codes.astype(np.int64) + 1
        codes = codes if missing is None else np.where(missing, 0, codes)
    values = list(values) or [b""]
    kind = 0 if len(values) <= 1 << 8 else 1 if len(values) <= 1 << 16 else 2
    flags = kind | _ADDITIONAL_KEYS | _NEW_DICTIONARY
    keys = b"".join(varint(len(value)) + value for value in values)
    return (
        struct.pack("<QQQ", _SHARED_DICTIONARIES, flags, len(values)),
        keys,
        struct.pack("<Q", len(codes)),
        raw(codes.astype(_CODES[kind])),
    )
