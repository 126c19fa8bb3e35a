"""Options records of the exporter, as another reader sees them."""

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.exporting.doubles import Reader, flows
from tests.unit.ipfix.wire import Collected
from tests.unit.plugins.outputs.test_ipfix import ExporterCase
from ulogd_tw.core.counters import Counters
from ulogd_tw.ipfix import statements
from ulogd_tw.ipfix.builder import MessageBuilder, template_messages
from ulogd_tw.ipfix.record_encoder import RecordEncoder
from ulogd_tw.ipfix.template import Field, Template
from ulogd_tw.ipfix.wire_format import IPFIX
from ulogd_tw.plugins.inputs.nfct import NFCT


class TellingCase(ExporterCase):
    """An exporter whose clock is moved on by `after`."""

    def start(self, *batches, **options):
        collectors = options.pop("collectors", ("udp:192.0.2.1",))
        plugin = self.exporter(*batches or [flows(1)], collectors=collectors, flush=0.5, **options)
        self.reader = Reader()
        self._read = 0
        return plugin

    def after(self, plugin, seconds):
        """The options records that go out meanwhile, by their elements; several of one kind are a list."""
        for _ in range(int(seconds)):
            self.clock_on(plugin)
        for datagram in self.sockets[-1].sent[self._read :]:
            self.reader.message(datagram)
            self._read += 1
        self.assertEqual(([], 0), (self.reader.gaps, self.reader.unreadable))
        told, self.reader.told = self.reader.told, []
        found = {}
        for _, record in told:
            found.setdefault(frozenset(record), []).append(record)
        return found

    def clock_on(self, plugin):
        self.tick(plugin, 1.0)

    def having(self, told, element):
        """The records with this element."""
        return [record for records in told.values() for record in records if element in record]


