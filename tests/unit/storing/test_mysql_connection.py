"""What a false MySQL server learns of the password."""

import socket
import struct
import threading
from pathlib import Path

import pymysql
from twisted.trial.unittest import SynchronousTestCase

from ulogd_tw.storing.mysql_connection import REFUSED, SafeConnection

PASSWORD = "TopSecretPw"
FULL_AUTHENTICATION = b"\x01\x04"
"""caching_sha2_password: the hash is not known to the server, it wants the password."""


def greeting(plugin):
    """The first packet of a server 8.0.0 without TLS (Protocol::HandshakeV10)."""
    return (b"\x0a8.0.0\0" + struct.pack("<I", 1) + b"A" * 8 + b"\0" + struct.pack("<HBHHB", 0xF7FF, 33, 2, 0x008F, 21)
            + bytes(10) + b"B" * 12 + b"\0" + plugin + b"\0")  # fmt: skip


def switch(plugin):
    """The request to use another plugin."""
    return b"\xfe" + plugin + b"\0" + b"C" * 20 + b"\0"


OK = b"\0\0\0\2\0\0\0"
"""No rows, no warnings (Protocol::OK_Packet)."""


class FalseServer:
    """Sends these packets, one after each of the client's; `got` are the client's."""

    def __init__(self, *packets):
        self.client, self._end = socket.socketpair()
        self._packets = packets
        self.got = []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        number = 0
        with self._end, self._end.makefile("rb") as stream:
            for packet in self._packets:
                self._end.sendall(struct.pack("<I", len(packet))[:3] + bytes([number]) + packet)
                head = stream.read(4)
                if len(head) < 4:
                    return
                self.got.append(stream.read(int.from_bytes(head[:3], "little")))
                number = head[3] + 1


class SafeConnectionTests(SynchronousTestCase):
    """Every way in which a server may ask for the password."""

    def connect(self, server, **options):
        """Connect to it, as over TCP."""
        self.addCleanup(server.thread.join)
        made = SafeConnection(user="ulogd", password=PASSWORD, defer_connect=True, ssl_disabled=True, **options)
        self.addCleanup(server.client.close)
        made.connect(server.client)
        return made

    def test_refused(self):
        """Clear text, the old hash and encryption with a key of the server are refused; nothing more is sent."""
        native, sha2 = greeting(b"mysql_native_password"), greeting(b"caching_sha2_password")
        for packets in (
            (native, switch(b"mysql_clear_password")),
            (native, switch(b"dialog")),
            (native, switch(b"mysql_old_password")),
            (native, switch(b"caching_sha2_password"), FULL_AUTHENTICATION),
            (native, switch(b"sha256_password")),
            (sha2, FULL_AUTHENTICATION),
            (greeting(b"sha256_password"), b"\x01-----BEGIN PUBLIC KEY-----"),
            (greeting(b"mysql_clear_password"), switch(b"mysql_clear_password")),
        ):
            server = FalseServer(*packets, b"never reached")
            error = self.assertRaises(pymysql.OperationalError, self.connect, server)
            server.thread.join()
            self.assertEqual(REFUSED, error.args[0], packets)
            self.assertNotIn(PASSWORD.encode(), b"".join(server.got))
            self.assertLess(max(map(len, server.got)), 200)  # an RSA text has 256 octets

    def test_safe(self):
        """Over a Unix socket the password is sent to a server that asks for it."""
        server = FalseServer(greeting(b"mysql_native_password"), switch(b"mysql_clear_password"), b"\xff\x15\x04no")
        self.assertRaises(pymysql.OperationalError, self.connect, server, unix_socket="/run/mysqld/mysqld.sock")
        self.assertEqual(PASSWORD.encode() + b"\0", server.got[1])

    def test_files(self):
        """A server that asks for a file gets nothing, whatever the statement, and no rows under another name."""
        secret = Path(self.mktemp())
        secret.write_text(PASSWORD)
        asks = b"\xfb" + bytes(secret.absolute())
        statements = (
            lambda made: made.query("SELECT 1"),
            lambda made: made.load("LOAD DATA LOCAL INFILE 'rows' ...", "rows", [b"1\n"]),
        )
        for local_infile in (True, False):
            for statement in statements:
                server = FalseServer(greeting(b"mysql_native_password"), OK, OK, asks, b"never reached")
                made = self.connect(server, local_infile=local_infile, autocommit=None)
                error = self.assertRaises(pymysql.OperationalError, statement, made)
                server.client.close()
                made._force_close()
                server.thread.join()
                self.assertEqual(REFUSED, error.args[0])
                self.assertIn(secret.name, error.args[1])
                self.assertNotIn(PASSWORD.encode(), b"".join(server.got))
                self.assertNotIn(b"1\n", server.got)

    def test_load(self):
        """A server that asks for the very name gets these octets, then an empty packet."""
        server = FalseServer(greeting(b"mysql_native_password"), OK, OK, b"\xfbrows")
        made = self.connect(server, local_infile=True, autocommit=None)
        self.assertRaises(pymysql.OperationalError, made.load, "LOAD", "rows", [b"1\n", b"2\n"])
        server.thread.join()
        self.assertEqual(server.got[-1], b"1\n")

    def test_password_in_a_file(self):
        """Its first line is the password, read for each connection; a missing file is said."""
        path = Path(self.mktemp())
        for password in ("first secret", "second"):
            path.write_text(f"{password}\n# note\n")
            made = SafeConnection(user="ulogd", pass_file=str(path), defer_connect=True)
            self.assertEqual(made.password, password.encode())
        path.unlink()
        error = self.assertRaises(pymysql.OperationalError, SafeConnection, pass_file=str(path), defer_connect=True)
        self.assertRegex(error.args[1], "pass_file .*No such file")
