"""The names of ClickHouse's types: what a column of a table can hold, and the type for a key in a new table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import numpy as np

from ulogd_tw.core.keys import Key
from ulogd_tw.core.readable import type_of
from ulogd_tw.core.types import Type

INTEGERS: dict[str, np.dtype] = {f"{sign}Int{8 * size}": np.dtype(f"<{code}{size}")
            for sign, code in (("U", "u"), ("", "i")) for size in (1, 2, 4, 8)}  # fmt: skip
FLOATS: dict[str, np.dtype] = {"Float32": np.dtype("<f4"), "Float64": np.dtype("<f8")}
DATES: dict[str, np.dtype] = {"Date": np.dtype("<u2"), "Date32": np.dtype("<i4")}
_WRAPPED = re.compile(r"(Nullable|LowCardinality)\((.*)\)$", re.DOTALL)
_AGGREGATE = re.compile(r"SimpleAggregateFunction\(\w+(?:\([^)]*\))?, *(.*)\)$", re.DOTALL)
_MEMBER = re.compile(r"'((?:[^'\\]|\\.)*)' *= *(-?\d+)")
_NAME = re.compile(r"\w+")


@dataclass(frozen=True)
class ColumnType:
    """A type: its name in words, `base` without brackets, and what the brackets say.

    `size`: octets of a FixedString. `digits`: decimal places of the seconds of a DateTime64. `members`: the words of an
    Enum and their numbers. `inner`: the name to send values under that are not in a dictionary.
    """

    name: str
    inner: str
    base: str
    nullable: bool = False
    low_cardinality: bool = False
    size: int = 0
    digits: int = 0
    members: tuple[tuple[bytes, int], ...] = ()

    @property
    def dtype(self) -> np.dtype | None:
        """The array of its values, for numbers and times."""
        return _ARRAYS.get(self.base)

    @property
    def time(self) -> bool:
        """Whether its values are points in time."""
        return self.base in _TIMES

    @property
    def known(self) -> bool:
        """Whether values of this type can be written."""
        return self.dtype is not None or self.base in ("String", "FixedString", "IPv6")


_OTHERS: dict[str, np.dtype] = {
    "Bool": np.dtype("<u1"), "DateTime": np.dtype("<u4"), "DateTime64": np.dtype("<i8"), "IPv4": np.dtype("<u4"),
    "Enum8": np.dtype("<i1"), "Enum16": np.dtype("<i2"),
}  # fmt: skip
_ARRAYS: dict[str, np.dtype] = {**INTEGERS, **FLOATS, **DATES, **_OTHERS}
_TIMES = ("Date", "Date32", "DateTime", "DateTime64")


@cache
def parsed(name: str) -> ColumnType:
    """The type of this name."""
    rest, nullable, low_cardinality = name.strip(), False, False
    if (found := _AGGREGATE.match(rest)) is not None:
        rest = found[1].strip()
    inner = rest
    while (found := _WRAPPED.match(rest)) is not None:
        nullable |= found[1] == "Nullable"
        if found[1] == "LowCardinality":
            low_cardinality, inner = True, found[2]
        rest = found[2]
    word = _NAME.match(rest)
    base = word[0] if word else rest
    number = re.search(r"\((\d+)", rest)
    members = tuple((_unescaped(word), int(value)) for word, value in _MEMBER.findall(rest)) if "Enum" in base else ()
    count = int(number[1]) if number else 0
    return ColumnType(
        name.strip(), inner, base, nullable, low_cardinality,
        size=count if base == "FixedString" else 0, digits=(count if number else 3) if base == "DateTime64" else 0,
        members=members,
    )  # fmt: skip


def _unescaped(word: str) -> bytes:
    return re.sub(r"\\(.)", r"\1", word).encode()


# what holds what

_NUMBERS = (*INTEGERS, *FLOATS, "Bool", "Enum8", "Enum16")
_WIDE = ("UInt32", "UInt64", "Int64")
"""Types of integers for IPv4 addresses, as ulogd2 has them; the last ones also for MAC addresses."""
_HELD = {
    "unsigned": (*_NUMBERS, *_TIMES), "signed": (*_NUMBERS, *_TIMES), "float": _NUMBERS, "boolean": _NUMBERS,
    "seconds": (*_TIMES, *INTEGERS), "milliseconds": (*_TIMES, *INTEGERS), "ntp": (*_TIMES, *INTEGERS),
    "mac": _WIDE[1:], **dict.fromkeys(("ipv4", "ipv6", "address"), ("IPv6", "IPv4", *_WIDE)),
    "octets": ("FixedString",), "string": ("FixedString", "Enum8", "Enum16"), "list": (),
}  # fmt: skip


def holds(column: ColumnType, key: Type) -> bool:
    """Whether a column can have the values of a key; a value too large is a matter of its row. A String has all."""
    kind = type_of(key).kind if key.form and key.kind != "ntp" else key.kind
    if column.base == "FixedString" and kind in ("ipv4", "ipv6", "address"):
        return column.size == 16
    return column.base == "String" or column.base in _HELD[kind]


# types for keys

_BY_TYPE = {
    "unsigned8": "UInt8", "unsigned16": "UInt16", "unsigned32": "UInt32", "unsigned64": "UInt64", "signed8": "Int8",
    "signed16": "Int16", "signed32": "Int32", "signed64": "Int64", "float32": "Float32", "float64": "Float64",
    "boolean": "Bool", "macAddress": "UInt64", "dateTimeSeconds": "DateTime('UTC')",
    "dateTimeMilliseconds": "DateTime64(3, 'UTC')", "dateTimeMicroseconds": "DateTime64(6, 'UTC')",
    "dateTimeNanoseconds": "DateTime64(9, 'UTC')",
}  # fmt: skip


def type_for(key: Key, nullable: bool = False) -> str:
    """The type of a column for a key: IPv6 for addresses of both families, LowCardinality for names."""
    held = key.type if key.type.kind == "ntp" else type_of(key.type)
    if held.kind in ("ipv4", "ipv6", "address"):
        found = "IPv6"
    elif held.kind == "string":
        return "LowCardinality(Nullable(String))" if nullable else "LowCardinality(String)"
    else:
        found = _BY_TYPE.get(held.name, "String")
    return f"Nullable({found})" if nullable else found


def codec_for(type_name: str) -> str:
    """The codec of a column of this type; empty for the default, LZ4."""
    found = parsed(type_name)
    if found.low_cardinality:
        return ""
    if found.base in ("DateTime", "DateTime64"):
        return "CODEC(DoubleDelta, ZSTD(1))"
    return "CODEC(ZSTD(1))" if found.base in ("IPv6", "String", "UInt64", "UInt32", "Float64") else ""
