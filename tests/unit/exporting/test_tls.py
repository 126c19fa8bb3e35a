"""The output IPFIX over TLS, in memory: when a session is up, what is sent again, and why there is none."""

from tests.certificates import CA
from tests.unit.exporting.doubles import Reader, flows
from tests.unit.plugins.outputs.test_ipfix import ExporterCase
from ulogd_tw import config, tap
from ulogd_tw.core.options import Options
from ulogd_tw.peers.targets import SECTION, targets
from ulogd_tw.peers.tls import files_of, peer_name
from ulogd_tw.plugins.outputs.ipfix import IPFIX
from ulogd_tw.transports.tls.credentials import Credentials, Files


class TlsCase(ExporterCase):
    """An exporter, and collectors that speak TLS."""

    def setUp(self):
        super().setUp()
        self.ca = CA(self.mktemp())
        self.collector = self.ca.issue("collector", "collector.example", "192.0.2.1")
        cert, key = self.ca.issue("exporter", "exporter.example")
        self.options = {"ca": self.ca.file, "cert": cert, "private_key": key, "reconnect": 5.0}

    def start(self, **options):
        self.batch = flows(100)
        return self.exporter(self.batch, **{"collectors": ("tls:192.0.2.1",)} | self.options | options)

    def server(self, pair=None, peers=(), tls12=False, tickets=True):
        """One end of a collector; `heard` is what came in plain."""
        credentials = Credentials(Files(self.ca.file, *(pair or self.collector)), True, peers)
        credentials.open()
        if tls12:
            credentials._context.set_max_proto_version(0x0303)
        layer = credentials.layer()
        layer.heard = b""
        return layer

    def talk(self, transport, server, most=10):
        """Until neither has more to say, or `most` times."""
        for _ in range(most):
            if octets := transport.taken():
                server.heard += server.feed(octets)
            if octets := server.outgoing():
                transport.wire.dataReceived(octets)

    def records(self, server):
        reader = Reader()
        reader.stream(server.heard)
        self.assertEqual(([], 0), (reader.gaps, reader.unreadable))
        return len(reader.records)


