"""XML: one element a row, in files of ulogd2's names and form."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from mmap import mmap
from typing import Any

from twisted.internet import defer

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.options import Option, Options, boolean
from ulogd_tw.core.paths import directory
from ulogd_tw.core.plugin import FLOW, RAW, SUM, Output
from ulogd_tw.core.resolve import Found
from ulogd_tw.core.states import State, down
from ulogd_tw.writing.counts import LINES
from ulogd_tw.writing.tails import Tail
from ulogd_tw.writing.text import SYNC, PendingText, TextFile, patience_of
from ulogd_tw.writing.xml_elements import FLOW_KEYS, PACKET_KEYS, SUM_KEYS, flows, packets, sums

HEAD = b'<?xml version="1.0" encoding="utf-8"?>\n<%s>\n'


@dataclass(frozen=True)
class Kind:
    """A kind of rows: the word in the file's name, the root element, how rows become elements."""

    word: str
    root: bytes
    render: Callable[[Callable[[str], Found | None], Batch], Iterator[tuple[bytes, int]]]


KINDS = {
    FLOW: Kind("flow", b"conntrack", flows),
    RAW: Kind("pkt", b"packet", packets),
    SUM: Kind("sum", b"sum", sums),
}


class DocumentFile(TextFile):
    """A document: the root element opens with the file, and closes at the end and at SIGHUP, which begins another."""

    def __init__(self, output: XML, kind: Kind) -> None:
        super().__init__(output, "stdout", output.config.sync)
        self.kind = kind
        self.directory = "" if output.config.stdout else output.config.directory

    wall = staticmethod(time.time)
    """The clock of the files' names."""

    def _opened(self) -> int:
        """A new file with its head. The name has ulogd2's form; another file of that second gets a number after it."""
        if self.directory:
            self.path = self._fresh()
        opened = super()._opened()
        _write(opened, HEAD % self.kind.root)
        return opened

    def _fresh(self) -> str:
        stamp = time.strftime("%d%m%Y-%H%M%S", time.localtime(self.wall()))
        name = os.path.join(self.directory, f"ulogd-{self.kind.word}-{stamp}")
        paths = (f"{name}{suffix}.xml" for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
        return next((path for path in paths if not os.path.exists(path)), f"{name}.xml")

    def tail(self, octets: mmap) -> Tail:
        """A document is never continued, so all that is there stays."""
        return Tail(len(octets))

    def _leave(self) -> None:
        """Close the root element, behind the last whole row."""
        if self.rest is not None:
            self._take_back()
        _write(self.fd, b"</%s>\n" % self.kind.root)


def _write(descriptor: int, octets: bytes) -> None:
    """Write the head or the end of a document; a full disk or pipe lacks it, as after a crash."""
    try:
        os.write(descriptor, octets)
    except OSError:
        pass


class XML(Output):
    """Writes each row as an XML element, into a file for flows, for packets and for counters.

    The files are ulogd-flow-DDMMYYYY-HHMMSS.xml, ulogd-pkt-... and ulogd-sum-..., with the elements of ulogd2; SIGHUP
    ends them and begins new ones. Strings have entities for &, < and >, which ulogd2 leaves out.
    """

    name = "XML"
    itype = RAW | FLOW | SUM
    counts = LINES
    options = (
        Option("directory", directory, "/var/log/", "Directory of the files."),
        Option("stdout", boolean, False, "1: write to standard output instead."),
        SYNC,
    )
    may_use = (*FLOW_KEYS, *PACKET_KEYS, *SUM_KEYS)

    def __init__(self, instance: str, config: Options | None = None, clock: Any = None) -> None:
        super().__init__(instance, config)
        if clock is None:
            from twisted.internet import reactor as clock
        self.clock = clock
        self._files: dict[int, DocumentFile] = {}

    def state(self) -> State:
        return down(*(file.obstacle() for file in self._files.values()))

    def patience(self) -> float | None:
        return patience_of("stdout" if self.config.stdout else self.config.directory, self.config.sync)

    def open(self) -> None:
        """Begin a document for each kind of rows that the inputs above give."""
        for kind in KINDS:
            if any(source.otype & kind for source in self.inputs):
                self._file(kind)

    def _file(self, kind: int) -> DocumentFile:
        if kind not in self._files:
            made = DocumentFile(self, KINDS[kind])
            made.open()
            self._files[kind] = made
        return self._files[kind]

    def reopen(self) -> None:
        for file in self._files.values():
            file.reopen()

    def stop(self) -> Any:
        return defer.gatherResults([defer.maybeDeferred(file.stop) for file in self._files.values()])

    def write(self, batch: Batch) -> defer.Deferred[None] | None:
        kind = SUM if "sum.name" in batch.schema else RAW if "raw.pkt" in batch.schema else FLOW

        def get(name: str) -> Found | None:
            return self.find(batch, name)

        return self._file(kind).write(PendingText(KINDS[kind].render(get, batch), batch.n))
