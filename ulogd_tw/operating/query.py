"""SQL queries over the tables of the running service: from the manhole, and from the API.

Each AGGREGATE is a table by its id, with the groups of its open intervals. Rows are copied a slice in a turn of the
reactor, and the query runs in a thread, so reception goes on.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from twisted.internet import defer, task, threads

from ulogd_tw.errors import NoTable
from ulogd_tw.operating import sql


class Database:
    """The tables of a service; `ulogd` has the graph, which may be replaced."""

    def __init__(self, ulogd: Any) -> None:
        self._ulogd = ulogd
        self._running: defer.DeferredLock = defer.DeferredLock()

    @property
    def tables(self) -> dict[str, Any]:
        """The plugins with a table, by id."""
        found = self._ulogd.graph.instances
        return {ident: plugin for ident, plugin in found.items() if hasattr(plugin, "peek")}

    def query(self, text: str) -> defer.Deferred[sql.Result]:
        """The result of a query; one runs at a time. Fails with `QueryError`."""
        return self._running.run(self._query, text)

    @defer.inlineCallbacks
    def _query(self, text: str) -> Any:
        named = sql.words(text)
        chosen = {ident: plugin for ident, plugin in self.tables.items() if ident in named}
        if not chosen:
            raise NoTable(self._no_table(text, named))
        everything = sql.wants_all(text)
        found = {}
        for ident, plugin in chosen.items():
            columns = tuple(name for name in plugin.columns if everything or name in named)
            found[ident] = sql.Table(columns or tuple(plugin.columns[-1:]))
        yield task.cooperate(_copied(chosen, found)).whenDone()
        result = yield threads.deferToThread(sql.run, text, found)
        return result

    def _no_table(self, text: str, named: frozenset[str]) -> str:
        have = sorted(self.tables)
        if not have:
            return "there is no table: no stack has an AGGREGATE"
        near = [name for word in sorted(named) for name in difflib.get_close_matches(word, have, 1)]
        meant = f"; did you mean {near[0]}?" if near else ""
        return f"the query names no table; there are {', '.join(have)}{meant}"


def _copied(tables: dict[str, Any], found: dict[str, sql.Table]) -> Iterator[None]:
    """Copy the columns named in a query into `found`, a slice at each step."""
    for ident, plugin in tables.items():
        for batch in plugin.peek(frozenset(found[ident].columns)):
            found[ident].batches.append(batch)
            yield
