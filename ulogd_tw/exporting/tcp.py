"""A collector over TCP (RFC 7011 section 10.4)."""

from __future__ import annotations

from ulogd_tw.exporting.message_spool import SpoolFile
from ulogd_tw.exporting.reliable import ReliableCollector
from ulogd_tw.exporting.settings import Settings
from ulogd_tw.transports.protocols import StreamSender
from ulogd_tw.transports.tcp_sender import TcpSender
from ulogd_tw.transports.url import Url

STREAM_MESSAGE = 16384
"""Octets of a Message over TCP: its headers are 0.1 %, and what is sent again after a break begins at a Message."""
WRITTEN_AT_ONCE = 262144
"""Octets given to a TCP connection in one go; more wait here until it asks for them."""


class StreamCollector(ReliableCollector):
    """A collector over TCP. Messages not acknowledged by its kernel are kept, and sent again on the next connection."""

    def __init__(self, url: Url, settings: Settings) -> None:
        super().__init__(url, settings)
        self.limit = settings.mtu or STREAM_MESSAGE
        self.sender = self._sender()

    def _sender(self) -> StreamSender:
        settings = self.settings
        return TcpSender(
            self.url, settings.reactor, settings.reconnect, self._connected, self.send_waiting, self._lost, self._failed
        )

    def _connected(self) -> None:
        """A new Transport Session: from 0, with all templates first (TCP-3)."""
        self.connects += 1
        self.sequence = 0
        self.log.info("collector {url}: connected", url=str(self.url))
        if self.settings.send_template != "never":
            self._send_templates(sorted(self.settings.templates))
        self.send_waiting()

    def _lost(self, reason: str, acknowledged: int) -> None:
        """Put what the collector's kernel does not have back into the queue, in front."""
        self._settle(acknowledged)
        self._give_back([messages for _, messages in self._kept], "connection", reason)
        self._kept.clear()
        self._kept_octets = 0

    def _settle(self, acknowledged: int) -> None:
        """Forget kept messages that were acknowledged as a whole."""
        while self._kept:
            start, messages = self._kept[0]
            count = min((acknowledged - start) // messages.length, messages.count)
            if count <= 0:
                return
            self._kept.popleft()
            self._kept_octets -= count * messages.length
            if count < messages.count:
                self._kept.appendleft((start + count * messages.length, messages.part(count)))
                return

    def _left_of(self, file: SpoolFile) -> int:
        kept = sum(messages.all_records for _, messages in self._kept if messages.origin is file)
        return kept + super()._left_of(file)

    def _send_templates(self, templates: list[int]) -> None:
        if not templates:
            return
        for message in self._template_messages(templates, self.settings.clock()):
            self.sender.write(message)
            self._count_sent(1, len(message), 0)
        self.sent_templates.update(templates)

    def send_waiting(self) -> None:
        if self.sender.is_up and self._kept:
            self._settle(self.sender.acknowledged())
        while self._queue and self.sender.has_room:
            first = self._queue[0]
            messages = self._take(max(WRITTEN_AT_ONCE // first.length, 1))
            self._send_templates(self._new_templates(messages))
            self._kept.append((self.sender.written, messages))
            self._kept_octets += messages.nbytes
            octets = messages.stamped(self.sequence, self.settings.domain, self.settings.clock())
            self.sequence += messages.all_records
            self._count_sent(messages.count, messages.nbytes, messages.all_records)
            self.sender.write(octets.tobytes())
        self._after_sending()
