"""SYSLOG: sends the texts of PRINTPKT and PRINTFLOW to the system's log, as syslog(3) does."""

from __future__ import annotations

import os
from typing import Any

from ulogd_tw.core.lines import Lines
from ulogd_tw.core.options import Option, one_of, text
from ulogd_tw.core.patience import SOON
from ulogd_tw.plugins.outputs.logemu import LOGEMU, stamp
from ulogd_tw.writing.datagrams import UnixDatagrams
from ulogd_tw.writing.text import Sink

FACILITIES = {"LOG_KERN": 0, "LOG_USER": 1, "LOG_DAEMON": 3} | {f"LOG_LOCAL{n}": 16 + n for n in range(8)}
LEVELS = {"LOG_EMERG": 0, "LOG_ALERT": 1, "LOG_CRIT": 2, "LOG_ERR": 3, "LOG_WARNING": 4, "LOG_NOTICE": 5,
          "LOG_INFO": 6, "LOG_DEBUG": 7}  # fmt: skip
"""RFC 5424 section 6.2.1."""


class SYSLOG(LOGEMU):
    """Sends the text of PRINTPKT or PRINTFLOW to the system's log: ``<5>Nov 23 00:10:38 ulogd[4711]: text``.

    The time is the packet's (oob.time.sec), else the time of writing. Rows without a text are left out.
    """

    name = "SYSLOG"
    options = (
        Option("facility", one_of(*FACILITIES), "LOG_KERN", "Syslog facility of the messages."),
        Option("level", one_of(*LEVELS), "LOG_NOTICE", "Syslog severity of the messages."),
        Option("socket", text, "/dev/log", "Path of the system log's socket."),
    )

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        priority = FACILITIES[self.config.facility] << 3 | LEVELS[self.config.level]
        self._lines = Lines(b"\n<%d>" % priority, b" ", b"")
        self._host = b"ulogd[%d]:" % os.getpid()

    @staticmethod
    def stamp(second: int) -> bytes:
        """As in LOGEMU, with a blank before a day of one digit (RFC 3164 section 4.1.2)."""
        found = stamp(second)
        return found[:4] + b" " + found[5:] if found[4:5] == b"0" else found

    def patience(self) -> float | None:
        return SOON

    def make_sink(self) -> Sink:
        return UnixDatagrams(self, self.config.socket)
