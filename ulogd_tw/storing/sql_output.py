"""The common part of SQLITE3 and MYSQL: keys for columns, and batches repeated until they are written.

`SQLOutput` runs in the reactor. Blocking work is done in `table_writer` and `database`, in the one thread of an adbapi
pool.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from twisted.enterprise import adbapi
from twisted.internet import defer, threads
from twisted.python.failure import Failure

from ulogd_tw.core import types
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.bounded import Bounded
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.gather import JOIN_OCTETS, JOIN_ROWS, Gather
from ulogd_tw.core.keys import Key, known, nearest, registry
from ulogd_tw.core.options import Option, boolean, text, words
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, RAW, SUM, Wanted
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.resolve import Found, Provided
from ulogd_tw.storing.columns import (
    TableColumn,
    Target,
    all_targets,
    chosen_targets,
    clash,
    column_name,
    without_column,
)
from ulogd_tw.storing.counts import STORING
from ulogd_tw.storing.database import Database
from ulogd_tw.storing.errors import TableError
from ulogd_tw.storing.gathering import GatheringOutput, gathering_options
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.retention import UPKEEP_S
from ulogd_tw.storing.table_writer import TableWriter

MOST_LOOKED_UP = 65536
CONNECT_S = 3.0
"""At the start, seconds for the database to answer, unless `connect_timeout` is set."""

TABLE = (
    Option("table", text, None, "Name of the table or view, with its schema if needed, such as flows or "
           "archive.flows.", mandatory=True),
    Option("create", boolean, False, "1: make a missing table, with a column for each key. Dots in a key's name become "
           "underscores (ip.saddr: ip_saddr). A column that a key lacks is added; see alter."),
    Option("alter", boolean, True, "With create=1, a table that is there gets a column for each key without one: for "
           "keys, or for all keys that reach the output (not below an input with open-ended keys). Its older rows have "
           "NULL there. 0: only the columns that it has are written. No column is ever changed or dropped."),
    Option("keys", words, (), "Keys to write, in this order, such as sourceAddress octetDeltaCount. Empty: the keys "
           "with a column in the table; with create=1, all keys that reach the output."),
)  # fmt: skip
"""The options of a table."""
COMMON = (*TABLE, *gathering_options(0.0))


class SQLOutput(GatheringOutput):
    """Writes rows into one table of a database, one transaction a batch, with retries."""

    knows_past = True

    counts = STORING
    itype = RAW | PACKET | FLOW | SUM
    gather = Gather(JOIN_ROWS, JOIN_OCTETS)
    connect_s = CONNECT_S
    """At the start, seconds for the database to answer."""
    skips_first = False
    """Whether a first column without key fills itself, as ulogd2 assumes."""

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.database = self.database_of()
        self.existing: list[TableColumn] | None = None
        """The columns of the table seen by `prepare`: empty without a table, None if unknown."""
        self.offered: dict[str, Key] = {}
        """The keys that can reach this output, if it asked for all."""
        self._asked_for_more = False
        """Whether it asked for all although there is a table: for columns to add."""
        self.writer = TableWriter(self.database, self._written, self._keys_to_make, self.find, self._keys_to_add)
        self.writer.must_add = bool(self.config.keys)
        self.pool: adbapi.ConnectionPool | None = None
        self._looked_up: Bounded[tuple[Schema, str], None] = Bounded(MOST_LOOKED_UP)
        self._unnumbered = False
        self._away = False
        """Whether the database could not be reached while the stacks were built."""

    # what each database does its own way

    def database_of(self) -> Database:
        """The database named in the options; opens nothing."""
        raise NotImplementedError

    def look(self) -> list[TableColumn] | None:
        """The columns of the table, read through a connection of its own; bounded. Raises the driver's exceptions."""
        raise NotImplementedError

    # keys

    def mistakes(self) -> Iterator[tuple[str, str]]:
        yield from super().mistakes()
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
            self.warn(error, fault)
            self._away = True
            return
        if existing:
            if not self._may_add:
                self._choose(existing)
            self._check_types(existing, StartError)
        elif not self.config.create:
            raise StartError(f"there is no table {self.config.table}", "make it, or set create=1")
        self.existing = existing

    def requests(self, wanted: Wanted) -> Any:
        if self.config.keys:
            return {"record_kind": False} | dict.fromkeys(self.config.keys, True)
        if not self.existing:
            return ALL
        targets = self._choose(self.existing)
        return {"record_kind": False} | {
            name: len(target.keys) == 1 and not target.optional for target in targets for name in target.keys
        }

    @property
    def _may_add(self) -> bool:
        """Whether missing columns may be added."""
        return self.config.create and self.config.alter and self.database.alterable

    def requests_of(self, above: frozenset[str] | None) -> Any:
        if above is None or self.config.keys or not self.existing or not self._may_add:
            return self.requests(frozenset())
        self._asked_for_more = True
        return ALL

    def named_beside_all(self) -> dict[str, bool]:
        return self.requests(frozenset()) if self._asked_for_more else {}

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
        wrong = self._wrong_names(offered)
        if not wrong:
            self.offered = offered
        elif not self.existing:
            yield f"create=1: {wrong}; choose with keys="

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
        self._check_types(columns, TableError)
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

    def _keys_to_add(self, columns: list[TableColumn], batch: Batch | None) -> list[Key] | None:
        """The keys without a column, if they are to get one; None if only a batch will show the type of a key."""
        names = without_column(columns, self.config.keys or self.offered) if self._may_add else []
        keys = self._keys_to_make(batch) if names else []
        return keys and [key for key in keys if key.name in names]

    def _check_types(self, columns: list[TableColumn], error: type[StartError] | type[TableError]) -> None:
        """Raises `error` for a column that cannot hold its key, where the table is ours to make."""
        if not self.config.create:
            return
        named = [(name, known(name.partition("@")[0])) for name in self.config.keys]
        keys = [key.named(name) for name, key in named if key is not None] or list(self.offered.values())
        try:
            self.database.check_types(columns, keys)
        except TableError as wrong:
            raise error(str(wrong), wrong.remedy) from None

    def _asked_for_all(self) -> bool:
        return not self.config.keys and (not self.existing or self._asked_for_more)

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

        attempt = self._busy = self.in_thread(self.writer.write, self.pool, None, 0, False)
        attempt.addBoth(settled)
        return opened

    def _first_attempt(self, result: Any, opened: defer.Deferred[None]) -> None:
        if isinstance(result, Failure):
            try:
                self.warn(result.value, self._fault_at_start(result.value))
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

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        """Call in the one thread of the pool, where the connection is used."""
        return threads.deferToThreadPool(self.reactor, self.pool.threadpool, call, *arguments)

    def wake(self, now: float) -> float | None:
        """Remove rows that are old while nothing is written; a batch does so by itself."""
        if not getattr(self.config, "retain", 0):
            return super().wake(now)
        if self.pool is not None and self._busy is None:
            self.in_thread(self.writer.upkeep, self.pool).addCallbacks(self._count_expired, self._not_in_order)
        return UPKEEP_S

    def _not_in_order(self, failure: Failure) -> None:
        if not isinstance(failure.value, Exception):
            return
        fault = self.meaning(failure.value)
        if fault is None:
            self.fault(failure.value)
        elif not fault.transient:
            self.counters.errors[fault.reason] += 1
            self.limited.say(
                self.log.warn, f"upkeep {fault.reason}", "{instance}: {db}: old rows stay: {error}",
                instance=self.instance, db=self.where, error=self.text_of(failure.value),
            )  # fmt: skip

    def reopen(self) -> None:
        """SIGHUP: a new connection for the next batch."""
        self.writer.renew = True

    @defer.inlineCallbacks
    def close(self) -> Any:
        """Close the connection and the pool."""
        if self.pool is not None:
            yield self.settled(self.in_thread(self.writer.disconnect, self.pool))
            self._close_pool()

    def _close_pool(self) -> None:
        pool, self.pool = self.pool, None
        if pool is not None:
            pool.close()

    # writes, in the thread

    @property
    def run(self) -> str:
        return self.database.run

    @property
    def can_tell(self) -> bool:
        return self.pool is not None

    def store(self, batches: Sequence[Batch], number: int, again: bool) -> Refused:
        """Write the batch in one transaction."""
        (batch,) = batches
        return self.writer.write(self.pool, batch, number, again)

    def sift(self, batches: Sequence[Batch], number: int) -> Refused:
        (batch,) = batches
        return self.writer.sift(self.pool, batch, number)

    def stored(self, number: int) -> Refused | None:
        return self.writer.stored(self.pool, number)

    def doubt(self, number: int) -> tuple[str, int] | None:
        in_doubt = self.database.numbered and self.database.in_doubt == number
        return (self.run, number) if in_doubt else None

    def committed(self, run: str, number: int) -> bool:
        return self.writer.committed(self.pool, run, number)

    def interrupt(self) -> None:
        self.database.interrupt()

    # what comes of them

    @property
    def fits_in(self) -> str:
        return f"table {self.config.table}"

    def count(self, batches: Sequence[Batch], refused: Refused) -> None:
        if not self.database.numbered:
            self._warn_unnumbered()
        if refused.maybe_twice:
            self.counters.figures["maybe_twice"] += refused.maybe_twice
            self.limited.say(
                self.log.warn, "maybe_twice", "{instance}: {rows} may be in {table} twice (counted as maybe_twice): "
                "the answer to their commit was lost", instance=self.instance, rows=plural(refused.maybe_twice, "row"),
                table=self.config.table,
            )  # fmt: skip
        self._count_expired()
        super().count(batches, refused)

    def _count_expired(self, _: Any = None) -> None:
        for name, n in (
            ("rows_expired", self.database.expired.rows),
            ("partitions_dropped", self.database.expired.partitions),
        ):
            if n:
                self.counters.figures[name] = n

    def _warn_unnumbered(self) -> None:
        if not self._unnumbered:
            self._unnumbered = True
            self.log.warn(
                "{instance}: the table {batches} cannot be made or written: a batch whose commit got no answer may be "
                "written twice; grant CREATE, SELECT, INSERT, UPDATE and DELETE for it",
                instance=self.instance, batches=self.database.batches,
            )  # fmt: skip

    def meaning(self, error: Exception) -> Fault | None:
        if isinstance(error, TableError):
            return Fault("table", error.remedy)
        return self.database.fault(error)

    def _fault_at_start(self, error: Exception) -> Fault:
        """The `Fault` of a transient error; raises `StartError`, or the error, for others."""
        fault = self.meaning(error)
        if fault is None:
            raise error
        if not fault.transient:
            raise StartError(f"{self.where}: {self.text_of(error)}", fault.remedy)
        return fault

    def text_of(self, error: Exception) -> str:
        return self.database.text(error)