class SessionTests(TlsCase):
    """Sessions that come up, and end."""

    def test_up(self):
        """Both ends accept each other: records flow; the figures tell how they are sealed."""
        for tls12, version in ((False, "TLSv1.3"), (True, "TLSv1.2")):
            plugin = self.start()
            plugin.write(self.batch)
            transport, server = self.connect(), self.server(tls12=tls12)
            self.talk(transport, server)
            self.tick(plugin)
            self.talk(transport, server)
            figures = self.figures(plugin)
            self.assertEqual(("connected", 200, 200), (figures["state"], figures["records_sent"], self.records(server)))
            self.assertTrue(figures["tls"].startswith(version))
            self.end()

    def test_nothing_is_sent_before_it_is_up(self):
        """With TLS 1.3 not a record leaves before the session ticket, though the handshake has ended here."""
        plugin = self.start()
        plugin.write(self.batch)
        transport, server = self.connect(), self.server()
        server.feed(transport.taken())
        transport.wire.dataReceived(server.outgoing())
        finished = transport.taken()
        self.tick(plugin)
        self.assertEqual(("connecting", b""), (self.figures(plugin)["state"], transport.taken()))
        server.feed(finished)
        transport.wire.dataReceived(server.outgoing())
        self.assertEqual("connected", self.figures(plugin)["state"])
        self.talk(transport, server)
        self.assertEqual(200, self.records(server))

    def test_no_ticket(self):
        """A server that sends no ticket is taken to have accepted us after tls_settle without an alert."""
        plugin = self.start(tls_settle=2.0)
        transport, server = self.connect(), self.server()
        server.feed(transport.taken())
        transport.wire.dataReceived(server.outgoing())
        server.feed(transport.taken())
        server.outgoing()  # the tickets, lost
        self.tick(plugin, 1.9)
        self.assertEqual("connecting", self.figures(plugin)["state"])
        self.tick(plugin, 0.1)
        self.assertEqual("connected", self.figures(plugin)["state"])

    def test_refused(self):
        """A collector that refuses our certificate gets no record; all arrive when it has learnt better."""
        for tls12 in (False, True):
            plugin = self.start()
            plugin.write(self.batch)
            transport = self.connect()
            self.talk(transport, self.server(peers=("other.example",), tls12=tls12))
            self.assertTrue(transport.disconnecting)
            self.lose(transport)
            self.tick(plugin)
            figures = self.figures(plugin)
            self.assertEqual({"tls_refused": 1}, figures["errors"])
            self.assertEqual((0, 200, {}), tuple(figures[n] for n in ("records_sent", "records_waiting", "dropped")))
            self.assertIn("it refuses our certificate (internal_error)", figures["last_error"])
            self.tick(plugin, 5.0)
            transport, server = self.connect(), self.server(peers=("exporter.example",), tls12=tls12)
            self.talk(transport, server)
            self.assertEqual(200, self.records(server))
            self.end()

    def test_reasons(self):
        """Each fault of a collector is counted by its reason, and said."""
        other = CA(self.mktemp(), "other").issue("x", "192.0.2.1")
        named = self.ca.issue("named", "other.example")
        for pair, first, reason in (
            (other, b"", "tls_unknown_ca"), (named, b"", "tls_name"), (None, b"\x00\x0a", "tls_plain"),
            (None, b"HTTP/1.1 400", "tls_garbage"),
        ):  # fmt: skip
            plugin = self.start()
            transport = self.connect()
            if first:
                transport.wire.dataReceived(first)
            else:
                self.talk(transport, self.server(pair))
            self.assertTrue(transport.disconnecting)
            self.lose(transport)
            self.assertEqual({reason: 1}, self.figures(plugin)["errors"])
            self.assertTrue(self.figures(plugin)["last_error"])
            self.end()

    def test_peer_name(self):
        """peer_name goes before the host of the URL."""
        plugin = self.start(peer_name="collector.example", collectors=("tls:192.0.2.77",))
        transport = self.connect()
        self.talk(transport, self.server())
        self.assertEqual("connected", self.figures(plugin)["state"])

    def test_silent(self):
        """A handshake that does not end is broken off after 10 s, and tried again."""
        plugin = self.start()
        transport = self.connect()
        self.tick(plugin, 9.9)
        self.assertFalse(transport.disconnecting)
        self.tick(plugin, 0.1)
        self.assertTrue(transport.disconnecting)
        self.lose(transport)
        self.assertEqual({"tls_timeout": 1}, self.figures(plugin)["errors"])
        self.tick(plugin)
        self.assertEqual(2, len(self.reactor.tcpClients))

    def test_goes_away(self):
        """A collector that closes within the handshake, or before it has accepted us, is counted."""
        for flights, text in ((0, "within the TLS handshake"), (1, "before it has accepted our certificate")):
            plugin = self.start()
            transport, server = self.connect(), self.server()
            for _ in range(flights):
                server.feed(transport.taken())
                transport.wire.dataReceived(server.outgoing())
            self.lose(transport)
            figures = self.figures(plugin)
            self.assertEqual({"tls_closed": 1}, figures["errors"])
            self.assertIn(text, figures["last_error"])
            self.end()

    def test_stop(self):
        """A stop says so in TLS; one within a handshake ends it."""
        plugin = self.start()
        plugin.write(self.batch)
        transport, server = self.connect(), self.server()
        self.talk(transport, server)
        stopped = plugin.stop()
        self.reactor.pump([0.02] * 3)
        self.talk(transport, server)
        self.assertEqual((True, 200), (server.ended, self.records(server)))
        self.lose(transport)
        self.successResultOf(stopped)
        self.plugins.clear()
        plugin = self.start()
        transport = self.connect()
        stopped = plugin.stop()
        self.reactor.pump([0.5] * 12)
        self.assertTrue(transport.aborted)
        self.lose(transport)
        self.successResultOf(stopped)
        self.plugins.clear()

    def test_reload(self):
        """SIGHUP reads the files anew."""
        plugin = self.start()
        seen = []
        self.patch(Credentials, "reload", lambda credentials: seen.append(credentials))
        plugin.reopen()
        self.assertEqual(1, len(seen))


class AcknowledgedTests(TlsCase):
    """What the collector's kernel has not acknowledged is sent again."""

    rows = 1000

    def up(self):
        self.plugin = self.start(mtu=1000, flush=0.5)
        self.batch = flows(self.rows)
        transport, server = self.connect(), self.server()
        self.talk(transport, server)
        return transport, server

    def resent(self, unacknowledged):
        """How many of 2000 records are sent again when so many octets were not acknowledged."""
        transport, server = self.up()
        self.unacknowledged = 1 << 20
        self.plugin.write(self.batch)
        self.tick(self.plugin)
        self.assertGreater(len(transport.value()), 2000 * 50)
        self.unacknowledged = len(transport.value()) if unacknowledged is None else unacknowledged
        self.lose(transport)
        self.unacknowledged = 0
        self.tick(self.plugin, 5.0)
        transport, server = self.connect(), self.server()
        self.talk(transport, server)
        figures = self.figures(self.plugin)
        self.assertEqual((2000, {}), (figures["records_sent"], figures["dropped"]))
        found = self.records(server)
        self.assertEqual(figures["records_resent"], found)
        self.end()
        return found

    def test_all(self):
        """All was acknowledged: nothing; nothing was: all."""
        self.assertEqual(0, self.resent(0))
        self.assertEqual(2000, self.resent(None))

    def test_part_of_a_record(self):
        """A TLS record of which an octet is missing counts as missing: it cannot be opened."""
        few = self.resent(1)
        self.assertTrue(0 < few < 600, few)

    def test_without_end(self):
        """A long session keeps nothing that was acknowledged."""
        transport, server = self.up()
        for _ in range(20):
            self.plugin.write(self.batch)
            self.tick(self.plugin)
            self.talk(transport, server)
        self.tick(self.plugin)
        self.assertEqual(0, self.figures(self.plugin)["octets_unacknowledged"])
        self.assertLessEqual(len(self.plugin.collectors[0].sender._marks), 1)
        self.assertEqual(40_000, self.records(server))


