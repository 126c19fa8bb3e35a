"""Layouts: how the records of a template are cut into columns, whoever sent it.

A layout is made from the fields of a template, never from its id, so that the records of all exporters with equal
templates are decoded together. Only the elements that are wanted are read.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np

from ulogd_tw.core.batch import Schema
from ulogd_tw.core.columns import Column, taken
from ulogd_tw.core.keys import CONTEXT, Element, Key, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix.template import VARIABLE, Field, Template
from ulogd_tw.ipfix.values import Make, finished, held_type, plan, varying_values
from ulogd_tw.ipfix.variable_length import Located, Shape
from ulogd_tw.kernels import lib
from ulogd_tw.kernels.columns import FieldPlan, Program

BEFORE = 20
"""Octets in front of the body of each waiting Data Set: the headers of a Message with one Set, so that such a Message
can wait without being copied."""
_NONE: Mapping[Element, Key] = {}
PADDING = (0, 210)
"""paddingOctets: never given as a key."""
Found = tuple[dict[str, Column], dict[str, np.ndarray]]
"""Columns, and masks of missing rows, by name."""


def field_keys(
    fields: tuple[Field, ...], wanted: Wanted, described: Mapping[Element, Key] = _NONE,
    behind: frozenset[int] = frozenset(),
) -> list[Key | None]:  # fmt: skip
    """The key of each field with its held type; None for an unwanted one.

    `described` are the keys of elements described by the exporter itself. An element requested by its number keeps this
    name, as octets.

    Further occurrences of an element are called ``name#2``, ``name#3``. The names of `keys.CONTEXT` are taken already,
    so a template's own observationDomainId is always ``observationDomainId#2``.
    Fields at the places `behind` never have the bare name: they are further occurrences.
    """
    seen = Counter(key.name for key in CONTEXT)
    found: list[Key | None] = [None] * len(fields)
    for place in sorted(range(len(fields)), key=lambda place: place in behind) if behind else range(len(fields)):
        field = fields[place]
        if (field.pen, field.ident) == PADDING:
            continue
        key = registry.element(field.pen, field.ident)
        if described and (field.pen, field.ident) in described and not (wanted is not ALL and key.name in wanted):
            key = described[field.pen, field.ident]
        seen[key.name] = max(seen[key.name], place in behind) + 1
        if seen[key.name] > 1:
            key = Key(f"{key.name}#{seen[key.name]}", key.type)
        found[place] = key.typed(held_type(key.type, field.length)) if key.name in wanted else None
    return found


@dataclass(slots=True)
class _Piece:
    """A fixed-length field of a run: the names of its parts in the structured view."""

    key: Key
    length: int
    parts: list[str]
    make: Make


class Run:
    """Consecutive fixed-length fields: the wanted ones, from `first` on within the run."""

    def __init__(self) -> None:
        self.octets = 0
        self.pieces: list[_Piece] = []
        self._formats: list[tuple[str, int]] = []
        self._plans: list[FieldPlan] = []
        self.program: Program | None = None
        self.first = 0
        self.dtype: np.dtype | None = None

    def add(self, length: int, key: Key | None) -> None:
        """The next field; without key it is only skipped."""
        if key is not None:
            parts, make = plan(key.type, length)
            base = len(self._formats)
            self._formats += [(form, self.octets + at) for form, at in parts]
            self.pieces.append(_Piece(key, length, [str(base + i) for i in range(len(parts))], make))
            dtype = np.dtype(np.uint8) if key.type.kind == "boolean" else key.type.dtype
            self._plans.append(FieldPlan(self.octets, length, key.type.kind, dtype))
        self.octets += length

    def finish(self, whole: bool) -> None:
        """Make the structured type: of the `whole` run (records without gaps), or of the wanted fields."""
        if lib is not None and self.pieces:
            self.program = Program(self.octets, self._plans)
        if not self._formats:
            return
        ends = [at + np.dtype(form).itemsize for form, at in self._formats]
        self.first = 0 if whole else self._formats[0][1]
        self.dtype = np.dtype(
            {
                "names": [str(i) for i in range(len(self._formats))],
                "formats": [form for form, _ in self._formats],
                "offsets": [at - self.first for _, at in self._formats],
                "itemsize": self.octets if whole else max(ends) - self.first,
            }
        )

    def gathered(self, octets: np.ndarray, bases: np.ndarray) -> np.ndarray | None:
        """The structured rows of this run where it begins at `bases` in the buffer."""
        if self.dtype is None:
            return None
        return taken(octets, bases + self.first if self.first else bases, self.dtype.itemsize).view(self.dtype)

    def finished(self, read: list[np.ndarray], n: int, into: dict[str, Column], missing: dict[str, np.ndarray]) -> None:
        """Add the columns of `n` rows from what the program has `read`."""
        for piece, column in zip(self.pieces, read, strict=True):
            into[piece.key.name], wrong = finished(piece.key.type, piece.length, column, n)
            if wrong is not None:
                missing[piece.key.name] = wrong

    def columns(self, view: np.ndarray | None, n: int, into: dict[str, Column], missing: dict[str, np.ndarray]) -> None:
        """Add the columns of `n` rows; `view` is of this run's `dtype`, rows of rows where it has two dimensions."""
        for piece in self.pieces:
            parts = [view[part] for part in piece.parts] if view is not None else []
            column, wrong = piece.make(parts, n)
            if view is not None and view.ndim == 2 and isinstance(column, np.ndarray):
                column = column.reshape(n, *column.shape[2:])
            into[piece.key.name] = column
            if wrong is not None:
                missing[piece.key.name] = wrong.reshape(n)


