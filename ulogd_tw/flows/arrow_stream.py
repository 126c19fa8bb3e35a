"""Rows as a stream in Arrow's IPC format, which pandas, Polars, DuckDB and others read; written without pyarrow.

A stream is a message with the schema, messages with rows, and an end (arrow.apache.org/docs/format/Columnar.html).
Their metadata are flatbuffers: see `_Table`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

UNSIGNED, SIGNED, FLOAT, BOOLEAN, TIME, TEXT = "unsigned", "signed", "float", "boolean", "time", "text"
"""Types of columns. Times are milliseconds since 1970."""
END = struct.pack("<Ii", 0xFFFFFFFF, 0)
"""The end of a stream."""
_VERSION = 4
"""MetadataVersion V5."""
_SCHEMA, _RECORD_BATCH = 1, 3
_MOST = (1 << 64) - 1
_ARRAYS = {UNSIGNED: np.uint64, SIGNED: np.int64, TIME: np.int64, FLOAT: np.float64}


def schema(columns: Iterable[tuple[str, str]]) -> bytes:
    """The message with names and types of columns."""
    fields = [_field(name, type_) for name, type_ in columns]
    return _message(_SCHEMA, _Table({1: ("tables", fields)}), b"")


def rows(columns: Sequence[tuple[str, str]], values: Sequence[Sequence[Any]]) -> bytes:
    """A message with rows, each a sequence of values; None is missing. 1,000,000 values a second."""
    nodes, buffers, body = b"", b"", bytearray()
    for (_, type_), column in zip(columns, zip(*values, strict=True), strict=True):
        missing = [value is None for value in column]
        nodes += struct.pack("<qq", len(column), sum(missing))
        for octets in (_bits(not gone for gone in missing) if any(missing) else b"", *_buffers(type_, column)):
            buffers += struct.pack("<qq", len(body), len(octets))
            body += octets + bytes(-len(octets) % 8)
    batch = _Table({0: ("q", len(values)), 1: ("structs", nodes), 2: ("structs", buffers)})
    return _message(_RECORD_BATCH, batch, bytes(body))


def _buffers(type_: str, column: Sequence[Any]) -> list[bytes]:
    """The buffers of values behind the one of missing values."""
    if type_ == BOOLEAN:
        return [_bits(map(bool, column))]
    if type_ == TEXT:
        texts = [b"" if value is None else str(value).encode("utf-8", "replace") for value in column]
        offsets = np.concatenate(([0], np.cumsum([len(one) for one in texts]))).astype("<i4")
        return [offsets.tobytes(), b"".join(texts)]
    numbers = [0 if value is None else value for value in column]
    if type_ == UNSIGNED:
        numbers = [min(value, _MOST) for value in numbers]
    return [np.array(numbers, _ARRAYS[type_]).tobytes()]


def _bits(values: Iterable[bool]) -> bytes:
    return np.packbits(np.fromiter(values, bool), bitorder="little").tobytes()


def _field(name: str, type_: str) -> _Table:
    union, kind = _TYPES[type_]
    return _Table({0: ("text", name), 1: ("B", 1), 2: ("B", union), 3: ("table", _Table(kind)), 5: ("tables", [])})


def _message(kind: int, header: _Table, body: bytes) -> bytes:
    metadata = _finished(
        _Table({0: ("h", _VERSION), 1: ("B", kind), 2: ("table", header), 3: ("q", len(body))})
    )  # fmt: skip
    return struct.pack("<Ii", 0xFFFFFFFF, len(metadata)) + metadata + body


_TYPES: dict[str, tuple[int, dict[int, tuple[str, Any]]]] = {
    UNSIGNED: (2, {0: ("i", 64), 1: ("B", 0)}), SIGNED: (2, {0: ("i", 64), 1: ("B", 1)}), FLOAT: (3, {0: ("h", 2)}),
    TEXT: (5, {}), BOOLEAN: (6, {}), TIME: (10, {0: ("h", 1), 1: ("text", "UTC")}),
}  # fmt: skip
"""Of each type the member of Arrow's union of types, and its parameters by their slots."""


# flatbuffers


class _Table:
    """A table of flatbuffers: by slot, the kind and the value of each field.

    Kinds are codes of `struct` for numbers, text, table, tables (a vector), structs (a vector of pairs of 64 bits).
    """

    def __init__(self, fields: dict[int, tuple[str, Any]]) -> None:
        self.fields = fields


class _Builder:
    """Writes a flatbuffer from its end to its begin. Places are counted from the end, as that is fixed."""

    def __init__(self) -> None:
        self.octets = b""

    def put(self, octets: bytes, align: int) -> int:
        """Octets at a place that is a multiple of `align`; the place."""
        padding = -(len(self.octets) + len(octets)) % align
        self.octets = octets + bytes(padding) + self.octets
        return len(self.octets)

    def value(self, kind: str, value: Any) -> int:
        """A text, a table or a vector; its place."""
        if kind == "text":
            text = value.encode()
            return self.put(struct.pack("<I", len(text)) + text + b"\0", 4)
        if kind == "structs":
            self.put(value, 8)
            return self.put(struct.pack("<I", len(value) // 16), 4)
        if kind == "tables":
            return self._vector([self.table(one) for one in value])
        return self.table(value)

    def _vector(self, places: list[int]) -> int:
        self.put(b"", 4)
        end = len(self.octets)
        offsets = [end + 4 * (len(places) - at) - place for at, place in enumerate(places)]
        return self.put(struct.pack(f"<{len(places) + 1}I", len(places), *offsets), 4)

    def table(self, table: _Table) -> int:
        """A table behind its list of fields; its place."""
        inside = {slot: self.value(*field) for slot, field in table.fields.items() if len(field[0]) > 1}
        codes = {slot: "I" if slot in inside else kind for slot, (kind, _) in table.fields.items()}
        at, size = {}, 4
        for slot, code in sorted(codes.items(), key=lambda item: -struct.calcsize(item[1])):
            width = struct.calcsize(code)
            at[slot] = size = -(-size // width) * width
            size += width
        size = -(-size // 8) * 8
        self.put(b"", 8)
        begin = len(self.octets) + size
        octets = bytearray(size)
        for slot, code in codes.items():
            value = begin - at[slot] - inside[slot] if slot in inside else table.fields[slot][1]
            struct.pack_into("<" + code, octets, at[slot], value)
        slots = max(codes, default=-1) + 1
        listed = struct.pack(f"<{slots + 2}H", 4 + 2 * slots, size, *(at.get(slot, 0) for slot in range(slots)))
        struct.pack_into("<i", octets, 0, len(listed))
        self.put(bytes(octets), 1)
        self.put(listed, 1)
        return begin


def _finished(table: _Table) -> bytes:
    """A flatbuffer of whole 8 octets."""
    builder = _Builder()
    place = builder.table(table)
    builder.put(b"", 4)
    padding = -(len(builder.octets) + 4) % 8
    return struct.pack("<I", len(builder.octets) + 4 + padding - place) + bytes(padding) + builder.octets
