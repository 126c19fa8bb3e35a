"""One end of DTLS 1.2 over UDP (RFC 6347) over memory: datagrams in and out, no socket; the times are OpenSSL's own.

A server answers a sender whom it does not know with a cookie, and remembers nothing of it: only a sender that has
received the cookie at its address, and shows it, gets a session (section 4.2.1).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

from OpenSSL import SSL

from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.tls import Credentials
from ulogd_tw.transports.tlslayer import Layer

LONGEST = 1 << 14
"""Octets of a datagram that is taken: OpenSSL reads no longer one at once."""
COOKIE_SECONDS = 60.0
"""After which cookies are made with another key; those of the key before it are taken for as long again."""
_HEADER, _HANDSHAKE, _APPLICATION, _HELLO = 13, 22, 23, 1
_LEAST_TIMEOUT = 0.01
_READ = 1 << 16


class DtlsLayer(Layer):
    """One end of an association; as `Layer`, but each datagram and each message stays one.

    `mtu`: octets of a datagram, without the headers of IP and UDP. Call `expire` after the seconds of `timeout`.
    """

    def __init__(self, context: SSL.Context, server: bool, names: tuple[str, ...], mtu: int) -> None:
        super().__init__(context, server, names)
        self.mtu = mtu
        self.cookies: tuple[bytes, ...] = ()
        self._messages: list[bytes] = []
        self._connection.set_ciphertext_mtu(mtu)

    @property
    def room(self) -> int:
        """Octets of a message at most; after `secured`."""
        return self._connection.get_cleartext_mtu()

    def take(self, datagram: bytes) -> list[bytes]:
        """Take a datagram of the peer (none to begin); its messages in plain. What is no DTLS is passed over."""
        if len(datagram) > LONGEST or (datagram and not _is_record(datagram)):
            return []
        self.feed(datagram)
        messages, self._messages = self._messages, []
        return messages

    def _is_tls(self, octets: bytes) -> bool:
        return True  # a datagram that is none may come from anybody, and ends nothing (section 4.1.2.7)

    def _plain(self) -> bytes:
        try:
            while True:
                self._messages.append(self._connection.recv(_READ))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            self.fault = self._explained(error)
        return b""

    def send(self, message: Any) -> bool:
        """Seal a message; False, and nothing done, where it does not fit into a datagram."""
        if len(message) > self.room:
            return False
        self.write(message)
        return True

    def datagrams(self) -> list[bytes]:
        """What shall go to the peer now. OpenSSL's memory glues records together; each message goes alone."""
        found: list[bytes] = []
        octets, start = self.outgoing(), 0
        while start < len(octets):
            end = start + _record_length(octets, start)
            while octets[start] != _APPLICATION and end < len(octets):
                length = _record_length(octets, end)
                if end + length - start > self.mtu or octets[end] == _APPLICATION:
                    break
                end += length
            found.append(octets[start:end])
            start = end
        return found

    # time

    def timeout(self) -> float | None:
        """Seconds until a flight of the handshake has to be sent again; None where nothing waits for an answer."""
        if self.secured or self.fault is not None:
            return None
        left = self._connection.DTLSv1_get_timeout()
        return None if left is None else max(left, _LEAST_TIMEOUT)

    def expire(self) -> None:
        """Send the last flight again, if it is time."""
        try:
            self._connection.DTLSv1_handle_timeout()
        except SSL.Error:
            self.fault = TlsError("it answers nothing", "tls_timeout")

    # the server before the cookie

    def greet(self, datagram: bytes) -> bool:
        """Take the first datagram of an unknown sender: True where it has shown a cookie, and the handshake goes on.

        False leaves nothing of it here, except a HelloVerifyRequest in `datagrams`.
        """
        self._connection.bio_write(datagram)
        try:
            self._connection.DTLSv1_listen()
        except SSL.WantReadError:
            return False
        except SSL.Error as error:
            self.fault = self._explained(error)
            return False
        return True


class Porch:
    """Where a server answers senders that it does not know. It is one object for all of them, and does not grow."""

    def __init__(self, credentials: Credentials, mtu: int) -> None:
        self._credentials = credentials
        self._mtu = mtu
        self._keys = [os.urandom(32)] * 2
        self._turned = float("-inf")
        self._context: SSL.Context | None = None
        self._waiting: DtlsLayer | None = None

    def greet(self, sender: bytes, datagram: bytes, now: float) -> tuple[DtlsLayer | None, list[bytes]]:
        """A session for this sender where it has shown the cookie of its address, and what shall be sent to it now.

        `sender` tells address and port; another sender of the same octets has another cookie.
        """
        if not _is_hello(datagram):
            return None, []
        layer = self._listener()
        layer.cookies = self._cookies(sender, now)
        if layer.greet(datagram):
            self._waiting = None
            layer.take(b"")
            return layer, layer.datagrams()
        if layer.fault is not None:
            self._waiting = None
            return None, []
        return None, layer.datagrams()

    def _listener(self) -> DtlsLayer:
        """The end that waits for the next sender with a cookie; a new one when certificates have changed."""
        context = self._credentials.context()
        if context is not self._context:
            context.set_cookie_generate_callback(_generate)
            context.set_cookie_verify_callback(_verify)
            self._context, self._waiting = context, None
        if self._waiting is None:
            self._waiting = DtlsLayer(context, True, self._credentials.names, self._mtu)
        return self._waiting

    def _cookies(self, sender: bytes, now: float) -> tuple[bytes, ...]:
        if not 0 <= now - self._turned < COOKIE_SECONDS:
            self._turned = now
            self._keys = [os.urandom(32), self._keys[0]]
        return tuple(hmac.digest(key, sender, hashlib.sha256) for key in self._keys)


def client(credentials: Credentials, mtu: int) -> DtlsLayer:
    """The exporter's end; `take` without octets begins."""
    return DtlsLayer(credentials.context(), False, credentials.names, mtu)


def _generate(connection: SSL.Connection) -> bytes:
    return connection.get_app_data().cookies[0]


def _verify(connection: SSL.Connection, shown: bytes) -> bool:
    return any(hmac.compare_digest(shown, cookie) for cookie in connection.get_app_data().cookies)


def _is_record(datagram: bytes) -> bool:
    """Whether a datagram begins with the header of a record of DTLS."""
    return len(datagram) > _HEADER and 20 <= datagram[0] <= 25 and datagram[1] == 0xFE


def _is_hello(datagram: bytes) -> bool:
    """Whether it can be a ClientHello of a new handshake (epoch 0); nothing else of an unknown sender is answered."""
    return (
        _HEADER + 12 < len(datagram) <= LONGEST
        and datagram[0] == _HANDSHAKE
        and datagram[1] == 0xFE
        and datagram[3:5] == b"\0\0"
        and datagram[_HEADER] == _HELLO
    )


def _record_length(octets: bytes, start: int) -> int:
    return _HEADER + int.from_bytes(octets[start + 11 : start + 13], "big")
