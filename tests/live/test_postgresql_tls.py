"""PGSQL and PostgreSQL servers with TLS, without, and with a false one that asks for the password in clear text."""

import os
import shutil
import struct

from twisted.internet import protocol, reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.certificates import CA
from tests.postgresql import PrivatePostgreSQL
from tests.unit.storing.sql_rows import numbers, opened, output
from ulogd_tw.core.errors import StartError
from ulogd_tw.plugins.outputs.pgsql import PGSQL


class TlsTests(TestCase):
    """A server with a certificate, whose users log in by password."""

    timeout = 120

    def setUp(self):
        self.ca = CA(self.mktemp())

    def server(self, name):
        """A server with a certificate for this name; over TCP it asks for the password in clear text."""
        made = PrivatePostgreSQL(access=["host all plain 127.0.0.1/32 password",
                                         "host all secret 127.0.0.1/32 scram-sha-256"])  # fmt: skip
        certificate, key = self.ca.issue("server", name)
        for file, to in ((certificate, "cert.pem"), (key, "key.pem")):
            os.chmod(shutil.copy(file, made.folder / to), 0o600)
            if made.user:
                shutil.chown(made.folder / to, made.user)
        made._daemon.argv += [
            "--ssl=on",
            f"--ssl_cert_file={made.folder}/cert.pem",
            f"--ssl_key_file={made.folder}/key.pem",
        ]
        made.__enter__()
        self.addCleanup(made.__exit__)
        for user in ("plain", "secret"):
            made.execute(f"CREATE ROLE {user} SUPERUSER LOGIN PASSWORD 'p:{user}'")
        return made

    def output(self, server, user, **options):
        where = {"host": "127.0.0.1", "port": server.port, "user": user, "db": "ulogd", "pass": f"p:{user}"}
        return output(PGSQL, **where | {"table": "flows", "create": True} | options)

    async def test_ways(self):
        """Verified TLS: any password goes; else only its hash; another CA, another name, no TLS: nothing."""
        server = self.server("127.0.0.1")
        password = self.mktemp()
        with open(password, "w") as file:
            file.write("p:plain\n")
        ca = {"ssl_ca": self.ca.file}
        for user, options in (("plain", ca), ("plain", ca | {"sslmode": "verify-ca"}), ("secret", {}),
                              ("secret", {"sslmode": "disable"}), ("secret", {"sslmode": "require"}),
                              ("plain", ca | {"pass": "", "pass_file": password}),
                              ("plain", {"connstring": f"host=127.0.0.1 port={server.port} user=plain dbname=ulogd "
                                         f"sslmode=verify-full sslrootcert={self.ca.file}"})):  # fmt: skip
            made = await opened(self, self.output(server, user, **options))
            await made.write(numbers(0, 3))
            await made.stop()
        self.assertEqual([(21,)], server.execute("SELECT COUNT(*) FROM flows"))
        other = {"ssl_ca": CA(self.mktemp()).file}
        for user, options, text in (
            ("plain", {}, "require_auth|!password"), ("plain", {"sslmode": "require"}, "require_auth|!password"),
            ("secret", other, "certificate verify failed"),
            ("secret", {"pass": "wrong"}, "password authentication failed"),
        ):  # fmt: skip
            with self.assertRaisesRegex(StartError, text) as caught:
                self.output(server, user, **options).prepare()
            self.assertTrue(caught.exception.remedy)

    async def test_name(self):
        """The certificate's name counts, unless sslmode is verify-ca."""
        server = self.server("db.example")
        ca = {"ssl_ca": self.ca.file}
        with self.assertRaisesRegex(StartError, "does not match"):
            self.output(server, "plain", **ca).prepare()
        made = await opened(self, self.output(server, "plain", **ca, sslmode="verify-ca"))
        await made.write(numbers(0, 3))


class False_(protocol.Protocol):
    """A server that has no TLS and asks for the password in clear text."""

    def connectionMade(self):
        self.heard = b""

    def dataReceived(self, data):
        self.factory.heard.append(data)
        if data[4:8] == struct.pack(">I", 80877103):  # SSLRequest
            self.transport.write(b"N")
        elif data[4:8] == struct.pack(">I", 80877104):  # GSSENCRequest
            self.transport.write(b"N")
        else:
            self.transport.write(b"R" + struct.pack(">II", 8, 3))


class FalseServerTests(TestCase):
    """What a false server hears."""

    timeout = 120

    async def test_nothing(self):
        """Not the password, with any options but those that prove who it is; the start says what to do."""
        factory = protocol.ServerFactory()
        factory.protocol, factory.heard, factory.noisy = False_, [], False
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        number = port.getHost().port
        password = self.mktemp()
        with open(password, "w") as file:
            file.write("topsecret")
        for options in (
            {"pass": "topsecret"}, {"pass": "topsecret", "sslmode": "disable"}, {"pass_file": password},
            {"connstring": f"host=127.0.0.1 port={number} password=topsecret user=u dbname=d"},
            {"connstring": f"postgresql://u:topsecret@127.0.0.1:{number}/d"},
        ):  # fmt: skip
            where = {"host": "127.0.0.1", "port": number, "user": "u", "db": "d", "table": "t"}
            with self.assertRaises(StartError) as caught:
                await deferToThread(output(PGSQL, **where | options).prepare)
            self.assertIn("set ssl_ca", caught.exception.remedy)
        self.assertNotIn(b"topsecret", b"".join(factory.heard))
        self.assertGreaterEqual(len(factory.heard), 5)
