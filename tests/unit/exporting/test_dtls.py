"""The output IPFIX over DTLS, in memory: when a session is up, what waits, what is noticed, and why there is none."""

import errno

import numpy as np

from tests.certificates import CA, DAY
from tests.unit.exporting.doubles import Reader, flows
from tests.unit.plugins.outputs.test_ipfix import ExporterCase
from ulogd_tw import config, tap
from ulogd_tw.transports.dtls.layer import UNKNOWN, CookieExchange
from ulogd_tw.transports.tls.credentials import Credentials, Files


class Server:
    """The collector's end: for each socket of the exporter a porch and an association; `heard` are its messages."""

    def __init__(self, case, pair=None, peers=()):
        credentials = Credentials(Files(case.ca.file, *(pair or case.collector)), True, peers, datagrams=True)
        credentials.open()
        self.porch = CookieExchange(credentials, 1200)
        self.layers, self.heard = {}, {}

    def talk(self, plugin, made, most=20):
        """Until neither has more to say, or `most` times."""
        for _ in range(most):
            datagrams, made.sent = made.sent, []
            if not datagrams or not self.answer(made, datagrams):
                return
            self.read(plugin, made)

    def answer(self, made, datagrams):
        """Put the answers into the inbox; whether there are some."""
        before = len(made.inbox)
        for datagram in datagrams:
            layer = self.layers.get(made)
            if layer is None:
                layer, answers = self.porch.greet(b"here", datagram, 0.0)
                if layer is not None:
                    self.layers[made] = layer
                made.inbox += answers
            else:
                self.heard.setdefault(made, []).extend(layer.take(datagram))
                made.inbox += layer.datagrams()
        return len(made.inbox) > before

    def read(self, plugin, made):
        """Have the exporter read what is in the inbox."""
        sender = plugin.collectors[0].sender
        for end in (sender._current, sender._next):
            if end is not None and end._socket is made:
                end.doRead()

    def say(self, plugin, made):
        """What this end has to say now."""
        made.inbox += self.layers[made].datagrams()
        self.read(plugin, made)


class DtlsCase(ExporterCase):
    """An exporter, and a collector that speaks DTLS."""

    def setUp(self):
        super().setUp()
        self.ca = CA(self.mktemp())
        self.collector = self.ca.issue("collector", "collector.example", "192.0.2.1", "2001:db8::1")
        cert, key = self.ca.issue("exporter", "exporter.example")
        self.options = {"ca": self.ca.file, "cert": cert, "private_key": key, "reconnect": 5.0}

    def start(self, **options):
        self.batch = flows(100)
        return self.exporter(self.batch, **{"collectors": ("dtls:192.0.2.1",)} | self.options | options)

    def up(self, **options):
        """An exporter with an association, and its collector."""
        plugin, server = self.start(**options), Server(self)
        server.talk(plugin, self.sockets[-1])
        self.assertEqual("connected", self.figures(plugin)["state"])
        return plugin, server

    def write(self, plugin):
        plugin.write(self.batch)
        self.tick(plugin)

    def records(self, server, made, gaps=()):
        """How many records this association has brought."""
        reader = Reader()
        for message in server.heard.get(made, ()):
            reader.message(message)
        self.assertEqual((list(gaps), 0), (reader.gaps, reader.unreadable))
        return len(reader.records)


