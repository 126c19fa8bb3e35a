"""IPFIX over SCTP: the output IPFIX and COLLECTOR on two ends of the real stack, joined in memory."""

import dataclasses
import struct
from collections import Counter

import numpy as np
from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from tests.unit.collecting.doubles import Collecting
from tests.unit.exporting.doubles import Reader, exporter, flows
from tests.unit.ipfix.wire import COUNTER, a_set, counts, counts_of, ipv4, message
from tests.unit.transports.sctp_wire import Ends, Peer
from ulogd_tw.collecting.sctp_session import SctpSession
from ulogd_tw.core.errors import StartError
from ulogd_tw.core.options import Options as Configured
from ulogd_tw.peers import targets
from ulogd_tw.plugins.inputs.collector import COLLECTOR
from ulogd_tw.plugins.outputs.ipfix import IPFIX
from ulogd_tw.transports.sctp import Options, carriers, kernel
from ulogd_tw.transports.sctp.listen import SctpConnection


class Reading(Peer):
    """A Collecting Process, written from RFC 7011: every stream counts for itself, with the templates of all."""

    def __init__(self):
        super().__init__()
        self.readers = {}

    def messageReceived(self, octets, stream, ppid):
        reader = self.readers.setdefault(stream, Reader())
        reader.templates = self.readers.setdefault(0, Reader()).templates
        reader.message(octets)

    @property
    def records(self):
        return [record for reader in self.readers.values() for _, record in reader.records]


