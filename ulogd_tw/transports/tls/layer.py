"""One end of a TLS connection over memory: octets in and out, no socket and no timer; and why a peer is refused."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from cryptography import x509
from OpenSSL import SSL
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns

from ulogd_tw.transports.errors import TlsError

REASONS = (
    "tls_no_certificate", "tls_expired", "tls_not_yet_valid", "tls_unknown_ca", "tls_name", "tls_certificate",
    "tls_refused", "tls_version", "tls_cipher", "tls_alert", "tls_plain", "tls_garbage", "tls_broken", "tls_closed",
    "tls_timeout", "tls_limit",
)  # fmt: skip
"""Why a connection is none, as counters have it."""

_READ = 1 << 16
_HANDSHAKE, _ALERT = 22, 21
_IPFIX = b"\x00\x0a"
"""How a Message of IPFIX begins."""
_CB_READ_ALERT, _CB_LOOP = 0x4004, 0x1001
_TICKET = b"SSLv3/TLS read server session ticket"
"""SSL_state_string_long when a client has read one (OpenSSL 3 and 4)."""

_UNKNOWN_CA = {2, 18, 19, 20, 21, 27}
_CHAIN_FAULTS = {
    7: "a signature in it is wrong", 23: "it was revoked", 24: "it was signed by a certificate that is no CA's",
    25: "its chain is longer than its CA allows", 26: "it is not for this use (see its extendedKeyUsage)",
    66: "its key is too weak", 67: "the key of its CA is too weak", 68: "it was signed with a hash that is too weak",
}  # fmt: skip
"""X509_V_ERR_ of OpenSSL's x509_vfy.h."""

_ALERTS = {
    10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow", 40: "handshake_failure",
    42: "bad_certificate", 43: "unsupported_certificate", 44: "certificate_revoked", 45: "certificate_expired",
    46: "certificate_unknown", 47: "illegal_parameter", 48: "unknown_ca", 49: "access_denied", 50: "decode_error",
    51: "decrypt_error", 70: "protocol_version", 71: "insufficient_security", 80: "internal_error",
    86: "inappropriate_fallback", 109: "missing_extension", 110: "unsupported_extension", 112: "unrecognized_name",
    116: "certificate_required",
}  # fmt: skip
"""RFC 8446 section 6."""
_OF_CERTIFICATES = {42, 43, 44, 45, 46, 48, 49, 80, 116}
"""Alerts about our certificate; internal_error is what OpenSSL sends when an application does not take a name."""

_TEXTS = {
    "peer did not return a certificate": ("tls_no_certificate", "it has shown no certificate"),
    "unsupported protocol": ("tls_version", "it speaks an older version than TLS 1.2"),
    "no shared cipher": ("tls_cipher", "it has no cipher suite that we take"),
    "no suitable signature algorithm": ("tls_cipher", "it takes no signature that our certificate can give"),
    "no suitable key share": ("tls_cipher", "it has no group for the key exchange that we take"),
}
"""OpenSSL's reasons during a handshake; any other one is tls_garbage then."""


class Layer:
    """One end of a TLS connection. Look at its state after each `feed`.

    secured    the handshake has ended here, and the peer's certificate is verified
    accepted   the peer has verified ours too: with TLS 1.3 a client learns it only from the first session ticket
    ended      the peer will send nothing more (close_notify)
    fault      the reason of a failed or ended connection; nothing may be fed or written then
    """

    def __init__(self, context: SSL.Context, server: bool, names: Iterable[str] = ()) -> None:
        self.secured = self.accepted = self.ended = False
        self.fault: TlsError | None = None
        self.names = tuple(names)
        self.server = server
        self.alert: int | None = None
        self.refused: TlsError | None = None
        """The reason of a failed verification; OpenSSL itself reports only the failure."""
        self._head = b""
        self._connection = SSL.Connection(context, None)
        self._connection.set_app_data(self)
        if server:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
            if self.names and not _is_address(self.names[0]):
                self._connection.set_tlsext_host_name(self.names[0].rstrip(".").encode())

    def feed(self, octets: bytes) -> bytes:
        """Take octets of the peer (none to begin); what it says in plain."""
        if self.fault is not None or self.ended or not self._is_tls(octets):
            return b""
        if octets:
            self._connection.bio_write(octets)
        try:
            if not self.secured:
                self._connection.do_handshake()
                self.secured = True
                self.accepted = self.server or self._connection.get_protocol_version() != SSL.TLS1_3_VERSION
        except SSL.WantReadError:
            return b""
        except SSL.Error as error:
            self.fault = self._explained(error)
            return b""
        return self._plain()

    def _plain(self) -> bytes:
        parts = []
        try:
            while True:
                parts.append(self._connection.recv(_READ))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            self.fault = self._explained(error)
        return b"".join(parts)

    def write(self, octets: Any) -> None:
        """Seal octets for the peer; only after `secured`, and before `close`."""
        rest = memoryview(octets)
        try:
            while rest:
                rest = rest[self._connection.send(rest) :]
        except SSL.Error as error:
            self.fault = self._explained(error)

    def outgoing(self) -> bytes:
        """The octets to send to the peer now."""
        parts = []
        try:
            while True:
                parts.append(self._connection.bio_read(_READ))
        except SSL.WantReadError:
            return b"".join(parts)

    def close(self) -> None:
        """Say that nothing more comes."""
        try:
            if self.fault is None and self.secured:
                self._connection.shutdown()
        except SSL.Error:
            pass  # it is at its end in any case

    def described(self) -> str:
        """Version and cipher suite."""
        return f"{self._connection.get_protocol_version_name()} {self._connection.get_cipher_name()}"

    def _is_tls(self, octets: bytes) -> bool:
        """Whether the first octets can be TLS: what comes from a peer without it has a plain reason."""
        if len(self._head) >= 2 or not octets:
            return True
        self._head += octets[: 2 - len(self._head)]
        if self._head[0] in (_HANDSHAKE, _ALERT):
            return True
        if _IPFIX.startswith(self._head):
            self.fault = TlsError("it speaks IPFIX without TLS", "tls_plain")
        else:
            self.fault = TlsError("it does not speak TLS", "tls_garbage")
        return False

    def _explained(self, error: SSL.Error) -> TlsError:
        """Our reason for a fault of OpenSSL."""
        if self.refused is not None:
            return self.refused
        if self.alert is not None:
            name = _ALERTS.get(self.alert, str(self.alert))
            if self.alert in _OF_CERTIFICATES:
                return TlsError(f"it refuses our certificate ({name})", "tls_refused")
            return TlsError(f"it ends TLS ({name})", "tls_version" if self.alert == 70 else "tls_alert")
        words = last_words(error)
        if self.secured:
            return TlsError(f"it sends invalid TLS: {words}", "tls_broken")
        reason, text = _TEXTS.get(words, ("tls_garbage", f"its handshake is none: {words}"))
        return TlsError(text, reason)


