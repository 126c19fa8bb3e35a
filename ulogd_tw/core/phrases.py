"""Fields of lines beyond ``name=value``: several values as one, words by number, hexadecimal numbers.

Also lines as a column of strings, for filters that make a text key of other keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from ulogd_tw.core import cells, text
from ulogd_tw.core.aligned import CHUNK, Part, Strings
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.lines import ColumnField, Field, Lines
from ulogd_tw.core.resolve import Found
from ulogd_tw.kernels import rows as kernel
from ulogd_tw.kernels.rows import Cells, Choice


class Words(Field):
    """One of a few texts in each row: `codes` into them. Texts that are always the same are a `Choice` of their own."""

    def __init__(self, texts: Sequence[bytes] | Choice, codes: np.ndarray, missing: np.ndarray | None = None) -> None:
        super().__init__(b"", missing)
        self.choice = texts if isinstance(texts, Choice) else Choice(texts)
        self.codes = codes

    @property
    def texts(self) -> Sequence[bytes]:
        """The different texts."""
        return self.choice.texts

    def parts(self, rows: slice) -> list[Part]:
        codes = self.codes[rows]
        if text.one_value(codes):
            return [self.texts[int(codes[0])]]
        return [Strings.of(list(self.texts), codes.astype(np.intp))]

    def tokens(self, rows: slice) -> list[bytes]:
        return [self.texts[code] for code in self.codes[rows].tolist()]

    def cells(self, to: Cells) -> None:
        cells.add_choice(to, self.choice, self.codes)


class Hexadecimal(Field):
    """Unsigned numbers as hexadecimal, with zeros in front of those of less than `least` digits."""

    def __init__(self, values: np.ndarray, missing: np.ndarray | None = None, least: int = 1) -> None:
        super().__init__(b"", missing)
        self.values = values
        self.least = least

    def parts(self, rows: slice) -> list[Part]:
        """One Python step for each different number (0.3 us); marks have few."""
        different, codes = np.unique(self.values[rows], return_inverse=True)
        return Words(self._texts(different), codes).parts(slice(None))

    def tokens(self, rows: slice) -> list[bytes]:
        return self._texts(self.values[rows])

    def _texts(self, values: np.ndarray) -> list[bytes]:
        return [b"%0*x" % (self.least, value) for value in values.tolist()]

    def cells(self, to: Cells) -> None:
        cells.add_numbers(to, kernel.HEXADECIMAL, self.values, self.least)


_SHORT_SPAN = 8


def moments(seconds: np.ndarray) -> tuple[list[int], np.ndarray]:
    """The different seconds, or all of a short span, and which of them each row has."""
    if not len(seconds):
        return [], np.zeros(0, np.intp)
    if seconds.strides[0] == 0:
        return [seconds.item(0)], np.broadcast_to(np.intp(0), len(seconds))
    low, high = seconds.min().item(), seconds.max().item()
    if high - low < _SHORT_SPAN:
        return list(range(low, high + 1)), (seconds - seconds.dtype.type(low)).astype(np.intp)
    different, codes = np.unique(seconds, return_inverse=True)
    return different.tolist(), codes


class Phrase(Field):
    """Words and fields joined without separators; the row has all of them, or is in `missing`."""

    def __init__(self, members: Sequence[bytes | Field], missing: np.ndarray | None = None) -> None:
        super().__init__(b"", missing)
        self.members = members

    def parts(self, rows: slice) -> list[Part]:
        found: list[Part] = []
        for member in self.members:
            if isinstance(member, bytes):
                found.append(member)
            else:
                found += [member.piece, *member.parts(rows)] if member.piece else member.parts(rows)
        return found

    def tokens(self, rows: slice) -> list[bytes]:
        n = rows.stop - rows.start
        columns = []
        for member in self.members:
            if isinstance(member, bytes):
                columns.append([member] * n)
            else:
                columns.append([member.piece + token for token in member.tokens(rows)])
        return [b"".join(row) for row in zip(*columns, strict=True)]

    def cells(self, to: Cells) -> None:
        for member in self.members:
            if isinstance(member, bytes):
                to.text(member)
            else:
                to.text(member.piece)
                member.cells(to)

    def octets(self) -> int:
        return sum(len(m) if isinstance(m, bytes) else len(m.piece) + m.octets() for m in self.members)


@cache
def _with_colons() -> np.ndarray:
    """``:xx`` for each octet."""
    return np.frombuffer(b"".join(b":%02x" % i for i in range(256)), np.uint8).reshape(256, 3)


class Colons(Field):
    """Octets as hexadecimal, separated by colons."""

    def __init__(self, piece: bytes, column: Octets, missing: np.ndarray | None = None) -> None:
        super().__init__(piece, missing)
        self.column = column

    def parts(self, rows: slice) -> list[Part]:
        octets = self.column.take(rows)
        first, last = int(octets.offsets[0]), int(octets.offsets[-1])
        written = _with_colons().take(octets.data[first:last], 0).reshape(-1)
        data = np.concatenate([np.zeros(CHUNK, np.uint8), written])
        lengths = np.diff(octets.offsets)
        ends = (octets.offsets[1:] - first) * 3 + CHUNK
        return [Strings(data, ends, np.maximum(lengths * 3 - 1, 0))]

    def tokens(self, rows: slice) -> list[bytes]:
        return [value.hex(":").encode() for value in self.column.take(rows).to_list()]

    def cells(self, to: Cells) -> None:
        cells.add_octets(to, self.column, kernel.COLONS)

    def octets(self) -> int:
        return 3 * int(self.column.offsets[-1] - self.column.offsets[0]) // max(len(self.column), 1)


def value(found: Found, piece: bytes = b"") -> ColumnField:
    """The plain text of a column."""
    return ColumnField(piece, found.values, found.missing, found.key, text.PLAIN)


def strings(fields: Sequence[Field], n: int, separator: bytes = b"", end: bytes = b"") -> Octets:
    """The lines of these fields as a column, without their newlines; no field may have one in its text."""
    return Lines(b"\n", separator, end).column(fields, n)
