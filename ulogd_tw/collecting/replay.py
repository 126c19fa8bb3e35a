"""The common part of inputs that read files: one file after another, a slice at a time, by the files' clock."""

from __future__ import annotations

import glob
import gzip
import io
import time
import zlib
from collections.abc import Iterator
from typing import Any

from twisted.internet import reactor

from ulogd_tw.collecting.counts import REPLAYING
from ulogd_tw.collecting.input import Collecting
from ulogd_tw.core.counters import Declared
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, boolean, words
from ulogd_tw.core.plurals import plural

SLICE_OCTETS = 1 << 18
"""Octets that are read at once."""
SLICE_SECONDS = 0.02
"""For so long slices are read before others have their turn."""
SET_BACK = 60.0
"""Seconds by which times go back where another clock begins, and not only packets are out of order."""


class Replaying(Collecting):
    """An input that reads files and is then at its end.

    The clock of its rows is the files', so intervals and times of arrival are those of the files.
    """

    own_clock = True
    reading_options = (
        Option("file", words, None, "Files to read, in this order; * and ? are wildcards, and the files of one pattern "
               "are read in order of name. Files may be compressed with gzip. Example: "
               "/captures/*.pcap.gz", mandatory=True),
        Option("exit", boolean, False, "1: end the service once all files are read and all outputs have written their "
               "rows; for batch jobs."),
    )  # fmt: skip
    counts: tuple[Declared, ...] = (*Collecting.counts, *REPLAYING)
    reactor: Any = reactor

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self._decoder: Any = None
        """The decoder, after `open`."""
        self._now = 0.0
        self._pieces: Any = None
        self._later: Any = None
        self._paused = False
        self._stopped = False
        self._paths: list[str] = []

    def obstacles(self) -> Iterator[tuple[str, str, bool]]:
        """Each pattern has a file, as far as looking shows."""
        yield from super().obstacles()
        for pattern in self.config.file:
            if not glob.glob(pattern):
                yield "file", f"there is no file {pattern}", True

    def open(self) -> None:
        """Find the files; `StartError` where there is none, or one cannot be read."""
        self._paths = []
        for pattern in self.config.file:
            found = sorted(glob.glob(pattern)) or [pattern]
            self._paths += [path for path in found if path not in self._paths]
        for path in self._paths:
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise StartError(f"file {path}: {error.strerror}") from None
        self._decoder = self.decoder()

    def begin(self) -> None:
        self._pieces = self._read_all()
        self._soon(0.0)

    def stop(self) -> None:
        """Rows read so far are emitted; the rest of the files is not read."""
        self._stopped = True
        if self._later is not None and self._later.active():
            self._later.cancel()
        if self._decoder is not None:
            self.finish()
            self._decoder.end()
            self._hand_on()

    @property
    def exits(self) -> bool:  # type: ignore[override]
        return self.config.exit

    def pause(self) -> None:
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if self._later is None and self._pieces is not None and not self._stopped:
            self._soon(0.0)

    # read

    def _soon(self, delay: float) -> None:
        self._later = self.reactor.callLater(delay, self._turn)

    def _turn(self) -> None:
        """Read slices until it is the others' turn, the queue below is full, or the clock of the file says to wait."""
        self._later = None
        began = time.monotonic()
        delay = 0.0
        try:
            while not (self._paused or self._stopped) and time.monotonic() - began < SLICE_SECONDS:
                delay = next(self._pieces) or 0.0
                self._hand_on()
                if delay > 0:
                    break
        except StopIteration:
            self._pieces = None
            self._at_end()
            return
        except Exception as error:
            self.fault(error)
        if not (self._paused or self._stopped):
            self._soon(delay)

    def advance(self, now: float) -> None:
        """The clock of the file goes on; rows of another second go on first, so that each has its own time.

        A file may be of an earlier time than the one before it.
        """
        if now > self._now or now < self._now - SET_BACK:
            if int(now) != int(self._now):
                self._hand_on()
            self._now = now

    def _hand_on(self) -> None:
        self.emit_all(self._decoder, True, self._now)

    def _read_all(self) -> Iterator[float | None]:
        """Read each file; every step gives the seconds that are to pass before the next one."""
        for path in self._paths:
            try:
                with open(path, "rb") as file:
                    yield from self.read(path, _unpacked(file))
            except (OSError, EOFError, zlib.error) as error:  # gzip has errors of all three kinds
                self.counters.errors["file"] += 1
                self.log.error("{instance}: {path}: {error}", instance=self.instance, path=path, error=error)
            except Exception as error:  # ours: the next file may do better
                self.fault(error)
            self.end_file()
            self.counters.figures["files_read"] += 1
        self.finish()
        yield None

    def finish(self) -> None:
        """All files are read: feed the decoder with what is left over."""

    def read(self, path: str, file: io.BufferedReader) -> Iterator[float | None]:
        """Feed the decoder with a file, slice by slice, and keep `_now`."""
        raise NotImplementedError

    def end_file(self) -> None:
        """The end of a file, also of an unreadable one."""

    def _at_end(self) -> None:
        """All files are read."""
        counters = self.counters
        self._decoder.end()
        self._hand_on()
        self.at_end = True
        self.log.info(
            "{instance}: read {files}: {messages}, {rows}, malformed messages: {malformed}",
            instance=self.instance,
            files=plural(counters.figures["files_read"], "file"),
            messages=plural(counters.messages_received, "message"),
            rows=plural(counters.rows_received, "record"),
            malformed=self._decoder.malformed,
        )
        if self.exits:
            self.ended()


def _unpacked(file: io.BufferedReader) -> Any:
    """The file, or what gzip has made of it."""
    return gzip.open(file) if file.peek(2)[:2] == b"\x1f\x8b" else file
