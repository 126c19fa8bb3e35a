"""SQL queries over the tables of the running service: from the manhole, and over a socket for ``ulogd-tw query``.

Each AGGREGATE is a table by its id, with the groups of its open intervals. Rows are copied a slice in a turn of the
reactor, and the query runs in a thread, so reception goes on.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator
from typing import Any

from twisted.application import service
from twisted.internet import defer, error, protocol, reactor, task, threads
from twisted.logger import Logger
from twisted.protocols.basic import LineOnlyReceiver

from ulogd_tw.errors import QueryError
from ulogd_tw.operating import sql
from ulogd_tw.operating.logins import Logins

MOST_OCTETS = 1 << 16
"""Maximum octets of a request."""
MOST_CONNECTIONS = 8
"""Maximum number of connections with a request, and of silent ones."""
SILENT_SECONDS = 30
"""For so long a connection may ask nothing."""


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
            raise QueryError(self._no_table(text, named))
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


class QueryService(service.Service):
    """Listens on the socket `path`, for its owner only.

    A request is a line with a JSON object, and so is the answer.
    """

    log = Logger()

    def __init__(self, database: Database, path: str) -> None:
        self.database = database
        self.path = path
        self._port: Any = None
        self.connections: set[_Asked] = set()
        self.silent = Logins(
            reactor, MOST_CONNECTIONS, MOST_CONNECTIONS, SILENT_SECONDS,
            lambda _: True, lambda connection: connection.transport.abortConnection(),
        )  # fmt: skip
        """Connections without a request so far."""

    def startService(self) -> None:
        super().startService()
        factory = protocol.Factory.forProtocol(_Asked)
        factory.service, factory.noisy = self, False
        try:
            self._port = reactor.listenUNIX(self.path, factory, mode=0o600, wantPID=True)
        except (error.CannotListenError, OSError) as failure:
            self.log.error("query_socket: {failure}; choose another path", failure=failure)
            return
        self.log.info("query_socket: ulogd-tw query -s {path} 'select ...'", path=os.path.abspath(self.path))

    @defer.inlineCallbacks
    def stopService(self) -> Any:
        super().stopService()
        port, self._port = self._port, None
        for connection in list(self.connections):
            connection.transport.abortConnection()
        if port is not None:
            yield port.stopListening()


class _Asked(LineOnlyReceiver):
    """One connection with its request."""

    delimiter = b"\n"
    MAX_LENGTH = MOST_OCTETS

    def connectionMade(self) -> None:
        self._service = self.factory.service
        self._service.connections.add(self)
        self._service.silent.add(self, "")
        if len(self._service.connections) - len(self._service.silent) >= MOST_CONNECTIONS:
            self._answer({"error": f"{MOST_CONNECTIONS} others ask already"})
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = protocol.connectionDone) -> None:
        self._service.connections.discard(self)
        self._service.silent.settled(self)

    def lineReceived(self, line: bytes) -> None:
        self._service.silent.settled(self)
        try:
            request = json.loads(line)
            text = str(request["sql"]) if isinstance(request, dict) else ""
        except (ValueError, KeyError):
            self._answer({"error": 'a request is a line such as {"sql": "select * from agg1 limit 5"}'})
            return
        if request.get("tables"):
            tables = self._service.database.tables.items()
            together = {ident: plugin.together for ident, plugin in tables}
            self._answer({"tables": {ident: plugin.columns for ident, plugin in tables}, "together": together})
            return
        asked = self._service.database.query(text)
        asked.addCallbacks(self._found, self._failed)

    def _found(self, result: sql.Result) -> None:
        self._answer({"columns": result.columns, "rows": result.rows, "more": result.more})

    def _failed(self, failure: Any) -> None:
        if not failure.check(QueryError):
            self._service.log.failure("a query failed", failure)
        self._answer({"error": failure.getErrorMessage()})

    def _answer(self, answer: dict[str, Any]) -> None:
        if self.connected:
            self.transport.write(json.dumps(answer, default=str).encode() + b"\n")
