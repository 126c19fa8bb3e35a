"""What TCP and SCTP have in common: Messages are kept until the other side has them, and a stop waits for that."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet import defer

from ulogd_tw.core.plurals import plural
from ulogd_tw.exporting.collector import STOP_SECONDS, Collector, pause
from ulogd_tw.exporting.settings import Settings
from ulogd_tw.ipfix.builder import Messages
from ulogd_tw.transports.url import Url


class ReliableCollector(Collector):
    """A collector that acknowledges, whose Messages are sent again on the next connection until it has."""

    reliable = True
    sender: Any

    def __init__(self, url: Url, settings: Settings) -> None:
        super().__init__(url, settings)
        self.records_resent = 0
        self._kept: deque[tuple[int, Messages]] = deque()
        """Messages given to this connection, each block with the sender's number of its beginning."""
        self._kept_octets = 0
        self._stops = False

    @property
    def state(self) -> str:
        if self.sender.is_up:
            return "connected"
        return "closed" if self._closed else "connecting" if self.sender.connecting else "waiting"

    @property
    def in_session(self) -> bool:
        return self.sender.is_up

    @property
    def available(self) -> bool:
        return self.sender.is_up or not (self.connects or self.last_error)

    def open(self) -> None:
        self.sender.open()

    def _failed(self, reason: str) -> None:
        self.last_error = reason
        self._say("failed", "cannot connect: {reason}", reason=reason)

    def _give_back(self, again: list[Messages], link: str, reason: str) -> None:
        """The connection or association is lost: these Messages go back into the queue, in front."""
        records = sum(messages.all_records for messages in again)
        if self._stops and not records:
            return  # the end of the connection at a stop
        self.last_error = reason
        self.records_sent -= records
        self.records_resent += records
        self._queue.extendleft(reversed(again))
        self._queued_octets += sum(messages.nbytes for messages in again)
        what = f"; {plural(records, 'record is', 'records are')} sent again" if records else ""
        self._say("lost", "{link} lost: {reason}{what}", link=link, reason=reason, what=what)

    def poll(self, now: float) -> None:
        self.send_waiting()

    @defer.inlineCallbacks
    def stop(self) -> Any:
        reactor = self.settings.reactor
        deadline = reactor.seconds() + STOP_SECONDS
        self._stops = True
        while (self._queue or self._kept) and reactor.seconds() < deadline:
            if not self.sender.is_up and not self.sender.connecting:
                break
            yield pause(reactor)
            self.send_waiting()
        finished = not self._queue and not self._kept
        closing = self.sender.close()
        if not finished:
            self.sender.abort()
        yield closing.addTimeout(max(deadline - reactor.seconds(), 0.5), reactor).addErrback(self._not_closed)
        self._drop_rest()

    def _not_closed(self, failure: Any) -> None:
        failure.trap(defer.TimeoutError)
        self.sender.abort()

    def figures(self) -> dict[str, Any]:
        return super().figures() | {
            "records_resent": self.records_resent, "octets_unacknowledged": self._kept_octets,
        }  # fmt: skip
