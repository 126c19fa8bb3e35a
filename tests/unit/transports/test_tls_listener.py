"""Listening for TLS, on memory transports with a Clock: who gets through the gate, and what becomes of the others."""

from twisted.internet import error, task
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.unit.transports.test_tls import TlsCase
from ulogd_tw.transports.tls.credentials import Credentials
from ulogd_tw.transports.tls.listener import HandshakeGate, TlsConnection


class Transport(StringTransport):
    """A TCP transport of a server."""

    aborted = False

    def setTcpKeepAlive(self, flag): ...

    def abortConnection(self):
        self.aborted = self.disconnecting = True

    def getPeer(self):
        return self

    host, port = "192.0.2.9", 4711


class GateCase(TlsCase):
    """A gate, its users, and peers."""

    def setUp(self):
        super().setUp()
        self.clock = task.Clock()
        self.connected, self.refused, self.made = [], [], []
        self.addCleanup(self.end)
        self.gate = self.make()

    def make(self, most=3, **keywords):
        credentials = Credentials(self.files(self.collector), True)
        credentials.open()
        return HandshakeGate(
            credentials, lambda peer, fault: self.refused.append(fault.reason), most, 10, clock=self.clock, **keywords
        )

    def accept(self):
        """A new connection, on its transport."""
        connection = TlsConnection(self.gate, self.take)
        connection.heard, connection.ends = [], []
        connection.received, connection.lost = connection.heard.append, connection.ends.append
        connection.makeConnection(Transport())
        self.made.append(connection)
        return connection

    def take(self, connection):
        self.connected.append(connection)

    def client(self):
        credentials = Credentials(self.files(self.exporter), False, ("collector.example",))
        credentials.open()
        return credentials.layer()

    def talk(self, client, connection):
        """Until neither has more to say."""
        client.feed(b"")
        for _ in range(10):
            if octets := client.outgoing():
                connection.dataReceived(octets)
            client.feed(connection.transport.value())
            connection.transport.clear()

    def lose(self, connection, reason=None):
        self.made.remove(connection)
        connection.connectionLost(Failure(reason or error.ConnectionDone()))

    def end(self):
        for connection in list(self.made):
            self.lose(connection)
        self.assertEqual(0, len(self.gate))
        self.assertEqual([], self.clock.getDelayedCalls())


