"""Connections to MySQL and MariaDB that show the password to the intended server only.

The server chooses the form of the password. A false server, on the network or on the host, asks for the clear text, or
for a text encrypted with its own key. Both are refused unless the way is safe: a Unix socket, or TLS with a verified
certificate. This module is a driver for `adbapi`: it has `connect`.
"""

from __future__ import annotations

import ssl
from typing import Any

import pymysql
from pymysql.connections import Connection

apilevel, threadsafety, paramstyle = "2.0", 1, "pyformat"

REFUSED = 2061
"""CR_AUTH_PLUGIN_ERR of libmysqlclient."""
NO_TLS = 2026
"""CR_SSL_CONNECTION_ERROR."""
_PROMPT = b"Password: "


class SafeConnection(Connection):
    """A connection of pymysql. `any_tls`: a server with TLS is trusted without a look at its certificate."""

    def __init__(self, *arguments: Any, any_tls: bool = False, server_public_key: bytes | None = None, **keywords: Any):
        self._any_tls = any_tls
        self._encrypted = False
        self._key = server_public_key
        ours = {"mysql_clear_password": _ClearText, "dialog": _Dialog, "mysql_old_password": _OldPassword}
        super().__init__(*arguments, auth_plugin_map=ours, server_public_key=server_public_key, **keywords)

    @property
    def safe(self) -> bool:
        """Whether the password may be sent as it is."""
        if self.unix_socket:
            return True
        verified = self._any_tls or getattr(self, "ctx", None) is not None and self.ctx.verify_mode == ssl.CERT_REQUIRED
        return self._encrypted and verified

    @property
    def _secure(self) -> bool:
        """Asked by pymysql before it sends the password in clear text."""
        return self.safe

    @_secure.setter
    def _secure(self, value: bool) -> None:
        self._encrypted = value

    @property
    def server_public_key(self) -> bytes:
        """The key for the password, of which the server must have the other half; never one that it sends itself."""
        if self._key is None:
            raise refusal("to be sent the password, encrypted with a key that nobody can verify")
        return self._key

    @server_public_key.setter
    def server_public_key(self, value: bytes | None) -> None:
        if value is not self._key:
            raise refusal("to be sent the password, encrypted with a key of its own")

    @property
    def encrypted(self) -> bool:
        """Whether the connection has TLS."""
        return self._encrypted


def refusal(what: str) -> pymysql.OperationalError:
    """The error for a server that asks for too much."""
    return pymysql.OperationalError(REFUSED, f"the server asks {what}: refused")


class _Plugin:
    """An authentication plugin in pymysql's form."""

    asks = "for the password in clear text"

    def __init__(self, connection: SafeConnection) -> None:
        if not connection.safe:
            raise refusal(self.asks)
        self.connection = connection

    def _send(self, octets: bytes) -> Any:
        self.connection.write_packet(octets)
        packet = self.connection._read_packet()
        packet.check_error()
        return packet


class _ClearText(_Plugin):
    """mysql_clear_password: PAM and LDAP."""

    def authenticate(self, packet: Any) -> Any:
        """Send the password."""
        return self._send(self.connection.password + b"\0")


class _Dialog(_Plugin):
    """dialog: PAM with questions; only that for the password is answered."""

    def authenticate(self, packet: Any) -> Any:
        """Answer until the server is content."""
        while True:
            last = packet.read_uint8() & 1
            if packet.read_all() != _PROMPT:
                raise refusal("something else than the password")
            packet = self._send(self.connection.password + b"\0")
            if packet.is_ok_packet() or last:
                return packet


class _OldPassword(_Plugin):
    """mysql_old_password: a hash of MySQL 3 that anybody can undo."""

    asks = "for the hash of the password that MySQL 3 used"

    def authenticate(self, packet: Any) -> Any:
        """Send the hash."""
        from pymysql import _auth

        return self._send(_auth.scramble_old_password(self.connection.password, packet.read_all()) + b"\0")


connect = SafeConnection
