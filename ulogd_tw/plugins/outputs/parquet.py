"""PARQUET: keeps flows in a directory of Parquet files, which DuckDB and many others read as they are."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import defer
from twisted.python.failure import Failure

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Count, Gauge
from ulogd_tw.core.gather import Gather
from ulogd_tw.core.keys import Key, known, nearest
from ulogd_tw.core.libraries import install, is_there
from ulogd_tw.core.options import Option, octets, one_of, seconds, share, text, words
from ulogd_tw.core.paths import unwritable
from ulogd_tw.core.plugin import FLOW, PACKET, SUM, Wanted
from ulogd_tw.storing.counts import GATHERING
from ulogd_tw.storing.gathering import GatheringOutput, gathering_options
from ulogd_tw.storing.parquet import faults
from ulogd_tw.storing.parquet.covering import Covering
from ulogd_tw.storing.parquet.description import Description
from ulogd_tw.storing.parquet.flow_keys import default_keys, default_order
from ulogd_tw.storing.parquet.identity import KEPT, Identity
from ulogd_tw.storing.parquet.keeping import Keeping
from ulogd_tw.storing.parquet.replacing import writes
from ulogd_tw.storing.parquet.upkeep import Job, Upkeep
from ulogd_tw.storing.parquet.writer import MODE, Writer
from ulogd_tw.storing.refused import Fault, Refused
from ulogd_tw.storing.stored_columns import ARRIVAL, END, START, StoredColumn

FLUSH_S = 5.0
LOOK_S = 5.0
"""Seconds between two looks for what to delete and to merge."""
_LIBRARY = "duckdb"


class PARQUET(GatheringOutput):
    """Keeps rows in Parquet files, a directory an hour: DIRECTORY/date=YYYY-MM-DD/hour=HH/NAME.parquet, in UTC.

    A row belongs to the hour of its end, flowEndMilliseconds; without an end, or with one more than a day after its
    arrival, to the hour of its arrival, which is then in the column arrival. Columns are named as keys. Addresses are
    UUIDs (16 octets in network order, IPv4 as ::ffff:a.b.c.d), times and other numbers are numbers, missing values
    NULL. Small files are merged while rows come, and each hour that is over into large sorted files, by a process of
    low priority. It needs duckdb: pip install 'ulogd_tw[store]'.
    """

    name = "PARQUET"
    itype = PACKET | FLOW | SUM
    together = True
    gather = Gather(rows=500_000, octets=64 << 20)
    counts = (
        *GATHERING,
        *faults.COUNTS,
        Count("odd_time", "rows", "Rows without an end, or with one far from their arrival, which is then their time."),
        Count("files_written", "files", "Files written; merges have fewer of them."),
        Count("merges", "occasions", "Merges of files.", rare=True),
        Count("files_recovered", "files", "Files of a killed process that became whole at the start.", rare=True),
        Count("files_removed", "files", "Incomplete files of a killed process, removed at the start.", rare=True),
        Count("hours_deleted", "hours", "Hours deleted by retain or max_size.", rare=True),
        Count("rows_deleted", "rows", "Rows deleted with them.", rare=True),
        Count("octets_deleted", "octets", "Octets deleted with them.", rare=True),
        Gauge("octets_stored", "octets", "Octets of all files of the store."),
    )  # fmt: skip
    options = (
        Option("directory", text, None, "Directory of the store. It is made if its parent directory is there; later it "
               "is not made again, with state_dir also after a restart.", mandatory=True),
        Option("keys", words, (), "Keys to store, such as sourceAddress octets. flowStartMilliseconds and "
               "flowEndMilliseconds are always among them. Empty: addresses, ports, counters, times, interfaces, NAT "
               "and others of a flow where the stack has them; below AGGREGATE all its columns. Keys may be added "
               "later: they are NULL in older rows."),
        Option("order", words, (), "Columns by which rows are sorted in merged files; look-ups by the first one are "
               "fast. Empty: source and destination address; below NFCT the address and port after NAT."),
        *gathering_options(FLUSH_S),
        Option("retain", seconds, None, "Time for which rows are kept, such as 30d; then their hours are deleted. Not "
               "given: nothing is deleted because of its age."),
        Option("max_size", octets, None, "Maximum octets of all files, such as 200G: beyond it the oldest hours are "
               "deleted. Not given: nothing is deleted because of its size."),
        Option("min_free", share, 0.05, "Part of the file system that stays free, in percent: with less, rows wait "
               "and then are dropped and counted. 0%: all of it may be used."),
        Option("compression", one_of("zstd", "snappy", "lz4", "uncompressed"), "zstd", "Compression of the files."),
    )  # fmt: skip

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._run = uuid.uuid4().hex[:12]
        self.directory = Path(self.config.directory or "")
        self.writer = Writer(
            self.directory, self._run, compression=self.config.compression, retain=self.config.retain,
            min_free=self.config.min_free, find=self.find,
        )  # fmt: skip
        self.upkeep = Upkeep(
            self.writer, self.counters, self.config.retain, self.config.max_size, self.config.compression
        )
        self.covering = Covering(self.directory)
        self._keys: tuple[str, ...] = ()
        self._nat = False
        self._described: Description | None = None
        self._columns: dict[str, StoredColumn] = {}
        self._identity = Identity(self.directory)
        self._keeping = Keeping(self.reactor, self.in_thread, self._plan, self.upkeep, self._not_kept_up)

    # configuration

    def mistakes(self) -> Iterator[tuple[str, str]]:
        yield from super().mistakes()
        if not is_there(_LIBRARY):
            yield "directory", f"PARQUET needs {_LIBRARY}: {install(_LIBRARY)}"
        if ARRIVAL.name in self.config.keys:
            yield "keys", f"{ARRIVAL.name} is a column already; leave it out"
        for name in self.config.order if self.config.keys else ():
            if name not in (*self.config.keys, START, END):
                near = nearest(name, self.config.keys)
                yield "order", f"{name} is not in keys=" + (f"; did you mean {near}?" if near else "; add it there")
        seen: dict[str, str] = {}
        for name in self.config.keys:
            other = seen.setdefault(name.lower(), name)
            if other != name:
                yield "keys", f"{other} and {name} would be one column for readers; leave one out"

    def remarks(self) -> Iterator[tuple[str, str]]:
        yield from super().remarks()
        if self.config.retain is None and self.config.max_size is None:
            yield "retain", "neither retain nor max_size is set: the store grows until the disk has only min_free left"

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """The directory is there, or can be made."""
        yield from super().obstacles()
        if not os.path.isdir(self.directory) and (found := unwritable(str(self.directory))):  # of a long name, too
            yield "directory", found, True

    def requests_of(self, above: frozenset[str] | None) -> dict[str, bool]:
        """The keys that were chosen, else those of `default_keys` that are there; the times always."""
        chosen = self.config.keys
        self._keys = tuple(dict.fromkeys((*(chosen or default_keys(above)), *self._keys, START, END)))
        self._nat = self._nat or (above is not None and "orig.ip.saddr" in above)
        return {"record_kind": False} | dict.fromkeys(self._keys, False) | dict.fromkeys(chosen, True)

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return self.requests_of(None)

    @property
    def where(self) -> str:
        return str(self.directory)

    @property
    def run(self) -> str:
        return self._run

    # the store's content; in the output's thread

    def _given(self) -> list[str]:
        """The keys that some plugin above gives."""
        return [name for name in self._keys if self.sources.recipes.get(name)]

    def _column(self, name: str, batches: Sequence[Batch]) -> StoredColumn | None:
        """The column of a key. That of a key which only its plugin knows shows in the first batch that has it."""
        column = self._columns.get(name)
        if column is None:
            key = known(name.partition("@")[0]) or self._own_key(name, batches)
            if key is None:
                return None
            column = self._columns[name] = StoredColumn(key.named(name))
        return column

    def _own_key(self, name: str, batches: Sequence[Batch]) -> Key | None:
        made = {key.name: key for maker in self.makers for key in maker.keys()}
        if name in made:
            return made[name]
        found = (self.find(batch, name) for batch in batches)
        return next((one.key for one in found if one is not None), None)

    def columns(self, batches: Sequence[Batch]) -> list[StoredColumn]:
        """The columns of a write."""
        return [column for name in self._given() if (column := self._column(name, batches)) is not None]

    def description(self, columns: Sequence[StoredColumn]) -> Description:
        """What store.json says."""
        names = [column.name for column in columns]
        order = tuple(name for name in self.config.order if name in names) or default_order(names, self._nat)
        return Description(self.instance, tuple(columns), order, self._rollup())

    def _rollup(self) -> Mapping[str, Any]:
        found = [getattr(maker, "rollup", None) for maker in self.makers]
        return found[0] if found and found[0] is not None and all(one == found[0] for one in found) else {}

    def _begin(self, columns: Sequence[StoredColumn]) -> None:
        """See that the store is open, and described as it is now. Raises OSError."""
        described = self.description(columns)
        if self.writer.begun and described == self._described:
            return
        opened = self.writer.begun
        if opened:
            self.writer.describe(described)
        else:
            self._identity.check()
            self.writer.begin(described, make=self._identity.makes)
            self._identity.settle(MODE)
            self._remember()
            whole, removed = self.writer.recovered
            self.counters.figures["files_recovered"] += whole
            self.counters.figures["files_removed"] += removed
            continues = bool(self.inputs) and all(one.continues for one in self.inputs)
            self._cover(self.covering.begin, time.time(), continues)
        self._described = described

    def _remember(self) -> None:
        """Know the store after a restart; without that, a new one may begin where its file system is not mounted."""
        try:
            self._identity.remember()
        except OSError as error:
            self.counters.errors["state"] += 1
            self.log.error(
                "{instance}: state_dir: {error}; a restart while {where} is missing begins a new store",
                instance=self.instance, error=error, where=self.where,
            )  # fmt: skip

    def store(self, batches: Sequence[Batch], number: int, again: bool) -> Refused:
        columns = self.columns(batches)
        self._begin(columns)
        found = self.writer.write(batches, columns, number)
        self.counters.figures["odd_time"] += found.odd
        self.counters.figures["files_written"] += len(found.pieces)
        self.upkeep.wrote([piece.hour for piece in found.pieces], time.time())
        return Refused(nothing=found.left_out)

    def sift(self, batches: Sequence[Batch], number: int) -> Refused:
        """Refuse the batches that DuckDB does not take; unless it takes none."""
        refused, good, first, last = Refused(), [], 0, None
        columns = self.columns(batches)
        self._begin(columns)
        for batch in batches:
            error = self.writer.refuses(batch, columns)
            if error is None:
                good.append(batch)
            for row in range(batch.n if error is not None else 0):
                refused.add(str(error), first + row)
            first, last = first + batch.n, error or last
        if not good and last is not None and not self.counters.figures["files_written"]:
            raise last
        refused.nothing = self.store(good, number, True).nothing if good else 0
        return refused

    def committed(self, run: str, number: int) -> bool:
        """After `recover`, a write is there whole or not at all."""
        if not self.writer.begun:
            self._begin(self.columns(()))
        return (run, number) in writes(self.directory)

    def meaning(self, error: Exception) -> Fault | None:
        return faults.meaning(error)

    def text_of(self, error: Exception) -> str:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return reason.partition("\n")[0]

    def interrupt(self) -> None:
        self.writer.interrupt()

    # start, upkeep and stop

    def keep_state(self, directory: Path, every: float) -> None:
        """As other outputs; and which store is in the directory."""
        super().keep_state(directory, every)
        try:
            self._identity.keep(directory / KEPT)
        except (OSError, ValueError) as error:
            self.counters.errors["state"] += 1
            self.log.error("{instance}: {error}; what is at {where} now is taken for the store", instance=self.instance,
                           where=self.where, error=error)  # fmt: skip

    def open(self) -> Any:
        """Open the store. Trouble with it is no reason not to start: rows wait, and the state says why."""
        return self.in_thread(self._open)

    def _open(self) -> None:
        self.writer.connect()
        try:
            self._begin(self.columns(()))
        except OSError as error:
            trouble, self._trouble = self._trouble, f"{self.where}: {self.text_of(error)}"
            if self._trouble == trouble:
                return
            fault = self.meaning(error)
            remedy = f"; {fault.remedy}" if fault is not None and fault.remedy else ""
            self.log.warn("{instance}: {where}: {error}{remedy}; rows wait", instance=self.instance, where=self.where,
                          error=self.text_of(error), remedy=remedy)  # fmt: skip
        else:
            self._trouble = ""

    def wake(self, now: float) -> float:
        """Delete and merge what is due, and note what the files have by now."""
        self._keeping.look()
        if not self._stopping:
            if self._trouble and self._busy is None and self._pause is None:  # no write will tell when it is over
                self.in_thread(self._open).addErrback(self._not_noted)
            noted = self.in_thread(self._covered, time.time(), self.waited(), self.losses())
            noted.addErrback(self._not_noted)
        return LOOK_S

    def _not_noted(self, failure: Failure) -> None:
        assert isinstance(failure.value, Exception)
        self.fault(failure.value)

    def _covered(self, *facts: Any) -> None:
        """Note it in a store that is open: the record of another output's store is not ours."""
        if self.writer.begun:
            self._cover(self.covering.covered, *facts)

    def _cover(self, note: Callable[..., None], *facts: Any) -> None:
        """Note in the record of the store's coverage; without it, the time counts as not covered."""
        try:
            note(*facts)
        except OSError as error:
            self.counters.errors["coverage"] += 1
            self.limited.say(
                self.log.warn, "coverage", "{instance}: {where}: {error}; the record of its coverage has a gap",
                instance=self.instance, where=self.where, error=self.text_of(error),
            )  # fmt: skip

    def _plan(self) -> Job | None:
        if not self.writer.begun or self._described is None:
            return None
        job = self.upkeep.plan(self._described.order, time.time())
        if self.upkeep.deleted_until:
            self.covering.forget(self.upkeep.deleted_until)
        return job

    def _not_kept_up(self, error: Exception) -> None:
        self.counters.errors["merge"] += 1
        self.limited.say(
            self.log.warn, "merge", "{instance}: {where}: {error}; all rows are still there", instance=self.instance,
            where=self.where, error=self.text_of(error),
        )  # fmt: skip

    @defer.inlineCallbacks
    def close(self) -> Any:
        yield defer.Deferred.fromCoroutine(self._keeping.stop())
        yield self.in_thread(self._cover, self.covering.end, time.time(), self.waited(), self.losses())
        yield self.in_thread(self.writer.end)
