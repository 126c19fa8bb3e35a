"""Rows as text for MySQL: literals of INSERT statements, and lines for LOAD DATA."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ulogd_tw.core import text, types
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.lines import ColumnField, Field, Lines
from ulogd_tw.core.resolve import Found
from ulogd_tw.core.text import TextFormat
from ulogd_tw.storing.columns import Target, Values


def _form(quote: bytes, escapes: dict[int, str]) -> TextFormat:
    table = str.maketrans(escapes)
    special = text.PLAIN.special.copy()
    special[list(escapes)] = True
    return TextFormat(quote, lambda value: value.translate(table), special, (b"0", b"1"), b"NULL")


LITERALS = _form(b"'", {0: "\\0", 10: "\\n", 13: "\\r", 26: "\\Z", ord("'"): "\\'", ord("\\"): "\\\\"})
"""Values as MySQL's literals. A newline is escaped, so the only newlines are ends of rows."""
NULL = b"NULL"

FIELDS = _form(b"", {0: "\\0", 9: "\\t", 10: "\\n", 13: "\\r", 26: "\\Z", ord("\\"): "\\\\"})
"""Values as fields of LOAD DATA in its default format: tabs between them, newlines behind rows, backslash escapes."""
NO_VALUE = b"\\N"
"""NULL in a field."""


def literals(values: Values, n: int) -> Iterator[tuple[bytes, int]]:
    r"""Rows as ``(1,'a',NULL),\n``, some megabytes at once, each piece with its number of rows."""
    return Lines(b"\n(", b",", b"),").render(list(_fields(values, LITERALS, NULL, b"x")), n)


def fields(values: Values, n: int) -> Iterator[tuple[bytes, int]]:
    """Rows as lines for LOAD DATA, in such pieces. Octets for a column of `hexadecimal` are digits."""
    return Lines(b"\n", b"\t", b"").render(list(_fields(values, FIELDS, NO_VALUE, b"")), n)


def hexadecimal(target: Target, found: Found | None) -> bool:
    """Whether a binary column gets octets, which `fields` writes as digits for UNHEX."""
    return target.binary and found is not None and _as_octets(found, target.size).key.type.kind == "octets"


def _fields(values: Values, form: TextFormat, null: bytes, before_digits: bytes) -> Iterator[Field]:
    for target, found in values:
        if found is None:
            yield Field(null)
            continue
        found = _as_octets(found, target.size) if target.binary else found
        octets = target.binary and found.key.type.kind == "octets"
        yield ColumnField(before_digits if octets else b"", found.values, found.missing, found.key, form)
        if found.missing is not None and found.missing.any():
            yield Field(null, ~np.asarray(found.missing, bool))


_MAPPED = np.uint64(0xFFFF << 32)
"""The second half of ::ffff:0:0, where IPv4 addresses stand in 16 octets."""


def _as_octets(found: Found, size: int) -> Found:
    """An address for a binary column of its size as its octets; an IPv4 address fits 16, too. All else stays."""
    kind, values = found.key.type.kind, found.values
    if not isinstance(values, np.ndarray) or (kind, size) not in (("ipv4", 4), ("ipv4", 16), ("ipv6", 16), ("mac", 6)):
        return found
    if kind == "ipv4" and size == 16:
        values = np.stack((np.zeros(len(values), np.uint64), values.astype(np.uint64) | _MAPPED), axis=1)
    octets = values.astype(">u8").view(np.uint8).reshape(len(values), -1)[:, -size:]
    offsets = np.arange(len(values) + 1, dtype=np.int64) * size
    column = Octets(offsets, np.ascontiguousarray(octets).reshape(-1))
    return replace(found, values=column, key=found.key.typed(types.OCTETS))
