"""PCAP: writes packets into capture files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from mmap import mmap

import numpy as np

from ulogd_tw.core import columns
from ulogd_tw.core.batch import Batch
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.counters import Dropped
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, one_of
from ulogd_tw.core.plugin import PACKET, RAW, Wanted
from ulogd_tw.core.resolve import Found
from ulogd_tw.packets import writing
from ulogd_tw.writing import tails
from ulogd_tw.writing.counts import LINES
from ulogd_tw.writing.text import SYNC, PendingText, TextFile, TextOutput, file_option

SLICE_OCTETS = 1 << 20
"""Approximate octets of one write."""


class CaptureFile(TextFile):
    """The file with its header; `links`: LINKTYPEs of its interfaces, in order."""

    def __init__(self, output: PCAP, path: str, sync: int, classic: bool) -> None:
        super().__init__(output, path, sync)
        self.classic = classic
        self.links: list[int] = []

    def _opened(self) -> int:
        fd = super()._opened()
        try:
            self._begin(fd)
        except Exception:
            os.close(fd)
            raise
        return fd

    def tail(self, octets: mmap) -> tails.Tail:
        head = writing.pcap_head(0) if self.classic else writing.section()
        if octets[:4] != head[:4][: len(octets)]:
            raise StartError(f"{self.path} exists, and is not a {'pcap' if self.classic else 'pcapng'} file")
        whole, lacking = writing.whole_records(octets) if self.classic else writing.whole_blocks(octets)
        if whole < len(octets) and not lacking:
            raise tails.DamagedFile(f"there is no packet at octet {whole}")
        return tails.Tail(whole)

    def _begin(self, fd: int) -> None:
        status = os.fstat(fd)
        old = stat.S_ISREG(status.st_mode) and status.st_size > 0
        if not self.classic:
            tails.append(fd, writing.section() + b"".join(map(writing.interface, self.links)))
        elif old:
            link = self._link_of_file()
            if link is None or self.links and self.links != [link]:
                raise StartError(f"{self.path} exists, and is not a pcap file of this link type")
            self.links = [link]
        elif self.links:
            tails.append(fd, writing.pcap_head(self.links[0]))

    def _link_of_file(self) -> int | None:
        with open(self.path, "rb") as file:
            return writing.link_of(file.read(writing.PCAP_HEAD))

    def reopen(self) -> None:
        try:
            super().reopen()
        except StartError as error:
            self.fault("reopen", "{error}; writing goes on to the file opened before", error=error)

    def declare(self, link: int) -> bool:
        """Make sure that packets of this link can be written; False if the file cannot hold them."""
        if link in self.links:
            return True
        if self.classic and self.links:
            return False
        if self.fd < 0:  # a named pipe that waits for a reader begins with the heads of all
            self.links.append(link)
            return True
        head = writing.pcap_head(link) if self.classic else writing.interface(link)
        try:
            tails.append(self.fd, head)
        except OSError as error:
            self.fault("write", "{path}: {error}", path=self.path, error=error.strerror)
            return False
        self.links.append(link)
        return True


@dataclass(frozen=True, slots=True)
class Packets:
    """Packets in octets, with their length on the wire, their time in microseconds, the number of their interface."""

    octets: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    wire: np.ndarray
    times: np.ndarray
    numbers: np.ndarray
    places: np.ndarray
    """Which of the packets of its read each one was, in all families together."""

    def rows(self, rows: slice | np.ndarray) -> tuple[np.ndarray, ...]:
        """The fields of some packets."""
        return (self.octets, *(column[rows] for column in (self.starts, self.lengths, self.wire, self.times,
                                                           self.numbers, self.places)))  # fmt: skip


def _in_order(parts: list[Packets]) -> Packets:
    """All packets of several batches by their times, packets of equal time by their places.

    Packets of one batch keep their order, as in ulogd2.
    """
    if len(parts) == 1:
        return parts[0]
    buffers = {id(part.octets): part.octets for part in parts}  # both families of a read have the same one
    ends = dict(zip(buffers, np.cumsum([0, *map(len, buffers.values())]).tolist(), strict=False))
    starts = np.concatenate([part.starts + ends[id(part.octets)] for part in parts])
    lengths, wire, times, numbers, places = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("lengths", "wire", "times", "numbers", "places")
    )
    latest = np.concatenate([np.maximum.accumulate(part.times) for part in parts])
    octets = np.concatenate(list(buffers.values())) if len(buffers) > 1 else parts[0].octets
    found = Packets(octets, starts, lengths, wire, times, numbers, places)
    return Packets(*found.rows(np.lexsort((places, latest))))


class PCAP(TextOutput):
    """Writes packets to a capture file, for tcpdump and Wireshark.

    Packets of NFLOG begin with their IP header (LINKTYPE_RAW, as in ulogd2). Packets of an input with link headers
    (PACKET, PCAPIN) keep them. Packets of both families that are read at once are written in the order of their times.
    A pcap file holds packets of one link type; packets of other types are dropped and counted as link. A pcapng file
    holds all. An existing file is continued.
    """

    name = "PCAP"
    together = True
    itype = RAW | PACKET
    counts = (*LINES, Dropped("link", "packets", "With format=pcap: packets of another link type than the file's."))
    options = (
        file_option("/var/log/ulogd.pcap"),
        SYNC,
        Option("format", one_of("pcap", "pcapng"), "pcap", "pcap: the format of ulogd2, read by every program; pcapng: "
               "one file may hold packets of several link types."),
    )  # fmt: skip
    uses = ("raw.pkt",)
    may_use = (
        "raw.pktlen",
        "raw.linktype",
        "oob.time.sec",
        "oob.time.usec",
        "ip.totlen",
        "ip6.payloadlen",
        "raw.position",
    )

    def make_sink(self) -> CaptureFile:
        return CaptureFile(self, self.config.file, self.config.sync, self.config.format == "pcap")

    def requests(self, wanted: Wanted) -> dict[str, bool]:
        return dict.fromkeys(self.uses, True) | dict.fromkeys(self.may_use, False)

    def open(self) -> None:
        if "raw.linktype" not in self.sources.recipes:  # then what the file has is known from the start
            self.sink.links = [writing.RAW]
        self.sink.open()

    def write(self, batch: Batch) -> object:
        return self.write_together([batch])

    def write_together(self, batches: Sequence[Batch]) -> object:
        packets = _in_order([self._packets(*self._writable(batch)) for batch in batches])
        cut = writing.pcap_cut if self.sink.classic else writing.pcapng_cut
        return self.sink.write(PendingText(self._slices(packets), len(packets.times), cut))

    def _writable(self, batch: Batch) -> tuple[Batch, np.ndarray]:
        """A mask of the rows with a packet of a link type allowed in the file, and their links."""
        found, linked = self.find(batch, "raw.pkt"), self.find(batch, "raw.linktype")
        links = columns.repeated(writing.RAW, batch.n, np.dtype(np.int64)) if linked is None else linked.values
        keep = np.ones(batch.n, bool)
        if found is None or found.missing is not None:
            keep &= False if found is None else ~found.missing
            self.counters.rows_filtered += batch.n - int(np.count_nonzero(keep))
        for link in np.unique(links[keep]).tolist():
            if not self.sink.declare(link):
                other = keep & (links == link)
                self.counters.dropped["link"] += int(np.count_nonzero(other))
                keep &= ~other
        return (batch, links) if keep.all() else (batch.take(keep), links[keep])

    def _packets(self, batch: Batch, links: np.ndarray) -> Packets:
        found = self.find(batch, "raw.pkt")
        octets, starts, lengths = columns.places(found.values if found is not None else Octets.of([]))
        numbers = np.zeros(batch.n, np.int64)
        for number, link in enumerate(self.sink.links):
            numbers[links == link] = number
        place = self.find(batch, "raw.position")
        places = np.arange(batch.n) if place is None else place.numbers.astype(np.int64)
        return Packets(octets, starts, lengths, self._wire(batch, lengths), self._times(batch), numbers, places)

    def _slices(self, packets: Packets) -> Iterator[tuple[bytes, int]]:
        n = len(packets.times)
        step = max(SLICE_OCTETS // (int(packets.lengths.sum()) // max(n, 1) + 16), 1)
        for start in range(0, n, step):
            *some, numbers, _ = packets.rows(slice(start, start + step))
            records = writing.pcap_records(*some) if self.sink.classic else writing.pcapng_blocks(*some, numbers)
            yield records, len(numbers)

    def _wire(self, batch: Batch, lengths: np.ndarray) -> np.ndarray:
        """Octets of a packet before it was cut: from its input, else from its header."""
        wire = lengths
        if (said := self.find(batch, "raw.pktlen")) is not None:
            wire = np.maximum(wire, _or_zero(said))
        if self.find(batch, "raw.linktype") is None:
            for name, more in (("ip.totlen", 0), ("ip6.payloadlen", 40)):
                if (said := self.find(batch, name)) is not None:
                    wire = np.maximum(wire, _or_zero(said) + more)
        return wire

    def _times(self, batch: Batch) -> np.ndarray:
        """Microseconds since 1970; for rows without a time the time of writing."""
        seconds, parts = self.find(batch, "oob.time.sec"), self.find(batch, "oob.time.usec")
        now = int(batch.now * 1e6)
        if seconds is None:
            return np.full(batch.n, now)
        times = _or_zero(seconds) * 1_000_000
        if parts is not None:
            times = times + _or_zero(parts)
        return times if seconds.missing is None else np.where(seconds.missing, now, times)


def _or_zero(found: Found) -> np.ndarray:
    return found.filled(0).astype(np.int64)
