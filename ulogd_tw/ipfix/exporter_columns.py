"""Columns made of an exporter's options data: sampling factor, scaled counts, names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ulogd_tw.core.columns import Coded, Column, Octets, different, joined
from ulogd_tw.core.keys import Key, registry
from ulogd_tw.core.plugin import ALL, Wanted
from ulogd_tw.ipfix import told_names
from ulogd_tw.ipfix.context import Source
from ulogd_tw.ipfix.exporter_lookup import names_of
from ulogd_tw.ipfix.layout import Found, Made
from ulogd_tw.ipfix.options_records import Options
from ulogd_tw.ipfix.runs import by_template
from ulogd_tw.ipfix.sampling import FACTOR, Factor
from ulogd_tw.ipfix.template import Field


def made(fields: tuple[Field, ...], wanted: Wanted, scale: bool, name: bool, options: Options) -> list[Made]:
    """The columns that can be made for Data Records with these fields.

    If every key is wanted, the factor is given only with `scale`, and names only with `name`.
    """
    names = {_name(field) for field in fields}
    found: list[Made] = []
    if scale or (wanted is not ALL and FACTOR.name in wanted):
        found.append(Factor(names, scale, options))
    for kind in told_names.KINDS:
        for target, columns in kind.columns.items():
            asked = (name and target not in told_names.ON_REQUEST) if wanted is ALL else target in wanted
            column = next((column for column in columns if column in names or column == told_names.DOMAIN), None)
            if asked and column and target not in names:
                key = told_names.key_of(target)
                found.append(Names(key, column, kind.kind, wanted is ALL, options))
    return found


def _name(field: Field) -> str:
    return registry.element(field.pen, field.ident).name


class Names:
    """The name of a thing by its number or octets, from options records."""

    def __init__(self, key: Key, column: str, kind: str, seldom: bool, options: Options) -> None:
        self._key = key
        self._column = column
        self._kind = kind
        self._seldom = seldom
        self._options = options

    def needed(self, wanted: Wanted) -> Wanted:
        return wanted if wanted is ALL or self._column == told_names.DOMAIN else wanted | {self._column}

    def add(self, found: Found, sources: Sequence[Source], counts: np.ndarray) -> Sequence[Key]:
        columns, missing = found
        if self._seldom and not any(names_of(template, self._kind) for template in {source[0] for source in sources}):
            return ()
        column, absent = columns.get(self._column), missing.get(self._column)
        parts, known = [], []
        for template, start, end in by_template(sources, counts):
            if self._column == told_names.DOMAIN:
                values: Column = np.full(end - start, template.domain.number)
            elif column is None:
                return ()
            else:
                values = column[start:end] if isinstance(column, np.ndarray) else column.take(slice(start, end))
            tables = names_of(template, self._kind)
            names, there, unclear = _named(tables, values, self._kind)
            if tables:
                unknown = ~there if isinstance(values, Octets | Coded) else ~there & (values != 0)
                self._options.unnamed(template, self._kind, int(np.count_nonzero(unknown & ~unclear)),
                                      int(np.count_nonzero(unclear)))  # fmt: skip
            parts.append(names)
            known.append(there)
        there = np.concatenate(known)
        if absent is not None:
            there &= ~absent
        if self._seldom and not there.any():
            return ()
        columns[self._key.name] = joined(parts)
        if not there.all():
            missing[self._key.name] = ~there
        return (self._key,)


def _named(
    tables: Sequence[Mapping[Any, bytes | None]], column: Column, kind: str
) -> tuple[Coded, np.ndarray, np.ndarray]:  # fmt: skip
    """The names of values, a mask of those with a name, and one of those with contradicting names."""
    n = len(column)
    if not tables:
        return Coded(np.zeros(n, np.int32), (b"",)), np.zeros(n, bool), np.zeros(n, bool)
    if isinstance(column, np.ndarray):
        values, which = np.unique(column, return_inverse=True)
        things = values.tolist()
    else:
        things, which = different(column.plain())
        things = [told_names.form(kind, thing) for thing in things]
    names = [next((table[value] for table in tables if value in table), b"") for value in things]
    there = np.array([bool(name) for name in names], bool)
    unclear = np.array([name is None for name in names], bool)
    return Coded(which.astype(np.int32), tuple(name or b"" for name in names)), there[which], unclear[which]
