"""The tables that a query reads: batches of one shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.keys import Key

ROWS_AT_ONCE = 1000
"""Rows of a result that are fetched together."""


@dataclass
class Table:
    """The possible `columns`, and the rows; a batch without a column has NULL there.

    `keys` have the types of columns that no batch has.
    """

    columns: tuple[str, ...]
    batches: list[Batch] = field(default_factory=list)
    keys: Mapping[str, Key] = field(default_factory=dict)


def quoted(name: str) -> str:
    """A name in an SQL statement."""
    return '"' + name.replace('"', '""') + '"'
