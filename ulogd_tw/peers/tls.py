"""IPFIX over TLS over TCP (RFC 7011 section 11), and the options and checks common to TLS and DTLS.

Modules that use OpenSSL are imported where they are needed: it takes 13 MB and 60 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ulogd_tw.core.options import Option, boolean, positive, seconds, text, words
from ulogd_tw.peers.target import Target
from ulogd_tw.peers.transport import Entrance, Mistakes, Transport
from ulogd_tw.transports.protocols import Listener
from ulogd_tw.transports.url import Url

if TYPE_CHECKING:
    from ulogd_tw.collecting.reception import Reception
    from ulogd_tw.exporting.collector import Collector
    from ulogd_tw.exporting.settings import Settings
    from ulogd_tw.transports.stream_listener import StreamConnection
    from ulogd_tw.transports.tls.credentials import Files

_FILES = (
    Option("ca", text, "", "TLS: certificates of the CAs that sign the peers' certificates (PEM): a file, or a "
           "directory of .pem, .crt and .cer files."),
    Option("cert", text, "", "TLS: file with our certificate, followed by the intermediate certificates up to the CA "
           "(PEM)."),
    Option("private_key", text, "", "TLS: file with the key of cert (PEM, not encrypted), readable by its owner only. "
           "Empty: the key is in the file cert."),
)  # fmt: skip
_LISTENING = (
    *_FILES,
    Option("peers", words, (), "TLS: exporters allowed to connect, by a DNS name or IP address in their certificate "
           "(subjectAltName). Empty: every exporter with a certificate signed by ca."),
    Option("verify", boolean, True, "TLS: 0: accept exporters without a certificate. Anybody can then send records, "
           "and the log warns of it."),
    Option("handshake_timeout", seconds, 10.0, "TLS: seconds within which a handshake must end."),
    Option("max_handshakes", positive, 500, "TLS: maximum number of unfinished handshakes; one more breaks off the "
           "oldest."),
)  # fmt: skip
_PEER_NAME = Option("peer_name", text, "", "TLS: DNS name or IP address that the collector's certificate must contain "
                    "(subjectAltName). Empty: the host of its URL.")  # fmt: skip


class Secured(Transport):
    """The common part of TLS and DTLS."""

    port = 4740
    listening: tuple[Option, ...] = _LISTENING
    exporting: tuple[Option, ...] = (*_FILES, _PEER_NAME)
    section = (
        *(Option(o.name, o.read, o.default, f"{o.meaning} Not given: as in the exporter's section.") for o in _FILES),
        _PEER_NAME,
    )

    def listening_mistakes(self, config: Any, used: bool) -> Mistakes:
        if not used:
            return
        from ulogd_tw.transports.tls.credentials import Files, wrong_name

        yield from Files(config.ca, config.cert, config.private_key, config.verify).mistakes()
        for name in config.peers:
            if wrong := wrong_name(name):
                yield "peers", wrong
        if config.peers and not config.verify:
            yield "peers", "with verify=0 there are no certificates, so no names"

    def target_mistakes(self, target: Target) -> Mistakes:
        from ulogd_tw.transports.tls.credentials import wrong_name

        yield from files_of(target).mistakes()
        name = peer_name(target)
        if name != target.url.host and (wrong := wrong_name(name)):
            yield "peer_name", wrong


class Tls(Secured):
    """Connections between peers with proven identity."""

    scheme = "tls"
    exporting = (
        *Secured.exporting,
        Option("tls_settle", seconds, 2.0, "TLS 1.3: seconds after which our certificate counts as accepted if the "
               "collector sent neither a session ticket nor an alert."),
    )  # fmt: skip

    def entrance(self, reception: Reception, config: Any) -> Entrance:
        return _Entrance(reception, config)

    def collector(self, target: Target, settings: Settings, config: Any) -> Collector:
        from ulogd_tw.exporting.tls import TlsCollector

        made = TlsCollector(target.url, settings, files_of(target), peer_name(target), config.tls_settle)
        return made.read_files()


class GateEntrance(Entrance):
    """Where handshakes are held, at a gate with our credentials."""

    gate: Any

    @property
    def handshakes(self) -> int:
        return len(self.gate)

    def reload(self) -> None:
        self.gate.credentials.reload()


class _Entrance(GateEntrance):
    def __init__(self, reception: Reception, config: Any) -> None:
        from ulogd_tw.peers.gate_reports import GateReports
        from ulogd_tw.transports.tls.listener import HandshakeGate

        reports = GateReports(reception, "TLS")
        self._reception = reception
        self.gate = HandshakeGate(
            reports.credentials(config), reports.refused, config.max_handshakes, config.handshake_timeout,
            reports.admits,
        )  # fmt: skip

    def bind(self, url: Url) -> Sequence[Listener]:
        return self.gate.bind(url, self._connected)

    def _connected(self, connection: StreamConnection) -> None:
        from ulogd_tw.collecting.stream_session import StreamSession

        self._reception.connected(connection, StreamSession, "tls")


def files_of(target: Target) -> Files:
    """The files of a collector: its own, else those of its exporter. A certificate and its key stay together."""
    from ulogd_tw.transports.tls.credentials import Files

    own, common = target.own, target.common
    key = own.private_key or ("" if own.cert else common.private_key)
    return Files(own.ca or common.ca, own.cert or common.cert, key)


def peer_name(target: Target) -> str:
    """The name that the certificate of a collector must have."""
    return target.own.peer_name or target.common.peer_name or target.url.host
