"""When an AGGREGATE writes its state file: every `checkpoint` seconds in a thread, and at the stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from twisted.internet import defer, threads
from twisted.logger import Logger
from twisted.python.failure import Failure

from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.settings import Settings
from ulogd_tw.aggregation.state_file import Disturbed, Snapshot, StateFile, Work
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.plurals import plural


class Checkpoints:
    """The state file of one instance. `fault` gets what goes wrong with it."""

    log = Logger()

    def __init__(
        self, instance: str, path: str, every: float, settings: Settings, counters: Counters,
        fault: Callable[[Exception], None], *, kind: str, rest: float = 0.0,
    ) -> None:  # fmt: skip
        """`every` seconds between two writings, 0 for the stop only; `kind` is the error as which faults count.

        The pause is at least `rest` times as long as the work of the last writing, without its waits for the disk.
        """
        self._instance = instance
        self._every = every
        self._kind = kind
        self._rest = rest
        self._work = 0.0
        self._counters = counters
        self._fault = fault
        self.file = StateFile(path, settings)
        self._due: float | None = None
        self._steps: Generator[Work, None, None] | None = None
        self._syncing: defer.Deferred[Any] | None = None
        self._running: defer.Deferred[Any] = defer.succeed(None)
        self._unsynced = False
        self._written: object = None
        self._groups = 0
        for name in ("states_written", "groups_restored", "groups_saved"):
            counters.figures[name] = 0

    def in_thread(self, work: Callable[[], Any]) -> defer.Deferred[Any]:
        """Do it in a thread."""
        return threads.deferToThread(work)

    # start and stop

    def open(self, new_table: Callable[[int, Settings], IntervalTable]) -> Snapshot:
        """The groups left by an earlier run, in new tables. Raises `StartError`."""
        self.take()
        try:
            found = self.file.load(new_table)
        except (OSError, ValueError) as error:
            self._counters.errors[self._kind] += 1
            self._set_aside(error)
            found = None
        if found is None:
            return Snapshot([], 0)
        self._counters.figures["groups_restored"] = found.groups
        if found.groups:
            self.log.info(
                "{instance}: {path} has {groups} of {intervals}{more}",
                instance=self._instance,
                path=str(self.file.path),
                groups=plural(found.groups, "group"),
                intervals=plural(len(found.tables), "interval"),
                more="" if found.former is None else f" with another {self.file.others(found.former)}; they go out now",
            )
        return found

    def take(self) -> None:
        """Take the file for this process, without a look at it. Raises `StartError`."""
        self.file.open()

    def described(self) -> dict[str, Any]:
        """For the operator: the file, and the groups in it at the last writing."""
        return {"intervals": str(self.file.path), "groups": self._groups}

    def _set_aside(self, error: Exception) -> None:
        try:
            where = f"it is {self.file.set_aside()} now"
        except OSError as failure:
            where = f"it stays there ({failure})"
        self.log.error(
            "{instance}: the state {path} is not used: {error}; {where}, and intervals begin empty",
            instance=self._instance, path=str(self.file.path), error=error, where=where,
        )  # fmt: skip

    def discard(self) -> None:
        """All groups are emitted: the file goes."""
        self._steps = None
        try:
            self.file.discard()
        except OSError as error:
            self._failed(error)

    @defer.inlineCallbacks
    def close(self) -> Any:
        """Let go of the file when no thread uses it any more."""
        yield self._running
        while self._syncing is not None:  # one after the other, as tables were emitted
            yield self._syncing
        self.file.close()

    def save(self, snapshot: Snapshot) -> bool:
        """Write all there is, now; False, and the fault reported, where that cannot be."""
        self._steps = None  # what a thread writes meanwhile is given up at its next step
        try:
            for work in self.file.steps(snapshot, ".stop"):
                work()
        except OSError as error:
            self._failed(error)
            return False
        self._counters.figures["groups_saved"] = snapshot.groups
        self._done(snapshot)
        return True

    # while it runs

    def emitted(self, table: IntervalTable, closed: int) -> None:
        """The rows of this table are handed on now; intervals before `closed` were."""
        try:
            self.file.mark(table.ident, closed)
        except OSError as error:
            self._failed(error)
            return
        self._unsynced = True
        self._sync()

    def _sync(self) -> None:
        """Put the marks on the disk in a thread, one after the other."""
        if self._unsynced and self._syncing is None:
            self._unsynced = False
            self._syncing = self.in_thread(self.file.sync)
            self._syncing.addBoth(self._synced)

    def _synced(self, result: Any) -> None:
        self._syncing = None
        if isinstance(result, Failure):
            self._failed(result.value if isinstance(result.value, Exception) else RuntimeError(str(result.value)))
        self._sync()

    def clock_set(self) -> None:
        """The clock was set: the time until the next writing begins anew."""
        self._due = None

    def wake(self, now: float, snapshot: Callable[[], Snapshot | None]) -> None:
        """Write the file when it is time, and something has changed; `snapshot` gives None while groups are moved."""
        if not self._every:
            return
        if self._due is None:
            self._due = now + self._every
        if now < self._due or self._steps is not None:
            return
        kept = snapshot()
        if kept is None:
            return  # when all is moved
        state = (self._counters.rows_merged, [table.ident for table, _ in kept.tables])
        self._due = now + self._every
        if state == self._written:
            return
        self._steps = self.file.steps(kept, ".new")
        self._running = self._run(self._steps, kept, state)

    @defer.inlineCallbacks
    def _run(self, steps: Generator[Work, None, None], snapshot: Snapshot, state: object) -> Any:
        due, self._work = self._due, 0.0
        try:
            while self._steps is steps:
                began = time.thread_time()
                work = next(steps, None)
                self._work += time.thread_time() - began
                if work is None:
                    self._written = state
                    self._done(snapshot)
                    if due is not None and self._due == due:
                        self._due = max(due, due - self._every + self._rest * self._work)
                    break
                yield self.in_thread(partial(self._timed, work))
        except Disturbed:
            self._due = 0.0  # at once again, when all is moved
        except Exception as error:
            self._failed(error)
        finally:
            steps.close()
            if self._steps is steps:
                self._steps = None

    def _timed(self, work: Work) -> None:
        began = time.thread_time()
        work()
        self._work += time.thread_time() - began

    def _done(self, snapshot: Snapshot) -> None:
        self._groups = snapshot.groups
        self._counters.figures["states_written"] += 1
        self.file.forget(any(table.gone for table, _ in snapshot.tables))

    def _failed(self, error: Exception) -> None:
        self._counters.errors[self._kind] += 1
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(self.file.path)
        self._fault(error)
