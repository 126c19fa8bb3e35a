"""Which columns of a table are written from which keys, and in which form databases hold the values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from ulogd_tw.core import types
from ulogd_tw.core.conversions import NTP_EPOCH
from ulogd_tw.core.flow_rows import options_rows
from ulogd_tw.core.keys import CONTEXT, Key, known, registry
from ulogd_tw.core.resolve import Found
from ulogd_tw.storing.errors import TableError

# names


def column_name(key: str) -> str:
    """The column that is made for a key: ``orig_ip_saddr`` for ``orig.ip.saddr``, also for ``orig.ip.saddr@ct1``."""
    return key.partition("@")[0].replace(".", "_").replace("#", "_")


@cache
def _by_column() -> dict[str, str]:
    """Keys by column that are neither the column's name nor that with dots: ``raw.mac_len``, ``#APP_ID``."""
    columns = {name: column_name(name) for name in registry.names()}
    return {column.lower(): name for name, column in columns.items() if name not in (column, column.replace("_", "."))}


def key_names(column: str) -> tuple[str, ...]:
    """The key that a column of this name means: the exact name, else the one with dots.

    Several where nobody knows any of them: they may be those of a plugin.
    """
    found = tuple(dict.fromkeys((column, column.replace("_", "."), _by_column().get(column.lower(), column))))
    return tuple(name for name in found if known(name))[:1] or found


def clash(keys: Iterable[str]) -> str | None:
    """What is wrong with these keys as columns of one table: two of the same name (in upper or lower case)."""
    seen: dict[str, str] = {}
    for key in keys:
        column = column_name(key).lower()
        if column in seen:
            return f"{seen[column]} and {key} would both be column {column_name(key)}"
        seen[column] = key
    return None


# columns


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of an existing table. `automatic`: it fills itself, and nothing is written to it."""

    name: str
    type: str = ""
    automatic: bool = False

    @property
    def integer(self) -> bool:
        return "INT" in self.type.upper()


@dataclass(frozen=True, slots=True)
class Target:
    """A column that is written, and the keys that give its value: the first that a batch has.

    `optional`: it is left alone where no plugin gives such a key.
    """

    column: str
    keys: tuple[str, ...]
    integer: bool = False
    optional: bool = False


def chosen_targets(table: str, columns: Iterable[TableColumn], keys: Iterable[str]) -> list[Target]:
    """The columns for the keys that the administrator names. Raises `TableError` for a key without one."""
    by_name = {column.name.lower(): column for column in columns}
    found = []
    for key in keys:
        column = by_name.get(key.lower()) or by_name.get(column_name(key).lower())
        if column is None:
            raise TableError(
                f"table {table} has no column for the key {key}",
                f"ALTER TABLE {table} ADD a column {column_name(key)}, or leave the key out",
            )
        found.append(Target(column.name, (key,), column.integer))
    return found


def all_targets(
    table: str, columns: Iterable[TableColumn], offered: Mapping[str, Key], skip_first: bool
) -> list[Target]:
    """Every column of the table that does not fill itself. Raises `TableError` where there is none.

    `offered` are keys known to come, which go before others that a column's name could mean. With `skip_first` the
    first column is optional when nobody knows such a key: ulogd2 takes it to be a number that the database gives.
    """
    own = {column_name(name).lower(): name for name in offered}
    found = []
    for place, column in enumerate(columns):
        mine = own.get(column.name.lower())
        names = (mine,) if mine else key_names(column.name)
        optional = skip_first and place == 0 and not mine and not any(map(known, names))
        if not column.automatic:
            found.append(Target(column.name, names, column.integer, optional))
    if not found:
        raise TableError(f"table {table} has no column for any key", "name another table, or drop this one")
    return found


# values


Values = Sequence[tuple[Target, Found | None]]
"""What is to be written: each column with its values, None where all rows have none."""


def stored(found: Found | None, target: Target) -> Found | None:
    """Values in the form in which databases hold them.

    NTP times become integers since 1970 in their unit, numbers that are none (NaN, infinity) become missing, and an
    IPv4 address for a column of integers becomes a number, as ulogd2 wrote it.
    """
    if found is None:
        return None
    kind = found.key.type.kind
    if kind == "ntp":
        unit = 10**6 if found.key.type is types.MICROSECONDS else 10**9
        return replace(found, values=ntp_to_integer(found.values, unit), key=found.key.typed(types.UNSIGNED64))
    if kind == "ipv4" and target.integer:
        return replace(found, key=found.key.typed(types.UNSIGNED32))
    if kind == "float":
        odd = ~np.isfinite(found.values)
        if odd.any():
            return replace(found, missing=odd if found.missing is None else odd | found.missing)
    return found


def ntp_to_integer(ntp: np.ndarray, unit: int) -> np.ndarray:
    """NTP times as integers since 1970, `unit` of them a second, rounded; before 1970 is the era from 2036 on."""
    seconds = (ntp >> np.uint64(32)).astype(np.int64) - NTP_EPOCH
    seconds += np.where(seconds < 0, np.int64(1 << 32), np.int64(0))
    fraction = ((ntp & np.uint64(0xFFFFFFFF)) * np.uint64(unit) + np.uint64(1 << 31)) >> np.uint64(32)
    return seconds.astype(np.uint64) * np.uint64(unit) + fraction


Find = Callable[[str], Found | None]
_CONTEXT = frozenset(key.name for key in CONTEXT)


def worth_writing(values: Values, kinds: Found | None, n: int) -> np.ndarray | None:
    """The rows without those options records that have no value but who sent them and when; None where all stay.

    In a table of flows they would be rows of NULL. A table with record_kind gets them. `kinds` is that key.
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
