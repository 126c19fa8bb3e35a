"""Columns of a batch in the types of a table's columns, before they are sorted and become octets.

A missing value is NULL in a Nullable column, else 0, an empty string or the address ::. Addresses of both families go
into IPv6 and FixedString(16), IPv4 as ::ffff:a.b.c.d. Strings go as they are, without trailing NULs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ulogd_tw.core import columns
from ulogd_tw.core.columns import Coded, Column, Octets, Rows, numbers, strings, unpadded
from ulogd_tw.core.conversions import ntp_to_integer
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.resolve import Found
from ulogd_tw.core.text import PLAIN
from ulogd_tw.storing.clickhouse import native
from ulogd_tw.storing.clickhouse.native import Buffer, NativeColumn
from ulogd_tw.storing.clickhouse.types import ColumnType

_MAPPED = np.uint64(0xFFFF_0000_0000)
"""The upper part of the low half of ::ffff:0:0/96, in which IPv4 addresses are."""
_DAY_S = 86400
_NANO = 10**9


@dataclass(frozen=True, slots=True)
class Prepared:
    """A column of a table with the values of some rows.

    `values`: an array of the type's numbers, addresses as two ``>u8`` a row, or strings. `bad`: a mask of the rows
    whose value the type cannot hold.
    """

    name: str
    type: ColumnType
    values: Column
    missing: np.ndarray | None = None
    bad: np.ndarray | None = None

    def take(self, rows: Rows) -> Prepared:
        """The chosen rows; those of a repeated value cost nothing."""
        missing = None if self.missing is None else self.missing[rows]
        return replace(self, values=columns.take(self.values, rows), missing=missing, bad=None)

    def native(self) -> NativeColumn:
        """The octets."""
        if self.type.base == "String" and self.type.low_cardinality and isinstance(self.values, Coded):
            values = native.low_cardinality(self.values, self.missing, self.type.nullable)
            return NativeColumn(self.name, self.type.name, values)
        flags = (native.nulls(self.missing, len(self.values)),) if self.type.nullable else ()
        return NativeColumn(self.name, self.type.inner, (*flags, self._octets()))

    def _octets(self) -> Buffer:
        values = self.values
        if isinstance(values, np.ndarray):
            return native.raw(values)
        return native.fixed(values, self.type.size) if self.type.base == "FixedString" else native.strings(values)


def prepared(name: str, column: ColumnType, found: Found) -> Prepared:
    """The values of one column. `holds` is true of the type and the key."""
    convert = _FORMS.get(column.base, _number)
    values, bad = convert(found, column)
    missing = found.missing
    if missing is not None:
        values = _without(values, missing)
        bad = None if bad is None else bad & ~missing
    return Prepared(name, column, values, missing, bad if bad is not None and bad.any() else None)


def _without(values: Column, missing: np.ndarray) -> Column:
    """Nothing in the rows without a value, whose content is arbitrary."""
    if isinstance(values, np.ndarray):
        kept = values.copy()  # np.where would turn the octets of addresses round
        kept[missing] = 0
        return kept
    if isinstance(values, Coded):
        at = values.values.index(b"") if b"" in values.values else len(values.values)
        return Coded(np.where(missing, at, values.codes), (*values.values, b"") if at == len(values.values)
                     else values.values)  # fmt: skip
    plain = values.plain()
    return Octets.gathered(plain.data, plain.offsets[:-1], np.where(missing, 0, plain.lengths))


Made = tuple[Column, np.ndarray | None]


def _number(found: Found, column: ColumnType) -> Made:
    values = found.numbers
    assert column.dtype is not None
    if found.key.type.kind == "ntp":
        values = _seconds(found)
    elif values.ndim == 2:
        short, bad = _ipv4(found, column)
        return numbers(short).astype(column.dtype), bad
    if column.base == "Bool":
        return (values != 0).astype(np.uint8), None
    return _fitting(values, column.dtype)


def _fitting(values: np.ndarray, wanted: np.dtype) -> Made:
    """The numbers as integers or floats of a type, and the rows that do not fit."""
    if values.dtype == wanted or np.can_cast(values.dtype, wanted):
        return values if values.dtype == wanted else values.astype(wanted), None
    if wanted.kind == "f":
        return values.astype(wanted), None
    if values.dtype.kind == "f":
        values = np.rint(values)
    bad = _beyond(values, wanted)
    with np.errstate(all="ignore"):
        return values.astype(wanted), bad if bad.any() else None


def _beyond(values: np.ndarray, wanted: np.dtype) -> np.ndarray:
    """The rows outside of the range of a type of integers."""
    low, high = int(np.iinfo(wanted).min), int(np.iinfo(wanted).max)
    if values.dtype.kind == "f":
        return ~((values >= low) & (values < float(high + 1)))
    found = np.zeros(len(values), bool)
    limits = np.iinfo(values.dtype)
    if limits.max > high:
        found |= values > values.dtype.type(high)
    if limits.min < low:
        found |= values < values.dtype.type(low)
    return found


# times


def _seconds(found: Found) -> np.ndarray:
    """Times in seconds since 1970; plain numbers are such."""
    kind = found.key.type.kind
    if kind == "milliseconds":
        return found.numbers // np.uint64(1000)
    return ntp_to_integer(found.numbers, _NANO) // np.uint64(_NANO) if kind == "ntp" else found.numbers


def _datetime(found: Found, column: ColumnType) -> Made:
    assert column.dtype is not None
    return _fitting(_seconds(found), column.dtype)


def _date(found: Found, column: ColumnType) -> Made:
    assert column.dtype is not None
    return _fitting(_seconds(found) // _DAY_S, column.dtype)


def _datetime64(found: Found, column: ColumnType) -> Made:
    """Times in the unit of the column: a power of ten of parts of a second."""
    kind, digits = found.key.type.kind, column.digits
    if kind == "ntp":
        return _fitting(ntp_to_integer(found.numbers, 10**digits), np.dtype("<i8"))
    values = found.numbers
    if values.dtype.kind == "f":
        values = np.rint(values)
    power = digits - (3 if kind == "milliseconds" else 0)
    if power < 0:
        return _fitting(values // values.dtype.type(10**-power), np.dtype("<i8"))
    whole, bad = _fitting(values, np.dtype("<i8"))
    assert isinstance(whole, np.ndarray)
    most = np.iinfo(np.int64).max // 10**power
    over = np.abs(whole) > most
    bad = over if bad is None else bad | over
    return np.where(bad, 0, whole) * np.int64(10**power), bad


# addresses


def _address(found: Found, column: ColumnType) -> Made:
    """16 octets in network order."""
    values = found.numbers
    octets = np.zeros((len(values), 2), ">u8")
    if values.ndim == 1:
        octets[:, 1] = values.astype(np.uint64) | _MAPPED
    else:
        octets[:] = values
    return octets, None


def _ipv4(found: Found, column: ColumnType) -> Made:
    """Addresses of IPv4, mapped ones included; those of IPv6 do not fit."""
    values = found.numbers
    if values.ndim == 1:
        return values.astype("<u4"), None
    bad = (values[:, 0] != 0) | (values[:, 1] >> np.uint64(32) != np.uint64(0xFFFF))
    return (values[:, 1] & np.uint64(0xFFFFFFFF)).astype("<u4"), bad


# strings


def _string(found: Found, column: ColumnType) -> Made:
    """Octets and texts as they are, anything else as text."""
    if isinstance(found.values, np.ndarray):
        field = ColumnField(b"", found.values, None, found.key, PLAIN)
        return Lines(b"\n", b"", b"").column([field], len(found.values)), None
    return unpadded(found.values) if found.key.type.text else found.values, None


def _fixed(found: Found, column: ColumnType) -> Made:
    if isinstance(found.values, np.ndarray):
        return _address(found, column)
    values = strings(_string(found, column)[0])
    _, _, lengths = columns.places(values)
    return values, np.asarray(lengths) > column.size


def _enum(found: Found, column: ColumnType) -> Made:
    """The numbers of words, or numbers that are members."""
    assert column.dtype is not None
    members = [number for _, number in column.members]
    if isinstance(found.values, np.ndarray):
        values, bad = _number(found, replace(column, base="Int16"))
        assert isinstance(values, np.ndarray)
        odd = ~np.isin(values, members)
        return values.astype(column.dtype), odd if bad is None else odd | bad
    known = dict(column.members)
    plain = strings(_string(found, column)[0])
    words, codes = (list(plain.values), plain.codes) if isinstance(plain, Coded) else columns.different(plain)
    table = np.array([known.get(word, members[0]) for word in words] or members[:1], column.dtype)
    odd = np.array([word not in known for word in words] or [False])
    return table[codes], odd[codes]


_FORMS: dict[str, Callable[[Found, ColumnType], Made]] = {
    "DateTime": _datetime, "DateTime64": _datetime64, "Date": _date, "Date32": _date, "IPv6": _address,
    "IPv4": _ipv4, "String": _string, "FixedString": _fixed, "Enum8": _enum, "Enum16": _enum,
}  # fmt: skip