class ExporterTests(SynchronousTestCase):
    """The output."""

    def setUp(self):
        self.served, self.connected = [], []
        self.ends = Ends(self, build=lambda address: self.served.append(Reading()) or self.served[-1])
        self.wire = self.ends.wire
        self.patch(kernel, "has_sctp", lambda: False)
        self.patch(carriers.UdpCarrier, "connect", self.connect)
        self.patch(IPFIX, "reactor", self.wire.clock)
        self.patch(IPFIX, "clock", staticmethod(lambda: 1_700_000_000 + self.wire.clock.seconds()))

    def connect(self, *where):
        """In place of a UDP socket."""
        self.connected.append(where)
        return self.wire.client()

    def start(self, **options):
        options = {"collectors": ("sctp:192.0.2.2:4739",), "flush": 0.05, "reconnect": 5.0} | options
        self.plugin = exporter(flows(1).schema, **options)
        self.plugin.open()
        (self.collector,) = self.plugin.collectors
        self.addCleanup(lambda: self.stop())
        return self.plugin

    def stop(self):
        stopped = []
        self.plugin.stop().addCallback(stopped.append)
        self.wire.run_until(lambda: stopped)
        self.stop = lambda: None

    def pass_time(self, seconds):
        for _ in range(int(seconds / 0.2)):
            self.wire.run(0.2)
            self.plugin.wake(self.wire.clock.seconds())

    def write(self, n, first=0):
        self.plugin.write(flows(n, ct__id=first + np.arange(n)))

    def assert_once(self, n, *sessions):
        seen = Counter((record[148], record[61]) for session in sessions for record in session.records)
        self.assertEqual((n, {1}), (len(seen), set(seen.values())))
        for session in sessions:
            self.assertEqual([[]] * len(session.readers), [reader.gaps for reader in session.readers.values()])
            self.assertEqual(0, sum(reader.unreadable for reader in session.readers.values()))

    def test_streams(self):
        """WD-8, MSG-4: templates go on stream 0, data on all others in turn, each with numbers of its own."""
        self.start(mtu=1000, sctp_streams=4)
        self.pass_time(0.4)
        for i in range(20):
            self.write(50, 50 * i)
            self.pass_time(0.2)
        self.stop()
        (session,) = self.served
        self.assert_once(2000, session)
        self.assertEqual({0, 1, 2, 3}, set(session.readers))
        self.assertEqual([{2}], [{kind for kinds in session.readers[0].kinds for kind in kinds}])
        self.assertTrue(all(len(session.readers[s].records) > 300 for s in (1, 2, 3)))
        self.assertTrue(all(h["sequence"] == 0 for h in session.readers[0].headers))
        self.assertEqual([error.ConnectionDone], session.ended)

    def test_one_stream(self):
        """A collector that takes one stream gets everything on it."""
        self.start(sctp_streams=1)
        self.write(50)
        self.pass_time(1)
        self.stop()
        self.assert_once(100, *self.served)
        self.assertEqual({0}, set(self.served[0].readers))

    def test_loss(self):
        """What the network loses is sent again; data never overtakes its template."""
        self.wire.loss = self.wire.reorder = 0.1
        self.start(mtu=600)
        for i in range(10):
            self.write(30, 30 * i)
            self.pass_time(0.4)
        self.wire.run_until(lambda: sum(len(s.records) for s in self.served) == 600)
        self.wire.loss = 0.0
        self.stop()
        self.assert_once(600, *self.served)

    def test_lost_templates(self):
        """Data waits until its template is acknowledged: a lost template is not overtaken by data on other streams."""
        self.start(mtu=600)
        self.pass_time(0.4)
        lost = []

        def drops(packet):
            """The first packet with a message of stream 0 (DATA is chunk 0; RFC 9260 section 3.3.1)."""
            if not lost and packet[12] == 0 and packet[20:22] == bytes(2):
                lost.append(packet)
                return True
            return False

        self.wire.drops = drops
        for i in range(5):
            self.write(30, 30 * i)
            self.pass_time(1)
        self.wire.run_until(lambda: len(self.served[0].records) == 300)
        self.stop()
        self.assertEqual(1, len(lost))
        self.assert_once(300, *self.served)

    def test_collector_goes_away(self):
        """What a collector that aborts had not acknowledged goes to the next one, with all templates, from 0."""
        self.start(mtu=1000)
        self.pass_time(0.4)
        self.write(100)
        self.pass_time(1)
        first = self.served[0]
        self.assertEqual(200, len(first.records))
        self.wire.loss = 1.0
        self.write(200, 100)
        self.pass_time(0.4)
        self.assertGreater(self.collector.figures()["octets_unacknowledged"], 10_000)
        self.wire.loss = 0.0
        first.transport.abortConnection()
        self.pass_time(6)
        self.assertEqual(2, len(self.served))
        self.stop()
        self.assert_once(600, *self.served)
        figures = self.collector.figures()
        self.assertEqual((600, 400, 2, {}), tuple(figures[k] for k in ("records_sent", "records_resent", "connects",
                                                                      "dropped")))  # fmt: skip

    def test_collector_shuts_down(self):
        """A collector that shuts down in order loses nothing, and gets no new session for `reconnect` seconds."""
        self.start(reconnect=60.0, mtu=1000)
        self.pass_time(0.4)
        for i in range(10):
            self.write(100, 100 * i)
            if i == 4:
                self.served[0].transport.loseConnection()
            self.pass_time(0.2)
        self.assertEqual([error.ConnectionDone], self.served[0].ended)
        self.pass_time(50)
        self.assertEqual(("waiting", 1), (self.collector.state, len(self.served)))
        self.pass_time(15)
        self.stop()
        self.assert_once(2000, *self.served)

    def test_nobody_there(self):
        """Attempts fail and begin again `reconnect` seconds after the one before; what comes meanwhile waits."""
        self.wire.server.close()
        self.start(reconnect=20.0, sctp_rto_max=1.0)
        self.write(50)
        self.pass_time(30)
        self.assertIn("does not answer", self.collector.figures()["last_error"])
        self.wire.server.begin()
        self.pass_time(9)
        self.assertEqual([], self.served)
        self.pass_time(2)
        self.stop()
        self.assert_once(100, *self.served)

    def test_lifetime(self):
        """Data whose lifetime is over before it could be delivered is counted, and the numbers show the gap."""
        self.start(sctp_lifetime=0.001, options_interval=0)
        self.pass_time(0.4)
        self.write(10)
        self.pass_time(1)
        self.wire.loss = 1.0
        self.write(200, 10)
        self.pass_time(4)
        self.wire.loss = 0.0
        self.pass_time(60)
        late = self.collector.dropped["lifetime"]
        self.assertGreater(late, 50)
        self.assertEqual(420 - late, len(self.served[0].records))
        for i in range(8):
            self.write(10, 1000 + 10 * i)
            self.pass_time(0.4)
        self.stop()
        readers = self.served[0].readers.values()
        self.assertEqual(late, sum(gap for reader in readers for gap in reader.gaps))
        self.assertEqual(580 - late, self.collector.figures()["records_sent"])

    def test_window(self):
        """Until everything is acknowledged no more than the window is given away."""
        self.patch(__import__("ulogd_tw.exporting.sctp", fromlist=["x"]), "_WINDOW", 30_000)
        self.start(mtu=1000)
        self.pass_time(0.4)
        self.write(10)
        self.pass_time(1)
        self.wire.loss = 1.0
        self.write(3000, 10)
        self.pass_time(0.2)
        self.assertTrue(30_000 <= self.collector.figures()["octets_unacknowledged"] < 30_000 + 65536 + 1000)
        self.wire.loss = 0.0
        self.wire.run_until(lambda: len(self.served[0].records) == 6020)
        self.stop()
        self.assert_once(6020, *self.served)

    def test_section(self):
        """A collector's own section goes before the exporter's."""
        given = {"collectors": ("far",), "sctp_streams": 9, "encapsulation_port": 9000}
        plugin = IPFIX("exp1", Configured(IPFIX.all_options(), given))
        own = {"url": "sctp:192.0.2.2", "sctp_streams": 2, "encapsulation_port": 9899}
        plugin.config.sections["far"] = Configured(targets.SECTION, own)
        self.assertEqual([], list(plugin.mistakes()))
        plugin.open()
        self.plugin, (self.collector,) = plugin, plugin.collectors
        self.addCleanup(self.stop)
        self.pass_time(1)
        self.assertEqual(2, self.collector.figures()["streams"])
        self.assertEqual([9899], [where[1] for where in self.connected])
        plugin.config.sections["far"] = Configured(targets.SECTION, own | {"encapsulation_port": 70000})
        self.assertEqual(["[collector:far] encapsulation_port"], [option for option, _ in plugin.mistakes()])

    def test_not_to_be_had(self):
        """Without SCTP the stack does not start, and the error says what to do."""
        plugin = exporter(flows(1).schema, collectors=("sctp:192.0.2.2:4739",), sctp_addresses=("192.0.2.9",))
        self.assertIn("multi-homing", str(self.assertRaises(StartError, plugin.open)))


