"""Outputs of text lines, and the file they write to.

A sink (`TextFile` here, peers in `streams` and `datagrams`) takes one batch at a time as a `PendingText`: the unwritten
part of the batch. While the sink cannot write, it keeps this rest, and the Deferred of `write` stays open. Further rows
then wait in the bounded queue before the output (``queue_rows``).
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from twisted.internet import defer, threads
from twisted.logger import Logger

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.batch_journal import BatchJournal, UnderWay, under_way
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.errors import StartError, UlogdError
from ulogd_tw.core.ledger import weight
from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.options import Option, Options, number
from ulogd_tw.core.paths import output_file
from ulogd_tw.core.patience import AT_ONCE, LONG
from ulogd_tw.core.plugin import ALL, Output, Wanted
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.states import State, down
from ulogd_tw.writing import tails
from ulogd_tw.writing.counts import LINES
from ulogd_tw.writing.pipes import unwatched, watch_readers

TURN = 0.02
"""Maximum seconds of writing in one turn of the reactor."""
RETRY = 1.0
"""Seconds before the next attempt to write to a refusing file (disk full)."""
BUSY = 0.02
"""Seconds before the next attempt to write to a full pipe or terminal."""

Cut = Callable[[bytes | bytearray, int], tuple[int, int]]
"""(octets, place) -> the beginning of the record at that place, and the number of complete records before it."""


def lines(octets: bytes | bytearray, place: int) -> tuple[int, int]:
    """The `Cut` of formats with one line a record."""
    start = octets.rfind(b"\n", 0, place) + 1
    return start, octets.count(b"\n", 0, start)


class PendingText:
    """The unwritten part of one batch: texts of some rows each, made on demand."""

    def __init__(self, chunks: Iterator[tuple[bytes, int]], rows: int, cut: Cut = lines) -> None:
        self.rows = rows
        self.finished: defer.Deferred[None] | None = None
        self._chunks = chunks
        self._cut = cut
        self._chunk = b""
        self._chunk_rows = 0
        self._done = 0
        self._first = True

    @property
    def untouched(self) -> bool:
        """Whether nothing of it was written."""
        return self._first and not self._done

    def octets(self) -> memoryview:
        """The next octets; empty at the end."""
        if self._done == len(self._chunk):
            self._first = self._first and not self._chunk
            self.rows -= self._chunk_rows
            self._chunk, self._chunk_rows = next(self._chunks, (b"", 0))
            self._done = 0
        return memoryview(self._chunk)[self._done :]

    def record(self) -> memoryview:
        """The next record alone (of formats with one line a record)."""
        octets = self.octets()
        return octets[: self._chunk.find(b"\n", self._done) + 1 - self._done]

    def sent(self, octets: int) -> None:
        """Report a number of octets as written."""
        self._done += octets

    def step_back(self) -> int:
        """Go back to the beginning of a partly written record; returns its octets already written."""
        start, _ = self._cut(self._chunk, self._done)
        octets, self._done = self._done - start, start
        return octets

    def rows_left(self) -> int:
        """Rows not written, or only in part."""
        return self.rows - self._cut(self._chunk, self._done)[1]


class Clocked(Protocol):
    """The view of its output that a destination has."""

    instance: str
    counters: Counters
    clock: Any


class Sink:
    """The destination of one output's lines."""

    log = Logger()

    def __init__(self, output: Clocked) -> None:
        self.output = output
        self.clock = output.clock
        self.rest: PendingText | None = None
        self.trouble = ""
        """Why nothing can be written, since the last attempt; empty where it went well."""
        self._timer: Any = None
        self._limited = RateLimitedLog(self.clock.seconds)

    def open(self) -> Any:
        """Open the file or begin to connect."""
        raise NotImplementedError

    def reopen(self) -> None:
        """SIGHUP."""

    def close(self) -> Any:
        """Release the resources of `open`."""

    def send_waiting(self) -> bool:
        """Write as much of `rest` as possible now; True when all is written."""
        raise NotImplementedError

    def write(self, rest: PendingText) -> defer.Deferred[None] | None:
        """Write it: None when done at once, else a Deferred."""
        self.rest = rest
        if self.send_waiting():
            self.rest, self.trouble = None, ""
            return None
        rest.finished = defer.Deferred()
        return rest.finished

    def later(self, delay: float) -> None:
        """Go on with the rest after some seconds."""
        if self._timer is None:
            self._timer = self.clock.callLater(delay, self._again)

    def _again(self) -> None:
        self._timer = None
        self.go_on()

    def go_on(self) -> None:
        """Write more of the rest, if its Deferred is open."""
        rest = self.rest
        if rest is None or rest.finished is None:
            return
        try:
            if not self.send_waiting():
                return
        except Exception as error:
            self.rest = None
            rest.finished.errback(error)
            return
        self.rest, self.trouble = None, ""
        rest.finished.callback(None)

    def stop(self) -> Any:
        """Try once more, then give the rest up: the whole batch goes back to the queue if nothing of it was written.

        Otherwise its unwritten rows are dropped as ``write``, since the others must not be written twice.
        """
        self.go_on()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        rest, self.rest = self.rest, None
        if rest is not None and rest.finished is not None:
            if rest.untouched:
                rest.finished.errback(UlogdError(f"{self.output.instance} was stopped before it could write"))
            else:
                self.output.counters.dropped["write"] += rest.rows_left()
                rest.finished.callback(None)
        return self.close()

    def obstacle(self) -> str:
        """Why rows cannot be written now; empty where they can."""
        return self.trouble

    def fault(self, kind: str, format: str, **fields: Any) -> bool:
        """Count a fault, and log it at most once a minute; returns whether it was logged."""
        self.output.counters.errors[kind] += 1
        return self._limited.say(self.log.error, kind, "{instance}: " + format, instance=self.output.instance, **fields)


