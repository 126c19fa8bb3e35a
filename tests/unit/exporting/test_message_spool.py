"""The exporter's spool: outages, restarts, kills, bounds."""

import struct
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.trial.unittest import SynchronousTestCase

from tests.support import given
from tests.unit.exporting.doubles import Reader, flows
from tests.unit.plugins.outputs.test_ipfix import ExporterCase
from ulogd_tw.core.batch import Batch, Schema
from ulogd_tw.core.columns import Octets
from ulogd_tw.core.counters import Counters
from ulogd_tw.core.keys import known
from ulogd_tw.exporting import message_spool
from ulogd_tw.exporting.message_spool import MessageSpool
from ulogd_tw.exporting.spooling import Spooling
from ulogd_tw.ipfix.builder import MessageBuilder, recut, template_messages
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.ipfix.template import Field, Template


class SpoolCase(ExporterCase):
    """An exporter with a spool, whose disk answers at once."""

    def setUp(self):
        super().setUp()
        self.patch(Spooling, "in_thread", staticmethod(defer.execute))
        self.directory = Path(self.mktemp())
        self.batch = flows(100)

    def start(self, *collectors, **options):
        collectors = collectors or ("tcp:192.0.2.1",)
        return self.exporter(self.batch, collectors=collectors, spool=str(self.directory), reconnect=5.0, **options)

    def send(self, plugin, n=100, first=0, missing=None):
        """Flows with numbers of their own."""
        plugin.write(flows(n, ct__id=first + np.arange(n), missing=missing))
        plugin.flush()

    def files(self):
        return sorted(self.directory.glob("*/*.ipfix"))

    def ids(self, transport, each=2):
        """The flow ids that a connection has got since the last time."""
        reader = transport.__dict__.setdefault("reader", Reader())
        reader.stream(transport.taken())
        found = [record[148] for _, record in reader.records]
        reader.records.clear()
        self.assertEqual([], reader.gaps)
        return found

    def both(self, numbers):
        """Each flow is two records."""
        return sorted([*numbers, *numbers])


