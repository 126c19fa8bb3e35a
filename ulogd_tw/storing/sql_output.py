"""The common part of SQLITE3 and MYSQL: keys for columns, and batches repeated until they are written.

`SQLOutput` runs in the reactor. Blocking work is done in `table_writer` and `database`, in the one thread of an adbapi
pool.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from twisted.enterprise import adbapi
from twisted.internet import defer, reactor, threads
from twisted.logger import Logger
from twisted.python.failure import Failure

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.batch_journal import BatchJournal, UnderWay, under_way
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.errors import NotWritten, StartError
from ulogd_tw.core.keys import Key, known, nearest, registry
from ulogd_tw.core.ledger import Former, weight
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.options import Option, boolean, seconds, text, words
from ulogd_tw.core.patience import LONG
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, RAW, SUM, Output, Wanted
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.resolve import Found, Provided
from ulogd_tw.core.states import State, down
from ulogd_tw.storing.columns import TableColumn, Target, all_targets, chosen_targets, clash, column_name
from ulogd_tw.storing.counts import STORING
from ulogd_tw.storing.database import Database, Fault, Refused
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.table_writer import TableWriter

FIRST_PAUSE_S = 0.1
"""Seconds before a failed batch is tried again; doubled each time, up to `reconnect`."""
GRACE_S = 2.0
"""At a stop, seconds for a running write before its connection is cut."""
DOUBTS = 3
"""Attempts in a row with an error that rows may be to blame for; then the batch is sifted."""
MOST_LOOKED_UP = 65536
CONNECT_S = 3.0
"""At the start, seconds for the database to answer, unless `connect_timeout` is set."""

COMMON = (
    Option("table", text, None, "Name of the table or view, with its schema if needed, such as flows or "
           "archive.flows.", mandatory=True),
    Option("create", boolean, False, "1: make a missing table, with a column for each key. Dots in a key's name become "
           "underscores (ip.saddr: ip_saddr)."),
    Option("keys", words, (), "Keys to write, in this order, such as sourceAddress octetDeltaCount. Empty: the keys "
           "with a column in the table; with create=1, all keys that reach the output."),
    Option("reconnect", seconds, 2.0, "Seconds between two attempts to reach the database (the first attempts come "
           "sooner); rows wait meanwhile. 0: no further attempt, and the rows are dropped."),
)  # fmt: skip


class SQLOutput(Output):
    """Writes rows into one table of a database, one transaction a batch, with retries."""

    counts = STORING
    itype = RAW | PACKET | FLOW | SUM
    reactor: Any = reactor
    log = Logger()
    connect_s = CONNECT_S
    """At the start, seconds for the database to answer."""
    skips_first = False
    """Whether a first column without key fills itself, as ulogd2 assumes."""

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.database = self.database_of()
        self.limited = RateLimitedLog(time.monotonic)
        self.existing: list[TableColumn] | None = None
        """The columns of the table seen by `prepare`: empty without a table, None if unknown."""
        self.offered: dict[str, Key] = {}
        """The keys that can reach this output, if it asked for all."""
        self.writer = TableWriter(self.database, self._written, self._keys_to_make, self.find)
        self.pool: adbapi.ConnectionPool | None = None
        self._looked_up: Bounded[tuple[Schema, str], None] = Bounded(MOST_LOOKED_UP)
        self._number = 0
        self._journal: BatchJournal | None = None
        self._under_way: UnderWay | None = None
        self._stopping = False
        self._was_cut = False
        self._unnumbered = False
        self._away = False
        """Whether the database could not be reached while the stacks were built."""
        self._trouble = ""
        """What the database said when it took no rows; empty once it takes some."""
        self._sifted = False
        """Whether the last batch had to be sifted: then the next one that fails is sifted at once."""
        self._busy: defer.Deferred[Any] | None = None
        self._pause: defer.Deferred[None] | None = None

    # what each database does its own way

    def database_of(self) -> Database:
        """The database named in the options; opens nothing."""
        raise NotImplementedError

    def look(self) -> list[TableColumn] | None:
        """The columns of the table, read through a connection of its own; bounded. Raises the driver's exceptions."""
        raise NotImplementedError

    # keys

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if wrong := self._wrong_names(self.config.keys):
            yield "keys", wrong

    def _wrong_names(self, keys: Iterable[str]) -> str | None:
        if wrong := clash(keys):
            return wrong
        longest = self.database.longest_name
        for key in keys if longest else ():
            if len(column_name(key)) > longest:
                return f"{key} is longer than the {longest} characters of a column's name; leave it out of keys="
        return None

    def prepare(self) -> None:
        """Read the columns of the table. An unreachable database is no mistake."""
        if self.existing is not None:
            return
        try:
            existing = self.look()
        except Exception as error:
            fault = self._fault_at_start(error)
            self._warn(error, fault)
            self._away = True
            return
        if existing:
            self._choose(existing)
        elif not self.config.create:
            raise StartError(f"there is no table {self.config.table}", "make it, or set create=1")
        self.existing = existing

    def patience(self) -> float | None:
        return LONG

    def requests(self, wanted: Wanted) -> Any:
        if self.config.keys:
            return {"record_kind": False} | dict.fromkeys(self.config.keys, True)
        if not self.existing:
            return ALL
        targets = self._choose(self.existing)
        return {"record_kind": False} | {
            name: len(target.keys) == 1 and not target.optional for target in targets for name in target.keys
        }

    def available(self, keys: tuple[Key, ...] | None) -> Iterable[str]:
        if not self.config.create:
            return
        if keys is None:
            yield (
                "create=1 needs keys= below an input with open-ended keys, such as "
                'keys="sourceAddress,destinationAddress,octetDeltaCount"'
            )
            return
        raw = {key.name for key in registry.ulogd.values() if key.type is types.OCTETS}  # raw.pkt: only by name
        offered = self.offered | {key.name: key for key in keys if key.name not in raw}
        if wrong := self._wrong_names(offered):
            yield f"create=1: {wrong}; choose with keys="
        else:
            self.offered = offered

    def _choose(self, columns: list[TableColumn]) -> list[Target]:
        """Choose the columns to write, and their keys. Raises `StartError`."""
        try:
            return self._targets(columns)
        except TableError as error:
            raise StartError(str(error), error.remedy) from None

    def _targets(self, columns: list[TableColumn]) -> list[Target]:
        """The columns asked for by the table and the options. Raises `TableError`."""
        table = self.config.table
        if self.config.keys:
            return chosen_targets(table, columns, self.config.keys)
        return all_targets(table, columns, self.offered, self.skips_first)

    def _written(self, columns: list[TableColumn]) -> list[Target]:
        """The columns to write, once the keys are known. Raises `TableError`."""
        return [target for target in self._targets(columns) if not target.optional or self._given(target)]

    def _given(self, target: Target) -> bool:
        """Whether some plugin above gives a key of this column."""
        return any(self.sources.recipes.get(key) for key in target.keys)

    def _keys_to_make(self, batch: Batch | None) -> list[Key] | None:
        """The keys for a new table; None if only a batch will show the type of a key."""
        if not self.config.create:
            raise TableError(f"there is no table {self.config.table}", "make it, or set create=1")
        names: Iterable[str] = self.config.keys
        if not names:
            if self.offered:
                return list(self.offered.values())
            # the table was there at the start and is gone: it gets the columns again that were written
            names = [target.keys[0] for target in self._choose(self.existing or []) if self._given(target)]
        found = []
        for name in names:
            key = known(name.partition("@")[0])
            if key is None:
                if batch is None:
                    return None
                held = self.find(batch, name)
                key = held.key if held is not None else Key(name, types.STRING)
            found.append(key.named(name))
        return found

    def _asked_for_all(self) -> bool:
        return not self.config.keys and not self.existing

    def find(self, batch: Batch, name: str) -> Found | None:
        """As `Plugin.find`; if all keys were asked for, in the form of the batch."""
        if self._asked_for_all() and (batch.schema, name) not in self._looked_up:
            self._looked_up[batch.schema, name] = None
            self.sources.add(name, Provided(batch.schema.values()).recipes(name))
        return super().find(batch, name)

    # start and stop

    def open(self) -> defer.Deferred[None]:
        """Connect, and create the table if wanted. Waits a few seconds at most, if the database was there just now."""
        self._check_columns()
        self._make_pool()
        opened: defer.Deferred[None] = defer.Deferred()
        timer = self.reactor.callLater(0 if self._away else self.connect_s + 1, self._too_slow, opened)

        def settled(result: Any) -> None:
            if self._busy is attempt:
                self._busy = None
            if timer.active():  # else what is wrong will show again with the first batch
                timer.cancel()
                self._first_attempt(result, opened)

        attempt = self._busy = self._in_thread(self.writer.write, self.pool, None, 0, False)
        attempt.addBoth(settled)
        return opened

    def _first_attempt(self, result: Any, opened: defer.Deferred[None]) -> None:
        if isinstance(result, Failure):
            try:
                self._warn(result.value, self._fault_at_start(result.value))
            except Exception as error:
                self._close_pool()
                opened.errback(error)
                return
        else:
            self._trouble = ""
        opened.callback(None)

    def _too_slow(self, opened: defer.Deferred[None]) -> None:
        self._trouble = f"{self.where} does not answer"
        self.limited.say(
            self.log.warn, "away", "{instance}: {db} does not answer; rows wait", instance=self.instance, db=self.where
        )
        opened.callback(None)

    @property
    def where(self) -> str:
        """The database, for log lines."""
        return self.config.db

    def _check_columns(self) -> None:
        """A column unknown to the registry must be a key of a plugin above, else it is a mistake."""
        if self.config.keys or not self.existing:
            return
        for target in self._choose(self.existing):
            if not target.optional and not self._given(target):
                near = nearest(target.keys[0], {column_name(n) for n in registry.names()})
                raise StartError(
                    f"column {target.column} of table {self.config.table} is not a key that reaches this output",
                    f"did you mean {near}?" if near else "choose the keys to write with keys=",
                )

    def _make_pool(self) -> None:
        self.pool = adbapi.ConnectionPool(
            self.database.driver, cp_reactor=self.reactor, cp_min=1, cp_max=1, cp_noisy=False,
            cp_openfun=self.writer.opened, **self.database.keywords(),
        )  # fmt: skip

    def _in_thread(self, call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        return threads.deferToThreadPool(self.reactor, self.pool.threadpool, call, *arguments)

    def reopen(self) -> None:
        """SIGHUP: a new connection for the next batch."""
        self.writer.renew = True

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Give up unwritten rows, and close. A running write has a moment to finish."""
        self._stopping = True
        if self._pause is not None:
            self._pause.cancel()
        if self._busy is not None:
            cut = self.reactor.callLater(GRACE_S, self._cut)
            yield self._settled(self._busy)
            if cut.active():
                cut.cancel()
        if self.pool is not None:
            yield self._settled(self._in_thread(self.writer.disconnect, self.pool))
            self._close_pool()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _cut(self) -> None:
        self._was_cut = True
        self.database.interrupt()

    @staticmethod
    def _settled(waiting: defer.Deferred[Any]) -> defer.Deferred[None]:
        """Fires when the Deferred does, and leaves its result to others."""
        settled: defer.Deferred[None] = defer.Deferred()

        def fire(result: Any) -> Any:
            settled.callback(None)
            return result

        waiting.addBoth(fire)
        return settled

    def _close_pool(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.close()

    # what outlives it

    def keep_state(self, directory: Path, every: float) -> None:
        """The number of the batch under way: after a kill only the database knows whether it has its rows."""
        path = str(directory / "batch")
        try:
            self._under_way = under_way(path)
        except (OSError, ValueError) as error:
            self.counters.errors["state"] += 1
            self.log.error("{instance}: {path} is not used: {error}; rows of one batch may be counted as lost",
                           instance=self.instance, path=path, error=error)  # fmt: skip
        self._journal = BatchJournal(path, self.database.run)

    def count_unsaved(self, former: Former, ident: str) -> None:
        """Count them when the database has told whether it has the last batch; if it does not answer, at once."""
        batch = self._under_way
        if batch is None or self.pool is None:
            super().count_unsaved(former, ident)
            return

        def count(known: Any) -> None:
            committed = [batch.written] if known is True else []
            if lost := former.unsaved(ident, committed=committed):
                self.counters.lost["unsaved"] += lost

        self._in_thread(self.writer.committed, self.pool, batch.run, batch.number).addBoth(count)

    # rows

    def write(self, batch: Batch) -> defer.Deferred[None]:
        """Write all rows; fires when they are committed. Errbacks with `NotWritten` if `stop` comes first."""
        self._number += 1
        if self._journal is not None and self.ledger is not None:
            self._journal.begin(self._number, self.ledger.finished, weight(batch), batch.n)
        return defer.Deferred.fromCoroutine(self._write(batch, self._number))

    async def _write(self, batch: Batch, number: int) -> None:
        refused, failures, doubts, began = None, 0, 0, self.reactor.seconds()
        while refused is None and not self._stopping:
            try:
                sift = doubts >= (1 if self._sifted else DOUBTS)
                refused = await self._attempt(batch, number, failures > 0, sift)
                self._sifted, self._trouble = sift, ""
            except Exception as error:
                fault = self._fault(error)
                if fault is None:
                    raise
                failures += 1
                doubts = doubts + 1 if fault.of_rows else 0
                self._failed(error, fault, failures)
                await self._wait(failures)
        if refused is None:
            refused = await self._last_look(batch, number)
        elif failures > 1:
            self.log.info(
                "{instance}: {db} accepts rows again, after {seconds:.1f} s", instance=self.instance, db=self.where,
                seconds=self.reactor.seconds() - began,
            )  # fmt: skip
        self._count(refused)

    async def _attempt(self, batch: Batch, number: int, again: bool, sift: bool) -> Refused:
        if sift:
            self._busy = self._in_thread(self.writer.sift, self.pool, batch, number)
        else:
            self._busy = self._in_thread(self.writer.write, self.pool, batch, number, again)
        try:
            return await self._busy
        finally:
            self._busy = None

    def _failed(self, error: Exception, fault: Fault, failures: int) -> None:
        self.counters.errors[fault.reason] += 1
        if not self.config.reconnect:
            raise NotWritten(f"{self.where}: {self.database.text(error)}") from error
        if failures > 1 or not fault.transient:  # a closed idle connection is nothing to tell
            self._warn(error, fault)

    async def _wait(self, failures: int) -> None:
        """Wait before the next attempt; `stop` ends it. The first retry is immediate: often an idle connection died."""
        if failures < 2 or self._stopping:
            return
        self._pause = defer.Deferred()
        pause = min(FIRST_PAUSE_S * 2 ** min(failures - 2, 20), self.config.reconnect)
        timer = self.reactor.callLater(pause, self._pause.callback, None)
        try:
            await self._pause
        except defer.CancelledError:
            timer.cancel()
        finally:
            self._pause = None

    async def _last_look(self, batch: Batch, number: int) -> Refused:
        """At a stop: the refused rows of the batch if it was committed after all. Raises `NotWritten`."""
        refused = None
        if self._was_cut:  # else the last attempt failed before the stop, and nothing else was under way
            try:
                refused = await self._in_thread(self.writer.stored, self.pool, number)
            except Exception as error:
                self.log.debug("{instance}: {error}", instance=self.instance, error=error)
        if refused is None:
            raise NotWritten(f"{self.where}: stopped before {plural(batch.n, 'row')} could be written")
        return refused

    def _count(self, refused: Refused) -> None:
        if not self.database.numbered:
            self._warn_unnumbered()
        self.counters.rows_filtered += refused.nothing
        if not refused.rows:
            return
        self.counters.dropped["refused"] += refused.rows
        reasons = "; ".join(f"{reason} ({plural(n, 'row')})" for reason, n in (refused.reasons or {}).items())
        self.limited.say(
            self.log.warn,
            "refused",
            "{instance}: {rows} table {table}, dropped: {reasons}",
            instance=self.instance,
            rows=plural(refused.rows, "row does not fit", "rows do not fit"),
            table=self.config.table,
            reasons=reasons,
        )

    def _warn_unnumbered(self) -> None:
        if not self._unnumbered:
            self._unnumbered = True
            self.log.warn(
                "{instance}: the table {batches} cannot be made or written: a batch whose commit got no answer may be "
                "written twice; grant CREATE, SELECT, INSERT, UPDATE and DELETE for it",
                instance=self.instance, batches=self.database.batches,
            )  # fmt: skip

    def _fault(self, error: Exception) -> Fault | None:
        if isinstance(error, TableError):
            return Fault("table", error.remedy)
        return self.database.fault(error)

    def _fault_at_start(self, error: Exception) -> Fault:
        """The `Fault` of a transient error; raises `StartError`, or the error, for others."""
        fault = self._fault(error)
        if fault is None:
            raise error
        if not fault.transient:
            raise StartError(f"{self.where}: {self.database.text(error)}", fault.remedy)
        return fault

    def state(self) -> State:
        return down(self._trouble)

    def _warn(self, error: Exception, fault: Fault) -> None:
        self._trouble = f"{self.where}: {self.database.text(error)}"
        remedy = f"; {fault.remedy}" if fault.remedy else ""
        self.limited.say(
            self.log.warn, fault.reason, "{instance}: {db}: {error}{remedy}; rows wait", instance=self.instance,
            db=self.where, error=self.database.text(error), remedy=remedy,
        )  # fmt: skip
