"""Rows of columns to lines of text (rows.c): the cells of a line from left to right, then the octets of the lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from ulogd_tw.kernels import ffi, lib

UNSIGNED, SIGNED, HEXADECIMAL, FRACTION, IPV4, IPV6, MAC = range(1, 8)
"""Kinds of numbers; a FRACTION is one of microseconds, ``.uuuuuu``."""
AS_IT_IS, JSON, PLAIN, DIGITS, COLONS = range(5)
"""Forms of texts: strings with the escapes of JSON or of a plain line, octets in hexadecimal, also with colons."""
_NOTHING, _TEXTS = 0, 8
_LEAST_ROOM, _ROW_ROOM = 4096, 512
NULL = None if ffi is None else ffi.NULL
_IN_ALL: tuple[Any, int] = NULL, 0
_OCTETS = None if ffi is None else ffi.typeof("uint8_t[]")
_CELLS = None if ffi is None else ffi.typeof("ut_cell[]")


class Choice:
    """A few texts, of which a row has one by its number."""

    __slots__ = ("texts", "_packed")

    def __init__(self, texts: Sequence[bytes]) -> None:
        self.texts = texts
        self._packed: tuple[Any, ...] | None = None

    def packed(self) -> tuple[Any, ...]:
        """The octets, how many, where the texts begin, their lengths and how many texts."""
        if self._packed is None:
            data = b"".join(self.texts)
            starts = ffi.new("int64_t[]", [0, *accumulate(map(len, self.texts))])
            self._packed = ffi.from_buffer(_OCTETS, data), len(data), starts, NULL, len(self.texts)
        return self._packed


class Cells:
    """What every line has from left to right: fields, each a text (its piece) and any number of values.

    `lead` begins each line, `separator` (one octet or none) stands between the fields of a row. Arrays of values are
    contiguous.
    """

    __slots__ = ("n", "_separator", "_cells", "_texts", "_at", "_text", "_missing", "_first", "_begun", "_separated")

    def __init__(self, n: int, lead: bytes, separator: bytes) -> None:
        self.n = n
        self._separator = separator
        self._cells: list[tuple] = []
        self._texts: list[bytes] = []
        self._at = 0
        self._text = lead
        self._missing = _IN_ALL
        self._first = -1
        self._begun: bool | None = None
        self._separated = 0

    def field(self, piece: bytes, missing: np.ndarray | None) -> None:
        """Begin a field, which rows in the mask `missing` do not have."""
        if self._first >= 0:
            self._close()
        if missing is None and (self._begun or self._begun is None):
            self._text += self._separator + piece if self._begun else piece
            self._begun = True
            return
        if self._text:
            self._put()
        if missing is not None:
            self._first = len(self._cells)
            self._missing = ffi.from_buffer(_OCTETS, np.ascontiguousarray(missing)), len(missing)
        if self._begun:
            piece = self._separator + piece
        else:
            self._separated = len(self._separator)
            self._begun = missing is None
        self._text = piece
        if missing is None:
            self._put()

    def text(self, octets: bytes) -> None:
        """A text that all rows with this field have."""
        self._text += octets

    def numbers(self, kind: int, values: np.ndarray, quote: int = 0, form: int = 0) -> None:
        """Numbers of this kind: (n,) for all but IPv6 addresses; `form`: least digits of hexadecimal ones."""
        octets = ffi.from_buffer(_OCTETS, values)
        width = values.itemsize
        self._put(quote, kind, form, width, 2 * width if kind == IPV6 else width, octets, len(octets))

    def choice(self, texts: Choice, codes: np.ndarray, form: int = AS_IT_IS, quote: int = 0) -> None:
        """The text of each row by its number."""
        octets = ffi.from_buffer(_OCTETS, codes)
        width = codes.itemsize
        self._put(quote, _TEXTS, form, width, width, octets, len(octets), *texts.packed())

    def strings(
        self, data: np.ndarray, starts: np.ndarray, lengths: np.ndarray | None, form: int = AS_IT_IS, quote: int = 0
    ) -> None:
        """A text of each row: `lengths` octets from `starts` on, or up to the next start (int64, uint8)."""
        sizes = NULL if lengths is None else ffi.from_buffer("int64_t[]", lengths)
        octets = ffi.from_buffer(_OCTETS, data)
        self._put(quote, _TEXTS, form, 0, 0, NULL, 0, octets, len(octets), ffi.from_buffer("int64_t[]", starts), sizes,
                  self.n)  # fmt: skip

    def _put(self, *value: Any) -> None:
        """A cell: the text so far, and a value as the structure has it."""
        text = self._text
        size = len(text)
        self._cells.append((self._at, size, *self._missing, 0, self._separated, *value))
        self._texts.append(text)
        self._at += size
        self._text = b""
        self._missing = _IN_ALL
        self._separated = 0

    def _close(self) -> None:
        """End a field that some rows do not have."""
        first, self._first = self._first, -1
        if self._text or len(self._cells) == first:
            self._put()
        cell = self._cells[first]
        self._cells[first] = (*cell[:4], len(self._cells) - first - 1, *cell[5:])

    def lines(self, end: bytes, out: Memory, ends: np.ndarray | None = None) -> Iterator[tuple[memoryview, int]]:
        """The lines, each with this end, in pieces with their rows; the octets of a piece stay until the next one.

        `ends` (int64), if any, gets where each row ends in its piece.
        """
        if self._first >= 0:
            self._close()
        self._text += end
        if self._text:
            self._put()
        cells, texts = ffi.new(_CELLS, self._cells), b"".join(self._texts)
        to_ends = NULL if ends is None else ffi.from_buffer("int64_t[]", ends)
        separator = self._separator[0] if self._separator else 0
        done, written = 0, ffi.new("int64_t *")
        octets, room = out.room(self.n)
        while done < self.n:
            rows = lib.ut_rows(cells, len(cells), ffi.from_buffer("uint8_t[]", texts), len(texts), separator, done,
                               self.n, octets, room, to_ends, written)  # fmt: skip
            assert rows >= 0, "a cell of a line lies outside its memory"
            if not rows:
                octets, room = out.grow()
                continue
            done += rows
            yield ffi.buffer(octets, written[0]), rows


class Memory:
    """Memory for lines, used again for each piece: at most `most` octets, unless one line is longer."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._octets: Any = None

    def room(self, rows: int) -> tuple[Any, int]:
        """The memory for some rows, and its octets."""
        wanted = min(_LEAST_ROOM + _ROW_ROOM * rows, self._most)
        if wanted <= self._size <= 4 * self._most:
            return self._octets, self._size
        return self._taken(wanted)

    def grow(self) -> tuple[Any, int]:
        """Twice as much, for a line that has no room."""
        return self._taken(2 * self._size)

    def _taken(self, size: int) -> tuple[Any, int]:
        self._size, self._octets = size, ffi.from_buffer("uint8_t[]", np.empty(size, np.uint8))
        return self._octets, size
