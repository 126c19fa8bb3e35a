"""Why a peer is refused or a datagram does not go out: the reasons of senders and listeners."""

from __future__ import annotations

from ulogd_tw.core.counters import Fault

TLS = (
    Fault("tls_files", "handshakes", "Handshakes that failed since our own files cannot be used."),
    Fault("tls_no_certificate", "handshakes", "The peer has no certificate."),
    Fault("tls_expired", "handshakes", "The peer's certificate has expired."),
    Fault("tls_not_yet_valid", "handshakes", "The peer's certificate is not valid yet; is a clock wrong?"),
    Fault("tls_unknown_ca", "handshakes", "The peer's certificate is signed by no CA in ca."),
    Fault("tls_name", "handshakes", "The peer's certificate has none of the expected names."),
    Fault("tls_certificate", "handshakes", "Something else is wrong with the peer's certificate."),
    Fault("tls_refused", "handshakes", "The peer refuses our certificate."),
    Fault("tls_version", "handshakes", "The peer speaks TLS 1.1 or older."),
    Fault("tls_cipher", "handshakes", "The peer has no cipher suite in common with us."),
    Fault("tls_alert", "handshakes", "The peer ended the handshake for another reason, given in the log."),
    Fault("tls_plain", "handshakes", "The peer speaks IPFIX without TLS (DTLS: datagrams)."),
    Fault("tls_garbage", "handshakes", "The peer sends something else, or a damaged handshake (DTLS: datagrams)."),
    Fault("tls_broken", "connections", "The data of the peer was changed on the way."),
    Fault("tls_closed", "handshakes", "The peer closed the connection during the handshake."),
    Fault("tls_timeout", "handshakes", "The handshake did not end within handshake_timeout."),
    Fault("tls_limit", "handshakes", "More than max_handshakes handshakes at once; the oldest are broken off."),
    Fault("dtls_unknown", "datagrams", "Datagrams of unknown associations, such as those before a restart."),
)  # fmt: skip
"""Why there is no connection over TLS or DTLS."""

SENDING = (
    Fault("lookup", "attempts", "The collector's name was not found."),
    Fault("refused", "datagrams", "No program listens there."),
    Fault("unreachable", "datagrams", "There is no route to the collector."),
    Fault("no_buffers", "datagrams", "The kernel had no memory for the datagram."),
    Fault("forbidden", "datagrams", "A rule of this host forbids the datagram."),
    Fault("send", "datagrams", "Sending failed for another reason."),
)
"""Why a datagram did not go out."""
