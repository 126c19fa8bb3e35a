r"""Rows in the forms of COPY: binary (16 octets a number less than text, and not parsed), or lines of text.

The binary form of a row is the number of its fields, and for each field its length and octets; -1 is the length of
NULL. Fields of fixed length without NULL stand in one array of fixed width; every other field's octets are copied to
their place behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.lines import ColumnField, Field, Lines
from ulogd_tw.core.resolve import Found
from ulogd_tw.core.text import TextFormat
from ulogd_tw.storing.columns import Values
from ulogd_tw.storing.postgresql_values import NUL as NUL_INSIDE
from ulogd_tw.storing.postgresql_values import PLAIN, Cells, cells, microseconds, with_nul

HEAD, TAIL = b"PGCOPY\n\xff\r\n\0" + bytes(8), b"\xff\xff"
"""What stands before and behind binary rows: signature, flags, and the length of an extension; then the end."""
_NULL = -1
NULL = b"\\N"


@dataclass(slots=True)
class Rows:
    """Encoded rows: row i is ``octets[edges[i]:edges[i + 1]]``. `refused`: masks of rows to leave out, by reason."""

    octets: np.ndarray
    edges: np.ndarray
    binary: bool
    refused: dict[str, np.ndarray]

    def piece(self, start: int, stop: int) -> bytes:
        """The octets for COPY of some rows."""
        some = self.octets[self.edges[start] : self.edges[stop]].tobytes()
        return HEAD + some + TAIL if self.binary else some

    def within(self, start: int, stop: int, octets: int) -> int:
        """The end of a piece from `start` on of at most so many octets, at least one row and at most up to `stop`."""
        end = int(np.searchsorted(self.edges, self.edges[start] + octets, "right")) - 1
        return min(max(end, start + 1), stop)


def encoded(values: Values, kinds: Sequence[str], n: int) -> Rows:
    """The rows for columns of these types, binary where all of them have such a form."""
    found = []
    for (_, column), kind in zip(values, kinds, strict=True):
        made = None if column is None else cells(column, kind)
        if made is None and column is not None:
            return as_text(values, kinds, n)
        found.append(made)
    return as_binary(found, n)


# binary


class _Layout:
    """Pieces of a row from left to right: arrays of fixed width, and octets of a length of their own each."""

    def __init__(self, n: int, fields: int) -> None:
        self.n = n
        count = np.frombuffer(fields.to_bytes(2, "big"), np.uint8)
        self._block: list[np.ndarray] = [np.broadcast_to(count, (n, 2))]
        self.pieces: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        """(octets, starts, lengths), of each row."""

    def length(self, lengths: np.ndarray | int) -> None:
        """A field's length, in four octets."""
        if isinstance(lengths, int):
            four = np.frombuffer(lengths.to_bytes(4, "big", signed=True), np.uint8)
            self._block.append(np.broadcast_to(four, (self.n, 4)))
        else:
            self._block.append(lengths.astype(">i4").view(np.uint8).reshape(self.n, 4))

    def fixed(self, octets: np.ndarray) -> None:
        """The same number of octets in every row."""
        self._block.append(octets)

    def varying(self, octets: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
        """Octets of a length of their own."""
        self.end()
        self.pieces.append((octets, starts, lengths))

    def end(self) -> None:
        """End the array of fixed width."""
        if self._block:
            block = np.concatenate(self._block, axis=1)
            width = block.shape[1]
            starts = np.arange(0, self.n * width, width, dtype=np.int64)
            self.pieces.append((block.reshape(-1), starts, np.full(self.n, width, np.int64)))
            self._block = []

    def joined(self) -> tuple[np.ndarray, np.ndarray]:
        """The octets of all rows, and the edges between rows."""
        self.end()
        edges = np.zeros(self.n + 1, np.int64)
        np.cumsum(sum(lengths for _, _, lengths in self.pieces), out=edges[1:])
        if len(self.pieces) == 1:
            return self.pieces[0][0], edges
        out, at = np.empty(int(edges[-1]), np.uint8), edges[:-1].copy()
        for octets, starts, lengths in self.pieces:
            columns.scatter(out, at, octets, starts, lengths)
            at += lengths
        return out, edges


def as_binary(fields: Sequence[Cells | None], n: int) -> Rows:
    """Rows of these columns; a column of None is NULL in all rows."""
    layout = _Layout(n, len(fields))
    refused: dict[str, np.ndarray] = {}
    for field in fields:
        if field is None:
            layout.length(_NULL)
            continue
        _add(layout, field)
        for reason, rows in field.refused.items():
            refused[reason] = refused[reason] | rows if reason in refused else rows
    octets, edges = layout.joined()
    return Rows(octets, edges, True, refused)


def _add(layout: _Layout, field: Cells) -> None:
    missing = field.missing if field.missing is not None and field.missing.any() else None
    if field.starts is None or field.lengths is None:
        width = field.octets.shape[1]
        if missing is None:
            layout.length(width)
            layout.fixed(field.octets)
            return
        starts = np.arange(0, layout.n * width, width, dtype=np.int64)
        lengths = np.full(layout.n, width, np.int64)
    else:
        starts, lengths = field.starts, field.lengths
    if missing is None:
        layout.length(lengths)
    else:
        layout.length(np.where(missing, _NULL, lengths))
        lengths = np.where(missing, 0, lengths)
    layout.varying(field.octets.reshape(-1), starts, lengths)


# text

_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\0": ""})


def _form() -> TextFormat:
    special = np.zeros(256, bool)
    special[[*b"\\\n\r\t\0"]] = True
    special[128:] = True
    return TextFormat(b"", lambda value: value.translate(_ESCAPES), special, (b"0", b"1"), NULL)


TEXT = _form()
"""Values in the text form of COPY."""
_TIME_TYPES = ("timestamp", "date", "time ")


def as_text(values: Values, kinds: Sequence[str], n: int) -> Rows:
    """Lines of values that the server reads itself, by the types of its columns."""
    fields: list[Field] = []
    refused: dict[str, np.ndarray] = {}
    for (_, found), kind in zip(values, kinds, strict=True):
        if found is None:
            fields.append(Field(NULL))
            continue
        _refuse_nul(refused, found)
        fields += fields_of(as_written(found, kind), TEXT, NULL)
    return _lines(Lines(b"\n", b"\t", b""), fields, n, refused)


def _lines(form: Lines, fields: Sequence[Field], n: int, refused: dict[str, np.ndarray]) -> Rows:
    octets = np.frombuffer(b"".join(piece for piece, _ in form.render(fields, n)), np.uint8)
    edges = np.concatenate([[0], np.flatnonzero(octets == ord("\n")) + 1])
    return Rows(octets, edges, False, refused)


def fields_of(found: Found, form: TextFormat, null: bytes, prefix: bytes = b"") -> list[Field]:
    """The text of a column behind a prefix, and that of its missing values."""
    made: list[Field] = [ColumnField(prefix, found.values, found.missing, found.key, form)]
    if found.missing is not None and found.missing.any():
        made.append(Field(null, ~np.asarray(found.missing, bool)))
    return made


def _refuse_nul(refused: dict[str, np.ndarray], found: Found) -> None:
    """Add the rows with a NUL inside a string."""
    if found.key.type.kind not in ("string", "list") or isinstance(found.values, np.ndarray):
        return
    bad = with_nul(columns.unpadded(found.values), found.missing)
    if bad is not None:
        refused[NUL_INSIDE] = refused[NUL_INSIDE] | bad if NUL_INSIDE in refused else bad


def as_written(found: Found, kind: str) -> Found:
    """Times for columns of times as ISO 8601 has them, in UTC; octets as the server reads them; all else stays."""
    held = found.key.type.kind
    if held == "list":
        return replace(found, key=found.key.typed(types.STRING))
    if held == "octets" and kind == "bytea":
        line = ColumnField(b"\\x", found.values, None, found.key, PLAIN)
        column = Lines(b"\n", b"", b"").column([line], len(found.values))
        return replace(found, values=column, key=found.key.typed(types.STRING))
    if not kind.startswith(_TIME_TYPES) or not isinstance(found.values, np.ndarray):
        return found
    since_1970 = microseconds(found)
    return found if since_1970 is None else _as_iso(found, since_1970)


def _as_iso(found: Found, since_1970: np.ndarray) -> Found:
    times = np.minimum(since_1970, np.uint64((1 << 63) - 1)).astype(np.int64).view("datetime64[us]")
    lines = np.datetime_as_string(times, unit="us", timezone="UTC").astype(np.bytes_)
    size = lines.dtype.itemsize
    column = Octets(np.arange(0, (len(lines) + 1) * size, size, dtype=np.int64), lines.view(np.uint8))
    return replace(found, values=columns.unpadded(column), key=found.key.typed(types.STRING))


# literals

NULL_LITERAL = b"NULL"


def _literal_form() -> TextFormat:
    special = np.zeros(256, bool)
    special[[*b"'\\\n\r\0"]] = True
    special[128:] = True
    escapes = str.maketrans({"'": "''", "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\0": ""})
    return TextFormat(b"'", lambda value: value.translate(escapes), special, (b"'0'", b"'1'"), NULL_LITERAL)


LITERALS = _literal_form()
"""Values as literals of SQL, strings with an E before them: numbers bare, all else in quotes, as in ulogd2."""


def as_literals(values: Values, kinds: Sequence[str], n: int, lead: bytes, end: bytes) -> Rows:
    """Lines such as ``(1,E'a',NULL),``, for the beginning and the end of each. The only newlines are ends of rows."""
    fields: list[Field] = []
    refused: dict[str, np.ndarray] = {}
    for (_, found), kind in zip(values, kinds, strict=True):
        if found is None:
            fields.append(Field(NULL_LITERAL))
            continue
        _refuse_nul(refused, found)
        found = as_written(found, kind)
        fields += fields_of(found, LITERALS, NULL_LITERAL, b"E" if found.key.type.kind == "string" else b"")
    return _lines(Lines(b"\n" + lead, b",", end), fields, n, refused)
