"""IPFIXFILE: writes rows with all their keys into IPFIX files (RFC 5655)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

from twisted.internet import defer, reactor, task, threads
from twisted.logger import Logger

from ulogd_tw.core.batch import Batch
from ulogd_tw.core.counters import Count, Fault
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, number, octets, seconds, text
from ulogd_tw.core.paths import output_file
from ulogd_tw.core.patience import Ends
from ulogd_tw.core.plugin import ALL, FLOW, PACKET, SUM, Output, Wanted
from ulogd_tw.core.plurals import plural
from ulogd_tw.core.states import State, down
from ulogd_tw.exporting import flow_records
from ulogd_tw.exporting.counts import RECORDS
from ulogd_tw.exporting.flow_records import FlowRecords
from ulogd_tw.ipfix.builder import MessageBuilder, Messages, template_messages
from ulogd_tw.ipfix.message import whole_messages
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.writing.counts import FILES
from ulogd_tw.writing.file_writer import FileWriter, Step
from ulogd_tw.writing.part_file import Leftover, Names, PartFile, recover
from ulogd_tw.writing.text import SYNC, TURN, patience_of

MOST_OCTETS = 65507
"""Maximum octets of a Message: one UDP datagram, so that a file can be sent unchanged."""
_AT_ONCE = 4096
"""Rows encoded in one step: their data stays in the processor's cache."""
_LARGE = 16384
"""Number of rows from which a batch is written right after the one before it."""


class _Stream:
    """The state of the Messages in one file (RFC 5655: as for one TCP connection)."""

    def __init__(self, file: PartFile, start: float, end: float) -> None:
        self.file = file
        self.start, self.end = start, end
        """Begin and end of its interval."""
        self.octets = 0
        self.sequence = 0
        self.sent_templates: set[int] = set()


