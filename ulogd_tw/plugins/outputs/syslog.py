"""SYSLOG: the texts of PRINTPKT and PRINTFLOW to the system's log, as syslog(3) sends them."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from twisted.internet import defer

from ulogd_tw.core.lines import Lines
from ulogd_tw.core.options import Option, one_of, text
from ulogd_tw.plugins.outputs.logemu import LOGEMU, stamp
from ulogd_tw.plugins.outputs.textfile import BUSY, RETRY, TURN, Sink

FACILITIES = {"LOG_KERN": 0, "LOG_USER": 1, "LOG_DAEMON": 3} | {f"LOG_LOCAL{n}": 16 + n for n in range(8)}
LEVELS = {"LOG_EMERG": 0, "LOG_ALERT": 1, "LOG_CRIT": 2, "LOG_ERR": 3, "LOG_WARNING": 4, "LOG_NOTICE": 5,
          "LOG_INFO": 6, "LOG_DEBUG": 7}  # fmt: skip
"""RFC 5424 section 6.2.1."""


class UnixDatagrams(Sink):
    """A line a datagram to a Unix socket that another process has: about 0.3 M lines a second.

    While nobody listens there or the socket is full, rows wait, and are tried again.
    """

    def __init__(self, output: SYSLOG, path: str) -> None:
        super().__init__(output)
        self.path = path
        self._socket: socket.socket | None = None

    def open(self) -> None:
        """Connected with the first line: a log that is not there yet is no reason not to start."""

    def reopen(self) -> None:
        self._disconnect()

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def close(self) -> defer.Deferred[None] | None:
        self._disconnect()
        return None

    def pump(self) -> bool:
        until = self.clock.seconds() + TURN
        while line := self.rest.record():
            try:
                if self._socket is None:
                    self._socket = _connected(self.path)
                self._socket.send(line[:-1])
            except BlockingIOError:
                self.later(BUSY)
                return False
            except OSError as error:
                if error.errno != errno.EMSGSIZE:
                    self._missed(error)
                    return False
                self.fault("too_long", "{path}: a line is longer than a datagram: dropped", path=self.path)
                self.output.counters.dropped["too_long"] += 1
            self.rest.sent(len(line))
            if self.clock.seconds() > until:
                self.later(0)
                return False
        return True

    def _missed(self, error: OSError) -> None:
        self._disconnect()
        self.fault("connection", "{path}: {error}; its rows wait and are tried again every {retry} s",
                   path=self.path, error=error.strerror, retry=RETRY)  # fmt: skip
        self.later(RETRY)


def _connected(path: str) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        made.connect(path)
    except OSError:
        made.close()
        raise
    return made


class SYSLOG(LOGEMU):
    """Send the text of PRINTPKT or PRINTFLOW to the system's log: ``<5>Nov 23 00:10:38 ulogd[4711]: text``.

    The time is that of the packet (oob.time.sec), or that of output. Rows without a text are left out.
    """

    name = "SYSLOG"
    options = (
        Option("facility", one_of(*FACILITIES), "LOG_KERN", "facility of the messages"),
        Option("level", one_of(*LEVELS), "LOG_NOTICE", "level of the messages"),
        Option("socket", text, "/dev/log", "path of the log's socket"),
    )

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        priority = FACILITIES[self.config.facility] << 3 | LEVELS[self.config.level]
        self._lines = Lines(b"\n<%d>" % priority, b" ", b"")
        self._host = b"ulogd[%d]:" % os.getpid()

    @staticmethod
    def stamp(second: int) -> bytes:
        """As that of LOGEMU, with a blank before a day of one digit (RFC 3164 section 4.1.2)."""
        found = stamp(second)
        return found[:4] + b" " + found[5:] if found[4:5] == b"0" else found

    def make_sink(self) -> Sink:
        return UnixDatagrams(self, self.config.socket)