class SessionTests(DtlsCase):
    """Associations that come up."""

    def test_up(self):
        """Nothing goes out before both ends accept each other; then all that waited, templates first."""
        plugin, server = self.start(), Server(self)
        self.write(plugin)
        (made,) = self.sockets
        self.assertEqual(("connecting", 0), (self.figures(plugin)["state"], self.figures(plugin)["records_sent"]))
        self.assertTrue(all(datagram[0] == 22 for datagram in made.sent))
        server.talk(plugin, made)
        server.talk(plugin, made)
        figures = self.figures(plugin)
        self.assertEqual(("connected", 200, 1), tuple(figures[n] for n in ("state", "records_sent", "connects")))
        self.assertEqual(200, self.records(server, made))
        self.assertTrue(figures["tls"].startswith("DTLSv1.2 ECDHE"))

    def test_sizes(self):
        """No packet is longer than `mtu`, with the headers of IP and UDP, and the longest is nearly as long."""
        for url, headers in (("dtls:192.0.2.1", 28), ("dtls:[2001:db8::1]", 48)):
            for mtu in (576, 1500):
                plugin, server = self.start(collectors=(url,), mtu=mtu), Server(self)
                made = self.sockets[-1]
                server.talk(plugin, made)
                made.longest = mtu - headers
                self.write(plugin)
                longest = max(map(len, made.sent))
                self.assertTrue(mtu - headers - 80 < longest <= mtu - headers, (url, mtu, longest))
                server.talk(plugin, made)
                self.assertEqual(200, self.records(server, made))
                self.end()

    def test_narrow(self):
        """A path that turns out narrower costs no record."""
        plugin, server = self.up()
        (made,) = self.sockets
        made.longest, made.mtu = 972, 1000
        self.write(plugin)
        self.assertLessEqual(max(map(len, made.sent)), 972)
        server.talk(plugin, made)
        self.assertEqual((200, 0), (self.records(server, made), sum(self.figures(plugin)["dropped"].values())))

    def test_templates(self):
        """Templates are sent again after template_refresh, and with each association."""
        plugin, server = self.up(template_refresh=30.0, dtls_rehandshake=0.0)
        (made,) = self.sockets
        self.write(plugin)
        server.talk(plugin, made)
        before = len(server.heard[made])
        for _ in range(31):
            self.tick(plugin)
        server.talk(plugin, made)
        (again,) = server.heard[made][before:]
        self.assertEqual(b"\0\2", again[16:18])

    def test_no_room(self):
        """What the kernel has no room for is sent when it has, once."""
        plugin, server = self.up()
        (made,) = self.sockets
        made.faults = [None, None, *[errno.EAGAIN] * 5]
        self.write(plugin)
        self.assertLess(self.figures(plugin)["records_sent"], 200)
        made.faults.clear()
        self.assertEqual(1, len(self.reactor.getWriters()))
        self.reactor.getWriters()[0].doWrite()
        server.talk(plugin, made)
        self.assertEqual(200, self.records(server, made))

    def test_bursts(self):
        """What has waited does not go out at once, but all of it goes out, in order."""
        plugin, server = self.start(mtu=576), Server(self)
        for number in range(10):
            plugin.write(flows(100, ct__id=1000 * number + np.arange(100)))
        self.tick(plugin)
        (made,) = self.sockets
        server.talk(plugin, made)
        server.answer(made, made.sent)
        made.sent, most, counted = [], 0, len(server.heard[made])
        self.assertEqual(64, counted)
        while self.figures(plugin)["records_waiting"]:
            self.reactor.advance(0.004)
            most = max(most, len(made.sent))
            server.answer(made, made.sent)
            made.sent = []
        self.assertEqual((64, 2000), (most, self.records(server, made)))

    def test_full(self):
        """While there is no association a full queue holds inputs back."""
        plugin = self.start(collector_octets=1000)
        waiting = plugin.write(self.batch)
        plugin.flush()
        waiting = waiting or plugin.write(self.batch)
        self.assertNoResult(waiting)
        Server(self).talk(plugin, self.sockets[-1])
        self.successResultOf(waiting)


