"""Structured data (RFC 6313): basicList, subTemplateList and subTemplateMultiList become JSON texts.

A list is an object: ``{"semantic", "element", "values"}``, ``{"semantic", "template", "records"}`` or ``{"semantic",
"blocks"}`` with ``{"template", "records"}`` in each block; its values are the canonical ones of `ulogd_tw.core.text`; a
value of an impossible size is hexadecimal, NaN and infinity are null. A list is read up to a fault. A list without any
readable part, or with an unknown template, is opaque: a string with its octets in hexadecimal. A list within a list and
a block of a subTemplateMultiList are opaque separately, if their lengths are still valid.

This is Python for each list: 190,000 different ones of 8 numbers, or 95,000 of four records of three fields, a second
(benchmarks/ipfix_decode.py, text included). Equal lists of a domain are read once a batch.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

from ulogd_tw.core import types
from ulogd_tw.core.columns import Column, Octets, strings
from ulogd_tw.core.errors import MessageError
from ulogd_tw.core.keys import registry
from ulogd_tw.core.readable import community, written
from ulogd_tw.core.text import clean, ipv6_text
from ulogd_tw.core.types import Type
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.layout import PADDING, Layout
from ulogd_tw.ipfix.limits import Limits
from ulogd_tw.ipfix.template import VARIABLE, Field
from ulogd_tw.ipfix.values import held_type

Find = Callable[[int], Layout | None]
"""Gives the layout of a template id, None where there is no such template."""
_json = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode

# values

_NUMBERS = {"unsigned": "BHIQ", "signed": "bhiq", "seconds": "BHIQ", "milliseconds": "BHIQ", "float": "  fd"}
_WIDTHS = {1: 0, 2: 1, 4: 2, 8: 3}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _boolean(octets: bytes) -> bool | str:
    """RFC 7011 section 6.1.5; any other octet is no truth, and shown as it is."""
    return {1: True, 2: False}.get(octets[0], octets.hex())


_CONVERSIONS: dict[str, Callable[[bytes], Any]] = {
    "unsigned": lambda octets: int.from_bytes(octets, "big"),
    "signed": lambda octets: int.from_bytes(octets, "big", signed=True),
    "boolean": _boolean,
    "ipv4": lambda octets: ".".join(map(str, octets)),
    "ipv6": lambda octets: ipv6_text(int.from_bytes(octets, "big")),
    "mac": lambda octets: octets.hex(":"),
    "string": clean,
}


@lru_cache(1024)
def _reading(type_name: str, form: str, length: int) -> tuple[str, Callable[[Any], Any] | None]:
    """How a value of this many octets is read: a code of `struct`, and what is then done with it (None: nothing).

    By the type's name and form, since types are slow to hash.
    """
    held = held_type(types.FORMED.get(form) or types.TYPES[type_name], length)
    if held.form == "community" and length in _WIDTHS:
        return _NUMBERS[held.kind][_WIDTHS[length]], community
    if held.form:
        return f"{length}s", lambda octets: written(octets, held)
    if held.kind in _NUMBERS and length in _WIDTHS:
        return _NUMBERS[held.kind][_WIDTHS[length]], _finite if held.kind == "float" else None
    return f"{length}s", _CONVERSIONS.get(held.kind, bytes.hex)


def _value(type_: Type, octets: bytes) -> Any:
    """One value that is no list, of any length."""
    if type_.variable:
        if type_.form:
            return written(octets, type_)
        return clean(octets) if type_.kind == "string" else octets.hex()
    code, convert = _reading(type_.name, type_.form, len(octets))
    (value,) = struct.unpack(f"!{code}", octets)
    return convert(value) if convert else value


def _cut_value(octets: bytes, at: int) -> tuple[bytes, int] | None:
    """A value of variable length (RFC 7011 section 7), and where it ends; None where that is behind the end."""
    length, at = octets[at] if at < len(octets) else 0, at + 1
    if length == 255:
        length, at = int.from_bytes(octets[at : at + 2], "big"), at + 2
    end = at + length
    return (octets[at:end], end) if end <= len(octets) else None


# records


class Plan:
    """How the records of a template are read within lists. As everywhere, paddingOctets is left out."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self.fields: list[tuple[str | None, Type, int]] = []
        seen: Counter[str] = Counter()
        for field in fields:
            if (field.pen, field.ident) == PADDING:
                self.fields.append((None, types.OCTETS, field.length))
                continue
            key = registry.element(field.pen, field.ident)
            seen[key.name] += 1
            again = seen[key.name]
            self.fields.append((f"{key.name}#{again}" if again > 1 else key.name, key.type, field.length))
        self.names = [name for name, _, _ in self.fields if name]
        self.lists = [(name, type_) for name, type_, _ in self.fields if name and type_.kind == "list"]
        self.conversions: list[tuple[str, Callable[[Any], Any]]] = []
        self.struct = None if any(length == VARIABLE for _, _, length in self.fields) else self._struct()

    def _struct(self) -> struct.Struct:
        codes = []
        for name, type_, length in self.fields:
            if name is None:
                codes.append(f"{length}x")
                continue
            code, convert = _reading(type_.name, type_.form, length)
            codes.append(f"{length}s" if convert and type_.kind == "list" else code)
            if convert and type_.kind != "list":
                self.conversions.append((name, convert))
        return struct.Struct("!" + "".join(codes))