class GateTests(GateCase):
    """Connections until they are through, and afterwards."""

    def test_good(self):
        """A verified peer is told to the user once, with its octets in plain, and no timer is left."""
        connection, client = self.accept(), self.client()
        self.assertEqual(1, len(self.gate))
        self.talk(client, connection)
        self.assertEqual(([connection], 0), (self.connected, len(self.gate)))
        self.assertEqual(("192.0.2.9", 4711), connection.peer)
        client.write(b"one")
        client.write(b"two" * 10_000)
        self.talk(client, connection)
        self.assertEqual(b"one" + b"two" * 10_000, b"".join(connection.heard))
        self.clock.advance(100)
        self.assertFalse(connection.transport.disconnecting)
        client.close()
        self.talk(client, connection)
        self.assertTrue(connection.transport.disconnecting and client.ended)
        self.lose(connection)
        self.assertEqual((["closed by the peer"], []), (connection.ends, self.refused))

    def test_octets_with_the_handshake(self):
        """What comes together with the last flight of the handshake is heard, after `connected`."""
        connection, client = self.accept(), self.client()
        client.feed(b"")
        connection.dataReceived(client.outgoing())
        client.feed(connection.transport.value())
        client.write(b"early")
        connection.dataReceived(client.outgoing())
        self.assertEqual(([connection], [b"early"]), (self.connected, connection.heard))

    def test_pause(self):
        """A paused connection reads nothing from its kernel; a drained one reads what is there, through TLS."""
        connection, client = self.accept(), self.client()
        self.talk(client, connection)
        connection.pause()
        self.assertEqual("paused", connection.transport.producerState)
        connection.resume()
        self.assertEqual("producing", connection.transport.producerState)
        client.write(b"last")
        waiting = [client.outgoing()]
        connection.transport.disconnected = False
        connection.transport.doRead = lambda: connection.dataReceived(waiting.pop()) if waiting else None
        connection.drain(float("inf"))
        self.assertEqual([b"last"], connection.heard)

    def test_closed_by_us(self):
        """An orderly close says so in TLS; what comes then is not heard."""
        connection, client = self.accept(), self.client()
        self.talk(client, connection)
        client.write(b"late")
        connection.close()
        self.talk(client, connection)
        self.assertTrue(client.ended and connection.transport.disconnecting)
        self.assertEqual([], connection.heard)
        self.lose(connection)
        self.assertEqual(["closed by us"], connection.ends)

    def test_closed_without_a_word(self):
        """TCP's end without TLS's is told apart, since anybody on the way can make one."""
        for reason, text in ((None, "without TLS's close_notify"), (error.ConnectionLost(), "non-clean")):
            connection, client = self.accept(), self.client()
            self.talk(client, connection)
            self.lose(connection, reason)
            self.assertIn(text, connection.ends[0])

    def test_refused(self):
        """A peer that is refused is never told to the user; it gets the alert, and its reason is counted once."""
        for octets, reason in ((b"\x00\x0a\x00\x20", "tls_plain"), (b"HELO x\r\n", "tls_garbage"),
                               (b"\x16\x03\x01\xff\xff", "tls_garbage")):  # fmt: skip
            connection = self.accept()
            connection.dataReceived(octets)
            connection.dataReceived(octets)
            self.assertTrue(connection.transport.disconnecting)
            self.lose(connection)
            self.assertEqual(([], [], [reason]), (self.connected, connection.ends, self.refused))
            self.refused.clear()
        other, connection = self.ca.issue("late", "a", ends=-self.hour()), self.accept()
        credentials = Credentials(self.files(other), False, ("collector.example",))
        credentials.open()
        client = credentials.layer()
        self.talk(client, connection)
        self.assertEqual((["tls_expired"], "tls_refused"), (self.refused, client.fault.reason))
        self.assertIn("certificate_expired", str(client.fault))

    def hour(self):
        import datetime

        return datetime.timedelta(hours=1)

    def test_broken_later(self):
        """A good peer whose octets are changed on the way is counted, and its end is told."""
        connection, client = self.accept(), self.client()
        self.talk(client, connection)
        connection.dataReceived(b"\x17\x03\x03\x00\x20" + bytes(32))
        self.assertEqual(["tls_broken"], self.refused)
        self.lose(connection)
        self.assertIn("it sends invalid TLS", connection.ends[0])

    def test_timeout(self):
        """A handshake that does not end is broken off after 10 s, whatever dribbles in."""
        connection = self.accept()
        for octet in b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc":
            connection.dataReceived(bytes([octet]))
            self.clock.advance(1)
        self.assertEqual([], self.refused)
        self.clock.advance(1)
        self.assertEqual((["tls_timeout"], True), (self.refused, connection.transport.disconnecting))

    def test_closed_in_the_handshake(self):
        """A peer that goes away before the end of the handshake is counted."""
        self.lose(self.accept())
        self.assertEqual(["tls_closed"], self.refused)

    def test_most(self):
        """Of too many unfinished handshakes the oldest makes room; finished ones do not count."""
        through, client = self.accept(), self.client()
        self.talk(client, through)
        waiting = [self.accept() for _ in range(4)]
        self.assertEqual(3, len(self.gate))
        self.assertEqual([True, False, False, False], [c.transport.disconnecting for c in waiting])
        self.assertEqual((["tls_limit"], False), (self.refused, through.transport.disconnecting))

    def test_not_admitted(self):
        """Whoever may not come costs no handshake."""
        self.gate = self.make(admits=lambda peer: peer[0] != "192.0.2.9")
        connection = self.accept()
        self.assertTrue(connection.transport.aborted)
        connection.dataReceived(b"\x16")
        self.lose(connection)
        self.assertEqual(([], [], 0), (self.refused, connection.ends, len(self.gate)))

    def test_stop(self):
        """A stop ends the handshakes that are under way."""
        connection = self.accept()
        self.gate.close()
        self.assertTrue(connection.transport.disconnecting)
        self.lose(connection)
        self.assertEqual([], self.refused)