class Columns:
    """A compiled layout: reads the wanted columns of many records."""

    def __init__(
        self, fields: tuple[Field, ...], wanted: Wanted, described: Mapping[Element, Key] = _NONE,
        behind: frozenset[int] = frozenset(),
    ) -> None:  # fmt: skip
        self.keys: list[Key] = []
        self.unwanted: list[str] = []
        """Names of fields read for other purposes only."""
        self.identities: frozenset[str] = frozenset()
        """Those of `Options` when it was compiled."""
        self.usual = True
        """Whether keys that are wanted in some records only are left out."""
        self.intact: Any = None
        """The `received.Intact` of a layout whose records may be copied."""
        self.runs = [Run()]
        self.varying: list[Key | None] = []
        for field, key in zip(fields, field_keys(fields, wanted, described, behind), strict=True):
            if key is not None:
                self.keys.append(key)
            if field.length == VARIABLE:
                self.varying.append(key)
                self.runs.append(Run())
            else:
                self.runs[-1].add(field.length, key)
        self.lists = [key for key in self.keys if key.type.kind == "list"]
        for run in self.runs:
            run.finish(whole=not self.varying)

    def of_fixed(self, joined: Joined, bodies: list[bytes | np.ndarray], sizes: np.ndarray, n: int) -> Found:
        """Columns and masks of the `n` records of fixed length in bodies of these sizes."""
        found: Found = ({}, {})
        run = self.runs[0]
        if run.program is not None:
            memory, starts, counts = joined.placed(bodies, sizes, run.octets)
            run.finished(run.program.fixed(memory, starts, counts, n), n, *found)
        else:
            view = joined.view(bodies, sizes, run.octets, run.dtype) if run.dtype is not None else None
            run.columns(view, n, *found)
        return found

    def of_octets(self, records: np.ndarray) -> Found:
        """Columns and masks of records of fixed length, a row of octets each."""
        found: Found = ({}, {})
        run, n = self.runs[0], len(records)
        if run.program is not None:
            read = run.program.fixed(records.reshape(-1), np.zeros(1, np.int64), np.array([n]), n)
            run.finished(read, n, *found)
        else:
            view = records.reshape(-1).view(run.dtype) if run.dtype is not None else None
            run.columns(view, n, *found)
        return found

    def of_varying(self, located: Located) -> Found:
        """Columns and masks of records that have variable-length fields."""
        n = len(located)
        found: Found = ({}, {})
        columns, missing = found
        for index, run in enumerate(self.runs):
            key = self.varying[index - 1] if index else None
            if not run.pieces and key is None:
                continue
            if index == 0:
                bases = located.starts
            else:
                starts, lengths = located.values(index - 1)
                bases = starts + lengths
            if key is not None:
                columns[key.name], wrong = varying_values(key.type, located.octets, starts, lengths)
                if wrong is not None:
                    missing[key.name] = wrong
            if run.program is not None:
                run.finished(run.program.located(located.octets, bases), n, columns, missing)
            else:
                run.columns(run.gathered(located.octets, bases), n, columns, missing)
        return found