class CollectorTests(SynchronousTestCase):
    """COLLECTOR."""

    def setUp(self):
        self.found = Collecting(self)
        self.ends = Ends(self, build=lambda address: SctpConnection(self.connected))

    def connected(self, connection):
        self.found.plugin.reception.connected(connection, SctpSession, "sctp")

    def pair(self):
        client = self.ends.begin()
        self.ends.wire.run(0.1)
        return client

    def send(self, client, *messages):
        for stream, octets in messages:
            client.transport.write(octets, stream)
        self.ends.wire.run(0.4)
        self.found.wait()

    def test_records(self):
        """TR-1: records of all streams are given, with the exporter's address; each SCTP message is a Message."""
        client = self.pair()
        told = message(a_set(2, COUNTER))
        self.send(client, (0, told), (1, counts(1)), (2, counts(2)), (1, counts(3, number=1)))
        self.assertEqual([1, 2, 3], sorted(counts_of(self.found.rows)))
        exporters = {row["exporter"] for batch in self.found.batches for row in batch.rows()}
        self.assertEqual({ipv4("192.0.2.101")}, exporters)
        self.assertEqual(({}, {}), (self.found.errors, dict(self.found.plugin.counters.lost)))
        self.send(client, (1, counts(4, number=7)))
        self.assertEqual({"sequence": 5}, dict(self.found.plugin.counters.lost))

    def test_data_waits_for_its_template(self):
        """Data that overtakes its template is not lost."""
        client = self.pair()
        self.send(client, (3, counts(1)))
        self.send(client, (0, message(a_set(2, COUNTER))))
        self.assertEqual([1], counts_of(self.found.rows))

    def test_association_ends(self):
        """TPL-4: templates end with their association."""
        first = self.pair()
        self.send(first, (0, message(a_set(2, COUNTER))), (1, counts(1)))
        first.transport.loseConnection()
        self.ends.wire.run(1)
        self.assertEqual(0, self.found.plugin.counters.figures["sessions"]())
        self.send(self.pair(), (1, counts(2)))
        self.assertEqual(([1], {"no_template": 1}), (counts_of(self.found.rows), self.found.errors))

    def test_restart(self):
        """An exporter that restarts its association begins anew: its templates are gone, its numbers too."""
        client = self.pair()
        self.send(client, (0, message(a_set(2, COUNTER))), (1, counts(1, 2)))
        (connection,) = self.found.plugin.reception.connections
        connection.associationRestarted()
        self.send(client, (1, counts(3)))
        self.send(client, (0, message(a_set(2, COUNTER))), (1, counts(4, number=1)))
        self.assertEqual([1, 2, 3, 4], counts_of(self.found.rows))
        self.assertEqual({"no_template": 1, "restarted": 1}, self.found.errors)
        self.assertEqual({}, dict(self.found.plugin.counters.lost))
        self.assertEqual(1, len(list(self.found.plugin.sessions())))

    def test_malformed(self):
        """After max_malformed in a row the association is shut down; a good message between begins anew."""
        client = self.pair()
        bad = (1, message(struct.pack("!HH", 256, 3)))
        self.send(client, (0, message(a_set(2, COUNTER))), bad, bad, (1, counts(1)), bad, bad)
        self.assertEqual([], client.ended)
        self.send(client, bad)
        self.ends.wire.run(1)
        self.assertEqual([error.ConnectionDone], client.ended)
        self.assertEqual(5, self.found.errors["set_length"])

    def test_refused(self):
        """max_sessions counts associations too; one that has given records stays."""
        reception = self.found.plugin.reception
        reception.settings = dataclasses.replace(reception.settings, max_streams=1)
        kept = self.pair()
        self.send(kept, (0, message(a_set(2, COUNTER))), (0, counts(1)))
        refused = self.pair()
        self.ends.wire.run(1)
        self.assertEqual(([], [error.ConnectionDone]), (kept.ended, refused.ended))
        self.assertEqual({"limit_sessions": 1}, self.found.errors)

    def test_pause(self):
        """While a queue below is full, nothing is read, and the exporter waits; afterwards all of it comes."""
        client = self.pair()
        self.send(client, (0, message(a_set(2, COUNTER))))
        self.found.plugin.pause()
        self.send(client, *((1, counts(i, number=i)) for i in range(100)))
        self.assertEqual([], self.found.rows)
        self.found.plugin.resume()
        self.ends.wire.run(1)
        self.found.wait()
        self.assertEqual(list(range(100)), counts_of(self.found.rows))

    def test_stop(self):
        """SCTP-2: at a stop the association is shut down in order, and what is under way is still read."""
        client = self.pair()
        self.send(client, (0, message(a_set(2, COUNTER))))
        for i in range(500):
            client.transport.write(counts(*[i] * 200, number=200 * i), 1)
        stopped = []
        self.patch(__import__("ulogd_tw.transports.sctp.listen", fromlist=["x"]), "reactor", self.ends.wire.clock)
        self.found.plugin.stop().addCallback(stopped.append)
        self.ends.wire.run_until(lambda: stopped)
        self.assertEqual([error.ConnectionDone], client.ended)
        self.assertEqual([i for i in range(500) for _ in range(200)], counts_of(self.found.rows))

    def test_options(self):
        """What cannot be is a mistake; DTLS over SCTP is refused with the reason."""
        for options, expected in (
            ({"encapsulation_port": 65536}, "encapsulation_port"), ({"sctp_rto_max": 0.0}, "sctp_rto_max"),
            ({"sctp_retransmissions": 0}, "sctp_retransmissions"), ({"listen": ("sctps:4740",)}, "listen"),
        ):  # fmt: skip
            plugin = COLLECTOR("col1", Configured(COLLECTOR.all_options(), options))
            self.assertEqual([expected], [name for name, _ in plugin.mistakes()])
        self.assertIn("DTLS over SCTP is not supported", dict(plugin.mistakes())["listen"])
        self.assertEqual(16, Options().streams)
