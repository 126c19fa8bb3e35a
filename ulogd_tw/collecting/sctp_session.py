"""Transport Sessions over SCTP (RFC 7011 section 10.2): an association, whose every message is an IPFIX Message."""

from __future__ import annotations

import time
from typing import Any

from ulogd_tw.collecting.stream_session import StreamSession
from ulogd_tw.ipfix.session import Session
from ulogd_tw.transports.sctp.listen import SctpConnection, SctpListener

__all__ = ["Association", "SctpConnection", "SctpListener"]


class Association(StreamSession):
    """One association. Its templates hold on all of its streams, each of which has its own Sequence Numbers.

    Data of one stream may overtake its template on another, and waits for it.
    """

    def __init__(self, collector: Any, connection: SctpConnection, now: float) -> None:
        super().__init__(collector, connection, now)
        self._begin(now)
        connection.restarted = self._restarted

    def _begin(self, now: float) -> None:
        self.session = Session(self.session.peer, self.session.peer_port, reliable=True, overtakes=True)
        self.session.last_received = now

    def received(self, octets: bytes, stream: int) -> None:
        try:
            self._feed_message(octets, stream)
        except Exception as error:
            self.collector.fault(error)

    def _feed_message(self, octets: bytes, stream: int) -> None:
        collector, session, now = self.collector, self.session, time.time()
        before = session.malformed
        collector._streams.feed_stream(session, stream, octets, now)
        self._trail = 0 if session.malformed == before else self._trail + 1
        self._fed += 1
        collector._unsettled.add(self)
        self.judge(now)
        collector._hand_on_soon(len(octets))

    def _restarted(self) -> None:
        """The exporter has begun anew: another Transport Session, without the templates of the old one."""
        collector, now = self.collector, time.time()
        collector.counters.errors["restarted"] += 1
        collector._hand_on()
        collector._streams.forget(self.session)
        self._bad = self._trail = self._fed = self._settled = 0
        self._begin(now)
        collector.say(f"restarted {self.session.peer}", now, "{peer} has restarted its association",
                      peer=self.session.peer)  # fmt: skip
