"""Matches the columns of a table with keys, and converts values to the forms of databases."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.flow_rows import options_rows
from ulogd_tw.core.keys import CONTEXT, Key, known, registry
from ulogd_tw.core.readable import readable
from ulogd_tw.core.resolve import Found
from ulogd_tw.storing.errors import TableError

# names


def column_name(key: str) -> str:
    """The column for a key: ``orig_ip_saddr`` for ``orig.ip.saddr``, also for ``orig.ip.saddr@ct1``."""
    return key.partition("@")[0].replace(".", "_").replace("#", "_")


@cache
def _by_column() -> dict[str, str]:
    """Keys by column, for columns named neither as the key nor as the key with dots: ``raw.mac_len``, ``#APP_ID``."""
    columns = {name: column_name(name) for name in registry.names()}
    return {column.lower(): name for name, column in columns.items() if name not in (column, column.replace("_", "."))}


@cache
def _by_lower_case() -> dict[str, str]:
    """Keys by column in lower case: PostgreSQL folds names without quotes."""
    return {column_name(name).lower(): name for name in reversed(list(registry.names()))}


def key_names(column: str) -> tuple[str, ...]:
    """The keys for a column of this name, the likeliest first: the exact name, then the name with dots.

    Mostly one key; ``src_as`` is a key of NetFlow v5 and the column of ``src.as``. All names if none is a known key:
    it may be a plugin's own. A column in lower case can have a key of this name in any case.
    """
    found = tuple(dict.fromkeys((column, column.replace("_", "."), _by_column().get(column.lower(), column))))
    lower_case = _by_lower_case().get(column)
    return tuple(name for name in found if known(name)) or ((lower_case,) if lower_case else found)


def clash(keys: Iterable[str]) -> str | None:
    """The mistake in these keys as columns of one table: two with the same name (in upper or lower case)."""
    seen: dict[str, str] = {}
    for key in keys:
        column = column_name(key).lower()
        if column in seen:
            return f"{seen[column]} and {key} would both be column {column_name(key)}"
        seen[column] = key
    return None


def without_column(columns: Iterable[TableColumn], names: Iterable[str]) -> list[str]:
    """The keys, by name, that have no column in a table."""
    held = {column.name.lower() for column in columns}
    return [name for name in names if not held & {name.lower(), column_name(name).lower()}]


# columns


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of an existing table. `automatic`: the database fills it. `time`: of a type for points in time."""

    name: str
    type: str = ""
    automatic: bool = False
    time: bool = False

    @property
    def integer(self) -> bool:
        return "INT" in self.type.upper()

    @property
    def binary(self) -> bool:
        """True for octets as they are; their text in hexadecimal would not fit, or mean something else."""
        return "BINARY" in self.type.upper() or "BLOB" in self.type.upper()

    @property
    def size(self) -> int:
        """The number in brackets behind the type, such as 16 of ``binary(16)``; 0 without one."""
        found = re.search(r"\((\d+)\)", self.type)
        return int(found[1]) if found else 0


@dataclass(frozen=True, slots=True)
class Target:
    """A column to write, and the keys for its value: the first one in a batch counts.

    `optional`: the column is left alone if no plugin gives such a key. `time`: it gets times as they are held.
    """

    column: str
    keys: tuple[str, ...]
    integer: bool = False
    optional: bool = False
    binary: bool = False
    size: int = 0
    time: bool = False


def target_of(column: TableColumn, keys: tuple[str, ...], optional: bool = False) -> Target:
    """A column to write from these keys."""
    return Target(column.name, keys, column.integer, optional, column.binary, column.size, column.time)


def chosen_targets(table: str, columns: Iterable[TableColumn], keys: Iterable[str]) -> list[Target]:
    """The columns for the keys chosen by the administrator. Raises `TableError` for a key without column."""
    by_name = {column.name.lower(): column for column in columns}
    found = []
    for key in keys:
        column = by_name.get(key.lower()) or by_name.get(column_name(key).lower())
        if column is None:
            raise TableError(
                f"table {table} has no column for the key {key}",
                f"ALTER TABLE {table} ADD a column {column_name(key)}, or leave the key out",
            )
        found.append(target_of(column, (key,)))
    return found


def all_targets(
    table: str, columns: Iterable[TableColumn], offered: Mapping[str, Key], skip_first: bool
) -> list[Target]:
    """Every column of the table that does not fill itself. Raises `TableError` if there is none.

    `offered` are keys known to come; they take precedence among several keys for a column's name. With `skip_first` the
    first column is optional if no such key is known: ulogd2 takes it for a number given by the database.
    """
    own = {column_name(name).lower(): name for name in offered}
    found = []
    for place, column in enumerate(columns):
        mine = own.get(column.name.lower())
        names = (mine,) if mine else key_names(column.name)
        optional = skip_first and place == 0 and not mine and not any(map(known, names))
        if not column.automatic:
            found.append(target_of(column, names, optional))
    if not found:
        raise TableError(f"table {table} has no column for any key", "name another table, or drop this one")
    return found


# values


Values = Sequence[tuple[Target, Found | None]]
"""The values to write: each column with its values, None if all are missing."""


def stored(found: Found | None, target: Target) -> Found | None:
    """Values in the form for databases.

    Values have the form in which people write them (`readable`): times in microseconds and nanoseconds are integers
    since 1970, but for columns of times. Lists and long numbers are strings, so that they are quoted as such. NaN and
    infinity become missing, and an IPv4 address for an integer column becomes a number, as in ulogd2.
    """
    if found is None:
        return None
    if target.time and found.key.type.kind == "ntp":
        return found
    if found.key.type.form:
        values, key = readable(found.values, found.key)
        found = replace(found, values=values, key=key)
    kind = found.key.type.kind
    if kind == "list":
        return replace(found, key=found.key.typed(types.STRING))
    if kind == "ipv4" and target.integer:
        return replace(found, key=found.key.typed(types.UNSIGNED32))
    if kind == "float":
        odd = ~np.isfinite(found.numbers)
        if odd.any():
            return replace(found, missing=odd if found.missing is None else odd | found.missing)
    return found


Find = Callable[[str], Found | None]
_CONTEXT = frozenset(key.name for key in CONTEXT)


def worth_writing(values: Values, kinds: Found | None, n: int) -> np.ndarray | None:
    """A mask without options records that hold only sender and time; None if all rows stay.

    In a table of flows they would be rows of NULL. A table with the column record_kind gets them. `kinds` is this key.
    """
    options = options_rows(kinds.values) if kinds is not None else None
    if options is None:
        return None
    named = [(_CONTEXT.issuperset(target.keys), found) for target, found in values]
    if any("record_kind" in target.keys for target, _ in values) or all(context for context, _ in named):
        return None
    there = np.zeros(n, bool)
    for context, found in named:
        if context or found is None:
            continue
        if found.missing is None:
            return None
        there |= ~found.missing
    there |= ~options
    return None if there.all() else there


def values_of(targets: Iterable[Target], find: Find) -> Values:
    """The values of all columns of one batch."""
    found = []
    for target in targets:
        candidates = (find(key) for key in target.keys)
        found.append((target, stored(next((c for c in candidates if c is not None), None), target)))
    return found