class Lists:
    """Reads lists by the templates that `find` gives.

    A list is read as far as it is whole. `plans` are kept by the caller over many of these. `faults` counts the lists
    that could not be understood, and the places where one is damaged.
    """

    def __init__(self, find: Find, plans: Plans, nesting: int) -> None:
        self._find = find
        self._plans = plans
        self._nesting = nesting
        self._left = 0
        self.faults = 0
        self.texts: dict[tuple[str, bytes], tuple[bytes, int]] = {}
        self._kinds = {
            types.BASIC_LIST.name: self._basic,
            types.SUB_TEMPLATE_LIST.name: self._sub_template,
            types.SUB_TEMPLATE_MULTI_LIST.name: self._multi,
        }

    def text(self, octets: bytes, type_: Type) -> tuple[bytes, int]:
        """The JSON text of a list, and how many faults are in it. The same list is read once."""
        found = self.texts.get((type_.name, octets))
        if found is None:
            before = self.faults
            text = _json(self.decode(octets, type_)).encode()
            found = self.texts[type_.name, octets] = text, self.faults - before
        return found

    def decode(self, octets: bytes, type_: Type) -> Any:
        """The list as Python has JSON: a dict, or where it cannot be understood its octets in hexadecimal.

        A list has at most two values an octet and 64 more (fields of no octets are the only way to more), so that the
        work for an octet is bounded.
        """
        self._left = 2 * len(octets) + 64
        before = self.faults
        try:
            return self._list(octets, type_, 1)
        except MessageError:
            self.faults = before + 1
            return octets.hex()

    def _list(self, octets: bytes, type_: Type, depth: int) -> Any:
        before = self.faults
        try:
            if depth > self._nesting:
                raise MessageError(f"lists are nested deeper than {self._nesting}", "list")
            return self._kinds[type_.name](octets, depth)
        except MessageError as error:
            if error.reason != "list":
                raise
            self.faults = before + 1
            return octets.hex()

    def _spend(self, values: int) -> None:
        self._left -= values
        if self._left < 0:
            raise MessageError("a list has more values than octets", "limit_list")

    # the three kinds

    def _basic(self, octets: bytes, depth: int) -> dict[str, Any]:
        if len(octets) < 5:
            raise MessageError("a basicList is cut", "list")
        semantic, ident, length = struct.unpack_from("!BHH", octets)
        pen, body = 0, octets[5:]
        if ident & 0x8000:
            if len(body) < 4:
                raise MessageError("a basicList is cut", "list")
            pen, body = int.from_bytes(body[:4], "big"), body[4:]
        key = registry.element(pen, ident & 0x7FFF)
        if length == VARIABLE:
            values = list(self._varying_values(key.type, body, depth))
        elif length:
            values = self._fixed_values(key.type, length, body, depth)
        else:
            raise MessageError("a basicList has elements of no octets", "list")
        return {"semantic": semantic, "element": key.name, "values": values}

    def _fixed_values(self, type_: Type, length: int, body: bytes, depth: int) -> list[Any]:
        n, rest = divmod(len(body), length)
        if rest:
            self._left_over(body[-rest:], n)
            body = body[:-rest]
        self._spend(n)
        if type_.kind == "list":
            return [self._list(body[at : at + length], type_, depth + 1) for at in range(0, len(body), length)]
        code, convert = _reading(type_.name, type_.form, length)
        if len(code) > 1:
            values: Sequence[Any] = [body[at : at + length] for at in range(0, len(body), length)]
        else:
            values = struct.unpack(f"!{n}{code}", body)
        return list(map(convert, values)) if convert else list(values)

    def _varying_values(self, type_: Type, body: bytes, depth: int) -> Iterator[Any]:
        at, end = 0, len(body)
        while at < end:
            self._spend(1)
            if (cut := _cut_value(body, at)) is None:
                self._read_to(at)
                return
            value, at = cut
            yield self._list(value, type_, depth + 1) if type_.kind == "list" else _value(type_, value)

    def _sub_template(self, octets: bytes, depth: int) -> dict[str, Any]:
        if len(octets) < 3:
            raise MessageError("a subTemplateList is cut", "list")
        semantic, ident = struct.unpack_from("!BH", octets)
        return {"semantic": semantic, "template": ident, "records": self._records(ident, octets[3:], depth)}

    def _multi(self, octets: bytes, depth: int) -> dict[str, Any]:
        if not octets:
            raise MessageError("a subTemplateMultiList is cut", "list")
        blocks: list[dict[str, Any]] = []
        at, end = 1, len(octets)
        while at < end:
            ident, length = struct.unpack_from("!HH", octets, at) if end - at >= 4 else (0, 0)
            if ident == length == 0 and not any(octets[at:]):
                break  # padding
            if not 4 <= length <= end - at:
                self._read_to(len(blocks))  # where the next block begins is not known
                break
            self._spend(1)
            blocks.append(self._block(ident, octets[at + 4 : at + length], depth))
            at += length
        return {"semantic": octets[0], "blocks": blocks}

    def _block(self, ident: int, body: bytes, depth: int) -> dict[str, Any]:
        """A block of a subTemplateMultiList; its octets in hexadecimal where its template is not known."""
        try:
            return {"template": ident, "records": self._records(ident, body, depth)}
        except MessageError as error:
            if error.reason != "list":
                raise
            self.faults += 1
            return {"template": ident, "octets": body.hex()}

    def _left_over(self, octets: bytes, read: int) -> None:
        """Octets behind the last whole value or record: padding, or the list is damaged."""
        if any(octets):
            self._read_to(read)

    def _read_to(self, read: int) -> None:
        """A list is damaged behind so much of it. One of which nothing was read is left as its octets."""
        if not read:
            raise MessageError("nothing of a list is whole", "list")
        self.faults += 1

    # records within lists

    def _records(self, ident: int, body: bytes, depth: int) -> list[dict[str, Any]]:
        """The whole records of a template; zeros too short for one are padding, as in Sets. None need no template."""
        if not body:
            return []
        layout = self._find(ident)
        if layout is None:
            raise MessageError(f"template {ident} of a list is not known", "list")
        least = layout.shape.least
        n = len(body) // least
        if not n:
            self.faults += any(body)
            return []
        varying = bool(layout.shape.segments)
        # Spent before the plan is made, so that a few octets cannot have a template of many fields looked at.
        self._spend(len(layout.fields) if varying else n * len(layout.fields))
        plan = self._plans.of(layout)
        if plan.struct is None:
            return self._varying_records(plan, body, least, depth)
        self._left_over(body[n * least :], n)
        return [self._record(plan, row, depth) for row in plan.struct.iter_unpack(body[: n * least])]

    def _record(self, plan: Plan, row: tuple[Any, ...], depth: int) -> dict[str, Any]:
        record = dict(zip(plan.names, row, strict=True))
        for name, convert in plan.conversions:
            record[name] = convert(record[name])
        for name, type_ in plan.lists:
            record[name] = self._list(record[name], type_, depth + 1)
        return record

    def _varying_records(self, plan: Plan, body: bytes, least: int, depth: int) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        at, end = 0, len(body)
        while end - at >= least:
            if at:
                self._spend(len(plan.fields))
            if (cut := self._varying_record(plan, body, at, depth)) is None:
                self._read_to(at)
                return records
            record, at = cut
            records.append(record)
        self._left_over(body[at:], at)
        return records

    def _varying_record(self, plan: Plan, body: bytes, at: int, depth: int) -> tuple[dict[str, Any], int] | None:
        """The record that begins at `at`, and where it ends; None where that is behind the end."""
        record: dict[str, Any] = {}
        for name, type_, length in plan.fields:
            cut = _cut_value(body, at) if length == VARIABLE else (body[at : at + length], at + length)
            if cut is None or cut[1] > len(body):
                return None
            value, at = cut
            if name is not None:
                record[name] = self._list(value, type_, depth + 1) if type_.kind == "list" else _value(type_, value)
        return record, at