class TargetTests(TlsCase):
    """Collectors by URL or by name, with options of their own."""

    def mistakes(self, sections=(), **options):
        values = Options(IPFIX.all_options(), self.options | options)
        values.sections = {word: Options(SECTION, own) for word, own in dict(sections).items()}
        return values, list(IPFIX("exp1", values).mistakes())

    def test_sections(self):
        """A section's options go before the exporter's; its name may stand for its URL."""
        cert, key = self.ca.issue("second", "second.example")
        own = {"url": "tls:c.example", "cert": cert, "private_key": key, "peer_name": "d.example"}
        values, found = self.mistakes({"lab": own, "tls:e.example:1": {}}, collectors=("lab", "tls:e.example:1"))
        self.assertEqual([], found)
        lab, other = targets(values)
        self.assertEqual(("tls:c.example:4740", "d.example"), (str(lab.url), peer_name(lab)))
        self.assertEqual(Files(self.ca.file, cert, key), files_of(lab))
        del own["private_key"]  # the exporter's would not fit: the key is in the file of the certificate
        values, _ = self.mistakes({"lab": own}, collectors=("lab",))
        self.assertEqual(Files(self.ca.file, cert), files_of(targets(values)[0]))
        self.assertEqual(("tls:e.example:1", "e.example"), (str(other.url), peer_name(other)))
        self.assertEqual(Files(self.ca.file, self.options["cert"], self.options["private_key"]), files_of(other))

    def test_mistakes(self):
        """What is wrong is told with the option, and the section where it stands; once for files in common."""
        _, found = self.mistakes({}, collectors=("tls:a", "tls:b"), ca="", private_key="/nowhere")
        self.assertEqual(["ca", "private_key"], [option for option, _ in found])
        _, found = self.mistakes({"lab": {"url": "tls:a", "ca": "/x", "peer_name": "*.a"}, "x": {"url": "tls:[a"}},
                                 collectors=("lab", "x", "y"), peer_name="b c")  # fmt: skip
        self.assertEqual(["[collector:lab] ca", "[collector:lab] peer_name", "[collector:x] url", "collectors"],
                         [option for option, _ in found])  # fmt: skip
        self.assertIn("'tls:[a'", found[2][1])

    def test_check(self):
        """--check reports what is wrong with files, of exporter and collector, with the line; nothing is opened."""
        text = (
            "[global]\nstack=col1:COLLECTOR,exp1:IPFIX\n[col1]\nlisten=tls:4740\nca=/nowhere\n"
            f"cert={self.collector[0]}\nprivate_key={self.collector[0]}\npeers=*.example\nverify=0\n"
            "[exp1]\ncollectors=lab\n[collector:lab]\nurl=tls:a\ncert=/none\nprivat_key=x\n"
        )
        found = list(map(str, tap.Built(config.parse(text, "x.conf"), prepare=False).mistakes))
        chmod = f"users other than its owner can read {self.collector[0]} (mode 0644): chmod 600 {self.collector[0]}"
        self.assertEqual(
            [
                f"x.conf:7: [col1] private_key: {chmod}",
                "x.conf:8: [col1] peers: *.example: a name has no * here (a certificate may have one)",
                "x.conf:8: [col1] peers: with verify=0 there are no certificates, so no names",
                "x.conf:12: [exp1] [collector:lab] ca: must be given for TLS: the certificates of the CAs that sign "
                "the peers, a file or a directory",
                "x.conf:14: [exp1] [collector:lab] cert: /none: No such file or directory",
                "x.conf:15: [collector:lab] privat_key is not an option of a collector's section: ignored; did you "
                "mean private_key?",
            ],
            found,
        )

    def test_no_tls(self):
        """Without a tls: collector nothing of TLS is looked at."""
        self.assertEqual([], self.mistakes({}, collectors=("tcp:a",), ca="/nowhere")[1])