class Made(Protocol):
    """Columns of a batch made of others, or of the exporter's options data."""

    def needed(self, wanted: Wanted) -> Wanted:
        """The fields needed from the records."""

    def add(self, found: Found, sources: Sequence[tuple], counts: np.ndarray) -> Sequence[Key]:
        """Add the columns to those of records; `counts` of them came from each source. Returns the keys added."""


class Layout:
    """The records of templates with equal fields and scopes, from exporters of one address family; and waiting ones.

    `octets` is the size of a record, 0 if it varies or has `lists`: lists depend on their Message, so such records are
    always walked, by `shape`. `described` are the keys of elements described by exporters. `columns`, `made` and
    `schemas` are made when the first records are decoded, and may be forgotten. `bodies` are waiting Data Sets, without
    padding but with `BEFORE` octets in front, in order of arrival; `sources` has a `context.Source` for each. `tells`:
    its records change the decoding of later ones.
    """

    __slots__ = (
        "fields", "scopes", "family", "described", "octets", "shape", "lists", "columns", "made", "schemas", "bodies",
        "sources", "tells", "__weakref__",
    )  # fmt: skip

    def __init__(self, template: Template, family: int, described: Sequence[Key] = ()) -> None:
        self.fields = template.fields
        self.scopes = template.scopes
        self.family = family
        self.described = {key.elements[0]: key for key in described}
        self.shape = _shape(template.fields)
        self.lists = any(key.type.kind == "list" for key in described) or has_lists(template.fields)
        self.octets = 0 if self.shape.segments or self.lists else self.shape.least
        self.tells = False
        self.columns: Columns | None = None
        self.made: list[Made] = []
        self.schemas: dict[tuple[Key, ...], Schema] = {}
        self.bodies: list[bytes | np.ndarray] = []
        self.sources: list[tuple] = []

    def forget(self) -> None:
        """Compile it anew when it is needed again."""
        self.columns = None
        self.made = []
        self.schemas.clear()


def has_lists(fields: tuple[Field, ...]) -> bool:
    """Whether a field is structured data (RFC 6313)."""
    return any(registry.element(field.pen, field.ident).type.kind == "list" for field in fields)


def _shape(fields: tuple[Field, ...]) -> Shape:
    least = sum(1 if field.length == VARIABLE else field.length for field in fields)
    segments, skip, before = [], 0, 0
    for field in fields:
        if field.length == VARIABLE:
            before += skip + 1
            segments.append((skip, least - before))
            skip = 0
        else:
            skip += field.length
    return Shape(tuple(segments), skip, least)


class Joined:
    """Puts bodies of Data Sets one after another, in memory that is used again: fresh pages cost more than the copy."""

    MOST = 4 << 20
    """Octets of memory that are kept."""

    def __init__(self) -> None:
        self._file = io.BytesIO()

    def view(self, bodies: list[bytes | np.ndarray], sizes: np.ndarray, octets: int, dtype: np.dtype) -> np.ndarray:
        """The records of `octets` octets in these bodies of `sizes`; until the next call. One or two dimensions."""
        if len(bodies) == 1:
            return np.frombuffer(bodies[0], np.uint8)[BEFORE:].view(dtype)
        every = self._joined(bodies)
        counts = (sizes - BEFORE) // octets
        if (sizes == sizes[0]).all():
            size = int(sizes[0])
            return np.ndarray((len(bodies), int(counts[0])), dtype, every, BEFORE, (size, octets))
        ends, firsts = np.cumsum(sizes), np.cumsum(counts) - counts
        starts = np.repeat(ends - sizes + BEFORE - octets * firsts, counts)
        starts += octets * np.arange(len(starts))
        return taken(every, starts, octets).view(dtype)

    def placed(
        self, bodies: list[bytes | np.ndarray], sizes: np.ndarray, octets: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Memory with these bodies, until the next call; where the records of each begin, and how many it has."""
        every = np.frombuffer(bodies[0], np.uint8) if len(bodies) == 1 else self._joined(bodies)
        return every, np.cumsum(sizes) - sizes + BEFORE, (sizes - BEFORE) // octets

    def _joined(self, bodies: list[bytes | np.ndarray]) -> np.ndarray:
        if self._file.tell() > self.MOST:
            self._file = io.BytesIO()
        self._file.seek(0)
        self._file.writelines(cast("list[bytes]", bodies))  # arrays are buffers too
        return np.frombuffer(self._file.getbuffer(), np.uint8, self._file.tell())
