"""TLS in memory: files and what is wrong with them, handshakes of two ends, why a peer is refused, any octets."""

import os
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from hypothesis import strategies as st
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import CA, DAY, pem
from tests.support import given
from ulogd_tw.transports.errors import TlsError
from ulogd_tw.transports.tls.credentials import Credentials, Files, wrong_name
from ulogd_tw.transports.tls.layer import REASONS


class TlsCase(SynchronousTestCase):
    """A CA, a collector and an exporter."""

    def setUp(self):
        self.ca = CA(self.mktemp())
        self.collector = self.ca.issue("collector", "collector.example", "192.0.2.1", "2001:db8::1")
        self.exporter = self.ca.issue("exporter", "exporter.example")

    def files(self, pair, ca=None, **keywords):
        return Files(ca or self.ca.file, *pair, **keywords)

    def ends(self, client=None, server=None, expects="collector.example", peers=(), client_ca=None, server_ca=None):
        """The two ends of a connection, before the first octet."""
        found = []
        for files, is_server, names in (
            (self.files(client or self.exporter, client_ca), False, (expects,)),
            (server if isinstance(server, Files) else self.files(server or self.collector, server_ca), True, peers),
        ):
            credentials = Credentials(files, is_server, names)
            credentials.open()
            found.append(credentials.layer())
        return found

    def shake(self, client, server):
        """Let them talk until neither has more to say; what each has heard, in plain."""
        heard = {client: client.feed(b""), server: b""}
        for _ in range(20):
            moved = False
            for one, other in ((client, server), (server, client)):
                if octets := one.outgoing():
                    moved = True
                    heard[other] += other.feed(octets)
            if not moved:
                return heard[client], heard[server]
        self.fail("no end")


class FilesTests(TlsCase):
    """Certificates and keys in files."""

    def wrong(self, **changed):
        words = {"ca": self.ca.file, "cert": self.collector[0], "private_key": self.collector[1]} | changed
        return list(Files(**words).mistakes())

    def test_good(self):
        """Nothing is wrong with a file, a directory, a chain, or a key in the file of its certificate."""
        self.assertEqual([], self.wrong())
        self.assertEqual([], self.wrong(ca=os.path.dirname(self.ca.file)))
        both = self.ca._write("both.pem", b"".join(Path(p).read_bytes() for p in self.collector), 0o600)
        self.assertEqual([], self.wrong(cert=both, private_key=""))

    def test_mistakes(self):
        """Each file that is missing, is none or does not fit is named, with what to do."""
        garbage = self.ca._write("garbage.pem", b"nothing", 0o600)
        form = serialization.BestAvailableEncryption(b"x")
        octets = self.ca.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, form)
        locked = self.ca._write("locked.key", octets, 0o600)
        empty = self.mktemp()
        os.mkdir(empty)
        for changed, option, text in (
            ({"ca": ""}, "ca", "must be given for TLS"),
            ({"ca": "/nowhere"}, "ca", "/nowhere: No such file or directory"),
            ({"ca": garbage}, "ca", "no certificate in PEM form"),
            ({"ca": empty}, "ca", "no file whose name ends in .pem"),
            ({"cert": ""}, "cert", "must be given"),
            ({"cert": "/nowhere"}, "cert", "No such file"),
            ({"cert": self.collector[1]}, "cert", "no certificate in PEM form"),
            ({"private_key": garbage}, "private_key", "no private key in PEM form"),
            ({"private_key": "/nowhere"}, "private_key", "No such file"),
            ({"private_key": locked}, "private_key", "is encrypted, and a service cannot ask"),
            ({"private_key": self.exporter[1]}, "private_key", "is not the key of the certificate in"),
        ):
            (found,) = self.wrong(**changed)
            self.assertEqual(option, found[0])
            self.assertIn(text, found[1])
        found = self.wrong(ca="/a", cert="/b", private_key="/c")
        self.assertEqual(["ca", "cert", "private_key"], [option for option, _ in found])

    def test_key_for_all_to_read(self):
        """A key that others can read is refused, with the command that helps."""
        for mode in (0o644, 0o640, 0o604):
            os.chmod(self.collector[1], mode)
            ((option, text),) = self.wrong()
            self.assertEqual("private_key", option)
            self.assertIn(f"(mode {mode:04o}): chmod 600 {self.collector[1]}", text)

    def test_weak_key(self):
        """What OpenSSL does not take is said with its reason."""
        pair = self.ca.issue("weak", "a.example", strong=False)
        fault = self.assertRaises(TlsError, Credentials(self.files(pair), True).open)
        self.assertIn("key too small", str(fault))

    def test_names(self):
        """What can be a peer's name, and what cannot."""
        for name in ("a", "a.example", "A.Example.", "xn--bcher-kva.example", "192.0.2.1", "2001:db8::1", "a_b.c"):
            self.assertEqual("", wrong_name(name))
        for name in ("", "*.example", "a b", "-a", "192.0.2", "http://a", "a..b", "bücher.example"):
            self.assertTrue(wrong_name(name), name)


