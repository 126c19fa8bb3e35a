"""Names and constants in SQL, from which no text can break out."""

from __future__ import annotations

import uuid as uuids
from collections.abc import Iterable

import numpy as np

from ulogd_tw.match.values import fraction

INTEGERS = {
    "B": "UTINYINT", "H": "USMALLINT", "I": "UINTEGER", "L": "UBIGINT",
    "b": "TINYINT", "h": "SMALLINT", "i": "INTEGER", "l": "BIGINT",
}  # fmt: skip
"""DuckDB's types of whole numbers, by the characters of NumPy's."""
LEAST, MOST = -(1 << 63), (1 << 64) - 1
"""Whole numbers that a column may have, whatever its type."""


def identifier(name: str) -> str:
    """The name of a column or table."""
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A text of any characters; NUL, the end of a text to many a parser, is written as a number."""
    parts = ["'" + part.replace("'", "''") + "'" for part in value.split("\0")]
    return parts[0] if len(parts) == 1 else "(" + " || chr(0) || ".join(parts) + ")"


def octets(value: bytes) -> str:
    """Octets as a BLOB."""
    return f"unhex('{value.hex()}')"


def uuid_text(number: int) -> str:
    """An address of 128 bits as the text of a UUID."""
    return str(uuids.UUID(int=number))


def uuid(number: int) -> str:
    """An address of 128 bits."""
    return f"'{uuid_text(number)}'::UUID"


def whole(value: int, dtype: np.dtype) -> str:
    """A whole number for comparisons with a column of this type, in this type if it can be."""
    return f"'{value}'::{whole_type((value,), dtype)}"


def whole_type(values: Iterable[int], dtype: np.dtype) -> str:
    """The type of a column, or a wider one if it cannot have all these numbers."""
    limits = np.iinfo(dtype)
    return INTEGERS[dtype.char] if all(limits.min <= value <= limits.max for value in values) else "HUGEINT"


def real(value: float, dtype: np.dtype) -> str:
    """A constant for comparisons with a column of this type of fractions."""
    found = fraction(value, dtype)
    return f"'{found!s}'::{'FLOAT' if found.dtype == np.float32 else 'DOUBLE'}"


def between(sql: str, low: str, high: str) -> str:
    """Whether a value is within a range, both ends included."""
    return f"({sql} BETWEEN {low} AND {high})"
