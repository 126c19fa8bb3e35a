"""Why a peer is refused or a datagram does not go out: the reasons of senders and listeners."""

from __future__ import annotations

from ulogd_tw.core.counters import Fault

TLS = (
    Fault("tls_files", "handshakes", "Handshakes that failed since our own files cannot be used."),
    Fault("tls_no_certificate", "handshakes", "The peer has shown no certificate."),
    Fault("tls_expired", "handshakes", "The peer's certificate has expired."),
    Fault("tls_not_yet_valid", "handshakes", "The peer's certificate is not valid yet; is a clock wrong?"),
    Fault("tls_unknown_ca", "handshakes", "The peer's certificate comes from no CA in ca."),
    Fault("tls_name", "handshakes", "The peer's certificate is for none of the names it should have."),
    Fault("tls_certificate", "handshakes", "Something else is wrong with the peer's certificate."),
    Fault("tls_refused", "handshakes", "The peer does not take our certificate."),
    Fault("tls_version", "handshakes", "The peer speaks TLS 1.1 or older."),
    Fault("tls_cipher", "handshakes", "The peer has no cipher suite in common with us."),
    Fault("tls_alert", "handshakes", "The peer broke off for a reason of its own, which the log names."),
    Fault("tls_plain", "handshakes", "The peer speaks IPFIX without TLS (DTLS: datagrams)."),
    Fault("tls_garbage", "handshakes", "The peer speaks something else, or a damaged handshake (DTLS: datagrams)."),
    Fault("tls_broken", "connections", "Something on the way changed what the peer sent."),
    Fault("tls_closed", "handshakes", "The peer closed the connection within the handshake, or without a word of TLS."),
    Fault("tls_timeout", "handshakes", "The handshake did not end within handshake_timeout."),
    Fault("tls_limit", "handshakes", "More than max_handshakes had begun; the oldest are broken off."),
    Fault("dtls_unknown", "datagrams", "Datagrams of associations that are not known any more."),
)  # fmt: skip
"""Why there is no connection over TLS or DTLS."""

SENDING = (
    Fault("lookup", "attempts", "The collector's name was not found."),
    Fault("refused", "datagrams", "Nobody listens there."),
    Fault("unreachable", "datagrams", "There is no route to the collector."),
    Fault("no_buffers", "datagrams", "The kernel had no memory for the datagram."),
    Fault("forbidden", "datagrams", "A rule of this host forbids the datagram."),
    Fault("send", "datagrams", "Sending failed for another reason."),
)
"""Why a datagram did not go out."""
