"""Values of columns in PostgreSQL's binary form, many rows at once.

A column becomes `Cells`: the octets of each value, the rows that are NULL, and the rows whose value the column's type
cannot hold. A pair of types without a form here gives None: then the batch goes to the server as text, which it reads
itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ulogd_tw.core import columns, text
from ulogd_tw.core.columns import Coded, Octets
from ulogd_tw.core.conversions import ntp_to_integer
from ulogd_tw.core.lines import ColumnField, Lines
from ulogd_tw.core.resolve import Found
from ulogd_tw.core.text import TextFormat

EPOCH_S = 946684800
"""Seconds from 1970 to 2000, where PostgreSQL's times begin."""
LATEST_US = 9223371331200000000
"""The first microsecond after the last year of a timestamp, since 2000."""
_TIMES = ("seconds", "milliseconds", "ntp")
_IPV4, _IPV6 = 2, 3
"""PostgreSQL's numbers of address families on the wire."""
_BASE = 10_000
"""The base of a numeric's digits."""
NUL = "a text holds a NUL octet"
TIME = "time out of range"


@dataclass(slots=True)
class Cells:
    """The values of one column. Value i is ``octets[starts[i]:starts[i] + lengths[i]]``, or row i of a 2-D array.

    `refused`: masks of rows that the type cannot hold, by reason.
    """

    octets: np.ndarray
    missing: np.ndarray | None
    starts: np.ndarray | None = None
    lengths: np.ndarray | None = None
    refused: dict[str, np.ndarray] = field(default_factory=dict)


def cells(found: Found, kind: str) -> Cells | None:
    """The values of a column for PostgreSQL's type `kind` (such as ``bigint``); None where text must do."""
    encode = _FORMS.get(kind)
    return encode(found, kind) if encode else None


# numbers


def _octets(values: np.ndarray, size: int) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8).reshape(len(values), size)


def _beyond(values: np.ndarray, low: int, high: int, found: Found) -> np.ndarray | None:
    """The rows with a value outside; None where there is none."""
    bits = np.iinfo(values.dtype)
    if bits.min >= low and bits.max <= high:
        return None
    bad = (values < low) | (values > high)
    if found.missing is not None:
        bad &= ~found.missing
    return bad if bad.any() else None


_SIZES = {"smallint": 2, "integer": 4, "bigint": 8}


def _integer(found: Found, kind: str) -> Cells | None:
    if not isinstance(found.values, np.ndarray) or found.values.ndim > 1 or found.values.dtype.kind not in "uib":
        return None
    if found.key.type.kind in ("ipv4", "mac"):
        return None
    values = found.values.view(np.uint8) if found.values.dtype.kind == "b" else found.values
    size = _SIZES[kind]
    bad = _beyond(values, -(1 << 8 * size - 1), (1 << 8 * size - 1) - 1, found)
    made = Cells(_octets(values.astype(f">i{size}"), size), found.missing)
    if bad is not None:
        made.refused[f"out of range for type {kind}"] = bad
    return made


def _numeric(found: Found, kind: str) -> Cells | None:
    """Five digits of base 10,000 for numbers without sign (numeric_recv takes leading zeros)."""
    if found.key.type.kind not in ("unsigned", "seconds", "milliseconds") or not isinstance(found.values, np.ndarray):
        return None
    rest = found.values.astype(np.uint64)
    made = np.zeros((len(rest), 9), ">i2")
    made[:, :2] = (5, 4)  # digits, and the weight of the first one; sign and scale are 0
    for place in range(8, 3, -1):
        made[:, place] = rest % np.uint64(_BASE)
        rest = rest // np.uint64(_BASE)
    return Cells(made.view(np.uint8).reshape(len(made), 18), found.missing)


_FLOATS = {"real": 4, "double precision": 8}


def _float(found: Found, kind: str) -> Cells | None:
    if not isinstance(found.values, np.ndarray) or found.key.type.kind not in ("float", "unsigned", "signed"):
        return None
    size = _FLOATS[kind]
    with np.errstate(over="ignore"):
        values = found.values.astype(f">f{size}")
    bad = np.isinf(values)
    if found.missing is not None:
        bad &= ~found.missing
    made = Cells(_octets(values, size), found.missing)
    if bad.any():
        made.refused[f"out of range for type {kind}"] = bad
    return made


def _boolean(found: Found, kind: str) -> Cells | None:
    if found.key.type.kind != "boolean":
        return None
    return Cells(found.numbers.astype(np.uint8).reshape(-1, 1), found.missing)


# times