class OptionsTests(TellingCase):
    """Over UDP."""

    def test_interval(self):
        """MSG-3: they come when the session is one interval old, and after each further one; their data count."""
        plugin = self.start(options_interval=10.0)
        plugin.write(flows(5))
        self.assertEqual({}, self.after(plugin, 9))
        self.assertEqual(1, len(self.having(self.after(plugin, 3), 305)))
        self.assertEqual({}, self.after(plugin, 5))
        self.assertEqual(1, len(self.having(self.after(plugin, 5), 305)))
        plugin.write(flows(1))
        self.after(plugin, 1)  # no gap in the sequence: `after` looks
        figures = plugin.collectors[0].figures()
        self.assertEqual(figures["records_sent"], 12 + figures["options_sent"])

    def test_never(self):
        plugin = self.start(options_interval=0.0)
        plugin.write(flows(5))
        self.assertEqual({}, self.after(plugin, 100))

    def test_nothing_to_talk_about(self):
        """As long as no flow was sent nothing is told."""
        self.assertEqual({}, self.after(self.start(options_interval=1.0), 10))

    def test_sampling(self):
        """1 in 1, in the old elements and the new ones; scope is the Observation Domain."""
        plugin = self.start(options_interval=5.0, oid=77)
        plugin.write(flows(1))
        (record,) = self.having(self.after(plugin, 10), 305)
        self.assertEqual({149: 77, 304: 1, 305: 1, 306: 0, 34: 1, 35: 1}, record)

    def test_statistics(self):
        """OPT-4: what was exported: messages, records, octets."""
        plugin = self.start(options_interval=5.0)
        plugin.write(flows(100))
        (record,) = self.having(self.after(plugin, 8), 41)
        sent = self.sockets[-1].sent
        before = sent[: record[41]]
        self.assertEqual((200, sum(map(len, before))), (record[42], record[40]))

    def test_losses_of_the_kernel(self):
        """OPT-5: what the kernel could not tell, with the time of the first and the last loss."""
        plugin = self.start(options_interval=5.0)
        plugin.inputs = (NFCT("ct1"),)
        plugin._reporter._inputs = plugin.inputs
        plugin.write(flows(1))
        (record,) = self.having(self.after(plugin, 8), 164)
        self.assertEqual((0, 0), (record[164], record[323]))
        plugin.inputs[0].counters.lost["kernel"] = 17
        (record,) = self.having(self.after(plugin, 5), 164)
        self.assertEqual(17, record[164])
        self.assertLess(abs(plugin.clock() * 1000 - record[323]), 5000)

    def test_losses_of_the_exporter(self):
        """OPT-6: records that were not sent, and the packets and octets that they spoke of."""
        plugin = self.start(collectors=("tcp:192.0.2.1", "udp:192.0.2.2"), options_interval=5.0, collector_octets=4000)
        plugin.write(flows(500))
        plugin.write(flows(500))
        plugin.flush()
        plugin.collectors[0].trim()
        lost = plugin.collectors[0].dropped["queue_full"]
        self.assertGreater(lost, 900)
        self.connect()
        (record,) = [r for _, r in self.streamed(plugin, 8).told if 166 in r]
        self.assertEqual(lost, record[166])
        self.assertGreater(record[167], 10 * lost - 1)
        self.assertGreater(record[168], 1000 * lost // 2)

    def streamed(self, plugin, seconds):
        """What the TCP collector reads."""
        reader = Reader()
        for _ in range(seconds):
            self.clock_on(plugin)
        reader.stream(self.transports[-1].taken())
        return reader

    def test_flow_keys(self):
        """OPT-7: which fields tell flows apart: addresses, ports, protocol; not their number."""
        plugin = self.start(options_interval=5.0)
        plugin.write(flows(1))
        (record,) = self.having(self.after(plugin, 8), 173)
        fields = [element for element, _ in self.reader.templates[record[145]]]
        keys = {element for place, element in enumerate(fields) if record[173] >> place & 1}
        self.assertEqual({8, 12, 7, 11, 4}, keys)

    def test_types_of_elements(self):
        """TY-1: what the elements of an enterprise are (RFC 5610)."""
        marked = flows(1, ct__mark=5)
        plugin = self.start(marked, options_interval=5.0, fields="orig.ip.saddr,ct.mark,reply.raw.pktlen")
        plugin.write(marked)
        ((ident, record),) = [(i, r) for i, r in self.told(plugin) if 341 in r]
        self.assertEqual({346: 21373, 303: 4, 339: 3, 344: 0, 345: 0, 341: b"mark"}, record)
        self.assertEqual(2, self.reader.scopes[ident])

    def told(self, plugin):
        found = []
        for _ in range(8):
            self.clock_on(plugin)
        for datagram in self.sockets[-1].sent:
            self.reader.message(datagram)
        found += self.reader.told
        return found

    def test_types_once(self):
        """TY-4: over TCP the types of elements are told once in a session; over UDP again each time."""
        marked = flows(1, ct__mark=5)
        fields = "orig.ip.saddr,ct.mark"
        plugin = self.start(marked, collectors=("tcp:192.0.2.1", "udp:192.0.2.2"), options_interval=3.0, fields=fields)
        self.connect()
        plugin.write(marked)
        over_tcp = [record for _, record in self.streamed(plugin, 14).told if 341 in record]
        over_udp = self.having(self.after(plugin, 1), 341)
        self.assertEqual((1, True), (len(over_tcp), len(over_udp) > 2))

    def test_our_collector(self):
        """Our own collector reads all of them without a complaint, and takes what was lost from them."""
        plugin = self.start(options_interval=5.0)
        plugin.write(flows(5))
        self.after(plugin, 8)
        collected = Collected()
        rows = [row for d in self.sockets[-1].sent for batch in collected.batches(d) for row in batch.rows()]
        self.assertEqual(({}, 0), (collected.errors, collected.lost))
        self.assertEqual(10, sum(row["record_kind"] == b"data" for row in rows))
        self.assertGreaterEqual(sum(row["record_kind"] == b"options" for row in rows), 4)

    def test_netflow9(self):
        """Sampling, in the form of RFC 3954: scope 1 is the system."""
        plugin = self.start(options_interval=5.0, version="9")
        plugin.write(flows(5))
        for _ in range(8):
            self.clock_on(plugin)
        collected = Collected()
        rows = [row for d in self.sockets[-1].sent for batch in collected.batches(d) for row in batch.rows()]
        (options,) = [row for row in rows if row["record_kind"] == b"options"]
        self.assertEqual(({}, 0), (collected.errors, collected.lost))
        self.assertEqual((1, 1, 1), tuple(options[n] for n in ("scopeSystem", "samplingInterval", "samplingAlgorithm")))


class StatementsTests(SynchronousTestCase):
    """Statements that no session is needed for."""

    def test_interfaces(self):
        outgoing = RecordEncoder(Counters("test"))
        records = statements.interface_names(outgoing, {1: "lo", 7: "eth0"})
        reader = Reader()
        for octets in template_messages(list(outgoing.templates.values()), 1400, 0, 1, 0, IPFIX):
            reader.message(octets)
        builder = MessageBuilder(1400)
        for block in builder.add(records) + builder.flush():
            for row in block.stamped(0, 1, 0):
                reader.message(row.tobytes())
        self.assertEqual([{10: 1, 82: b"lo"}, {10: 7, 82: b"eth0"}], [record for _, record in reader.told])
        self.assertTrue(statements.tells_interfaces([Template(256, (Field(0, 14, 4),))]))
        self.assertFalse(statements.tells_interfaces([Template(256, (Field(29305, 14, 4),))]))
