"""IPFIX over DTLS over UDP (RFC 7011 sections 10.3 and 11).

Modules that use OpenSSL are imported where they are needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ulogd_tw.core.options import Option, positive, seconds
from ulogd_tw.peers.target import Target
from ulogd_tw.peers.tls import GateEntrance, Secured, files_of, peer_name
from ulogd_tw.peers.transport import Entrance
from ulogd_tw.transports.protocols import Listener
from ulogd_tw.transports.url import Url

if TYPE_CHECKING:
    from ulogd_tw.collecting.reception import Reception
    from ulogd_tw.exporting.collector import Collector
    from ulogd_tw.exporting.settings import Settings


class Dtls(Secured):
    """Datagrams of peers with proven identity."""

    scheme = "dtls"
    listening = (
        *Secured.listening,
        Option("max_greetings", positive, 10_000, "DTLS: maximum number of answers a second to senders with an "
               "unproven address. Senders with a proven address are always answered."),
    )  # fmt: skip
    exporting = (
        *Secured.exporting,
        Option("dtls_rehandshake", seconds, 600.0, "DTLS: seconds after which a new association replaces the old "
               "one. A collector that lost its side of the association silently goes unnoticed for at most this "
               "time. 0: never."),
    )  # fmt: skip

    def entrance(self, reception: Reception, config: Any) -> Entrance:
        return _Entrance(reception, config)

    def collector(self, target: Target, settings: Settings, config: Any) -> Collector:
        from ulogd_tw.exporting.dtls import DtlsCollector

        made = DtlsCollector(target.url, settings, files_of(target), peer_name(target), config.dtls_rehandshake)
        return made.read_files()


class _Entrance(GateEntrance):
    def __init__(self, reception: Reception, config: Any) -> None:
        from ulogd_tw.collecting import dtls_session
        from ulogd_tw.peers.gate_reports import GateReports
        from ulogd_tw.transports.dtls.listener import DtlsGate

        reports = GateReports(reception, "DTLS")
        self._buffer, self._terms = config.receive_buffer, reception.settings.terms
        self.gate = gate = DtlsGate(
            reports.credentials(config, datagrams=True), lambda association: dtls_session.take(reception, association),
            reports.refused, reports.passed_over, config.max_handshakes, config.handshake_timeout,
            config.max_greetings, reports.admits, lambda: dtls_session.settle(reception),
        )  # fmt: skip
        reception.counters.figures["associations"] = lambda: gate.associations

    def bind(self, url: Url) -> Sequence[Listener]:
        return self.gate.bind(url, self._buffer, self._terms)
