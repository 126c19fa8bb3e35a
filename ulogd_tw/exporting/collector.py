"""The collectors of an exporter: each a Transport Session with its own queue, sequence, templates and figures.

Messages wait without Sequence Number and Export Time, and get both when they are sent: a new connection is a new
Transport Session and begins at 0 (RFC 7011 section 3.1). A queue that is over its bound drops its oldest Messages,
counts their records, and lets the Sequence Number go on, so that the collector sees the gap (section 10.2.2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import defer
from twisted.logger import Logger

from ulogd_tw.core.limited import RateLimitedLog
from ulogd_tw.core.plurals import plural
from ulogd_tw.exporting.settings import Settings
from ulogd_tw.exporting.spooling import Spooling
from ulogd_tw.ipfix.builder import Messages, template_messages
from ulogd_tw.ipfix.statements import counted
from ulogd_tw.transports.url import Url

STOP_SECONDS = 5.0
"""How long a collector may take at a stop."""
_LOOK_SECONDS = 0.02


class Collector(Spooling):
    """One collector: messages wait in order of `put`. Subclasses send them. `drained` is called while there is room."""

    log = Logger()
    limit = 0
    """Octets of a Message at most."""

    def __init__(self, url: Url, settings: Settings) -> None:
        super().__init__(settings)
        self.url = url
        self.sequence = 0
        """Data Records sent in this Transport Session, or dropped in it."""
        self.dropped_counts = (0, 0)
        """Packets and octets that the dropped records spoke of."""
        self.drained: Callable[[], None] = lambda: None
        self.connects = self.messages_sent = self.octets_sent = self.records_sent = self.records_moved = 0
        self.options_sent = 0
        """Options records among those sent."""
        self.options_at = (0, 0.0)
        """The session and the time from which on its options records are due after an interval."""
        self.sent_templates: set[int] = set()
        """Templates that this Transport Session has."""
        self._limited = RateLimitedLog(settings.reactor.seconds)

    def options_due(self, interval: float) -> bool:
        """Whether it shall get options records now; then the next interval begins."""
        now = self.settings.reactor.seconds()
        session, since = self.options_at
        if session != self.connects or not self.sent_templates:
            self.options_at = self.connects, now
        if now - self.options_at[1] < interval or not (self.in_session and self.available):
            return False
        self.options_at = self.connects, now
        return True

    @property
    def waiting_records(self) -> int:
        return sum(messages.all_records for messages in (*self._queue, *self._writing))

    @property
    def full(self) -> bool:
        """Whether it can take no more without dropping something."""
        return self._queued_octets >= self.settings.queue_octets

    def put(self, messages: list[Messages]) -> None:
        """Take messages, and send what can be sent."""
        self._queue.extend(messages)
        self._queued_octets += sum(m.nbytes for m in messages)
        self.send_waiting()

    def take_over(self, other: Collector) -> None:
        """Messages waiting for another, unreachable collector wait for this one now."""
        blocks = other._out_of_queue()
        other.records_moved += sum(messages.all_records for messages in blocks)
        self._queue.extend(blocks)
        self._queued_octets += sum(messages.nbytes for messages in blocks)
        self.send_waiting()

    def trim(self) -> None:
        """Drop the oldest messages beyond the bound: the newest are the most useful."""
        while self._queue and (over := self._queued_octets - self.settings.queue_octets) > 0:
            messages = self._queue[0]
            count = min(-(-over // messages.length), messages.count)
            self._drop(self._take(count), "queue_full")

    def _take(self, count: int) -> Messages:
        """The next `count` messages, out of the queue; no more than the first block has."""
        messages = self._queue.popleft()
        if count < messages.count:
            self._queue.appendleft(messages.part(count))
            messages = messages.part(0, count)
        self._queued_octets -= messages.nbytes
        return messages

    def _drop(self, messages: Messages, reason: str) -> None:
        self.dropped[reason] += messages.all_records
        packets, octets = counted(messages, self.settings.templates)
        self.dropped_counts = self.dropped_counts[0] + packets, self.dropped_counts[1] + octets
        if self.in_session:
            self.sequence += messages.counted  # MSG-5: the loss shall be visible

    def _count_sent(self, messages: int, octets: int, records: int) -> None:
        self.messages_sent += messages
        self.octets_sent += octets
        self.records_sent += records

    def _after_sending(self) -> None:
        if self._queued_octets * 2 <= self.settings.queue_octets:
            self.drained()

    def _template_messages(self, ids: Any, now: float) -> list[bytes]:
        templates = [self.settings.templates[ident] for ident in ids]
        settings = self.settings
        return template_messages(templates, self.limit, self.sequence, settings.domain, now, settings.form)

    def _new_templates(self, messages: Messages) -> list[int]:
        """Templates that go out before these messages."""
        if self.settings.send_template == "never":
            return []
        if self.settings.send_template == "always":
            return list(messages.templates)
        return [ident for ident in messages.templates if ident not in self.sent_templates]

    def _say(self, kind: str, text: str, **fields: Any) -> None:
        """Log a fault, at most once a minute for each kind."""
        self._limited.say(self.log.warn, kind, "collector {url}: " + text, url=str(self.url), **fields)

    # for subclasses

    reliable = False
    """Whether sent templates are sure to arrive, so that they are sent once in a session."""

    @property
    def state(self) -> str:
        """A word for `stats_file`."""
        raise NotImplementedError

    def open(self) -> None:
        """Begin; a collector that is away now may come later."""
        raise NotImplementedError

    def poll(self, now: float) -> None:
        """Do what time asks for; called about every second."""

    def reopen(self) -> None:
        """SIGHUP: read files anew, where there are any."""

    def stop(self) -> defer.Deferred[None]:
        """Send what waits and close, within `STOP_SECONDS`; what is left is dropped and counted."""
        raise NotImplementedError

    def _drop_rest(self) -> None:
        self.keep_rest()
        self._closed = True
        while self._queue:
            self._drop(self._take(self._queue[0].count), "stop_timeout")
        if left := self.dropped["stop_timeout"]:
            self.log.error(
                "collector {url}: {records} not sent before the stop",
                url=str(self.url),
                records=plural(left, "record was", "records were"),
            )

    def obstacle(self) -> str:
        """Why records do not go to it now; empty where they do."""
        if self.in_session:
            return ""
        return f"collector {self.url} is {self.state}" + (f": {self.last_error}" if self.last_error else "")

    def figures(self) -> dict[str, Any]:
        """For `stats_file`."""
        return {
            "state": self.state, "connects": self.connects, "messages_sent": self.messages_sent,
            "octets_sent": self.octets_sent, "records_sent": self.records_sent, "records_waiting": self.waiting_records,
            "octets_waiting": self._queued_octets, "records_moved": self.records_moved,
            "records_spooled": self.records_spooled, "records_in_spool": self.spool.records if self.spool else 0,
            "octets_in_spool": self.spool.octets if self.spool else 0, "dropped": dict(self.dropped),
            "options_sent": self.options_sent, "last_error": self.last_error,
        }  # fmt: skip


def pause(reactor: Any) -> defer.Deferred[None]:
    """Fires after a moment, at a stop."""
    waiting: defer.Deferred[None] = defer.Deferred()
    reactor.callLater(_LOOK_SECONDS, waiting.callback, None)
    return waiting
