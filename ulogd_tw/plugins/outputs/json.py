"""JSON: one object a line, to a file or to a peer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import numpy as np

from ulogd_tw.core import cells, columns, text
from ulogd_tw.core.aligned import Part, Strings
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Column
from ulogd_tw.core.lines import Field, Lines
from ulogd_tw.core.options import Option, boolean, one_of
from ulogd_tw.core.options import text as words
from ulogd_tw.core.patience import SOON
from ulogd_tw.core.phrases import moments
from ulogd_tw.core.plugin import FLOW, PACKET, RAW, SUM
from ulogd_tw.kernels.rows import FRACTION, Cells, Choice
from ulogd_tw.writing.objects import Objects, Plan
from ulogd_tw.writing.sockets import service_port, sink_for, unix_sink
from ulogd_tw.writing.text import SYNC, Sink, TextFile, TextOutput, file_option


class Timestamp(Field):
    """The time of a row in ulogd2's form: local, ``2026-11-23T00:10:00``, with ``.uuuuuu`` if the packet has it.

    ``+HHMM`` follows, but nothing if the zone's offset is zero.
    """

    def __init__(self, piece: bytes, seconds: Column, microseconds: Column | None, missing: np.ndarray | None) -> None:
        super().__init__(piece)
        self.seconds = seconds
        self.microseconds = microseconds
        self.without = missing

    def octets(self) -> int:
        return 33

    def parts(self, rows: slice) -> list[Part]:
        seconds, codes = moments(self.seconds[rows])
        dates, zones = zip(*map(local_time, seconds), strict=True)
        found: list[Part] = [b'"', *_chosen(dates, codes)]
        if self.microseconds is not None:
            found += self._fraction(rows)
        return [*found, *_chosen([zone + b'"' for zone in zones], codes)]

    def _fraction(self, rows: slice) -> list[Part]:
        if self.without is not None and self.without[rows].any():
            return [Strings.of(*_distinct(self._fractions(rows)))]
        return [b".", text.zero_filled(self.microseconds[rows] % np.uint32(10**6), 6)]

    def _fractions(self, rows: slice) -> list[bytes]:
        if self.microseconds is None:
            return [b""] * (rows.stop - rows.start)
        values = [b".%06d" % (value % 10**6) for value in self.microseconds[rows].tolist()]
        if self.without is None:
            return values
        return [b"" if gone else value for value, gone in zip(values, self.without[rows].tolist(), strict=True)]

    def cells(self, to: Cells) -> None:
        seconds, codes = moments(self.seconds)
        dates, zones = zip(*map(local_time, seconds), strict=True)
        to.text(b'"')
        cells.add_choice(to, Choice(dates), codes)
        if self.microseconds is not None and (self.without is None or not self.without.any()):
            cells.add_numbers(to, FRACTION, self.microseconds)
        elif self.microseconds is not None:
            cells.add_texts(to, self._fractions, self._fraction)
        cells.add_choice(to, Choice([zone + b'"' for zone in zones]), codes)

    def tokens(self, rows: slice) -> list[bytes]:
        found = []
        for second, fraction in zip(self.seconds[rows].tolist(), self._fractions(rows), strict=True):
            date, zone = local_time(second)
            found.append(b'"' + date + fraction + zone + b'"')
        return found


def _chosen(texts: list[bytes], codes: np.ndarray) -> list[Part]:
    return [texts[0]] if len(set(texts)) == 1 else [Strings.of(list(texts), codes)]


def _distinct(values: list[bytes]) -> tuple[list[bytes], np.ndarray]:
    """Values with their codes: one Python step a row (for rows with and without microseconds in one batch)."""
    places: dict[bytes, int] = {}
    codes = np.array([places.setdefault(value, len(places)) for value in values])
    return list(places), codes


def local_time(second: int) -> tuple[bytes, bytes]:
    """Date and time in the local zone, and the zone's offset in ulogd2's form."""
    local = time.localtime(second)
    offset = local.tm_gmtoff
    sign = "-" if offset < 0 else "+"
    zone = f"{sign}{abs(offset) // 3600:02d}{abs(offset) // 60 % 60:02d}" if offset else ""
    return time.strftime("%Y-%m-%dT%H:%M:%S", local).encode(), zone.encode()


class JSON(TextOutput):
    """Writes every row as a JSON object on a line of its own, to a file, a TCP or UDP peer, or a Unix socket.

    Names are ulogd2's (``src_ip``, ``dest_ip``, ``src_port``, ``dest_port``, ``reply.ip.saddr.str``), for collected
    records IANA's. Addresses are text, without IP2STR. Keys without a value and ulogd2's keys with raw octets are left
    out; octets of IPFIX elements are hexadecimal. Rows with keys of ulogd2 begin with ``timestamp`` and ``dvc``. Rows
    of a collector or aggregate do so only if the option timestamp or device is in the configuration.
    """

    name = "JSON"
    itype = RAW | PACKET | FLOW | SUM
    options = (
        file_option("/var/log/ulogd.json"),
        SYNC,
        Option("timestamp", boolean, True, "1: add the member timestamp, the time of the packet or else of writing, in "
               "local time."),
        Option("eventv1", boolean, False, "1: begin with the member @version (1), and call the timestamp @timestamp."),
        Option("device", words, "Netfilter", "Value of the member dvc."),
        Option("boolean_label", boolean, False, "1: write raw.label as the member action: blocked for 0, else "
               "allowed."),
        Option("mode", one_of("file", "tcp", "udp", "unix"), "file", "Destination: a file, a peer over tcp or udp (see "
               "host and port), or unix, a stream socket at the path in file."),
        Option("host", words, "127.0.0.1", "Name or address of the peer, with mode=tcp or udp."),
        Option("port", words, "12345", "Port of the peer, by number or name of the service, with mode=tcp or udp."),
    )  # fmt: skip

    def __init__(self, *arguments, **keywords) -> None:
        super().__init__(*arguments, **keywords)
        self._lines = Lines(b"\n{", b",", b"}")
        self._objects = Objects(self.config.boolean_label)

    def mistakes(self) -> Iterator[tuple[str, str]]:
        """A port that is neither a number nor a known service."""
        if self.config.mode in ("tcp", "udp"):
            try:
                service_port(self.config.port, self.config.mode)
            except ValueError as error:
                yield "port", str(error)

    def make_sink(self) -> Sink:
        """The file, or the peer's sink; it connects at `open`."""
        return TextFile(self, self.config.file, self.config.sync)

    def patience(self) -> float | None:
        return super().patience() if self.config.mode == "file" else SOON

    def open(self) -> None:
        if self.config.mode != "file":
            self.sink = self._remote()
        self.sink.open()

    def _remote(self) -> Sink:
        config = self.config
        if config.mode == "unix":
            return unix_sink(self, config.file)
        return sink_for(self, config.mode, config.host, service_port(config.port, config.mode))

    @staticmethod
    def complete(line: bytes) -> bool:
        try:
            return isinstance(json.loads(line), dict)
        except ValueError:
            return False

    def texts(self, batch: Batch) -> Iterator[tuple[bytes, int]]:
        plan = self._objects.plan(batch.schema)
        fields = [*self._head(batch, plan), *self._objects.members(batch)]
        return self._lines.render(fields, batch.n)

    def _head(self, batch: Batch, plan: Plan) -> Iterator[Field]:
        config = self.config
        if config.eventv1:
            yield Field(b'"@version":1')
        if config.timestamp and (plan.head or "timestamp" in config.given or config.eventv1):
            yield self._timestamp(batch)
        if plan.head or "device" in config.given:
            yield Field(b'"dvc":' + json.dumps(config.device, ensure_ascii=False).encode())

    def _timestamp(self, batch: Batch) -> Timestamp:
        piece = b'"@timestamp":' if self.config.eventv1 else b'"timestamp":'
        now = int(batch.now)
        seconds = batch.columns.get("oob.time.sec")
        if seconds is None:
            return Timestamp(piece, columns.repeated(now, batch.n, np.dtype(np.int64)), None, None)
        if (gone := batch.missing.get("oob.time.sec")) is not None:
            seconds = np.where(gone, now, seconds)
        return Timestamp(piece, seconds, batch.columns.get("oob.time.usec"), batch.missing.get("oob.time.usec"))
