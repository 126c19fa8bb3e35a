"""What plugins with TLS have in common: options, what can be wrong with them, and what is made of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Option, boolean, positive, seconds, text, words
from ulogd_tw.ipfix.exporters import NOT_ALLOWED, Allowed, networks
from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.tls import Credentials, Files, wrong_name
from ulogd_tw.transports.tlslisten import Gate

FILES = (
    Option("ca", text, "", "TLS: the certificates that peers must come from (PEM): a file, or a directory of .pem, "
           ".crt and .cer files"),
    Option("cert", text, "", "TLS: our certificate, and after it those between it and the CA (PEM)"),
    Option("private_key", text, "", "TLS: the key of cert (PEM, not encrypted), which only its owner can read; empty: "
           "it is in the file cert"),
)  # fmt: skip
LISTENING = (
    *FILES,
    Option("peers", words, (), "TLS: the exporters that are taken, by a DNS name or IP address of their certificate "
           "(subjectAltName); empty: every certificate that comes from ca"),
    Option("verify", boolean, True, "TLS: 0: exporters need no certificate and anybody is taken; the log warns of it"),
    Option("handshake_timeout", seconds, 10.0, "TLS: seconds within which a handshake has to end"),
    Option("max_handshakes", positive, 500, "TLS: handshakes that have not ended; beyond, the oldest is broken off"),
)  # fmt: skip
PEER_NAME = Option("peer_name", text, "", "TLS: the DNS name or IP address that a collector's certificate must have "
                   "(subjectAltName); empty: the host of its URL")  # fmt: skip
EXPORTING = (
    *FILES,
    PEER_NAME,
    Option("tls_settle", seconds, 2.0, "TLS 1.3: seconds after which a collector is taken to have accepted our "
           "certificate if it sends no session ticket, and no alert"),
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
        yield "peers", "without certificates (verify=0) there are no names"


def opened(credentials: Credentials) -> Credentials:
    """The same, with its files read. Raises StartError."""
    try:
        credentials.open()
    except TlsError as error:
        raise StartError(f"TLS: {error}") from None
    return credentials


def gate(collector: Any) -> Gate:
    """Where the TLS connections of a COLLECTOR wait for the end of their handshake. Raises StartError."""
    config = collector.config

    def say(text: str) -> None:
        collector.say(f"tls {text}", time.time(), "TLS: {what}", what=text)

    def refused(peer: tuple[str, int], error: Any) -> None:
        collector.counters.errors[error.reason] += 1
        collector.say(f"{error.reason} {peer[0]}", time.time(), "TLS: {host} port {port} is refused: {error}",
                      host=peer[0], port=peer[1], error=error)  # fmt: skip

    allowed = Allowed(networks(config.allow))

    def admits(peer: tuple[str, int]) -> bool:
        if not allowed(peer[0]):
            collector.refused(peer, NOT_ALLOWED, time.time())
            return False
        return True

    files = Files(config.ca, config.cert, config.private_key, config.verify)
    credentials = opened(Credentials(files, True, config.peers, say))
    if not config.verify:
        say("verify=0: exporters need no certificate, anybody can send flows")
    made = Gate(credentials, refused, config.max_handshakes, config.handshake_timeout, admits)
    collector.counters.more["handshakes"] = lambda: len(made)
    return made
