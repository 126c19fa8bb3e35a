"""One end of DTLS 1.2 over UDP (RFC 6347) over memory: datagrams in and out, no socket; the times are OpenSSL's own.

A server answers a sender whom it does not know with a cookie, and remembers nothing of it: only a sender that has
received the cookie at its address, and shows it, gets a session (section 4.2.1).
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any, NamedTuple

from OpenSSL import SSL

from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.tls.credentials import Credentials
from ulogd_tw.transports.tls.layer import Layer

LONGEST = 1 << 14
"""Octets of a datagram that is taken: OpenSSL reads no longer one at once."""
COOKIE_SECONDS = 60.0
"""After which cookies are made with another key; those of the key before it are taken for as long again."""
HANDSHAKE_OCTETS = 1232
"""Octets of a datagram of a handshake: what the least path of IPv6 takes, without its headers."""
OVERHEAD = 37
"""Octets that a record adds to a message at most: its header, 8 of a nonce, and 16 that authenticate it (AES-GCM)."""
_HEADER, _ALERT, _HANDSHAKE, _APPLICATION, _HELLO = 13, 21, 22, 23, 1
_BODY = _HEADER + 12
"""Where the body of a handshake message begins."""
_RANDOM = slice(_BODY + 2, _BODY + 34)
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
        """Take a datagram of the peer (none to begin); returns its decrypted messages. Other datagrams are ignored."""
        if len(datagram) > LONGEST or (datagram and not is_record(datagram)):
            return []
        if self.secured and self.fault is None and not self.ended and _is_alone(datagram):
            return self._opened(datagram)
        self.feed(datagram)
        messages, self._messages = self._messages, []
        return messages

    def _opened(self, datagram: bytes) -> list[bytes]:
        """The message of a single record: as `feed`, without asking OpenSSL for a second one."""
        self._connection.bio_write(datagram)
        try:
            return [self._connection.recv(len(datagram))]
        except SSL.WantReadError:  # forged, doubled or too old
            return []
        except SSL.Error as error:
            self.fault = self._explained(error)
            return []

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

    def sealed(self, message: Any) -> bytes:
        """The datagram of a message, however long the path lets it be; nothing where there is a `fault` now."""
        self.write(message)
        return b"" if self.fault is not None else self.outgoing()

    def datagrams(self) -> list[bytes]:
        """The datagrams to send to the peer now. OpenSSL's memory joins records; each message is sent alone."""
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
            self.fault = TlsError("it does not answer", "tls_timeout")

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


class CookieExchange:
    """Where a server answers senders that it does not know. It is one object for all of them, and does not grow.

    OpenSSL sees nothing of a sender before it has shown the cookie of its address.
    """

    def __init__(self, credentials: Credentials, mtu: int) -> None:
        self._credentials = credentials
        self._mtu = mtu
        self._keys = [os.urandom(32)] * 2
        self._turned = float("-inf")
        self._context: SSL.Context | None = None

    def greet(self, sender: bytes, datagram: bytes, now: float) -> tuple[DtlsLayer | None, list[bytes]]:
        """A session for a sender with the right cookie for its address, and the datagrams to send to it now.

        `sender` is address and port; another sender of the same octets has another cookie.
        """
        hello = read_hello(datagram)
        if hello is None:
            return None, []
        if not self.knows(sender, hello, now):
            return None, [self.ask(sender, datagram, now)]
        return self.admit(sender, datagram, now)

    def knows(self, sender: bytes, hello: Hello, now: float) -> bool:
        """Whether a ClientHello shows the cookie of its sender."""
        if not hello.cookie:
            return False
        return any(hmac.compare_digest(hello.cookie, cookie) for cookie in self._cookies(sender, now))

    def ask(self, sender: bytes, datagram: bytes, now: float) -> bytes:
        """The HelloVerifyRequest with the cookie of a sender; never longer than its ClientHello (section 4.2.1)."""
        cookie = self._cookies(sender, now)[0]
        body = b"\xfe\xff" + bytes([len(cookie)]) + cookie
        size = len(body).to_bytes(3, "big")
        # The sequence number of the record is that of the ClientHello's, as nothing is kept here.
        head = b"\x16\xfe\xff" + datagram[3:11] + (12 + len(body)).to_bytes(2, "big")
        return head + b"\x03" + size + b"\0\0" + b"\0\0\0" + size + body

    def admit(self, sender: bytes, datagram: bytes, now: float) -> tuple[DtlsLayer | None, list[bytes]]:
        """As `greet`, for a sender that `knows` has found good."""
        layer = DtlsLayer(self._current(), True, self._credentials.names, self._mtu)
        layer.cookies = self._cookies(sender, now)
        if not layer.greet(datagram):
            return None, layer.datagrams() if layer.fault is None else []
        layer.take(b"")
        return layer, layer.datagrams()

    def _current(self) -> SSL.Context:
        """The context with the present certificates."""
        context = self._credentials.context()
        if context is not self._context:
            context.set_cookie_generate_callback(_generate)
            context.set_cookie_verify_callback(_verify)
            self._context = context
        return context

    def _cookies(self, sender: bytes, now: float) -> tuple[bytes, ...]:
        if not 0 <= now - self._turned < COOKIE_SECONDS:
            self._turned = now
            self._keys = [os.urandom(32), self._keys[0]]
        return tuple(hmac.digest(key, sender, hashlib.sha256) for key in self._keys)


