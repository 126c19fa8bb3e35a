"""Destination and level of the log: ``logfile=`` and ``loglevel=`` of [global], for twistd and the service."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from twisted.application import service
from twisted.logger import (
    FilteringLogObserver,
    ILogFilterPredicate,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    PredicateResult,
    globalLogPublisher,
)
from zope.interface import implementer

from ulogd_tw import log_lines
from ulogd_tw.core.limited import RateLimit

_LEVELS = {1: LogLevel.debug, 3: LogLevel.info, 5: LogLevel.info, 7: LogLevel.error, 8: LogLevel.critical}
"""ulogd2's levels; its notice (5, the default) is Twisted's info."""
_CLOSED = "EMFILE recovery: Closed socket"
"""Begins Twisted's line for a connection that it closed because it had no descriptor for it."""


@implementer(ILogFilterPredicate)
class _Least:
    """Lets lines of a level and above through. Twisted's own reports of good news count as debug."""

    def __init__(self, level: Any) -> None:
        self.least = level

    def __call__(self, event: LogEvent) -> Any:
        return PredicateResult.maybe if log_lines.level_of(event) >= self.least else PredicateResult.no


@implementer(ILogObserver)
class OutOfDescriptors:
    """Says, once a minute, that connections were closed for want of file descriptors.

    Twisted closes them, and tells of it in three lines or more for each (namespace twisted.internet.tcp).
    """

    log = Logger()

    def __init__(self) -> None:
        self._limit = RateLimit()

    def __call__(self, event: LogEvent) -> None:
        if not str(event.get("log_format")).startswith(_CLOSED):
            return
        if count := self._limit.take("descriptors", time.monotonic()):
            self.log.error(
                "no file descriptor is left, and connections were closed ({n}), the last from {host}; allow more "
                "(ulimit -n, LimitNOFILE= of the unit) or fewer (max_sessions)", n=count,
                host=getattr(event.get("address"), "host", None) or (event.get("address") or ["?"])[0],
            )  # fmt: skip


class LogFile(service.Service):
    """Writes the log to standard output, to the configured file, or to syslog, from `loglevel` on.

    Without ``logfile=`` a daemon logs to syslog, any other process to standard output.
    """

    log = Logger()

    def __init__(self, settings: Any, daemon: bool = False) -> None:
        self.path: str = settings.logfile or "stdout"
        if daemon and self.path == "stdout":
            self.path = "syslog"
        self._filter = _Least(_LEVELS.get(settings.loglevel, LogLevel.info))
        self._format: str = settings.log_format
        self._file: Any = None
        self.in_journal = False

    def open(self) -> ILogObserver:
        """The only observer for twistd. SystemExit 2 if it cannot be opened, as in ulogd2."""
        if self.path == "syslog":
            observer: ILogObserver = log_lines.SyslogLines(self._format)
        elif self.path == "stdout":
            self.in_journal = log_lines.is_journal(sys.stdout)
            form = log_lines.form_of(self._format, self.in_journal)
            observer = log_lines.LineObserver(sys.stdout, form)
        else:
            self.path = os.path.abspath(self.path)
            try:
                self._file = open(self.path, "a", buffering=1, encoding="utf-8")
            except OSError as error:
                print(f"logfile {self.path}: {error.strerror}", file=sys.stderr)
                raise SystemExit(2) from None
            observer = log_lines.LineObserver(self, log_lines.form_of(self._format, False))
        observer = FilteringLogObserver(observer, [self._filter])
        globalLogPublisher.addObserver(OutOfDescriptors())
        return observer

    def set_level(self, level: int) -> None:
        """Write lines of this level and above from now on."""
        self._filter.least = _LEVELS.get(level, LogLevel.info)

    def stopService(self) -> None:
        """Nothing to do: each line is written as it comes."""
        super().stopService()
        if self._file is not None:
            self._file.flush()

    def write(self, text: str) -> None:
        """For the observer, which writes to an open file."""
        self._file.write(text)

    def flush(self) -> None:
        """For the observer."""
        self._file.flush()

    def reopen(self) -> None:
        """SIGHUP: logrotate has renamed the file. The old file stays if the new one cannot be opened."""
        if self._file is None:
            return
        try:
            fresh = open(self.path, "a", buffering=1, encoding="utf-8")
        except OSError as error:
            self.log.error("logfile {path}: {error}; the old file is kept", path=self.path, error=error)
            return
        self._file.close()
        self._file = fresh