class HandshakeTests(TlsCase):
    """Two ends of ours."""

    def both(self, **keywords):
        """(fault of the client, fault of the server) after all was said."""
        client, server = self.ends(**keywords)
        self.shake(client, server)
        return [end.fault and end.fault.reason for end in (client, server)], client, server

    def test_good(self):
        """Both ends are verified; octets of any number pass in each direction, and the end is told."""
        client, server = self.ends(peers=("other.example", "exporter.example"))
        self.shake(client, server)
        self.assertEqual([True] * 4, [client.secured, client.accepted, server.secured, server.accepted])
        self.assertIn("TLSv1.3", client.described())
        octets = os.urandom(300_000)
        client.write(octets)
        server.write(b"answer")
        self.assertEqual((b"answer", octets), self.shake(client, server))
        client.close()
        self.assertEqual((b"", b""), self.shake(client, server))
        self.assertTrue(server.ended)
        self.assertEqual([None, None], [client.fault, server.fault])

    def test_accepted(self):
        """With TLS 1.3 a client is accepted only by the session ticket, which follows the server's verification."""
        client, server = self.ends()
        client.feed(b"")
        server.feed(client.outgoing())
        client.feed(server.outgoing())
        self.assertEqual((True, False), (client.secured, client.accepted))
        server.feed(client.outgoing())
        client.feed(server.outgoing())
        self.assertTrue(client.accepted)

    def test_addresses(self):
        """A name may be an IP address, of both families."""
        for expects in ("192.0.2.1", "2001:db8::1", "2001:DB8:0::1", "COLLECTOR.example", "collector.example."):
            self.assertEqual([None, None], self.both(expects=expects)[0], expects)

    def test_wrong_name(self):
        """TLS-3: another name than that of the subjectAltName ends it, also where the Common Name would fit."""
        faults, client, _ = self.both(expects="other.example")
        self.assertEqual(["tls_name", "tls_refused"], faults)
        text = "for collector.example, 192.0.2.1, 2001:db8::1, not for other.example"
        self.assertIn(text, str(client.fault))
        named = self.ca.issue("cn", common_name="collector.example")
        self.assertEqual(["tls_name", "tls_refused"], self.both(server=named)[0])
        self.assertEqual("tls_name", self.both(expects="192.0.2.2")[0][0])

    def test_peers(self):
        """TLS-3: a server that has a list takes nobody else, and says so before the client is accepted."""
        faults, client, server = self.both(peers=("a.example", "b.example"))
        self.assertEqual(["tls_refused", "tls_name"], faults)
        self.assertFalse(client.accepted)
        self.assertIn("is for exporter.example, not for any of the 2 that we take", str(server.fault))
        unnamed = self.ca.issue("unnamed", common_name="exporter.example")
        self.assertEqual("tls_name", self.both(client=unnamed, peers=("exporter.example",))[0][1])
        self.assertEqual([None, None], self.both(client=unnamed)[0])

    def test_wildcard(self):
        """A certificate may be for a whole domain."""
        pair = self.ca.issue("wild", "*.r.example")
        self.assertEqual([None, None], self.both(client=pair, peers=("r1.r.example",))[0])
        self.assertEqual("tls_name", self.both(client=pair, peers=("r1.sub.r.example",))[0][1])

    def test_unknown_ca(self):
        """TLS-2: a certificate of another CA, or of itself, is refused on both sides."""
        other = CA(self.mktemp(), "other")
        pair = other.issue("x", "exporter.example", "collector.example")
        self.assertEqual(["tls_refused", "tls_unknown_ca"], self.both(client=pair)[0])
        self.assertEqual(["tls_unknown_ca", "tls_refused"], self.both(server=pair)[0])

    def test_times(self):
        """Expired and not yet valid certificates are told apart, with the time."""
        for name, reason, begins, ends in (
            ("old", "tls_expired", -3 * DAY, -DAY), ("new", "tls_not_yet_valid", DAY, 3 * DAY)
        ):  # fmt: skip
            pair = self.ca.issue(name, "exporter.example", "collector.example", begins=begins, ends=ends)
            faults, _, server = self.both(client=pair)
            self.assertEqual(["tls_refused", reason], faults)
            self.assertRegex(str(server.fault), r"\(\d{4}-\d\d-\d\d \d\d:\d\d UTC\)")
            self.assertEqual([reason, "tls_refused"], self.both(server=pair)[0])

    def test_other_use(self):
        """A certificate for servers is none for an exporter, and the other way round."""
        for_server = self.ca.issue("s", "exporter.example", use="server")
        self.assertEqual(["tls_refused", "tls_certificate"], self.both(client=for_server)[0])
        for_client = self.ca.issue("c", "collector.example", use="client")
        self.assertEqual(["tls_certificate", "tls_refused"], self.both(server=for_client)[0])

    def test_chain(self):
        """A certificate of a CA in between comes with it; that CA alone may be trusted too."""
        between = CA(self.mktemp(), "between", above=self.ca)
        pair = between.issue("x", "exporter.example")
        self.assertEqual([None, None], self.both(client=pair)[0])
        self.assertEqual([None, None], self.both(client=pair, server_ca=between.file)[0])
        alone = self.ca._write("alone.pem", Path(pair[0]).read_bytes().split(b"-----END CERTIFICATE-----\n")[0]
                               + b"-----END CERTIFICATE-----\n")  # fmt: skip
        self.assertEqual(["tls_refused", "tls_unknown_ca"], self.both(client=(alone, pair[1]))[0])

    def foreign(self, server, version=None, ciphers=None, certificate=False):
        """An end that is not ours, with OpenSSL's bare defaults; what our end says of it."""
        context = SSL.Context(SSL.TLS_METHOD)
        if version:
            context.set_min_proto_version(version)
            context.set_max_proto_version(version)
        context.set_cipher_list(ciphers or b"ALL:@SECLEVEL=0")
        if certificate:
            context.use_certificate_chain_file(self.exporter[0])
            context.use_privatekey_file(self.exporter[1])
        other = SSL.Connection(context, None)
        other.set_connect_state()
        for _ in range(6):
            for step in (other.do_handshake, lambda: server.feed(other.bio_read(1 << 16)),
                         lambda: other.bio_write(server.outgoing())):  # fmt: skip
                try:
                    step()
                except SSL.Error:
                    pass
        return server.fault and server.fault.reason

    def test_no_certificate(self):
        """TLS-2: a client without a certificate is refused, with TLS 1.2 and 1.3."""
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            self.assertEqual("tls_no_certificate", self.foreign(self.ends()[1], version))
            self.assertIsNone(self.foreign(self.ends()[1], version, certificate=True))

    def test_without_verification(self):
        """verify=0 takes anybody."""
        server = self.ends(server=Files("", *self.collector, verify=False))[1]
        self.assertIsNone(self.foreign(server))
        self.assertTrue(server.secured)

    def test_versions(self):
        """TLS-1: nothing below TLS 1.2."""
        credentials = Credentials(self.files(self.collector), True)
        credentials.open()
        credentials._context.set_cipher_list(b"ALL:@SECLEVEL=0")  # OpenSSL's own bar is another one
        for version in (SSL.TLS1_VERSION, SSL.TLS1_1_VERSION):
            self.assertEqual("tls_version", self.foreign(credentials.layer(), version, certificate=True))
        self.assertIsNone(self.foreign(credentials.layer(), SSL.TLS1_2_VERSION, certificate=True))

    def test_ciphers(self):
        """TLS-4: no cipher suite without authentication, secrecy or forward secrecy, nor one of CBC."""
        for ciphers in (b"eNULL:@SECLEVEL=0", b"aNULL:@SECLEVEL=0", b"kRSA", b"ECDHE-ECDSA-AES128-SHA256"):
            found = self.foreign(self.ends()[1], SSL.TLS1_2_VERSION, ciphers, certificate=True)
            self.assertEqual("tls_cipher", found, ciphers)

    def test_other_protocols(self):
        """A peer that speaks IPFIX in plain is told from other nonsense, by its first octets already."""
        for octets, reason in (
            (b"\x00\x0a\x00\x10", "tls_plain"), (b"\x00", "tls_plain"), (b"GET / HTTP/1.0\r\n\r\n", "tls_garbage"),
            (b"\x00\x09", "tls_garbage"), (b"\x16garbage that goes on and on", "tls_garbage"),
            (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", "tls_garbage"),
        ):  # fmt: skip
            client, server = self.ends()
            server.feed(octets)
            self.assertEqual(reason, server.fault.reason, octets)
            client.feed(b"")
            client.feed(octets)
            self.assertEqual(reason, client.fault.reason, octets)

    def test_broken_later(self):
        """A record that was changed on the way ends the connection; what came before it is there."""
        client, server = self.ends()
        self.shake(client, server)
        client.write(b"good")
        good = client.outgoing()
        client.write(b"evil")
        evil = bytearray(client.outgoing())
        evil[-1] ^= 1
        self.assertEqual(b"good", server.feed(good + bytes(evil)))
        self.assertEqual("tls_broken", server.fault.reason)
        self.assertEqual(b"", server.feed(good))

    def test_no_resumption(self):
        """A session is never resumed: the verification would be left out."""
        credentials = Credentials(self.files(self.collector), True, ("exporter.example",))
        credentials.open()
        for version in (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION):
            context = SSL.Context(SSL.TLS_METHOD)
            context.set_max_proto_version(version)
            context.use_certificate_chain_file(self.exporter[0])
            context.use_privatekey_file(self.exporter[1])
            clients = []  # OpenSSL forgets the session of one that is gone
            for _ in range(2):
                server, client = credentials.layer(), SSL.Connection(context, None)
                said = []
                client.set_connect_state()
                if clients:
                    client.set_session(clients[0].get_session())
                for _ in range(4):
                    try:
                        client.do_handshake()
                        client.recv(1)
                    except SSL.WantReadError:
                        pass
                    try:
                        said.append(client.bio_read(1 << 16))
                        server.feed(said[-1])
                    except SSL.WantReadError:
                        pass
                    if octets := server.outgoing():
                        client.bio_write(octets)
                self.assertIsNone(server.fault)
                clients.append(client)
                self.assertGreater(len(said[1]), 300)  # it has shown its certificate

    @given(st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), min_size=1, max_size=4), st.integers(1, 700))
    def test_changed_octets(self, changes, cut):
        """Whatever octets of a handshake are changed, and wherever it is cut: no exception, a reason that is known."""
        client, server = self.ends()
        sent = 0
        client.feed(b"")
        for _ in range(8):
            for one, other in ((client, server), (server, client)):
                octets = bytearray(one.outgoing())
                for place, value in changes:
                    if sent <= place < sent + len(octets):
                        octets[place - sent] = value
                sent += len(octets)
                for start in range(0, len(octets), cut):
                    other.feed(bytes(octets[start : start + cut]))
        for end in (client, server):
            self.assertIn(end.fault and end.fault.reason, (None, *REASONS))

    @given(st.binary(max_size=300))
    def test_any_octets(self, octets):
        """Whatever comes first: no exception."""
        for end in self.ends():
            end.feed(b"")
            end.feed(octets)
            end.feed(octets)
            self.assertFalse(end.secured)


