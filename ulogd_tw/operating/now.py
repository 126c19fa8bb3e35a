"""What passes now: rates of instances and the largest groups of open intervals, worked out once for all who look."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, reactor
from twisted.logger import Logger

from ulogd_tw.core.limited import RateLimit
from ulogd_tw.errors import QueryError
from ulogd_tw.operating.query import Database

SECONDS = 1.0
SHARE = 0.1
"""Largest part of the time that looks at tables take: those of many groups are rarer."""
LARGEST = 10
"""Groups that are shown of each table."""
_RANKED = ("octets", "packets", "flows")
_COUNTED = ("rows_received", "rows_emitted", "rows_written", "rows_waiting", "octets_received")


class Now:
    """Looks once a second while somebody listens. Each listener gets the same text, a JSON object."""

    log = Logger()

    def __init__(self, ulogd: Any, database: Database, clock: Any = reactor) -> None:
        self._ulogd, self._database, self._clock = ulogd, database, clock
        self._listeners: set[Callable[[bytes], None]] = set()
        self._timer: Any = None
        self._looking: defer.Deferred[None] | None = None
        self._before: tuple[float, dict[str, dict[str, int]]] | None = None
        self._tables: list[dict[str, Any]] = []
        self._tables_due = 0.0
        self._limit = RateLimit()

    def listen(self, listener: Callable[[bytes], None]) -> None:
        """Call `listener` with each look from now on."""
        self._listeners.add(listener)
        if self._timer is None and self._looking is None:
            self._look()

    def leave(self, listener: Callable[[bytes], None]) -> None:
        """No more looks for this one; without listeners there are none."""
        self._listeners.discard(listener)
        if self._listeners:
            return
        self._before = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._looking is not None:
            self._looking.cancel()

    def _look(self) -> None:
        self._timer = None
        looking = self._looking = defer.Deferred.fromCoroutine(self._looked())
        looking.addErrback(self._failed).addCallback(self._again)

    def _failed(self, failure: Any) -> None:
        """A look that met a fault is left out; the next one comes."""
        if failure.check(defer.CancelledError) is None and self._limit.take("look", self._clock.seconds()):
            self.log.failure("a look at what passes now", failure)

    def _again(self, _: Any) -> None:
        self._looking = None
        if self._listeners and self._timer is None:
            self._timer = self._clock.callLater(SECONDS, self._look)

    async def _looked(self) -> None:
        if self._clock.seconds() >= self._tables_due:
            begun = self._clock.seconds()
            self._tables = [await self._table(ident, table) for ident, table in self._database.tables.items()]
            took = self._clock.seconds() - begun
            self._tables_due = self._clock.seconds() + took / SHARE - SECONDS / 2
        text = json.dumps({"time": time.time(), "rates": self._rates(), "tables": self._tables}).encode()
        for listener in list(self._listeners):
            listener(text)

    def _rates(self) -> dict[str, dict[str, float]]:
        """Rows and octets a second of each instance since the last look; nothing at the first one."""
        now = self._clock.seconds()
        counted = {
            node.ident: {name: getattr(node.plugin.counters, name, 0) for name in _COUNTED}
            for node in self._ulogd.graph.nodes
        }
        before, self._before = self._before, (now, counted)
        if before is None or now <= before[0]:
            return {}
        seconds = now - before[0]
        return {
            ident: {name: max(0, value - before[1][ident][name]) / seconds for name, value in counters.items()}
            for ident, counters in counted.items()
            if ident in before[1]
        }

    async def _table(self, ident: str, table: Any) -> dict[str, Any]:
        """The largest groups of the open intervals of an AGGREGATE, and their sums."""
        have = table.columns
        ranked = [name for name in _RANKED if name in have]
        keys = [name for name in have if name not in (*_RANKED, "reply_octets", "reply_packets", "first_ms", "last_ms")]
        shown = ", ".join(f'"{name}"' for name in [*(key for key in keys if key != "interval_start"), *ranked])
        order = f'"{ranked[0]}" DESC' if ranked else "1"
        sums = ", ".join([*(f'sum("{name}")' for name in ranked), "count(*)", _since(have)])
        try:
            largest = await self._ask(f'SELECT {shown} FROM "{ident}" ORDER BY {order} LIMIT {LARGEST}')
            totals = await self._ask(f'SELECT {sums} FROM "{ident}"')
        except QueryError as error:
            return {"id": ident, "error": str(error)}
        (values,) = totals["rows"]
        return {
            "id": ident, "columns": largest["columns"], "rows": largest["rows"], "groups": values[-2],
            "sums": dict(zip(ranked, values, strict=False)), "since": values[-1],
        }  # fmt: skip

    async def _ask(self, text: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self._database.answer(text))
        return found


def _since(have: Any) -> str:
    return 'min("interval_start")' if "interval_start" in have else "NULL"