_MOST_READ = 1 << 30
"""Octets of one batch at most."""


class TextFile(Sink):
    """A file to append to, a pipe, or standard output (``-`` or ``stdout``).

    A full disk loses no row: the rest is kept, with an attempt every second. A partly written line is removed from a
    regular file at once. Pipes and terminals are written without blocking; a named pipe waits for a reader, and each
    new reader begins with a whole line.
    """

    def __init__(self, output: Clocked, path: str, sync: int = 0) -> None:
        super().__init__(output)
        self.path = path
        self.sync = sync
        self.fd = -1
        self._refusing = False
        self._waiting = False
        self._watch: Callable[[], None] = unwatched
        self._syncing: defer.Deferred[None] = defer.succeed(None)

    def open(self) -> None:
        try:
            self.fd = self._opened()
            self._watch = watch_readers(self.clock, self.fd, self._reader_left)
        except OSError as error:
            if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(self.path).st_mode):
                self._no_reader()
                return
            raise StartError(f"{self.path} cannot be opened for writing: {error.strerror}") from None

    def _no_reader(self) -> None:
        """Wait for a reader of the named pipe."""
        self.log.info("{instance}: {path} waits for a reader", instance=self.output.instance, path=self.path)
        self._waiting = True
        self.trouble = f"{self.path} has no reader"
        self.later(RETRY)

    def _found_reader(self) -> bool:
        """Whether the named pipe has a reader now; else there is a next attempt."""
        try:
            self.fd = self._opened()
        except OSError as error:
            if error.errno != errno.ENXIO:
                self.fault("reopen", "{path}: {error}", path=self.path, error=error.strerror)
            self.later(RETRY)
            return False
        self._waiting, self.trouble = False, ""
        self._watch = watch_readers(self.clock, self.fd, self._reader_left)
        self.log.info("{instance}: {path} has a reader", instance=self.output.instance, path=self.path)
        return True

    def _again(self) -> None:
        self._timer = None
        if not self._waiting or self._found_reader():
            self.go_on()

    def _opened(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        if self.path not in ("-", "stdout"):
            return self._continued(os.open(self.path, flags | os.O_CREAT, 0o666), flags)
        try:  # opened anew, so that O_NONBLOCK is ours alone; a socket cannot be
            return os.open("/proc/self/fd/1", flags)
        except OSError:
            return os.dup(1)

    def tail(self, octets: mmap.mmap) -> tails.Tail:
        """The end of the records in a file that is there already."""
        return tails.of_text(self.output.cut, self.output.complete)(octets)

    def _continued(self, fd: int, flags: int) -> int:
        """The file, which ends with a whole record; a new one where the one that is there cannot be continued."""
        try:
            if self.fd >= 0 and os.path.samestat(os.fstat(self.fd), os.fstat(fd)):
                return fd
            if cut := tails.mend(fd, self.path, self.tail):
                self.fault(
                    "cut",
                    "{path} ended within a record: {cut} removed",
                    path=self.path,
                    cut=plural(cut, "octet is", "octets are"),
                )
        except tails.DamagedFile as error:
            os.close(fd)
            aside = tails.set_aside(self.path)
            self.fault("cut", "{path}: {error}; it is {aside} now", path=self.path, error=error, aside=aside)
            return os.open(self.path, flags | os.O_CREAT, 0o666)
        except Exception:
            os.close(fd)
            raise
        return fd

    def reopen(self) -> None:
        """Open the name again; on failure, go on with the open file."""
        if self.fd < 0 or self.path in ("-", "stdout"):
            return
        try:
            fresh = self._opened()
        except OSError as error:
            self.fault(
                "reopen", "{path} cannot be reopened ({error}); writing goes on to the file opened before",
                path=self.path, error=error.strerror,
            )  # fmt: skip
            return
        if self.rest is not None:
            self._take_back()
            self.rest.step_back()
        self._watch()
        self._leave()
        os.close(self.fd)
        self.fd = fresh
        self._watch = watch_readers(self.clock, self.fd, self._reader_left)
        self.go_on()

    def close(self) -> defer.Deferred[None]:
        if self.fd >= 0:
            self._watch()
            self._leave()
            os.close(self.fd)
            self.fd = -1
        return self._syncing

    def _leave(self) -> None:
        """The end to write into a file before it is closed."""

    def place(self) -> tuple[int, int] | None:
        """Inode and size of a regular file, where the next record goes; None for others."""
        if self.fd < 0:
            return None
        status = os.fstat(self.fd)
        return (status.st_ino, status.st_size) if stat.S_ISREG(status.st_mode) else None

    def rows_since(self, inode: int, offset: int, cut: Cut) -> int:
        """The records that a regular file has from this place on; 0 where it is another file by now."""
        place = self.place()
        if place is None or place[0] != inode or not 0 <= place[1] - offset <= _MOST_READ:
            return 0
        with open(self.path, "rb") as file:
            octets = os.pread(file.fileno(), place[1] - offset, offset)
        return cut(octets, len(octets))[1]

    def write(self, rest: PendingText) -> defer.Deferred[None] | None:
        waiting = super().write(rest)
        if self.sync < 2 or self.fd < 0 or not stat.S_ISREG(os.fstat(self.fd).st_mode):
            return waiting
        return (waiting or defer.succeed(None)).addCallback(lambda _: self._on_disk())

    def send_waiting(self) -> bool:
        if self._waiting and not self._found_reader():
            return False
        until = self.clock.seconds() + TURN
        assert self.rest is not None
        while octets := self.rest.octets():
            try:
                count = os.write(self.fd, octets)
            except BlockingIOError:
                self.later(BUSY)
                return False
            except BrokenPipeError as error:
                if self.path in ("-", "stdout"):
                    self._refused(error)
                else:
                    self._reader_left()
                return False
            except OSError as error:
                self._refused(error)
                return False
            self.rest.sent(count)
            if self.clock.seconds() > until:
                self.later(0)
                return False
        if self._refusing:
            self._refusing = False
            self.log.info("{instance}: {path} accepts lines again", instance=self.output.instance, path=self.path)
        return True

    def _reader_left(self) -> None:
        """The reader of a named pipe is gone: the next one begins with the record that this one had in part."""
        self._watch()
        os.close(self.fd)
        self.fd = -1
        if self.rest is not None:
            self.rest.step_back()
        self._no_reader()

    def _refused(self, error: OSError) -> None:
        self.trouble = f"{self.path}: {error.strerror}"
        self._refusing |= self.fault(
            "write", "{path}: {error}; its rows wait; next attempt every {retry} s",
            path=self.path, error=error.strerror, retry=RETRY,
        )  # fmt: skip
        self._take_back()
        self.later(RETRY)

    def _take_back(self) -> None:
        """Cut off a partial line at the end of a regular file, unless another process has appended to it."""
        assert self.rest is not None
        try:
            status = os.fstat(self.fd)
            if not stat.S_ISREG(status.st_mode) or os.lseek(self.fd, 0, os.SEEK_CUR) != status.st_size:
                return
            os.ftruncate(self.fd, status.st_size - self.rest.step_back())
            os.lseek(self.fd, 0, os.SEEK_END)
        except OSError as error:
            self.fault("write", "{path}: {error}", path=self.path, error=error.strerror)

    def _on_disk(self) -> defer.Deferred[None]:
        """fdatasync in a thread, on a descriptor of its own, since the file may be closed meanwhile."""
        copy = os.dup(self.fd)

        def sync() -> None:
            try:
                os.fdatasync(copy)
            finally:
                os.close(copy)

        def failed(failure: Any) -> None:
            failure.trap(OSError)
            self.fault("sync", "{path}: {error}", path=self.path, error=failure.getErrorMessage())

        self._syncing = defer.Deferred()
        return threads.deferToThread(sync).addErrback(failed).chainDeferred(self._syncing)


def file_option(path: str) -> Option:
    """The option ``file`` with ulogd2's default."""
    return Option("file", output_file, path, "Path of the file to append to. - or stdout: standard output.")


SYNC = Option("sync", number, 0, "0 or 1: each batch is handed to the kernel at once; 2: and synced to disk "
              "(fdatasync) before its rows count as written.")  # fmt: skip


def patience_of(path: str, sync: int = 0) -> float:
    """How long rows may wait on their way to this file: not at all where somebody looks on, or with `sync`."""
    looked_at = path in ("-", "stdout") or path.startswith("/dev/") and path != "/dev/null"
    return AT_ONCE if sync or looked_at else LONG


class TextOutput(Output):
    """An output of every key of the stack as text. Subclasses give `texts`."""

    counts = LINES
    cut: Cut = staticmethod(lines)

    def __init__(self, instance: str, config: Options | None = None, clock: Any = None) -> None:
        super().__init__(instance, config)
        if clock is None:
            from twisted.internet import reactor as clock
        self.clock = clock
        self._journal: BatchJournal | None = None
        self._under_way: UnderWay | None = None
        self._batches_begun = 0
        self.sink: Sink = self.make_sink()

    @staticmethod
    def complete(line: bytes) -> bool:
        """Whether a line without its line break is a whole record all the same."""
        return False

    def make_sink(self) -> Sink:
        """The destination of the lines."""
        return TextFile(self, self.config.file, self.config.sync)

    def requests(self, wanted: Wanted) -> Any:
        """Every key."""
        return ALL

    def texts(self, batch: Batch) -> Iterator[tuple[bytes, int]]:
        """The records of a batch in slices: octets and the number of rows in them."""
        raise NotImplementedError

    def state(self) -> State:
        return down(self.sink.obstacle())

    def patience(self) -> float | None:
        return patience_of(self.config.file, self.config.sync)

    def open(self) -> Any:
        return self.sink.open()

    def reopen(self) -> None:
        self.sink.reopen()

    def stop(self) -> Any:
        if self._journal is None:
            return self.sink.stop()
        return defer.maybeDeferred(self.sink.stop).addBoth(self._stopped)

    def _stopped(self, result: Any) -> Any:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()
        return result

    # over a kill

    def keep_state(self, directory: Path, every: float) -> None:
        """The place of the batch under way in a regular file: after a kill the file shows which rows it has."""
        path = str(directory / "batch")
        try:
            self._under_way = under_way(path)
        except (OSError, ValueError) as error:
            self.counters.errors["state"] += 1
            self.sink.log.error("{instance}: {path} is not used: {error}; rows of one batch may be counted as lost",
                                instance=self.instance, path=path, error=error)  # fmt: skip
        self._journal = BatchJournal(path, "")

    def count_unsaved(self, former: Any, ident: str) -> None:
        batch, found = self._under_way, []
        if batch is not None and isinstance(self.sink, TextFile):
            found.append(batch.part(self.sink.rows_since(batch.inode, batch.offset, type(self).cut)))
        if lost := former.unsaved(ident, committed=found):
            self.counters.lost["unsaved"] += lost

    def _note(self, batch: Batch) -> None:
        """A batch goes into the file now."""
        place = self.sink.place() if isinstance(self.sink, TextFile) else None
        if self._journal is not None and self.ledger is not None and place is not None:
            self._batches_begun += 1
            self._journal.begin(self._batches_begun, self.ledger.finished, weight(batch), batch.n, *place)

    def write(self, batch: Batch) -> defer.Deferred[None] | None:
        if self.ledger is not None:
            self._note(batch)
        return self.sink.write(PendingText(self.texts(batch), batch.n, type(self).cut))