class IPFIXFILE(Output):
    """Writes rows to IPFIX files (RFC 5655), with every key that has an Information Element.

    Records of a collector keep their exporter, in exporterIPv4Address or exporterIPv6Address, exporterTransportPort,
    originalObservationDomainId and collectionTimeMilliseconds; options records stay options records. The end of a
    connection (NFCT) becomes one record for each direction, as in the output IPFIX, because readers such as nfdump know
    no other form. A missing value is left out of the record, never written as 0.

    A file is called NAME.part until it ends, and is synced to disk before it gets its name. Existing files are never
    overwritten: the next name is NAME_01. After a kill, the next start cuts the .part file back to its last whole
    message and renames it.
    """

    name = "IPFIXFILE"
    itype = PACKET | FLOW | SUM
    counts = (
        *RECORDS,
        Count("files", "files", "Finished files."),
        *FILES,
        Fault("recover", "files", "Unfinished files of a killed process that cannot be recovered."),
    )
    options = (
        Option("file", output_file, "/var/lib/ulogd/flows-%Y%m%d-%H%M%S.ipfix", "Path of the files; strftime "
               "directives (%Y, %H) stand for the time (UTC) when the file or its interval begins. Directories with "
               "such a directive are made."),
        Option("rotate_interval", seconds, 300.0, "Seconds after which a new file begins; intervals begin at multiples "
               "of it in UTC. 0: no limit of time."),
        Option("rotate_size", octets, 0, "Octets after which a new file begins, such as 256M. 0: no limit of size."),
        Option("fields", text, flow_records.AUTO, flow_records.MEANING),
        Option("domain", number, 0, "Observation Domain ID of the messages. 0: the records may be of several domains."),
        SYNC,
    )  # fmt: skip
    reactor: Any = reactor
    clock = staticmethod(time.time)
    in_thread: Callable[..., defer.Deferred[Any]] = staticmethod(threads.deferToThread)  # type: ignore[arg-type]
    join_s = 0.05
    """Seconds after a small batch in which others join it: a write costs as much as some thousand rows."""
    log = Logger()

    def __init__(self, instance: str, config: Any = None) -> None:
        super().__init__(instance, config)
        self.names = Names(self.config.file)
        self.writer = FileWriter(self, self.reactor, self.in_thread)
        self._builder = MessageBuilder(MOST_OCTETS)
        self._stream: _Stream | None = None
        self._steps: list[Step] = []
        self._encoding = self._stopping = False
        self._pause: defer.Deferred[None] | None = None
        self.counters.figures["files"] = lambda: self.writer.ended

    @cached_property
    def flows(self) -> FlowRecords:
        """Makes the records."""
        return FlowRecords(self.counters, self.find, flow_records.parse(self.config.fields))

    @property
    def outgoing(self) -> RecordEncoder:
        """Encodes records, and keeps the templates of the file."""
        return self.flows.outgoing

    @property
    def copies(self) -> bool:
        """Whether received records can be copied as they came."""
        return self.flows.copies

    # options and keys

    def mistakes(self) -> Iterator[tuple[str, str]]:
        config = self.config
        try:
            flow_records.parse(config.fields)
        except ValueError as error:
            yield "fields", str(error)
        if not os.path.basename(config.file):
            yield (
                "file",
                f"{config.file!r} is not the name of a file; write one, such as /var/lib/ulogd/flows-%Y%m%d.ipfix",
            )
        if 0 < config.rotate_interval < 1 or config.rotate_interval % 1:
            yield (
                "rotate_interval",
                f"{config.rotate_interval:g} is not a time of whole seconds; write 1 or more, or 0 for none",
            )
        if not 0 <= config.domain <= 0xFFFFFFFF:
            yield "domain", f"{config.domain} is not an Observation Domain ID (0 to 4294967295)"

    def requests(self, wanted: Wanted) -> Any:
        return ALL

    def requests_of(self, above: frozenset[str] | None) -> Any:
        return self.flows.requests(above)

    def state(self) -> State:
        return down(self.writer.trouble)

    def patience(self) -> float | None:
        return patience_of(self.config.file, self.config.sync)

    def interval_ends(self) -> Iterable[Ends]:
        return (Ends(self.config.rotate_interval),) if self.config.rotate_interval else ()

    # start and stop

    def open(self) -> defer.Deferred[None]:
        """Check that files can be made, and finish those of a killed process."""
        directory = self.names.directory
        if not os.path.isdir(directory):
            raise StartError(
                f"there is no directory {directory}", f"mkdir -p {directory}, writable for the user of the service"
            )
        if not os.access(directory, os.W_OK | os.X_OK):
            raise StartError(f"{directory} cannot be written", "make it writable for the user of the service")
        return self.in_thread(lambda: list(recover(self.names, whole_messages))).addCallback(self._recovered)

    def _recovered(self, found: Iterable[Leftover | OSError]) -> None:
        for leftover in found:
            if isinstance(leftover, OSError):
                self.counters.errors["recover"] += 1
                self.log.error("{instance}: {error}", instance=self.instance, error=leftover)
                continue
            self.log.warn(
                "{instance}: {part} was left by a process that was killed; it is {path} now, with {messages}; "
                "the end was cut off ({cut})", instance=self.instance, part=leftover.part,
                path=leftover.path or "gone", messages=plural(leftover.messages, "complete message"),
                cut=plural(leftover.cut, "octet"),
            )  # fmt: skip

    def reopen(self) -> None:
        """SIGHUP: the next row begins a new file."""
        self._end_file()

    def wake(self, now: float) -> float:
        """End a file at the end of its interval, even without a further row."""
        self._end_if_over(self.clock())
        return 1.0

    @defer.inlineCallbacks
    def stop(self) -> Any:
        """End the file; unwritten rows go back to the queue."""
        self._stopping = True
        if self._pause is not None:
            self._pause.cancel()
        while self._encoding:
            yield task.deferLater(self.reactor, 0)
        self._end_file()
        yield self.writer.stop()

    # rows

    def write(self, batch: Batch) -> defer.Deferred[None]:
        """Encode all rows and write them; fires when the kernel has them."""
        return defer.Deferred.fromCoroutine(self._write(batch))

    async def _write(self, batch: Batch) -> None:
        counters = self.counters
        before = counters.dropped.total() + counters.rows_filtered
        self._end_if_over(self.clock())
        self._encoding, fault = True, None
        try:
            await self._encode(batch)
        except Exception as error:  # what is encoded by now is written, or sequence numbers would show a loss
            self._builder, fault = MessageBuilder(MOST_OCTETS), error
        self._encoding = False
        steps, self._steps = self._steps, []
        if names := self.flows.newly_left_out():
            self.log.info(flow_records.LEFT_OUT, instance=self.instance, names=", ".join(names))
        await self.writer.write(steps, batch.n - (counters.dropped.total() + counters.rows_filtered - before))
        if fault is not None:
            raise fault
        if batch.n < _LARGE and not self._stopping:
            self._pause = task.deferLater(self.reactor, self.join_s)
            self._pause.addErrback(lambda failure: failure.trap(defer.CancelledError))
            await self._pause

    async def _encode(self, batch: Batch) -> None:
        """Plan the steps for all rows; lets the reactor go on between."""
        until = self.reactor.seconds() + TURN
        for start in range(0, batch.n, _AT_ONCE):
            part = batch if batch.n <= _AT_ONCE else batch.take(slice(start, start + _AT_ONCE))
            if self.outgoing.full:
                self._put(self._builder.flush())
                self._end_file()
                self.outgoing.restart()
            for records in self.flows.records(part):
                self.counters.figures["records_encoded"] += len(records)
                self._put(self._builder.add(records))
            if self.reactor.seconds() > until:
                await task.deferLater(self.reactor, 0)
                until = self.reactor.seconds() + TURN
        self._put(self._builder.flush())
        if self._builder.too_long:
            self.counters.dropped["too_long"] += self._builder.too_long
            self._builder.too_long = 0

    # files

    def _put(self, blocks: list[Messages]) -> None:
        """Plan to write these Messages, with the templates missing in the file."""
        now, most = self.clock(), self.config.rotate_size
        for block in blocks:
            while block.count:
                stream = self._stream or self._begin(now)
                count = max((most - stream.octets) // block.length, 0) if most else block.count
                if not count and stream.sequence:
                    self._end_file()
                    continue
                part = block.part(0, max(count, 1))
                self._append(stream, part, now)
                block = block.part(part.count)

    def _append(self, stream: _Stream, part: Messages, now: float) -> None:
        domain = self.config.domain
        new = [self.outgoing.templates[ident] for ident in part.templates if ident not in stream.sent_templates]
        stream.sent_templates.update(part.templates)
        pieces: list[Any] = template_messages(new, MOST_OCTETS, stream.sequence, domain, now)
        pieces.append(part.stamped(stream.sequence, domain, now))
        stream.sequence += part.all_records
        stream.octets += sum(piece.nbytes if hasattr(piece, "nbytes") else len(piece) for piece in pieces)
        self._steps.append(Step(stream.file, pieces, part.all_records))

    def _begin(self, now: float) -> _Stream:
        interval = int(self.config.rotate_interval)
        start = now // interval * interval if interval else now
        file = PartFile(self.names, self.names.at(start), self.config.sync >= 2)
        self._stream = _Stream(file, start, start + interval if interval else float("inf"))
        return self._stream

    def _end_if_over(self, now: float) -> None:
        """End the file when its interval is over, or the clock was set back to before it."""
        stream = self._stream
        if stream is not None and not stream.start <= now < stream.end:
            self._end_file()

    def _end_file(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        if self._encoding:
            self._steps.append(Step(stream.file))
        else:
            self.writer.end(stream.file)
