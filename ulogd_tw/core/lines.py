"""Builds lines of text from columns: names, values and separators of many rows at once.

Every octet of the output is written at its place: the lengths of all texts give the end of each row, then the columns
are written from the last to the first. Each column takes two copies a row, one for its value and one for the text
before it. This costs 15 to 40 ns a column and row, whatever the width of the names.

That is the way without compiled kernels. With them (`ulogd_tw.core.cells`) lines are written from left to right, to the
same octets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ulogd_tw.core import cells, columns, text
from ulogd_tw.core.aligned import Part, Texts, window
from ulogd_tw.core.columns import Column, Octets
from ulogd_tw.core.keys import Key
from ulogd_tw.core.readable import readable
from ulogd_tw.core.text import FEW, TextFormat
from ulogd_tw.kernels import lib
from ulogd_tw.kernels.rows import Cells, Memory

SLICE_OCTETS = 1 << 20
"""Octets built at once: they fit into the second-level cache and make one write."""
SLICE_ROWS = 4096
LEAST_COMPILED = 3
"""Rows below which plain Python is faster than the kernel, whose cells have to be set up."""
MOST_OCTETS = 1 << 18
"""Octets of compiled lines in one piece."""


class Field:
    """One ``name=value`` of every line. `piece` is the name with its punctuation, without the separator."""

    def __init__(self, piece: bytes, missing: np.ndarray | None = None) -> None:
        self.piece = piece
        self.missing = missing

    def parts(self, rows: slice) -> list[Part]:
        """The values of some rows as texts; the texts of missing rows are arbitrary."""
        return [b""]

    def tokens(self, rows: slice) -> list[bytes]:
        """The values of a few rows, one by one."""
        return [b""] * (rows.stop - rows.start)

    def octets(self) -> int:
        """Approximate octets of the value in a row."""
        return 16

    def cells(self, to: Cells) -> None:
        """The values of all rows, for the compiled kernel."""
        cells.add_texts(to, self.tokens, self.parts)


class ColumnField(Field):
    """The values of a column."""

    def __init__(self, piece: bytes, column: Column, missing: np.ndarray | None, key: Key, form: TextFormat) -> None:
        self.piece = piece
        self.missing = missing
        self.column, self.key = readable(column, key) if key.type.form else (column, key)
        self.form = form

    def parts(self, rows: slice) -> list[Part]:
        return text.parts(columns.take(self.column, rows), self.key, self.form)

    def tokens(self, rows: slice) -> list[bytes]:
        return text.tokens(columns.take(self.column, rows), self.key, self.form)

    def octets(self) -> int:
        if isinstance(self.column, Octets):
            offsets = self.column.offsets
            return 2 * int(offsets[-1] - offsets[0]) // max(len(self.column), 1)
        return 16

    def cells(self, to: Cells) -> None:
        cells.add(to, self.column, self.key, self.form)


Atom = tuple[Part, np.ndarray | None]
"""A part and the mask of the rows without it (None: every row has it)."""


class Lines:
    """Lines of the form `lead` field `separator` field ... `end`. `lead` begins with the newline of the line before.

    The separator is at most one octet, and the lead is longer than it or equal to it in length.
    """

    def __init__(self, lead: bytes, separator: bytes, end: bytes) -> None:
        self.lead = lead
        self.separator = separator
        self.end = end
        self._out = np.empty(0, np.uint8)
        self._memory = Memory(MOST_OCTETS)

    def render(self, fields: Sequence[Field], n: int) -> Iterator[tuple[bytes, int]]:
        """The lines of `n` rows in pieces, each with its number of rows.

        A line ends with a newline. Rows where all fields are missing are lines too.
        """
        return self.by_numpy(fields, n) if lib is None or n < LEAST_COMPILED else self.compiled(fields, n)

    def compiled(self, fields: Sequence[Field], n: int) -> Iterator[tuple[bytes, int]]:
        """`render` by the kernel: pieces of at most MOST_OCTETS, or of one line."""
        if n:
            for octets, some in self._cells(fields, n).lines(self.end + b"\n", self._memory):
                yield bytes(octets), some

    def column(self, fields: Sequence[Field], n: int) -> Octets:
        """The lines as strings without their newlines; no field may have one in its text."""
        if lib is None or n < LEAST_COMPILED:
            return _without_newlines(b"".join(octets for octets, _ in self.by_numpy(fields, n)), n)
        offsets, pieces, done, octets = np.zeros(n + 1, np.int64), [], 0, 0
        for piece, some in self._cells(fields, n).lines(self.end, self._memory, offsets[1:]):
            offsets[done + 1 : done + 1 + some] += octets
            pieces.append(bytes(piece))
            done, octets = done + some, octets + len(piece)
        return Octets(offsets, np.frombuffer(b"".join(pieces), np.uint8))

    def _cells(self, fields: Sequence[Field], n: int) -> Cells:
        found = Cells(n, self.lead[1:], self.separator)
        for field in fields:
            found.field(field.piece, field.missing)
            field.cells(found)
        return found

    def by_numpy(self, fields: Sequence[Field], n: int) -> Iterator[tuple[bytes, int]]:
        """`render` without kernels: pieces of about SLICE_OCTETS."""
        if n <= FEW:
            if n:
                yield self._few(fields, n), n
            return
        width = len(self.lead) + sum(len(f.piece) + f.octets() for f in fields)
        step = max(min(SLICE_OCTETS // max(width, 1), SLICE_ROWS), 64)
        for start in range(0, n, step):
            rows = slice(start, min(start + step, n))
            yield self._slice(fields, rows), rows.stop - rows.start

    def _few(self, fields: Sequence[Field], n: int) -> bytes:
        every = slice(0, n)
        members: list[list[bytes | None]] = []
        for field in fields:
            texts: list[bytes | None] = [field.piece + token for token in field.tokens(every)]
            if field.missing is not None:
                for row in np.flatnonzero(field.missing).tolist():
                    texts[row] = None
            members.append(texts)
        rows = zip(*members, strict=True) if members else [()] * n
        separator, lead, end = self.separator, self.lead, self.end
        lines = [lead + separator.join([text for text in row if text is not None]) + end for row in rows]
        return b"".join(lines)[1:] + b"\n"

    def _slice(self, fields: Sequence[Field], rows: slice) -> bytes:
        n = rows.stop - rows.start
        atoms, floating, hollow = self._atoms(fields, rows)
        total = np.zeros(n, np.int64)
        fixed = 0
        for part, mask in atoms:
            length = len(part) if isinstance(part, bytes) else part.lengths
            if mask is not None:
                total += np.where(mask, 0, length)
            elif isinstance(length, int):
                fixed += length
            else:
                total += length
        if floating:  # the first separator of a line is written over by the end of its lead
            separators = np.where(total, len(self.separator), 0) if hollow else len(self.separator)
            total += len(self.lead) - separators
        total += fixed
        ends = np.cumsum(total)
        size = int(ends[-1])
        out = self._buffer(size)
        self._write(out, ends.copy(), atoms)
        if floating:
            window(out, len(self.lead))[ends - total] = np.void(self.lead)
        out[size] = ord("\n")
        return out[1 : size + 1].tobytes()

    def _buffer(self, size: int) -> np.ndarray:
        if len(self._out) <= size or len(self._out) > max(8 * size, 4 * SLICE_OCTETS):
            self._out = np.empty(size + (size >> 2) + 64, np.uint8)
        return self._out

    def _atoms(self, fields: Sequence[Field], rows: slice) -> tuple[list[Atom], bool, bool]:
        """All parts of the lines from left to right.

        Then whether leads are still to be written (the first field is missing in some rows), and whether rows without
        any field are possible.
        """
        atoms: list[Atom] = []
        masks: dict[int, np.ndarray] = {}
        floating = begun = False
        for field in fields:
            mask = None if field.missing is None else field.missing[rows]
            if mask is not None:
                mask = masks.setdefault(id(field.missing), mask)
                if not mask.any():
                    mask = None
                elif mask.all():
                    continue
            if not begun and mask is None:
                begun = True
                before = self.separator if floating else self.lead
            else:
                floating |= not begun
                before = self.separator
            for part in (before + field.piece, *field.parts(rows)):
                _add(atoms, part, mask)
        if not begun and not floating:
            _add(atoms, self.lead, None)
        _add(atoms, self.end, None)
        return atoms, floating, floating and not begun

    def _write(self, out: np.ndarray, ends: np.ndarray, atoms: list[Atom]) -> None:
        present: dict[int, np.ndarray] = {}
        for (part, mask), left in zip(reversed(atoms), reversed(_distances(atoms)), strict=True):
            if mask is None:
                _put(out, ends, part, None, left)
                continue
            if id(mask) not in present:
                present[id(mask)] = np.flatnonzero(~mask)
            rows = present[id(mask)]
            some = ends[rows]
            _put(out, some, part, rows, left)
            ends[rows] = some


def _without_newlines(lines: bytes, n: int) -> Octets:
    octets = np.frombuffer(lines, np.uint8)
    newline = octets == ord("\n")
    ends = np.flatnonzero(newline)
    ends -= np.arange(n)  # where a text ends when the newlines are gone
    return Octets(np.concatenate([[0], ends]).astype(np.int64), octets[~newline])


def _add(atoms: list[Atom], part: Part, mask: np.ndarray | None) -> None:
    """Append an atom; constant octets join constant octets before them."""
    if isinstance(part, bytes):
        if not part:
            return
        if atoms and atoms[-1][1] is mask and isinstance(atoms[-1][0], bytes):
            atoms[-1] = (atoms[-1][0] + part, mask)
            return
    atoms.append((part, mask))


def _distances(atoms: list[Atom]) -> list[int]:
    """For each atom, the least number of octets before it in its own line."""
    found = []
    every = own = 0
    last: np.ndarray | None = None
    for part, mask in atoms:
        if mask is not last:
            own, last = 0, mask
        found.append(every + own)
        size = len(part) if isinstance(part, bytes) else part.least
        if mask is None:
            every += size
        else:
            own += size
    return found


def _put(out: np.ndarray, ends: np.ndarray, part: Part, rows: np.ndarray | None, left: int) -> None:
    """Write one atom so that it ends at `ends`, then move the ends to its beginnings."""
    if isinstance(part, bytes):
        ends -= len(part)
        window(out, len(part))[ends] = np.void(part)
        return
    _put_texts(out, ends, part, rows, left)
    lengths = part.lengths
    ends -= lengths if rows is None or isinstance(lengths, int) else lengths[rows]


def _put_texts(out: np.ndarray, ends: np.ndarray, part: Texts, rows: np.ndarray | None, left: int) -> None:
    if part.spill <= left:
        part.put(out, ends, rows)
    else:
        part.strings().put_exactly(out, ends, rows)