def microseconds(found: Found) -> np.ndarray | None:
    """Microseconds since 1970 of a column of times (uint64, at most the highest one); None if it holds none.

    Numbers of 32 bits count seconds, as ``flow.start.sec`` does.
    """
    kind = found.key.type.kind
    if kind not in _TIMES and not (kind == "unsigned" and found.key.type.octets == 4):
        return None
    values = found.numbers.astype(np.uint64)
    if kind == "ntp":
        return ntp_to_integer(values, 10**6)
    unit = np.uint64(1000 if kind == "milliseconds" else 10**6)
    return np.minimum(values, np.uint64((1 << 64) - 1) // unit) * unit


def _time(found: Found, kind: str) -> Cells | None:
    if not isinstance(found.values, np.ndarray):
        return None
    since_1970 = microseconds(found)
    if since_1970 is None:
        return None
    limit = LATEST_US + EPOCH_S * 10**6 - 1
    bad = _beyond(since_1970, 0, limit, found)
    values = np.minimum(since_1970, np.uint64(1 << 63)).astype(np.int64) - EPOCH_S * 10**6
    made = Cells(_octets(values.astype(">i8"), 8), found.missing)
    if bad is not None:
        made.refused[TIME] = bad
    return made


# addresses


def packed(found: Found) -> np.ndarray | None:
    """The octets of addresses and MACs in network order, a row each; None for other values."""
    size = {"ipv4": 4, "ipv6": 16, "mac": 6}.get(found.key.type.kind)
    if size is None or not isinstance(found.values, np.ndarray):
        return None
    wide = found.values.astype(">u8").view(np.uint8).reshape(len(found.values), -1)
    return wide[:, -size:]


def _inet(found: Found, kind: str) -> Cells | None:
    address = packed(found)
    if address is None or found.key.type.kind == "mac":
        return None
    size = address.shape[1]
    made = np.empty((len(address), 4 + size), np.uint8)
    made[:, :4] = (_IPV4 if size == 4 else _IPV6, 8 * size, kind == "cidr", size)
    made[:, 4:] = address
    return Cells(made, found.missing)


def _mac(found: Found, kind: str) -> Cells | None:
    return Cells(np.ascontiguousarray(packed(found)), found.missing) if found.key.type.kind == "mac" else None


# strings


def _as_it_is(value: str) -> str:
    return value


PLAIN = TextFormat(b"", _as_it_is, np.zeros(256, bool), (b"0", b"1"), None)
"""Canonical text, with ulogd2's numbers for truth values."""


def _of_strings(column: Octets | Coded, missing: np.ndarray | None) -> Cells:
    buffer, starts, lengths = columns.places(column)
    return Cells(buffer, missing, starts, lengths)


def clean(column: Octets | Coded) -> Octets | Coded:
    """Strings as `text.clean` has them: without trailing NULs, with U+FFFD for invalid UTF-8."""
    if isinstance(column, Coded):
        return Coded(column.codes, [text.clean(value).encode() for value in column.values])
    column = columns.unpadded(column).plain()
    high = column.data > 127
    if not high.any():
        return column
    before = np.concatenate([[0], np.cumsum(high)])
    rows = np.flatnonzero(before[column.offsets[1:]] != before[column.offsets[:-1]])
    values = [text.clean(value).encode() for value in column.take(rows).to_list()]
    starts, lengths = column.offsets[:-1].copy(), column.lengths
    sizes = np.fromiter(map(len, values), np.int64, len(values))
    starts[rows], lengths[rows] = len(column.data) + np.cumsum(sizes) - sizes, sizes
    data = np.concatenate([column.data, np.frombuffer(b"".join(values), np.uint8)])
    return Octets.gathered(data, starts, lengths)


def with_nul(column: Octets | Coded, missing: np.ndarray | None) -> np.ndarray | None:
    """The rows with a NUL inside, which PostgreSQL takes in no text; None where there is none."""
    if isinstance(column, Coded):
        odd = np.array([b"\0" in value for value in column.values] or [False])
        bad = odd[column.codes] if odd.any() else None
    else:
        zero = column.data == 0
        if not zero.any():
            return None
        before = np.concatenate([[0], np.cumsum(zero)])
        bad = before[column.offsets[1:]] != before[column.offsets[:-1]]
    if bad is not None and missing is not None:
        bad = bad & ~missing
    return bad if bad is not None and bad.any() else None


def _text(found: Found, kind: str) -> Cells | None:
    if found.key.type.kind not in ("string", "list") or isinstance(found.values, np.ndarray):
        column = Lines(b"\n", b"", b"").column([ColumnField(b"", found.values, None, found.key, PLAIN)], n(found))
        return _of_strings(column, found.missing)
    strings = clean(found.values)
    made = _of_strings(strings, found.missing)
    bad = with_nul(strings, found.missing)
    if bad is not None:
        made.refused[NUL] = bad
    return made


def n(found: Found) -> int:
    """The number of rows."""
    return len(found.values)


def _bytea(found: Found, kind: str) -> Cells | None:
    if isinstance(found.values, np.ndarray):
        address = packed(found)
        return None if address is None else Cells(np.ascontiguousarray(address), found.missing)
    if found.key.type.kind == "list":
        return None
    return _of_strings(found.values, found.missing)


_FORMS: dict[str, Callable[[Found, str], Cells | None]] = {
    "smallint": _integer, "integer": _integer, "bigint": _integer, "numeric": _numeric, "real": _float,
    "double precision": _float, "boolean": _boolean, "timestamp with time zone": _time,
    "timestamp without time zone": _time, "inet": _inet, "cidr": _inet, "macaddr": _mac, "text": _text,
    "character varying": _text, "bytea": _bytea,
}  # fmt: skip
