"""Connections to MySQL and MariaDB that show the password to the intended server only.

The server chooses the form of the password. A false server, on the network or on the host, asks for the clear text, or
for a text encrypted with its own key. Both are refused unless the way is safe: a Unix socket, or TLS with a verified
certificate. A false server also answers any statement by asking for a file: it gets the octets of `load` under the name
that was just sent, or nothing. This module is a driver for `adbapi`: it has `connect`.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import pymysql
from pymysql.connections import Connection, MySQLResult

from ulogd_tw.storing.passwords import password_of

apilevel, threadsafety, paramstyle = "2.0", 1, "pyformat"

REFUSED = 2061
"""CR_AUTH_PLUGIN_ERR of libmysqlclient."""
NO_TLS = 2026
"""CR_SSL_CONNECTION_ERROR."""
NO_PASSWORD = 2098
"""The file with the password cannot be read; no code of libmysqlclient."""
LOST = 2013
"""CR_SERVER_LOST."""
OUT_OF_STEP = 2014
"""CR_COMMANDS_OUT_OF_SYNC."""
LOCAL_OCTETS = 1 << 16
"""Octets of a packet with rows, far below any max_allowed_packet but the least."""
_PROMPT = b"Password: "


class SafeConnection(Connection):
    """A connection of pymysql. `any_tls`: a server with TLS is trusted without a look at its certificate."""

    def __init__(
        self,
        *arguments: Any,
        any_tls: bool = False,
        server_public_key: bytes | None = None,
        pass_file: str = "",
        **keywords: Any,
    ) -> None:
        self._any_tls = any_tls
        self._encrypted = False
        self._key = server_public_key
        self._local: tuple[bytes, Iterable[bytes]] | None = None
        if pass_file:
            keywords["password"] = _password(pass_file)
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

    def load(self, statement: str, name: str, pieces: Iterable[bytes]) -> tuple[int, int]:
        """Run a LOAD DATA LOCAL statement with these octets as the file `name`: rows taken, and warnings."""
        self._local = name.encode(), pieces
        try:
            rows = self.query(statement)
        except (pymysql.Error, OSError):
            raise
        except Exception as error:  # pymysql raises all sorts of things at an answer that is none
            raise malformed(error) from error
        finally:
            self._local = None
        return rows, self._result.warning_count if self._result is not None else 0

    def send_local(self, asked: bytes) -> None:
        """Send the octets that `load` has for the name that the server asks for, and for no other."""
        held, self._local = self._local, None
        if held is None or asked != held[0]:
            raise refusal(f"for the file {asked[:100].decode('ascii', 'backslashreplace')}")
        for piece in held[1]:
            for at in range(0, len(piece), LOCAL_OCTETS):
                self.write_packet(piece[at : at + LOCAL_OCTETS])
        self.write_packet(b"")

    def _read_query_result(self, unbuffered: bool = False) -> int:
        self._result = None
        result = _Result(self)
        result.init_unbuffered_query() if unbuffered else result.read()
        self._result = result
        if result.server_status is not None:
            self.server_status = result.server_status
        return result.affected_rows

    @property
    def encrypted(self) -> bool:
        """Whether the connection has TLS."""
        return self._encrypted


class _Result(MySQLResult):
    """pymysql's own reads whatever file the server names."""

    def _read_load_local_packet(self, first_packet: Any) -> None:
        connection = self.connection
        connection.send_local(first_packet.get_all_data()[1:])
        packet = connection._read_packet()
        if not packet.is_ok_packet():
            raise pymysql.OperationalError(OUT_OF_STEP, "the server does not acknowledge the rows")
        self._read_ok_packet(packet)


def _password(path: str) -> bytes:
    try:
        return password_of(path)
    except OSError as error:
        raise pymysql.OperationalError(NO_PASSWORD, f"pass_file {path}: {error.strerror or error}") from error


def refusal(what: str) -> pymysql.OperationalError:
    """The error for a server that asks for too much."""
    return pymysql.OperationalError(REFUSED, f"the server asks {what}: refused")


def malformed(error: Exception) -> pymysql.OperationalError:
    """The error for an answer that pymysql cannot read."""
    return pymysql.OperationalError(LOST, f"malformed answer: {error!r}")


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
