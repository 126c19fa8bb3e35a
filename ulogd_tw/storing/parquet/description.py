"""store.json: what a reader of a store must know beside its files. Readers of any release ignore names unknown to them.

It has the instance, the keys of all columns that were ever written, their order in files, and of the rows of an
AGGREGATE its interval in seconds and its keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ulogd_tw.core import durable
from ulogd_tw.storing.stored_columns import StoredColumn

NAME = "store.json"
VERSION = 1


@dataclass(frozen=True)
class Description:
    """The content of store.json. `rollup` has the facts of the AGGREGATE above: interval, by, time and others."""

    instance: str
    columns: tuple[StoredColumn, ...]
    order: tuple[str, ...]
    rollup: Mapping[str, Any] = field(default_factory=dict)

    def with_columns_of(self, former: Description | None) -> Description:
        """With the columns of older files behind its own."""
        mine = {column.name for column in self.columns}
        older = () if former is None else (column for column in former.columns if column.name not in mine)
        return Description(self.instance, (*self.columns, *older), self.order, self.rollup)

    def write(self, directory: Path, mode: int = 0o640) -> None:
        """Write it, unless it is there already. Raises OSError."""
        text = json.dumps(self._document(), indent=1).encode() + b"\n"
        path = directory / NAME
        if not path.exists() or path.read_bytes() != text:
            durable.write(path, lambda file: file.write(text), mode=mode)

    def _document(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "instance": self.instance,
            "keys": [column.described() for column in self.columns],
            "order": list(self.order),
            "interval": None,
            "by": None,
            **self.rollup,
        }


def read(directory: Path) -> Description | None:
    """The description of a store; None where there is none. Raises OSError, and ValueError for anything else."""
    try:
        found = json.loads((directory / NAME).read_text("utf-8"))
    except FileNotFoundError:
        return None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError(f"{directory / NAME} is not of this release")
    rollup = {name: value for name, value in found.items() if name not in ("version", "instance", "keys", "order")}
    try:
        columns = tuple(StoredColumn.of(one) for one in _list(found["keys"]))
        return Description(str(found["instance"]), columns, tuple(map(str, _list(found["order"]))), rollup)
    except KeyError as error:
        raise ValueError(f"{directory / NAME} has no {error}") from None


def _list(found: Any) -> Iterable[Any]:
    if not isinstance(found, list):
        raise ValueError("a list was expected")
    return found
