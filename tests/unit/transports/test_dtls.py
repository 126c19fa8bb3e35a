"""DTLS in memory: the cookie before any state, handshakes of two ends, datagrams of a path's size, any octets."""

import gc
import os

from hypothesis import strategies as st
from OpenSSL import SSL

from tests.certificates import CA, DAY
from tests.support import given
from tests.unit.transports.test_tls import TlsCase
from ulogd_tw.transports.dtls.layer import COOKIE_SECONDS, LONGEST, CookieExchange, client
from ulogd_tw.transports.tls.credentials import Credentials
from ulogd_tw.transports.tls.layer import REASONS

HERE, THERE = b"192.0.2.9 4711", b"192.0.2.66 4711"


class DtlsCase(TlsCase):
    """A porch, and exporters before it."""

    def setUp(self):
        super().setUp()
        self.porch = self.make_porch()

    def make_porch(self, pair=None, peers=(), mtu=1200):
        credentials = Credentials(self.files(pair or self.collector), True, peers, datagrams=True)
        credentials.open()
        return CookieExchange(credentials, mtu)

    def client(self, pair=None, expects="collector.example", mtu=1200):
        credentials = Credentials(self.files(pair or self.exporter), False, (expects,), datagrams=True)
        credentials.open()
        return client(credentials, mtu)

    def hello(self, end):
        """Its first datagram, or its answer to what it took last."""
        end.take(b"")
        (datagram,) = end.datagrams()
        return datagram

    def shake(self, end, porch=None, sender=HERE, now=0.0):
        """Handshake to its end; the session of the server."""
        _, (verify,) = (porch or self.porch).greet(sender, self.hello(end), now)
        end.take(verify)
        (again,) = end.datagrams()
        session, answer = (porch or self.porch).greet(sender, again, now)
        for datagram in answer:
            end.take(datagram)
        self.talk(end, session)
        return session

    def talk(self, end, session):
        """Until neither has more to say: what each has heard."""
        heard = {end: [], session: []}
        for _ in range(10):
            for one, other in ((end, session), (session, end)):
                for datagram in one.datagrams():
                    heard[other] += other.take(datagram)
        return heard[end], heard[session]


class CookieTests(DtlsCase):
    """What an unknown sender gets."""

    def test_cookie(self):
        """A ClientHello gets a shorter answer; with the cookie in it, it gets a session, from that address only."""
        end = self.client()
        hello = self.hello(end)
        session, (verify,) = self.porch.greet(HERE, hello, 0.0)
        self.assertIsNone(session)
        self.assertLess(len(verify), len(hello))
        self.assertEqual((22, 3), (verify[0], verify[13]))  # HelloVerifyRequest (RFC 6347 section 4.3.2)
        end.take(verify)
        (again,) = end.datagrams()
        stolen, (other,) = self.porch.greet(THERE, again, 0.0)
        self.assertEqual((None, 3), (stolen, other[13]))
        session, flight = self.porch.greet(HERE, again, 0.0)
        self.assertEqual(2, flight[0][13])  # ServerHello
        self.assertFalse(session.secured)

    def test_no_memory(self):
        """A flood of ClientHellos of forged senders leaves nothing behind."""
        hello = self.hello(self.client())
        self.porch.greet(HERE, hello, 0.0)
        gc.collect()
        before, connections = len(gc.get_objects()), self.connections()
        for number in range(2000):
            self.porch.greet(b"%d" % number, hello, 0.0)
        gc.collect()
        self.assertEqual(connections, self.connections())
        self.assertLess(len(gc.get_objects()) - before, 50)
        self.assertTrue(self.shake(self.client()).secured)

    def connections(self):
        return sum(isinstance(thing, SSL.Connection) for thing in gc.get_objects())

    def test_old_cookies(self):
        """A cookie is good for one to two minutes."""
        for later, good in ((COOKIE_SECONDS - 1, True), (COOKIE_SECONDS + 1, True), (2 * COOKIE_SECONDS + 2, False)):
            porch, end = self.make_porch(), self.client()
            end.take(porch.greet(HERE, self.hello(end), 0.0)[1][0])
            (again,) = end.datagrams()
            porch.greet(THERE, again, min(later, COOKIE_SECONDS + 1))
            self.assertEqual(good, porch.greet(HERE, again, later)[0] is not None, later)

    def test_nothing_else(self):
        """Whatever is no ClientHello gets no answer."""
        hello = self.hello(self.client())
        for datagram in (b"", b"\x16", bytes(100), b"\x00\x0a" + bytes(30), hello[:24], b"\x17" + hello[1:],
                         hello[:3] + b"\0\1" + hello[5:], hello + bytes(LONGEST),
                         hello[:21] + b"\1" + hello[22:], hello[:59] + b"\xff" + hello[60:],
                         hello[:60] + b"\xff" + hello[61:]):  # fmt: skip
            self.assertEqual((None, []), self.porch.greet(HERE, datagram, 0.0))

    @given(st.integers(0, 400), st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), max_size=4))
    def test_changed(self, cut, changes):
        """A ClientHello that is cut or changed raises nothing, and leaves a porch that works."""
        hello = bytearray(self.hello(self.client()))
        for place, value in changes:
            if place < len(hello):
                hello[place] = value
        session, answer = self.porch.greet(HERE, bytes(hello[:cut]), 0.0)
        self.assertIsNone(session)
        self.assertLessEqual(len(b"".join(answer)), len(hello))
        self.assertTrue(self.shake(self.client()).secured)

    def test_new_certificate(self):
        """A certificate that is replaced counts for the next handshake."""
        seen = []
        for _ in range(2):
            end = self.client()
            self.shake(end)
            seen.append(end._connection.get_peer_certificate().get_serial_number())
            self.ca.issue("collector", "collector.example")
        self.assertEqual(2, len(set(seen)))


