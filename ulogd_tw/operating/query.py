"""SQL queries over the tables of the running service: from the manhole, and from the API.

Each AGGREGATE is a table by its id, with the groups of its open intervals. Rows are copied a slice in a turn of the
reactor, and the query runs in a process of its own, so reception goes on whatever it does.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from typing import Any

from twisted.internet import defer, reactor

from ulogd_tw.errors import NoTable, QueryError
from ulogd_tw.operating import query_child, query_process, sql

MOST_OCTETS = 1 << 16
"""Maximum characters of a query."""
FEW_ROWS = 2_000
FEW_OCTETS = 1 << 20
"""Maximum rows of a result for a prompt, and octets."""
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
LEAST_MEMORY = 64 << 20
"""Octets that a query needs in any case."""


class Database:
    """The tables of a service; `ulogd` has the graph, which may be replaced, and the settings."""

    def __init__(self, ulogd: Any, clock: Any = reactor) -> None:
        self._ulogd = ulogd
        self._clock = clock
        self._children: query_process.Children | None = None

    @property
    def tables(self) -> dict[str, Any]:
        """The plugins with a table, by id."""
        found = self._ulogd.graph.instances
        return {ident: plugin for ident, plugin in found.items() if hasattr(plugin, "peek")}

    def answer(
        self, text: str, most_rows: int = sql.MOST_ROWS, most_octets: int = query_child.MOST_OCTETS
    ) -> defer.Deferred[bytes]:
        """The answer to a query: a JSON object with columns, rows, and whether there are more. Fails with `QueryError`.

        It is ready to be written. A cancelled query is ended.
        """
        try:
            self._chosen(text)
        except QueryError as error:
            return defer.fail(error)
        return self._processes().ask(lambda: self._prepared(text, most_rows, most_octets))

    def query(self, text: str, most_rows: int = FEW_ROWS) -> defer.Deferred[sql.Result]:
        """The result of a query for a prompt, where it is short. Fails with `QueryError`."""
        return self.answer(text, most_rows, FEW_OCTETS).addCallback(_result)

    def stop(self) -> defer.Deferred[Any]:
        """End the processes of the queries; fires when they have ended."""
        return defer.succeed(None) if self._children is None else self._children.stop()

    def _processes(self) -> query_process.Children:
        if self._children is None:
            memory, seconds = self._bounds()
            self._children = query_process.Children(self._clock, memory, seconds)
            self._clock.addSystemEventTrigger("before", "shutdown", self.stop)
        return self._children

    def _bounds(self) -> tuple[int, float]:
        """Octets of memory and seconds of a query."""
        settings = getattr(self._ulogd, "settings", None)
        memory = getattr(settings, "query_memory", sql.MOST_MEMORY)
        return max(memory, LEAST_MEMORY), getattr(settings, "query_timeout", sql.MOST_SECONDS)

    def _prepared(self, text: str, most_rows: int, most_octets: int) -> tuple[query_child.Request, Iterator[bytes]]:
        """What a process needs for a query, and the rows in slices."""
        chosen = self._chosen(text)
        columns, keys = {}, {}
        for ident, plugin in chosen.items():
            columns[ident] = _columns(plugin.columns, text)
            keys[ident] = {key.name: key for key in plugin.keys() if key.name in columns[ident]}
        request = query_child.Request(text, columns, keys, most_rows, most_octets)
        return request, _slices(chosen, columns, self._bounds()[0] // 2)

    def _chosen(self, text: str) -> dict[str, Any]:
        """The tables that a query names. Raises `QueryError`."""
        if len(text) > MOST_OCTETS:
            raise QueryError(f"the query has more than {MOST_OCTETS} characters")
        if _NO_TEXT.search(text):
            raise QueryError("the query has a NUL or half a character, which no text has")
        named = sql.words(text)
        small = {name.lower() for name in named}
        chosen = {ident: plugin for ident, plugin in self.tables.items() if ident.lower() in small}
        if not chosen:
            raise NoTable(self._no_table(named))
        return chosen

    def _no_table(self, named: frozenset[str]) -> str:
        have = sorted(self.tables)
        if not have:
            return "there is no table: no stack has an AGGREGATE"
        near = [name for word in sorted(named) for name in difflib.get_close_matches(word, have, 1)]
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"the query names no table; there are {', '.join(have)}{meant}"


def _result(answer: bytes) -> sql.Result:
    found = json.loads(answer)
    return sql.Result(tuple(found["columns"]), [tuple(row) for row in found["rows"]], found["more"])


def _columns(have: list[str], text: str) -> tuple[str, ...]:
    """The columns of a table that a query needs; one at least, for the number of rows."""
    if sql.wants_all(text):
        return tuple(have)
    small = {name.lower() for name in sql.words(text)}
    return tuple(name for name in have if name.lower() in small) or tuple(have[-1:])


def _slices(tables: dict[str, Any], columns: dict[str, tuple[str, ...]], most: int) -> Iterator[bytes]:
    """The rows as they go to the process: a slice at each step."""
    octets = 0
    for ident, plugin in tables.items():
        for batch in plugin.peek(frozenset(columns[ident])):
            octets += batch.nbytes
            if octets > most:
                text = f"the named columns have more than half of query_memory={2 * most >> 20}M; name fewer of them"
                raise QueryError(text)
            yield query_child.packed(ident, batch)
