"""Transport Sessions over SCTP (RFC 7011 section 10.2): an association, whose every message is an IPFIX Message."""

from __future__ import annotations

from ulogd_tw.collecting.reception import Reception
from ulogd_tw.collecting.stream_session import StreamSession
from ulogd_tw.ipfix.session import Session
from ulogd_tw.transports.sctp.listen import SctpConnection


class SctpSession(StreamSession):
    """One association. Its templates hold on all of its streams, each of which has its own Sequence Numbers.

    Data of one stream may overtake its template on another, and waits for it.
    """

    def __init__(self, reception: Reception, connection: SctpConnection, now: float) -> None:
        super().__init__(reception, connection, now)
        self._begin(now)
        connection.received = self.received_message
        connection.restarted = self._restarted

    def _begin(self, now: float) -> None:
        self.session = Session(self.session.peer, self.session.peer_port, reliable=True, overtakes=True)
        self.session.last_received = now

    def received_message(self, octets: bytes, stream: int) -> None:
        """A message has come on one of its streams."""
        try:
            self._feed_message(octets, stream)
        except Exception as error:
            self._reception.fault(error)

    def _feed_message(self, octets: bytes, stream: int) -> None:
        reception, session, now = self._reception, self.session, self._reception.now()
        before = session.malformed
        reception.streams.feed_stream(session, stream, octets, now)
        self._trail = 0 if session.malformed == before else self._trail + 1
        self._fed += 1
        self.judge(now)
        reception.fed(self, len(octets))

    def _restarted(self) -> None:
        """The exporter has begun anew: another Transport Session, without the templates of the old one."""
        reception = self._reception
        reception.counters.errors["restarted"] += 1
        reception.end_session(self.session)
        self._bad = self._trail = self._fed = self._settled = 0
        self._begin(reception.now())
        reception.renewed(self._connection, self.session)
        reception.say(f"restarted {self.session.peer}", "{peer} has restarted its association", peer=self.session.peer)
