"""The rows of address translation in the files of a store, by DuckDB.

Files do not change, so that their columns are looked up once. One that compaction has replaced meanwhile is not there
any more: the files are listed again then.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from ulogd_tw.flows import nat_sql
from ulogd_tw.flows.listing import Listing
from ulogd_tw.flows.nat_rows import ADDRESSES, ROLES, NatRow, Question, nat_rows
from ulogd_tw.flows.nat_sql import Columns

_TRIES = 3


class File(Protocol):
    """A file of a store as its directory lists it."""

    @property
    def path(self) -> Path: ...

    def overlaps(self, since: float | None, until: float | None) -> bool:
        """Whether it can hold flows of a half-open time, in seconds."""


Listed = Callable[[], Iterable[File]]


class NatStore:
    """The files of stores as one connection of DuckDB sees them, kept between questions.

    `run` gives all rows of a statement.
    """

    def __init__(self, run: Callable[[str], list[tuple[Any, ...]]]) -> None:
        self._run = run
        self.listing = Listing()
        self._columns: dict[str, Columns] = {}

    def rows(self, listing: Listed, question: Question) -> list[NatRow]:
        """What the files say about the address. Raises DuckDB's errors where they cannot be read."""
        for again in range(_TRIES):
            files = list(listing())
            try:
                return self._of(files, question)
            except Exception:  # an error of DuckDB, which need not be there
                if again + 1 == _TRIES or all(file.path.exists() for file in files):
                    raise
        raise AssertionError

    def events(self, paths: Iterable[Path]) -> bool:
        """Whether there can be events in files that were read."""
        known = (self._columns.get(str(path)) for path in paths)
        return any(columns is not None and columns.events for columns in known)

    def _of(self, files: list[File], question: Question) -> list[NatRow]:
        self._look([str(file.path) for file in files])
        since, until = question.earliest / 1000, (question.latest + 1) / 1000
        near = [file for file in files if file.overlaps(since, until)]
        found = list(self._fetched(nat_sql.flows, near, question))
        found += self._fetched(nat_sql.events, files, question)
        return found

    def _fetched(self, statements: Any, files: list[File], question: Question) -> Iterator[NatRow]:
        alike = defaultdict(list)
        for file in files:
            alike[self._columns[str(file.path)]].append(str(file.path))
        for columns, paths in alike.items():
            if columns.translated:
                for text in statements(columns, paths, question):
                    for row in self._run(text):
                        yield from nat_rows(_values(row), question)

    def _look(self, paths: list[str]) -> None:
        """Know the columns of all files, and forget those of files that are gone."""
        new = [path for path in paths if path not in self._columns]
        if len(self._columns) > 2 * len(paths):
            self._columns = {path: self._columns[path] for path in paths if path in self._columns}
        if not new:
            return
        text = f"SELECT file_name, list(name) FROM parquet_schema({nat_sql.listed(new)}) GROUP BY file_name"
        known: dict[frozenset[str], Columns] = {columns.names: columns for columns in self._columns.values()}
        for path, names in self._run(text):
            used = frozenset(names) & _USED
            self._columns[path] = known.setdefault(used, Columns(used))


_USED = frozenset(itertools.chain.from_iterable(ROLES.values()))
_ROLES = [(role, role in ADDRESSES) for role in ROLES]


def _values(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row by role; addresses as numbers."""
    return {
        role: value.int if address and value is not None else value
        for (role, address), value in zip(_ROLES, row, strict=True)
    }
