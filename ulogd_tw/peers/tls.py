"""What plugins with TLS have in common: options, what can be wrong with them, and what is made of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, boolean, positive, seconds, text, words
from ulogd_tw.ipfix.exporters import NOT_ALLOWED, Allowed, networks
from ulogd_tw.transports.dtls.listener import GARBAGE, PLAIN, STRAY, TOO_MANY, DtlsGate
from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.tls.credentials import Credentials, Files, wrong_name
from ulogd_tw.transports.tls.listener import HandshakeGate

FILES = (
    Option("ca", text, "", "TLS: certificates of the CAs that sign the peers' certificates (PEM): a file, or a "
           "directory of .pem, .crt and .cer files."),
    Option("cert", text, "", "TLS: file with our certificate, followed by the intermediate certificates up to the CA "
           "(PEM)."),
    Option("private_key", text, "", "TLS: file with the key of cert (PEM, not encrypted), readable by its owner only. "
           "Empty: the key is in the file cert."),
)  # fmt: skip
LISTENING = (
    *FILES,
    Option("peers", words, (), "TLS: exporters allowed to connect, by a DNS name or IP address in their certificate "
           "(subjectAltName). Empty: every exporter with a certificate signed by ca."),
    Option("verify", boolean, True, "TLS: 0: accept exporters without a certificate. Anybody can then send records, "
           "and the log warns of it."),
    Option("handshake_timeout", seconds, 10.0, "TLS: seconds within which a handshake must end."),
    Option("max_handshakes", positive, 500, "TLS: maximum number of unfinished handshakes; one more breaks off the "
           "oldest."),
    Option("max_greetings", positive, 10_000, "DTLS: maximum number of answers a second to senders with an unproven "
           "address. Senders with a proven address are always answered."),
)  # fmt: skip
PEER_NAME = Option("peer_name", text, "", "TLS: DNS name or IP address that the collector's certificate must contain "
                   "(subjectAltName). Empty: the host of its URL.")  # fmt: skip
EXPORTING = (
    *FILES,
    PEER_NAME,
    Option("tls_settle", seconds, 2.0, "TLS 1.3: seconds after which our certificate counts as accepted if the "
           "collector sent neither a session ticket nor an alert."),
    Option("dtls_rehandshake", seconds, 600.0, "DTLS: seconds after which a new association replaces the old one. A "
           "collector that lost its side of the association silently goes unnoticed for at most this time. 0: never."),
)  # fmt: skip


def files(own: Any, common: Any) -> Files:
    """The files of a collector: its own, else those of its exporter. A certificate and its key stay together."""
    key = own.private_key or ("" if own.cert else common.private_key)
    return Files(own.ca or common.ca, own.cert or common.cert, key)


def listening_mistakes(config: Any) -> Iterator[tuple[str, str]]:
    """What is wrong with the options of an input that listens for TLS."""
    yield from Files(config.ca, config.cert, config.private_key, config.verify).mistakes()
    for name in config.peers:
        if wrong := wrong_name(name):
            yield "peers", wrong
    if config.peers and not config.verify:
        yield "peers", "with verify=0 there are no certificates, so no names"


def opened(credentials: Credentials) -> Credentials:
    """The same, with its files read. Raises StartError."""
    try:
        credentials.open()
    except TlsError as error:
        raise StartError(f"TLS: {error}") from None
    return credentials


def gate(collector: Any) -> HandshakeGate:
    """Where the TLS connections of a COLLECTOR wait for the end of their handshake. Raises StartError."""
    config, desk = collector.config, GateReports(collector, "TLS")
    return HandshakeGate(desk.credentials(), desk.refused, config.max_handshakes, config.handshake_timeout, desk.admits)


def dtls_gate(collector: Any, connected: Any, settled: Any) -> DtlsGate:
    """The same for the senders of DTLS; both arguments as `DtlsGate` has them. Raises StartError."""
    config, desk = collector.config, GateReports(collector, "DTLS")
    made = DtlsGate(
        desk.credentials(datagrams=True), connected, desk.refused, desk.passed_over, config.max_handshakes,
        config.handshake_timeout, config.max_greetings, desk.admits, settled,
    )  # fmt: skip
    collector.counters.figures["associations"] = lambda: made.associations
    return made


class GateReports:
    """What a gate asks of its COLLECTOR and tells it."""

    def __init__(self, collector: Any, what: str) -> None:
        self._collector = collector
        self._what = what
        self._allowed = Allowed(networks(collector.config.allow))

    def credentials(self, datagrams: bool = False) -> Credentials:
        config = self._collector.config
        files = Files(config.ca, config.cert, config.private_key, config.verify)
        found = opened(Credentials(files, True, config.peers, self._say, datagrams))
        if not config.verify:
            self._say("verify=0: exporters need no certificate, anybody can send flows")
        return found

    def _say(self, text: str) -> None:
        self._collector.say(f"tls {text}", time.time(), "{of}: {what}", of=self._what, what=text)

    def refused(self, peer: tuple[str, int], error: Any) -> None:
        collector = self._collector
        collector.counters.errors[error.reason] += 1
        collector.say(f"{error.reason} {peer[0]}", time.time(), "{of}: {host} port {port} is refused: {error}",
                      of=self._what, host=peer[0], port=peer[1], error=error)  # fmt: skip

    def passed_over(self, peer: tuple[str, int], reason: str) -> None:
        """A datagram of a sender that may be forged: a line of a kind a minute, whoever it names."""
        self._collector.counters.errors[reason] += 1
        self._collector.say(reason, time.time(), "{of}: a datagram from {host} port {port} is ignored: {why}",
                            of=self._what, host=peer[0], port=peer[1], why=_PASSED_OVER[reason])  # fmt: skip

    def admits(self, peer: tuple[str, int]) -> bool:
        if not self._allowed(peer[0]):
            self._collector.refused(peer, NOT_ALLOWED, time.time())
            return False
        return True


_PASSED_OVER = {
    PLAIN: "it is IPFIX without DTLS",
    GARBAGE: "it is not DTLS",
    STRAY: "it is of an association that is not known here (any more); an exporter has to begin anew",
    TOO_MANY: "max_greetings others were answered within this second",
}
