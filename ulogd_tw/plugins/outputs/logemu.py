"""LOGEMU: lines in the format of syslog, with the texts of PRINTPKT and PRINTFLOW."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import numpy as np

from ulogd_tw.core import columns
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.lines import Lines
from ulogd_tw.core.phrases import Phrase, Words, moments, value
from ulogd_tw.core.plugin import FLOW, PACKET, Wanted
from ulogd_tw.writing.text import SYNC, TextOutput, file_option

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def stamp(second: int) -> bytes:
    """The local time in the format of syslog, in English for any locale."""
    local = time.localtime(second)
    day = f"{_MONTHS[local.tm_mon - 1]} {local.tm_mday:02d}"
    return f"{day} {local.tm_hour:02d}:{local.tm_min:02d}:{local.tm_sec:02d}".encode()


class LOGEMU(TextOutput):
    """Writes the text of PRINTPKT or PRINTFLOW to a file in the format of syslog: ``Nov 23 00:10:38 host text``.

    The time is the packet's (oob.time.sec), else the time of writing. Rows without a text are left out.
    """

    name = "LOGEMU"
    itype = PACKET | FLOW
    options = (file_option("/var/log/ulogd_syslogemu.log"), SYNC)
    uses = ("print",)
    may_use = ("oob.time.sec",)

    stamp = staticmethod(stamp)

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._lines = Lines(b"\n", b" ", b"")
        self._host = socket.gethostname().partition(".")[0].encode()

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return {"print": True, "oob.time.sec": False}

    def texts(self, batch: Batch) -> Iterator[tuple[bytes, int]]:
        found = self.find(batch, "print")
        if found is not None and found.missing is not None and found.missing.any():
            self.counters.rows_filtered += int(np.count_nonzero(found.missing))
            batch = batch.take(~found.missing)
            found = self.find(batch, "print")
        if found is None:
            self.counters.rows_filtered += batch.n
            return iter(())
        return self._lines.render([self._time(batch), Phrase([self._host]), value(found)], batch.n)

    def _time(self, batch: Batch) -> Words:
        """The time of each row: one Python step for each second."""
        now, at = int(batch.now), self.find(batch, "oob.time.sec")
        seconds = columns.repeated(now, batch.n, np.dtype(np.int64)) if at is None else at.filled(now)
        different, codes = moments(seconds)
        return Words([self.stamp(second) for second in different], codes)
