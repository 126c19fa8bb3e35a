"""Transport Sessions over DTLS (RFC 7011 section 10.3): an association, whose every message is an IPFIX Message."""

from __future__ import annotations

import time
from typing import Any

from ulogd_tw.ipfix.exporters import LIMIT_OF_ADDRESS, plain
from ulogd_tw.ipfix.session import Session
from ulogd_tw.peers.tls import dtls_gate
from ulogd_tw.transports.dtls.listener import Association, DtlsGate


class DtlsSession:
    """One association: as over UDP, templates come again, and data may overtake them (section 8.4).

    The exporter has proved who it is, so that no other port of its address has a part in it. The log does not tell of
    one that takes the place of another: exporters make new ones from time to time.
    """

    def __init__(self, collector: Any, connection: Association, now: float) -> None:
        self.session = Session(plain(connection.peer[0]), connection.peer[1], reliable=False)
        self.session.last_received = now
        self._collector = collector
        self._connection = connection
        connection.received, connection.lost = self.received, self.lost

    def received(self, message: bytes) -> None:
        try:
            self._collector._datagrams.feed(self.session, message, time.time())
        except Exception as error:
            self._collector.fault(error)

    def lost(self, reason: str) -> None:
        """The association has ended, and its templates with it."""
        connection, collector = self._connection, self._collector
        try:
            if collector.forget_datagrams(connection, self.session) and not connection.fellows:
                collector.say_left(connection, reason)
        except Exception as error:
            collector.fault(error)


def gate(collector: Any) -> DtlsGate:
    """Where exporters come in; their messages go to the decoder of datagrams. Raises StartError."""

    def connected(association: Association) -> None:
        if association.fellows > collector.config.max_sessions_of_address:
            collector.refused(association.peer, LIMIT_OF_ADDRESS, time.time())
            association.close()
            return
        if collector.take_connection(association, DtlsSession) and association.fellows == 1:
            collector.say_connected(association)

    def settled() -> None:
        try:
            collector.emit_all(collector._datagrams, False, time.time())
        except Exception as error:
            collector.fault(error)

    made = dtls_gate(collector, connected, settled)
    return made
