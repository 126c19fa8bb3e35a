"""A collector over SCTP (RFC 7011 section 10.2).

Templates go reliably and in order on stream 0 (section 8.3), data on the other streams in turn. Data waits until the
collector has acknowledged its templates, since Messages of different streams may overtake each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ulogd_tw.core.plurals import plural
from ulogd_tw.exporting.message_spool import SpoolFile
from ulogd_tw.exporting.reliable import ReliableCollector
from ulogd_tw.exporting.settings import Settings
from ulogd_tw.ipfix.builder import Messages
from ulogd_tw.transports.sctp import Options
from ulogd_tw.transports.sctp.sender import SctpSender
from ulogd_tw.transports.url import Url

RELIABLE_MESSAGE, PARTIAL_MESSAGE = 16384, 1400
"""Octets of a Message: as over TCP; and where Messages have a lifetime, as many as one packet takes."""
_ON_A_STREAM = 65536
"""Octets that go on one stream before it is the next one's turn."""
_WINDOW = 4 << 20
"""Octets that are kept until all of them are acknowledged: no more are given to the stack before."""


class SctpCollector(ReliableCollector):
    """A collector over SCTP. Unacknowledged messages are kept, and sent again on the next association."""

    def __init__(self, url: Url, settings: Settings, options: Options, lifetime: float = 0.0) -> None:
        self._stream = 0
        self._sequences = [0]
        super().__init__(url, settings)
        self._lifetime_ms = int(lifetime * 1000)
        self.limit = settings.mtu or (PARTIAL_MESSAGE if self._lifetime_ms else RELIABLE_MESSAGE)
        self._given_up: set[int] = set()
        self._context = 1
        self._awaits_templates = False
        self.sender = SctpSender(
            url, settings.reactor, settings.reconnect, options, self._connected, self.send_waiting, self._lost,
            self._failed, self._given_up.add,
        )  # fmt: skip

    @property
    def sequence(self) -> int:
        """Data Records sent, or dropped, on the stream whose turn it is (section 3.1: each stream counts alone)."""
        return self._sequences[self._stream]

    @sequence.setter
    def sequence(self, value: int) -> None:
        self._sequences[self._stream] = value

    # the association

    def _connected(self) -> None:
        """A new Transport Session: every stream from 0, with all templates first."""
        self.connects += 1
        self._sequences = [0] * self.sender.streams
        self._stream = self._next_stream(0)
        self._context = 1
        self._awaits_templates = False
        self.sent_templates.clear()
        self.log.info(
            "collector {url}: connected, {streams}", url=str(self.url), streams=plural(self.sender.streams, "stream")
        )
        if self.settings.send_template != "never":
            self._send_templates(sorted(self.settings.templates))
        self.send_waiting()

    def _next_stream(self, stream: int) -> int:
        """The streams in turn, without 0 where there are others."""
        return stream % (len(self._sequences) - 1) + 1 if len(self._sequences) > 1 else 0

    def _lost(self, reason: str) -> None:
        """Put what the collector's stack has not acknowledged back into the queue, in front."""
        self._give_back(list(self._unsettled()), "association", reason)
        self._forget()

    def _unsettled(self) -> Iterator[Messages]:
        """The kept Messages that the stack has given up, in runs."""
        for first, messages in self._kept:
            at = 0
            while at < messages.count:
                end = at
                while end < messages.count and first + end in self._given_up:
                    end += 1
                if end > at:
                    yield messages.part(at, end)
                at = end + 1

    def _left_of(self, file: SpoolFile) -> int:
        kept = sum(messages.all_records for _, messages in self._kept if messages.origin is file)
        return kept + super()._left_of(file)

    def _forget(self) -> None:
        self._kept.clear()
        self._kept_octets = 0
        self._given_up.clear()

    def _settle(self) -> None:
        """Let go of all sent messages, once the stack has none under way."""
        if not self.sender.is_up or not (self._kept or self._awaits_templates) or not self.sender.all_acknowledged():
            return
        self._awaits_templates = False
        late = sum(messages.all_records for messages in self._unsettled())  # their lifetime was over
        if late:
            self.dropped["lifetime"] += late
            self.records_sent -= late
        self._forget()

    # Messages

    def _send_templates(self, templates: list[int]) -> None:
        """Send templates; data of new ones waits until they are acknowledged."""
        if not templates:
            return
        turn, self._stream = self._stream, 0
        for message in self._template_messages(templates, self.settings.clock()):
            self.sender.write(message, 0, 0, answer_soon=True)
            self._count_sent(1, len(message), 0)
        self._stream = turn
        self._awaits_templates = self._awaits_templates or not self.sent_templates.issuperset(templates)
        self.sent_templates.update(templates)

    def send_waiting(self) -> None:
        self._settle()
        while self._queue and self.sender.has_room and self._kept_octets < _WINDOW:
            self._send_templates(self._new_templates(self._queue[0]))
            if self._awaits_templates:
                break
            self._send(self._take(max(_ON_A_STREAM // self._queue[0].length, 1)))
        self._after_sending()

    def _send(self, messages: Messages) -> None:
        octets = messages.stamped(self.sequence, self.settings.domain, self.settings.clock())
        self._kept.append((self._context, messages))
        self._kept_octets += messages.nbytes
        last = self._context + messages.count - 1
        pressing = not self._queue or self._kept_octets >= _WINDOW
        for message in octets:  # one Python step a Message of up to 16 KB, 3 us
            self.sender.write(
                message.tobytes(), self._stream, self._context, self._lifetime_ms, pressing and self._context == last
            )
            self._context += 1
        self.sequence += messages.all_records
        self._count_sent(messages.count, messages.nbytes, messages.all_records)
        self._stream = self._next_stream(self._stream)

    def figures(self) -> dict[str, Any]:
        return super().figures() | {
            "streams": len(self._sequences), "unreachable": self.sender.unreachable,
        }  # fmt: skip