class Plans:
    """Plans of layouts that occur in lists; all are forgotten when they have more than `most` fields together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._plans: dict[Layout, Plan] = {}
        self._fields = 0

    def of(self, layout: Layout) -> Plan:
        """The plan of a layout."""
        plan = self._plans.get(layout)
        if plan is None:
            self._fields += len(layout.fields)
            if self._fields > self._most:
                self._plans.clear()
                self._fields = len(layout.fields)
            plan = self._plans[layout] = Plan(layout.fields)
        return plan


# columns


class Structured:
    """Makes JSON texts of the list columns of a decoder's batches."""

    def __init__(self, limits: Limits, errors: Counter[str]) -> None:
        self._limits = limits
        self._errors = errors
        self._plans = Plans(limits.layout_fields)
        self._lists: dict[tuple[int, int], Lists] = {}
        self._octets = 0

    def forget(self) -> None:
        """All waiting records are decoded."""
        self._lists.clear()
        self._octets = 0

    def column(self, column: Column, type_: Type, sources: Sequence[Source], counts: Sequence[int]) -> Octets:
        """The texts of a column of lists, `counts` of them from each source, each by its own source's templates."""
        values = iter(strings(column).to_list())
        texts: list[bytes] = []
        for source, count in zip(sources, counts, strict=True):
            if count:
                lists = self._of(source)
                texts += [self._text(lists, next(values), type_) for _ in range(count)]
        return Octets.of(texts)

    def _of(self, source: Source) -> Lists:
        """The reader of this source's lists, with the templates of its domain at the arrival of its Message."""
        deferred = source[3]
        domain, stamp = (deferred.domain, deferred.stamp) if deferred is not None else (None, 0)
        lists = self._lists.get((id(domain), stamp))
        if lists is None:

            def find(ident: int) -> Layout | None:
                known = domain.template_at(ident, stamp) if domain is not None else None
                return known.layout if known is not None else None

            lists = self._lists[id(domain), stamp] = Lists(find, self._plans, self._limits.nesting)
        return lists

    def _text(self, lists: Lists, octets: bytes, type_: Type) -> bytes:
        text, faults = lists.text(octets, type_) if self._octets < self._limits.lists_octets else (None, 0)
        if text is None or len(text) > self._limits.list_octets:
            self._errors["limit_list"] += 1
            text = _json(octets.hex()).encode()
        elif faults:
            self._errors["list"] += faults
        self._octets += len(text)
        return text
