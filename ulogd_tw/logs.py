"""Where the log goes: ``logfile=`` and ``loglevel=`` of [global], beside what twistd itself writes."""

from __future__ import annotations

import sys
from typing import Any

from twisted.application import service
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogPublisher,
    textFileLogObserver,
)

_LEVELS = {1: LogLevel.debug, 3: LogLevel.info, 5: LogLevel.info, 7: LogLevel.error, 8: LogLevel.critical}
"""ulogd2's levels; its notice (5, the default) is what Twisted calls info."""


class LogFile(service.Service):
    """Writes the log to the configured file, or to syslog. ``stdout`` and nothing are left to twistd."""

    log = Logger()

    def __init__(self, settings: Any) -> None:
        self.path: str = settings.logfile
        self.level = _LEVELS.get(settings.loglevel, LogLevel.info)
        self._observer: ILogObserver | None = None
        self._file: Any = None

    def privilegedStartService(self) -> None:
        """Open the log; exit status 2 where that cannot be, as ulogd2 has it."""
        if self.path in ("", "stdout"):
            return
        if self.path == "syslog":
            from twisted.logger import LegacyLogObserverWrapper
            from twisted.python.syslog import SyslogObserver

            observer = LegacyLogObserverWrapper(SyslogObserver("ulogd").emit)
        else:
            try:
                self._file = open(self.path, "a", buffering=1, encoding="utf-8")
            except OSError as error:
                print(f"logfile {self.path}: {error.strerror}", file=sys.stderr)
                raise SystemExit(2) from None
            observer = textFileLogObserver(self)
        predicate = LogLevelFilterPredicate(defaultLogLevel=self.level)
        self._observer = FilteringLogObserver(observer, [predicate])
        globalLogPublisher.addObserver(self._observer)

    def stopService(self) -> None:
        """Nothing of the log is lost: lines are written as they come."""
        super().stopService()
        if self._observer is not None:
            globalLogPublisher.removeObserver(self._observer)
        if self._file is not None:
            self._file.close()

    def write(self, text: str) -> None:
        """For Twisted's observer, which writes to an open file."""
        self._file.write(text)

    def flush(self) -> None:
        """For Twisted's observer."""
        self._file.flush()

    def reopen(self) -> None:
        """SIGHUP: logrotate has renamed the file. Keeps the old one where the new cannot be opened."""
        if self._file is None:
            return
        try:
            fresh = open(self.path, "a", buffering=1, encoding="utf-8")
        except OSError as error:
            self.log.error("logfile {path}: {error}; the old file is kept", path=self.path, error=error)
            return
        self._file.close()
        self._file = fresh