def told(connection: SSL.Connection, where: int, value: int) -> None:
    """OpenSSL's info callback: alerts of the peer, and its session tickets."""
    layer = connection.get_app_data()
    if where == _CB_READ_ALERT and value & 0xFF not in (0, 90):  # close_notify, user_canceled
        layer.alert = value & 0xFF
    elif where == _CB_LOOP and layer.secured and connection.get_state_string() == _TICKET:
        layer.accepted = True


def verified(connection: SSL.Connection, certificate: Any, number: int, depth: int, ok: int) -> bool:
    """OpenSSL's verify callback: is the chain good, and its first certificate one of a name that we want?"""
    layer = connection.get_app_data()
    if not ok:
        layer.refused = _chain_fault(certificate, number)
    elif depth == 0 and layer.names and not any(has_name(certificate, name) for name in layer.names):
        wanted = layer.names[0] if len(layer.names) == 1 else f"any of the {len(layer.names)} that we take"
        layer.refused = TlsError(f"its certificate is for {names_of(certificate)}, not for {wanted}", "tls_name")
    return layer.refused is None


def _chain_fault(certificate: Any, number: int) -> TlsError:
    if number == 10:
        return TlsError(f"its certificate has expired ({_time(certificate.get_notAfter())})", "tls_expired")
    if number == 9:
        begins = _time(certificate.get_notBefore())
        return TlsError(f"its certificate is not valid yet ({begins}); is a clock wrong?", "tls_not_yet_valid")
    if number in _UNKNOWN_CA:
        return TlsError("its certificate is signed by an unknown CA", "tls_unknown_ca")
    why = _CHAIN_FAULTS.get(number, f"OpenSSL's verification error {number}")
    return TlsError(f"its certificate is refused: {why}", "tls_certificate")


def _time(octets: bytes | None) -> str:
    """YYYYMMDDhhmmssZ in a form to be read."""
    text = (octets or b"").decode("ascii", "replace")
    return f"{text[:4]}-{text[4:6]}-{text[6:8]} {text[8:10]}:{text[10:12]} UTC" if len(text) == 15 else text


def has_name(certificate: Any, name: str) -> bool:
    """Whether a certificate (pyOpenSSL's) has this DNS name or IP address in its subjectAltName."""
    wanted = IPAddress_ID(name) if _is_address(name) else DNS_ID(name.rstrip("."))
    try:
        verify_service_identity(extract_patterns(certificate), [wanted], [])
    except Exception:  # no such name; or an unreadable certificate, for which each library has errors of its own
        return False
    return True


def names_of(certificate: Any) -> str:
    """The DNS names and addresses of a certificate, the first few."""
    try:
        found = certificate.to_cryptography().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except Exception:  # as in has_name
        return "no DNS name or IP address"
    names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    text = ", ".join(names[:4]) + (" ..." if len(names) > 4 else "")
    return text.encode("unicode_escape").decode() or "no DNS name or IP address"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def last_words(error: SSL.Error) -> str:
    """OpenSSL's own reason."""
    try:
        return error.args[0][-1][2]
    except (IndexError, TypeError):
        return "the end"
