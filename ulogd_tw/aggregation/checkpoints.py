"""When an AGGREGATE writes its state file: every `checkpoint` seconds in a thread, and at the stop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from twisted.internet import defer, threads
from twisted.logger import Logger

from ulogd_tw.aggregation.interval import IntervalTable
from ulogd_tw.aggregation.state_file import Disturbed, StateFile, Work

if TYPE_CHECKING:
    from ulogd_tw.plugins.filters.aggregate import AGGREGATE


class Checkpoints:
    """The state file of one instance."""

    log = Logger()
    in_thread = staticmethod(threads.deferToThread)

    def __init__(self, plugin: AGGREGATE) -> None:
        self._plugin = plugin
        config = plugin.config
        settings = {
            "key": list(plugin.key_names),
            "functions": [[wish.name, wish.function, wish.of, wish.share] for wish in plugin.wishes],
            "interval": config.interval,
            "time": config.time,
            "window": bool(config.window),
            "age": bool(config.age),
            "change": config.change,
        }
        _, number, of_stack = plugin.instance.partition("#")
        self.file = StateFile(config.state_file + number + of_stack, settings)
        self._due: float | None = None
        self._steps: Iterator[Work] | None = None
        self._syncing: defer.Deferred[Any] | None = None
        self._running: defer.Deferred[Any] = defer.succeed(None)
        self._unsynced = False
        self._written: object = None
        for name in ("states_written", "groups_restored", "groups_saved"):
            plugin.counters.figures[name] = 0

    # start and stop

    def open(self) -> tuple[list[tuple[IntervalTable, float | None]], int]:
        """What an earlier run left: tallies, and until when intervals are closed. Raises `StartError`."""
        self.file.open()
        plugin = self._plugin
        try:
            found = self.file.load(plugin.new_tally)
        except (OSError, ValueError) as error:
            plugin.counters.errors["state_file"] += 1
            self._set_aside(error)
            found = None
        if found is None:
            return [], 0
        groups = sum(len(tally) for tally, _ in found[0])
        plugin.counters.figures["groups_restored"] = groups
        if groups:
            self.log.info("{instance}: {path} has {groups} groups of {n} intervals", instance=plugin.instance,
                          path=str(self.file.path), groups=groups, n=len(found[0]))  # fmt: skip
        return found

    def _set_aside(self, error: Exception) -> None:
        try:
            where = f"it is {self.file.set_aside()} now"
        except OSError as failure:
            where = f"it stays there ({failure})"
        self.log.error(
            "{instance}: state_file {path} is not used: {error}; {where}, and intervals begin with nothing",
            instance=self._plugin.instance, path=str(self.file.path), error=error, where=where,
        )  # fmt: skip

    def close(self) -> defer.Deferred[Any]:
        """Let go of the file when no thread uses it any more."""
        waiting = [self._running, *([self._syncing] if self._syncing is not None else [])]
        return defer.DeferredList(waiting).addBoth(lambda _: self.file.close())

    def save(self) -> bool:
        """Write all there is, now; False, and the fault reported, where that cannot be."""
        self._steps = None  # what a thread writes meanwhile is given up at its next step
        plugin = self._plugin
        tallies, closed = plugin.kept
        try:
            for work in self.file.steps(tallies, closed, ".stop"):
                work()
        except OSError as error:
            self._failed(error)
            return False
        plugin.counters.figures["groups_saved"] = sum(len(tally) for tally, _ in tallies)
        self._done(tallies)
        return True

    # while it runs

    def emitted(self, tally: IntervalTable) -> None:
        """The rows of this tally are handed on now."""
        try:
            self.file.mark(tally.ident, self._plugin.closed)
        except OSError as error:
            self._failed(error)
            return
        if self._syncing is not None:
            self._unsynced = True
            return
        self._unsynced = False
        self._syncing = self.in_thread(self.file.sync).addErrback(lambda f: self._failed(f.value))
        self._syncing.addCallback(lambda _: self._synced())

    def _synced(self) -> None:
        self._syncing = None
        if self._unsynced:
            self._unsynced = False
            self._syncing = self.in_thread(self.file.sync).addErrback(lambda f: self._failed(f.value))
            self._syncing.addCallback(lambda _: self._synced())

    def wake(self, now: float) -> None:
        """Write the file when it is time, and something has changed."""
        if not self._plugin.config.checkpoint:
            return
        if self._due is None:
            self._due = now + self._plugin.config.checkpoint
        if now < self._due or self._steps is not None:
            return
        kept = self._plugin.kept
        if kept is None:
            return  # when all is moved
        tallies, closed = kept
        now_kept = (self._plugin.counters.rows_merged, [tally.ident for tally, _ in tallies])
        self._due = now + self._plugin.config.checkpoint
        if now_kept == self._written:
            return
        self._steps = self.file.steps(tallies, closed, ".new")
        self._running = self._run(self._steps, tallies, now_kept)

    @defer.inlineCallbacks
    def _run(self, steps: Iterator[Work], tallies: list[tuple[IntervalTable, float | None]], kept: object) -> Any:
        try:
            while self._steps is steps:
                work = next(steps, None)
                if work is None:
                    self._written = kept
                    self._done(tallies)
                    break
                yield self.in_thread(work)
        except Disturbed:
            self._due = 0.0  # at once again, when all is moved
        except Exception as error:
            self._failed(error)
        finally:
            steps.close()
            if self._steps is steps:
                self._steps = None

    def _done(self, tallies: list[tuple[IntervalTable, float | None]]) -> None:
        self._plugin.counters.figures["states_written"] += 1
        self.file.forget(any(tally.gone for tally, _ in tallies))

    def _failed(self, error: BaseException) -> None:
        self._plugin.counters.errors["state_file"] += 1
        if isinstance(error, OSError) and error.errno and error.filename is None:
            error.filename = str(self.file.path)
        self._plugin.fault(error)
