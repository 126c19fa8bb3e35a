"""Columns as text: the canonical text of every type, many rows at once.

A column becomes a few *parts*: octets common to all rows, and texts of each row (`ulogd_tw.core.aligned`).
`ulogd_tw.core.lines` makes lines of them. Python steps are taken only for each *different* float and for each row with
a string in need of escapes.

Canonical text: addresses as glibc's inet_ntop and RFC 5952 have them (::ffff:192.0.2.1, ::192.0.2.1), MACs in lower
case, strings without trailing NULs and with U+FFFD for invalid UTF-8, octets as hexadecimal, lists as their JSON text;
what people write otherwise as `readable` has it. `canonical_list` gives the same as Python values.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ulogd_tw.core import columns, texttables
from ulogd_tw.core.aligned import CHUNK, Aligned, Part, Strings, window
from ulogd_tw.core.columns import Coded, Column, Octets
from ulogd_tw.core.keys import Key
from ulogd_tw.core.readable import readable

FEW = 24
"""Rows up to which plain Python is faster than arrays."""


# forms


@dataclass(frozen=True)
class TextFormat:
    """How an output writes texts, truth values and numbers that are not finite.

    `special` marks the octets of a string that make `escape` necessary; octets over 127 always do.
    """

    quote: bytes
    escape: Callable[[str], str]
    special: np.ndarray
    truth: tuple[bytes, bytes]
    not_finite: bytes | None

    def with_numbers_for_truth(self) -> TextFormat:
        """The same format with 1 and 0 for truth values, as in ulogd2."""
        return replace(self, truth=(b"0", b"1"))


def _special(characters: bytes) -> np.ndarray:
    table = np.zeros(256, bool)
    table[:32] = table[127:] = True
    table[list(characters)] = True
    return table


def _json_escape(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


_CONTROL = {c: f"\\x{c:02x}" for c in (*range(32), 127, 0x85, 0x2028, 0x2029)} | {9: "\\t", 10: "\\n", 13: "\\r"}


def _plain_escape(text: str) -> str:
    return text.translate(_CONTROL)


JSON = TextFormat(b'"', _json_escape, _special(b'"\\'), (b"false", b"true"), b"null")
PLAIN = TextFormat(b"", _plain_escape, _special(b""), (b"0", b"1"), None)
"""Text without quotes; control characters become backslash escapes, so that a value cannot end its line."""


# numbers


def _looked_up(table: tuple[np.ndarray, np.ndarray], index: np.ndarray, least: int) -> Aligned:
    words, lengths = table
    return Aligned(words.take(index).view(np.uint8).reshape(-1, 8), lengths.take(index), least)


def _digits(values: np.ndarray, groups: int) -> np.ndarray:
    """`4 * groups` decimal digits of unsigned numbers, as a matrix of octets; longer numbers are not allowed."""
    table = texttables.four_digits()
    matrix = np.empty((len(values), groups), np.uint32)
    step = values.dtype.type(10_000)
    for group in range(groups - 1, 0, -1):
        rest = values // step
        matrix[:, group] = table.take((values - rest * step).astype(np.intp))
        values = rest
    matrix[:, 0] = table.take(values.astype(np.intp))
    return matrix.view(np.uint8)


def zero_filled(values: np.ndarray, digits: int) -> Aligned:
    """Unsigned numbers of at most so many digits, with leading zeros."""
    return Aligned(_digits(values, (digits + 3) // 4), digits, digits)


def _digit_counts(values: np.ndarray, low: int, high: int) -> np.ndarray | int:
    least, most = len(str(low)), len(str(high))
    if least == most:
        return least
    counts = (values >= values.dtype.type(10**least)).astype(np.int8)
    counts += np.int8(least)
    for power in range(least + 1, most):
        counts += values >= values.dtype.type(10**power)
    return counts


def _unsigned(values: np.ndarray, low: int, high: int) -> list[Part]:
    if high < 65536:
        return [_looked_up(texttables.small_numbers(), values.astype(np.intp), len(str(low)))]
    if high < 1 << 32 and values.itemsize > 4:
        values = values.astype(np.uint32)
    common = high // 10**8
    if common and common == low // 10**8:  # times of one day differ in their last 8 digits
        rest = (values - values.dtype.type(common * 10**8)).astype(np.uint32)
        return [b"%d" % common, zero_filled(rest, 8)]
    counts = _digit_counts(values, low, high)
    return [Aligned(_digits(values, (len(str(high)) + 3) // 4), counts, len(str(low)))]


def _integers(values: np.ndarray) -> list[Part]:
    low, high = int(values.min()), int(values.max())
    if low == high:
        return [b"%d" % low]
    if low >= 0:
        if values.dtype.kind == "i":
            values = values.view(f"u{values.itemsize}")
        return _unsigned(values, low, high)
    wide = values.astype(np.int64)
    negative = wide < 0
    size = np.where(negative, -wide, wide).view(np.uint64)  # -2**63 stays itself, which is right as uint64
    most = max(-low, high)
    matrix = _digits(size, (len(str(most)) + 4) // 4)
    lengths = np.broadcast_to(_digit_counts(size, 0, most), len(size)) + negative
    rows = np.flatnonzero(negative)
    matrix[rows, matrix.shape[1] - lengths[rows]] = ord("-")
    return [Aligned(matrix, lengths.astype(np.int8), 1)]


def _floats(values: np.ndarray, form: TextFormat) -> list[Part]:
    """Floats as text: one Python step for each different value (0.4 us). Counters and times are never floats."""
    different, codes = np.unique(_bits(values), return_inverse=True)
    return [Strings.of([_float(v, form) for v in different.view(values.dtype).tolist()], codes)]


def _bits(values: np.ndarray) -> np.ndarray:
    """Floats as integers, so that 0.0 and -0.0 are two values and NaN equals itself."""
    return np.ascontiguousarray(values).view(f"u{values.itemsize}")


def _float(value: float, form: TextFormat) -> bytes:
    if form.not_finite is not None and not math.isfinite(value):
        return form.not_finite
    return repr(value).encode()


# addresses and octets


def _ipv4(values: np.ndarray) -> list[Part]:
    first = (values >> np.uint32(16)).astype(np.intp)
    second = (values & np.uint32(0xFFFF)).astype(np.intp)
    return [_looked_up(texttables.first_half(), first, 3), _looked_up(texttables.second_half(), second, 4)]


_IPV6_WIDTH = 48
"""39 characters at most, a colon too many, and the spill of a word of 8."""


def _ipv6(values: np.ndarray) -> list[Part]:
    """IPv6 addresses as text: 0.13 us each, repeated or not."""
    n = len(values)
    groups = np.ascontiguousarray(values).astype(">u8").view(">u2").reshape(n, 8).T.astype(np.int32)
    mask = np.zeros(n, np.intp)
    for place in range(8):
        mask |= (groups[place] == 0).astype(np.intp) << place
    stands, begins = texttables.zero_runs()
    words, lengths = texttables.groups()
    out = np.empty(n * _IPV6_WIDTH, np.uint8)
    to = window(out, 8)
    edge = np.arange(1, n + 1) * _IPV6_WIDTH
    ends = edge.copy()
    for place in range(7, -1, -1):
        index = (groups[place] + stands[:, place].take(mask)).astype(np.intp)
        to[ends - 8] = words.take(index).view("V8")
        ends -= lengths.take(index)
    begins = begins.take(mask)
    counts = edge - ends
    counts -= begins != 0  # the first group has no colon before it
    rows = np.flatnonzero((mask & _ONLY_LAST_TWO) == _ONLY_LAST_TWO)
    if len(rows):
        _embedded(groups, rows, to, edge, counts)
    return [Aligned(out.reshape(n, _IPV6_WIDTH), counts, 2)]


_ONLY_LAST_TWO = 0b11111
"""The first five groups are 0."""
_MAPPED, _COMPATIBLE = (np.frombuffer(prefix.rjust(8, b"\0"), "V8")[0] for prefix in (b"::ffff:", b"::"))


def _embedded(groups: np.ndarray, rows: np.ndarray, to: np.ndarray, edge: np.ndarray, counts: np.ndarray) -> None:
    """Write the addresses with an IPv4 address in them again, with dots; `rows` may be such ones."""
    sixth = groups[5, rows]
    for prefix, length, chosen in (
        (_MAPPED, 7, sixth == 0xFFFF), (_COMPATIBLE, 2, (sixth == 0) & (groups[6, rows] != 0)),
    ):  # fmt: skip
        some = rows[chosen]
        ends = edge[some]
        for place, (words, lengths) in ((7, texttables.second_half()), (6, texttables.first_half())):
            index = groups[place, some].astype(np.intp)
            to[ends - 8] = words.take(index).view("V8")
            ends = ends - lengths.take(index)
        to[ends - 8] = prefix
        counts[some] = edge[some] - ends + length


def ipv6_text(value: int) -> str:
    """One IPv6 address, given as integer, as `_ipv6` writes it, whatever the version of Python."""
    if value >> 32 == 0xFFFF or value >> 32 == 0 and value >> 16:
        return f"{'::ffff:' if value >> 32 else '::'}{python_value(value & 0xFFFFFFFF, 'ipv4')}"
    groups = [f"{value >> shift & 0xFFFF:x}" for shift in range(112, -16, -16)]
    runs = [(stop - start, -start) for start in range(8) for stop in range(start + 2, 9)
            if all(group == "0" for group in groups[start:stop])]  # fmt: skip
    if not runs:
        return ":".join(groups)
    length, start = max(runs)
    return ":".join(groups[:-start]) + "::" + ":".join(groups[length - start :])


def _mac(values: np.ndarray) -> list[Part]:
    n = len(values)
    octets = values.astype(">u8").view(np.uint8).reshape(n, 8)[:, 2:]
    matrix = np.full((n, 6, 3), ord(":"), np.uint8)
    matrix[:, :, 1:] = texttables.hexadecimal().take(octets).view(np.uint8).reshape(n, 6, 2)
    return [Aligned(matrix.reshape(n, 18), 17, 17)]


def _padded(octets: Octets) -> tuple[np.ndarray, np.ndarray]:
    """The data of a column behind CHUNK empty octets, and the n + 1 edges of its strings in it."""
    first, last = int(octets.offsets[0]), int(octets.offsets[-1])
    data = np.concatenate([np.zeros(CHUNK, np.uint8), octets.data[first:last]])
    return data, octets.offsets - (first - CHUNK)


def _hexadecimal(octets: Octets) -> list[Part]:
    data, edges = _padded(octets)
    return [Strings(texttables.hexadecimal().take(data).view(np.uint8), edges[1:] * 2, np.diff(edges) * 2)]


def _strings(octets: Octets, form: TextFormat) -> list[Part]:
    """Strings as text; strings in need of escapes go through Python, once for each different one."""
    data, edges = _padded(octets)
    lengths = columns.unpadded_lengths(data, edges)
    if lengths is None:
        lengths = np.diff(edges)
    ends = edges[:-1] + lengths
    odd = form.special.take(data)
    odd[:CHUNK] = False
    if not odd.any():
        return [Strings(data, ends, lengths)]
    before = np.concatenate([[0], np.cumsum(odd)])
    rows = np.flatnonzero(before[ends] != before[edges[:-1]])
    raw = data.tobytes()
    values = [raw[end - size : end] for end, size in zip(ends[rows].tolist(), lengths[rows].tolist(), strict=True)]
    codes: dict[bytes, int] = {}
    places = [codes.setdefault(value, len(codes)) for value in values]
    texts = [_string(value, form) for value in codes]
    sizes = np.fromiter(map(len, texts), np.int64, len(texts))
    lengths[rows] = sizes[places]
    ends[rows] = (np.cumsum(sizes) + len(data))[places]
    return [Strings(np.concatenate([data, np.frombuffer(b"".join(texts), np.uint8)]), ends, lengths)]


def _string(value: bytes, form: TextFormat) -> bytes:
    return form.escape(clean(value)).encode()


def clean(value: bytes) -> str:
    """A string from the wire without trailing NULs, with U+FFFD for invalid UTF-8."""
    return value.rstrip(b"\0").decode("utf-8", "replace")


# columns


_NUMBERS = ("unsigned", "signed", "seconds", "milliseconds")
_QUOTED = ("ipv4", "ipv6", "address", "mac", "string", "octets")


def one_value(column: Column) -> bool:
    """Whether all rows hold the same value, for at least one row; `Octets` are not compared."""
    if isinstance(column, Octets):
        return len(column) == 1
    values = column.codes if isinstance(column, Coded) else column
    if values.strides[0] == 0:
        return True
    if values.dtype.kind == "f":
        values = _bits(values)
    return (values.ndim > 1 or values[0] == values[-1]) and bool((values == values[0]).all())


def parts(column: Column, key: Key, form: TextFormat) -> list[Part]:
    """A column of at least one row as parts, with the quotes of the format."""
    column, key = readable(column, key)
    quote = form.quote if key.type.kind in _QUOTED else b""
    if one_value(column):
        return [quote + token(column, key, form) + quote]
    found = _parts(column, key, form)
    return [quote, *found, quote] if quote else found


def _parts(column: Column, key: Key, form: TextFormat) -> list[Part]:
    kind = key.type.kind
    if isinstance(column, Coded):
        return [Strings.of([_octets_token(v, kind, form) for v in column.values], column.codes)]
    if isinstance(column, Octets) and kind == "string":
        return _strings(column, form)
    if isinstance(column, Octets) and kind == "list":
        data, edges = _padded(column)
        return [Strings(data, edges[1:], np.diff(edges))]
    if isinstance(column, Octets):
        return _hexadecimal(column)
    if kind in _NUMBERS:
        return _integers(column)
    if kind == "boolean":
        return [Strings.of(list(form.truth), column.astype(np.intp))]
    if kind == "float":
        return _floats(column, form)
    return {"ipv4": _ipv4, "ipv6": _ipv6, "mac": _mac}[kind](column)


def _octets_token(value: bytes, kind: str, form: TextFormat) -> bytes:
    if kind == "list":
        return value
    return _string(value, form) if kind == "string" else value.hex().encode()


def token(column: Column, key: Key, form: TextFormat) -> bytes:
    """The text of the first row, without quotes."""
    column, key = readable(columns.take(column, slice(0, 1)), key)
    return _tokens(column, key.type.kind, form)[0]


def tokens(column: Column, key: Key, form: TextFormat) -> list[bytes]:
    """The texts of a few rows, with quotes: as `parts`, but quicker for up to FEW rows."""
    column, key = readable(column, key)
    kind = key.type.kind
    found = _tokens(column, kind, form)
    if form.quote and kind in _QUOTED:
        return [form.quote + value + form.quote for value in found]
    return found


def _tokens(column: Column, kind: str, form: TextFormat) -> list[bytes]:
    if not isinstance(column, np.ndarray):
        return [_octets_token(value, kind, form) for value in column.to_list()]
    values = column.tolist()
    if kind in _NUMBERS:
        return [b"%d" % value for value in values]
    if kind == "boolean":
        return [form.truth[value] for value in values]
    if kind == "float":
        return [_float(value, form) for value in values]
    return [python_value(value, kind).encode() for value in values]


def python_value(value: Any, kind: str) -> str:
    """The text of one address or MAC given as integer (IPv6: two halves)."""
    if kind == "ipv4":
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    if kind == "ipv6":
        return ipv6_text(value[0] << 64 | value[1])
    return (value & 0xFFFFFFFFFFFF).to_bytes(6, "big").hex(":")
