"""Records as they came: their octets are kept beside the columns, and the columns are made at their first use.

An output of IPFIX copies such records, and reads none of their fields. These are Data Records with no field that would
be left out, or encoded with another element or value; all others become ordinary batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from ulogd_tw.core import columns, types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Column, Octets, Pieces, Rows, numbers
from ulogd_tw.core.keys import Element, Key, registry
from ulogd_tw.core.plugin import ALL
from ulogd_tw.ipfix.fields import field_of, is_said
from ulogd_tw.ipfix.layout import Columns, Layout, field_keys
from ulogd_tw.ipfix.template import VARIABLE, Field
from ulogd_tw.ipfix.values import MICROSECOND_BITS
from ulogd_tw.ipfix.variable_length import Located

_OFTEN_WRONG = ("boolean", "milliseconds")
"""Kinds of types with octets that are no value."""
_STARTED = (0, 160)
"""systemInitTimeMilliseconds: the collector reads it of every record."""
_IPV4 = frozenset(((0, 8), (0, 12)))
_IPV6 = frozenset(((0, 27), (0, 28)))
"""Addresses of both in one template: the rows are split by family."""


_Make = Callable[[], dict[str, Column]]
_Read = Callable[[Column], dict[str, Column]]


class Received:
    """Octets of records with equal fields, and their columns.

    `octets` has a row of each record (uint8, two dimensions), or is a column of octets where a field has variable
    length. `make` makes the columns, at the first use of `columns`; `read` makes those of any such octets, where the
    records have one length.
    """

    __slots__ = ("fields", "octets", "_make", "_read", "_columns")

    def __init__(self, fields: tuple[Field, ...], octets: Column, make: _Make, read: _Read | None = None) -> None:
        self.fields = fields
        self.octets = octets
        self._make: _Make | None = make
        self._read = read
        self._columns: dict[str, Column] = {}

    @classmethod
    def of_fixed(cls, fields: tuple[Field, ...], octets: Column, read: _Read) -> Received:
        """Records of one length."""
        return cls(fields, octets, lambda: read(octets), read)

    @property
    def columns(self) -> dict[str, Column]:
        """The columns of the fields; none of them has a missing value."""
        if self._make is not None:
            self._columns, self._make = self._make(), None
        return self._columns

    def take(self, rows: Rows) -> Received:
        """The chosen records. Few of many do not keep the others in memory."""
        octets = columns.take(self.octets, rows)
        is_read = self._make is None
        if self._read is not None and not (is_read and isinstance(rows, slice)):
            return self.of_fixed(self.fields, octets, self._read)

        def make() -> dict[str, Column]:
            return {name: columns.take(column, rows) for name, column in self.columns.items()}

        if isinstance(rows, slice) and not is_read:
            return Received(self.fields, octets, make)
        found = make()
        return Received(self.fields, octets, lambda: found, self._read)

    @staticmethod
    def joined(parts: Sequence[Received]) -> Received:
        """Records of the same fields one after another."""
        octets, first = columns.joined([part.octets for part in parts]), parts[0]
        if first._read is not None:
            return Received.of_fixed(first.fields, octets, first._read)

        def make() -> dict[str, Column]:
            return {name: columns.joined([part.columns[name] for part in parts]) for name in first.columns}

        return Received(first.fields, octets, make)


class _Pieces(Pieces):
    """A slice of records stays where they are, since an output takes all of them slice by slice."""

    __slots__ = ()

    def take(self, rows: Rows) -> Octets:
        if isinstance(rows, slice):
            return _Pieces(self.buffer, self.starts[rows], self.sizes[rows])
        return super().take(rows)


class ReceivedBatch(Batch):
    """A batch of records as they came: `received`, and `context`, the columns added by the collector.

    Taken or joined it is one still; with changed or further columns it becomes an ordinary batch.
    """

    def __init__(
        self, schema: Schema, context: dict[str, Column], received: Received, *, n: int, now: float, held: bool = False
    ) -> None:
        self.schema = schema
        self.context = context
        self.received = received
        self.missing = {}
        self.n = n
        self.now = now
        self.held = held

    @property
    def columns(self) -> dict[str, Column]:  # type: ignore[override]
        """Name -> column; all are decoded at the first use."""
        found = self.__dict__.get("_columns")
        if found is None:
            found = self.__dict__["_columns"] = self.context | self.received.columns
        return found

    @cached_property
    def nbytes(self) -> int:
        """Octets of memory held by the records, and by their columns as soon as somebody asks for them."""
        types_ = (key.type.dtype for name, key in self.schema.items() if name not in self.context)
        row = sum(8 if dtype is None else dtype.itemsize for dtype in types_)
        return columns.nbytes(self.received.octets) + sum(map(columns.nbytes, self.context.values())) + self.n * row

    def take(self, rows: Rows) -> Batch:
        received = self.received.take(rows)
        context = {name: columns.take(column, rows) for name, column in self.context.items()}
        return ReceivedBatch(self.schema, context, received, n=len(received.octets), now=self.now, held=self.held)

    def _join(self, batches: Sequence[Batch]) -> Batch:
        alike = [batch for batch in batches if isinstance(batch, ReceivedBatch)]
        if len(alike) < len(batches) or len({batch.received.fields for batch in alike}) > 1:
            return super()._join(batches)
        context = {name: columns.joined([batch.context[name] for batch in alike]) for name in self.context}
        received = Received.joined([batch.received for batch in alike])
        held = all(batch.held for batch in alike)
        return ReceivedBatch(self.schema, context, received, n=sum(b.n for b in alike), now=alike[-1].now, held=held)


class Intact:
    """The records of a layout that may be handed on as they came."""

    def __init__(self, layout: Layout, compiled: Columns) -> None:
        """`compiled`: all columns of the layout."""
        self._fields = layout.fields
        self._size = layout.octets
        self._tail = layout.shape.tail
        self._compiled = compiled
        self._stamps = [key.name for key in compiled.keys if key.type is types.MICROSECONDS]
        names = [*self._stamps, *(key.name for key in compiled.keys if key.type.kind in _OFTEN_WRONG)]
        self._checks = Columns(layout.fields, frozenset(names), layout.described) if names else None

    @classmethod
    def of(cls, layout: Layout, compiled: Columns) -> Intact | None:
        """None if some field would be encoded otherwise, or left out, whatever its values are."""
        elements = {(field.pen, field.ident) for field in layout.fields}
        if layout.scopes or layout.lists or layout.made or _STARTED in elements:
            return None
        if elements & _IPV4 and elements & _IPV6:
            return None
        return cls(layout, compiled) if all(_unchanged(layout.fields, layout.described)) else None

    def of_fixed(self, records: np.ndarray) -> Received | None:
        """Records of fixed length, `records` is of one void a record; None if a value is none, or would be changed."""
        octets = records.view(np.uint8).copy().reshape(-1, self._size)  # in stretches of a Message
        if self._checks is not None and self._is_wrong(*self._checks.of_octets(octets)):
            return None
        compiled = self._compiled
        return Received.of_fixed(self._fields, octets, lambda octets: compiled.of_octets(numbers(octets))[0])

    def of_varying(self, located: Located) -> Received | None:
        """Records of variable length; None if a value is none, or would be changed."""
        if self._checks is not None and self._is_wrong(*self._checks.of_varying(located)):
            return None
        starts, (last, lengths) = located.starts, located.values(len(self._compiled.varying) - 1)
        octets = _Pieces(located.octets, starts, last + lengths + starts.dtype.type(self._tail) - starts)
        compiled = self._compiled
        return Received(self._fields, octets, lambda: compiled.of_varying(located)[0])

    def _is_wrong(self, found: Mapping[str, Column], missing: Mapping[str, np.ndarray]) -> bool:
        """Whether a checked value is none, or has bits that are sent as 0 (dateTimeMicroseconds)."""
        return bool(missing) or any(np.any(numbers(found[name]) & ~MICROSECOND_BITS) for name in self._stamps)


def _unchanged(fields: tuple[Field, ...], described: Mapping[Element, Key]) -> Iterator[bool]:
    """Whether the element and any value of each field are the same when it is encoded."""
    for field, key in zip(fields, field_keys(fields, ALL, described), strict=True):
        found = field_of(key) if key is not None and is_said(key) else None
        if found is None:  # it would be left out
            yield False
            continue
        encoded, kind = found
        if (encoded.pen, encoded.ident) != (field.pen, field.ident):
            yield False
        elif encoded.length == VARIABLE:
            yield field.length > 0
        elif field.length < encoded.length:  # which is for readers that know the type (RFC 7011 section 6.2)
            yield registry.element(field.pen, field.ident).type is kind
        else:
            yield field.length == encoded.length
