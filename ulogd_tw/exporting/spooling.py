"""Moves messages waiting for an unreachable or slow collector to disk, and back when it is reachable."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Any

from twisted.internet import defer, threads

from ulogd_tw.exporting.message_spool import MessageSpool, SpoolFile
from ulogd_tw.exporting.settings import Settings
from ulogd_tw.ipfix.builder import Messages

_SOONEST = 0.02


class Spooling:
    """The part of a `Collector` that keeps its messages on disk.

    Every second `keep` looks at the queue. Messages waiting there since the last look are written to a file, so a kill
    costs at most the messages of the last second or two. Files are sent from the oldest on, and deleted when completely
    delivered. `lenders` are unreachable collectors with files that this one sends too.
    """

    def in_thread(self, call: Callable[..., Any], *arguments: Any) -> defer.Deferred[Any]:
        """Do it in a thread."""
        return threads.deferToThread(call, *arguments)

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.dropped: Counter[str] = Counter()
        self.last_error = ""
        self.spool: MessageSpool | None = None
        self.spool_rate = 20_000
        self.lenders: list[Any] = []
        self.records_spooled = 0
        self._queue: deque[Messages] = deque()
        self._sending: tuple[MessageSpool, SpoolFile] | None = None
        self._writing: list[Messages] = []
        self._seen: Messages | None = None
        self._later: Any = None
        self._queued_octets = 0
        self._closed = False

    # what a collector is

    @property
    def available(self) -> bool:
        """Whether the collector is there, as far as is known; one that was not tried yet is."""
        raise NotImplementedError

    @property
    def in_session(self) -> bool:
        """Whether there is a Transport Session, with a Sequence Number to show messages dropped now."""
        raise NotImplementedError

    def send_waiting(self) -> None:
        """Send what can be sent now."""
        raise NotImplementedError

    def _after_sending(self) -> None:
        """Say that there is room, if so."""
        raise NotImplementedError

    def _say(self, kind: str, text: str, **fields: Any) -> None:
        """Log a fault, at most once a minute for each kind."""
        raise NotImplementedError

    # the spool

    def keep(self, now: float) -> None:
        """Do what is due; to be called every second."""
        if self.spool is None or self._writing:
            return
        for reason, records in self.spool.trim(self.settings.reactor.seconds()).items():
            self.dropped[reason] += records
        self._settle_file()
        head = self._queue[0] if self._queue else None
        if head is not None and (not self.available or head is self._seen):
            self._to_disk(now)
        elif head is None and self._sending is None and self.in_session and self.available:
            self._from_disk()
        self._seen = self._queue[0] if self._queue else None

    def _settle_file(self) -> None:
        """Delete the file that was sent, if all of it has arrived."""
        if self._sending is not None and not self._left_of(self._sending[1]):
            spool, file = self._sending
            self._sending = None
            spool.done(file)

    def _left_of(self, file: SpoolFile) -> int:
        """Records of a file that wait here."""
        return sum(messages.all_records for messages in self._queue if messages.origin is file)

    def _out_of_queue(self) -> list[Messages]:
        """All waiting messages, except those already in a file.

        The rest of a file being sent stays, unless the collector is gone: then nothing is under way any more, and the
        undelivered messages are known.
        """
        blocks = [messages for messages in self._queue if messages.origin is None]
        rest = [messages for messages in self._queue if messages.origin is not None]
        if self._sending is not None and not (self.in_session and self.available):
            spool, file = self._sending
            self._sending = None
            spool.back(file, self._left_of(file))
            rest = []
        self._queue = deque(rest)
        self._queued_octets = sum(messages.nbytes for messages in rest)
        return blocks

    def _to_disk(self, now: float) -> None:
        assert self.spool is not None
        self._writing = blocks = self._out_of_queue()
        if not blocks:
            return
        settings = self.settings
        done = self.in_thread(self.spool.append, blocks, dict(settings.templates), settings.domain, now,
                              settings.reactor.seconds())  # fmt: skip
        done.addCallbacks(self._written, self._not_written)

    def _written(self, _: Any) -> None:
        self.records_spooled += sum(messages.all_records for messages in self._writing)
        self._writing = []
        self._after_sending()

    def _not_written(self, failure: Any) -> None:
        """The disk is full or gone: it waits in memory, as without a spool."""
        blocks, self._writing = self._writing, []
        self._queue.extendleft(reversed(blocks))
        self._queued_octets += sum(messages.nbytes for messages in blocks)
        self.last_error = f"spool: {failure.getErrorMessage()}"
        self._say("spool", "the spool cannot be written: {reason}", reason=failure.getErrorMessage())

    def _from_disk(self) -> None:
        for spool in (self.spool, *(lender.spool for lender in self.lenders if not lender.available)):
            try:
                taken = spool.take(self.settings.templates) if spool else None
            except OSError as error:
                self._say("spool", "the spool cannot be read: {reason}", reason=error)
                continue
            if taken is None:
                continue
            file, blocks = taken
            self._sending = (spool, file)
            self._queue.extend(blocks)
            self._queued_octets += sum(messages.nbytes for messages in blocks)
            records = sum(messages.all_records for messages in blocks)
            delay = max(records / self.spool_rate, _SOONEST)
            self._later = self.settings.reactor.callLater(delay, self._again)
            self.send_waiting()
            return

    def _again(self) -> None:
        self._later = None
        if not self._closed:
            self.send_waiting()
            self.keep(self.settings.clock())

    def keep_rest(self) -> None:
        """At a stop: all that waits goes to the disk."""
        if self._later is not None and self._later.active():
            self._later.cancel()
        self._later = None
        if self.spool is None:
            return
        self._settle_file()
        blocks = self._out_of_queue()
        if blocks:
            settings = self.settings
            try:
                self.spool.append(
                    blocks, settings.templates, settings.domain, settings.clock(), settings.reactor.seconds()
                )
            except OSError as error:
                self._queue.extend(blocks)
                self._say("spool", "the spool cannot be written: {reason}", reason=error)
                return
            self.records_spooled += sum(messages.all_records for messages in blocks)
