"""Transport Sessions over DTLS (RFC 7011 section 10.3): an association, whose every message is an IPFIX Message."""

from __future__ import annotations

from ulogd_tw.collecting.reception import Reception
from ulogd_tw.ipfix.exporters import LIMIT_OF_ADDRESS, plain
from ulogd_tw.ipfix.session import Session
from ulogd_tw.transports.dtls.listener import Association


class DtlsSession:
    """One association: as over UDP, templates are repeated, and data may overtake them (section 8.4).

    The exporter has proved its identity, so other ports of its address are separate. A new association in place of an
    old one is not logged: exporters make them from time to time.
    """

    def __init__(self, reception: Reception, connection: Association, now: float) -> None:
        self.session = Session(plain(connection.peer[0]), connection.peer[1], reliable=False)
        self.session.last_received = now
        self._reception = reception
        self._connection = connection
        connection.received, connection.lost = self.received, self.lost

    def received(self, message: bytes) -> None:
        """A message has come."""
        try:
            self._reception.datagrams.feed(self.session, message, self._reception.now())
        except Exception as error:
            self._reception.fault(error)

    def judge(self, now: float, settled: bool = False) -> None:
        """Nothing: malformed datagrams end no association, as whoever sends them need not be its peer."""

    def lost(self, reason: str) -> None:
        """The association has ended, and its templates with it."""
        try:
            if self._reception.forget(self._connection, self.session) and not self._connection.fellows:
                self._reception.say_left(self._connection, reason)
        except Exception as error:
            self._reception.fault(error)


def take(reception: Reception, association: Association) -> None:
    """Take an association whose handshake has ended, unless its address has too many."""
    if association.fellows > reception.settings.max_sessions_of_address:
        reception.refused(association.peer, LIMIT_OF_ADDRESS)
        association.close()
    elif reception.take_connection(association, DtlsSession, "dtls") and association.fellows == 1:
        reception.say_connected(association)


def settle(reception: Reception) -> None:
    """All messages of one wake-up are handed over."""
    try:
        reception.hand_on_datagrams()
    except Exception as error:
        reception.fault(error)