class SessionTests(DtlsCase):
    """Two ends with a session."""

    def test_messages(self):
        """Each message is a datagram of its own, of the size that fits, in both directions."""
        end = self.client()
        session = self.shake(end)
        self.assertEqual([True] * 4, [end.secured, end.accepted, session.secured, session.accepted])
        self.assertTrue(end.described().startswith("DTLSv1.2 ECDHE"))
        longest = os.urandom(end.room)
        for message in (longest, b"x", b"yy"):
            self.assertTrue(end.send(message))
        sent = end.datagrams()
        self.assertEqual(3, len(sent))
        self.assertLessEqual(max(map(len, sent)), 1200)
        self.assertFalse(end.send(longest + b"."))
        self.assertEqual([], end.datagrams())
        heard = [session.take(datagram) for datagram in sent]
        self.assertEqual([[longest], [b"x"], [b"yy"]], heard)
        session.send(b"back")
        self.assertEqual(([b"back"], []), self.talk(end, session))

    def test_mtu(self):
        """No datagram of a handshake is longer than the path takes, whatever the certificates need."""
        between = CA(self.mktemp(), "between", above=self.ca)
        pair = between.issue("long", *(f"name{i}.collector.example" for i in range(60)), "collector.example")
        porch, end = self.make_porch(pair, mtu=500), self.client(mtu=500)
        sent = []
        end.take(porch.greet(HERE, self.hello(end), 0.0)[1][0])
        (again,) = end.datagrams()
        session, answer = porch.greet(HERE, again, 0.0)
        for datagram in answer:
            end.take(datagram)
        sent += answer
        for _ in range(4):
            for one, other in ((end, session), (session, end)):
                for datagram in one.datagrams():
                    sent.append(datagram)
                    other.take(datagram)
        self.assertTrue(end.secured and session.secured)
        self.assertGreater(len(sent), 5)
        self.assertLessEqual(max(map(len, sent)), 500)

    def test_lost_and_late(self):
        """Datagrams that are lost, doubled, late or changed cost nobody the session."""
        end = self.client()
        session = self.shake(end)
        for number in range(4):
            end.send(b"%d" % number)
        zero, one, two, three = end.datagrams()
        changed = bytes([*two[:-1], two[-1] ^ 1])
        heard = [session.take(d) for d in (three, zero, zero, changed, one[:20], b"\x17\xfe\xfd", os.urandom(300), two)]
        self.assertEqual([[b"3"], [b"0"], [], [], [], [], [], [b"2"]], heard)
        self.assertIsNone(session.fault)

    def test_close(self):
        """The end is told, and sealed: nobody else can say it."""
        end = self.client()
        session = self.shake(end)
        session.take(b"\x15\xfe\xfd" + bytes(8) + b"\0\2\1\0")  # an alert in plain
        self.assertEqual((False, None), (session.ended, session.fault))
        end.close()
        self.talk(end, session)
        self.assertTrue(session.ended)

    def test_times(self):
        """Only while a flight waits for an answer there is a time after which it goes again."""
        end = self.client()
        self.assertIsNone(end.timeout())
        self.hello(end)
        self.assertTrue(0 < end.timeout() <= 1.0)
        end.expire()  # too early: nothing
        self.assertEqual([], end.datagrams())
        session = self.shake(self.client())
        self.assertIsNone(session.timeout())

    def test_reasons(self):
        """TLS-1, TLS-2: certificates and names are judged as over TLS."""
        other = CA(self.mktemp(), "other").issue("x", "collector.example", "exporter.example")
        late = self.ca.issue("late", "collector.example", "exporter.example", ends=-DAY / 2)
        for client_pair, server_pair, expects, peers, reasons in (
            (other, None, "collector.example", (), ("tls_refused", "tls_unknown_ca")),
            (None, other, "collector.example", (), ("tls_unknown_ca", "tls_refused")),
            (late, None, "collector.example", (), ("tls_refused", "tls_expired")),
            (None, late, "collector.example", (), ("tls_expired", "tls_refused")),
            (None, None, "x.example", (), ("tls_name", "tls_refused")),
            (None, None, "collector.example", ("x.example",), ("tls_refused", "tls_name")),
            (None, None, "collector.example", ("exporter.example",), (None, None)),
        ):
            end = self.client(client_pair, expects)
            session = self.shake(end, self.make_porch(server_pair, peers))
            self.assertEqual(reasons, tuple(side.fault and side.fault.reason for side in (end, session)))

    @given(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), min_size=1, max_size=3))
    def test_changed_handshake(self, changes):
        """Whatever octets of a handshake are changed: no exception, and a reason that is known, or none."""
        end, sent = self.client(), 0
        end.take(self.porch.greet(HERE, self.hello(end), 0.0)[1][0])
        session, flight = self.porch.greet(HERE, end.datagrams()[0], 0.0)
        for _ in range(3):
            for datagram in flight:
                octets = bytearray(datagram)
                for place, value in changes:
                    if sent <= place < sent + len(octets):
                        octets[place - sent] = value
                sent += len(octets)
                end.take(bytes(octets))
            for datagram in end.datagrams():
                session.take(datagram)
            flight = session.datagrams()
        for side in (end, session):
            self.assertIn(side.fault and side.fault.reason, (None, *REASONS))
