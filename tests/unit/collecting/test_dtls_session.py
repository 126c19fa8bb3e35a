"""COLLECTOR over DTLS, in memory: associations as Transport Sessions, within the limits of sessions."""

import struct

from twisted.internet import reactor, task

from tests.unit.collecting.doubles import Collecting, slab_of
from tests.unit.ipfix.wire import a_set, ipv4, message
from tests.unit.ipfix.wire import template as record
from tests.unit.transports.test_dtls import DtlsCase
from tests.unit.transports.test_dtls_listener import FAR, HERE, THERE, FakeSocket
from ulogd_tw.transports.dtls.listener import DtlsListener


def template(ident=256):
    """A Template Set: addresses and octets."""
    return a_set(2, record(ident, (8, 4), (12, 4), (1, 8)))


def data(n, ident=256):
    """A Data Set of n records."""
    return a_set(ident, *(struct.pack("!IIQ", i, i, 100) for i in range(n)))


class CollectorCase(DtlsCase):
    """A COLLECTOR with a port of DTLS, and exporters."""

    def setUp(self):
        super().setUp()
        self.patch(reactor, "removeReader", lambda reader: None)

    def collect(self, **options):
        files = {"ca": self.ca.file, "cert": self.collector[0], "private_key": self.collector[1]}
        self.collecting = Collecting(self, **files | options)
        self.plugin = self.collecting.plugin
        self.plugin.open_reception({"dtls"})
        self.gate = self.plugin.entrances["dtls"].gate
        self.gate.clock = task.Clock()
        self.socket = FakeSocket()
        self.listener = DtlsListener(self.socket, self.gate.received, 0.0)
        self.plugin._listeners.append(self.listener)
        self.addCleanup(self.listener.close)

    def receive(self, peer, *datagrams):
        self.gate.received(self.listener, slab_of([(octets, *peer) for octets in datagrams]))

    def enter(self, peer=HERE):
        end = self.client()
        end.take(b"")
        for _ in range(5):
            self.carry(end, peer)
        return end

    def carry(self, end, peer):
        if datagrams := end.datagrams():
            self.receive(peer, *datagrams)
        for datagram in self.socket.sent.pop(peer, []):
            end.take(datagram)

    def say(self, end, peer, *messages):
        for octets in messages:
            end.send(octets)
        self.carry(end, peer)

    @property
    def figures(self):
        return self.plugin.counters.as_dict()


class SessionTests(CollectorCase):
    """Messages of associations."""

    def test_rows(self):
        """Records come with their exporter; the end of an association forgets its templates; the log tells of both."""
        self.collect()
        end = self.enter()
        self.say(end, HERE, message(template()), message(data(5)), message(data(3), number=5))
        rows = [row for batch in self.collecting.batches for row in batch.rows()]
        self.assertEqual((8, {ipv4("192.0.2.9")}), (len(rows), {row["exporter"] for row in rows}))
        self.assertEqual((1, 1, {}, {}), tuple(self.figures[n] for n in ("sessions", "templates", "errors", "lost")))
        (known,) = self.plugin.exporters()
        self.assertEqual(("192.0.2.9", 4711, 8), tuple(known[name] for name in ("exporter", "port", "records")))
        end.close()
        self.carry(end, HERE)
        self.assertEqual((0, 0, 0), tuple(self.figures[n] for n in ("sessions", "templates", "associations")))
        self.assertEqual(1, len(self.collecting.heard("192.0.2.9:4711 has connected")))
        self.assertEqual(1, len(self.collecting.heard("192.0.2.9:4711 has disconnected: closed by the peer")))

    def test_templates_of_others(self):
        """Data that overtakes its template waits for it; that of another port of the address is none."""
        self.collect()
        one, other = self.enter(), self.enter(FAR)
        self.say(one, HERE, message(data(5)))
        self.say(other, FAR, message(template()), message(data(2)))
        self.assertEqual(2, sum(batch.n for batch in self.collecting.batches))
        self.say(one, HERE, message(template(), number=5))
        self.assertEqual(7, sum(batch.n for batch in self.collecting.batches))

    def test_begun_anew(self):
        """A new association of an address and port is a new session: from 0, without templates; it is no news."""
        self.collect()
        old = self.enter()
        self.say(old, HERE, message(template()), message(data(5)))
        new = self.enter()
        self.say(new, HERE, message(template(ident=300)), message(data(4, ident=300)))
        self.assertEqual((9, 1, {}, {}), (
            sum(batch.n for batch in self.collecting.batches),
            *(self.figures[name] for name in ("templates", "errors", "lost"))))  # fmt: skip

    def test_quiet_successor(self):
        """An association that takes the place of another one from a new port is no line in the log."""
        self.collect()
        old = self.enter()
        said = len(self.collecting.said)
        self.enter(FAR)
        old.close()
        self.carry(old, HERE)
        self.assertEqual((said, 1), (len(self.collecting.said), self.figures["associations"]))

    def test_template_lifetime(self):
        """Templates that do not come again are forgotten, as over UDP (RFC 7011 section 8.4)."""
        self.collect(template_lifetime=100.0, park=0.0)
        end = self.enter()
        self.say(end, HERE, message(template()), message(data(5)))
        self.collecting.at(1101.0)
        self.assertEqual((0, {"template_expired": 1}), (self.figures["templates"], self.figures["errors"]))


class LimitTests(CollectorCase):
    """What is bounded."""

    def test_sessions(self):
        """max_sessions and max_sessions_of_address: a further exporter is refused, and hears the end.

        One that has given no record makes room for it.
        """
        for options, peers, reason in (
            ({"max_sessions": 2}, (HERE, THERE, FAR), "limit_sessions"),
            ({"max_sessions_of_address": 1}, (THERE, HERE, FAR), "limit_sessions_of_address"),
        ):
            self.collect(**options)
            ends = [self.enter(peer) for peer in peers[:2]]
            for end, peer in zip(ends, peers[:2], strict=True):
                self.say(end, peer, message(template()), message(data(5)))
            ends.append(self.enter(peers[2]))
            self.assertEqual([False, False, True], [end.ended for end in ends])
            self.assertEqual(({reason: 1}, 2, 2), tuple(
                self.figures[name] for name in ("errors", "sessions", "associations")))  # fmt: skip

    def test_idle(self):
        """An association that is silent for idle_timeout is ended, and told so."""
        self.collect(idle_timeout=100.0)
        end = self.enter()
        self.collecting.at(1099.0)
        self.assertEqual(1, self.figures["associations"])
        self.collecting.at(1100.0)
        self.carry(end, HERE)
        self.assertEqual((0, True), (self.figures["associations"], end.ended))

    def test_not_allowed(self):
        """Whoever allow= does not have gets no answer."""
        self.collect(allow="198.51.100.0/24")
        end = self.client()
        self.receive(HERE, self.hello(end))
        self.assertEqual(({}, {"not_allowed": 1}), (self.socket.sent, self.figures["errors"]))

    def test_said(self):
        """What is passed over is counted each time, and said once a minute whoever it names."""
        self.collect()
        for port in range(1, 50):
            self.receive(("198.51.100.1", port), message(template()))
        self.assertEqual({"tls_plain": 49}, self.figures["errors"])
        self.assertEqual(1, len(self.collecting.heard("is ignored: it is IPFIX without DTLS")))