class LostTests(DtlsCase):
    """A collector goes away, or is none."""

    def check_lost(self, plugin, server, reason):
        """It is lost for this reason, what is exported waits, and another association brings it."""
        self.assertNotEqual("connected", self.figures(plugin)["state"])
        self.assertIn(reason, self.figures(plugin)["last_error"])
        before = self.figures(plugin)["records_sent"]
        self.write(plugin)
        self.assertEqual(before, self.figures(plugin)["records_sent"])
        self.assertFalse(self.sockets[0].open)
        for _ in range(5):
            self.tick(plugin)
        again = self.sockets[-1]
        self.assertIsNot(self.sockets[0], again)
        server.talk(plugin, again)
        server.talk(plugin, again)
        self.assertEqual((200, 2), (self.records(server, again), self.figures(plugin)["connects"]))
        self.assertIn(self.figures(plugin)["last_error"], ("",))

    def test_closed(self):
        """A collector that says its end is left, and looked for again after `reconnect`."""
        plugin, server = self.up()
        (made,) = self.sockets
        server.layers[made].close()
        server.say(plugin, made)
        self.check_lost(plugin, server, "closed by the peer")
        server.answer(made, made.sent)
        self.assertTrue(server.layers[made].ended)

    def test_refused(self):
        """Where nobody listens any more, it is told when something is sent, or when the reactor looks."""
        plugin, server = self.up()
        self.sockets[-1].faults = [errno.ECONNREFUSED]
        self.write(plugin)
        self.assertEqual({}, self.figures(plugin)["dropped"])
        plugin.collectors[0]._queue.clear()
        self.check_lost(plugin, server, "refused: nobody listens there")

    def test_refused_as_read(self):
        """The same, where the kernel tells it to a reader."""
        plugin, server = self.up()
        (made,) = self.sockets
        made.inbox.append(errno.ECONNREFUSED)
        server.read(plugin, made)
        self.check_lost(plugin, server, "refused: nobody listens there")

    def test_icmp_is_no_end(self):
        """The reactor takes an ICMP error for the end of a connection: the socket is read on, or left."""
        plugin, server = self.up()
        (made,) = self.sockets
        end = plugin.collectors[0].sender._current
        for number, state in ((0, "connected"), (errno.EHOSTUNREACH, "connected"), (errno.ECONNREFUSED, "waiting")):
            self.reactor.removeReader(end)
            made.mtu = number
            end.connectionLost(None)
            self.assertEqual((state, state == "connected"), (
                self.figures(plugin)["state"], end in self.reactor.getReaders()))  # fmt: skip
        self.assertEqual({"unreachable": 1, "refused": 1}, self.figures(plugin)["errors"])

    def test_unknown(self):
        """A collector that says it does not know the association is looked for again."""
        plugin, server = self.up()
        (made,) = self.sockets
        made.inbox.append(UNKNOWN)
        server.read(plugin, made)
        self.check_lost(plugin, server, "does not know the association")
        self.assertEqual({"dtls_unknown": 1}, self.figures(plugin)["errors"])

    def test_noise(self):
        """Other datagrams, and alerts that are changed, change nothing."""
        plugin, server = self.up()
        (made,) = self.sockets
        made.inbox += [b"", b"x", bytes(100), b"\x17" + UNKNOWN[1:], b"\x15\xfe\xfd\0\1" + bytes(30)]
        server.read(plugin, made)
        self.write(plugin)
        server.talk(plugin, made)
        self.assertEqual((200, {}), (self.records(server, made), self.figures(plugin)["errors"]))

    def test_rehandshake(self):
        """After dtls_rehandshake a new association takes over, with templates first; the old one is told its end."""
        plugin, server = self.up(dtls_rehandshake=60.0)
        old = self.sockets[-1]
        self.write(plugin)
        server.talk(plugin, old)
        self.reactor.advance(60.0)
        new = self.sockets[-1]
        self.assertIsNot(old, new)
        other = flows(50, ct__id=5000 + np.arange(50))
        plugin.write(other)
        self.tick(plugin)
        server.talk(plugin, old)
        self.assertEqual(300, self.records(server, old))  # it carries on meanwhile
        server.talk(plugin, new)
        server.answer(old, old.sent)
        self.assertTrue(server.layers[old].ended)
        self.write(plugin)
        server.talk(plugin, new)
        self.assertEqual(200, self.records(server, new))
        figures = self.figures(plugin)
        self.assertEqual((2, {}, {}, ""), tuple(
            figures[name] for name in ("connects", "errors", "dropped", "last_error")))  # fmt: skip

    def test_rehandshake_in_vain(self):
        """Where the new association does not come about the old one is given up: records wait."""
        plugin, server = self.up(dtls_rehandshake=60.0)
        self.reactor.advance(60.0)
        self.reactor.advance(10.0)
        self.check_lost(plugin, server, "no new association in its place: the handshake did not end within 10 s")
        self.assertEqual({"tls_timeout": 1}, self.figures(plugin)["errors"])

    def test_reasons(self):
        """TLS-2, TLS-3: a collector that is none of ours gets nothing, and the reason is told."""
        other = CA(self.mktemp(), "other").issue("x", "192.0.2.1")
        late = self.ca.issue("late", "192.0.2.1", ends=-DAY / 2)
        named = self.ca.issue("named", "other.example")
        for pair, peers, reason in (
            (other, (), "tls_unknown_ca"), (late, (), "tls_expired"), (named, (), "tls_name"),
            (None, ("x.example",), "tls_refused"),
        ):  # fmt: skip
            plugin, server = self.start(), Server(self, pair, peers)
            self.write(plugin)
            server.talk(plugin, self.sockets[-1])
            self.assertEqual({reason: 1}, self.figures(plugin)["errors"])
            self.assertEqual((0, "waiting"), tuple(self.figures(plugin)[name] for name in ("records_sent", "state")))
            self.reactor.advance(5.0)
            self.assertEqual("connecting", self.figures(plugin)["state"])
            plugin.collectors[0]._queue.clear()
            self.end()

    def test_silent(self):
        """A collector that answers nothing is tried for 10 seconds, and again `reconnect` after the beginning."""
        plugin = self.start(reconnect=60.0)
        self.reactor.advance(10.0)
        figures = self.figures(plugin)
        self.assertEqual(("waiting", {"tls_timeout": 1}), (figures["state"], figures["errors"]))
        self.reactor.advance(49.0)
        self.assertEqual(1, len(self.sockets))
        self.reactor.advance(1.0)
        self.assertEqual(2, len(self.sockets))

    def test_stop(self):
        """At a stop all that waits goes out, then the end; without a collector what waits is dropped and counted."""
        plugin, server = self.up()
        (made,) = self.sockets
        plugin.write(self.batch)
        self.successResultOf(plugin.stop())
        self.plugins.clear()
        server.answer(made, made.sent)
        self.assertEqual((200, True, False), (self.records(server, made), server.layers[made].ended, made.open))
        plugin = self.start()
        plugin.write(self.batch)
        self.end()
        self.assertEqual({"stop_timeout": 200}, self.figures(plugin)["dropped"])

    def test_stop_in_the_handshake(self):
        """A handshake that has begun may end, so that what waits is sent."""
        plugin, server = self.start(), Server(self)
        plugin.write(self.batch)
        stopped = plugin.stop()
        self.plugins.clear()
        self.assertNoResult(stopped)
        (made,) = self.sockets
        server.talk(plugin, made)
        self.reactor.pump([0.1] * 3)
        self.successResultOf(stopped)
        server.answer(made, made.sent)
        self.assertEqual(200, self.records(server, made))


class TargetTests(DtlsCase):
    """Its options."""

    def test_check(self):
        """A configuration without certificates names what is missing; with them it is right."""
        text = '[global]\nstack=ct1:NFCT,exp1:IPFIX\n[exp1]\ncollectors="dtls:192.0.2.1"\n'
        for line in ("", *(f'{name}="{self.options[name]}"\n' for name in ("ca", "cert"))):
            text += line
            mistakes = "\n".join(map(str, tap.Built(config.parse(text, "x.conf"), prepare=True).mistakes))
            self.assertIn("must be given for TLS" if "cert" not in text else "private_key", mistakes)
        text += f'private_key="{self.options["private_key"]}"\n'
        self.assertEqual([], tap.Built(config.parse(text, "x.conf"), prepare=True).mistakes)
