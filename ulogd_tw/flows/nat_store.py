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
from ulogd_tw.flows.carried import MOST_FILES, Carried
from ulogd_tw.flows.listing import Listing
from ulogd_tw.flows.nat_rows import ADDRESSES, ROLES, NatRow, Question, nat_rows
from ulogd_tw.flows.nat_sql import Columns
from ulogd_tw.flows.who_had import Answer, answers

_TRIES = 3
_HOUR_MS = 3_600_000
_EVER = 1 << 62


class File(Protocol):
    """A file of a store as its directory lists it."""

    @property
    def path(self) -> Path: ...

    @property
    def hour(self) -> int:
        """Hours since 1970 of the time of its rows."""

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
        self._latest: dict[str, int] = {}
        """The latest start (ms) in a file: beyond its hour, it is that of a flow with a start after its end."""
        self._carried = Carried(run)
        self.cut = False
        """Whether the last question concerned more rows than are read."""

    def rows(self, listing: Listed, question: Question) -> list[NatRow]:
        """What the files say about the address. Raises DuckDB's errors where they cannot be read."""
        for again in range(_TRIES):
            files = list(listing())
            self.cut = False
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

    def learn(self, files: Iterable[File], seconds: float) -> bool:
        """Learn what makes further questions about events faster; False if some is left. Raises DuckDB's errors."""
        known = [(str(file.path), file) for file in files]
        self._look([path for path, _ in known])
        return self._carried.learn(((path, file.hour, self._columns[path]) for path, file in known), seconds)

    def _of(self, files: list[File], question: Question) -> list[NatRow]:
        self._look([str(file.path) for file in files])
        since, until = question.earliest / 1000, (question.latest + 1) / 1000
        near = [file for file in files if file.overlaps(since, until) or self._later(file, question)]
        found = list(self._fetched(nat_sql.flows, near, question))
        return found + self._events(files, question)

    def _later(self, file: File, question: Question) -> bool:
        """Whether flows of a file may have a start after their end, and have the time between them."""
        latest = self._latest.get(str(file.path))
        return latest is not None and latest >= question.earliest and file.hour * _HOUR_MS <= question.latest

    def _events(self, files: list[File], question: Question) -> list[NatRow]:
        """The events of the hours of the question and of others that concern it.

        Where these make a session, the hours that it spans are read too: it may have ended earlier, without an end.
        """
        hours = range(question.earliest // _HOUR_MS, question.latest // _HOUR_MS + 1)
        chosen = {file for file in files if file.hour in hours or self._carried.concerns(str(file.path), question)}
        found = list(self._fetched(nat_sql.events, [file for file in files if file in chosen], question))
        spans = [_span(answer) for answer in answers(found, question)]
        begin, end = min((one[0] for one in spans), default=1), max((one[1] for one in spans), default=0)
        rest = [file for file in files if begin <= file.hour <= end and file not in chosen]
        return found + list(self._fetched(nat_sql.events, rest, question))

    def _fetched(self, statements: Any, files: list[File], question: Question) -> Iterator[NatRow]:
        alike = defaultdict(list)
        for file in files:
            alike[self._columns[str(file.path)]].append(str(file.path))
        for columns, paths in alike.items():
            if columns.translated:
                for text in statements(columns, paths, question):
                    rows = self._run(text)
                    self.cut = self.cut or len(rows) == nat_sql.MOST_ROWS
                    for row in rows:
                        yield from nat_rows(_values(row), question)

    def _look(self, paths: list[str]) -> None:
        """Know the columns with values of all files, and forget those of files that are gone."""
        new = [path for path in paths if path not in self._columns]
        if len(self._columns) > MOST_FILES + len(paths):
            self._columns = {path: self._columns[path] for path in paths if path in self._columns}
            self._latest = {path: self._latest[path] for path in paths if path in self._latest}
        if not new:
            return
        text = (
            "SELECT file_name, list(DISTINCT path_in_schema) "
            "FILTER (WHERE stats_null_count IS NULL OR stats_null_count < num_values), "
            f"max(try_cast(stats_max_value AS BIGINT)) FILTER (WHERE path_in_schema IN ({_STARTS})) "
            f"FROM parquet_metadata({nat_sql.listed(new)}) GROUP BY file_name"
        )
        known: dict[frozenset[str], Columns] = {columns.names: columns for columns in self._columns.values()}
        for path, names, latest in self._run(text):
            if latest is not None:
                self._latest[path] = latest
            used = frozenset(names or ()) & _USED
            self._columns[path] = known.setdefault(used, Columns(used))


def _span(answer: Answer) -> tuple[int, int]:
    """The hours from the beginning to the end of a session, as far as they are known."""
    begin = answer.end if answer.start is None else answer.start
    return (begin or 0) // _HOUR_MS, (_EVER if answer.end is None else answer.end) // _HOUR_MS


_STARTS = ", ".join(f"'{name}'" for name in ROLES["start"])
_USED = frozenset(itertools.chain.from_iterable(ROLES.values()))
_ROLES = [(role, role in ADDRESSES) for role in ROLES]


def _values(row: tuple[Any, ...]) -> dict[str, Any]:
    """A row by role; addresses as numbers."""
    return {
        role: value.int if address and value is not None else value
        for (role, address), value in zip(_ROLES, row, strict=True)
    }
