"""The common part of outputs that gather: rows wait, are written many at a time, and repeated until they are written.

The queue before the output (`ulogd_tw.flow`) gathers by rows, octets and time, holds inputs back, and keeps what waits
at a stop in the spool. `GatheringOutput` writes: in a thread, with retries, with batch numbers that outlive a kill, and
with dead letters for rows that cannot be stored. A subclass says how rows are stored, and what its errors mean.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from twisted.internet import defer, reactor, threads
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ulogd_tw.core.batch import Batch, Past
from ulogd_tw.core.batch_journal import BatchJournal, UnderWay, under_way
from ulogd_tw.core.errors import NotWritten
from ulogd_tw.core.gather import Gather
from ulogd_tw.core.ledger import Former, weight
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.options import Option, octets, seconds, text
from ulogd_tw.core.paths import unwritable
from ulogd_tw.core.patience import LONG
from ulogd_tw.core.plugin import Output
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.states import State, down
from ulogd_tw.storing.dead_letters import DeadLetters
from ulogd_tw.storing.refused import Fault, Refused

FIRST_PAUSE_S = 0.1
"""Seconds before a failed write is tried again; doubled each time, up to `reconnect`."""
GRACE_S = 2.0
"""At a stop, seconds for a running write before it is cut."""
DOUBTS = 3
"""Attempts in a row with an error that rows may be to blame for; then the batch is sifted."""


def gathering_options(flush: float) -> tuple[Option, ...]:
    """The options of every output that gathers; `flush` is the default of its kind, in seconds."""
    return (
        Option("flush", seconds, flush, "Seconds for which rows are gathered before they are written together; fewer "
               "where many wait. 0: they are written as they come."),
        Option("reconnect", seconds, 2.0, "Seconds between two attempts to write (the first attempts come sooner); "
               "rows wait meanwhile. 0: no further attempt, and the rows are dropped."),
        Option("dead_letters", text, "", "Directory for rows that cannot be stored, as lines of JSON with the error. "
               "Empty: such rows are only counted."),
        Option("dead_letters_size", octets, 100 << 20, "Maximum octets of these files; the oldest are removed first."),
    )  # fmt: skip


class GatheringOutput(Output):
    """Stores rows in a thread of its own, one write after the other, each repeated until it succeeds.

    A subclass declares ``*gathering_options(FLUSH)`` and `GATHERING` counts, and gives `store`, `meaning` and `where`;
    `gather` bounds one write. For outputs without blocking calls, `attempt` may be replaced.
    """

    reactor: Any = reactor
    log = Logger()
    gather = Gather()
    """The bounds of one write; `flush` gives the seconds."""

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.limited = RateLimitedLog(time.monotonic)
        self.letters = DeadLetters(self.config.dead_letters, self.config.dead_letters_size, instance, self.counters)
        self._threads: ThreadPool | None = None
        self._number = 0
        self._journal: BatchJournal | None = None
        self._under_way: UnderWay | None = None
        self._stopping = False
        self._was_cut = False
        self._trouble = ""
        """Why no rows are taken; empty once they are."""
        self._sifted = False
        """Whether the last batch had to be sifted: then the next one that fails is sifted at once."""
        self._busy: defer.Deferred[Any] | None = None
        self._pause: defer.Deferred[None] | None = None

    # what each output does its own way; the first four are called in its thread

    def store(self, batches: Sequence[Batch], number: int, again: bool) -> Refused:
        """Store all rows safely, but for those refused; raises where nothing was stored, or nobody knows.

        The number grows with each write of this run. `again`: an earlier attempt may have succeeded unnoticed.
        """
        raise NotImplementedError

    def sift(self, batches: Sequence[Batch], number: int) -> Refused:
        """As `store`, after some attempts with errors that rows may be to blame for: without these rows.

        Raises the error if nothing shows that rows are the cause.
        """
        return self.store(batches, number, True)

    def stored(self, number: int) -> Refused | None:
        """The result of a write that was cut, if it was done after all; else None."""
        return None

    def doubt(self, number: int) -> tuple[str, int] | None:
        """`run` and the number of a write that may have been done although it got no answer, for the next run."""
        return None

    def committed(self, run: str, number: int) -> bool:
        """Whether an earlier run has done its write of this number; False also where nobody knows."""
        return False

    def meaning(self, error: Exception) -> Fault | None:
        """What an error of `store` means; None for one that no repetition mends."""
        raise NotImplementedError

    def text_of(self, error: Exception) -> str:
        """An error for a log line."""
        return str(error)

    def interrupt(self) -> None:
        """Make a running `store` fail soon. Called in the reactor."""

    @property
    def where(self) -> str:
        """The destination, for log lines."""
        raise NotImplementedError

    @property
    def run(self) -> str:
        """A name of this run, for `committed`; at most 40 characters of ASCII."""
        return ""

    @property
    def write_number(self) -> int:
        """The number of the last write that was begun."""
        return self._number

    # how it gathers

    @property
    def clock(self) -> Any:
        """The reactor."""
        return self.reactor

    @property
    def gathers(self) -> Gather | None:
        flush = self.config.flush
        return Gather(self.gather.rows, self.gather.octets, flush) if flush else None

    def patience(self) -> float | None:
        return LONG

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """The directory of dead letters can be made or written."""
        yield from super().obstacles()
        directory = self.config.dead_letters
        if directory and (found := unwritable(str(Path(directory) / "x"))):
            yield "dead_letters", found, False

    # start and stop

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        """Call in the one thread of this output."""
        if self._threads is None:
            self._threads = ThreadPool(1, 1, f"{self.instance} stores")
            self._threads.start()
        return threads.deferToThreadPool(self.reactor, self._threads, call, *arguments)

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Give up unwritten rows, and close. A running write has a moment to finish."""
        self._stopping = True
        if self._pause is not None:
            self._pause.cancel()
        if self._busy is not None:
            cut = self.reactor.callLater(GRACE_S, self._cut)
            yield self.settled(self._busy)
            if cut.active():
                cut.cancel()
        yield self.close()
        if self._threads is not None:
            yield self.in_thread(int)  # behind all others: `stop` waits in the reactor
            self._threads.stop()
            self._threads = None
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def close(self) -> Any:
        """Close the destination, once nothing is being written; may return a Deferred."""

    def _cut(self) -> None:
        self._was_cut = True
        self.interrupt()

    @staticmethod
    def settled(waiting: defer.Deferred[Any]) -> defer.Deferred[None]:
        """Fires when the Deferred does, and leaves its result to others."""
        settled: defer.Deferred[None] = defer.Deferred()

        def fire(result: Any) -> Any:
            settled.callback(None)
            return result

        waiting.addBoth(fire)
        return settled

    # what outlives it

    def keep_state(self, directory: Path, every: float) -> None:
        """The number of the write under way: after a kill only the destination knows whether it has its rows."""
        path = str(directory / "batch")
        try:
            self._under_way = under_way(path)
        except (OSError, ValueError) as error:
            self.counters.errors["state"] += 1
            self.log.error("{instance}: {path} is not used: {error}; rows of one batch may be counted as lost",
                           instance=self.instance, path=path, error=error)  # fmt: skip
        self._journal = BatchJournal(path, self.run)

    def count_unsaved(self, former: Former, ident: str) -> None:
        """Count them when the destination has told whether it has the last write; if it does not answer, at once."""
        batch = self._under_way
        if batch is None or not self.can_tell:
            super().count_unsaved(former, ident)
            return

        def count(known: Any) -> None:
            committed = [batch.written] if known is True else []
            if lost := former.unsaved(ident, committed=committed):
                self.counters.lost["unsaved"] += lost

        self.in_thread(self.committed, batch.run, batch.number).addBoth(count)

    @property
    def can_tell(self) -> bool:
        """Whether `committed` can be asked now."""
        return True

    # rows

    def write(self, batch: Batch) -> defer.Deferred[None]:
        """Write all rows; fires when they are safe. Errbacks with `NotWritten` if `stop` comes first."""
        return self.write_together([batch])

    def write_together(self, batches: Sequence[Batch]) -> defer.Deferred[None]:
        """As `write`, for several batches at once."""
        self._number += 1
        if self._journal is not None and self.ledger is not None:
            rows = sum(batch.n for batch in batches)
            self._journal.begin(self._number, self.ledger.finished, sum(map(weight, batches)), rows)
        return defer.Deferred.fromCoroutine(self._write(list(batches), self._number))

    async def _write(self, batches: list[Batch], number: int) -> None:
        refused, failures, doubts, began = None, 0, 0, self.reactor.seconds()
        while refused is None and not self._stopping:
            try:
                sift = doubts >= (1 if self._sifted else DOUBTS)
                refused = await self._attempt(batches, number, failures > 0, sift)
                self._sifted, self._trouble = sift, ""
            except Exception as error:
                fault = self.meaning(error)
                if fault is None:
                    raise
                failures += 1
                doubts = doubts + 1 if fault.of_rows else 0
                self._failed(error, fault, failures)
                await self._wait(failures)
        if refused is None:
            refused = await self._last_look(batches, number)
        elif failures > 1:
            self.log.info(
                "{instance}: {where} accepts rows again, after {seconds:.1f} s", instance=self.instance,
                where=self.where, seconds=self.reactor.seconds() - began,
            )  # fmt: skip
        self.count(batches, refused)

    async def _attempt(self, batches: list[Batch], number: int, again: bool, sift: bool) -> Refused:
        self._busy = self.attempt(batches, number, again, sift)
        try:
            return await self._busy
        finally:
            self._busy = None

    def attempt(self, batches: list[Batch], number: int, again: bool, sift: bool) -> defer.Deferred[Refused]:
        """One try of a write; fires with the refused rows."""
        if sift:
            return self.in_thread(self.sift, batches, number)
        return self.in_thread(self.store, batches, number, again)

    def _failed(self, error: Exception, fault: Fault, failures: int) -> None:
        self.counters.errors[fault.reason] += 1
        if not self.config.reconnect:
            raise NotWritten(f"{self.where}: {self.text_of(error)}") from error
        if failures > 1 or not fault.transient:  # a closed idle connection is nothing to tell
            self.warn(error, fault)

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

    async def _last_look(self, batches: list[Batch], number: int) -> Refused:
        """At a stop: the refused rows of the write if it was done after all. Raises `NotWritten`."""
        refused = None
        if self._was_cut:  # else the last attempt failed before the stop, and nothing else was under way
            try:
                refused = await self.in_thread(self.stored, number)
            except Exception as error:
                self.log.debug("{instance}: {error}", instance=self.instance, error=error)
        if refused is None:
            if doubt := self.doubt(number):
                for batch in batches:
                    batch.past = Past(batch.past.mark if batch.past else "", *doubt)
            rows = plural(sum(batch.n for batch in batches), "row")
            raise NotWritten(f"{self.where}: stopped before {rows} could be written")
        return refused

    def count(self, batches: Sequence[Batch], refused: Refused) -> None:
        """Count the rows of a write that were not stored, and keep those refused as dead letters."""
        self.counters.rows_filtered += refused.nothing
        if not refused.rows:
            return
        self.counters.dropped["refused"] += refused.rows
        reasons = "; ".join(f"{reason} ({plural(n, 'row')})" for reason, n in refused.reasons.items())
        self.limited.say(
            self.log.warn, "refused", "{instance}: {rows} {where}, dropped: {reasons}{kept}", instance=self.instance,
            rows=plural(refused.rows, "row does not fit", "rows do not fit"), where=self.fits_in, reasons=reasons,
            kept=f"; they are in {self.letters.directory}" if self.letters else "",
        )  # fmt: skip
        if self.letters:
            self.in_thread(self.letters.keep, list(batches), refused.at).addErrback(self._not_kept)

    @property
    def fits_in(self) -> str:
        """What a refused row does not fit, for log lines."""
        return self.where

    def _not_kept(self, failure: Failure) -> None:
        self.counters.errors["dead_letters"] += 1
        self.limited.say(
            self.log.error, "dead letters", "{instance}: dead letters cannot be written to {directory}: {error}",
            instance=self.instance, directory=self.letters.directory, error=failure.getErrorMessage(),
        )  # fmt: skip

    def state(self) -> State:
        return down(self._trouble)

    def warn(self, error: Exception, fault: Fault) -> None:
        """Say once a minute that rows wait, and why."""
        self._trouble = f"{self.where}: {self.text_of(error)}"
        remedy = f"; {fault.remedy}" if fault.remedy else ""
        self.limited.say(
            self.log.warn, fault.reason, "{instance}: {where}: {error}{remedy}; rows wait", instance=self.instance,
            where=self.where, error=self.text_of(error), remedy=remedy,
        )  # fmt: skip