class ReloadTests(TlsCase):
    """Files that change while the service runs."""

    def setUp(self):
        super().setUp()
        self.said = []
        self.client = Credentials(self.files(self.exporter), False, ("collector.example",))
        self.client.open()
        self.credentials = Credentials(self.files(self.collector), True, say=self.said.append)
        self.credentials.open()
        self.said.clear()

    def shown(self):
        """The serial number of the certificate that a new connection shows."""
        server, client = self.credentials.layer(), self.client.layer()
        self.shake(client, server)
        self.assertIsNone(client.fault)
        return client._connection.get_peer_certificate().get_serial_number()

    def test_changed(self):
        """A file that has changed counts for the next connection."""
        first = self.shown()
        self.assertEqual(first, self.shown())
        self.ca.issue("collector", "collector.example")
        self.assertNotEqual(first, self.shown())
        self.assertEqual(f"certificates have been read again from {self.collector[0]}", self.said[-1])

    def test_broken(self):
        """A broken file leaves what was there, and is told once; a later good one is taken."""
        first = self.shown()
        key = Path(self.collector[1]).read_bytes()
        self.ca._write("collector.key", b"nothing", 0o600)
        self.assertEqual([first, first], [self.shown(), self.shown()])
        (said,) = self.said
        self.assertIn("the previous certificates stay in use: ", said)
        self.assertIn("no private key in PEM form", said)
        self.ca._write("collector.key", key, 0o600)
        self.assertEqual(first, self.shown())
        self.assertIn("have been read again", " ".join(self.said))

    def test_half(self):
        """A certificate whose key has not come yet waits for it."""
        first, key = self.shown(), Path(self.collector[1]).read_bytes()
        self.ca.issue("collector", "collector.example")
        fresh = Path(self.collector[1]).read_bytes()
        self.ca._write("collector.key", key, 0o600)
        self.assertEqual(first, self.shown())
        self.assertIn("is not the key of the certificate", self.said[0])
        self.ca._write("collector.key", fresh, 0o600)
        self.assertNotEqual(first, self.shown())

    def test_trust(self):
        """A CA that is added to the directory counts for the next connection."""
        directory = Path(self.mktemp())
        directory.mkdir()
        (directory / "one.pem").write_bytes(pem(self.ca.certificate))
        credentials = Credentials(Files(str(directory), *self.collector), True)
        credentials.open()
        other = CA(self.mktemp(), "other")
        pair = other.issue("x", "exporter.example")
        for reason in ("tls_unknown_ca", None):
            client = self.ends(client=pair)[0]
            server = credentials.layer()
            self.shake(client, server)
            self.assertEqual(reason, server.fault and server.fault.reason)
            (directory / "two.crt").write_bytes(pem(other.certificate))

    def test_ends_soon(self):
        """Of a certificate that ends within two weeks, or has ended, the log tells at the start."""
        for ends, text in ((13 * DAY, "ends on"), (-DAY / 2, "has ended on")):
            pair = self.ca.issue("soon", "collector.example", ends=ends)
            Credentials(self.files(pair), True, say=self.said.append).open()
            self.assertIn(text, self.said.pop())
        pair = self.ca.issue("later", "collector.example", ends=15 * DAY)
        Credentials(self.files(pair), True, say=self.said.append).open()
        self.assertEqual([], self.said)


class NameIndicationTests(TlsCase):
    """What a client tells a server of the name that it wants."""

    def test_server_name(self):
        """It is told, unless it is an address (RFC 6066 section 3)."""
        for expects, told in (("collector.example", b"collector.example"), ("192.0.2.1", None)):
            client, server = self.ends(expects=expects)
            self.shake(client, server)
            self.assertEqual(told, server._connection.get_servername())