class OutageTests(SpoolCase):
    """A collector that is away."""

    def test_outage(self):
        """What waits goes to the disk within two seconds, and all of it is sent, in order, when it is back."""
        plugin = self.start()
        self.refuse()
        for turn in range(4):
            self.send(plugin, first=100 * turn)
            self.tick(plugin)
            self.assertEqual(0, self.figures(plugin)["records_waiting"])
        self.assertEqual(800, self.figures(plugin)["records_in_spool"])
        self.assertEqual(1, len(self.files()))
        self.reactor.advance(5)
        transport = self.connect()
        self.tick(plugin)
        got = self.ids(transport)
        self.assertEqual(self.both(range(400)), sorted(got))
        self.assertEqual(list(range(4)), list(dict.fromkeys(number // 100 for number in got)))
        self.tick(plugin)
        self.assertEqual(([], 0), (self.files(), self.figures(plugin)["records_in_spool"]))
        self.send(plugin, first=500)
        self.assertEqual(self.both(range(500, 600)), sorted(self.ids(transport)))

    def test_restart(self):
        """A stop keeps what waits, and the next run sends it; templates are those of the file."""
        plugin = self.start()
        self.refuse()
        self.send(plugin, missing={"orig.raw.pktlen": [True] * 100})
        self.end()
        self.assertEqual({}, dict(plugin.collectors[0].dropped))
        self.reactor.tcpClients.clear()
        then = self.start()
        self.assertEqual(200, self.figures(then)["records_in_spool"])
        transport = self.connect()
        self.tick(then)
        self.assertEqual(self.both(range(100)), sorted(self.ids(transport)))
        self.tick(then)
        self.assertEqual([], self.files())

    def test_kill(self):
        """What was on the disk when a process was killed is sent by the next one, also behind a cut last message."""
        plugin = self.start()
        self.refuse()
        self.send(plugin)
        self.tick(plugin)
        self.send(plugin, first=100)
        self.tick(plugin)
        (path,) = self.files()
        octets = path.read_bytes()
        self.end()
        path.write_bytes(octets[:-5])
        self.reactor.tcpClients.clear()
        then = self.start()
        transport = self.connect()
        self.tick(then)
        got = self.ids(transport)
        self.assertTrue(set(self.both(range(100))) <= set(got))
        self.assertEqual(len(got), self.figures(then)["records_sent"])

    def test_lost_again(self):
        """A connection that breaks in the middle of a file: what had not arrived is sent again, what had is not."""
        plugin = self.start()
        self.refuse()
        self.send(plugin, n=2000)
        self.tick(plugin)
        self.reactor.advance(5)
        self.unacknowledged = 100_000  # of 230,000
        transport = self.connect()
        self.tick(plugin, 0.5)
        got = self.ids(transport)
        self.assertEqual(4000, len(got))
        self.lose(transport)
        self.unacknowledged = 0
        self.tick(plugin)
        left = self.figures(plugin)["records_in_spool"]
        self.assertTrue(1500 < left < 2600, left)
        self.reactor.advance(10)
        again = self.connect()
        self.tick(plugin)
        more = self.ids(again)
        self.assertEqual(left, len(more))
        self.assertEqual(got[-left:], more)
        self.tick(plugin)
        self.assertEqual([], self.files())

    def test_slow(self):
        """What a slow collector does not take within two seconds waits on the disk, once, and arrives in the end."""
        plugin = self.start()
        transport = self.connect()
        sender = plugin.collectors[0].sender
        sender.has_room = False
        for turn in range(3):
            self.send(plugin, first=100 * turn)
            self.tick(plugin)
        self.assertGreater(self.figures(plugin)["records_in_spool"], 300)
        sender.has_room = True
        for _ in range(4):
            self.tick(plugin)
        self.assertEqual(self.both(range(300)), sorted(self.ids(transport)))
        self.assertEqual([], self.files())

    def test_failover(self):
        """What lies on the disk for one that stays away is sent to the one that is there."""
        plugin = self.start("tcp:192.0.2.1", "tcp:192.0.2.2", mode="failover")
        self.refuse(0)
        self.refuse(1)
        self.send(plugin)
        self.tick(plugin)
        self.reactor.advance(5)
        second = self.connect(3)
        for _ in range(3):
            self.tick(plugin)
        self.assertEqual(self.both(range(100)), sorted(self.ids(second)))
        self.assertEqual([], self.files())

    def test_bounds(self):
        """Beyond spool_size the oldest files go, and those that are too old; both are counted."""
        self.patch(message_spool, "FILE_OCTETS", 5000)
        plugin = self.start(spool_size=30_000, spool_age=100.0)
        self.refuse()
        for turn in range(10):
            self.send(plugin, first=100 * turn)
            self.tick(plugin, 0.4)
        self.tick(plugin)
        figures = self.figures(plugin)
        self.assertLessEqual(figures["octets_in_spool"], 30_000 + 20_000)
        self.assertEqual(2000, figures["records_in_spool"] + figures["dropped"]["spool_size"])
        self.tick(plugin, 200)
        figures = self.figures(plugin)
        self.assertEqual((0, 2000), (figures["records_in_spool"],
                                     figures["dropped"]["spool_size"] + figures["dropped"]["spool_age"]))  # fmt: skip

    def test_disk_full(self):
        """A disk that takes nothing: it waits in memory and is sent from there."""
        plugin = self.start()
        self.refuse()

        def full(*_):
            raise OSError(28, "No space left on device")

        self.patch(MessageSpool, "append", full)
        self.send(plugin)
        for _ in range(3):
            self.tick(plugin)
        figures = self.figures(plugin)
        self.assertEqual(200, figures["records_waiting"])
        self.assertIn("No space left", figures["last_error"])
        self.reactor.advance(5)
        self.assertEqual(self.both(range(100)), sorted(self.ids(self.connect())))

    def test_udp(self):
        """A UDP collector that refuses gets nothing until it is back, and then all from the moment it was noticed."""
        plugin = self.start("udp:192.0.2.1")
        self.send(plugin)
        collector = plugin.collectors[0]
        collector.sender.errors["refused"] += 1
        self.tick(plugin)
        self.sockets[0].sent.clear()
        self.send(plugin, first=100)
        collector.sender.errors["refused"] += 1
        self.tick(plugin)
        self.assertEqual(200, self.figures(plugin)["records_in_spool"])
        for _ in range(4):
            self.tick(plugin)
        reader = Reader()
        for datagram in self.sockets[0].sent:
            reader.message(datagram)
        self.assertEqual(self.both(range(100, 200)), sorted(record[148] for _, record in reader.records))


class FileTests(SpoolCase):
    """The files themselves."""

    def test_any_reader(self):
        """A file is IPFIX by itself: a decoder reads it, and its sequence numbers have no gap."""
        plugin = self.start()
        self.refuse()
        for turn in range(3):
            self.send(plugin, first=100 * turn, missing={"orig.raw.pktlen": [True] * 100} if turn == 1 else None)
            self.tick(plugin)
        (path,) = self.files()
        reader = Reader()
        reader.stream(path.read_bytes())
        self.assertEqual((600, [], 0), (len(reader.records), reader.gaps, reader.unreadable))

    @given(st.data())
    def test_cut(self, data):
        """Wherever a file is cut, its whole messages are there; octets that are none are no messages."""
        directory = Path(self.mktemp())
        directory.mkdir()
        octets = getattr(self, "octets", None)
        if octets is None:
            plugin = self.start()
            self.refuse()
            self.send(plugin, n=700)
            self.tick(plugin)
            octets = self.octets = self.files()[0].read_bytes()
        size = data.draw(st.integers(0, len(octets)))
        octets = octets[:size] + data.draw(st.binary(max_size=9))
        (directory / "000000000007.ipfix").write_bytes(octets)
        spool = MessageSpool(directory, 1 << 30, 1e9)
        spool.open(1000.0, 0.0)
        reader = Reader()
        whole = 0
        while whole + 16 <= len(octets):
            version, length = struct.unpack_from("!HH", octets, whole)
            if version != 10 or length < 20 or whole + length > len(octets):
                break
            try:
                reader.message(octets[whole : whole + length])
            except struct.error:  # what was put in place of the rest makes a whole message of no sense
                break
            whole += length
        self.assertEqual(len(reader.records), spool.records)
        templates = {}
        taken = spool.take(templates)
        if taken is not None:
            self.assertEqual(spool.records, sum(messages.all_records for messages in taken[1]))
            self.assertTrue(all(ident in templates for messages in taken[1] for ident in messages.templates))

    def test_clock_set(self):
        """A file is as old as the time that went by, wherever the clock is set; that of an earlier run by its date."""
        plugin = self.start(spool_age=100.0)
        self.refuse()
        self.send(plugin)
        self.tick(plugin)
        self.assertEqual(1, len(self.files()))
        for step in (-86400.0, 2 * 86400.0):
            self.ahead += step
            self.tick(plugin)
            self.assertEqual(({}, 1), (plugin.collectors[0].figures()["dropped"], len(self.files())))
        self.reactor.advance(100.0)
        self.tick(plugin)
        self.assertEqual({"spool_age": 200}, plugin.collectors[0].figures()["dropped"])

    def test_name(self):
        """Each exporter and collector has a directory of its own."""
        self.start("tcp:192.0.2.1:4739", "tcp:[2001:db8::1]:4739", "udp:192.0.2.1:4739")
        self.assertEqual(
            ["exp1-tcp_192.0.2.1_4739", "exp1-tcp__2001_db8__1__4739", "exp1-udp_192.0.2.1_4739"],
            sorted(path.name for path in self.directory.iterdir()),
        )


class DirectoryTests(SynchronousTestCase):
    """What is wrong with the directory."""

    def test_not_a_directory(self):
        """It raises what the exporter makes a StartError of."""
        path = Path(self.mktemp())
        path.write_text("")
        self.assertRaises(OSError, MessageSpool(path / "x", 1, 1).open, 1000.0, 0.0)


class NumbersTests(SynchronousTestCase):
    """Templates of an earlier run, whose numbers may mean something else now."""

    def setUp(self):
        self.spool = MessageSpool(Path(self.mktemp()), 1 << 20, 1e9)
        self.spool.open(1000.0, 0.0)
        self.names = RecordEncoder(Counters("test"))
        batch = Batch(
            Schema([known("interfaceName"), known("flowId")]),
            {"interfaceName": Octets.of([b"eth0", b"", b"x" * 300]), "flowId": np.arange(3, dtype=np.uint64)},
            n=3, now=0.0,
        )  # fmt: skip
        builder = MessageBuilder(1000)
        blocks = [m for records in self.names.records(batch) for m in builder.add(records)] + builder.flush()
        self.spool.append(blocks, self.names.templates, 1, 1000.0, 0.0)

    def read(self, templates):
        """What another reader sees of the file, sent with these templates."""
        _, blocks = self.spool.take(templates)
        reader = Reader()
        for octets in template_messages(list(templates.values()), 65535, 0, 1, 1000.0):
            reader.message(octets)
        for block in blocks:
            for row in block.stamped(reader._next, 1, 1000.0):
                reader.message(row.tobytes())
        self.assertEqual(([], 0), (reader.gaps, reader.unreadable))
        return [(record[82], record[148]) for _, record in reader.records]

    EXPECTED = [(b"eth0", 0), (b"", 1), (b"x" * 300, 2)]

    def test_varying(self):
        """Records of variable length are counted one by one."""
        templates = {}
        self.assertEqual(self.EXPECTED, self.read(templates))
        self.assertEqual(self.names.templates, templates)

    def test_another_has_the_number(self):
        """Then the template of the file gets another one."""
        (ident,) = self.names.templates
        other = Template(ident, (Field(0, 1, 8),))
        templates = {ident: other}
        self.assertEqual(self.EXPECTED, self.read(templates))
        self.assertEqual({ident: other, ident + 1: Template(ident + 1, self.names.templates[ident].fields)}, templates)

    def test_narrower_path(self):
        """Messages with records of variable length can be cut anew."""
        _, blocks = self.spool.take(templates := {})
        narrow = [m for block in blocks for m in recut(block, 350, templates)]
        self.assertEqual((3, True), (sum(m.all_records for m in narrow), all(m.length <= 350 for m in narrow)))
        self.assertGreater(len(narrow), 1)
