"""Writes files in a thread, in order; a failed write is repeated until it succeeds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger
from twisted.python.failure import Failure

from ulogd_tw.core.errors import NotWritten
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.plugin import Output
from ulogd_tw.writing.part_file import PART, PartFile
from ulogd_tw.writing.text import RETRY


@dataclass(frozen=True, slots=True)
class Step:
    """Octets to append to a file, with the number of their records; with octets None, the end of the file."""

    file: PartFile
    octets: Sequence[Any] | None = None
    records: int = 0


class FileWriter:
    """Performs the steps of one write at a time, and ends of files at any time.

    `seconds` and `later` are the reactor's clock, `in_thread` its `deferToThread`.
    """

    log = Logger()

    def __init__(self, output: Output, reactor: Any, in_thread: Callable[..., defer.Deferred[Any]]) -> None:
        self.output = output
        self.ended = 0
        """Number of finished files."""
        self._reactor = reactor
        self._in_thread = in_thread
        self._steps: deque[Step] = deque()
        self._busy: defer.Deferred[None] | None = None
        self._timer: Any = None
        self._stopping = False
        self._refusing = False
        self.trouble = ""
        """Why nothing can be written, since the last attempt."""
        self._limited = RateLimitedLog(self._reactor.seconds)
        self._waiter: defer.Deferred[None] | None = None
        self._rows = self._records = 0

    def write(self, steps: Sequence[Step], rows: int) -> defer.Deferred[None]:
        """Perform these steps; fires when the kernel has their rows. Errbacks with `NotWritten` if `stop` came before
        any."""
        waiter: defer.Deferred[None] = defer.Deferred()
        self._waiter = waiter
        self._rows, self._records = rows, sum(step.records for step in steps)
        self._steps.extend(steps)
        self._go()
        return waiter

    def end(self, file: PartFile) -> None:
        """Give the file its name, after all pending writes to it."""
        self._steps.append(Step(file))
        self._go()

    def _go(self) -> None:
        if self._busy is not None or self._timer is not None:
            return
        if not self._steps:
            waiter, self._waiter = self._waiter, None
            if waiter is not None:
                waiter.callback(None)
            return
        self._busy = busy = self._in_thread(self._work)
        busy.addCallbacks(self._worked, self._refused)

    def _work(self) -> None:
        """Perform the pending steps, in the thread; OSError at the first step that fails."""
        while self._steps:
            step = self._steps[0]
            if step.octets is not None:
                step.file.append(step.octets)
            elif step.file.end() is not None:
                self.ended += 1
            self._steps.popleft()

    def _worked(self, _: None) -> None:
        self._busy, self.trouble = None, ""
        if self._refusing:
            self._refusing = False
            self.log.info("{instance}: files are written again", instance=self.output.instance)
        if not self._stopping:
            self._go()

    def _refused(self, failure: Failure) -> None:
        self._busy = None
        error: Any = failure.value
        if not isinstance(error, OSError):
            self._steps.popleft()
            self.output.fault(error)
        else:
            self.trouble = f"{self._steps[0].file.path}: {error.strerror or error}"
            self._refusing |= self.fault(
                "write", "{path}: {error}; its rows wait; next attempt every {retry} s",
                path=self._steps[0].file.path, error=error.strerror or error, retry=RETRY,
            )  # fmt: skip
        if not self._stopping:
            self._timer = self._reactor.callLater(RETRY, self._again)

    def _again(self) -> None:
        self._timer = None
        self._go()

    def fault(self, kind: str, format: str, **fields: Any) -> bool:
        """Count a fault, and log it at most once a minute; returns whether it was logged."""
        self.output.counters.errors[kind] += 1
        return self._limited.say(self.log.error, kind, "{instance}: " + format, instance=self.output.instance, **fields)

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """Try once more, then give up the rest, and end the files."""
        self._stopping = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._busy is not None:
            finished: defer.Deferred[None] = defer.Deferred()
            self._busy.addBoth(finished.callback)
            yield finished
        for last in (False, True):
            try:
                yield self._in_thread(self._work)
            except OSError as error:
                if last:
                    self._leave(error)
                else:
                    self._give_up()
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def _give_up(self) -> None:
        """The whole batch goes back to the queue if nothing of it is written; else its rest is dropped as ``write``."""
        left = sum(step.records for step in self._steps)
        self._steps = deque(step for step in self._steps if step.octets is None)
        waiter, self._waiter = self._waiter, None
        if waiter is None:
            return
        if left and left == self._records:
            waiter.errback(NotWritten(f"{self.output.instance} was stopped before it could write"))
            return
        self.output.counters.dropped["write"] += -(-self._rows * left // max(self._records, 1))
        waiter.callback(None)

    def _leave(self, error: OSError) -> None:
        for step in self._steps:
            self.log.error(
                "{instance}: {path} stays unfinished: {error}; the next start finishes it",
                instance=self.output.instance, path=step.file.path + PART, error=error.strerror or error,
            )  # fmt: skip
