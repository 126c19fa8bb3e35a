"""GRAPHITE: sends the kernel's counters (NFACCT) to a Carbon server, two lines each."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ulogd_tw.core.batch import Batch, plain_values
from ulogd_tw.core.options import Option, text
from ulogd_tw.core.patience import SOON
from ulogd_tw.core.plugin import SUM, Wanted
from ulogd_tw.writing.sockets import service_port, sink_for
from ulogd_tw.writing.text import Sink, TextOutput

_ODD = re.compile(rb"[\x00-\x20\x7f]")
"""Octets forbidden in names of Carbon."""
_NAMES = ("sum.name", "sum.pkts", "sum.bytes")


def pairs(octets: bytes | bytearray, place: int) -> tuple[int, int]:
    """The `Cut` of records with two lines."""
    complete = octets.count(b"\n", 0, place) // 2
    start = 0
    for _ in range(2 * complete):
        start = octets.index(b"\n", start) + 1
    return start, complete


class GRAPHITE(TextOutput):
    """Sends the counters of NFACCT to a Carbon server over TCP, as PREFIX.NAME.pkts and PREFIX.NAME.bytes.

    The time is the reading's (with NFACCT's timestamp=1), else the time of writing. Blanks in names become _.
    """

    name = "GRAPHITE"
    itype = SUM
    options = (
        Option("host", text, "", "Name or address of the Carbon server."),
        Option("port", text, "2003", "Port of the server, by number or name of the service."),
        Option("prefix", text, "", "Text before the counters' names, such as netfilter.router1. Empty: none."),
    )
    uses = _NAMES
    may_use = ("oob.time.sec",)
    cut = staticmethod(pairs)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        if not self.config.host:
            yield "host", 'must be given, such as host="127.0.0.1"'
        try:
            service_port(self.config.port, "tcp")
        except ValueError as error:
            yield "port", str(error)

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return dict.fromkeys(_NAMES, True) | {"oob.time.sec": False}

    def patience(self) -> float | None:
        return SOON

    def make_sink(self) -> Sink:
        """The peer's sink; it connects at `open`."""
        return Sink(self)

    def open(self) -> None:
        self.sink = sink_for(self, "tcp", self.config.host, service_port(self.config.port, "tcp"))
        self.sink.open()

    def texts(self, batch: Batch) -> Iterator[tuple[bytes, int]]:
        """One Python step a counter (1 M a second); a kernel has hundreds."""
        columns = []
        for name in _NAMES:
            found = self.find(batch, name)
            columns.append(plain_values(found.values, found.key))
        when = self.find(batch, "oob.time.sec")
        times = [int(batch.now)] * batch.n if when is None else when.values.tolist()
        prefix = self.config.prefix.encode() + b"." if self.config.prefix else b""
        lines = []
        for name, packets, octets, time in zip(*columns, times, strict=True):
            name = prefix + _ODD.sub(b"_", name)
            lines.append(b"%s.pkts %d %d\n%s.bytes %d %d\n" % (name, packets, time, name, octets, time))
        if lines:
            yield b"".join(lines), batch.n
