"""Stores as they lie on the disk: the description of each, its columns by key, and what its rows are.

A raw store has flows. A roll-up has the sums of an AGGREGATE: one row a group and interval.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ulogd_tw.core.keys import Key
from ulogd_tw.core.resolve import Provided
from ulogd_tw.flows.errors import NoStore
from ulogd_tw.storing.stored_columns import ARRIVAL, StoredColumn

DESCRIPTION = "store.json"
INTERVAL_START = "interval_start"
FLOWS = "flows"


@dataclass(frozen=True)
class Rollup:
    """The AGGREGATE above a store: the length of its intervals in milliseconds, and its keys.

    `time` is its option of this name; None in stores that do not say it. `whole` is False where rows of several groups
    may be one, as with `top`.
    """

    interval: int
    by: tuple[str, ...]
    time: str | None = None
    lateness: int = 60_000
    whole: bool = True


@dataclass(frozen=True)
class Store:
    """One directory of PARQUET."""

    name: str
    directory: Path
    columns: tuple[StoredColumn, ...]
    rollup: Rollup | None = None
    keys: dict[str, Key] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", {column.name: column.key for column in self.columns})

    @property
    def types(self) -> dict[str, str]:
        """The type of each column in DuckDB."""
        return {column.name: column.sql for column in self.columns} | {ARRIVAL.name: StoredColumn(ARRIVAL).sql}

    def find(self, name: str) -> tuple[str, ...]:
        """The columns with the datum of a key: that of its name, else those of its elements."""
        return Provided(self.keys.values()).direct(name)


def read(directory: Path | str, name: str = "") -> Store:
    """The store in a directory. Raises `NoStore`."""
    place = Path(directory)
    try:
        text = (place / DESCRIPTION).read_text("utf-8")
    except OSError as error:
        there = "it is no directory of PARQUET" if place.is_dir() else "there is no such directory"
        reason = there if isinstance(error, FileNotFoundError) else error.strerror
        raise NoStore(f"{place}: {reason} ({DESCRIPTION} is missing)") from None
    except ValueError:
        raise NoStore(f"{place / DESCRIPTION} is no text") from None
    try:
        return described(json.loads(text), place, name)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise NoStore(f"{place / DESCRIPTION}: not the description of a store ({error})") from None


def described(found: Mapping[str, Any], directory: Path, name: str = "") -> Store:
    """The store of a description. Raises KeyError, TypeError and ValueError."""
    if found["version"] != 1:
        raise ValueError(f"version {found['version']} is not known; this version of ulogd_tw reads 1")
    columns = tuple(StoredColumn.of(column) for column in found["keys"])
    return Store(name or str(found.get("instance") or directory.name), directory, columns, rollup(found))


def rollup(found: Mapping[str, Any]) -> Rollup | None:
    """The roll-up of a description; None for a raw store."""
    if found.get("by") is None:
        return None
    return Rollup(
        int(found.get("interval") or 0) * 1000,
        tuple(map(str, found["by"])),
        found.get("time"),
        int(found.get("lateness") or 60) * 1000,
        bool(found.get("whole", True)),
    )


def in_order(stores: Iterable[Store]) -> list[Store]:
    """The coarsest first, raw stores last."""
    return sorted(stores, key=_coarseness)


def _coarseness(store: Store) -> tuple[bool, int, int, str]:
    found = store.rollup
    if found is None:
        return True, 0, 0, store.name
    return False, -found.interval, len(found.by), store.name