class Hello(NamedTuple):
    """The fields that identify one ClientHello."""

    random: bytes
    cookie: bytes


def read_hello(datagram: bytes) -> Hello | None:
    """A datagram as a ClientHello of a new handshake (epoch 0); None where it is none.

    All up to the cookie has to be in it, as OpenSSL wants too.
    """
    if not (is_hello(datagram) and _HEADER + _length(datagram, 11) <= len(datagram)):
        return None
    if datagram[_BODY - 6 : _BODY - 3] != b"\0\0\0":
        return None
    at = _RANDOM.stop
    for _ in range(2):  # the session's id, then the cookie
        start, at = at + 1, at + 1 + datagram[at] if at < len(datagram) else LONGEST
    if at > len(datagram):
        return None
    return Hello(datagram[_RANDOM], datagram[start:at])


def is_stray(datagram: bytes) -> bool:
    """Whether a datagram looks like a message in an association."""
    return len(datagram) >= OVERHEAD - 8 and datagram[0] == _APPLICATION and datagram[1:5] == b"\xfe\xfd\0\1"


UNKNOWN = b"\x15\xfe\xfd" + bytes(8) + b"\0\2\2\x0a"
"""The answer to such a one where the association is not known: an alert (unexpected_message) in plain.

By it our own exporter knows that a collector has begun anew; others pass over what is in plain within an association
(section 4.1.2.7).
"""


def is_unknown(datagram: bytes) -> bool:
    """Whether it may be `UNKNOWN`: an alert in plain, which anybody can forge."""
    return len(datagram) == len(UNKNOWN) and datagram[0] == _ALERT and datagram[3:5] == b"\0\0"


def client(credentials: Credentials, mtu: int) -> DtlsLayer:
    """The exporter's end; `take` without octets begins."""
    return DtlsLayer(credentials.context(), False, credentials.names, mtu)


def _generate(connection: SSL.Connection) -> bytes:
    return connection.get_app_data().cookies[0]


def _verify(connection: SSL.Connection, shown: bytes) -> bool:
    return any(hmac.compare_digest(shown, cookie) for cookie in connection.get_app_data().cookies)


def is_record(datagram: bytes) -> bool:
    """Whether a datagram begins with the header of a record of DTLS."""
    return len(datagram) > _HEADER and 20 <= datagram[0] <= 25 and datagram[1] == 0xFE


def _is_alone(datagram: bytes) -> bool:
    """Whether it is one record of application data."""
    return datagram[:1] == b"\x17" and _record_length(datagram, 0) == len(datagram)


def is_hello(datagram: bytes) -> bool:
    """Whether it can be a ClientHello of a new handshake (epoch 0); nothing else of an unknown sender is answered."""
    return (
        _BODY < len(datagram) <= LONGEST
        and datagram[0] == _HANDSHAKE
        and datagram[1] == 0xFE
        and datagram[3:5] == b"\0\0"
        and datagram[_HEADER] == _HELLO
    )


def _length(octets: bytes, at: int) -> int:
    return int.from_bytes(octets[at : at + 2], "big")


def _record_length(octets: bytes, start: int) -> int:
    return _HEADER + _length(octets, start + 11)
