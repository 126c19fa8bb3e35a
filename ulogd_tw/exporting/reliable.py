"""What TCP and SCTP have in common: Messages are kept until the other side has them, and a stop waits for that."""

from __future__ import annotations

from collections import deque
from typing import Any

from twisted.internet import defer

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

    def poll(self, now: float) -> None:
        self.send_waiting()

    @defer.inlineCallbacks
    def stop(self) -> Any:
        reactor = self.settings.reactor
        deadline = reactor.seconds() + STOP_SECONDS
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
